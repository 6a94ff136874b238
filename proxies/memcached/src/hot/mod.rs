//! Hot keys: what is asked so often that one server would have nothing else to do is kept here for a moment.
//!
//! ```text
//! get ─► asked often lately? ── no ──────────────────────────────────────────► its server, as ever
//!          │ yes                                                                  ▲      │
//!          ├─ kept, young enough, not written since ─► answered here              │ the first
//!          └─ not kept ─► asked already? join whoever waits for it ───────────────┘      ▼
//!                                                       kept for the next, told to all who wait
//! ```
//!
//! What is given up for that: a write through another sidecar is seen up to `ttl` late. What is not: a write
//! through this one. It takes what is kept away before it is sent and again before it is acknowledged; reads that
//! come in between go to the server, behind it; and what was asked before is not kept after it (`stamps.rs`).
//!
//! | file | what |
//! |---|---|
//! | here | [`Hot`]: what all workers keep together |
//! | `config.rs` | `clusters.NAME.hot_keys` |
//! | `desk.rs` | a worker's part: what is done with a request, and who waits for what |
//! | `sketch.rs` | how often a key is asked |
//! | `stamps.rs` | whether a key was written since |

pub mod config;
mod desk;
mod sketch;
mod stamps;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::fast::RandomState;
use groove_common::telemetry::{Counter, Registry};
use moka::sync::Cache;

use crate::wire::meta::{Reply, Status};
use crate::wire::number;

pub use config::Section;
pub use desk::{Desk, Errand, Look, Part};
use stamps::{Stamp, Stamps};

/// What an entry weighs besides its bytes, about.
const ENTRY_LEN: usize = 200;

/// What all workers keep of a cluster's hot keys.
#[derive(Debug)]
pub struct Hot {
    section: Section,
    /// Requests of a second to one worker, from which on a key is hot.
    threshold: u16,
    stamps: Arc<Stamps>,
    kept: Cache<Bytes, Arc<Entry>, RandomState>,
    counted: Counted,
    /// Nothing is kept before: writes may be on their way that have left no stamp.
    from: Option<Instant>,
}

/// A value as it was told.
#[derive(Debug)]
struct Entry {
    reply: Reply,
    stamp: Stamp,
    until: Instant,
}

#[derive(Debug)]
struct Counted {
    hits: Counter,
    fills: Counter,
    merged: Counter,
    invalidations: Counter,
}

impl Hot {
    /// Keeps nothing yet, and nothing before `from`. What `known` stamped is stamped still.
    pub fn new(
        section: &Section,
        known: Option<&Self>,
        from: Option<Instant>,
        workers: usize,
        registry: &Registry,
        cluster: &str,
    ) -> Arc<Self> {
        let counter = |name, help| registry.counter(name, help, &[("cluster", cluster)]);
        let weigh = |key: &Bytes, entry: &Arc<Entry>| {
            let len = ENTRY_LEN + key.len() + entry.reply.line().len() + entry.reply.value.len();
            u32::try_from(len).unwrap_or(u32::MAX)
        };
        let each = section.rate.div_ceil(u32::try_from(workers.max(1)).unwrap_or(u32::MAX));
        Arc::new(Self {
            section: section.clone(),
            threshold: u16::try_from(each).unwrap_or(u16::MAX).max(THRESHOLD_MIN),
            stamps: known.map_or_else(Arc::default, |known| Arc::clone(&known.stamps)),
            kept: Cache::builder()
                .max_capacity(section.capacity.0)
                .time_to_live(section.ttl.get())
                .weigher(weigh)
                .build_with_hasher(RandomState::default()),
            counted: Counted {
                hits: counter("groove_memcached_hot_key_hits", "Gets of hot keys answered without a server"),
                fills: counter("groove_memcached_hot_key_fills", "Values of hot keys that were kept"),
                merged: counter(
                    "groove_memcached_hot_key_merged",
                    "Gets of hot keys answered by what another client's brought",
                ),
                invalidations: counter(
                    "groove_memcached_hot_key_invalidations",
                    "Values of hot keys that were given up because of a write",
                ),
            },
            from: known.map_or(from, |known| known.from),
        })
    }

    /// For the admin API.
    pub fn status(&self) -> serde_json::Value {
        self.kept.run_pending_tasks();
        serde_json::json!({ "kept": self.kept.entry_count(), "bytes": self.kept.weighted_size() })
    }

    /// What is kept of a key, if it is as good now as what its server would say.
    fn find(&self, key: &[u8], stamp: Stamp, now: Instant) -> Option<Reply> {
        let entry = self.kept.get(key)?;
        if entry.stamp != stamp {
            self.kept.invalidate(key);
            self.counted.invalidations.inc();
            return None;
        }
        if now >= entry.until {
            return None;
        }
        self.counted.hits.inc();
        Some(entry.reply.clone())
    }

    /// May something be kept by now?
    fn may_keep(&self, now: Instant) -> bool {
        self.from.is_none_or(|from| now >= from)
    }

    /// Keeps what a server said to a question of `asked`, unless there is a reason not to.
    fn keep(&self, key: &[u8], hash: u64, stamp: Stamp, asked: Instant, reply: &Reply) {
        let Some(ttl) = self.lives(reply) else { return };
        if self.stamps.read(hash) != Some(stamp) {
            return;
        }
        // A copy: no read buffer is kept alive.
        let line = Bytes::copy_from_slice(reply.line());
        let value = Bytes::copy_from_slice(&reply.value);
        let reply = Reply::new(Status::Value, line, value);
        let entry = Entry { reply, stamp, until: asked + ttl };
        // A write that comes just now leaves another stamp: then nobody takes this for good.
        self.kept.insert(Bytes::copy_from_slice(key), Arc::new(entry));
        self.counted.fills.inc();
    }

    /// How long a value may be kept; none at all if it is too large, about to expire, or somebody's to renew.
    fn lives(&self, reply: &Reply) -> Option<Duration> {
        let is_plain = reply.status == Status::Value && reply.marks().next().is_none();
        if !is_plain || reply.value.len() as u64 > self.section.value.0 {
            return None;
        }
        let ttl = self.section.ttl.get();
        match reply.flag(b't')? {
            b"-1" => Some(ttl),
            // Whole seconds, of which the last may be over.
            left => match number::unsigned(left)?.saturating_sub(1) {
                0 => None,
                left => Some(ttl.min(Duration::from_secs(left))),
            },
        }
    }
}

/// Fewer requests in a second make no key hot, however many workers there are.
const THRESHOLD_MIN: u16 = 4;

#[cfg(test)]
mod tests;
