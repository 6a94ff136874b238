//! The files: a handful of segments, each an LSM tree of its own. New items go into the newest; when it is
//! full another is begun, and the oldest is dropped whole, which costs nothing and gives its room back at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};
use parking_lot::RwLock;
use tracing::warn;

use crate::store::item::Item;

/// Segments there are when the disk is full.
const SEGMENTS: u64 = 8;

/// What the journals may take.
const JOURNALS_LEN: u64 = 64 << 20;

/// Room that is left to others on the file system.
const FREE_LEN_MIN: u64 = 64 << 20;

/// Between two looks at the room that is left.
const LOOK_LEN: u64 = 1 << 20;

/// Values from this length on are kept in files of their own, and not moved again.
const SEPARATE_LEN_MIN: u32 = 2048;

/// Before an item's value: version, marks, flags, CAS value, expiry, when it was last seen.
const HEAD_LEN: usize = 30;
const VERSION: u8 = 1;

/// Why the disk is of no use.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The engine cannot go on.
    #[error("{0}")]
    Engine(#[from] fjall::Error),
    /// The directory cannot be used.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A thread for it cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// Another process has it.
    #[error("another process uses {0}")]
    Used(String),
}

/// What outlives the process besides items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::store) struct Notes {
    /// No CAS value above this one has been given out.
    pub(in crate::store) last_cas: u64,
    /// What has this CAS value or a smaller one has been flushed.
    pub(in crate::store) flushed_cas: u64,
    /// When a flush is to come, in milliseconds since the epoch; 0 for never.
    pub(in crate::store) flush_at_ms: u64,
}

/// What became of a write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Written {
    /// False: there was no room.
    pub(super) is_kept: bool,
    /// Items that were dropped for it.
    pub(super) aged_out: u64,
    /// Bytes in use.
    pub(super) used_len: u64,
}

/// The open files.
pub(super) struct Engine {
    path: PathBuf,
    notes: Keyspace,
    /// The newest first.
    segments: RwLock<Vec<Segment>>,
    segment_len_max: AtomicU64,
    /// Written since the room was looked at.
    unlooked_len: AtomicU64,
    has_room: AtomicBool,
    /// Dropped last: its threads work on the keyspaces.
    database: Database,
}

struct Segment {
    number: u64,
    items: Keyspace,
    /// About what it takes.
    len: AtomicU64,
}

impl Engine {
    /// Opens what is in `path`, or begins anew if that cannot be read or may be out of date.
    pub(super) fn open(path: &Path, capacity_len: u64, cache_len: u64) -> Result<(Self, Notes), DiskError> {
        let folder = folder(path);
        fs::create_dir_all(&folder)?;
        let segment_len_max = segment_len(capacity_len);
        let opened = Self::try_open(&folder, segment_len_max, cache_len);
        let engine = match opened {
            Err(DiskError::Engine(fjall::Error::Locked)) => {
                return Err(DiskError::Used(folder.display().to_string()));
            }
            Err(error) => {
                warn!(path = %folder.display(), %error, "the disk tier cannot be read and begins anew");
                Self::erase(path);
                fs::create_dir_all(&folder)?;
                Self::try_open(&folder, segment_len_max, cache_len)?
            }
            Ok(engine) => engine,
        };
        let notes = engine.begin()?;
        Ok((engine, notes))
    }

    fn try_open(folder: &Path, segment_len_max: u64, cache_len: u64) -> Result<Self, DiskError> {
        let database = Database::builder(folder)
            .cache_size(cache_len)
            .max_journaling_size(JOURNALS_LEN)
            .worker_threads(2)
            .open()?;
        let notes = database.keyspace("notes", KeyspaceCreateOptions::default)?;
        let mut numbers: Vec<u64> = database
            .list_keyspace_names()
            .iter()
            .filter_map(|name| name.strip_prefix("items-")?.parse().ok())
            .collect();
        if numbers.is_empty() {
            numbers.push(1);
        }
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        let mut segments = Vec::new();
        for number in numbers {
            segments.push(Segment::open(&database, number, segment_len_max)?);
        }
        Ok(Self {
            path: folder.to_owned(),
            notes,
            segments: RwLock::new(segments),
            segment_len_max: AtomicU64::new(segment_len_max),
            unlooked_len: AtomicU64::new(u64::MAX / 2),
            has_room: AtomicBool::new(true),
            database,
        })
    }

