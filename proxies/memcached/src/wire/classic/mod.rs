//! The classic text protocol.

mod reply;

pub use reply::{DecodeError, Frame, decode, write_value};
