//! A file with a list of endpoints (YAML, or JSON, which is YAML too), watched.
//!
//! It is read as strictly as the configuration, and a bad one is reported in the same words. A slow poll
//! covers file systems that report nothing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::warn;

use crate::config::{self, Folders, Report};

use super::source::{Found, Source, SourceError};

/// Looked at this often even when nothing was reported.
const POLL: Duration = Duration::from_secs(10);

/// The file source.
pub(super) struct File {
    path: PathBuf,
    folders: Folders,
    /// As last read, good or bad: the same is not told twice.
    last: Option<Result<Vec<config::Endpoint>, Report>>,
}

impl File {
    pub(super) fn new(path: &Path) -> Result<Self, SourceError> {
        let path = path.to_owned();
        let mut folders = Folders::new().map_err(|error| SourceError::Watch {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        folders.follow([&path]);
        Ok(Self { path, folders, last: None })
    }

    /// The list, if it is good and another than before.
    fn read(&mut self) -> Option<Found> {
        let now = config::read::<Vec<config::Endpoint>>(&self.path);
        if self.last.as_ref() == Some(&now) {
            return None;
        }
        match self.last.insert(now) {
            Ok(endpoints) => Some(Found { endpoints: endpoints.clone(), may_be_empty: false }),
            Err(report) => {
                warn!("bad list of endpoints; keeping what is known:\n{report}");
                None
            }
        }
    }

    async fn next_list(&mut self) -> Found {
        loop {
            if timeout(POLL, self.folders.stirred()).await.is_ok() {
                self.folders.calm().await;
            }
            // Where its links lead may have changed, too.
            self.folders.follow([&self.path]);
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
