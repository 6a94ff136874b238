//! The program's own log, on standard error. Whoever logs never waits for it.

use std::io::{self, IsTerminal};

use serde_json::json;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::lines::Lines;
use super::registry;
use crate::config::{Log, LogFormat};

/// A filter in this variable goes before the configured level: for a look at a running problem.
const VARIABLE: &str = "GROOVE_LOG";

/// The log of the process, whose level a reload may change.
#[derive(Debug, Clone)]
pub struct Logs {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
}

impl Logs {
    /// Sets up the process's log. There can be one.
    pub fn start(config: &Log) -> io::Result<Self> {
        let (filter, handle) = reload::Layer::new(filter(config));
        let human = match config.format {
            LogFormat::Human => true,
            LogFormat::Json => false,
            LogFormat::Auto => io::stderr().is_terminal(),
        };
        let lines = Lines::start(io::stderr(), if human { lost_for_people } else { lost_as_json })?;
        let layer = fmt::layer().with_writer(lines.clone()).with_target(!human);
        let layer = if human {
            layer.with_ansi(io::stderr().is_terminal()).compact().boxed()
        } else {
            layer.json().flatten_event(true).with_current_span(false).boxed()
        };
        tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(io::Error::other)?;
        let last_words = lines.clone();
        std::panic::set_hook(Box::new(move |panic| {
            let backtrace = std::backtrace::Backtrace::force_capture();
            tracing::error!(%panic, %backtrace, "a defect: please report it");
            last_words.flush();
        }));
        Ok(Self { filter: handle, lines })
    }

    /// Counts lines that were lost because nobody read them fast enough.
    pub fn count(&self, registry: &registry::Registry) {
        let help = "Lines of the log that were lost: standard error took them too slowly";
        self.lines.count(registry.counter("groove_log_lines_lost", help, &[]));
    }

    /// Waits until what was logged is written, a second at the most.
    pub fn flush(&self) {
        self.lines.flush();
    }

    /// Takes the level of a new configuration. The format stays until the next start.
    pub fn reload(&self, config: &Log) {
        if let Err(error) = self.filter.reload(filter(config)) {
            tracing::warn!(%error, "the log level could not be changed");
        }
    }
}

fn lost_for_people(lines: u64) -> String {
    format!("WARN {lines} lines of the log were lost: standard error is not read fast enough\n")
}

fn lost_as_json(lines: u64) -> String {
    let time = humantime::format_rfc3339_micros(std::time::SystemTime::now()).to_string();
    let message = "lines of the log were lost: standard error is not read fast enough";
    format!("{}\n", json!({"timestamp": time, "level": "WARN", "message": message, "lines": lines}))
}

fn filter(config: &Log) -> EnvFilter {
    let written = std::env::var(VARIABLE).ok().filter(|filter| !filter.is_empty());
    // The configured level has been checked; a variable that is not a filter counts as none.
    let parsed = written.and_then(|filter| EnvFilter::try_new(filter).ok());
    parsed.unwrap_or_else(|| EnvFilter::new(&config.level))
}
