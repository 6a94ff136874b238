//! Logs, counters, histograms and the access log.

mod access;
mod gather;
mod lines;
mod log_file;
mod logs;
mod metric;
mod process;
mod registry;
mod writer;

pub use access::{AccessLog, Event};
pub use log_file::LogFile;
pub use logs::Logs;
pub use metric::{Counter, Distribution, Gauge, Histogram, become_worker};
pub use registry::Registry;
