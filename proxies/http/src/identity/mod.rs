//! Who asks, and what this hop adds so that the servers know. Pure: addresses, dice and switches come in as arguments.

pub mod client;
pub mod text;
pub mod trace;

pub use client::client;
pub use text::IpText;
pub use trace::{Traced, Tracing};
