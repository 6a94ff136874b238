//! A task's change from one worker's runtime to another's.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::super::downstream::Permit;
use super::super::service::WorkerId;
use super::HERE;

/// Ends the poll of the task it is in, and is ready when that is polled on worker `to`.
pub(super) async fn hop(to: WorkerId) {
    let mut has_left = false;
    poll_fn(|_| {
        if std::mem::replace(&mut has_left, true) {
            return Poll::Ready(());
        }
        HERE.with(|here| here.get().map(|here| here.bound_for.set(Some(to))));
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
        HERE.with(|here| {
            let Some(here) = here.get() else { return polled };
            let Some(place) = here.bound_for.take().and_then(|to| here.gathering.place(to)) else {
                return polled;
            };
            // One that ends in this very moment goes nowhere.
            if let (Poll::Pending, Some(mut work)) = (polled, self.work.take()) {
                work.as_mut().permit().moves_to(&place.open);
                place.runtime.spawn(Travelling { work: Some(work) });
            }
            Poll::Ready(())
        })
    }
}
