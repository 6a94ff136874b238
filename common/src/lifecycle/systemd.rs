//! Telling systemd where we are (sd_notify(3)). Without systemd nothing is told and nothing fails.

use std::convert::Infallible;
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// The service manager, if there is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServiceManager;

impl ServiceManager {
    /// Listeners accept.
    pub fn ready(self) {
        tell(&[NotifyState::Ready]);
    }

    /// A new configuration is being taken; [`Self::ready`] follows, whether it was good or not.
    pub fn reloading(self) {
        // Type=notify-reload wants to know when, to tell an old READY from the one that follows.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(_) => tell(&[NotifyState::Reloading]),
        }
    }

    /// Another process goes on in our place: from here on it is the service.
    pub fn hand_over(self, pid: u32) {
        tell(&[NotifyState::MainPid(pid)]);
    }

    /// The drain has begun and takes at most `time_max`.
    pub fn stopping(self, time_max: Duration) {
        let us = u32::try_from(time_max.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(us)]);
    }

    /// Tells the watchdog twice a period that we are alive, if there is one.
    pub async fn watchdog(self) -> Infallible {
        let Some(period) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
        let mut beat = tokio::time::interval(period / 2);
        loop {
            beat.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "the service manager could not be told");
    }
}
