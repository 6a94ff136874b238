//! The access log: one line an exchange, written by a thread of its own.
//!
//! A session decides with one look whether its exchange is logged, writes the line only then, and leaves it in its
//! thread's buffer, which has a bound. When the writer cannot keep up, lines are dropped and counted: the log never
//! slows an exchange down.

use std::cell::RefCell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::gather::Gatherer;
use super::metric::Counter;
use super::registry::Registry;
use crate::ids::Address;

/// A line that was longer is not kept for the next one.
const LINE_BYTES_KEPT_MAX: usize = 16 << 10;

/// One exchange, as it is logged: a JSON object, written as its fields come.
#[derive(Debug)]
pub struct Event {
    line: Vec<u8>,
}

thread_local! {
    static STATE: RefCell<Local> = RefCell::new(Local::new());
}

/// What a thread keeps from one event to the next.
struct Local {
    /// The buffer of its latest line.
    spare: Vec<u8>,
    second: Second,
    /// Of the dice. It must not be zero.
    seed: u64,
}

impl Local {
    fn new() -> Self {
        Self { spare: Vec::new(), second: Second::NONE, seed: RandomState::new().hash_one(0_u8) | 1 }
    }

    /// A number below 2^32, each thread its own sequence (xorshift64*): sampling needs no better.
    fn dice(&mut self) -> u64 {
        let mut x = self.seed;
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        self.seed = x;
        x.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
    }
}

impl Event {
    /// An event of this moment; `request` says what was asked (`get`, `SELECT`).
    pub fn new(request: impl fmt::Display) -> Self {
        Self::begin().show("request", request)
    }

    /// An event of this moment, of a request that is a method and what it is for.
    pub fn asked(method: &[u8], target: &[u8]) -> Self {
        let mut event = Self::begin();
        event.line.extend_from_slice(b",\"request\":\"");
        put_text(method, &mut event.line);
        event.line.push(b' ');
        put_text(target, &mut event.line);
        event.line.push(b'"');
        event
    }

    fn begin() -> Self {
        let now = SystemTime::now();
        let mut line = STATE.with_borrow_mut(|state| {
            let mut line = std::mem::take(&mut state.spare);
            line.clear();
            line.extend_from_slice(b"{\"time\":\"");
            put_time(now, &mut state.second, &mut line);
            line
        });
        line.push(b'"');
        Self { line }
    }

    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        self.name(name);
        // Into memory it goes well; what has no form in JSON has none here.
        let begun = self.line.len();
        if serde_json::to_writer(&mut self.line, &value).is_err() {
            self.line.truncate(begun);
            self.line.extend_from_slice(b"null");
        }
        self
    }

    /// Adds a field with text, which is mostly ASCII.
    #[must_use]
    pub fn text(mut self, name: &str, text: &[u8]) -> Self {
        self.name(name);
        self.line.push(b'"');
        put_text(text, &mut self.line);
        self.line.push(b'"');
        self
    }

    /// Adds a field with a number.
    #[must_use]
    pub fn number(mut self, name: &str, number: u32) -> Self {
        self.name(name);
        put_decimal(number, &mut self.line);
        self
    }

    /// Adds a field with an address: by hand where it is of the usual kind, as that takes a tenth of the time.
    #[must_use]
    pub fn socket(mut self, name: &str, address: SocketAddr) -> Self {
        let SocketAddr::V4(v4) = address else { return self.show(name, address) };
        self.name(name);
        let mut before = b'"';
        for octet in v4.ip().octets() {
            self.line.push(before);
            put_decimal(octet.into(), &mut self.line);
            before = b'.';
        }
        self.line.push(b':');
        put_decimal(v4.port().into(), &mut self.line);
        self.line.push(b'"');
        self
    }

    /// The same, of a server.
    #[must_use]
    pub fn address(mut self, name: &str, address: &Address) -> Self {
        let Address::Tcp { host, port } = address else { return self.show(name, address) };
        if host.contains(':') {
            return self.show(name, address);
        }
        self.name(name);
        self.line.push(b'"');
        put_text(host.as_bytes(), &mut self.line);
        self.line.push(b':');
        put_decimal((*port).into(), &mut self.line);
        self.line.push(b'"');
        self
    }

    /// Adds a field with whatever can be shown: addresses, kinds of errors.
    #[must_use]
    pub fn show(self, name: &str, value: impl fmt::Display) -> Self {
        self.with(name, Shown(value))
    }

    /// Adds a length of time, in milliseconds; `name` should end in `_ms`.
    #[must_use]
    pub fn time(mut self, name: &str, took: Duration) -> Self {
        self.name(name);
        // Three digits are microseconds; more would be noise.
        match u32::try_from(took.as_millis()) {
            Ok(ms) => put_decimal(ms, &mut self.line),
            Err(_) => self.line.extend_from_slice(took.as_millis().to_string().as_bytes()),
        }
        self.line.push(b'.');
        put_digits(took.subsec_micros() % 1000, 3, &mut self.line);
        self
    }

    fn name(&mut self, name: &str) {
        self.line.extend_from_slice(b",\"");
        self.line.extend_from_slice(name.as_bytes());
        self.line.extend_from_slice(b"\":");
    }

    /// The whole line.
    fn end(mut self) -> Vec<u8> {
        self.line.extend_from_slice(b"}\n");
        self.line
    }
}

