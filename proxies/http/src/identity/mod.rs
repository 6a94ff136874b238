//! Who asks, and what this hop adds so that the servers know. Pure: addresses, dice and switches come in as arguments.

pub mod client;
pub mod trace;

pub use client::client;
pub use trace::{Traced, Tracing};
