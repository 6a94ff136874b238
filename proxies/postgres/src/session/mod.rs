//! One client's session.
//!
//! [`state`] is the machine and knows no socket; [`driver`] moves the bytes; [`handshake`] is the way in,
//! [`reclaim`] what becomes of a server connection whose client left it in the midst of something.

pub mod cancel;
pub mod driver;
pub mod handover;
pub mod handshake;
mod lease;
pub mod names;
pub mod prepared;
pub mod reclaim;
pub mod settings;
pub mod state;
pub mod survey;

pub use lease::Lease;