/// What is logged as it is shown.
struct Shown<T>(T);

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A second, and what is written of every moment in it: a date takes much longer to find than a few digits.
#[derive(Debug, Clone, Copy)]
struct Second {
    unix_s: u64,
    text: [u8; SECOND_BYTES],
}

/// `2026-01-02T03:04:05`
const SECOND_BYTES: usize = 19;

impl Second {
    const NONE: Self = Self { unix_s: u64::MAX, text: [0; SECOND_BYTES] };

    fn of(unix_s: u64) -> Self {
        let at = UNIX_EPOCH + Duration::from_secs(unix_s);
        let mut text = [0; SECOND_BYTES];
        let written = humantime::format_rfc3339_seconds(at).to_string();
        text.iter_mut().zip(written.bytes()).for_each(|(to, byte)| *to = byte);
        Self { unix_s, text }
    }
}

/// A moment as RFC 3339 has it, with microseconds.
fn put_time(at: SystemTime, second: &mut Second, line: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    if second.unix_s != since.as_secs() {
        *second = Second::of(since.as_secs());
    }
    line.extend_from_slice(&second.text);
    line.push(b'.');
    put_digits(since.subsec_micros(), 6, line);
    line.push(b'Z');
}

/// So many of a number's last digits.
fn put_digits(mut number: u32, count: usize, line: &mut Vec<u8>) {
    let mut digits = [b'0'; DIGITS_MAX];
    for digit in digits.iter_mut().rev().take(count) {
        *digit += u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
    line.extend_from_slice(digits.get(DIGITS_MAX - count.min(DIGITS_MAX)..).unwrap_or_default());
}

fn put_decimal(number: u32, line: &mut Vec<u8>) {
    put_digits(number, number.checked_ilog10().unwrap_or_default() as usize + 1, line);
}

/// Of a `u32`.
const DIGITS_MAX: usize = 10;

/// Text within quotes. What no text can be is replaced by the sign for that.
fn put_text(text: &[u8], line: &mut Vec<u8>) {
    // All bytes are looked at, so that many are at once.
    let is_plain = |byte: &u8| (b' '..=b'~').contains(byte) & (*byte != b'"') & (*byte != b'\\');
    if text.iter().fold(true, |all, byte| all & is_plain(byte)) {
        line.extend_from_slice(text);
        return;
    }
    let begun = line.len();
    // Into memory it goes well.
    serde_json::to_writer(&mut *line, &String::from_utf8_lossy(text)).unwrap_or_default();
    // Without its quotes.
    line.pop();
    line.remove(begun);
}

/// Where sessions leave their events. Clones share it.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    /// Of 2^32 exchanges, how many are logged; changed by a reload.
    sample: AtomicU64,
    lines: Gatherer,
    written: Counter,
    dropped: Counter,
}

