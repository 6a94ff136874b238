//! A watcher's own task: lines of JSON for as long as the watcher reads them and the proxy does not drain.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};

use super::Watch;
use crate::admin::{Response, stream};
use crate::net::Drain;

/// Exchanges that are written at once.
const BATCH_LEN: usize = 512;
/// Chunks on their way to a watcher.
const CHUNKS: usize = 4;
/// A watcher that takes nothing for so long is given up.
const UNREAD_MAX: Duration = Duration::from_secs(30);
/// How often it is told what there was no room for.
const TELL_DROPPED_EVERY: Duration = Duration::from_secs(1);
/// The lengths of an interval.
const EVERY_MS: RangeInclusive<u64> = 100..=600_000;
/// Lines of a list.
const TOP: RangeInclusive<usize> = 1..=1000;

/// How much a watcher wants to be told, and how often.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// The share that is looked at, above 0 and up to 1.
    pub sample: f64,
    /// A summary of so many lines a list, instead of each exchange.
    pub top: Option<usize>,
    /// How often there is a summary.
    pub every_ms: u64,
}

impl Pace {
    /// What is wrong with it, for who asked for it.
    ///
    /// # Errors
    ///
    /// When it is outside of what may be.
    pub fn check(&self) -> Result<(), String> {
        if !(self.sample > 0.0 && self.sample <= 1.0) {
            return Err("`sample` is a share above 0 and up to 1".to_owned());
        }
        if !EVERY_MS.contains(&self.every_ms) {
            return Err("`every_ms` is from 100 (100ms) to 600000 (10m)".to_owned());
        }
        if self.top.is_some_and(|top| !TOP.contains(&top)) {
            return Err("`top` is from 1 to 1000".to_owned());
        }
        Ok(())
    }
}

/// What a proxy's watchers are told.
pub trait Tell: Send + 'static {
    /// One exchange, as it was seen.
    type Seen: Send + Sync + 'static;
    /// A line.
    type Line: Serialize;

    /// An interval in which nothing was seen, for a report of `top` lines a list.
    fn new(top: usize) -> Self;

    /// Counts an exchange.
    fn add(&mut self, seen: &Self::Seen);

    /// What is to be told of an interval that took so long, if a share of `sample` of all was to be seen, and
    /// `dropped` of that was not.
    fn summary(&self, took: Duration, sample: f64, dropped: u64) -> Self::Line;

    /// One exchange.
    fn exchange(seen: &Self::Seen) -> Self::Line;

    /// There was no room for so many.
    fn dropped(exchanges: u64) -> Self::Line;
}

/// The answer to a watcher: it ends when the watcher goes, reads nothing for long, or the proxy drains.
pub fn answer<T, F>(watch: Watch<F, T::Seen>, pace: Pace, drain: Drain) -> Response
where
    T: Tell,
    F: Send + Sync + 'static,
{
    let (chunks, parts) = mpsc::channel(CHUNKS);
    tokio::spawn(async move {
        let told = async {
            match pace.top {
                None => tell_each::<T, F>(watch, &chunks).await,
                Some(top) => tell_summaries::<T, F>(watch, pace, top, &chunks).await,
            }
        };
        tokio::select! {
            () = told => (),
            () = chunks.closed() => (),
            () = drain.draining() => (),
        }
    });
    stream("application/x-ndjson", parts)
}

/// Each exchange in a line, until nobody reads them.
async fn tell_each<T: Tell, F>(mut watch: Watch<F, T::Seen>, chunks: &mpsc::Sender<Bytes>) {
    let mut batch = Vec::with_capacity(BATCH_LEN);
    let (mut told, mut tick) = (0, interval(TELL_DROPPED_EVERY));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let mut chunk = Vec::new();
        tokio::select! {
            _ = watch.seen.recv_many(&mut batch, BATCH_LEN) => {
                batch.drain(..).for_each(|seen| write(&mut chunk, &T::exchange(&seen)));
            }
            _ = tick.tick() => {
                let dropped = watch.dropped();
                if dropped > told {
                    write(&mut chunk, &T::dropped(dropped - told));
                    told = dropped;
                }
            }
        }
        if !chunk.is_empty() && !send(chunks, chunk).await {
            return;
        }
    }
}

/// A summary of each interval in a line.
async fn tell_summaries<T: Tell, F>(
    mut watch: Watch<F, T::Seen>,
    pace: Pace,
    top: usize,
    chunks: &mpsc::Sender<Bytes>,
) {
    let every = Duration::from_millis(pace.every_ms);
    let mut batch = Vec::with_capacity(BATCH_LEN);
    let (mut summary, mut told, mut since) = (T::new(top), 0, Instant::now());
    let mut tick = interval_at(since + every, every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => {
                let dropped = watch.dropped();
                let mut chunk = Vec::new();
                write(&mut chunk, &summary.summary(since.elapsed(), pace.sample, dropped - told));
                if !send(chunks, chunk).await {
                    return;
                }
                (summary, told, since) = (T::new(top), dropped, Instant::now());
            }
            _ = watch.seen.recv_many(&mut batch, BATCH_LEN) => {
                batch.drain(..).for_each(|seen| summary.add(&seen));
            }
        }
    }
}

fn write(chunk: &mut Vec<u8>, line: &impl Serialize) {
    // Writing to memory cannot fail, and neither can what is written.
    serde_json::to_writer(&mut *chunk, line).unwrap_or_default();
    chunk.push(b'\n');
}

/// False: nobody takes it.
async fn send(chunks: &mpsc::Sender<Bytes>, chunk: Vec<u8>) -> bool {
    matches!(timeout(UNREAD_MAX, chunks.send(Bytes::from(chunk))).await, Ok(Ok(())))
}
