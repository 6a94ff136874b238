//! A thread of its own for a stream that may block, like a pipe that nobody reads. What it has no room for is
//! refused: whoever brings it counts it and goes on.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long a flush waits for a stream that blocks.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// Between two looks for room in a full queue.
const PAUSE: Duration = Duration::from_millis(2);

/// Where the thread leaves what comes.
pub(super) trait Sink<T>: Send + 'static {
    /// Takes one. An error ends the thread, and all that comes later is refused.
    fn write(&mut self, item: T) -> io::Result<()>;

    /// Nothing more waits just now, or somebody waits for what was taken. Errors as above.
    fn flush(&mut self) -> io::Result<()>;
}

enum Message<T> {
    Item(T),
    /// Answered once everything before it has been written.
    Flush(SyncSender<()>),
}

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Writer<T> {
    queue: SyncSender<Message<T>>,
}

impl<T: Send + 'static> Writer<T> {
    /// Starts a thread of this name; up to `waiting_max` wait for it.
    pub(super) fn start(name: &str, waiting_max: usize, sink: impl Sink<T>) -> io::Result<Self> {
        let (queue, messages) = sync_channel(waiting_max);
        let run = move || {
            let mut asked = None;
            write_all(&messages, sink, &mut asked).unwrap_or_default();
            // Whoever waits for a flush that failed finds afterwards that all is refused.
            drop(messages);
            drop(asked);
        };
        thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Self { queue })
    }

    /// Whether there was room for it.
    pub(super) fn put(&self, item: T) -> bool {
        self.queue.try_send(Message::Item(item)).is_ok()
    }

    /// Waits until what was put up to now is written, but not for ever.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_MAX;
        let (done, written) = sync_channel(1);
        let mut flush = Message::Flush(done);
        loop {
            match self.queue.try_send(flush) {
                Ok(()) => break,
                // There is room as soon as something is written.
                Err(TrySendError::Full(again)) if Instant::now() < deadline => flush = again,
                // A writer that is stuck or gone is not waited for.
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return,
            }
            thread::sleep(PAUSE);
        }
        written.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or_default();
    }
}

/// Writes what comes. `asked` is who waits for the flush that has failed.
fn write_all<T>(
    messages: &Receiver<Message<T>>,
    mut sink: impl Sink<T>,
    asked: &mut Option<SyncSender<()>>,
) -> io::Result<()> {
    while let Ok(first) = messages.recv() {
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Item(item) => sink.write(item)?,
                Message::Flush(done) => {
                    *asked = Some(done);
                    sink.flush()?;
                    *asked = None;
                }
            }
        }
        sink.flush()?;
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod testing {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Gives what is written to a test, and waits for leave before each write.
    pub(crate) struct Gated {
        written: Sender<Vec<u8>>,
        leave: Receiver<()>,
    }

    /// The stream, what was written to it, and the leave to write: for ever, once it is dropped.
    pub(crate) fn gated() -> (Gated, Receiver<Vec<u8>>, Sender<()>) {
        let ((written, seen), (go, leave)) = (channel(), channel());
        (Gated { written, leave }, seen, go)
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.leave.recv().unwrap_or_default();
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

    use super::*;

    /// Takes an item, or flushes, once it has leave to; fails with a 0.
    struct Slow {
        items: Receiver<()>,
        flushes: Receiver<()>,
        flushed: Sender<()>,
    }

    impl Sink<u8> for Slow {
        fn write(&mut self, item: u8) -> io::Result<()> {
            self.items.recv().unwrap_or_default();
            if item == 0 { Err(ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            self.flushes.recv().unwrap_or_default();
            self.flushed.send(()).map_err(io::Error::other)
        }
    }

    /// A writer, what gives leave for an item and for a flush, and what tells of the latter.
    fn slow() -> (Writer<u8>, Sender<()>, Sender<()>, Receiver<()>) {
        let ((item, items), (flush, flushes), (flushed, told)) = (channel(), channel(), channel());
        let writer = Writer::start("test", 8, Slow { items, flushes, flushed }).unwrap();
        (writer, item, flush, told)
    }

    #[test]
    fn what_is_put_is_flushed_though_nobody_asks() {
        let (writer, item, flush, told) = slow();
        drop((item, flush));
        assert!(writer.put(1));
        assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(()));
    }

    #[test]
    fn a_flush_is_answered_when_all_before_it_is_flushed() {
        let (writer, item, _flush, _told) = slow();
        let (done, written) = sync_channel(1);
        assert!(writer.put(1));
        writer.queue.try_send(Message::Flush(done)).unwrap();
        // Both are taken in one go, as the first waits for leave.
        drop(item);
        assert_eq!(written.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn a_flush_does_not_wait_for_ever() {
        let (writer, _item, _flush, _told) = slow();
        assert!(writer.put(1));
        let begun = Instant::now();
        writer.flush();
        assert!(begun.elapsed() >= FLUSH_MAX, "{:?}", begun.elapsed());
    }

    #[test]
    fn after_an_error_all_is_refused() {
        let (writer, item, _flush, _told) = slow();
        assert!(writer.put(0));
        drop(item);
        writer.flush();
        assert!(!writer.put(1));
    }
}
