//! `run`: start to drain on one page.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::cli::{complain, shown};
use super::handover::{self, Succession};
use super::proxy::{Proxy, StartError};
use super::reload::Reloader;
use super::running::{Drained, Running, workers};
use crate::config::{self, Document, Loaded};
use crate::lifecycle::{self, Limits, Plan, ServiceManager, Signal, Signals};
use crate::telemetry::Logs;

/// Callers of the admin server's reload that may wait at once.
const RELOADS_MAX: usize = 16;

/// Loads, starts, serves, reloads, drains.
pub(super) fn run<P: Proxy>(path: &Path) -> ExitCode {
    let loaded = match config::load::<P::Config>(path) {
        Ok(loaded) => loaded,
        Err(report) => return complain(shown(&report)),
    };
    let logs = match Logs::start(loaded.document.basics().log) {
        Ok(logs) => logs,
        Err(error) => return complain(error),
    };
    info!(version = P::VERSION, config = %path.display(), "{} starts", P::NAME);
    check_machine(&loaded.document);
    let served = runtime(&loaded.document)
        .map_err(StartError::from)
        .and_then(|runtime| runtime.block_on(serve::<P>(path.to_owned(), loaded, &logs)));
    let code = match served {
        Ok(Drained::Clean) => {
            info!("drained, bye");
            ExitCode::SUCCESS
        }
        Ok(Drained::Cut(sessions)) => {
            warn!(sessions, "cut what was left, bye");
            ExitCode::FAILURE
        }
        Err(error) => {
            error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    };
    logs.flush();
    code
}

/// Ready to drained.
async fn serve<P: Proxy>(
    path: PathBuf,
    loaded: Loaded<P::Config>,
    logs: &Logs,
) -> Result<Drained, StartError> {
    let mut signals = Signals::new()?;
    let mut reloader = Reloader::new(path, &loaded);
    let (reloads, mut asked) = mpsc::channel(RELOADS_MAX);
    let (mut succession, sockets) = Succession::begin::<P>(loaded.document.basics().handover).await?;
    let runtime = tokio::runtime::Handle::current();
    let running = Running::<P>::start_with(loaded.document, runtime, reloads, sockets)?;
    succession.enter(&running).await;
    logs.count(running.registry());
    running.announce();
    let manager = ServiceManager;
    manager.ready();

    let mut watchdog = std::pin::pin!(manager.watchdog());
    let mut taker = std::pin::pin!(succession.taker(&running));
    let taker = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break None,
                Signal::Reload => reloader.ask(None),
                Signal::HandOver => succession.start_next(),
            },
            () = running.stop_asked() => break None,
            taker = &mut taker => break Some(taker),
            Some(reload) = asked.recv() => reloader.ask(Some(reload)),
            attempt = reloader.next() => {
                manager.reloading();
                reloader.take(&running, logs, attempt);
                manager.ready();
            }
            never = &mut watchdog => match never {},
        }
    };

    let has_successor = taker.is_some();
    if let Some(taker) = taker {
        manager.hand_over(taker.pid);
        tokio::select! {
            () = handover::hand_over(&running, taker, signals.stop()) => {}
            never = &mut watchdog => match never {},
        }
    }
    let deadline = running.config().basics().drain.get();
    info!(deadline = ?deadline, sessions = running.sessions(), "draining; a second signal cuts");
    if !has_successor {
        manager.stopping(deadline);
    }
    tokio::select! {
        drained = running.drain(deadline, signals.stop()) => Ok(drained),
        never = &mut watchdog => match never {},
    }
}

/// The control runtime.
fn runtime(config: &impl Document) -> io::Result<Runtime> {
    Builder::new_multi_thread().enable_all().worker_threads(workers(config)).thread_name("control").build()
}

/// Says what of the machine is too small for the configuration.
fn check_machine(config: &impl Document) {
    lifecycle::raise_open_files();
    let listeners = config.basics().listeners;
    let plan = Plan {
        connections_max: listeners.iter().map(|listener| listener.max_connections.map(u64::from)).sum(),
        backlog_max: listeners.iter().map(|listener| u64::from(listener.backlog)).max().unwrap_or(0),
    };
    for finding in lifecycle::findings(&Limits::read(), &plan) {
        warn!("{finding}");
    }
}
