//! `flush_all` while keys move: in rounds, as [`crate::program::flush`] says why.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::future::join_all;

use super::exchange::Exchange;
use super::state::{Answer, Broadcast};
use crate::error::Failure;
use crate::hot::Part;
use crate::program::flush::rounds;
use crate::upstream::changes::Running;
use crate::upstream::view::Lease;
use crate::wire::Output;
use crate::wire::meta::{Reply, Status};

const FLUSHED: &[u8] = b"OK";

impl Exchange<'_> {
    /// Flushes everyone. The session waits for it, and so does the next step of each change under way; what is kept
    /// of hot keys is not used meanwhile. The answers come later.
    pub(super) fn flush_in_rounds(
        &self,
        everyone: Vec<Lease>,
        open: (Vec<Running>, Part),
    ) -> Vec<Option<Answer>> {
        let answers = everyone.iter().map(|_| None).collect();
        self.mailbox.programs().borrow_mut().set_about_all(true);
        let (mailbox, first) = (Rc::clone(self.mailbox), self.ticket);
        tokio::task::spawn_local(async move {
            let mut answers = Vec::new();
            for _ in 0..rounds() {
                answers = join_all(everyone.iter().map(flushed)).await;
                if !answers.iter().all(is_good) {
                    // What could not be flushed once is told; another round would not help.
                    break;
                }
            }
            drop(open);
            mailbox.programs().borrow_mut().set_about_all(false);
            for (ticket, answer) in (first..).zip(answers) {
                mailbox.deliver(ticket, answer);
            }
            mailbox.flush();
        });
        answers
    }
}

async fn flushed(lease: &Lease) -> Answer {
    let flush = Broadcast::FlushAll { delay: 0 };
    match lease {
        Lease::Connection { connection, is_trial, ttl_max_s: _ } => {
            poll_fn(|cx| match connection.is_ready(cx.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            })
            .await;
            let told = match connection.ask(*is_trial, |out: &mut Output| flush.encode(out)) {
                Ok(question) => question.answered().await,
                Err(failure) => Err(failure),
            };
            told.map_or_else(Answer::Failed, |told| Answer::Reply(told.reply))
        }
        Lease::Embedded(store) => {
            store.flush_all(0);
            Answer::Reply(Reply::new(Status::Classic, Bytes::from_static(FLUSHED), Bytes::new()))
        }
        Lease::Program(_) | Lease::Nothing | Lease::Busy | Lease::Failed(_) => Answer::Failed(Failure::Down),
    }
}

fn is_good(answer: &Answer) -> bool {
    match answer {
        Answer::Reply(reply) => reply.line() == FLUSHED,
        Answer::Failed(_) => false,
    }
}
