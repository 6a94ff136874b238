//! Looks at what each worker uses of its core, round after round.

use std::fs;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::thread::Pid;
use tracing::warn;

use super::Gathering;
use super::policy::{Load, Policy};

/// A round, while there is work...
const ROUND: Duration = Duration::from_millis(25);
/// ... and while there is little: one worker has it all, and uses less than [`LITTLE`].
const LONG_ROUND: Duration = Duration::from_millis(250);
const LITTLE: f64 = 0.1;

/// A thread of this process.
#[derive(Debug)]
pub(super) struct Thread {
    file: String,
}

impl Thread {
    pub(super) fn new(id: Pid) -> Self {
        Self { file: format!("/proc/self/task/{}/schedstat", id.as_raw_nonzero()) }
    }

    /// The processor time it has used. `None` where the system does not say
    /// (<https://docs.kernel.org/scheduler/sched-stats.html>).
    fn used(&self) -> Option<Duration> {
        let stat = fs::read_to_string(&self.file).ok()?;
        stat.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }
}

/// Looks until the workers are gone; a worker alone needs nobody who does.
pub(in crate::net) async fn watch(gathering: Weak<Gathering>) {
    if gathering.upgrade().is_none_or(|gathering| gathering.places.len() < 2) {
        return;
    }
    let mut policy = Policy::new();
    let Some(mut before) = gathering.upgrade().and_then(|gathering| used(&gathering)) else {
        warn!(
            "the system does not say what a thread uses: sessions are spread over all workers from the beginning"
        );
        if let Some(gathering) = gathering.upgrade() {
            gathering.awake.store(gathering.places.len(), Ordering::Relaxed);
        }
        return;
    };
    let mut looked = Instant::now();
    let mut round = ROUND;
    loop {
        tokio::time::sleep(round).await;
        let Some(gathering) = gathering.upgrade() else { return };
        let Some(used) = used(&gathering) else { return };
        let took = looked.elapsed().as_secs_f64();
        looked = Instant::now();
        let loads: Vec<Load> = used
            .iter()
            .zip(&before)
            .zip(&gathering.places)
            .map(|((now, before), place)| Load {
                cpu: now.saturating_sub(*before).as_secs_f64() / took,
                active: place.active.swap(0, Ordering::Relaxed),
            })
            .collect();
        before = used;
        gathering.round.fetch_add(1, Ordering::Relaxed);
        let plan = policy.next(&loads);
        let is_little = plan.awake == 1 && loads.iter().all(|load| load.cpu < LITTLE);
        round = if is_little { LONG_ROUND } else { ROUND };
        gathering.carry_out(&plan);
    }
}

/// The processor time of each worker.
fn used(gathering: &Gathering) -> Option<Vec<Duration>> {
    gathering.places.iter().map(|place| place.thread.used()).collect()
}
