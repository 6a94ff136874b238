//! A store inside the proxy, in place of servers: `endpoints: {embedded: {capacity: 64MiB}}`.
//!
//! It answers meta requests as memcached 1.6.18 does, CAS tokens, expiry, padding of counters and all.
//! Workers share it: moka keeps and evicts, and a lock for each of a few hundred groups of keys makes
//! reading and writing one step.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use groove_common::discovery::fresh_dice;
use groove_common::telemetry::Counter;
use moka::Expiry;
use moka::sync::Cache;
use parking_lot::{Mutex, MutexGuard};
use xxhash_rust::xxh3::xxh3_64;

use crate::wire::meta::{self as wire, Arith, Get, Mode, Op, Reply, Request, Status, Wants};
use crate::wire::output::BY_REFERENCE_LEN_MIN;
use crate::wire::{Epoch, number};

/// Groups of keys with a lock each.
const LOCKS: usize = 256;

/// What an item costs besides its key and value, in bytes.
const ITEM_OVERHEAD_LEN: usize = 128;

/// Longer times are Unix times (protocol.txt, "Expiration times").
const RELATIVE_SECONDS_MAX: i32 = 60 * 60 * 24 * 30;

/// The version whose behaviour this is.
pub const VERSION: &str = "1.6.18";

/// The store.
pub struct Store {
    items: Cache<Bytes, Arc<Item>, foldhash::fast::RandomState>,
    locks: Box<[Mutex<()>]>,
    capacity_len: u64,
    last_cas: AtomicU64,
    epoch: Epoch,
    /// When everything goes, in milliseconds since the epoch; 0 for never.
    flush_at_ms: AtomicU64,
    clock: Clock,
    counters: Counters,
}

#[derive(Debug)]
struct Item {
    value: Bytes,
    flags: u32,
    cas: u64,
    /// Never, or how long from when it was stored.
    life: Option<Duration>,
}

struct Counters {
    get_hits: Counter,
    get_misses: Counter,
    cmd_set: Counter,
    cmd_touch: Counter,
    delete_hits: Counter,
    delete_misses: Counter,
    cmd_flush: Counter,
}

struct ByItem;

impl Expiry<Bytes, Arc<Item>> for ByItem {
    fn expire_after_create(&self, _: &Bytes, item: &Arc<Item>, _: Instant) -> Option<Duration> {
        item.life
    }

    fn expire_after_update(
        &self,
        _: &Bytes,
        item: &Arc<Item>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        item.life
    }
}

impl Store {
    /// A store that holds up to `capacity_len` bytes, used by so many worker threads.
    pub fn new(capacity_len: u64, workers: usize) -> Arc<Self> {
        let weigh = |key: &Bytes, item: &Arc<Item>| {
            u32::try_from(key.len() + item.value.len() + ITEM_OVERHEAD_LEN).unwrap_or(u32::MAX)
        };
        let items = Cache::builder()
            .max_capacity(capacity_len)
            .weigher(weigh)
            .expire_after(ByItem)
            .build_with_hasher(foldhash::fast::RandomState::default());
        let counter = || Counter::new(workers);
        Arc::new(Self {
            items,
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            capacity_len,
            last_cas: AtomicU64::new(0),
            // It counts from the beginning again whenever it is made anew.
            epoch: Epoch::new(b"embedded", fresh_dice().bits()),
            flush_at_ms: AtomicU64::new(0),
            clock: Clock::start(),
            counters: Counters {
                get_hits: counter(),
                get_misses: counter(),
                cmd_set: counter(),
                cmd_touch: counter(),
                delete_hits: counter(),
                delete_misses: counter(),
                cmd_flush: counter(),
            },
        })
    }

    /// Does what a server would do, at once.
    pub fn execute(&self, request: &Request<'_>) -> Reply {
        self.flush_if_due();
        let key = request.key;
        match request.op {
            Op::Get(Get { wants, touch, .. }) if wants.has(Wants::VALUE) => {
                // What expires by this is still told once.
                let reply = self.get(key, wants.has(Wants::CAS));
                if let Some(exptime) = touch {
                    self.touch(key, exptime);
                }
                reply
            }
            Op::Get(Get { touch, .. }) => match touch {
                Some(exptime) if self.touch(key, exptime) => bare(Status::Done),
                None if self.items.contains_key(key) => bare(Status::Done),
                Some(_) | None => bare(Status::Miss),
            },
            Op::Store(store) => bare(self.store(key, &store)),
            Op::Delete(_) => self.delete(key),
            Op::Arith(Arith { delta, decrement, .. }) => self.count(key, delta, decrement),
            Op::Debug => bare(Status::Miss),
        }
    }

