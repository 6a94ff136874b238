//! Lines of many threads for one stream that may block: each thread leaves them in a buffer of its own, and a thread
//! beside gathers them.
//!
//! ```text
//!  worker 0 ─ put ─► shard 1 ┐  first line, or much of it: wake
//!  worker 1 ─ put ─► shard 2 ├──────────────────────────────────► writer: waits a little, takes all, writes
//!  others ── put ──► shard 0 ┘
//! ```
//!
//! A line costs a copy and a lock that nobody else wants. The writer is woken once for all lines of a moment, not for
//! each. Lines of one thread stay in their order, those of different threads may not.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::metric::mine;

/// The writer waits this long for more lines before it takes them.
const GATHER: Duration = Duration::from_millis(50);
/// But not while a thread has so much: what is written at once is still in the processor's cache.
const PLENTY_BYTES: usize = 64 << 10;
/// What one thread's lines may take while the stream blocks; more is refused.
const SHARD_BYTES_MAX: usize = 2 << 20;
/// A buffer that has grown larger goes back to the allocator.
const KEPT_BYTES_MAX: usize = 4 * PLENTY_BYTES;
/// How long a flush waits for a stream that blocks.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The way to the writer, which ends when this is dropped and all is written.
#[derive(Debug)]
pub(super) struct Gatherer(Arc<Gathered>);

#[derive(Debug)]
struct Gathered {
    shards: Box<[Shard]>,
    /// The stream has failed: nobody takes anything any more.
    is_over: AtomicBool,
    desk: Mutex<Desk>,
    /// The writer hears that there is something for it to do, and whoever flushes that it is done.
    news: Condvar,
    done: Condvar,
}

/// One thread's lines, on cache lines that no other thread's share.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shard(Mutex<Vec<u8>>);

/// What is wanted of the writer.
#[derive(Debug, Default)]
struct Desk {
    has_lines: bool,
    is_urgent: bool,
    is_closed: bool,
    /// Flushes that were asked for, and those that are done.
    asked: u64,
    done: u64,
}

impl Gatherer {
    /// Starts a thread of this name for the lines of `workers` workers and of all others.
    pub(super) fn start(name: &str, workers: usize, out: impl Write + Send + 'static) -> io::Result<Self> {
        let gathered = Arc::new(Gathered {
            shards: (0..=workers).map(|_| Shard::default()).collect(),
            is_over: AtomicBool::new(false),
            desk: Mutex::default(),
            news: Condvar::new(),
            done: Condvar::new(),
        });
        let theirs = Arc::clone(&gathered);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // The log is of no use to anybody who does not read it: the rest goes on without.
            theirs.write(out).unwrap_or_default();
            theirs.is_over.store(true, Ordering::Relaxed);
            let mut desk = theirs.desk.lock();
            desk.done = u64::MAX;
            theirs.done.notify_all();
        })?;
        Ok(Self(gathered))
    }

    /// Whether there was room for the line, which brings its own end.
    pub(super) fn put(&self, line: &[u8]) -> bool {
        let gathered = &*self.0;
        let Some((shard, _)) = mine(&gathered.shards) else { return false };
        let mut lines = shard.0.lock();
        let (before, after) = (lines.len(), lines.len() + line.len());
        if after > SHARD_BYTES_MAX || gathered.is_over.load(Ordering::Relaxed) {
            return false;
        }
        lines.extend_from_slice(line);
        drop(lines);
        let is_urgent = before < PLENTY_BYTES && after >= PLENTY_BYTES;
        if before == 0 || is_urgent {
            let mut desk = gathered.desk.lock();
            desk.has_lines = true;
            desk.is_urgent |= is_urgent;
            gathered.news.notify_one();
        }
        true
    }

    /// Waits until what was put up to now is written, but not for ever.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_MAX;
        let mut desk = self.0.desk.lock();
        let wanted = desk.asked.saturating_add(1);
        desk.asked = wanted;
        self.0.news.notify_one();
        while desk.done < wanted && !self.0.done.wait_until(&mut desk, deadline).timed_out() {}
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.0.desk.lock().is_closed = true;
        self.0.news.notify_one();
    }
}