impl AccessLog {
    /// Starts the writer; lines go to `out`. Nothing is logged until [`Self::set_sample`].
    pub fn start(registry: &Registry, out: impl Write + Send + 'static) -> io::Result<Self> {
        let counter = |name, help| registry.counter(name, help, &[]);
        let shared = Shared {
            sample: AtomicU64::new(0),
            lines: Gatherer::start("access-log", registry.workers(), out)?,
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
        if sample == 0 || !(failed || STATE.with_borrow_mut(Local::dice) < sample - 1) {
            return;
        }
        let line = event().end();
        match self.shared.lines.put(&line) {
            true => self.shared.written.inc(),
            false => self.shared.dropped.inc(),
        }
        if line.capacity() <= LINE_BYTES_KEPT_MAX {
            STATE.with_borrow_mut(|state| state.spare = line);
        }
    }

    /// Waits until everything recorded up to now has been written, a second at the most.
    pub fn flush(&self) {
        self.shared.lines.flush();
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("sample", &self.shared.sample).finish_non_exhaustive()
    }
}

const ALL: u64 = 1 << 32;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc::{Receiver, Sender};

    use serde_json::Value;

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
        let all = 10_000;
        (0..all).for_each(|_| log.record(false, || Event::new("x".repeat(1000))));
        let (written, dropped) = (log.shared.written.get(), log.shared.dropped.get());
        assert!(written >= 1000 && dropped >= 5000, "{written} {dropped}");
        assert_eq!(written + dropped, all);
        drop(go);
    }

    #[test]
    fn moments_are_written_as_rfc_3339_has_them() {
        let mut second = Second::NONE;
        let mut text = |unix_us| {
            let mut line = Vec::new();
            put_time(UNIX_EPOCH + Duration::from_micros(unix_us), &mut second, &mut line);
            String::from_utf8(line).unwrap()
        };
        for us in [0, 999_999, 1_000_000, 1_767_225_599_000_001, 1_767_225_599_000_002, 1_709_164_800_100_000]
        {
            let at = UNIX_EPOCH + Duration::from_micros(us);
            assert_eq!(text(us), humantime::format_rfc3339_micros(at).to_string());
        }
    }

    #[test]
    fn whatever_is_shown_is_json_and_times_keep_their_zeros() {
        let event = Event::new("a \"quoted\" \n\u{1} word")
            .show("cut", "\\")
            .with("flag", true)
            .time("a_ms", Duration::from_micros(5))
            .time("b_ms", Duration::from_secs(5_000_000));
        let line: Value = serde_json::from_slice(&event.end()).unwrap();
        assert_eq!(line["request"], "a \"quoted\" \n\u{1} word");
        assert_eq!((&line["cut"], &line["flag"]), (&"\\".into(), &true.into()));
        assert_eq!((&line["a_ms"], &line["b_ms"]), (&0.005.into(), &5e9.into()));
        let event = Event::asked(b"GET", b"/\xff\"\x07")
            .text("plain", b"a ~")
            .text("none", b"")
            .text("cut", b"\\")
            .number("zero", 0)
            .number("most", u32::MAX)
            .socket("four", "10.0.200.1:80".parse().unwrap())
            .socket("six", "[::1]:80".parse().unwrap())
            .address("name", &Address::tcp("db", 5432))
            .address("six too", &Address::tcp("::1", 80));
        let line: Value = serde_json::from_slice(&event.end()).unwrap();
        assert_eq!((&line["request"], &line["plain"]), (&"GET /\u{fffd}\"\u{7}".into(), &"a ~".into()));
        assert_eq!((&line["none"], &line["cut"]), (&"".into(), &"\\".into()));
        assert_eq!((&line["zero"], &line["most"]), (&0.into(), &u32::MAX.into()));
        assert_eq!((&line["name"], &line["six too"]), (&"db:5432".into(), &"[::1]:80".into()));
        assert_eq!((&line["four"], &line["six"]), (&"10.0.200.1:80".into(), &"[::1]:80".into()));
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
