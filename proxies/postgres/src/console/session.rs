//! An operator's session: { read, answer }, until the operator leaves or the program drains.
//!
//! Simple queries only. Who prepares statements is told so, and gets on after its Sync, as after any error.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use groove_common::net::{Downstream, Reached};
use tokio::time::timeout;

use super::command::Command;
use super::{Access, Refusal, act, show};
use crate::Shared;
use crate::error::Error;
use crate::reply;
use crate::session::cancel::Registered;
use crate::wire::backend::{self, Status};
use crate::wire::{DecodeError, Frame, Limits, cstr, decode};

/// No command is longer.
const LIMITS: Limits = Limits { message: 64 << 10 };
/// How long an operator may take to hear why the session ends.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// An operator who is logged in.
pub struct Console {
    shared: Arc<Shared>,
    conn: Downstream,
    draining: Reached,
    registered: Registered,
    access: Access,
    input: BytesMut,
    out: BytesMut,
    /// After an error in the extended protocol, until the Sync.
    skipping: bool,
}

impl Console {
    /// A console whose operator has been greeted.
    pub fn new(
        shared: Arc<Shared>,
        conn: Downstream,
        input: BytesMut,
        access: Access,
        registered: Registered,
    ) -> Box<Console> {
        let (draining, out) = (conn.drain.draining(), BytesMut::new());
        Box::new(Console { shared, conn, draining, registered, access, input, out, skipping: false })
    }

    /// Serves the operator to the end.
    pub async fn run(mut self: Box<Console>) {
        let Err(error) = self.serve().await else { return };
        tracing::debug!(peer = %self.conn.peer, %error, "a console ends");
        if !matches!(error, Error::Client(_)) {
            reply::put_session_error(&mut self.out, &error);
            // Told in time or not: the session ends here.
            let _ = timeout(GOODBYE_MAX, self.conn.stream.send(&mut self.out)).await;
        }
    }

    async fn serve(&mut self) -> Result<(), Error> {
        loop {
            while let Some(frame) = decode(&mut self.input, &LIMITS)? {
                if frame.tag == b'X' {
                    return Ok(());
                }
                self.on(&frame).await?;
                self.conn.stream.send(&mut self.out).await.map_err(Error::Client)?;
            }
            if self.read().await? == 0 {
                return Ok(());
            }
        }
    }

    async fn on(&mut self, frame: &Frame) -> Result<(), Error> {
        match frame.tag {
            b'S' => {
                self.skipping = false;
                backend::put_ready(&mut self.out, Status::Idle);
            }
            b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'H' | b'F' if self.skipping => {}
            b'Q' => {
                let Some((text, b"")) = cstr(frame.body()) else { return Err(DecodeError::Format.into()) };
                let answered = match std::str::from_utf8(text) {
                    Ok(text) => self.answer(text).await?,
                    Err(_) => Err(Refusal::new("22021", "invalid byte sequence for encoding \"UTF8\"")),
                };
                if let Err(refusal) = answered {
                    reply::put_refusal(&mut self.out, &refusal);
                }
                backend::put_ready(&mut self.out, Status::Idle);
            }
            b'P' | b'B' | b'D' | b'E' | b'C' => {
                self.skipping = true;
                let message = "the console speaks the simple query protocol only";
                let hint = "Have the client send plain text, without parameters.";
                reply::put_refusal(&mut self.out, &Refusal::new("0A000", message).hint(hint));
            }
            b'F' => {
                reply::put_refusal(&mut self.out, &Refusal::new("0A000", "the console has no functions"));
                backend::put_ready(&mut self.out, Status::Idle);
            }
            // A Flush has nothing to flush; COPY data of a client that has not heard of an error is dropped, as
            // PostgreSQL does.
            b'H' | b'd' | b'c' | b'f' => {}
            tag => return Err(DecodeError::FrontendType(tag).into()),
        }
        Ok(())
    }

    /// Answers one command; the inner error is for the operator, the outer one ends the session.
    async fn answer(&mut self, text: &str) -> Result<Result<(), Refusal>, Error> {
        let command = match Command::read(text) {
            Ok(Command::Empty) => {
                backend::put_empty_query(&mut self.out);
                return Ok(Ok(()));
            }
            Ok(command) => command,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Command::Show(what) = command {
            show::put(&self.shared, what, &mut self.out);
        } else {
            if self.access != Access::Admin {
                let message = format!("{} is for admins: this user may look only", command.tag());
                let refusal = Refusal::new("42501", message).hint("Add the user to \"console.admins\".");
                return Ok(Err(refusal));
            }
            tracing::info!(peer = %self.conn.peer, command = text.trim(), "an operator's command");
            let shared = Arc::clone(&self.shared);
            // What is dropped half-way undoes what it has begun.
            if let Err(refusal) = self.while_here(act::run(&shared, &command)).await? {
                return Ok(Err(refusal));
            }
        }
        backend::put_command_complete(&mut self.out, command.tag());
        if command == Command::Shutdown {
            self.shared.control.stop();
        }
        Ok(Ok(()))
    }

    /// Carries something out while the operator waits for it: not if he leaves or cancels it, nor in a drain.
    async fn while_here(
        &mut self,
        work: impl Future<Output = Result<(), Refusal>>,
    ) -> Result<Result<(), Refusal>, Error> {
        let mut work = pin!(work);
        let outcome = poll_fn(|cx| {
            if let Poll::Ready(outcome) = work.as_mut().poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            if self.registered.canceller.poll_cancelled_in_line(cx) {
                return Poll::Ready(Ok(Err(Refusal::new("57014", Error::Cancelled.to_string()))));
            }
            self.poll_gone(cx).map(Err)
        });
        let outcome = outcome.await;
        self.registered.canceller.released();
        outcome
    }

    /// Why nobody waits any more. What comes meanwhile is kept, within bounds.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        if Pin::new(&mut self.draining).poll(cx).is_ready() {
            return Poll::Ready(Error::Draining);
        }
        while self.input.remaining() < LIMITS.message {
            match self.conn.stream.poll_fill(cx, &mut self.input) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Error::Client(io::ErrorKind::UnexpectedEof.into()));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Error::Client(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    async fn read(&mut self) -> Result<usize, Error> {
        poll_fn(|cx| {
            if let Poll::Ready(filled) = self.conn.stream.poll_fill(cx, &mut self.input) {
                return Poll::Ready(filled.map_err(Error::Client));
            }
            Pin::new(&mut self.draining).poll(cx).map(|_| Err(Error::Draining))
        })
        .await
    }
}
