//! A store inside the proxy, in place of servers: `endpoints: {embedded: {capacity: 64MiB}}`.
//!
//! It answers meta requests as memcached 1.6.18 does, stubs, tokens, padding of counters and all. Workers
//! share it: keys are spread over a few groups, each with a lock, under which a request is one step. With a
//! disk tier, what memory gives up is kept there, and found again.
//!
//! | file | what |
//! |---|---|
//! | here | [`Store`]: the groups, and what holds for all of them |
//! | `execute.rs` | what a request does to an item |
//! | `shelf.rs` | the items of a group in memory, and which of them goes first |
//! | `item.rs`, `counters.rs` | an item; what is counted |
//! | `disk/` | the tier behind it |

mod counters;
mod disk;
mod execute;
mod item;
mod shelf;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use xxhash_rust::xxh3::xxh3_64;

use crate::wire::meta::{Reply, Request};
use counters::Counters;
use disk::{Cold, Disk, Need};
pub use disk::{DiskError, DiskMetrics};
use execute::Turn;
use item::{Clock, deadline_ms};
use shelf::Shelf;

/// The version whose behaviour this is.
pub const VERSION: &str = "1.6.18";

/// The most groups of keys.
const GROUPS_MAX: u64 = 64;

/// A group has at least this much room, and room for this many of the longest values.
const GROUP_LEN_MIN: u64 = 1 << 20;
const GROUP_VALUES_MIN: u64 = 4;

/// When CAS values began, in seconds since the epoch: November 2023.
const CAS_BEGIN_S: u64 = 1_700_000_000;

/// The store.
pub struct Store {
    inner: Arc<Inner>,
}

/// What a store is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes in memory.
    pub capacity_len: u64,
    /// The longest value.
    pub value_len_max: usize,
    /// How many worker threads use it.
    pub workers: usize,
    /// The tier behind it.
    pub disk: Option<DiskSettings>,
}

/// Where the disk tier is, and how large it may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// A directory of its own.
    pub path: PathBuf,
    /// Bytes on disk, journals included.
    pub capacity_len: u64,
    /// What is counted.
    pub metrics: DiskMetrics,
}

/// What became of a request.
#[derive(Debug)]
pub enum Executed {
    /// It was answered.
    Now(Reply),
    /// It needs the disk.
    Later(oneshot::Receiver<Reply>),
}

struct Inner {
    /// Group 0, and those after it.
    first: Mutex<Group>,
    others: Box<[Mutex<Group>]>,
    rules: Rules,
    /// Of all groups.
    capacity_len: AtomicU64,
    disk: Option<Disk>,
}

/// Some of the keys.
#[derive(Default)]
struct Group {
    shelf: Shelf,
    cold: Cold,
}

/// What holds for all items.
#[derive(Debug)]
struct Rules {
    last_cas: AtomicU64,
    /// What has this CAS value or a smaller one has been flushed.
    flushed_cas: AtomicU64,
    /// When everything goes, in milliseconds since the epoch; 0 for never.
    flush_at_ms: AtomicU64,
    value_len_max: AtomicUsize,
    clock: Clock,
    counters: Counters,
}

impl Rules {
    fn next_cas(&self) -> u64 {
        self.last_cas.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn flushed_cas(&self) -> u64 {
        self.flushed_cas.load(Ordering::Relaxed)
    }

    fn value_len_max(&self) -> usize {
        self.value_len_max.load(Ordering::Relaxed)
    }
}

impl Store {
    /// An empty store, or what its disk tier has kept.
    ///
    /// # Errors
    ///
    /// When the disk tier cannot be opened.
    pub fn new(settings: &Settings) -> Result<Arc<Self>, DiskError> {
        let Settings { capacity_len, value_len_max, workers, .. } = *settings;
        let group_len_min = GROUP_LEN_MIN.max(value_len_max as u64 * GROUP_VALUES_MIN);
        let groups = (capacity_len / group_len_min).clamp(1, GROUPS_MAX);
        let disk = settings.disk.as_ref().map(|disk| Disk::open(disk, capacity_len)).transpose()?;
        let known = disk.as_ref().map(Disk::known).unwrap_or_default();
        let inner = Arc::new(Inner {
            first: Mutex::default(),
            others: (1..groups).map(|_| Mutex::default()).collect(),
            rules: Rules {
                last_cas: AtomicU64::new(known.last_cas.max(cas_base())),
                flushed_cas: AtomicU64::new(known.flushed_cas),
                flush_at_ms: AtomicU64::new(known.flush_at_ms),
                value_len_max: AtomicUsize::new(value_len_max),
                clock: Clock::start(),
                counters: Counters::new(workers),
            },
            capacity_len: AtomicU64::new(capacity_len),
            disk,
        });
        disk::start_lanes(&inner)?;
        Ok(Arc::new(Self { inner }))
    }

    /// Does what a server would do: at once, or once the disk has been asked.
    pub fn execute(&self, request: &Request<'_>) -> Executed {
        let inner = &*self.inner;
        inner.flush_if_due();
        let (number, mut group) = inner.group_of(request.key);
        match inner.need(&mut group, request) {
            Need::Nothing => Executed::Now(inner.run(number, &mut group, request)),
            Need::Disk(errand) => Executed::Later(inner.park(number, &mut group, request, errand)),
            Need::Refused(reply) => Executed::Now(reply),
        }
    }

