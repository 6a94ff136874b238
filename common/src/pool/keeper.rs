//! The pool's housekeeping: connections that idled too long or lived too long go, and the
//! warm minimum comes back.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::dial::warm_one;
use super::lease::Lease;
use super::{Manager, Shared};

/// A round at most this often and at least that often.
const ROUND_MIN: Duration = Duration::from_millis(100);
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Goes round until the pool is gone.
pub(super) async fn run<M: Manager>(pool: Weak<Shared<M>>) {
    loop {
        let Some(strong) = pool.upgrade() else { return };
        sweep(&strong);
        while strong.wants_warmth() && warm_one(&strong).await {}
        let pause = strong.round();
        let wake = std::sync::Arc::clone(&strong.wake_keeper);
        // Asleep it must not keep the pool alive.
        drop(strong);
        // A nudge and a round mean the same: look.
        let _ = timeout(pause, wake.notified()).await;
    }
}

/// Looks at each idle connection as a lessee of its own, permit and all, so that nobody
/// dials for want of one that is merely being looked at.
pub(super) fn sweep<M: Manager>(pool: &std::sync::Arc<Shared<M>>) {
    let now = Instant::now();
    let (idle_timeout, warm) = {
        let config = pool.config.lock();
        (config.idle_timeout, config.warm)
    };
    let mut warmest_first = Vec::new();
    while let Some(permit) = pool.gate.try_acquire() {
        let Some(seat) = pool.take() else { break };
        warmest_first.push(Lease::for_inspection(seat, permit));
    }
    // Put back in the opposite order, the warmest comes to lie on top again.
    while let Some(mut lease) = warmest_first.pop() {
        let is_stale = idle_timeout.is_some_and(|timeout| lease.idle_for(now) >= timeout);
        if (is_stale && pool.inventory.total() > warm) || pool.is_oversized() {
            lease.condemn();
        }
    }
    if !pool.is_oversized() {
        pool.shrinking.store(false, Ordering::Relaxed);
    }
}

impl<M: Manager> Shared<M> {
    /// More connections than the bound, which was lowered.
    pub(super) fn is_oversized(&self) -> bool {
        self.inventory.total() > self.config.lock().size
    }

    fn wants_warmth(&self) -> bool {
        let config = self.config.lock();
        self.inventory.total() < config.warm.min(config.size)
    }

    /// Often enough to overstay a limit by a quarter at most.
    fn round(&self) -> Duration {
        let config = self.config.lock();
        let limits = [config.idle_timeout, config.max_lifetime];
        let shortest = limits.into_iter().flatten().min().unwrap_or(ROUND_MAX);
        (shortest / 4).clamp(ROUND_MIN, ROUND_MAX)
    }
}
