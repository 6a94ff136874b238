//! Counters, gauges and histograms that cost a load and a store.
//!
//! Each has one cell a worker thread and one for everybody else. A worker is the only writer of its cell,
//! so it needs no locked instruction; the rest share a cell and add atomically. Reading sums the cells.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

thread_local! {
    /// 0: not a worker, writes the shared cell.
    static SHARD: Cell<usize> = const { Cell::new(0) };
}

/// Makes the calling thread the only writer of cell `worker + 1` of every metric.
///
/// Two threads of one program must not share a number: counts would be lost.
pub fn become_worker(worker: usize) {
    SHARD.set(worker + 1);
}

/// The cell of the calling thread among `cells`, and whether others write it too.
#[inline]
pub(super) fn mine<T>(cells: &[T]) -> Option<(&T, bool)> {
    let shard = SHARD.get();
    match cells.get(shard) {
        Some(cell) => Some((cell, shard == 0)),
        None => cells.first().map(|cell| (cell, true)),
    }
}

#[inline]
fn add(cell: &AtomicU64, n: u64, shared: bool) {
    if shared {
        cell.fetch_add(n, Ordering::Relaxed);
    } else {
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

/// A cache line of its own, so that two workers' cells do not disturb each other.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line(AtomicU64);

/// A number that goes up. Clones share it.
#[derive(Debug, Clone)]
pub struct Counter(Arc<[Line]>);

impl Counter {
    /// A counter for `workers` worker threads.
    pub fn new(workers: usize) -> Self {
        Self((0..=workers).map(|_| Line::default()).collect())
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if let Some((line, shared)) = mine(&self.0) {
            add(&line.0, n, shared);
        }
    }

    /// The sum over all threads.
    pub fn get(&self) -> u64 {
        self.0.iter().fold(0, |sum, line| sum.wrapping_add(line.0.load(Ordering::Relaxed)))
    }

    pub(super) fn is_held_once(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// A number that goes up and down, each step by whichever thread. Clones share it.
#[derive(Debug, Clone)]
pub struct Gauge(Counter);

impl Gauge {
    /// A gauge for `workers` worker threads.
    pub fn new(workers: usize) -> Self {
        Self(Counter::new(workers))
    }

    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.add(1);
    }

    /// Takes one away. May happen on another thread than the addition: cells wrap, the sum is right.
    #[inline]
    pub fn dec(&self) {
        self.0.add(u64::MAX);
    }

    /// Adds `n`, which may be negative.
    #[inline]
    pub fn add(&self, n: i64) {
        self.0.add(n.cast_unsigned());
    }

    /// Makes it `n`. For gauges that one thread at a time writes.
    pub fn set(&self, n: i64) {
        self.add(n.wrapping_sub(self.get()));
    }

    /// The sum over all threads.
    pub fn get(&self) -> i64 {
        self.0.get().cast_signed()
    }

    pub(super) fn is_held_once(&self) -> bool {
        self.0.is_held_once()
    }
}

/// Values are told apart to an eighth of their power of two: 12.5 % wide, so a quantile is within 6.3 %.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Values at or above 2^36 (19 hours of microseconds) go to the last bucket.
const BITS_MAX: u32 = 36;
const BUCKETS: usize = ((BITS_MAX - SUB_BITS + 1) << SUB_BITS) as usize;

/// Times in microseconds, in log-linear buckets. Clones share it.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<[Cells]>);

#[derive(Debug)]
#[repr(align(64))]
struct Cells {
    sum_us: AtomicU64,
    counts: Box<[AtomicU64]>,
}

impl Histogram {
    /// A histogram for `workers` worker threads: 2.2 KiB each.
    pub fn new(workers: usize) -> Self {
        let cells = || Cells {
            sum_us: AtomicU64::new(0),
            counts: std::iter::repeat_with(AtomicU64::default).take(BUCKETS).collect(),
        };
        Self((0..=workers).map(|_| cells()).collect())
    }

    /// Counts one time.
    #[inline]
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let Some((cells, shared)) = mine(&self.0) else { return };
        add(&cells.sum_us, us, shared);
        if let Some(count) = cells.counts.get(bucket_of(us)) {
            add(count, 1, shared);
        }
    }

    /// What has been counted up to now, over all threads.
    pub fn snapshot(&self) -> Distribution {
        let mut all = Distribution { sum_us: 0, counts: vec![0; BUCKETS] };
        for cells in self.0.iter() {
            all.sum_us = all.sum_us.wrapping_add(cells.sum_us.load(Ordering::Relaxed));
            for (sum, count) in all.counts.iter_mut().zip(&cells.counts) {
                *sum += count.load(Ordering::Relaxed);
            }
        }
        all
    }

    pub(super) fn is_held_once(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// The bucket of a value: the position of its highest bit and the [`SUB_BITS`] bits below it.
#[inline]
fn bucket_of(value: u64) -> usize {
    let bucket = if value < SUB {
        value
    } else {
        let top = u64::from(value.ilog2());
        let octave = top - u64::from(SUB_BITS) + 1;
        (octave << SUB_BITS) + ((value >> (octave - 1)) & (SUB - 1))
    };
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// The first value that belongs to the bucket after `bucket`.
fn bucket_end(bucket: usize) -> u64 {
    let next = bucket as u64 + 1;
    match next >> SUB_BITS {
        0 => next,
        octave => (SUB + (next & (SUB - 1))) << (octave - 1),
    }
}

/// A histogram's content at one moment.
#[derive(Debug, Clone)]
pub struct Distribution {
    sum_us: u64,
    counts: Vec<u64>,
}

impl Distribution {
    /// How many times were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all times.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// The time below which the share `q` (0 to 1) of all lies; zero when nothing was counted.
    pub fn quantile(&self, q: f64) -> Duration {
        let count = self.count();
        let mut left = count - share_of(count, 1.0 - q.clamp(0.0, 1.0));
        for (bucket, n) in self.counts.iter().enumerate() {
            if left <= *n && *n > 0 {
                return Duration::from_micros(bucket_end(bucket));
            }
            left = left.saturating_sub(*n);
        }
        Duration::ZERO
    }

    /// Counts below each power of two from 2^6 to 2^26 µs (64 µs to 67 s) and the rest: (upper edge in
    /// seconds, count in this bucket), as Prometheus wants them.
    pub(super) fn octaves(&self) -> Vec<(f64, u64)> {
        let mut edges: Vec<(f64, u64)> = Vec::with_capacity(22);
        let mut counts = self.counts.iter().enumerate().peekable();
        for edge_us in (6..=26).map(|bits| 1u64 << bits) {
            let mut inside = 0;
            while let Some((_, n)) = counts.next_if(|(bucket, _)| bucket_end(*bucket) <= edge_us) {
                inside += n;
            }
            edges.push((Duration::from_micros(edge_us).as_secs_f64(), inside));
        }
        edges.push((f64::INFINITY, counts.map(|(_, n)| n).sum()));
        edges
    }
}

/// `share` of `count`, rounded down.
fn share_of(count: u64, share: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a count lies between 0 and the count"
    )]
    let part = (count as f64 * share) as u64;
    part.min(count)
}

#[cfg(test)]
#[path = "metric_tests.rs"]
mod tests;
