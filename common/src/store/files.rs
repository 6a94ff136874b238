//! The store of one machine: a folder, the kernel's advisory locks (flock(2)), and renames.
//!
//! ```text
//! DIR/lock           held by whoever writes; it holds the last revision
//! DIR/data/NAME      one value: a line that tells revision, length and checksum, then the value itself
//! DIR/data/.NAME     the next one, until it is whole
//! DIR/leases/NAME    locked by the process whose presence the value of that name is
//! ```
//!
//! A value is written beside its place, synced, and renamed into it, so that a reader sees the old one or the
//! new one and needs no lock. The kernel lets go of a lock when its process has ended, however it did. It must
//! be a file system of this machine: over a network, locks are not what they seem.

mod folder;
mod value;
mod watch;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::future::{BoxFuture, pending};
use parking_lot::Mutex;

use self::folder::Folder;
use self::value::Kind;
use self::watch::FileWatch;
use super::{Entry, Expect, Presence, Put, Revision, Store, StoreError, Watch, check_name, check_value};

/// A folder that several processes of one machine share.
#[derive(Debug, Clone)]
pub struct Files {
    folder: Arc<Folder>,
}

impl Files {
    /// The store in `root`, which is made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be made or written.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, StoreError> {
        Ok(Self { folder: Arc::new(Folder::open(root.into())?) })
    }

    /// Every name that begins with `prefix`, as [`Store::list`], for whoever starts and may wait for a disk.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub fn list_now(&self, prefix: &str) -> Result<Vec<(String, Entry)>, StoreError> {
        self.folder.list(prefix)
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
            let (asked, written) = (AtomicU64::new(0), Mutex::new(0));
            let held = Held { folder: Arc::clone(folder), name, asked, written, _lease: lease };
            Ok(Some(Box::new(FilePresence { held: Arc::new(held) }) as Box<dyn Presence>))
        })
    }

    fn watch<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        let watch = FileWatch::new(&self.folder).map(|watch| Box::new(watch) as Box<dyn Watch>);
        Box::pin(std::future::ready(watch))
    }
}

/// A lease with its value.
#[derive(Debug)]
struct Held {
    folder: Arc<Folder>,
    name: String,
    /// Counts updates. One that is given up goes on to its end, and the next one may begin before.
    asked: AtomicU64,
    /// The last update that is done; locked while one is written.
    written: Mutex<u64>,
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
        let number = held.asked.fetch_add(1, Ordering::Relaxed) + 1;
        Files { folder: Arc::clone(&held.folder) }.run(move |folder| {
            check_value(&held.name, &value)?;
            let mut written = held.written.lock();
            if number < *written {
                return Ok(());
            }
            // Nobody else writes it: a process that is stopped here holds up nobody.
            let known = folder.read(&held.name)?.map_or(0, |found| found.entry.revision.0);
            folder.place(&held.name, Revision(known + 1), &value, Kind::Leased)?;
            *written = number;
            Ok(())
        })
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        // The kernel takes the lock from nobody who lives.
        Box::pin(pending())
    }
}
