//! Cancel requests: from a key to the session, and from the session to what it runs at this instant.
//!
//! A request must never hit another client's query. So a server connection does not leave its session while a
//! request for it is under way: the one who releases it waits until the server has acted on the request, and an
//! idle server ignores the signal.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::upstream::{CancelTarget, random};
use crate::wire::startup::CancelKey;

/// How long a release waits for cancel requests under way; then the connection is given up.
const SETTLE_MAX: Duration = Duration::from_secs(6);
/// Cancel keys of clients of protocol 3.2 on are this long; before, four bytes.
const LONG_SECRET: usize = 32;

/// Every session that can be cancelled.
#[derive(Default)]
pub struct Cancels {
    sessions: Mutex<HashMap<CancelKey, Arc<Canceller>>>,
}

impl Cancels {
    /// Gives a new session its key: with the server's process id if it will keep one server, else an invented
    /// one.
    pub fn register(self: &Arc<Cancels>, pid: Option<i32>, long: bool) -> std::io::Result<Registered> {
        loop {
            let bytes = random::<LONG_SECRET>()?;
            let length = if long { LONG_SECRET } else { 4 };
            let secret = Bytes::copy_from_slice(bytes.get(..length).unwrap_or(&bytes));
            let invented = i32::from_be_bytes(random::<4>()?) & i32::MAX;
            let key = CancelKey { pid: pid.unwrap_or(invented), secret };
            let canceller = Arc::new(Canceller::default());
            let mut sessions = self.sessions.lock();
            if !sessions.contains_key(&key) {
                sessions.insert(key.clone(), Arc::clone(&canceller));
                drop(sessions);
                return Ok(Registered { cancels: Arc::clone(self), key, canceller });
            }
        }
    }

    /// Gives a session the key that it has from another process; `None` if another has it here.
    pub fn restore(self: &Arc<Cancels>, key: CancelKey) -> Option<Registered> {
        let canceller = Arc::new(Canceller::default());
        let mut sessions = self.sessions.lock();
        if sessions.contains_key(&key) {
            return None;
        }
        sessions.insert(key.clone(), Arc::clone(&canceller));
        drop(sessions);
        Some(Registered { cancels: Arc::clone(self), key, canceller })
    }

    /// Carries a request out. False if it names no session.
    pub async fn cancel(&self, key: &CancelKey) -> bool {
        let found = self.sessions.lock().get(key).map(Arc::clone);
        match found {
            Some(canceller) => {
                canceller.cancel().await;
                true
            }
            None => false,
        }
    }
}

/// A session's place among those that can be cancelled, for as long as it lives.
pub struct Registered {
    cancels: Arc<Cancels>,
    /// What the client was told.
    pub key: CancelKey,
    /// What the session tells of itself.
    pub canceller: Arc<Canceller>,
}

impl Registered {
    /// The session got a server connection. A request that came while it was [held
    /// back](Canceller::hold_back), or just when its place in line came up, is carried out now.
    pub fn leased(&self, target: &Arc<CancelTarget>) {
        if self.canceller.leased(target) {
            let (canceller, target) = (Arc::clone(&self.canceller), Arc::clone(target));
            tokio::spawn(async move { canceller.pass_on(&target).await });
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.cancels.sessions.lock().remove(&self.key);
    }
}

/// What can be cancelled of one session.
#[derive(Default)]
pub struct Canceller {
    stage: Mutex<Stage>,
    /// A request has come to its end.
    changed: Notify,
}

#[derive(Default)]
struct Stage {
    now: Now,
    /// Requests on their way to a server.
    under_way: usize,
}

#[derive(Default)]
enum Now {
    /// Nothing runs.
    #[default]
    Idle,
    /// In line for a server connection, or before its first message there; to be woken when it is cancelled.
    Waiting(Waker),
    /// Cancelled in line.
    Cancelled,
    /// Something may run there.
    Leased(Arc<CancelTarget>),
}

impl Canceller {
    /// The session waits for a server connection; true if it was cancelled in line.
    pub fn poll_cancelled_in_line(&self, cx: &mut Context<'_>) -> bool {
        let mut stage = self.stage.lock();
        match &stage.now {
            Now::Cancelled => return true,
            Now::Waiting(waker) if waker.will_wake(cx.waker()) => {}
            Now::Waiting(_) | Now::Idle | Now::Leased(_) => stage.now = Now::Waiting(cx.waker().clone()),
        }
        false
    }

