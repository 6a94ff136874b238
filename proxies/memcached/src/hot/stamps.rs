//! Whether a key was written since: a stamp is what a read was asked under, and is good as long as nothing was.
//!
//! Keys share stamps, so a write of one may spoil another's. Each stamp counts the writes that have begun and ended,
//! and those that are on their way:
//!
//! ```text
//! begins: count + 1, on its way + 1      ends, before it is acknowledged: count + 1, on its way - 1
//! ```
//!
//! While one is on its way there is no stamp to be had: whoever reads asks the server. A read asked before a write
//! was acknowledged has a stamp that is good no more when it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Stamps that keys share.
const SHARDS: usize = 1 << 16;

/// The lower bits count what is on its way, of which there can be no more.
const STEP: u64 = 1 << 24;

/// The state of all keys.
#[derive(Debug)]
pub(super) struct Stamps {
    shards: Box<[AtomicU64]>,
    /// For what concerns every key.
    all: AtomicU64,
}

/// What a read was asked under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    shard: u64,
    all: u64,
}

/// A write on its way. It ends when this is dropped.
#[derive(Debug)]
pub struct Writing {
    stamps: Arc<Stamps>,
    /// None: of all keys.
    shard: Option<usize>,
}

impl Default for Stamps {
    fn default() -> Self {
        let shards = std::iter::repeat_with(AtomicU64::default).take(SHARDS).collect();
        Self { shards, all: AtomicU64::new(0) }
    }
}

impl Stamps {
    /// The stamp of a key with this hash. None: a write is on its way.
    pub(super) fn read(&self, hash: u64) -> Option<Stamp> {
        let shard = self.shards.get(shard_of(hash))?.load(Ordering::Acquire);
        let all = self.all.load(Ordering::Acquire);
        (shard.is_multiple_of(STEP) && all.is_multiple_of(STEP)).then_some(Stamp { shard, all })
    }

    /// A write of a key begins.
    pub(super) fn write(self: &Arc<Self>, hash: u64) -> Writing {
        Writing::begin(self, Some(shard_of(hash)))
    }

    /// A write of all keys begins.
    pub(super) fn write_all(self: &Arc<Self>) -> Writing {
        Writing::begin(self, None)
    }

    fn of(&self, shard: Option<usize>) -> &AtomicU64 {
        shard.and_then(|shard| self.shards.get(shard)).unwrap_or(&self.all)
    }
}

fn shard_of(hash: u64) -> usize {
    usize::try_from(hash % SHARDS as u64).unwrap_or_default()
}

impl Writing {
    fn begin(stamps: &Arc<Stamps>, shard: Option<usize>) -> Self {
        stamps.of(shard).fetch_add(STEP + 1, Ordering::AcqRel);
        Self { stamps: Arc::clone(stamps), shard }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.stamps.of(self.shard).fetch_add(STEP - 1, Ordering::AcqRel);
    }
}
