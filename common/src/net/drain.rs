//! One word from the top to every session: "finish what you have begun", and later "now".
//!
//! A session asks [`Drain::is_draining`] between exchanges (one relaxed load) and waits for
//! [`Drain::draining`] while it is idle. Hundreds of thousands may wait at once and each polls its waiter
//! on every turn, so a waiter that is already registered is answered without a lock, and registering
//! takes a lock that few others share.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use slab::Slab;

/// How many locks the waiters are spread over.
const SHARDS: usize = 16;

/// Where a process or a listener stands. It only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Everything is served.
    Serving = 0,
    /// A new process accepts from here on; sessions that are idle and can move go there, the others are served.
    HandingOver = 1,
    /// No new connections; exchanges in flight finish, idle sessions say goodbye.
    Draining = 2,
    /// Time is up: sessions are dropped where they stand.
    Cut = 3,
}

/// A handle on a drain; clones share it. Sessions read it, the owner moves it on.
#[derive(Clone)]
pub struct Drain {
    shared: Arc<Shared>,
}

struct Shared {
    phase: AtomicU8,
    next_shard: AtomicU16,
    waiters: [Mutex<Slab<Waker>>; SHARDS],
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A drain that has not begun.
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                phase: AtomicU8::new(Phase::Serving as u8),
                next_shard: AtomicU16::new(0),
                waiters: std::array::from_fn(|_| Mutex::new(Slab::new())),
            }),
        }
    }

    /// Where it stands now.
    pub fn phase(&self) -> Phase {
        match self.shared.phase.load(Ordering::Relaxed) {
            0 => Phase::Serving,
            1 => Phase::HandingOver,
            2 => Phase::Draining,
            _ => Phase::Cut,
        }
    }

    /// Should a session say goodbye after the exchange at hand?
    #[inline]
    pub fn is_draining(&self) -> bool {
        self.phase() >= Phase::Draining
    }

    /// Resolves once the drain begins (at once if it has). Make it once a session and poll it every turn.
    pub fn draining(&self) -> Reached {
        self.reached(Phase::Draining)
    }

    /// Resolves once the deadline has passed and sessions are cut.
    pub fn cut(&self) -> Reached {
        self.reached(Phase::Cut)
    }

    /// Resolves once `phase` or a later one is reached.
    pub fn reached(&self, phase: Phase) -> Reached {
        Reached { drain: self.clone(), phase, waiter: None }
    }

    /// Moves on to `phase` and wakes everyone who waits. Going back is not possible and does nothing.
    pub fn advance(&self, phase: Phase) {
        let before = self.shared.phase.fetch_max(phase as u8, Ordering::SeqCst);
        if before >= phase as u8 {
            return;
        }
        for shard in &self.shared.waiters {
            // Woken outside the lock: a waker may run code that drops another waiter.
            let wakers: Vec<Waker> = shard.lock().iter().map(|(_, waker)| waker.clone()).collect();
            for waker in wakers {
                waker.wake();
            }
        }
    }
}

/// A future that resolves when a [`Drain`] reaches a phase.
pub struct Reached {
    drain: Drain,
    phase: Phase,
    waiter: Option<Waiter>,
}

/// Small, as every connection has one: there are [`SHARDS`] shards, and fewer waiters than descriptors.
struct Waiter {
    shard: u16,
    key: u32,
    waker: Waker,
}

impl Reached {
    fn slab(&self, shard: u16) -> Option<&Mutex<Slab<Waker>>> {
        self.drain.shared.waiters.get(usize::from(shard) % SHARDS)
    }

    /// Puts `waker` into the slab, in place of the one from an earlier poll if there is one.
    fn register(&mut self, waker: &Waker) {
        let (shard, key) = match self.waiter.take() {
            Some(Waiter { shard, key, .. }) => (shard, Some(key)),
            None => (self.drain.shared.next_shard.fetch_add(1, Ordering::Relaxed), None),
        };
        let Some(slab) = self.slab(shard) else { return };
        let mut slab = slab.lock();
        let key = match key.and_then(|key| slab.get_mut(key as usize).map(|old| (key, old))) {
            Some((key, old)) => {
                old.clone_from(waker);
                key
            }
            None => u32::try_from(slab.insert(waker.clone())).unwrap_or(u32::MAX),
        };
        drop(slab);
        self.waiter = Some(Waiter { shard, key, waker: waker.clone() });
    }
}

impl Future for Reached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.drain.phase() >= self.phase {
            return Poll::Ready(());
        }
        if self.waiter.as_ref().is_some_and(|waiter| waiter.waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.register(cx.waker());
        // The phase may have moved between the first look and the registration.
        match self.drain.shared.phase.load(Ordering::SeqCst) >= self.phase as u8 {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        let Some(Waiter { shard, key, .. }) = self.waiter.take() else { return };
        if let Some(slab) = self.slab(shard) {
            slab.lock().try_remove(key as usize);
        }
    }
}

impl std::fmt::Debug for Drain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Drain").field(&self.phase()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    #[tokio::test]
    async fn waiters_are_woken_in_order_of_phase() {
        let drain = Drain::new();
        let (draining, cut) = (drain.draining(), drain.cut());
        let session = tokio::spawn({
            let drain = drain.clone();
            async move {
                draining.await;
                let seen = drain.phase();
                cut.await;
                (seen, drain.phase())
            }
        });
        tokio::task::yield_now().await;
        drain.advance(Phase::Draining);
        tokio::task::yield_now().await;
        drain.advance(Phase::Cut);
        let (first, second) = session.await.unwrap();
        assert!(first >= Phase::Draining);
        assert_eq!(second, Phase::Cut);
    }

    #[test]
    fn a_phase_never_goes_back() {
        let drain = Drain::new();
        drain.advance(Phase::Cut);
        drain.advance(Phase::Draining);
        assert_eq!(drain.phase(), Phase::Cut);
    }

    #[tokio::test]
    async fn a_dropped_waiter_leaves_nothing_behind() {
        let drain = Drain::new();
        let mut waits: Vec<_> = (0..100).map(|_| drain.draining()).collect();
        std::future::poll_fn(|cx| {
            for wait in &mut waits {
                assert!(Pin::new(wait).poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        let held = |drain: &Drain| drain.shared.waiters.iter().map(|slab| slab.lock().len()).sum::<usize>();
        assert_eq!(held(&drain), 100);
        drop(waits);
        assert_eq!(held(&drain), 0);
    }

    #[derive(Default)]
    struct Bell(AtomicBool);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_polled_last_is_woken() {
        let drain = Drain::new();
        let mut wait = drain.draining();
        let bells = [(); 2].map(|()| Arc::<Bell>::default());
        for bell in &bells {
            let waker = Waker::from(Arc::clone(bell));
            assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        drain.advance(Phase::Draining);
        assert_eq!(bells.map(|bell| bell.0.load(Ordering::SeqCst)), [false, true]);
    }
}
