//! The tier behind memory: what memory gives up is written to disk, and found again.
//!
//! An item is in memory, on its way to disk, or on disk. Whoever asks for what is not in memory is *parked*
//! with an *errand*; a *lane* (a thread that takes errands one after the other, always the same for a group
//! of keys) fetches the item and then does everything that has been parked for its key, in order.
//!
//! ```text
//!              evict                        lane
//!   memory ───────────► on its way ──────────────────► disk
//!     ▲ ▲                   │                            │
//!     │ └── asked for ──────┘                            │
//!     └── fetched; its copy stays while it is not changed┘
//! ```
//!
//! The disk never has an older version of what anybody has been told is changed: before a change is made in
//! memory, the copy on disk is removed. So a process that is killed loses what only memory had, and nothing
//! old comes back. After a crash of the machine, where the last writes may be gone, the disk is emptied.

mod engine;
mod lane;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use groove_common::telemetry::{Counter, Gauge, Registry};
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::item::Item;
use super::{DiskSettings, Group, Inner};
use crate::upstream::plan::Owned;
use crate::wire::meta::{Get, Op, Reply, Request, Status};
pub use engine::DiskError;
use engine::{Engine, Notes};
pub(super) use lane::{close, start_lanes};

/// Threads that wait for the disk.
const LANES: usize = 4;

/// Requests that may be parked.
const PARKED_MAX: usize = 1 << 16;

/// Bytes that may be on their way to disk before storing has to wait for it.
const BACKLOG_LEN_MIN: u64 = 4 << 20;

/// CAS values are given out from blocks whose ends are written down first, so that none is used twice.
const CAS_BLOCK: u64 = 1 << 24;

/// What of a group of keys is not in memory.
#[derive(Default)]
pub(super) struct Cold {
    /// On its way to disk.
    spills: HashMap<Bytes, Spill>,
    /// Requests that wait for the disk, by key.
    parked: HashMap<Bytes, VecDeque<Parked>>,
}

struct Spill {
    item: Item,
    /// The lane is writing it.
    is_begun: bool,
}

struct Parked {
    request: Owned,
    reply: oneshot::Sender<Reply>,
}

/// What a request has to wait for.
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Those before it, or an errand for it.
    Disk(Option<Errand>),
    /// There are too many already.
    Refused(Reply),
}

/// What a lane is to do for a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errand {
    /// Fetch it; the copy on disk stays.
    Fetch,
    /// Fetch it, and remove the copy, as a change is to come.
    Take,
}

enum Job {
    Serve {
        group: usize,
        key: Bytes,
        errand: Errand,
    },
    Write {
        group: usize,
        key: Bytes,
    },
    /// Write the rules down: how far CAS values go, what has been flushed.
    Keep,
    Stop,
}

/// What is counted of a disk tier; clones share it.
#[derive(Debug, Clone)]
pub struct DiskMetrics {
    hits: Counter,
    misses: Counter,
    written: Counter,
    written_len: Counter,
    aged_out: Counter,
    lost: Counter,
    failures: Counter,
    used_len: Gauge,
}

