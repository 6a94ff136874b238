//! An exchange: bytes both ways, until the server connection is free or one side is gone.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;

use super::listening::hear;
use super::{Session, UNSENT_MAX};
use crate::error::Error;
use crate::wire::backend::Status;

/// How an exchange ended.
pub(super) enum End {
    /// The server connection is free for another session.
    Free,
    /// The server is gone, and has read nothing: another one shall have it.
    Unheard,
    /// A replica has failed at it, or was gone, before the client got anything: the primary shall have it.
    Misplaced,
    /// The client left, with a goodbye or without.
    Left,
    /// The program is draining, and nothing is open.
    Drained,
}

/// What came of a look at one side.
enum Look {
    Ends(End),
    /// If something has moved, the other side may have more to do.
    Goes {
        has_moved: bool,
    },
}

impl Session {
    pub(super) async fn exchange(&mut self) -> Result<End, Error> {
        poll_fn(|cx| self.poll_exchange(cx)).await
    }

    /// Moves bytes both ways until the server connection is free, or one side is gone.
    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<Result<End, Error>> {
        loop {
            let mut has_moved = match self.look_at_server(cx)? {
                Look::Ends(end) => return Poll::Ready(Ok(end)),
                Look::Goes { has_moved } => has_moved,
            };
            match self.look_at_client(cx)? {
                Look::Ends(end) => return Poll::Ready(Ok(end)),
                Look::Goes { has_moved: moved } => has_moved |= moved,
            }
            // Only a session that keeps its server connection can be idle in here.
            if has_moved || hear(&self.machine, &mut self.to_client, cx)? {
                continue;
            }
            if self.machine.server_is_idle()
                && self.from_client.is_empty()
                && self.to_client.is_empty()
                && self.poll_drain(cx).is_ready()
            {
                return Poll::Ready(Ok(End::Drained));
            }
            if !self.machine.is_busy() {
                self.seen.rests();
            }
            return Poll::Pending;
        }
    }

    /// Sends the server what the client has said, and takes in what it says.
    fn look_at_server(&mut self, cx: &mut Context<'_>) -> Result<Look, Error> {
        let Some(lease) = &mut self.lease else { return Ok(Look::Ends(End::Free)) };
        if lease.is_deposed() {
            return Err(Error::Deposed);
        }
        if !self.from_client.is_empty() && self.to_server.is_empty() {
            let (input, backend) = (&mut self.from_client, &mut lease.backend);
            self.machine.from_client(input, backend, &mut self.to_server, &mut self.to_client)?;
            if let Some(notes) = self.machine.notes() {
                notes.sent(Instant::now);
            }
        }
        let mut lost = None;
        if !self.to_server.is_empty()
            && let Poll::Ready(Err(error)) = lease.stream.poll_send(cx, &mut self.to_server)
        {
            // The server's last words may still be there to be read.
            lost = Some(error);
        }
        let mut has_moved = false;
        if self.to_client.len() < UNSENT_MAX {
            match lease.stream.poll_fill_watched(cx, &mut self.from_server, &mut self.server_watch) {
                Poll::Ready(Ok(filled)) if filled > 0 => {
                    has_moved = true;
                    self.pool.metrics.sent.add(filled as u64);
                    if self.holds_answers() {
                        if self.is_misplaced()? {
                            return Ok(Look::Ends(End::Misplaced));
                        }
                    } else if self.is_unheard() {
                        return Ok(Look::Ends(End::Unheard));
                    } else {
                        self.take_answers()?;
                    }
                }
                Poll::Ready(Ok(_)) => lost = Some(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Err(error)) => lost = Some(error),
                Poll::Pending => {}
            }
        }
        if let Some(error) = lost.filter(|_| !has_moved) {
            return if self.take_back() { Ok(Look::Ends(End::Misplaced)) } else { Err(Error::Lost(error)) };
        }
        // The connection goes to the next session before the client has its reply: that may take time.
        // But not while something of the server's is unread, which would be taken for the next session's.
        if self.machine.is_free() && self.to_server.is_empty() && self.from_server.is_empty() {
            return Ok(Look::Ends(End::Free));
        }
        Ok(Look::Goes { has_moved })
    }

    /// Sends the client what it may hear, and takes in what it says.
    fn look_at_client(&mut self, cx: &mut Context<'_>) -> Result<Look, Error> {
        let mut has_moved = false;
        let held_back = self.to_client.len() >= UNSENT_MAX;
        let holds_answers = self.holds_answers();
        if !self.to_client.is_empty() && !holds_answers {
            self.again = None;
            if let Poll::Ready(sent) = self.conn.stream.poll_send(cx, &mut self.to_client) {
                sent.map_err(Error::Client)?;
                has_moved = held_back;
            }
        }
        if self.to_server.is_empty()
            && self.to_client.len() < UNSENT_MAX
            && self.machine.takes_more()
            && !self.is_ahead()
        {
            match self.conn.stream.poll_fill_watched(cx, &mut self.from_client, &mut self.client_watch) {
                Poll::Ready(Ok(filled)) if filled > 0 => {
                    has_moved = true;
                    if !holds_answers {
                        self.again = None;
                    }
                    self.pool.metrics.received.add(filled as u64);
                    let _ = self.seen.works(self.machine.status() == Status::Idle);
                    self.shared.tap.look(&mut self.machine);
                }
                Poll::Ready(Ok(_)) => return Ok(Look::Ends(End::Left)),
                Poll::Ready(Err(error)) => return Err(Error::Client(error)),
                Poll::Pending => {}
            }
        }
        // What was asked for before the goodbye is still done.
        if self.machine.may_leave() {
            return Ok(Look::Ends(End::Left));
        }
        Ok(Look::Goes { has_moved })
    }

    /// Whether the server's first words prove that it has read nothing; then all is as before the exchange.
    fn is_unheard(&mut self) -> bool {
        let (Some(again), Some(lease)) = (self.again.take(), &mut self.lease) else { return false };
        let is_whole = !again.is_part || self.machine.has_sent_all();
        if !is_whole
            || !self.to_client.is_empty()
            || !self.machine.is_unheard(&again.before, &self.from_server)
        {
            return false;
        }
        self.machine.unsend(again.before, &mut lease.backend);
        let rest = std::mem::replace(&mut self.from_client, again.from_client);
        if again.is_part {
            self.from_client.extend_from_slice(&rest);
        }
        true
    }

    /// Takes in what the server has said.
    pub(super) fn take_answers(&mut self) -> Result<(), Error> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        let held_back = self.machine.in_setup();
        self.machine.from_server(&mut self.from_server, &mut lease.backend, &mut self.to_client)?;
        if let Some(batch) = self.machine.take_outdated(&mut self.to_server) {
            let since = std::mem::replace(&mut self.from_client, BytesMut::from(&batch[..]));
            self.from_client.extend_from_slice(&since);
        }
        self.shared.tap.hear(&mut self.machine, &self.seen, lease);
        if held_back && !self.machine.in_setup() {
            self.registered.leased(&lease.cancel);
        }
        Ok(())
    }
}