    /// Reads what was written down, and marks the files as being in use.
    fn begin(&self) -> Result<Notes, DiskError> {
        let number = |name: &str| -> Result<u64, DiskError> {
            let bytes = self.notes.get(name)?;
            Ok(bytes.and_then(|bytes| Some(u64::from_le_bytes((*bytes).try_into().ok()?))).unwrap_or(0))
        };
        let boot = boot();
        let is_same_boot = self.notes.get("boot")?.is_some_and(|known| *known == *boot.as_bytes());
        if !is_same_boot && number("closed")? == 0 {
            // The machine went down with it open: removals may be missing.
            self.clear()?;
        }
        let notes = Notes {
            last_cas: number("last_cas")?,
            flushed_cas: number("flushed_cas")?,
            flush_at_ms: number("flush_at_ms")?,
        };
        self.notes.insert("boot", boot)?;
        self.notes.insert("closed", 0_u64.to_le_bytes())?;
        self.database.persist(PersistMode::SyncAll)?;
        Ok(notes)
    }

    /// Removes everything there is in `path`, as far as that goes.
    pub(super) fn erase(path: &Path) {
        let folder = folder(path);
        match fs::remove_dir_all(&folder) {
            Ok(()) => (),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => warn!(path = %folder.display(), %error, "the disk tier cannot be removed"),
        }
    }

    pub(super) fn set_capacity(&self, capacity_len: u64) {
        self.segment_len_max.store(segment_len(capacity_len), Ordering::Relaxed);
    }