    /// Drops everything, now or after a delay.
    pub fn flush_all(&self, delay: i32) {
        let (inner, rules) = (&*self.inner, &self.inner.rules);
        rules.counters.cmd_flush.inc();
        let now_ms = rules.clock.now_ms();
        match deadline_ms(delay, now_ms) {
            at_ms if at_ms > now_ms => rules.flush_at_ms.store(at_ms, Ordering::Relaxed),
            // Without a delay, or with one that is over. The latest word counts: a flush that was to come
            // later does not come.
            _ => {
                rules.flush_at_ms.store(0, Ordering::Relaxed);
                inner.flush();
            }
        }
        inner.keep_rules();
    }

    /// How many items it holds in memory.
    pub fn items(&self) -> u64 {
        self.inner.groups().map(|group| group.lock().shelf.len() as u64).sum()
    }

    /// How many bytes they take.
    pub fn held_len(&self) -> u64 {
        self.inner.groups().map(|group| group.lock().shelf.held_len()).sum()
    }

    /// How many bytes it may hold in memory.
    pub fn capacity_len(&self) -> u64 {
        self.inner.capacity_len.load(Ordering::Relaxed)
    }

    /// Takes other bounds on; the place of a disk tier stays. What is too much goes as new items come.
    pub fn resize(&self, settings: &Settings) {
        self.inner.capacity_len.store(settings.capacity_len, Ordering::Relaxed);
        self.inner.rules.value_len_max.store(settings.value_len_max, Ordering::Relaxed);
        if let (Some(disk), Some(settings)) = (&self.inner.disk, &settings.disk) {
            disk.set_capacity(settings.capacity_len);
        }
    }

    /// The disk tier in a few words, for the admin API.
    pub fn disk_status(&self) -> Option<serde_json::Value> {
        self.inner.disk.as_ref().map(Disk::status)
    }

    /// Its statistics, in memcached's names, as the text of a `stats` answer without `END`.
    pub fn stats(&self) -> Bytes {
        let own = [
            ("curr_items", self.items()),
            ("bytes", self.held_len()),
            ("limit_maxbytes", self.capacity_len()),
        ];
        let mut text = format!("STAT version {VERSION}\r\n");
        let disk = self.inner.disk.iter().flat_map(Disk::stats);
        for (name, number) in own.into_iter().chain(self.inner.rules.counters.table()).chain(disk) {
            // Writing to a String cannot fail.
            _ = write!(text, "STAT {name} {number}\r\n");
        }
        text.into()
    }
}

/// The CAS values of a new life begin where those of the last one cannot have come: 16,384 a second are counted
/// on. They take less than 46 bits, so that a sidecar in front can add whose they are.
fn cas_base() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_epoch.as_secs().saturating_sub(CAS_BEGIN_S) << 14
}

#[cfg(test)]
impl Store {
    /// A small one in memory.
    pub(crate) fn small() -> Arc<Self> {
        let settings = Settings { capacity_len: 1 << 20, value_len_max: 1 << 20, workers: 1, disk: None };
        Self::new(&settings).unwrap()
    }

    /// The reply, waited for if need be.
    pub(crate) fn ask(&self, request: &Request<'_>) -> Reply {
        match self.execute(request) {
            Executed::Now(reply) => reply,
            Executed::Later(reply) => reply.blocking_recv().unwrap(),
        }
    }
}

impl Drop for Store {
    /// With a disk tier, what memory holds is written down.
    fn drop(&mut self) {
        disk::close(&self.inner);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("capacity_len", &self.capacity_len()).finish_non_exhaustive()
    }
}

impl Inner {
    fn groups(&self) -> impl Iterator<Item = &Mutex<Group>> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn group(&self, number: usize) -> &Mutex<Group> {
        number.checked_sub(1).and_then(|index| self.others.get(index)).unwrap_or(&self.first)
    }

    /// The group of a key, and its number.
    fn group_of(&self, key: &[u8]) -> (usize, MutexGuard<'_, Group>) {
        let count = self.others.len() as u64 + 1;
        // The upper half: clusters choose among servers by the same hash.
        let number = usize::try_from((xxh3_64(key) >> 32) % count).unwrap_or(0);
        (number, self.group(number).lock())
    }

    /// One request, one step.
    fn run(&self, number: usize, group: &mut Group, request: &Request<'_>) -> Reply {
        let reply = self.turn(group, request);
        self.make_room(number, group, self.rules.clock.now_ms());
        if let Some(disk) = &self.disk {
            disk.look_after_cas(self.rules.last_cas.load(Ordering::Relaxed));
        }
        reply
    }

    fn turn(&self, group: &mut Group, request: &Request<'_>) -> Reply {
        let now_ms = self.rules.clock.now_ms();
        Turn { shelf: &mut group.shelf, rules: &self.rules, now_ms }.run(request)
    }

    /// Gives up what memory has no room for.
    fn make_room(&self, number: usize, group: &mut Group, now_ms: u64) {
        let room_len = self.capacity_len.load(Ordering::Relaxed) / (self.others.len() as u64 + 1);
        while group.shelf.held_len() > room_len {
            let Some((key, item)) = group.shelf.evict() else { return };
            if item.is_live(now_ms, self.rules.flushed_cas()) {
                self.rules.counters.evictions.inc();
                self.spill(number, group, key, item);
            }
        }
    }

    /// All that is here has been.
    fn flush(&self) {
        // memcached tells what came before the flush by its token, and takes one for the flush.
        let cas = self.rules.next_cas();
        self.rules.flushed_cas.fetch_max(cas, Ordering::Relaxed);
    }

    fn flush_if_due(&self) {
        let at = self.rules.flush_at_ms.load(Ordering::Relaxed);
        if at == 0 || self.rules.clock.now_ms() < at {
            return;
        }
        if self.rules.flush_at_ms.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.flush();
            self.keep_rules();
        }
    }
}

#[cfg(test)]
mod beside_memcached;
#[cfg(test)]
mod tests;