impl PartialEq for DiskMetrics {
    /// There is nothing in it that could be configured.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for DiskMetrics {}

impl DiskMetrics {
    /// The series of one cluster.
    pub fn new(registry: &Registry, cluster: &str) -> Self {
        let labels = [("cluster", cluster)];
        let counter = |name, help| registry.counter(name, help, &labels);
        Self {
            hits: counter("groove_memcached_disk_hits", "Items found on disk"),
            misses: counter("groove_memcached_disk_misses", "Items looked for on disk and not found"),
            written: counter("groove_memcached_disk_written", "Items written to disk"),
            written_len: counter("groove_memcached_disk_written_bytes", "Bytes written to disk"),
            aged_out: counter(
                "groove_memcached_disk_aged_out",
                "Items dropped from disk, the oldest first, because the disk tier was full",
            ),
            lost: counter(
                "groove_memcached_disk_lost",
                "Items that memory gave up and the disk did not take, because it had failed or had no room",
            ),
            failures: counter("groove_memcached_disk_failures", "Times the disk tier failed"),
            used_len: registry.gauge("groove_memcached_disk_bytes", "Bytes used on disk", &labels),
        }
    }
}

/// The tier of a whole store.
pub(super) struct Disk {
    settings: DiskSettings,
    /// None while the disk has failed.
    engine: RwLock<Option<Engine>>,
    /// Which engine this is: copies on an earlier one's disk are gone.
    generation: AtomicU64,
    is_failed: AtomicBool,
    /// Of a new engine.
    capacity_len: AtomicU64,
    cache_len: u64,
    lanes: Vec<Sender<Job>>,
    /// Until the lanes start.
    jobs: Mutex<Vec<Receiver<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    parked: AtomicUsize,
    backlog_len: AtomicU64,
    backlog_len_max: u64,
    /// CAS values below this may be given out.
    cas_ceiling: AtomicU64,
    is_asked_to_keep: AtomicBool,
    known: Notes,
}

impl Disk {
    /// Opens what is there, or begins anew.
    pub(super) fn open(settings: &DiskSettings, memory_len: u64) -> Result<Self, DiskError> {
        let cache_len = (memory_len / 8).clamp(1 << 20, 64 << 20);
        let (engine, known) = Engine::open(&settings.path, settings.capacity_len, cache_len)?;
        let (lanes, jobs) = (0..LANES).map(|_| channel()).unzip();
        info!(path = %settings.path.display(), bytes = engine.used_len(), "the disk tier is open");
        Ok(Self {
            settings: settings.clone(),
            engine: RwLock::new(Some(engine)),
            generation: AtomicU64::new(0),
            is_failed: AtomicBool::new(false),
            capacity_len: AtomicU64::new(settings.capacity_len),
            cache_len,
            lanes,
            jobs: Mutex::new(jobs),
            threads: Mutex::default(),
            parked: AtomicUsize::new(0),
            backlog_len: AtomicU64::new(0),
            backlog_len_max: (memory_len / 8).max(BACKLOG_LEN_MIN),
            cas_ceiling: AtomicU64::new(known.last_cas),
            is_asked_to_keep: AtomicBool::new(false),
            known,
        })
    }

    /// What was written down before the start.
    pub(super) fn known(&self) -> Notes {
        self.known
    }

    /// Takes another bound on.
    pub(super) fn set_capacity(&self, capacity_len: u64) {
        self.capacity_len.store(capacity_len, Ordering::Relaxed);
        if let Some(engine) = &*self.engine.read() {
            engine.set_capacity(capacity_len);
        }
    }

    /// For the admin API.
    pub(super) fn status(&self) -> serde_json::Value {
        serde_json::json!({
            "path": self.settings.path,
            "bytes": self.engine.read().as_ref().map_or(0, Engine::used_len),
            "capacity": self.capacity_len.load(Ordering::Relaxed),
            "failed": self.is_failed(),
        })
    }

    /// For `stats`.
    pub(super) fn stats(&self) -> [(&'static str, u64); 6] {
        let metrics = &self.settings.metrics;
        [
            ("disk_bytes", self.engine.read().as_ref().map_or(0, Engine::used_len)),
            ("disk_hits", metrics.hits.get()),
            ("disk_misses", metrics.misses.get()),
            ("disk_written", metrics.written.get()),
            ("disk_aged_out", metrics.aged_out.get()),
            ("disk_lost", metrics.lost.get()),
        ]
    }

    /// Sees to it that CAS values can be given out for long.
    pub(super) fn look_after_cas(&self, last_cas: u64) {
        let left = self.cas_ceiling.load(Ordering::Relaxed).saturating_sub(last_cas);
        if left < CAS_BLOCK / 2 && !self.is_asked_to_keep.swap(true, Ordering::Relaxed) {
            self.send(0, Job::Keep);
        }
    }

    fn is_failed(&self) -> bool {
        self.is_failed.load(Ordering::Relaxed)
    }

    /// Gives a group's lane something to do. It takes everything, as what can be given is bounded.
    fn send(&self, group: usize, job: Job) {
        if let Some(lane) = self.lanes.get(group % LANES) {
            // A lane ends with the store, and then nobody waits.
            _ = lane.send(job);
        }
    }

    /// The disk is of no use any more; memory goes on alone.
    fn fail(&self, error: &DiskError) {
        if self.is_failed.swap(true, Ordering::Relaxed) {
            return;
        }
        error!(path = %self.settings.path.display(), %error, "the disk tier failed, memory goes on alone");
        self.settings.metrics.failures.inc();
        *self.engine.write() = None;
        // What is there gets out of date from now on.
        Engine::erase(&self.settings.path);
    }

    /// Does something with the engine, if there is one that works.
    fn with<T>(&self, work: impl FnOnce(&Engine) -> Result<T, DiskError>) -> Option<T> {
        let done = self.engine.read().as_ref().map(work)?;
        done.inspect_err(|error| self.fail(error)).ok()
    }
}

impl Inner {
    /// What has to be done before this request can be.
    pub(super) fn need(&self, group: &mut Group, request: &Request<'_>) -> Need {
        let Some(disk) = &self.disk else { return Need::Nothing };
        if group.cold.parked.contains_key(request.key) {
            return disk.admit(None);
        }
        if group.shelf.peek(request.key).is_none() {
            group.take_back(request.key, disk);
        }
        if disk.is_failed() {
            return Need::Nothing;
        }
        let is_full = disk.backlog_len.load(Ordering::Relaxed) > disk.backlog_len_max;
        match group.shelf.peek(request.key) {
            Some(item) if item.on_disk && changes(&request.op) => disk.admit(Some(Errand::Take)),
            // In memory, but storing has to wait until there is room for what it drives out.
            Some(_) if is_full && matches!(request.op, Op::Store(_)) => disk.admit(Some(Errand::Fetch)),
            Some(_) => Need::Nothing,
            None if changes(&request.op) => disk.admit(Some(Errand::Take)),
            None => disk.admit(Some(Errand::Fetch)),
        }
    }

