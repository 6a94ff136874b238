//! One timer a session, moved as seldom as can be.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that moves with every exchange and hardly ever passes.
///
/// The runtime's timer is set anew only when the deadline comes nearer than it is set, or when it goes off early. A
/// busy session moves it once a timeout, not once a request.
#[derive(Debug)]
pub struct Timer {
    deadline: Instant,
    armed: Option<Pin<Box<Sleep>>>,
    /// The runtime's timer knows whom to wake: always the session's task, so once is enough. A session that goes on as
    /// another task needs another timer.
    is_known: bool,
}

impl Timer {
    /// A timer that has not been set yet at the runtime.
    pub fn new(deadline: Instant) -> Self {
        Self { deadline, armed: None, is_known: false }
    }

    /// Moves the deadline.
    pub fn set(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if let Some(sleep) = &mut self.armed
            && sleep.deadline() > deadline
        {
            sleep.as_mut().reset(deadline);
            self.is_known = false;
        }
    }

    /// Ready when the deadline has passed. To be polled by one task only.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let sleep = self.armed.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if self.is_known && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                self.is_known = false;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        self.is_known = true;
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_deadline_last_set() {
        let start = Instant::now();
        let mut timer = Timer::new(start + Duration::from_secs(10));
        let early = tokio::time::timeout(Duration::from_secs(5), poll_fn(|cx| timer.poll(cx))).await;
        assert!(early.is_err());
        timer.set(start + Duration::from_secs(30));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), 30);
        timer.set(Instant::now() + Duration::from_secs(60));
        assert!(tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| timer.poll(cx))).await.is_err());
        timer.set(Instant::now() + Duration::from_secs(2));
        let before = Instant::now();
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(before.elapsed().as_secs(), 2);
    }
}
