//! What the operator tells a running program.

use std::io;

use tokio::signal::unix::{self, SignalKind, signal};

/// A signal, as what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: drain; a second one: cut.
    Stop,
    /// SIGHUP: reload.
    Reload,
    /// SIGUSR2: hand the listeners over to a new process.
    HandOver,
}

/// Receives signals from the moment it is made: one that comes before [`Self::next`] is not lost.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    user2: unix::Signal,
}

impl Signals {
    /// Takes over SIGTERM, SIGINT, SIGHUP and SIGUSR2. To be called within a runtime.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    /// The next one. Cancel-safe.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user2.recv() => Signal::HandOver,
        }
    }

    /// The next [`Signal::Stop`]. Cancel-safe.
    pub async fn stop(&mut self) {
        while self.next().await != Signal::Stop {}
    }
}
