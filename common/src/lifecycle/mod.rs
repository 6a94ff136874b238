//! Drain, signals, readiness, start-up checks.

pub use crate::net::{Drain, Phase};
