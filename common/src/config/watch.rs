//! Watching the configuration and every file it depends on.
//!
//! An event of [`Folders`] only says "look again"; what counts is whether the contents changed. A slow look
//! besides catches what no event tells of (some network file systems, a folder that was itself replaced).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Notify;

use super::folders::Folders;
use super::{Document, Loaded, Report, load};

/// Between two looks that no event asked for.
const LOOK_EVERY: Duration = Duration::from_secs(30);

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

/// Yields an [`Attempt`] whenever a file changes or somebody asks.
#[derive(Debug)]
pub struct Watch<D> {
    path: PathBuf,
    /// The contents that were looked at last, by their file.
    seen: BTreeMap<PathBuf, Option<u64>>,
    folders: Folders,
    asked: Notify,
    /// An event came and was not looked into yet; kept here so that `next` can be cancelled.
    stirred: bool,
    document: std::marker::PhantomData<fn() -> D>,
}

impl<D: Document> Watch<D> {
    /// Watches the files that `loaded` came from. Fails if the system refuses (inotify's limits).
    pub fn start(loaded: &Loaded<D>) -> Result<Self, notify::Error> {
        let mut folders = Folders::new()?;
        folders.follow(&loaded.files);
        let path = loaded.path.clone();
        let mut seen = contents(&loaded.files);
        // As it was read: it may have changed since, of which no event told. The first look is at once.
        seen.insert(path.clone(), Some(hash(loaded.text.as_bytes())));
        let document = std::marker::PhantomData;
        Ok(Self { path, seen, folders, asked: Notify::new(), stirred: true, document })
    }

    /// Asks for a reload, whether or not a file changed. Asked twice before the next try is asked once.
    pub fn ask(&self) {
        self.asked.notify_one();
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

    /// Waits to be asked, for events to have calmed down, or for the time of a slow look.
    async fn wait(&mut self) -> Woken {
        if !self.stirred {
            tokio::select! {
                () = self.asked.notified() => return Woken::Asked,
                () = self.folders.stirred() => self.stirred = true,
                () = tokio::time::sleep(LOOK_EVERY) => return Woken::Look,
            }
        }
        self.folders.calm().await;
        Woken::Look
    }

    fn attempt(&mut self, cause: Cause) -> Attempt<D> {
        // Before they are read: what changes meanwhile then differs from this, and is looked at again.
        let before = contents(self.seen.keys());
        let outcome = load(&self.path);
        let files = match &outcome {
            Ok(loaded) => loaded.files.as_slice(),
            Err(report) => report.files(),
        };
        self.seen = contents(files.iter().chain([&self.path]));
        for (path, content) in &mut self.seen {
            *content = before.get(path).copied().unwrap_or(*content);
        }
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
    let content = |path| std::fs::read(path).ok().map(|bytes| hash(&bytes));
    files.into_iter().map(|path| (path.clone(), content(path))).collect()
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
