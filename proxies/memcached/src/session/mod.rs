//! A client's session: the machine that knows the order of things, and the loop around it.

pub mod driver;
mod exchange;
mod flush;
mod guests;
pub mod late;
pub mod mailbox;
pub mod programs;
pub mod reading;
mod several;
pub mod spare;
pub mod state;
mod tapped;