    /// Drops everything, now or after a delay.
    pub fn flush_all(&self, delay: i32) {
        self.counters.cmd_flush.inc();
        let at = match self.clock.life(delay) {
            // Without a delay, or with one that is over.
            None | Some(Duration::ZERO) => {
                // memcached tells what came before the flush by its token, and takes one for the flush.
                self.next_cas();
                // The latest word counts: a flush that was to come later does not come.
                self.flush_at_ms.store(0, Ordering::Relaxed);
                return self.items.invalidate_all();
            }
            Some(delay) => self.clock.now_ms() + millis(delay),
        };
        self.flush_at_ms.store(at, Ordering::Relaxed);
    }

    /// Whose CAS values its own are.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// How many items it holds, more or less.
    pub fn items(&self) -> u64 {
        self.items.entry_count()
    }

    /// How many bytes they take, more or less.
    pub fn held_len(&self) -> u64 {
        self.items.weighted_size()
    }

    /// How many bytes it may hold.
    pub fn capacity_len(&self) -> u64 {
        self.capacity_len
    }

    /// Its statistics, in memcached's names, as the text of a `stats` answer without `END`.
    pub fn stats(&self) -> Bytes {
        // moka counts what it has got round to.
        self.items.run_pending_tasks();
        let counters = &self.counters;
        let (hits, misses) = (counters.get_hits.get(), counters.get_misses.get());
        let numbers = [
            ("curr_items", self.items()),
            ("bytes", self.held_len()),
            ("limit_maxbytes", self.capacity_len),
            ("cmd_get", hits + misses),
            ("cmd_set", counters.cmd_set.get()),
            ("cmd_flush", counters.cmd_flush.get()),
            ("cmd_touch", counters.cmd_touch.get()),
            ("get_hits", hits),
            ("get_misses", misses),
            ("delete_hits", counters.delete_hits.get()),
            ("delete_misses", counters.delete_misses.get()),
        ];
        let mut text = format!("STAT version {VERSION}\r\n");
        for (name, number) in numbers {
            // Writing to a String cannot fail.
            _ = write!(text, "STAT {name} {number}\r\n");
        }
        text.into()
    }

    fn get(&self, key: &[u8], cas: bool) -> Reply {
        let Some(item) = self.items.get(key) else {
            self.counters.get_misses.inc();
            return bare(Status::Miss);
        };
        self.counters.get_hits.inc();
        let mut line = BytesMut::with_capacity(key.len() + 64);
        line.extend_from_slice(b"VA ");
        number::write(item.value.len() as u64, &mut line);
        line.extend_from_slice(b" k");
        line.extend_from_slice(key);
        line.extend_from_slice(b" f");
        number::write(u64::from(item.flags), &mut line);
        if cas {
            line.extend_from_slice(b" c");
            number::write(item.cas, &mut line);
        }
        Reply::new(Status::Value, line.freeze(), item.value.clone())
    }

    fn store(&self, key: &[u8], store: &wire::Store<'_>) -> Status {
        let wire::Store { mode, flags, exptime, value, compare, .. } = *store;
        self.counters.cmd_set.inc();
        let _lock = self.lock(key);
        let old = self.items.get(key);
        let life = self.clock.life(exptime);
        let item = |value, flags, life| Item { value, flags, cas: self.next_cas(), life };
        match (compare, &old) {
            (Some(token), Some(old)) if old.cas != token => return Status::Exists,
            (Some(_), None) => return Status::NotFound,
            (Some(_) | None, Some(_)) | (None, None) => (),
        }
        let new = match (mode, old) {
            (Mode::Set, _) | (Mode::Add, None) | (Mode::Replace, Some(_)) => {
                item(detached(value), flags, life)
            }
            (Mode::Add, Some(_)) | (Mode::Replace | Mode::Append | Mode::Prepend, None) => {
                return Status::NotStored;
            }
            (Mode::Append, Some(old)) => item([&old.value[..], value].concat().into(), old.flags, old.life),
            (Mode::Prepend, Some(old)) => item([&value[..], &old.value].concat().into(), old.flags, old.life),
        };
        self.put(key, new);
        Status::Done
    }

