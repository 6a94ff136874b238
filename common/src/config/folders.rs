//! Watching files by their folders.
//!
//! Not files are watched but the folders they are in: an editor puts a new file in the old one's place, and
//! Kubernetes swaps a symbolic link two levels up; both leave a watched file behind. So for each file the
//! folder of every link on the way to it is watched.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::timeout;

/// Nothing must have changed for so long before a change is looked at: whoever writes several files, or one in
/// several steps, is let finish.
const QUIET: Duration = Duration::from_millis(100);
/// But a file that changes all the time is looked at after so long.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Links on the way to a file; more is a circle.
const LINKS_MAX: usize = 16;

/// The folders that are watched.
pub(crate) struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeSet<PathBuf>,
    stirred: Arc<Notify>,
}

impl std::fmt::Debug for Folders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Folders").field(&self.watched).finish()
    }
}

impl Folders {
    /// Watches nothing yet. Fails if the system refuses (inotify's limits).
    pub(crate) fn new() -> Result<Self, notify::Error> {
        let stirred = Arc::new(Notify::new());
        let events = Arc::clone(&stirred);
        // An error (an overflow) may hide a change, so it is a reason to look as well.
        let watcher = notify::recommended_watcher(move |event: Result<notify::Event, notify::Error>| {
            if event.is_err() || event.is_ok_and(|event| !event.kind.is_access()) {
                events.notify_one();
            }
        })?;
        Ok(Self { watcher, watched: BTreeSet::new(), stirred })
    }

    /// Watches where these files are, and no longer where others were.
    pub(crate) fn follow<'f>(&mut self, files: impl IntoIterator<Item = &'f PathBuf>) {
        let wanted: BTreeSet<PathBuf> = files.into_iter().flat_map(|file| folders_of(file)).collect();
        for gone in self.watched.difference(&wanted) {
            // It may have been removed, and the watch with it.
            let _ = self.watcher.unwatch(gone);
        }
        // A folder that cannot be watched (yet) is tried again at the next change; the slow look remains.
        self.watched = wanted
            .into_iter()
            .filter(|folder| {
                self.watched.contains(folder)
                    || self.watcher.watch(folder, RecursiveMode::NonRecursive).is_ok()
            })
            .collect();
    }

    /// Resolves when something changed since the last time; what exactly is not said.
    pub(crate) async fn stirred(&self) {
        self.stirred.notified().await;
    }

    /// Resolves when nothing has changed for a moment.
    pub(crate) async fn calm(&self) {
        let calm = async { while timeout(QUIET, self.stirred()).await.is_ok() {} };
        // In time or not: what changes all the time is looked at as well.
        timeout(QUIET_WAIT_MAX, calm).await.unwrap_or_default();
    }
}

/// The folders of a file and of every link on the way to it, its folders' own links included.
fn folders_of(file: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for _ in 0..LINKS_MAX {
        folders.extend(path.parent().map(Path::to_owned));
        let Some((link, target)) = path.ancestors().find_map(|ancestor| {
            std::fs::read_link(ancestor).ok().map(|target| (ancestor.to_owned(), target))
        }) else {
            break;
        };
        let Some(link_folder) = link.parent() else { break };
        folders.insert(link_folder.to_owned());
        let rest = path.strip_prefix(&link).map(Path::to_owned).unwrap_or_default();
        let target = link_folder.join(target);
        // Joining an empty rest would add a slash, and a file has none.
        path = if rest.as_os_str().is_empty() { target } else { target.join(rest) };
    }
    folders
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_writer_is_let_finish_but_not_waited_for_without_end() {
        let folders = Folders::new().unwrap();
        for (changes, waited_ms) in [(0, 100), (5, 350), (1000, 2000)] {
            let events = Arc::clone(&folders.stirred);
            let writer = tokio::spawn(async move {
                for _ in 0..changes {
                    sleep(Duration::from_millis(50)).await;
                    events.notify_one();
                }
            });
            let before = Instant::now();
            folders.calm().await;
            assert_eq!(before.elapsed().as_millis(), waited_ms, "{changes} changes");
            writer.abort();
            // Whatever is left of it.
            timeout(Duration::ZERO, folders.stirred()).await.unwrap_or_default();
        }
    }
}
