//! The tap: what goes through a running proxy, for whoever watches, at no cost while nobody does. What is seen of an
//! exchange, and what of it is told, is each proxy's own.
//!
//! ```text
//! an exchange, if the dice say so ─► each watcher's queue (bounded; what does not fit is counted) ─► the watcher's own
//! task: lines, or a summary of each interval ─► chunks of HTTP
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | [`Hub`]: who watches what |
//! | `heavy.rs` | [`Heavy`]: what comes most, in bounded memory |
//! | `telling.rs` | [`answer`]: a watcher's own task |
//! | `verb.rs` | [`show`]: the lines of a running proxy, on a terminal |

mod heavy;
mod telling;
#[cfg(test)]
mod tests;
mod verb;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::telemetry::{Counter, Gauge, Registry};

pub use heavy::{Heavy, Tally};
pub use telling::{Pace, Tell, answer};
pub use verb::{Share, show};

/// Who watch at the same time.
pub const WATCHERS_MAX: usize = 8;

/// Exchanges that wait for a watcher's task.
pub const QUEUE_LEN: usize = 8192;

/// The dice have so many faces.
pub const ALL: u64 = 1 << 32;

/// Why exchanges are noted: bits of [`Hub::reasons`].
const WATCHED: u8 = 1;
const WANTED: u8 = 1 << 1;

/// Who watches what: one for the whole proxy. `F` is what a watcher wants to see, `S` what was seen.
#[derive(Debug)]
pub struct Hub<F, S> {
    reasons: AtomicU8,
    watchers: ArcSwap<Watchers<F, S>>,
    /// Held by whoever changes `watchers`.
    change: Mutex<()>,
    watching: Gauge,
    dropped: Counter,
}

/// A watcher, as those know it who see exchanges.
#[derive(Debug)]
pub struct Watcher<F, S> {
    /// What it wants to see.
    pub filter: F,
    /// Below this number out of [`ALL`] an exchange is noted.
    threshold: u64,
    queue: mpsc::Sender<Arc<S>>,
    dropped: AtomicU64,
}

/// A watcher's own end; nothing is noted for it any more once it is dropped.
#[derive(Debug)]
pub struct Watch<F, S> {
    hub: Arc<Hub<F, S>>,
    watcher: Arc<Watcher<F, S>>,
    /// What was seen.
    pub seen: mpsc::Receiver<Arc<S>>,
}

/// All who watch.
pub type Watchers<F, S> = Vec<Arc<Watcher<F, S>>>;

/// A series of the hub's: its name, and what it counts.
pub type Series = (&'static str, &'static str);

impl<F, S> Hub<F, S> {
    /// Nobody watches.
    pub fn new(registry: &Registry, watching: Series, dropped: Series) -> Arc<Self> {
        Arc::new(Self {
            reasons: AtomicU8::new(0),
            watchers: ArcSwap::default(),
            change: Mutex::new(()),
            watching: registry.gauge(watching.0, watching.1, &[]),
            dropped: registry.counter(dropped.0, dropped.1, &[]),
        })
    }

    /// Does anybody watch?
    #[inline]
    pub fn is_watched(&self) -> bool {
        self.reasons.load(Ordering::Relaxed) & WATCHED != 0
    }

    /// Does anybody watch, or are exchanges [wanted](Self::want) for another reason?
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.reasons.load(Ordering::Relaxed) != 0
    }

    /// Whether exchanges are to be looked at even if nobody watches.
    pub fn want(&self, wanted: bool) {
        self.reason(WANTED, wanted);
    }

    fn reason(&self, reason: u8, holds: bool) {
        match holds {
            true => self.reasons.fetch_or(reason, Ordering::Relaxed),
            false => self.reasons.fetch_and(!reason, Ordering::Relaxed),
        };
    }

    /// One more watcher, told of the share `sample` (0 to 1) of what fits. None: too many watch already.
    pub fn watch(self: &Arc<Self>, filter: F, sample: f64) -> Option<Watch<F, S>> {
        let _change = self.change.lock();
        let mut watchers = Vec::clone(&self.watchers.load());
        if watchers.len() >= WATCHERS_MAX {
            return None;
        }
        let (queue, seen) = mpsc::channel(QUEUE_LEN);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and 2^32 after the clamp"
        )]
        let threshold = (sample.clamp(0.0, 1.0) * ALL as f64) as u64;
        let watcher = Arc::new(Watcher { filter, threshold, queue, dropped: AtomicU64::new(0) });
        watchers.push(Arc::clone(&watcher));
        self.set(watchers);
        Some(Watch { hub: Arc::clone(self), watcher, seen })
    }

    fn set(&self, watchers: Watchers<F, S>) {
        self.watching.set(i64::try_from(watchers.len()).unwrap_or(i64::MAX));
        let is_watched = !watchers.is_empty();
        self.watchers.store(Arc::new(watchers));
        self.reason(WATCHED, is_watched);
    }

    /// Those who watch at this instant.
    pub fn watchers(&self) -> Guard<Arc<Watchers<F, S>>> {
        self.watchers.load()
    }

    /// Tells these watchers, and waits for none.
    pub fn tell<'w>(&self, watchers: impl IntoIterator<Item = &'w Arc<Watcher<F, S>>>, seen: &Arc<S>)
    where
        F: 'w,
        S: 'w,
    {
        for watcher in watchers {
            // A watcher that is gone misses nothing.
            if let Err(TrySendError::Full(_)) = watcher.queue.try_send(Arc::clone(seen)) {
                self.count_dropped(watcher);
            }
        }
    }

    /// There is no room for something that this watcher should have been told.
    pub fn count_dropped(&self, watcher: &Watcher<F, S>) {
        watcher.dropped.fetch_add(1, Ordering::Relaxed);
        self.dropped.inc();
    }
}

impl<F, S> Watcher<F, S> {
    /// Whether a throw of the dice, below [`ALL`], makes an exchange one of its sample.
    pub fn samples(&self, roll: u64) -> bool {
        roll < self.threshold
    }
}

impl<F, S> Watch<F, S> {
    /// How many exchanges were not told, as the queue was full.
    pub fn dropped(&self) -> u64 {
        self.watcher.dropped.load(Ordering::Relaxed)
    }
}

impl<F, S> Drop for Watch<F, S> {
    fn drop(&mut self) {
        let _change = self.hub.change.lock();
        let mut watchers = Vec::clone(&self.hub.watchers.load());
        watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        self.hub.set(watchers);
    }
}
