//! A file with a list of endpoints (YAML, or JSON, which is YAML too), watched.
//!
//! Editors and config managers replace files rather than write into them, and Kubernetes
//! swaps a symlink two levels up, so it is folders that are watched: the one the path names
//! and the one it leads to. A slow poll covers file systems that report nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;
use tracing::warn;

use crate::config;

use super::source::{Found, Source, SourceError};

/// Looked at this often even when nothing was reported.
const POLL: Duration = Duration::from_secs(10);

/// A list of a million endpoints is a mistake.
const BYTES_MAX: u64 = 16 << 20;

/// The file source.
pub(super) struct File {
    path: PathBuf,
    watcher: RecommendedWatcher,
    watched: Vec<PathBuf>,
    changed: Arc<Notify>,
    /// As last read, good or bad: the same text is not judged twice.
    last: Result<String, String>,
}

impl File {
    pub(super) fn new(path: &Path) -> Result<Self, SourceError> {
        let changed = Arc::new(Notify::new());
        let wake = Arc::clone(&changed);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event as well, and ours.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                wake.notify_one();
            }
        });
        let complain = |reason: notify::Error| SourceError::Watch {
            path: path.display().to_string(),
            reason: reason.to_string(),
        };
        let mut file = Self {
            path: path.to_owned(),
            watcher: watcher.map_err(complain)?,
            watched: Vec::new(),
            changed,
            last: Ok(String::new()),
        };
        file.watch_folders().map_err(complain)?;
        Ok(file)
    }

    /// The folder that the path names, and the one where it leads through symlinks.
    fn watch_folders(&mut self) -> notify::Result<()> {
        let resolved = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let mut wanted: Vec<_> = [&self.path, &resolved].map(|path| folder(path)).into();
        wanted.dedup();
        for gone in self.watched.iter().filter(|folder| !wanted.contains(folder)) {
            // It may be deleted, and its watch with it.
            drop(self.watcher.unwatch(gone));
        }
        for new in wanted.iter().filter(|folder| !self.watched.contains(folder)) {
            self.watcher.watch(new, RecursiveMode::NonRecursive)?;
        }
        self.watched = wanted;
        Ok(())
    }

    /// The list, if the file has changed and is good.
    fn read(&mut self) -> Option<Found> {
        let now = read_bounded(&self.path);
        if now == self.last {
            return None;
        }
        self.last = now;
        let endpoints = match &self.last {
            Ok(text) => {
                serde_yaml::from_str::<Vec<config::Endpoint>>(text).map_err(|error| error.to_string())
            }
            Err(reason) => Err(reason.clone()),
        };
        match endpoints {
            Ok(endpoints) => Some(Found { endpoints, may_be_empty: false }),
            Err(reason) => {
                warn!(file = %self.path.display(), reason, "bad list of endpoints; keeping what is known");
                None
            }
        }
    }

    async fn next_list(&mut self) -> Found {
        loop {
            // An event and a poll mean the same: look.
            let _ = timeout(POLL, self.changed.notified()).await;
            if let Err(error) = self.watch_folders() {
                warn!(file = %self.path.display(), reason = %error, "cannot watch; looking now and then");
            }
            if let Some(found) = self.read() {
                return found;
            }
        }
    }
}

impl Source for File {
    fn describe(&self) -> String {
        format!("file {}", self.path.display())
    }

    fn initial(&mut self) -> Option<Found> {
        self.read()
    }

    fn next(&mut self) -> BoxFuture<'_, Found> {
        Box::pin(self.next_list())
    }
}

fn folder(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn read_bounded(path: &Path) -> Result<String, String> {
    let len = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if len > BYTES_MAX {
        return Err(format!("{len} bytes, and at most {BYTES_MAX} are read"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