    /// Bytes in use, more or less.
    pub(super) fn used_len(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    pub(super) fn keep(&self, notes: Notes) -> Result<(), DiskError> {
        let Notes { last_cas, flushed_cas, flush_at_ms } = notes;
        self.notes.insert("last_cas", last_cas.to_le_bytes())?;
        self.notes.insert("flushed_cas", flushed_cas.to_le_bytes())?;
        Ok(self.notes.insert("flush_at_ms", flush_at_ms.to_le_bytes())?)
    }

    /// Nothing will be changed any more.
    pub(super) fn finish(&self) -> Result<(), DiskError> {
        self.notes.insert("closed", 1_u64.to_le_bytes())?;
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    pub(super) fn fetch(&self, key: &[u8]) -> Result<Option<Item>, DiskError> {
        for segment in &*self.segments.read() {
            if let Some(bytes) = segment.items.get(key)? {
                return Ok(decode(&bytes));
            }
        }
        Ok(None)
    }

    pub(super) fn remove(&self, key: &[u8]) -> Result<(), DiskError> {
        for segment in &*self.segments.read() {
            if segment.items.contains_key(key)? {
                segment.items.remove(key)?;
            }
        }
        Ok(())
    }

    /// Writes an item. What is there of its key must be the same version: older segments are not looked at.
    pub(super) fn write(&self, key: &[u8], item: &Item) -> Result<Written, DiskError> {
        let bytes = encode(item);
        let len = (key.len() + bytes.len()) as u64;
        let mut written = Written { is_kept: false, aged_out: self.look_for_room(len)?, used_len: 0 };
        if !self.has_room.load(Ordering::Relaxed) {
            return Ok(written);
        }
        let is_full = {
            let segments = self.segments.read();
            let Some(newest) = segments.first() else { return Ok(written) };
            newest.items.insert(key, bytes)?;
            newest.len.fetch_add(len, Ordering::Relaxed) + len >= self.segment_len_max.load(Ordering::Relaxed)
        };
        written.is_kept = true;
        if is_full {
            written.aged_out += self.rotate()?;
        }
        written.used_len =
            self.segments.read().iter().map(|segment| segment.len.load(Ordering::Relaxed)).sum();
        Ok(written)
    }

    /// Now and then, asks the file system: others may have filled it. The oldest segments go then.
    fn look_for_room(&self, len: u64) -> Result<u64, DiskError> {
        if self.unlooked_len.fetch_add(len, Ordering::Relaxed) < LOOK_LEN {
            return Ok(0);
        }
        self.unlooked_len.store(0, Ordering::Relaxed);
        let mut aged_out = 0;
        while self.free_len()? < FREE_LEN_MIN && self.segments.read().len() > 1 {
            aged_out += self.drop_oldest()?;
        }
        let had_room = self.has_room.load(Ordering::Relaxed);
        let has_room = self.free_len()? >= FREE_LEN_MIN;
        self.has_room.store(has_room, Ordering::Relaxed);
        if had_room != has_room {
            let path = self.path.display();
            warn!(%path, has_room, "the file system of the disk tier {}", if has_room { "has room again" } else { "is full" });
        }
        Ok(aged_out)
    }

    fn free_len(&self) -> Result<u64, DiskError> {
        let about = rustix::fs::statvfs(&self.path).map_err(io::Error::from)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }

    /// Begins a new segment.
    fn rotate(&self) -> Result<u64, DiskError> {
        let segment_len_max = self.segment_len_max.load(Ordering::Relaxed);
        let mut segments = self.segments.write();
        let Some(newest) = segments.first() else { return Ok(0) };
        if newest.len.load(Ordering::Relaxed) < segment_len_max {
            // Another lane was faster.
            return Ok(0);
        }
        let number = newest.number + 1;
        segments.insert(0, Segment::open(&self.database, number, segment_len_max)?);
        drop(segments);
        let mut aged_out = 0;
        while self.segments.read().len() as u64 > SEGMENTS {
            aged_out += self.drop_oldest()?;
        }
        Ok(aged_out)
    }

    fn drop_oldest(&self) -> Result<u64, DiskError> {
        let Some(oldest) = self.segments.write().pop() else { return Ok(0) };
        let items = oldest.items.approximate_len() as u64;
        self.database.delete_keyspace(oldest.items)?;
        Ok(items)
    }

    fn clear(&self) -> Result<(), DiskError> {
        let mut segments = self.segments.write();
        let next = segments.first().map_or(1, |newest| newest.number + 1);
        let fresh = Segment::open(&self.database, next, self.segment_len_max.load(Ordering::Relaxed))?;
        for old in std::mem::replace(&mut *segments, vec![fresh]) {
            self.database.delete_keyspace(old.items)?;
        }
        Ok(())
    }
}

impl Segment {
    fn open(database: &Database, number: u64, segment_len_max: u64) -> Result<Self, DiskError> {
        let options = || {
            let separation = KvSeparationOptions::default().separation_threshold(SEPARATE_LEN_MIN);
            KeyspaceCreateOptions::default()
                .max_memtable_size((segment_len_max / 4).clamp(1 << 20, 16 << 20))
                .with_kv_separation(Some(separation))
        };
        let items = database.keyspace(&format!("items-{number}"), options)?;
        let len = AtomicU64::new(items.disk_space());
        Ok(Self { number, items, len })
    }
}

/// A folder of our own: it may be removed.
fn folder(path: &Path) -> PathBuf {
    path.join("groove-store")
}

fn segment_len(capacity_len: u64) -> u64 {
    capacity_len.saturating_sub(JOURNALS_LEN).max(SEGMENTS << 20) / SEGMENTS
}

/// Tells one run of the machine from another.
fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

fn encode(item: &Item) -> Vec<u8> {
    let marks = u8::from(item.is_fetched) | u8::from(item.is_stale) << 1 | u8::from(item.is_claimed) << 2;
    let mut bytes = Vec::with_capacity(HEAD_LEN + item.value.len());
    bytes.extend_from_slice(&[VERSION, marks]);
    bytes.extend_from_slice(&item.flags.to_le_bytes());
    bytes.extend_from_slice(&item.cas.to_le_bytes());
    bytes.extend_from_slice(&item.expires_ms.to_le_bytes());
    bytes.extend_from_slice(&item.seen_ms.to_le_bytes());
    bytes.extend_from_slice(&item.value);
    bytes
}

/// `None` for what another version has written.
fn decode(bytes: &[u8]) -> Option<Item> {
    let (&[version, marks], rest) = bytes.split_first_chunk()?;
    let (flags, rest) = rest.split_first_chunk()?;
    let (cas, rest) = rest.split_first_chunk()?;
    let (expires_ms, rest) = rest.split_first_chunk()?;
    let (seen_ms, value) = rest.split_first_chunk()?;
    (version == VERSION).then(|| Item {
        value: Bytes::copy_from_slice(value),
        flags: u32::from_le_bytes(*flags),
        cas: u64::from_le_bytes(*cas),
        expires_ms: u64::from_le_bytes(*expires_ms),
        seen_ms: u64::from_le_bytes(*seen_ms),
        is_fetched: marks & 1 != 0,
        is_stale: marks & 2 != 0,
        is_claimed: marks & 4 != 0,
        on_disk: true,
        is_newly_claimed: false,
    })
}
