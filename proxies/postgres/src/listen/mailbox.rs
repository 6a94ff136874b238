//! What a session has been sent on its channels and has not taken yet. It is bounded: who does not read is ended, not
//! made deaf.

use std::task::{Context, Poll, Waker};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;

use crate::error::Error;

/// Bytes of notifications, as they go over the wire, that wait for one session.
pub const MAILBOX_BYTES_MAX: usize = 4 << 20;

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The session did not take what was there.
    Full,
    /// The connection that hears for it was lost.
    Lost,
    /// The pool's connections are replaced.
    Replaced,
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Error {
        match ended {
            Ended::Full => Error::MailboxFull { max: MAILBOX_BYTES_MAX },
            Ended::Lost => Error::ListenerLost,
            Ended::Replaced => Error::ListenerReplaced,
        }
    }
}

/// Frames for one session, in order.
#[derive(Debug, Default)]
pub struct Mailbox(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    frames: BytesMut,
    ended: Option<Ended>,
    reader: Option<Waker>,
}

impl Mailbox {
    /// Adds a frame; false if the mailbox has ended.
    pub fn push(&self, frame: &[u8]) -> bool {
        let mut inner = self.0.lock();
        if inner.ended.is_some() {
            return false;
        }
        if inner.frames.len() + frame.len() > MAILBOX_BYTES_MAX {
            drop(inner);
            self.end(Ended::Full);
            return false;
        }
        inner.frames.extend_from_slice(frame);
        let reader = inner.reader.take();
        drop(inner);
        reader.into_iter().for_each(Waker::wake);
        true
    }

    /// Nothing more comes. What is there may still be taken, unless it is more than anybody will take.
    pub fn end(&self, ended: Ended) {
        let mut inner = self.0.lock();
        inner.ended.get_or_insert(ended);
        if ended == Ended::Full {
            inner.frames = BytesMut::new();
        }
        let reader = inner.reader.take();
        drop(inner);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Why nothing more comes, to one that has heard that nothing does.
    pub fn why(&self) -> Error {
        self.0.lock().ended.unwrap_or(Ended::Lost).into()
    }

    /// Takes what is there, and then why nothing more comes.
    pub fn take(&self) -> Result<BytesMut, Ended> {
        let mut inner = self.0.lock();
        match inner.ended {
            Some(ended) if inner.frames.is_empty() => Err(ended),
            // Whole, and with its memory: an empty mailbox has none.
            Some(_) | None => Ok(std::mem::take(&mut inner.frames)),
        }
    }

    /// The same as soon as there is anything; only the end where there is `no_room`.
    pub fn poll_take(&self, no_room: bool, cx: &mut Context<'_>) -> Poll<Result<BytesMut, Ended>> {
        let mut inner = self.0.lock();
        let has_frames = inner.frames.has_remaining();
        match inner.ended {
            Some(ended) if !has_frames => return Poll::Ready(Err(ended)),
            Some(_) | None if has_frames && !no_room => {
                return Poll::Ready(Ok(std::mem::take(&mut inner.frames)));
            }
            Some(_) | None => {}
        }
        if !inner.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker())) {
            inner.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
