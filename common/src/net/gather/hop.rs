//! A task's change from one worker's runtime to another's.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::super::downstream::Permit;
use super::super::service::WorkerId;
use super::HERE;

thread_local! {
    static BOUND_FOR: Cell<Option<WorkerId>> = const { Cell::new(None) };
}

/// Ends the poll of the task it is in, and is ready when that is polled on worker `to`.
pub(super) async fn hop(to: WorkerId) {
    let mut has_left = false;
    poll_fn(|_| {
        if std::mem::replace(&mut has_left, true) {
            return Poll::Ready(());
        }
        BOUND_FOR.set(Some(to));
        Poll::Pending
    })
    .await;
}

/// A session's task, which its future may leave for another worker.
pub(in crate::net) struct Travelling {
    /// Gone, once it has left.
    work: Option<Pin<Box<dyn Counted>>>,
}

/// A future that is counted where it runs.
pub(in crate::net) trait Counted: Future<Output = ()> + Send {
    fn permit(self: Pin<&mut Self>) -> &mut Permit;
}

impl Travelling {
    pub(in crate::net) fn new(work: impl Counted + 'static) -> Self {
        Self { work: Some(Box::pin(work)) }
    }
}

impl Future for Travelling {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(work) = &mut self.work else { return Poll::Ready(()) };
        let polled = work.as_mut().poll(cx);
        let Some(to) = BOUND_FOR.take() else { return polled };
        if polled.is_ready() {
            return polled;
        }
        HERE.with(|here| {
            let place = here.get().and_then(|here| here.gathering.place(to));
            let (Some(place), Some(mut work)) = (place, self.work.take()) else {
                // Nobody but a worker is told where to go.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            };
            work.as_mut().permit().moves_to(&Arc::clone(&place.open));
            place.runtime.spawn(Travelling { work: Some(work) });
            Poll::Ready(())
        })
    }
}
