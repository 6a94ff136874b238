//! Hears of changes in the folder.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::super::{StoreError, Watch};
use super::folder::Folder;

/// Between an event and the look it asks for: a process that ends is seen to close its files just before it
/// lets go of their locks.
const SETTLE: Duration = Duration::from_millis(10);
/// Between two looks that no event asked for.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(super) struct FileWatch {
    /// Watches as long as it lives.
    _watcher: RecommendedWatcher,
    stirred: Arc<Notify>,
}

impl FileWatch {
    pub(super) fn new(folder: &Folder) -> Result<Self, StoreError> {
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
