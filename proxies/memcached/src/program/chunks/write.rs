//! Storing: over the version that was seen, or where nothing was.

use bytes::{Bytes, BytesMut};

use super::head::{Head, MAGIC, is_head, may_begin_head};
use super::{Chunked, Item, NOTHING, Token, pass};
use crate::program::found::{Look, WHOLE};
use crate::program::steps::{Stop, Swap, swapped};
use crate::program::{Event, Node, Nodes, Outcome, Pin, Told};
use crate::wire::meta::{Get, Mode, Op, Status, Store, Wants};

impl<N: Nodes> Chunked<'_, N> {
    pub(super) async fn store(&self, store: Store<'_>, token: Option<Token>) -> Result<Outcome, Stop> {
        let seen = self.look().await?;
        match unmet(&store, token, seen) {
            Some(status) => Ok(self.bare(store.wants, status)),
            None => self.put(store, token, seen).await,
        }
    }

    /// Stores on what was seen.
    async fn put(&self, store: Store<'_>, token: Option<Token>, seen: Option<Item>) -> Result<Outcome, Stop> {
        let Store { value, exptime, .. } = store;
        let new = match exptime < 0 {
            false if value.len() > self.at.part_len || is_head(value) => Some(self.stage(value).await?),
            true | false => None,
        };
        let head = new.map(|new| Bytes::from(new.write()));
        let value = match &head {
            Some(head) => head,
            // It is never seen.
            None if exptime < 0 => &NOTHING,
            None => value,
        };
        let (mode, pin) = match seen {
            // Whether it is to be marked stale is the server's to find out, by the client's own token.
            Some(_) if store.invalidate => (Mode::Set, pin_of(token)),
            Some(Item { pin, .. }) => (Mode::Set, Some(pin)),
            None => (Mode::Add, None),
        };
        let compare = if store.invalidate { store.compare } else { pin.map(|pin| pin.cas) };
        let store = Store { mode, value, compare, vivify: None, ..store };
        self.swap(store, token, pin, seen.and_then(|seen| seen.head), new).await
    }

    /// Sends it, and makes the parts follow: those of `new` live as long as it does, those of `old` are gone.
    async fn swap(
        &self,
        store: Store<'_>,
        token: Option<Token>,
        pin: Option<Pin>,
        old: Option<Head>,
        new: Option<Head>,
    ) -> Result<Outcome, Stop> {
        let told = match self.ask(Op::Store(store), pin).await {
            Ok(told) => told,
            Err(failure) => {
                self.forget(failure, old).await;
                return Err(failure.into());
            }
        };
        let told = match (swapped(told), token) {
            (Ok(Swap::Done(told)), _) => told,
            (Ok(Swap::Exists | Swap::Nothing), None) => return Err(Stop::Again),
            (Ok(Swap::Exists), Some(_)) => return Ok(self.bare(store.wants, Status::Exists)),
            (Ok(Swap::Nothing), Some(_)) => {
                let is_add = store.mode == Mode::Add;
                let status = if is_add { Status::NotStored } else { Status::NotFound };
                return Ok(self.bare(store.wants, status));
            }
            (Err(stop), _) => {
                self.forget_refused(old).await;
                return Err(stop);
            }
        };
        self.staged.set(None);
        let old = async {
            if let Some(old) = old {
                self.remove(old).await;
            }
        };
        let Some(new) = new else {
            old.await;
            return Ok(pass(told));
        };
        self.steps.nodes.note(Event::WholeStored);
        // A part that cannot be touched ends soon, and is a miss then.
        _ = futures_util::join!(self.touch(new, store.exptime), old);
        Ok(pass(Told { reply: told.reply.measured(new.len()), ..told }))
    }

    /// A server that has no room for what it is sent may drop what was there.
    async fn forget_refused(&self, old: Option<Head>) {
        let Some(old) = old else { return };
        match self.look().await {
            Ok(Some(Item { head: Some(now), .. })) if now.id == old.id => (),
            Ok(_) | Err(_) => self.remove(old).await,
        }
    }

    /// Puts more behind or before what is there.
    pub(super) async fn append(&self, store: Store<'_>, token: Option<Token>) -> Result<Outcome, Stop> {
        let Some(seen) = self.look().await? else {
            return match store.vivify {
                Some(exptime) => {
                    let store = Store { mode: Mode::Add, exptime, ..store };
                    self.put(store, None, None).await
                }
                None => Ok(self.bare(store.wants, Status::NotStored)),
            };
        };
        if token.is_some_and(|token| token != Token::Own(seen.pin)) && !store.invalidate {
            return Ok(self.bare(store.wants, Status::Exists));
        }
        if self.fits(&store, &seen) {
            let compare = if store.invalidate { store.compare } else { Some(seen.pin.cas) };
            let told = self.ask(Op::Store(Store { compare, ..store }), Some(seen.pin)).await?;
            let is_again = token.is_none() && matches!(told.reply.status, Status::Exists | Status::NotFound);
            return if is_again { Err(Stop::Again) } else { Ok(pass(told)) };
        }
        self.join(store, token).await
    }

    /// Can its server do it? Not if that makes it too long for an item, or might look like a head.
    fn fits(&self, store: &Store<'_>, seen: &Item) -> bool {
        let begins = match store.mode {
            Mode::Append => seen.len > 0 && seen.len < MAGIC.len(),
            Mode::Prepend | Mode::Set | Mode::Add | Mode::Replace => false,
        };
        let is_first = store.mode == Mode::Prepend || seen.len == 0;
        seen.head.is_none()
            && !begins
            && !(is_first && may_begin_head(store.value))
            && seen.len + store.value.len() <= self.at.part_len
    }

    /// Reads the value, and stores it anew with the rest.
    async fn join(&self, store: Store<'_>, token: Option<Token>) -> Result<Outcome, Stop> {
        if let Some(staged) = self.staged.take() {
            // An attempt's before, with another value.
            self.remove(staged).await;
        }
        let wants = WHOLE.and(Wants::CAS).and(Wants::SIZE);
        let told = self.ask(Op::Get(Get { wants, ..Get::default() }), None).await?;
        if told.reply.status == Status::Miss {
            return Err(Stop::Again);
        }
        // A mark that somebody is to renew it: there is nothing yet.
        let Look::Value(found) = Look::read(Node::Home, told)? else {
            return Ok(self.bare(store.wants, Status::NotStored));
        };
        let (head, mut before) = (Head::read(found.value()), found.value().clone());
        if let Some(head) = head {
            let Some((value, _)) = self.fetch(head).await? else { return self.lost(head).await };
            before = value;
        }
        let len = before.len() + store.value.len();
        if len > self.at.value_len_max {
            return Ok(self.bare(store.wants, Status::NotStored));
        }
        self.steps.nodes.room(len).await;
        let mut joined = BytesMut::with_capacity(len);
        let is_behind = store.mode == Mode::Append;
        let [first, second] = if is_behind { [&before, store.value] } else { [store.value, &before] };
        joined.extend_from_slice(first);
        joined.extend_from_slice(second);
        let joined = joined.freeze();
        let seen = Item { pin: found.pin, len: found.value().len(), head };
        if token.is_some_and(|token| token != Token::Own(seen.pin)) {
            return Ok(self.bare(store.wants, Status::Exists));
        }
        let (flags, exptime) = (found.flags, found.exptime(self.at.now_s));
        let store = Store { mode: Mode::Set, value: &joined, flags, exptime, invalidate: false, ..store };
        self.put(store, token, Some(seen)).await
    }
}

/// What is told at once, because what was seen does not go with what the client asked.
fn unmet(store: &Store<'_>, token: Option<Token>, seen: Option<Item>) -> Option<Status> {
    match (store.mode, token, seen) {
        (Mode::Add, _, Some(_)) | (Mode::Replace, _, None) => Some(Status::NotStored),
        (Mode::Set, Some(_), None) => Some(Status::NotFound),
        (Mode::Set | Mode::Replace, Some(token), Some(Item { pin, .. })) => {
            (token != Token::Own(pin) && !store.invalidate).then_some(Status::Exists)
        }
        (Mode::Set | Mode::Add, _, None) | (Mode::Set | Mode::Replace, None, Some(_)) => None,
        // These have a way of their own.
        (Mode::Append | Mode::Prepend, _, _) => None,
    }
}

fn pin_of(token: Option<Token>) -> Option<Pin> {
    match token {
        Some(Token::Own(pin)) => Some(pin),
        Some(Token::Foreign) | None => None,
    }
}