impl Gathered {
    /// The writer's life.
    fn write(&self, mut out: impl Write) -> io::Result<()> {
        let mut spare = Vec::new();
        loop {
            let (asked, is_closed) = self.wait();
            for shard in &self.shards {
                std::mem::swap(&mut *shard.0.lock(), &mut spare);
                out.write_all(&spare)?;
                spare.clear();
                if spare.capacity() > KEPT_BYTES_MAX {
                    spare = Vec::new();
                }
            }
            out.flush()?;
            let mut desk = self.desk.lock();
            desk.done = asked;
            self.done.notify_all();
            if is_closed {
                return Ok(());
            }
        }
    }

    /// Waits for something to write, and for more of it. Which flush is answered once it is written, and whether
    /// anything comes after it.
    fn wait(&self) -> (u64, bool) {
        let mut desk = self.desk.lock();
        while !desk.has_lines && !desk.is_pressed() {
            self.news.wait(&mut desk);
        }
        let until = Instant::now() + GATHER;
        while !desk.is_pressed() && !self.news.wait_until(&mut desk, until).timed_out() {}
        desk.has_lines = false;
        desk.is_urgent = false;
        (desk.asked, desk.is_closed)
    }
}

impl Desk {
    /// Somebody waits, or there is plenty.
    fn is_pressed(&self) -> bool {
        self.is_urgent || self.is_closed || self.asked > self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::writer::testing::gated;

    #[test]
    fn lines_are_written_though_nobody_asks_and_many_at_once() {
        let (stream, seen, go) = gated();
        drop(go);
        let lines = Gatherer::start("test", 0, stream).unwrap();
        for _ in 0..100 {
            assert!(lines.put(b"a line\n"));
        }
        let first = seen.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(first.len() > 10 * b"a line\n".len(), "{} bytes at once", first.len());
    }

    #[test]
    fn plenty_is_not_waited_with() {
        let (stream, seen, go) = gated();
        drop(go);
        let lines = Gatherer::start("test", 0, stream).unwrap();
        let begun = Instant::now();
        lines.put(&[b'x'; PLENTY_BYTES]);
        seen.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(begun.elapsed() < GATHER, "{:?}", begun.elapsed());
    }

    #[test]
    fn each_thread_has_its_own_bound_and_what_is_over_it_is_refused() {
        let (stream, _seen, go) = gated();
        let lines = Gatherer::start("test", 1, stream).unwrap();
        let fill = || (0..(2 * SHARD_BYTES_MAX) >> 10).filter(|_| lines.put(&[b'x'; 1 << 10])).count() << 10;
        let all = thread::scope(|scope| {
            let other = scope.spawn(|| {
                crate::telemetry::become_worker(0);
                fill()
            });
            [fill(), other.join().unwrap()]
        });
        // What the writer has in its hands makes room for as much again, at most.
        assert!(all.iter().all(|bytes| (SHARD_BYTES_MAX..=2 * SHARD_BYTES_MAX).contains(bytes)), "{all:?}");
        drop(go);
    }

    #[test]
    fn a_flush_does_not_wait_for_ever() {
        let (stream, _seen, _go) = gated();
        let lines = Gatherer::start("test", 0, stream).unwrap();
        lines.put(b"a line\n");
        let begun = Instant::now();
        lines.flush();
        assert!(begun.elapsed() >= FLUSH_MAX, "{:?}", begun.elapsed());
    }

    #[test]
    fn what_is_put_last_is_written_though_all_are_gone() {
        let (stream, seen, go) = gated();
        drop(go);
        let lines = Gatherer::start("test", 0, stream).unwrap();
        lines.put(b"a line\n");
        drop(lines);
        assert_eq!(seen.recv_timeout(Duration::from_secs(10)).unwrap(), b"a line\n");
    }
}
