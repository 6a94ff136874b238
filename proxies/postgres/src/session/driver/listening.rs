//! From LISTEN on a server connection that others share to the one that hears for all of them, and back.
//!
//! ```text
//! COMMIT of a LISTEN ─► the server is asked what its connection listens to
//!     hub:   listens to that, too; deaf to it for this session
//!     lease: LISTEN marks; NOTIFY marks, '7'        everything before the mark is the lease's to tell
//!     hub:   comes to '7' ─► hears for the session  everything after it is the hub's
//!     lease: UNLISTEN *                             it goes back to its pool
//! ReadyForQuery to the client
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;

use super::{Session, UNSENT_MAX};
use crate::error::Error;
use crate::listen::{Channel, Joined, Subscription};
use crate::session::Lease;
use crate::session::state::Machine;
use crate::session::survey::Survey;
use crate::sql::Kinds;
use crate::upstream::Heard;

/// What ends an exchange outside of a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// Puts what was sent on the session's channels behind what its client is to get, if this is a moment for that; whether
/// there was anything. The task is woken when there is more, or when there will not be any more.
pub(super) fn hear(machine: &Machine, to_client: &mut BytesMut, cx: &mut Context<'_>) -> Result<bool, Error> {
    let Some(listening) = machine.listening().filter(|_| machine.may_notify()) else { return Ok(false) };
    let mut has_heard = false;
    // To the end, or nobody would wake the task for what comes while its client does not read.
    while let Poll::Ready(frames) =
        listening.subscription.mailbox.poll_take(to_client.len() >= UNSENT_MAX, cx)
    {
        let frames = frames?;
        match to_client.is_empty() {
            true => *to_client = frames,
            false => to_client.extend_from_slice(&frames),
        }
        has_heard = true;
    }
    Ok(has_heard)
}

/// What becomes of the channels that a server connection listens to.
enum Handed {
    /// The session keeps its connection.
    Kept,
    /// These are heard through the pool from now on, at this place if the session had none.
    Over(Option<Subscription>, Vec<Channel>),
}

impl Session {
    /// Asks the server what the session has left, and sees to it that its channels are heard through the pool. Gives
    /// those that its connection was found to listen to.
    pub(super) async fn survey(&mut self, lease: &mut Lease, survey: Survey) -> Result<Vec<Channel>, Error> {
        let pool = Arc::clone(&self.pool);
        let mut heard = Heard::new(pool.hub().marks());
        let mut found = pool.survey(lease, &survey, &mut heard).await?;
        let names = found.iter().flat_map(|found| &found.channels);
        let channels: Vec<Channel> = names.map(|name| Channel::from(&name[..])).collect();
        let handed = match channels.is_empty() {
            true => Handed::Kept,
            false => self.change_over(lease, &channels, &mut heard).await?,
        };
        // What it hears through the pool already it has heard from there.
        let listening = self.machine.listening();
        let told = heard.on(|channel| listening.is_none_or(|listening| !listening.hears(channel)));
        self.tell(&told);
        if let (Handed::Over(subscription, channels), Some(found)) = (handed, &mut found) {
            self.machine.listens(subscription, channels);
            found.others -= Kinds::LISTENS;
        }
        self.machine.surveyed(survey.kinds, found.as_ref(), &mut lease.backend);
        Ok(channels)
    }

    /// Has the pool hear what this server connection listens to.
    async fn change_over(
        &self,
        lease: &mut Lease,
        channels: &[Channel],
        heard: &mut Heard<'_>,
    ) -> Result<Handed, Error> {
        let listening = self.machine.listening();
        let is_new = |channel: &&Channel| listening.is_none_or(|listening| !listening.hears(channel));
        let new: Vec<Channel> = channels.iter().filter(is_new).cloned().collect();
        if !self.machine.may_listen(&new, &lease.backend.settings) {
            return Ok(Handed::Kept);
        }
        let fresh = if listening.is_none() { Some(self.pool.hub().sit()) } else { None };
        let place = fresh.as_ref().or(listening.map(|listening| &listening.subscription));
        let Some(place) = place else { return Ok(Handed::Kept) };
        if !new.is_empty() {
            let joined = match place.join(&new).await {
                Ok(joined) => joined,
                // Nothing is lost as long as this connection listens.
                Err(_) if fresh.is_some() => return Ok(Handed::Kept),
                Err(error) => return Err(error),
            };
            if !self.mark(lease, joined, heard).await? {
                place.leave(&new);
                // The connection stays with its session, for whom marks are not.
                let query = format!("UNLISTEN \"{}\"", self.pool.hub().marks());
                self.pool.hear(lease, &query, heard).await?;
                return Ok(Handed::Kept);
            }
        }
        if !self.pool.hear(lease, "UNLISTEN *", heard).await? {
            return Err(Error::Setup);
        }
        heard.cut();
        Ok(Handed::Over(fresh, new))
    }

    /// Puts a mark into what both connections hear; false if one of them does not come to it.
    async fn mark(
        &self,
        lease: &mut Lease,
        mut joined: Joined,
        heard: &mut Heard<'_>,
    ) -> Result<bool, Error> {
        if !self.pool.hub().is_beside(&lease.cancel) {
            return Ok(false);
        }
        heard.await_mark(joined.mark);
        let is_put = self.pool.hear(lease, &joined.query, heard).await?;
        Ok(is_put && heard.is_marked() && joined.seen().await)
    }

    /// Leaves the channels that an UNLISTEN names, once what was sent before it is there; and tells what is there.
    pub(super) async fn settle_channels(&mut self, found: &[Channel]) -> Result<(), Error> {
        let left = self.machine.take_left(found);
        let has_notified = self.machine.take_notified();
        let Some(listening) = self.machine.listening() else { return Ok(()) };
        let mailbox = Arc::clone(&listening.subscription.mailbox);
        if !left.is_empty() || has_notified {
            listening.subscription.catch_up().await?;
        }
        self.machine.unlistens(&left);
        let frames = mailbox.take()?;
        self.tell(&frames);
        Ok(())
    }

    /// Puts notifications where a server puts them: before the ReadyForQuery that ends what the client is about to get.
    fn tell(&mut self, frames: &[u8]) {
        let out = &mut self.to_client;
        if frames.is_empty() {
            return;
        }
        match out.len().checked_sub(READY.len()).filter(|_| out.ends_with(READY)) {
            Some(length) => {
                out.truncate(length);
                out.extend_from_slice(frames);
                out.extend_from_slice(READY);
            }
            None => out.extend_from_slice(frames),
        }
    }
}
