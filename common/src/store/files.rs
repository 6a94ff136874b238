//! The store of one machine: a folder, the kernel's advisory locks (flock(2)), and renames.
//!
//! ```text
//! DIR/lock           held by whoever writes; it holds the last revision
//! DIR/data/NAME      one value: a line that tells revision, length and checksum, then the value itself
//! DIR/leases/NAME    locked by the process whose presence the value of that name is
//! ```
//!
//! A value is written beside its place, synced, and renamed into it, so that a reader sees the old one or the
//! new one and needs no lock. The kernel lets go of a lock when its process has ended, however it did. It must
//! be a file system of this machine: over a network, locks are not what they seem.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, pending};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Entry, Expect, Presence, Put, Revision, Store, StoreError, VALUE_LEN_MAX, Watch, check_name, check_value,
};

/// Another writer is done in milliseconds, unless it is stopped.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two tries for a lock.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// Somebody who only looks whether a lease is held holds it for a moment.
const LEASE_WAIT_MAX: Duration = Duration::from_millis(100);
/// Between an event and the look it asks for: a process that ends is seen to close its files just before it
/// lets go of their locks.
const SETTLE: Duration = Duration::from_millis(10);
/// Between two looks that no event asked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A folder that several processes of one machine share.
#[derive(Debug, Clone)]
pub struct Files {
    folder: Arc<Folder>,
}

#[derive(Debug)]
struct Folder {
    root: PathBuf,
    data: PathBuf,
    leases: PathBuf,
    lock: PathBuf,
    /// Makes the names of unfinished files this process's own.
    written: AtomicU64,
}

impl Files {
    /// The store in `root`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let root = root.into();
        let (data, leases, lock) = (root.join("data"), root.join("leases"), root.join("lock"));
        for folder in [&data, &leases] {
            fs::create_dir_all(folder).map_err(away(folder))?;
        }
        let folder = Folder { root, data, leases, lock, written: AtomicU64::new(0) };
        drop(folder.open_lock()?);
        Ok(Self { folder: Arc::new(folder) })
    }

    /// Files answer at once, but a disk may be slow.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Folder>) -> Result<T, StoreError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let folder = Arc::clone(&self.folder);
        Box::pin(async move {
            let place = folder.root.display().to_string();
            let done = tokio::task::spawn_blocking(move || work(&folder)).await;
            done.unwrap_or_else(|error| Err(StoreError::Away { place, reason: error.to_string() }))
        })
    }
}

impl Store for Files {
    fn describe(&self) -> String {
        format!("files in {}", self.folder.root.display())
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        let name = name.to_owned();
        self.run(move |folder| {
            check_name(&name)?;
            Ok(folder.read(&name)?.filter(|found| folder.is_there(&name, found)).map(|found| found.entry))
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<(String, Entry)>, StoreError>> {
        let prefix = prefix.to_owned();
        self.run(move |folder| folder.list(&prefix))
    }

    fn put<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        expect: Expect,
    ) -> BoxFuture<'a, Result<Put, StoreError>> {
        let name = name.to_owned();
        self.run(move |folder| {
            check_name(&name)?;
            check_value(&name, &value)?;
            let mut lock = folder.lock()?;
            if !folder.is_as_expected(&name, expect)? {
                return Ok(Put::Conflict);
            }
            folder.write(&mut lock, &name, &value, Kind::Kept).map(Put::Done)
        })
    }

    fn remove<'a>(&'a self, name: &'a str, expect: Expect) -> BoxFuture<'a, Result<Put, StoreError>> {
        let name = name.to_owned();
        self.run(move |folder| {
            check_name(&name)?;
            let mut lock = folder.lock()?;
            if !folder.is_as_expected(&name, expect)? {
                return Ok(Put::Conflict);
            }
            let revision = folder.next_revision(&mut lock, &name)?;
            folder.remove(&folder.data_of(&name))?;
            Ok(Put::Done(revision))
        })
    }

    fn present<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
    ) -> BoxFuture<'a, Result<Option<Box<dyn Presence>>, StoreError>> {
        let name = name.to_owned();
        self.run(move |folder| {
            check_name(&name)?;
            check_value(&name, &value)?;
            let mut lock = folder.lock()?;
            folder.sweep()?;
            let Some(lease) = folder.take_lease(&name)? else { return Ok(None) };
            folder.write(&mut lock, &name, &value, Kind::Leased)?;
            let held = Held { folder: Arc::clone(folder), name, _lease: lease };
            Ok(Some(Box::new(FilePresence { held: Arc::new(held) }) as Box<dyn Presence>))
        })
    }

    fn watch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        let watch = FileWatch::new(&self.folder).map(|watch| Box::new(watch) as Box<dyn Watch>);
        Box::pin(std::future::ready(watch))
    }
}

/// Does a value stay, or go with its process?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kept,
    Leased,
}

/// What a file of `data` holds.
struct Found {
    entry: Entry,
    kind: Kind,
}

