//! A new configuration for a running proxy: who asks for it, and what becomes of it.

use std::path::PathBuf;

use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::proxy::Proxy;
use super::running::Running;
use crate::admin::Reload;
use crate::config::{self, Attempt, Cause, Document, Loaded, Watch};
use crate::telemetry::Logs;

/// Reads the configuration again when a file changes or somebody asks.
pub(super) struct Reloader<D> {
    source: Source<D>,
    /// Callers of the admin server, who want to know what became of it.
    waiting: Vec<Reload>,
}

enum Source<D> {
    Watched(Watch<D>),
    /// The system has no watches left: only who asks gets a reload.
    OnDemand {
        path: PathBuf,
        asked: Notify,
    },
}

impl<D: Document> Reloader<D> {
    pub(super) fn new(path: PathBuf, loaded: &Loaded<D>) -> Self {
        let source = match Watch::start(loaded) {
            Ok(watch) => Source::Watched(watch),
            Err(error) => {
                warn!(%error, "files cannot be watched, only SIGHUP reloads; raise fs.inotify.max_user_instances");
                Source::OnDemand { path, asked: Notify::new() }
            }
        };
        Self { source, waiting: Vec::new() }
    }

    /// Somebody asks: by a signal, or over the admin server and then waits for an answer.
    pub(super) fn ask(&mut self, caller: Option<Reload>) {
        self.waiting.extend(caller);
        match &self.source {
            Source::Watched(watch) => watch.ask(),
            Source::OnDemand { asked, .. } => asked.notify_one(),
        }
    }

    /// The next configuration that was read, good or bad. Cancel-safe.
    pub(super) async fn next(&mut self) -> Attempt<D> {
        match &mut self.source {
            Source::Watched(watch) => watch.next().await,
            Source::OnDemand { path, asked } => {
                asked.notified().await;
                Attempt { cause: Cause::Asked, outcome: config::load(path) }
            }
        }
    }

    /// Gives it to the proxy; a bad one is logged with all its errors and changes nothing.
    pub(super) fn take<P: Proxy<Config = D>>(
        &mut self,
        running: &Running<P>,
        logs: &Logs,
        attempt: Attempt<D>,
    ) {
        let cause = attempt.cause;
        let taken = attempt.outcome.map_err(|report| report.to_string()).and_then(|loaded| {
            let changes = loaded.document.changes(&running.config());
            running.reload(loaded.document).map_err(|error| error.to_string())?;
            Ok(changes.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        match &taken {
            Ok(changes) => {
                logs.reload(running.config().basics().log);
                info!(?cause, changes = changes.len(), "reloaded");
                for change in changes {
                    info!("changed {change}");
                }
            }
            Err(report) => error!(?cause, "not reloaded, the old configuration stays:\n{report}"),
        }
        for caller in self.waiting.drain(..) {
            // Whoever asked may have gone.
            caller.answer.send(taken.clone()).unwrap_or_default();
        }
    }
}
