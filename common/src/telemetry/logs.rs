//! The program's own log, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

/// A filter in this variable goes before the configured level: for a look at a running problem.
const VARIABLE: &str = "GROOVE_LOG";

/// The log of the process, whose level a reload may change.
#[derive(Debug, Clone)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Logs {
    /// Sets up the process's log. There can be one.
    pub fn start(config: &Log) -> Result<Self, TryInitError> {
        let (filter, handle) = reload::Layer::new(filter(config));
        let human = match config.format {
            LogFormat::Human => true,
            LogFormat::Json => false,
            LogFormat::Auto => io::stderr().is_terminal(),
        };
        let lines = fmt::layer().with_writer(io::stderr).with_target(!human);
        let lines = if human {
            lines.with_ansi(io::stderr().is_terminal()).compact().boxed()
        } else {
            lines.json().flatten_event(true).with_current_span(false).boxed()
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        std::panic::set_hook(Box::new(|panic| {
            let backtrace = std::backtrace::Backtrace::force_capture();
            tracing::error!(%panic, %backtrace, "a defect: please report it");
        }));
        Ok(Self { filter: handle })
    }

    /// Takes the level of a new configuration. The format stays until the next start.
    pub fn reload(&self, config: &Log) {
        if let Err(error) = self.filter.reload(filter(config)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    }
}

fn filter(config: &Log) -> EnvFilter {
    let written = std::env::var(VARIABLE).ok().filter(|filter| !filter.is_empty());
    // The configured level has been checked; a variable that is not a filter counts as none.
    let parsed = written.and_then(|filter| EnvFilter::try_new(filter).ok());
    parsed.unwrap_or_else(|| EnvFilter::new(&config.level))
}
