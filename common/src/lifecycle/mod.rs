//! From the outside world to the program: signals, the service manager, the machine's limits.

mod checks;
pub mod handover;
mod signals;
mod systemd;

pub use crate::net::{Drain, Phase};
pub use checks::{Finding, Limits, Plan, findings, raise_open_files};
pub use signals::{Signal, Signals};
pub use systemd::ServiceManager;
