//! Watching the configuration and every file it depends on.

use std::path::PathBuf;

use tokio::sync::mpsc;

use super::{Document, Loaded, Report};

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
    /// Asks for a reload.
    pub fn reload(&self) {
        // A full channel means that one is asked for already.
        let _ = self.0.try_send(());
    }
}

/// Yields an [`Attempt`] whenever a file changes or a [`Nudge`] asks.
#[derive(Debug)]
pub struct Watch<D> {
    loaded: Loaded<D>,
    nudge: mpsc::Sender<()>,
    nudges: mpsc::Receiver<()>,
}

impl<D: Document> Watch<D> {
    /// Watches the files that `loaded` came from.
    pub fn start(path: PathBuf, loaded: &Loaded<D>) -> Result<Self, std::io::Error> {
        let _ = (path, loaded);
        Err(std::io::Error::other("not yet"))
    }

    /// What asks this watch to reload.
    pub fn nudge(&self) -> Nudge {
        Nudge(self.nudge.clone())
    }

    /// The next try. Cancel-safe.
    pub async fn next(&mut self) -> Attempt<D> {
        self.nudges.recv().await;
        let path = self.loaded.files.first().cloned().unwrap_or_default();
        Attempt { cause: Cause::Asked, outcome: super::load(&path) }
    }
}
