//! The access log: one line an exchange, written by a thread of its own.
//!
//! A session decides with one look whether its exchange is logged, builds the event only then, and leaves
//! it in a bounded channel. When the writer cannot keep up, events are dropped and counted: the log never
//! slows an exchange down.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::metric::Counter;
use super::registry::Registry;
use super::writer::{Sink, Writer};

/// Events that wait to be written.
const QUEUE: usize = 8192;

/// One exchange, as it will be logged: a JSON object.
#[derive(Debug, Clone)]
pub struct Event {
    at: SystemTime,
    fields: Map<String, Value>,
}

impl Event {
    /// An event of this moment; `request` says what was asked (`get`, `GET /`, `SELECT`).
    pub fn new(request: impl Into<Value>) -> Self {
        let mut fields = Map::new();
        fields.insert("request".to_owned(), request.into());
        Self { at: SystemTime::now(), fields }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a field with whatever can be shown: addresses, kinds of errors.
    #[must_use]
    pub fn show(self, name: &str, value: impl fmt::Display) -> Self {
        self.with(name, value.to_string())
    }

    /// Adds a length of time, in milliseconds; `name` should end in `_ms`.
    #[must_use]
    pub fn time(self, name: &str, took: Duration) -> Self {
        // Three digits are microseconds; more would be noise.
        self.with(name, (took.as_secs_f64() * 1e6).round() / 1e3)
    }
}

/// Where sessions leave their events. Clones share it.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of 2^32 exchanges, how many are logged; changed by a reload.
    sample: AtomicU64,
    writer: Writer<Event>,
    written: Counter,
    dropped: Counter,
}

impl AccessLog {
    /// Starts the writer; lines go to `out`. Nothing is logged until [`Self::set_sample`].
    pub fn start(registry: &Registry, out: impl Write + Send + 'static) -> io::Result<Self> {
        let counter = |name, help| registry.counter(name, help, &[]);
        let shared = Shared {
            sample: AtomicU64::new(0),
            writer: Writer::start("access-log", QUEUE, io::BufWriter::new(out))?,
            written: counter("groove_access_log_events", "Exchanges written to the access log"),
            dropped: counter("groove_access_log_dropped", "Exchanges the access log had no room for"),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The share of exchanges that is logged, 0 to 1; none logs nothing, not even errors.
    pub fn set_sample(&self, share: Option<f64>) {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2^32 after the clamp"
        )]
        let sample = share.map_or(0, |share| (share.clamp(0.0, 1.0) * ALL as f64) as u64 + 1);
        self.shared.sample.store(sample, Ordering::Relaxed);
    }

    /// Logs the exchange if it is its turn, or if it `failed`; only then is the event made.
    #[inline]
    pub fn record(&self, failed: bool, event: impl FnOnce() -> Event) {
        let sample = self.shared.sample.load(Ordering::Relaxed);
        if sample == 0 || !(failed || dice() < sample - 1) {
            return;
        }
        match self.shared.writer.put(event()) {
            true => self.shared.written.inc(),
            false => self.shared.dropped.inc(),
        }
    }

    /// Waits until everything recorded up to now has been written, a second at the most.
    pub fn flush(&self) {
        self.shared.writer.flush();
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("sample", &self.shared.sample).finish_non_exhaustive()
    }
}

const ALL: u64 = 1 << 32;

/// A number below 2^32, each thread its own sequence (xorshift64*): sampling needs no better.
fn dice() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(seed());
    }
    let mut x = STATE.get();
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    STATE.set(x);
    x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
}

fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The state must not be zero.
    RandomState::new().hash_one(0_u8) | 1
}

/// When nobody reads the log any more (a closed pipe), sessions go on and their events are dropped.
impl<W: Write + Send + 'static> Sink<Event> for io::BufWriter<W> {
    fn write(&mut self, event: Event) -> io::Result<()> {
        let mut fields = event.fields;
        let time = humantime::format_rfc3339_micros(event.at).to_string();
        fields.insert("time".to_owned(), time.into());
        serde_json::to_writer(&mut *self, &fields)?;
        self.write_all(b"\n")
    }

    fn flush(&mut self) -> io::Result<()> {
        Write::flush(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender};

    use super::*;
    use crate::telemetry::writer::testing::gated;

    fn log() -> (AccessLog, Receiver<Vec<u8>>, Sender<()>) {
        let (stream, lines, go) = gated();
        let log = AccessLog::start(&Registry::new(0), stream).unwrap();
        (log, lines, go)
    }

    #[test]
    fn an_exchange_is_a_line_of_json() {
        let (log, lines, go) = log();
        drop(go);
        log.set_sample(Some(1.0));
        log.record(false, || {
            Event::new("get")
                .show("peer", "127.0.0.1:5")
                .with("bytes", 64)
                .time("took_ms", Duration::from_micros(1234))
        });
        log.flush();
        let line: Value = serde_json::from_slice(&lines.recv().unwrap()).unwrap();
        assert_eq!(line["request"], "get");
        assert_eq!(line["peer"], "127.0.0.1:5");
        assert_eq!(line["bytes"], 64);
        assert_eq!(line["took_ms"], 1.234);
        assert!(line["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_share_is_logged_and_every_failure() {
        let (log, _lines, go) = log();
        drop(go);
        let made = Cell::new(0);
        let record = |failed| {
            (0..4000).for_each(|_| {
                log.record(failed, || {
                    made.set(made.get() + 1);
                    Event::new("get")
                });
            });
            made.take()
        };
        assert_eq!((record(false), record(true)), (0, 0), "off until it is said how much");
        log.set_sample(Some(0.0));
        assert_eq!((record(false), record(true)), (0, 4000));
        log.set_sample(Some(1.0));
        assert_eq!(record(false), 4000);
        log.set_sample(Some(0.25));
        // Ten standard deviations wide.
        assert!((730..=1270).contains(&record(false)));
    }

    #[test]
    fn a_log_that_cannot_keep_up_loses_events_and_counts_them() {
        let (log, _lines, go) = log();
        log.set_sample(Some(1.0));
        let all = QUEUE * 2;
        // Longer than the writer's buffer: it must write, for which it has no leave.
        (0..all).for_each(|_| log.record(false, || Event::new("x".repeat(9000))));
        let (written, dropped) = (log.shared.written.get(), log.shared.dropped.get());
        assert!(written >= QUEUE as u64 && dropped >= (QUEUE - 10) as u64, "{written} {dropped}");
        assert_eq!(written + dropped, all as u64);
        drop(go);
    }

    #[test]
    fn a_log_that_nobody_reads_any_more_ends_and_what_comes_is_lost() {
        let (stream, lines, go) = gated();
        drop((lines, go));
        let log = AccessLog::start(&Registry::new(0), stream).unwrap();
        log.set_sample(Some(1.0));
        log.record(false, || Event::new("get"));
        log.flush();
        let (written, dropped) = (log.shared.written.get(), log.shared.dropped.get());
        log.record(false, || Event::new("get"));
        assert_eq!((log.shared.written.get(), log.shared.dropped.get()), (written, dropped + 1));
    }
}