    /// Keeps a request until the disk has been asked.
    pub(super) fn park(
        &self,
        number: usize,
        group: &mut Group,
        request: &Request<'_>,
        errand: Option<Errand>,
    ) -> oneshot::Receiver<Reply> {
        let (reply, answer) = oneshot::channel();
        let key = Bytes::copy_from_slice(request.key);
        let request = Owned::new(request);
        group.cold.parked.entry(key.clone()).or_default().push_back(Parked { request, reply });
        if let (Some(disk), Some(errand)) = (&self.disk, errand) {
            disk.send(number, Job::Serve { group: number, key, errand });
        }
        answer
    }

    /// Sends what memory gave up on its way.
    pub(super) fn spill(&self, number: usize, group: &mut Group, key: Bytes, item: Item) {
        let Some(disk) = &self.disk else { return };
        if item.on_disk && !item.is_newly_claimed {
            return;
        }
        if disk.is_failed() {
            disk.settings.metrics.lost.inc();
            return;
        }
        disk.backlog_len.fetch_add(item.held_len(key.len()), Ordering::Relaxed);
        group.cold.spills.insert(key.clone(), Spill { item, is_begun: false });
        disk.send(number, Job::Write { group: number, key });
    }

    /// Writes down what has to outlive the process.
    pub(super) fn keep_rules(&self) {
        let Some(disk) = &self.disk else { return };
        let (rules, load) = (&self.rules, |number: &AtomicU64| number.load(Ordering::Relaxed));
        let notes = Notes {
            last_cas: load(&rules.last_cas) + CAS_BLOCK,
            flushed_cas: load(&rules.flushed_cas),
            flush_at_ms: load(&rules.flush_at_ms),
        };
        if disk.with(|engine| engine.keep(notes)).is_some() {
            disk.cas_ceiling.fetch_max(notes.last_cas, Ordering::Relaxed);
        }
        disk.is_asked_to_keep.store(false, Ordering::Relaxed);
    }
}

impl Disk {
    fn admit(&self, errand: Option<Errand>) -> Need {
        if self.parked.fetch_add(1, Ordering::Relaxed) < PARKED_MAX {
            return Need::Disk(errand);
        }
        self.parked.fetch_sub(1, Ordering::Relaxed);
        let words = Bytes::from_static(b"SERVER_ERROR too many requests wait for the disk");
        Need::Refused(Reply::new(Status::Error, words, Bytes::new()))
    }
}

impl Group {
    /// Brings back into memory what is on its way to disk.
    fn take_back(&mut self, key: &[u8], disk: &Disk) {
        let Some(Spill { mut item, is_begun }) = self.cold.spills.remove(key) else { return };
        disk.backlog_len.fetch_sub(item.held_len(key.len()), Ordering::Relaxed);
        // What is being written cannot be stopped: there will be a copy.
        item.on_disk |= is_begun;
        self.shelf.put(key, item);
    }
}

/// Could this change the item, other than its marks?
fn changes(op: &Op<'_>) -> bool {
    match op {
        Op::Get(Get { touch, .. }) => touch.is_some(),
        Op::Store(_) | Op::Delete(_) | Op::Arith(_) => true,
        Op::Debug => false,
    }
}
