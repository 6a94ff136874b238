//! Lines for a stream that may block, like standard error on a pipe that nobody reads: a thread of its own writes
//! them. What it has no room for is lost and counted, and the log says so once it can.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use tracing_subscriber::fmt::MakeWriter;

use super::metric::Counter;
use super::writer::{Sink, Writer};

/// Lines that wait to be written.
const QUEUE: usize = 4096;
/// No line is longer; the rest of it is lost.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Where lines are left. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    writer: Writer<Vec<u8>>,
    lost: Arc<Lost>,
}

/// How many lines were lost.
#[derive(Debug, Default)]
struct Lost {
    lines: AtomicU64,
    /// The same as a metric, once there are metrics.
    counter: OnceLock<Counter>,
}

impl Lines {
    /// Starts the writer; lines go to `out`, and after a loss the line that `notice` makes of its number.
    pub(super) fn start(out: impl Write + Send + 'static, notice: fn(u64) -> String) -> io::Result<Self> {
        let lost = Arc::<Lost>::default();
        let stream = Stream { out, lost: Arc::clone(&lost), told: 0, notice };
        Ok(Self { writer: Writer::start("log", QUEUE, stream)?, lost })
    }

    /// Counts lost lines there from now on, those of before included.
    pub(super) fn count(&self, counter: Counter) {
        counter.add(self.lost.lines.load(Ordering::Relaxed));
        // Counted once: a second counter of the process would be a defect, but no reason to end it.
        self.lost.counter.set(counter).unwrap_or_default();
    }

    /// Waits until what was logged up to now is written, but not for ever.
    pub(super) fn flush(&self) {
        self.writer.flush();
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, bytes: Vec::new() }
    }
}

/// One line, which is on its way when it is dropped.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.len() == LINE_BYTES_MAX {
            bytes.push(b'\n');
        }
        if !self.lines.writer.put(bytes) {
            self.lines.lost.lines.fetch_add(1, Ordering::Relaxed);
            if let Some(counter) = self.lines.lost.counter.get() {
                counter.inc();
            }
        }
    }
}

/// Where they go, each line with one call.
struct Stream<W> {
    out: W,
    lost: Arc<Lost>,
    /// Of what was lost, how much has been told.
    told: u64,
    notice: fn(u64) -> String,
}

impl<W: Write + Send + 'static> Sink<Vec<u8>> for Stream<W> {
    fn write(&mut self, line: Vec<u8>) -> io::Result<()> {
        // A stream that fails is no reason to stop: it may be another one's full disk.
        self.out.write_all(&line).unwrap_or_default();
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        let lost = self.lost.lines.load(Ordering::Relaxed);
        if lost > self.told {
            self.out.write_all((self.notice)(lost - self.told).as_bytes()).unwrap_or_default();
            self.told = lost;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Registry;
    use crate::telemetry::writer::testing::gated;

    #[test]
    fn a_stream_that_blocks_costs_lines_and_no_time() {
        let (stream, seen, go) = gated();
        let lines = Lines::start(stream, |lost| format!("{lost} lost\n")).unwrap();
        let counter = Registry::new(0).counter("groove_test", "", &[]);
        for number in 0..2 * QUEUE {
            lines.make_writer().write_all(format!("line {number}\n").as_bytes()).unwrap();
            if number == 3 * QUEUE / 2 {
                lines.count(counter.clone());
            }
        }
        let lost = counter.get();
        assert!((QUEUE as u64 - 1..=QUEUE as u64).contains(&lost), "{lost}");
        drop(go);
        lines.flush();
        let seen: Vec<_> = seen.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(seen[0], "line 0\n");
        assert_eq!(seen[1], format!("{lost} lost\n"));
        assert_eq!(seen.len() as u64, 2 * QUEUE as u64 - lost + 1);
    }

    #[test]
    fn a_line_has_an_end() {
        let (stream, seen, go) = gated();
        drop(go);
        let lines = Lines::start(stream, |_| String::new()).unwrap();
        let mut line = lines.make_writer();
        for _ in 0..10 {
            line.write_all(&[b'x'; 4 << 10]).unwrap();
        }
        drop(line);
        lines.flush();
        let line = seen.recv().unwrap();
        assert_eq!((line.len(), line.last()), (LINE_BYTES_MAX + 1, Some(&b'\n')));
    }

    /// Has no room for its first line.
    struct Full<W>(W, bool);

    impl<W: Write> Write for Full<W> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match std::mem::take(&mut self.1) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => self.0.write(bytes),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn a_disk_that_was_full_gets_the_lines_that_come_later() {
        let (stream, seen, go) = gated();
        drop(go);
        let lines = Lines::start(Full(stream, true), |_| String::new()).unwrap();
        for line in ["one\n", "two\n"] {
            lines.make_writer().write_all(line.as_bytes()).unwrap();
        }
        lines.flush();
        assert_eq!(seen.try_recv(), Ok(b"two\n".to_vec()));
    }
}
