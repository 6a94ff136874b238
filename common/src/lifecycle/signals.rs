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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use rustix::process::{Signal as Raw, getpid, kill_process};

    use super::*;

    /// One test, as signals are the whole process's. The witness has heard what all have heard.
    #[tokio::test]
    async fn each_signal_is_what_it_asks_for_and_stop_waits_for_no_other() {
        let (mut signals, mut witness) = (Signals::new().unwrap(), Signals::new().unwrap());
        for (raw, meant) in [
            (Raw::TERM, Signal::Stop),
            (Raw::INT, Signal::Stop),
            (Raw::HUP, Signal::Reload),
            (Raw::USR2, Signal::HandOver),
        ] {
            kill_process(getpid(), raw).unwrap();
            assert_eq!((witness.next().await, signals.next().await), (meant, meant), "{raw:?}");
        }
        kill_process(getpid(), Raw::HUP).unwrap();
        assert_eq!(witness.next().await, Signal::Reload);
        let mut stop = Box::pin(signals.stop());
        assert!(stop.as_mut().now_or_never().is_none(), "a reload is no stop");
        kill_process(getpid(), Raw::INT).unwrap();
        stop.await;
    }
}
