//! The folder itself: who may write, who is there, and what is in it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::{Entry, Expect, Revision, StoreError};
use super::value::{Found, Kind, header, parse};

/// Another writer is done in milliseconds, unless it is stopped.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two tries for a lock.
const LOCK_RETRY: Duration = Duration::from_millis(2);
/// Somebody who only looks whether a lease is held holds it for a moment.
const LEASE_WAIT_MAX: Duration = Duration::from_millis(100);

/// Before the name of a file that is not whole yet; no name of a value begins so.
const UNFINISHED: char = '.';

#[derive(Debug)]
pub(super) struct Folder {
    pub(super) root: PathBuf,
    pub(super) data: PathBuf,
    pub(super) leases: PathBuf,
    lock: PathBuf,
}

impl Folder {
    /// The store in `root`, which is made if it is not there.
    pub(super) fn open(root: PathBuf) -> Result<Self, StoreError> {
        let (data, leases, lock) = (root.join("data"), root.join("leases"), root.join("lock"));
        for folder in [&data, &leases] {
            fs::create_dir_all(folder).map_err(away(folder))?;
        }
        let folder = Self { root, data, leases, lock };
        drop(folder.open_lock()?);
        Ok(folder)
    }

    pub(super) fn data_of(&self, name: &str) -> PathBuf {
        self.data.join(file_name(name))
    }

    fn lease_of(&self, name: &str) -> PathBuf {
        self.leases.join(file_name(name))
    }

    fn unfinished_of(&self, name: &str) -> PathBuf {
        self.data.join(format!("{UNFINISHED}{}", file_name(name)))
    }

    fn open_lock(&self) -> Result<File, StoreError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&self.lock).map_err(away(&self.lock))
    }

    /// The right to write, until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, StoreError> {
        let file = self.open_lock()?;
        match try_for(LOCK_WAIT_MAX, || file.try_lock()).map_err(away(&self.lock))? {
            true => Ok(file),
            false => Err(StoreError::Held(self.lock.display().to_string())),
        }
    }

    pub(super) fn read(&self, name: &str) -> Result<Option<Found>, StoreError> {
        let path = self.data_of(name);
        match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(away(&path)(error)),
        }
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
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
    pub(super) fn is_there(&self, name: &str, found: &Found) -> bool {
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

    pub(super) fn is_as_expected(&self, name: &str, expect: Expect) -> Result<bool, StoreError> {
        Ok(match expect {
            Expect::Anything => true,
            Expect::Absent => !self.read(name)?.is_some_and(|found| self.is_there(name, &found)),
            Expect::Revision(revision) => {
                self.read(name)?.is_some_and(|found| found.entry.revision == revision)
            }
        })
    }

    /// Counts on, in the lock's file. What is there of `name` counts too, should that file have been lost.
    pub(super) fn next_revision(&self, lock: &mut File, name: &str) -> Result<Revision, StoreError> {
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

    pub(super) fn write(
        &self,
        lock: &mut File,
        name: &str,
        value: &[u8],
        kind: Kind,
    ) -> Result<Revision, StoreError> {
        let revision = self.next_revision(lock, name)?;
        self.place(name, revision, value, kind)?;
        Ok(revision)
    }

    /// Puts a file in its place, whole. Only under the lock, or by who has the name's lease: until it is
    /// renamed, the file's name is made of this one alone. (A process's number would not tell two stores of
    /// one process apart, nor those of two containers.)
    pub(super) fn place(
        &self,
        name: &str,
        revision: Revision,
        value: &[u8],
        kind: Kind,
    ) -> Result<(), StoreError> {
        let (unfinished, path) = (self.unfinished_of(name), self.data_of(name));
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
    pub(super) fn take_lease(&self, name: &str) -> Result<Option<File>, StoreError> {
        let path = self.lease_of(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path).map_err(away(&path))?;
        Ok(try_for(LEASE_WAIT_MAX, || file.try_lock()).map_err(away(&path))?.then_some(file))
    }

    /// Takes away what processes left that have ended. Only under the lock.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
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
            let file = entry.file_name();
            let unfinished = file.to_str().and_then(|file| file.strip_prefix(UNFINISHED));
            // Whoever has the lease may be writing it at this moment.
            if unfinished.is_some_and(|name| !self.is_held(&self.leases.join(name))) {
                self.remove(&entry.path())?;
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(away(path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Names hold no `+`.
fn file_name(name: &str) -> String {
    name.replace('/', "+")
}

/// The names that have a file in this folder.
fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(folder).map_err(away(folder))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| !name.starts_with(UNFINISHED)).map(|name| name.replace('+', "/")).collect())
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
