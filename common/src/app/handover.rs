//! One process after the other: taking over at the start, handing over at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use tokio::process::Command;
use tracing::{error, info, warn};

use super::proxy::{Proxy, StartError};
use super::running::{Running, State};
use crate::config::Document;
use crate::lifecycle::handover::{Door, Inheritance, Program, Socket, Taken, Taker, take_over};
use crate::net::Resuming;

/// Where this process stands in the row of its kind.
pub(super) struct Succession {
    /// What the process before has given, until this one is ready.
    before: Option<Inheritance>,
    /// Where the next one asks; none without `handover`.
    door: Option<Door>,
}

fn program<P: Proxy>() -> Program {
    Program { name: P::NAME, version: P::VERSION, sessions: P::HANDOVER }
}

impl Succession {
    /// Asks the process at `path` for its listening sockets, if there is one.
    pub(super) async fn begin<P: Proxy>(path: Option<&Path>) -> Result<(Self, Vec<Socket>), StartError> {
        let Some(path) = path else { return Ok((Self { before: None, door: None }, Vec::new())) };
        let named = |error: &dyn std::fmt::Display| format!("handover {}: {error}", path.display());
        let before = take_over(path, program::<P>()).await;
        let mut before =
            before.map_err(|error| format!("cannot take over at {}: {error}", path.display()))?;
        let sockets = before.as_mut().map(|before| std::mem::take(&mut before.sockets)).unwrap_or_default();
        if let Some(Inheritance { pid, version, .. }) = &before {
            info!(pid, version, sockets = sockets.len(), "taking over from another process");
        }
        let door = Door::prepare(path).map_err(|error| named(&error))?;
        Ok((Self { before, door: Some(door) }, sockets))
    }

    /// This process accepts: the one before may go, and what it hands over is taken.
    pub(super) async fn enter<P: Proxy>(&mut self, running: &Running<P>) {
        let taken_from = self.before.as_ref().map(|before| before.pid);
        if let Some(before) = self.before.take() {
            match before.ready().await {
                Ok(()) => drop(tokio::spawn(take(Arc::clone(&running.state), before))),
                // It has nothing any more that we could be given.
                Err(error) => warn!(%error, "the process before is gone"),
            }
        }
        // Not earlier: whoever asks before finds the one that still goes on if this one does not.
        if let Some(Err(error)) = self.door.as_mut().map(Door::publish) {
            error!(%error, "no process will find this one to take over from it");
        }
        if let Some(pid) = taken_from {
            info!(pid, "took the place of another process");
        }
    }

    /// The process that goes on in our place, once there is one.
    pub(super) async fn taker<P: Proxy>(&self, running: &Running<P>) -> Taker {
        match &self.door {
            Some(door) => door.taker(program::<P>(), || running.sockets()).await,
            None => std::future::pending().await,
        }
    }

    /// Starts a process as this one was started, of what the binary's file is by now.
    pub(super) fn start_next(&self) {
        if self.door.is_none() {
            return warn!("SIGUSR2: nothing is handed over without `handover: PATH` in the configuration");
        }
        match start_next() {
            Ok(pid) => info!(pid, "SIGUSR2: the next process is started"),
            Err(error) => error!(%error, "SIGUSR2: the next process cannot be started"),
        }
    }
}

fn start_next() -> io::Result<u32> {
    let binary = std::env::current_exe()?;
    // As the kernel tells of a file that another has taken the place of: that one is meant.
    let binary = binary
        .to_str()
        .and_then(|path| path.strip_suffix(" (deleted)"))
        .map_or(binary.clone(), PathBuf::from);
    let mut command = Command::new(binary);
    // The watchdog's word for this process is not for that one.
    command.args(std::env::args_os().skip(1)).stdin(Stdio::null()).env_remove("WATCHDOG_PID");
    let mut child = command.spawn()?;
    let pid = child.id().unwrap_or_default();
    tokio::spawn(async move {
        match child.wait().await {
            Ok(status) if status.success() => {}
            Ok(status) => error!(pid, %status, "the process that SIGUSR2 started has ended"),
            Err(error) => error!(pid, %error, "the process that SIGUSR2 started is not to be watched"),
        }
    });
    Ok(pid)
}

/// Takes what the process before hands over, until it is gone.
async fn take<P: Proxy>(state: Arc<State<P>>, before: Inheritance) {
    let handover = state.context.handover.clone();
    let (pid, words) = (before.pid, handover.follow());
    let prepare = |taken| {
        let resumed = resume(&state, taken);
        handover.count_taken(resumed.is_ok());
        resumed
    };
    let ended = before.take(prepare, Resuming::begin, words).await;
    let (taken, refused) = handover.taken();
    info!(pid, taken, refused, %ended, "the process before has ended");
}

fn resume<P: Proxy>(state: &State<P>, taken: Taken) -> Result<Resuming, String> {
    let Taken { address, peer, socket, state: session, .. } = taken;
    let resumed = state.proxy.resume(&session)?;
    state.listeners.resume(&address, peer, socket, resumed).map_err(|error| error.to_string())
}

/// Hands over to `taker` what can be handed over: until that is done, `drain` is over, or `now` resolves.
pub(super) async fn hand_over<P: Proxy>(running: &Running<P>, taker: Taker, now: impl Future<Output = ()>) {
    let (pid, moves) = (taker.pid, taker.takes_sessions);
    info!(pid, sessions = running.sessions(), moves, "a new process is ready: handing over");
    let state = &running.state;
    let handover = state.context.handover.clone();
    let proxy = Arc::clone(&state.proxy);
    let begun = tokio::sync::oneshot::channel();
    let lead = tokio::spawn({
        let handover = handover.clone();
        async move { handover.lead(taker, begun.0, |word| proxy.heard(word)).await }
    });
    // Sessions that look for the way find it.
    begun.1.await.unwrap_or_default();
    running.hand_over();
    if moves {
        tokio::select! {
            biased;
            () = running.ended() => {}
            () = tokio::time::sleep(running.config().basics().drain.get()) => {}
            () = now => {}
        }
    }
    let (given, kept) = handover.given();
    info!(pid, given, kept, left = running.sessions(), "handed over");
    drop(lead);
}