    fn touch(&self, key: &[u8], exptime: i32) -> bool {
        self.counters.cmd_touch.inc();
        let _lock = self.lock(key);
        let Some(old) = self.items.get(key) else { return false };
        let life = self.clock.life(exptime);
        self.put(key, Item { value: old.value.clone(), flags: old.flags, cas: old.cas, life });
        true
    }

    fn delete(&self, key: &[u8]) -> Reply {
        let _lock = self.lock(key);
        // Asked first: moka would also remove, and tell, what has expired or been flushed.
        if !self.items.contains_key(key) {
            self.counters.delete_misses.inc();
            return bare(Status::NotFound);
        }
        self.items.invalidate(key);
        self.counters.delete_hits.inc();
        bare(Status::Done)
    }

    fn count(&self, key: &[u8], delta: u64, decrement: bool) -> Reply {
        let _lock = self.lock(key);
        let Some(old) = self.items.get(key) else { return bare(Status::NotFound) };
        let Some(number) = number::unsigned(&old.value) else {
            let words = "CLIENT_ERROR cannot increment or decrement non-numeric value";
            return Reply::new(Status::Error, Bytes::from_static(words.as_bytes()), Bytes::new());
        };
        let number = if decrement { number.saturating_sub(delta) } else { number.wrapping_add(delta) };
        let digits = Bytes::from(number.to_string());
        let mut value = BytesMut::from(&digits[..]);
        // memcached writes into the old value and fills up with spaces; a longer number gets a new item.
        value.resize(digits.len().max(old.value.len()), b' ');
        self.put(key, Item { value: value.freeze(), flags: old.flags, cas: self.next_cas(), life: old.life });
        Reply::new(Status::Value, Bytes::from(format!("VA {}", digits.len())), digits)
    }

    fn put(&self, key: &[u8], item: Item) {
        match item.life {
            Some(Duration::ZERO) => self.items.invalidate(key),
            Some(_) | None => self.items.insert(Bytes::copy_from_slice(key), Arc::new(item)),
        }
    }

    fn lock(&self, key: &[u8]) -> Option<MutexGuard<'_, ()>> {
        let index = usize::try_from(xxh3_64(key) % LOCKS as u64).ok()?;
        self.locks.get(index).map(Mutex::lock)
    }

    fn next_cas(&self) -> u64 {
        self.last_cas.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn flush_if_due(&self) {
        let at = self.flush_at_ms.load(Ordering::Relaxed);
        if at == 0 || self.clock.now_ms() < at {
            return;
        }
        if self.flush_at_ms.compare_exchange(at, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.items.invalidate_all();
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("capacity_len", &self.capacity_len).finish_non_exhaustive()
    }
}

/// A reply of one word.
fn bare(status: Status) -> Reply {
    Reply::new(status, Bytes::new(), Bytes::new())
}

/// A value that keeps no read buffer alive.
fn detached(value: &Bytes) -> Bytes {
    match value.len() >= BY_REFERENCE_LEN_MIN {
        true => value.clone(),
        false => Bytes::copy_from_slice(value),
    }
}

/// Wall time that never jumps: read once, then counted on.
#[derive(Debug)]
struct Clock {
    started: Instant,
    started_ms: u64,
}

impl Clock {
    fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_ms: millis(since_epoch) }
    }

    fn now_ms(&self) -> u64 {
        self.started_ms + millis(self.started.elapsed())
    }

    /// How long an item with this exptime lives from now; none for ever.
    fn life(&self, exptime: i32) -> Option<Duration> {
        match exptime {
            0 => None,
            ..0 => Some(Duration::ZERO),
            1..=RELATIVE_SECONDS_MAX => Some(Duration::from_secs(u64::from(exptime.unsigned_abs()))),
            _ => {
                let at_ms = u64::from(exptime.unsigned_abs()) * 1000;
                Some(Duration::from_millis(at_ms.saturating_sub(self.now_ms())))
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "embedded_tests.rs"]
mod tests;