    /// The session has a server connection, and nothing of its own runs there yet.
    pub fn hold_back(&self) {
        let mut stage = self.stage.lock();
        if !matches!(stage.now, Now::Cancelled) {
            stage.now = Now::Waiting(Waker::noop().clone());
        }
    }

    /// What the session runs can be cancelled there from now on. If it was already, the request is under way (true):
    /// it must be [passed on](Canceller::pass_on), and hits what runs now or nothing.
    fn leased(&self, target: &Arc<CancelTarget>) -> bool {
        let mut stage = self.stage.lock();
        let before = std::mem::replace(&mut stage.now, Now::Leased(Arc::clone(target)));
        let is_cancelled = matches!(before, Now::Cancelled);
        stage.under_way += usize::from(is_cancelled);
        is_cancelled
    }

    /// From now on a request finds nothing to cancel. True if one is under way: see [`Canceller::settled`].
    pub fn released(&self) -> bool {
        let mut stage = self.stage.lock();
        stage.now = Now::Idle;
        stage.under_way > 0
    }

    /// Waits until no request is under way; false if that takes too long.
    pub async fn settled(&self) -> bool {
        let settled = async {
            loop {
                let changed = self.changed.notified();
                if self.stage.lock().under_way == 0 {
                    return;
                }
                changed.await;
            }
        };
        timeout(SETTLE_MAX, settled).await.is_ok()
    }

    async fn cancel(&self) {
        let target = {
            let mut stage = self.stage.lock();
            match &stage.now {
                Now::Idle | Now::Cancelled => return,
                Now::Waiting(waker) => {
                    let waker = waker.clone();
                    stage.now = Now::Cancelled;
                    drop(stage);
                    waker.wake();
                    return;
                }
                Now::Leased(target) => {
                    let target = Arc::clone(target);
                    stage.under_way += 1;
                    target
                }
            }
        };
        self.pass_on(&target).await;
    }

    /// Sends a request that is counted as under way.
    async fn pass_on(&self, target: &CancelTarget) {
        let _under_way = UnderWay(self);
        if let Err(error) = target.send().await {
            tracing::debug!(%error, address = %target.address, "a cancel request could not be passed on");
        }
    }
}

/// Counts a request as under way until dropped.
struct UnderWay<'a>(&'a Canceller);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.stage.lock().under_way -= 1;
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_session_in_line_leaves_it() {
        let cancels = Arc::new(Cancels::default());
        let session = cancels.register(None, false).unwrap();
        let waiting = tokio::spawn({
            let canceller = Arc::clone(&session.canceller);
            async move {
                std::future::poll_fn(|cx| match canceller.poll_cancelled_in_line(cx) {
                    true => std::task::Poll::Ready(()),
                    false => std::task::Poll::Pending,
                })
                .await
            }
        });
        while !matches!(session.canceller.stage.lock().now, Now::Waiting(_)) {
            tokio::task::yield_now().await;
        }
        assert!(cancels.cancel(&session.key).await);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn only_the_right_key_finds_a_session_and_only_while_it_lives() {
        let cancels = Arc::new(Cancels::default());
        let session = cancels.register(Some(7), true).unwrap();
        let key = session.key.clone();
        assert_eq!((key.pid, key.secret.len()), (7, 32));
        assert!(!cancels.cancel(&CancelKey { pid: 7, secret: Bytes::from_static(b"nope") }).await);
        assert!(cancels.cancel(&key).await);
        drop(session);
        assert!(!cancels.cancel(&key).await);
    }

    #[tokio::test]
    async fn a_request_that_came_in_line_is_under_way_from_the_lease_on() {
        let cancels = Arc::new(Cancels::default());
        let session = cancels.register(None, false).unwrap();
        session.canceller.hold_back();
        assert!(cancels.cancel(&session.key).await);
        // Nobody listens there: the request goes nowhere, but not before its turn.
        let address = "127.0.0.1:1".parse().unwrap();
        let target = CancelTarget { address, tls: None, key: session.key.clone() };
        session.leased(&Arc::new(target));
        assert!(session.canceller.released(), "the next query must not be hit by it");
        assert!(session.canceller.settled().await);
    }

    #[tokio::test]
    async fn a_release_waits_for_requests_under_way() {
        let canceller = Arc::new(Canceller::default());
        canceller.stage.lock().under_way = 1;
        assert!(canceller.released());
        let settled = tokio::spawn({
            let canceller = Arc::clone(&canceller);
            async move { canceller.settled().await }
        });
        tokio::task::yield_now().await;
        assert!(!settled.is_finished());
        drop(UnderWay(&canceller));
        assert!(settled.await.unwrap());
    }
}
