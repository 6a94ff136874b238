//! How the workers of one sidecar get a view, and say that they are done with the older ones.
//!
//! A worker enrols with a [`Member`], takes the latest view, and works by it. When a newer one is there it lets
//! every operation that was begun in an older step finish, and then acknowledges the new step; until then its
//! member holds the whole fleet back, so that no two sidecars ever differ by more than one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Cache};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::metrics::ProgramMetrics;
use super::view::View;

/// What the workers of a sidecar go by for one cluster, and how far they are with it.
#[derive(Debug)]
pub struct Agreement {
    view: Arc<ArcSwap<View>>,
    step: watch::Sender<u64>,
    members: Mutex<Vec<Arc<AtomicU64>>>,
    /// A member acknowledged something, or left.
    stirred: Notify,
    /// What programs did; none where nothing is agreed on.
    counters: Option<ProgramMetrics>,
}

/// One worker's part in an [`Agreement`]. It is counted from when it is made until it is dropped, which must be
/// after its last operation.
#[derive(Debug)]
pub struct Member {
    agreement: Arc<Agreement>,
    done: Arc<AtomicU64>,
    changes: watch::Receiver<u64>,
}

impl Default for Agreement {
    fn default() -> Self {
        Self {
            view: Arc::new(ArcSwap::from_pointee(View::unknown())),
            step: watch::Sender::new(0),
            members: Mutex::default(),
            stirred: Notify::new(),
            counters: None,
        }
    }
}

impl Agreement {
    /// One whose programs are counted.
    pub(super) fn counting(counters: ProgramMetrics) -> Self {
        Self { counters: Some(counters), ..Self::default() }
    }

    /// A program has copied a key so many times for its client, and begun again so many times.
    pub fn count(&self, copied: u32, again: u32) {
        if let Some(counters) = self.counters.as_ref().filter(|_| copied > 0 || again > 0) {
            counters.copies.add(u64::from(copied));
            counters.conflicts.add(u64::from(again));
        }
    }

    /// The latest view.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// The latest view for a hot path: one atomic load while nothing changes.
    pub fn reader(&self) -> Cache<Arc<ArcSwap<View>>, Arc<View>> {
        Cache::new(Arc::clone(&self.view))
    }

    /// A worker joins. It holds every step up until it has acknowledged it, so it should take the view and do so
    /// at once.
    pub fn enrol(self: &Arc<Self>) -> Member {
        let done = Arc::new(AtomicU64::new(0));
        self.members.lock().push(Arc::clone(&done));
        Member { agreement: Arc::clone(self), done, changes: self.step.subscribe() }
    }

    /// Gives the workers another view.
    pub fn publish(&self, view: View) {
        let step = view.step;
        self.view.store(Arc::new(view));
        self.step.send_replace(step);
        self.stirred.notify_one();
    }

    /// The step that all workers have acknowledged. Nothing begun in an older one is still running.
    pub fn acknowledged(&self) -> u64 {
        // The view first: who enrols after it was read works by this one or a later one.
        let step = self.view.load().step;
        let members = self.members.lock();
        members.iter().map(|done| done.load(Ordering::Acquire)).fold(step, u64::min)
    }

    /// How many workers are enrolled.
    pub fn members(&self) -> usize {
        self.members.lock().len()
    }

    /// Resolves when [`Self::acknowledged`] may have changed since the last time.
    pub async fn stirred(&self) {
        self.stirred.notified().await;
    }
}

impl Member {
    /// What it is a part of.
    pub fn agreement(&self) -> &Arc<Agreement> {
        &self.agreement
    }

    /// No operation begun in a step before `step` is running any more, and none will begin.
    pub fn acknowledge(&self, step: u64) {
        if self.done.fetch_max(step, Ordering::AcqRel) < step {
            self.agreement.stirred.notify_one();
        }
    }

    /// What it has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    /// Waits for another view than `seen`. Its step is a later one, unless keys are only spread in another way.
    pub async fn changed(&self, seen: &Arc<View>) -> Arc<View> {
        let mut changes = self.changes.clone();
        loop {
            let view = self.agreement.view();
            // Its sender lives in the agreement, which lives in `self`: there is always somebody to wait for.
            if !Arc::ptr_eq(&view, seen) || changes.changed().await.is_err() {
                return view;
            }
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.agreement.members.lock().retain(|done| !Arc::ptr_eq(done, &self.done));
        self.agreement.stirred.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use groove_common::balance::Rule;

    use super::*;

    #[tokio::test]
    async fn a_step_is_acknowledged_when_the_last_worker_has_done_so() {
        let agreement = Arc::new(Agreement::default());
        agreement.publish(View::plain(Rule::default(), 1, &[]));
        assert_eq!(agreement.acknowledged(), 1, "nobody works yet");
        let (one, two) = (agreement.enrol(), agreement.enrol());
        assert_eq!(agreement.acknowledged(), 0);
        let first = agreement.view();
        assert_eq!(two.changed(&Arc::new(View::unknown())).await.step, 1);
        one.acknowledge(1);
        two.acknowledge(1);
        assert_eq!(agreement.acknowledged(), 1);
        agreement.publish(View::plain(Rule::default(), 2, &[]));
        let second = one.changed(&first).await;
        assert_eq!((second.step, agreement.view().step), (2, 2));
        one.acknowledge(2);
        assert_eq!(agreement.acknowledged(), 1);
        // An acknowledgement is not taken back.
        one.acknowledge(1);
        assert_eq!(one.acknowledged(), 2);
        drop(two);
        agreement.stirred().await;
        assert_eq!((agreement.acknowledged(), agreement.members()), (2, 1));
        // Another rule, in the same step.
        agreement.publish(View::plain(Rule::default(), 2, &[]));
        assert!(!Arc::ptr_eq(&one.changed(&second).await, &second));
    }
}
