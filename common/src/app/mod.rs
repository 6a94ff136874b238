//! From start to drain: the command line and the program around a proxy.

mod proxy;

pub use proxy::{Context, DemoRow, Proxy, StartError};

use std::process::ExitCode;

/// The whole program; a proxy's `main.rs` calls nothing else.
pub fn main<P: Proxy>() -> ExitCode {
    ExitCode::from(2)
}
