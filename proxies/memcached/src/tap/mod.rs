//! The tap: what goes through a running proxy, for whoever watches. Never a value, only to who may use the admin
//! API, and at no cost while nobody watches.
//!
//! ```text
//! worker: a request, if the dice say so ─► Begun … its answer ─► Seen ─► each watcher's queue (bounded; what does
//! not fit is counted) ─► the watcher's own task: lines, or a summary of each interval ─► chunks of HTTP
//! ```
//!
//! | file | what |
//! |---|---|
//! | here | [`Hub`]: who watches what |
//! | `probe.rs` | a worker's end: which requests are noted, and what came of them |
//! | `seen.rs` | one exchange as it was seen, and the words for it |
//! | `summary.rs` | what was asked most in an interval, in bounded memory |
//! | `api.rs` | `/api/v1/tap` |
//! | `verb.rs` | `groove-memcached tap` |

pub mod api;
mod probe;
mod seen;
mod summary;
pub mod verb;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use groove_common::telemetry::{Counter, Gauge, Registry};
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use probe::{Asker, Begun, Probe};
pub use seen::{Seen, Server, Verb};

/// Who watch at the same time.
const WATCHERS_MAX: usize = 8;

/// Exchanges that wait for a watcher's task.
const QUEUE_LEN: usize = 8192;

/// The dice have so many faces.
const ALL: u64 = 1 << 32;

/// Who watches what: one for the whole proxy.
#[derive(Debug)]
pub struct Hub {
    is_watched: AtomicBool,
    watchers: ArcSwap<Vec<Arc<Watcher>>>,
    /// Held by whoever changes `watchers`.
    change: Mutex<()>,
    watching: Gauge,
    dropped: Counter,
}

/// What a watcher wants to see: everything that is named must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The tenant's name.
    pub tenant: Option<String>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// The beginning of the key as the client writes it.
    pub prefix: Vec<u8>,
}

/// A watcher, as workers know it.
#[derive(Debug)]
pub struct Watcher {
    filter: Filter,
    /// Below this number out of [`ALL`] a request is noted.
    threshold: u64,
    queue: mpsc::Sender<Arc<Seen>>,
    dropped: AtomicU64,
}

/// A watcher's own end; nothing is noted for it any more once it is dropped.
#[derive(Debug)]
pub struct Watch {
    hub: Arc<Hub>,
    watcher: Arc<Watcher>,
    /// What was seen.
    pub seen: mpsc::Receiver<Arc<Seen>>,
}

impl Hub {
    /// Nobody watches.
    pub fn new(registry: &Registry) -> Arc<Self> {
        let dropped = "Exchanges that no watcher of the tap was told, as its queue was full";
        Arc::new(Self {
            is_watched: AtomicBool::new(false),
            watchers: ArcSwap::default(),
            change: Mutex::new(()),
            watching: registry.gauge("groove_memcached_tap_watchers", "Who watches the tap", &[]),
            dropped: registry.counter("groove_memcached_tap_dropped", dropped, &[]),
        })
    }

    /// One more watcher, told of the share `sample` (0 to 1) of what fits. None: too many watch already.
    pub fn watch(self: &Arc<Self>, filter: Filter, sample: f64) -> Option<Watch> {
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

    fn set(&self, watchers: Vec<Arc<Watcher>>) {
        self.watching.set(i64::try_from(watchers.len()).unwrap_or(i64::MAX));
        let is_watched = !watchers.is_empty();
        self.watchers.store(Arc::new(watchers));
        self.is_watched.store(is_watched, Ordering::Relaxed);
    }
}

impl Watch {
    /// How many exchanges were not told, as the queue was full.
    pub fn dropped(&self) -> u64 {
        self.watcher.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _change = self.hub.change.lock();
        let mut watchers = Vec::clone(&self.hub.watchers.load());
        watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.watcher));
        self.hub.set(watchers);
    }
}

#[cfg(test)]
mod tests;
