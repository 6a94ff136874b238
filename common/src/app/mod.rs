//! From start to drain: the command line and the program around a proxy.

mod cli;
mod handover;
mod proxy;
mod reload;
mod routes;
mod run;
mod running;
mod table;

pub use cli::main;
pub use proxy::{Context, Control, DemoRow, Proxy, Resumed, StartError};
pub use running::{Drained, Running};
pub use table::Table;