impl Folder {
    fn data_of(&self, name: &str) -> PathBuf {
        self.data.join(file_name(name))
    }

    fn lease_of(&self, name: &str) -> PathBuf {
        self.leases.join(file_name(name))
    }

    fn open_lock(&self) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&self.lock).map_err(away(&self.lock))
    }

    /// The right to write, until the file is dropped.
    fn lock(&self) -> Result<File, StoreError> {
        let file = self.open_lock()?;
        match try_for(LOCK_WAIT_MAX, || file.try_lock()).map_err(away(&self.lock))? {
            true => Ok(file),
            false => Err(StoreError::Held(self.lock.display().to_string())),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Found>, StoreError> {
        let path = self.data_of(name);
        match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(away(&path)(error)),
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        let mut found = Vec::new();
        for name in names_in(&self.data)? {
            let Some(value) = name.starts_with(prefix).then(|| self.read(&name)).transpose()?.flatten()
            else {
                continue;
            };
            if self.is_there(&name, &value) {
                found.push((name, value.entry));
            }
        }
        found.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(found)
    }

    /// Is it a value that stays, or one whose process is there?
    fn is_there(&self, name: &str, found: &Found) -> bool {
        match found.kind {
            Kind::Kept => true,
            Kind::Leased => self.is_held(&self.lease_of(name)),
        }
    }

    /// When in doubt, yes: a barrier that waits too long does no harm.
    fn is_held(&self, lease: &Path) -> bool {
        match File::open(lease) {
            Ok(file) => file.try_lock_shared().is_err(),
            Err(error) => error.kind() != io::ErrorKind::NotFound,
        }
    }

    fn is_as_expected(&self, name: &str, expect: Expect) -> Result<bool, StoreError> {
        Ok(match expect {
            Expect::Anything => true,
            Expect::Absent => !self.read(name)?.is_some_and(|found| self.is_there(name, &found)),
            Expect::Revision(revision) => {
                self.read(name)?.is_some_and(|found| found.entry.revision == revision)
            }
        })
    }

    /// Counts on, in the lock's file. What is there of `name` counts too, should that file have been lost.
    fn next_revision(&self, lock: &mut File, name: &str) -> Result<Revision, StoreError> {
        let mut text = String::new();
        lock.seek(SeekFrom::Start(0))
            .and_then(|_| lock.read_to_string(&mut text))
            .map_err(away(&self.lock))?;
        let counted = text.trim().parse::<u64>().unwrap_or(0);
        let known = self.read(name).ok().flatten().map_or(0, |found| found.entry.revision.0);
        let next = counted.max(known) + 1;
        // As wide as any: it is written over, in one call.
        let line = format!("{next:020}\n");
        lock.seek(SeekFrom::Start(0))
            .and_then(|_| lock.write_all(line.as_bytes()))
            .map_err(away(&self.lock))?;
        Ok(Revision(next))
    }

    fn write(&self, lock: &mut File, name: &str, value: &[u8], kind: Kind) -> Result<Revision, StoreError> {
        let revision = self.next_revision(lock, name)?;
        self.place(name, revision, value, kind)?;
        Ok(revision)
    }

    /// Puts a file in its place, whole.
    fn place(&self, name: &str, revision: Revision, value: &[u8], kind: Kind) -> Result<(), StoreError> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let unfinished = self.data.join(format!(".{}-{number}", std::process::id()));
        let path = self.data_of(name);
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(&header(revision, value, kind))?;
            file.write_all(value)?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            // The name is durable when its folder is.
            File::open(&self.data)?.sync_all()
        };
        write().map_err(away(&path))
    }

    /// The lease of a name, unless somebody has it. Only under the lock, as all that makes or removes leases.
    fn take_lease(&self, name: &str) -> Result<Option<File>, StoreError> {
        let path = self.lease_of(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path).map_err(away(&path))?;
        Ok(try_for(LEASE_WAIT_MAX, || file.try_lock()).map_err(away(&path))?.then_some(file))
    }

    /// Takes away what processes left that have ended. Only under the lock.
    fn sweep(&self) -> Result<(), StoreError> {
        for name in names_in(&self.leases)? {
            let lease = self.lease_of(&name);
            if !self.is_held(&lease) {
                if self.read(&name).is_ok_and(|found| found.is_some_and(|found| found.kind == Kind::Leased)) {
                    self.remove(&self.data_of(&name))?;
                }
                self.remove(&lease)?;
            }
        }
        for entry in fs::read_dir(&self.data).map_err(away(&self.data))?.flatten() {
            if is_left_unfinished(&entry.file_name().to_string_lossy()) {
                self.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(away(path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Is it a file that a process has begun which is no more? Another one may have its number by now: then the
/// file stays until the next time.
fn is_left_unfinished(file: &str) -> bool {
    let process = file.strip_prefix('.').and_then(|rest| rest.split('-').next());
    process.is_some_and(|process| !Path::new("/proc").join(process).exists())
}

/// Names hold no `+`.
fn file_name(name: &str) -> String {
    name.replace('/', "+")
}

/// The names that have a file in this folder.
fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(folder).map_err(away(folder))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with('.')).map(|name| name.replace('+', "/")).collect())
}

/// The first line of a value's file.
const FORMAT: &str = "groove-store-1";

fn header(revision: Revision, value: &[u8], kind: Kind) -> Vec<u8> {
    let kind = match kind {
        Kind::Kept => "kept",
        Kind::Leased => "leased",
    };
    format!("{FORMAT} {} {} {:016x} {kind}\n", revision.0, value.len(), xxh3_64(value)).into_bytes()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Found, StoreError> {
    let damaged = |reason| StoreError::Damaged { place: path.display().to_string(), reason };
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(damaged("its first line has no end"))?;
    let (line, value) = bytes.split_at(end);
    let value = value.get(1..).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| damaged("its first line is no text"))?;
    let mut words = line.split(' ');
    if words.next() != Some(FORMAT) {
        return Err(damaged("it is not a value of a store"));
    }
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    let (revision, len) = (number(words.next()), number(words.next()));
    let sum = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
    let kind = match words.next() {
        Some("kept") => Kind::Kept,
        Some("leased") => Kind::Leased,
        Some(_) | None => return Err(damaged("its first line is not whole")),
    };
    let (Some(revision), Some(len), Some(sum)) = (revision, len, sum) else {
        return Err(damaged("its first line is not whole"));
    };
    if len != value.len() as u64 || value.len() > VALUE_LEN_MAX || sum != xxh3_64(value) {
        return Err(damaged("it is not as long as it says, or its checksum is wrong"));
    }
    Ok(Found { entry: Entry { value: Bytes::copy_from_slice(value), revision: Revision(revision) }, kind })
}

/// Tries for a lock until it is had or the time is over.
fn try_for(time_max: Duration, lock: impl Fn() -> Result<(), TryLockError>) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        match lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::WouldBlock) if begun.elapsed() < time_max => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn away(place: &Path) -> impl Fn(io::Error) -> StoreError {
    let place = place.display().to_string();
    move |error| StoreError::Away { place: place.clone(), reason: error.to_string() }
}

/// A lease with its value.
#[derive(Debug)]
struct Held {
    folder: Arc<Folder>,
    name: String,
    /// Locked, for as long as it is open.
    _lease: File,
}

impl Drop for Held {
    fn drop(&mut self) {
        // Before the lease is let go, or it would be the next one's value. The lease's file stays for the
        // next sweep: without the lock it could be taken from under one who has just opened it.
        let path = self.folder.data_of(&self.name);
        if let Err(error) = self.folder.remove(&path) {
            tracing::debug!(%error, "a presence leaves its value behind");
        }
    }
}

#[derive(Debug)]
struct FilePresence {
    held: Arc<Held>,
}

impl Presence for FilePresence {
    fn update(&self, value: Bytes) -> BoxFuture<'_, Result<(), StoreError>> {
        let held = Arc::clone(&self.held);
        Files { folder: Arc::clone(&held.folder) }.run(move |folder| {
            check_value(&held.name, &value)?;
            // Nobody else writes it: a process that is stopped here holds up nobody.
            let known = folder.read(&held.name)?.map_or(0, |found| found.entry.revision.0);
            folder.place(&held.name, Revision(known + 1), &value, Kind::Leased)
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        // The kernel takes the lock from nobody who lives.
        Box::pin(pending())
    }
}

struct FileWatch {
    /// Watches as long as it lives.
    _watcher: RecommendedWatcher,
    stirred: Arc<Notify>,
}

impl FileWatch {
    fn new(folder: &Folder) -> Result<Self, StoreError> {
        let stirred = Arc::new(Notify::new());
        let events = Arc::clone(&stirred);
        let failed = |error: notify::Error| StoreError::Away {
            place: folder.root.display().to_string(),
            reason: error.to_string(),
        };
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error (an overflow) may hide a change.
            if event.map_or(true, |event| is_change(event.kind)) {
                events.notify_one();
            }
        });
        let mut watcher = watcher.map_err(failed)?;
        for folder in [&folder.data, &folder.leases] {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(failed)?;
        }
        Ok(Self { _watcher: watcher, stirred })
    }
}

/// Reading is none, or looking would cause the next look. A lease that is closed is one: its process ended.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        EventKind::Any
        | EventKind::Create(_)
        | EventKind::Modify(_)
        | EventKind::Remove(_)
        | EventKind::Other => true,
    }
}

impl std::fmt::Debug for FileWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileWatch").finish_non_exhaustive()
    }
}

impl Watch for FileWatch {
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            // In time or not: a file system may tell nothing.
            if timeout(LOOK_EVERY, self.stirred.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
        })
    }
}
