//! Lines for a stream that may block, like standard error on a pipe that nobody reads: a thread of its own writes
//! them. What it has no room for is lost and counted, and the log says so once it can.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use super::metric::Counter;

/// Lines that wait to be written.
const QUEUE: usize = 4096;
/// No line is longer; the rest of it is lost.
const LINE_BYTES_MAX: usize = 16 << 10;
/// How long the end of the program waits for a stream that blocks.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Between two looks for room in a full queue.
const PAUSE: Duration = Duration::from_millis(2);

/// What goes to the writer.
enum Message {
    Line(Vec<u8>),
    /// Answered once everything before it has been written.
    Flush(SyncSender<()>),
}

/// Where lines are left. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    queue: SyncSender<Message>,
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
        let (queue, messages) = sync_channel(QUEUE);
        let lost = Arc::<Lost>::default();
        let theirs = Arc::clone(&lost);
        let run = move || write_all(&messages, out, &theirs.lines, notice);
        thread::Builder::new().name("log".to_owned()).spawn(run)?;
        Ok(Self { queue, lost })
    }

    /// Counts lost lines there from now on, those of before included.
    pub(super) fn count(&self, counter: Counter) {
        counter.add(self.lost.lines.load(Ordering::Relaxed));
        // Counted once: a second counter of the process would be a defect, but no reason to end it.
        self.lost.counter.set(counter).unwrap_or_default();
    }

    /// Waits until what was logged up to now is written, but not for ever.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_MAX;
        let (done, written) = sync_channel(1);
        let mut flush = Message::Flush(done);
        loop {
            match self.queue.try_send(flush) {
                Ok(()) => break,
                // There is room as soon as a line is written.
                Err(TrySendError::Full(again)) if Instant::now() < deadline => flush = again,
                // A writer that is stuck or gone is not waited for.
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(PAUSE);
        }
        written.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
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
        if self.lines.queue.try_send(Message::Line(bytes)).is_err() {
            self.lines.lost.lines.fetch_add(1, Ordering::Relaxed);
            if let Some(counter) = self.lines.lost.counter.get() {
                counter.inc();
            }
        }
    }
}

/// Writes what comes, each line with one call.
fn write_all(messages: &Receiver<Message>, mut out: impl Write, lost: &AtomicU64, notice: fn(u64) -> String) {
    let mut told = 0;
    while let Ok(message) = messages.recv() {
        match message {
            // A stream that fails is no reason to stop: it may be another one's full disk.
            Message::Line(bytes) => out.write_all(&bytes).unwrap_or_default(),
            Message::Flush(done) => drop(done),
        }
        let now = lost.load(Ordering::Relaxed);
        if now > told {
            out.write_all(notice(now - told).as_bytes()).unwrap_or_default();
            told = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::telemetry::Registry;

    /// Gives what is written to a test, and waits for leave before each write.
    struct Gated {
        written: Sender<Vec<u8>>,
        leave: Receiver<()>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Leave for ever, once the test has dropped its end.
            self.leave.recv().unwrap_or_default();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stream_that_blocks_costs_lines_and_no_time() {
        let ((written, seen), (go, leave)) = (channel(), channel());
        let lines = Lines::start(Gated { written, leave }, |lost| format!("{lost} lost\n")).unwrap();
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
        let ((written, seen), (go, leave)) = (channel(), channel());
        drop(go);
        let lines = Lines::start(Gated { written, leave }, |_| String::new()).unwrap();
        let mut line = lines.make_writer();
        for _ in 0..10 {
            line.write_all(&[b'x'; 4 << 10]).unwrap();
        }
        drop(line);
        lines.flush();
        let line = seen.recv().unwrap();
        assert_eq!((line.len(), line.last()), (LINE_BYTES_MAX + 1, Some(&b'\n')));
    }
}
