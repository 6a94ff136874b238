//! Watching the configuration and every file it depends on.
//!
//! Not files are watched but the folders they are in: an editor puts a new file in the old one's place, and
//! Kubernetes swaps a symbolic link two levels up; both leave a watched file behind. So for each file the
//! folder of every link on the way to it is watched, an event only says "look again", and what counts is
//! whether the contents changed. A slow look besides catches what no event tells of (some network file
//! systems, a folder that was itself replaced).

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, mpsc};

use super::{Document, Loaded, Report, load};

/// Nothing must have changed for so long before a change is looked at: whoever writes several files, or one in
/// several steps, is let finish.
const QUIET: Duration = Duration::from_millis(100);
/// But a file that changes all the time is looked at after so long.
const QUIET_WAIT_MAX: Duration = Duration::from_secs(2);
/// Between two looks that no event asked for.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Links on the way to a file; more is a circle.
const LINKS_MAX: usize = 16;

/// Why a reload was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A file changed: the configuration itself, a secret, a certificate.
    Changed(PathBuf),
    /// Somebody asked (SIGHUP).
    Asked,
}

/// One try: what holds now, or why it does not. On an error what runs stays as it is.
#[derive(Debug)]
pub struct Attempt<D> {
    /// Why it was tried.
    pub cause: Cause,
    /// The new configuration, or what is wrong with it.
    pub outcome: Result<Loaded<D>, Report>,
}

/// Asks a [`Watch`] to reload, as SIGHUP does.
#[derive(Debug, Clone)]
pub struct Nudge(mpsc::Sender<()>);

impl Nudge {
    /// Asks for a reload, whether or not a file changed.
    pub fn reload(&self) {
        // A full channel means that one is asked for already.
        let _ = self.0.try_send(());
    }
}

/// Yields an [`Attempt`] whenever a file changes or a [`Nudge`] asks.
#[derive(Debug)]
pub struct Watch<D> {
    path: PathBuf,
    /// The contents that were looked at last, by their file.
    seen: BTreeMap<PathBuf, Option<u64>>,
    folders: Folders,
    nudge: mpsc::Sender<()>,
    nudges: mpsc::Receiver<()>,
    /// An event came and was not looked into yet; kept here so that `next` can be cancelled.
    stirred: bool,
    document: std::marker::PhantomData<fn() -> D>,
}

impl<D: Document> Watch<D> {
    /// Watches the files that `loaded` came from. Fails if the system refuses (inotify's limits).
    pub fn start(loaded: &Loaded<D>) -> Result<Self, notify::Error> {
        let (nudge, nudges) = mpsc::channel(1);
        let seen = contents(&loaded.files);
        let mut folders = Folders::new()?;
        folders.follow(seen.keys());
        let path = loaded.path.clone();
        let document = std::marker::PhantomData;
        Ok(Self { path, seen, folders, nudge, nudges, stirred: false, document })
    }

    /// What asks this watch to reload.
    pub fn nudge(&self) -> Nudge {
        Nudge(self.nudge.clone())
    }

    /// The next try. Cancel-safe.
    pub async fn next(&mut self) -> Attempt<D> {
        loop {
            if self.wait().await == Woken::Asked {
                return self.attempt(Cause::Asked);
            }
            let now = contents(self.seen.keys());
            let changed = now.iter().find(|(path, content)| self.seen.get(*path) != Some(*content));
            let changed = changed.map(|(path, _)| path.clone());
            self.stirred = false;
            if let Some(path) = changed {
                return self.attempt(Cause::Changed(path));
            }
        }
    }

    /// Waits for a nudge, for events to have calmed down, or for the time of a slow look.
    async fn wait(&mut self) -> Woken {
        if !self.stirred {
            tokio::select! {
                // `self` holds a sender, so the channel never closes.
                _ = self.nudges.recv() => return Woken::Asked,
                () = self.folders.stirred.notified() => self.stirred = true,
                () = tokio::time::sleep(LOOK_EVERY) => return Woken::Look,
            }
        }
        let calm =
            async { while tokio::time::timeout(QUIET, self.folders.stirred.notified()).await.is_ok() {} };
        let _ = tokio::time::timeout(QUIET_WAIT_MAX, calm).await;
        Woken::Look
    }

    fn attempt(&mut self, cause: Cause) -> Attempt<D> {
        let outcome = load(&self.path);
        let files = match &outcome {
            Ok(loaded) => loaded.files.as_slice(),
            Err(report) => report.files(),
        };
        self.seen = contents(files.iter().chain([&self.path]));
        self.folders.follow(self.seen.keys());
        Attempt { cause, outcome }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Woken {
    Asked,
    Look,
}

/// A hash of each file's content; none for a file that cannot be read.
fn contents<'f>(files: impl IntoIterator<Item = &'f PathBuf>) -> BTreeMap<PathBuf, Option<u64>> {
    let hash = |bytes: Vec<u8>| {
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        hasher.finish()
    };
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).ok().map(hash))).collect()
}

/// The folders that are watched.
struct Folders {
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
    fn new() -> Result<Self, notify::Error> {
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
    fn follow<'f>(&mut self, files: impl IntoIterator<Item = &'f PathBuf>) {
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
