//! The classic text protocol: what clients ask, and the answers, which we also hear where we are a client.

mod command;
pub mod items;
mod reply;

pub use command::{command, store};
pub use reply::{DecodeError, Frame, decode, write_value};
