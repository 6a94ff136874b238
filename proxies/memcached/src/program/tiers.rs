//! One operation on a key that lives in two tiers: a front server that evicts, an overflow server behind it.
//!
//! What is read and not in front is looked for behind and copied to the front. What is written goes to both, as
//! stock memcached tells nobody what it evicts: the version in front is seen first (an empty stub if there is none),
//! then the copy behind is killed and a stub left in its place, then the value is stored on that version in front,
//! and then in that stub behind, before the client is answered. So
//!
//! - an older copy behind never outlives a newer one in front: it is dead before the newer one is there;
//! - nor does this one: whoever sees it in front, and writes after it, kills the stub or the copy, and who has seen
//!   the version before cannot write;
//! - and whatever the front evicts meanwhile, the copy does not depend on it.
//!
//! | | front | overflow | then |
//! |---|---|---|---|
//! | get | `mg N30`: value | | |
//! | | stub of mine | `mg` | `ms C` in front; nothing: `md C` in front, and look once more |
//! | | stub of others | `mg` | look in front once more |
//! | set | `mg N30` | `md`, `mg N30`: a stub | `ms C` in front, `ms C` behind |
//! | delete | `mg N30` | `md` | `md C` in front |
//! | change | as get, and no value is a miss | `md`, `mg N30`: a stub | `ms C` or `ma C` in front, `ms C` behind |
//!
//! A failed comparison in front begins the operation again. Clients' own stubs and stale marks (`N`, `R`, `I`) have no
//! meaning here, as they would be mistaken for those of the tiers: `N` and `R` of a retrieval are left out, and what
//! is to be marked stale is deleted.
//!
//! What a change needs of the old item is lost if the front evicts it after the copy behind has been killed: it may as
//! well have been deleted by somebody who will be told so. It is a miss then, and counted.

use std::cell::Cell;

use bytes::Bytes;

use super::found::{Found, Look, WHOLE, bare, done, wants_of};
use super::steps::{Steps, Stop, Swap, again, attempts, pin_of};
use super::{Event, Link, Node, Nodes, Outcome, Pin, Told};
use crate::error::Failure;
use crate::wire::meta::{Arith, Get, Mode, Op, Reply, Request, Status, Store, Wants};

/// A client's CAS token, by whose it is. The epoch in it has been checked and taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Of the front server as it runs now.
    Front(Pin),
    /// Of another server, or of one that has been restarted.
    Foreign,
}

/// Carries out what a client asked. `token` stands for the client's CAS token, whatever `compare` in the request
/// says; a request without one has none. `now_s` is the Unix time in seconds.
///
/// # Errors
///
/// Why nothing can be told. Nothing was acknowledged; it may have been done all the same, now or a little later.
pub async fn run<N: Nodes>(
    nodes: &N,
    now_s: u64,
    request: &Request<'_>,
    token: Option<Token>,
) -> Result<Outcome, Failure> {
    let tiered = Tiered {
        steps: Steps::of(nodes, request),
        now_s,
        request,
        was_there: Cell::new(false),
        owes: Cell::new(false),
    };
    let outcome = attempts(|| tiered.operation(token)).await;
    if outcome.is_err() && tiered.owes.get() {
        // What is still in front has no copy any more.
        nodes.note(Event::SpillLost);
    }
    outcome
}

/// An operation on a key in two tiers.
struct Tiered<'a, N> {
    steps: Steps<'a, N>,
    now_s: u64,
    request: &'a Request<'a>,
    /// There was an item: what begins again has killed it behind, or has seen it in front to delete it.
    was_there: Cell<bool>,
    /// It has killed what was behind, or was about to come there, and has stored nothing yet.
    owes: Cell<bool>,
}

impl<N: Nodes> Tiered<'_, N> {
    async fn operation(&self, token: Option<Token>) -> Result<Outcome, Stop> {
        match (self.request.op, token) {
            (Op::Get(Get { wants, touch: None, .. }), _) => {
                let found = self.get(wants).await?;
                Ok(found
                    .map_or_else(|| bare(self.request, wants, Status::Miss), |found| self.hit(&found, wants)))
            }
            (Op::Get(_) | Op::Arith(_), None) => self.change(None).await,
            (Op::Store(store @ Store { mode: Mode::Add, .. }), _) => self.add(store).await,
            (Op::Store(store @ Store { mode: Mode::Set, .. }), None) => self.set(store).await,
            (Op::Store(_), None) => self.change(None).await,
            (Op::Delete(delete), None) => self.delete(delete.wants).await,
            (Op::Get(_), Some(_)) => self.change(None).await,
            (Op::Store(_) | Op::Arith(_) | Op::Delete(_), Some(token)) => self.change(Some(token)).await,
            (Op::Debug, _) => self.debug().await,
        }
    }

    fn hit(&self, found: &Found, wants: Wants) -> Outcome {
        found.hit(self.request, wants)
    }

    fn bare(&self, wants: Wants, status: Status) -> Outcome {
        bare(self.request, wants, status)
    }

    /// Reads, and brings to the front what is behind.
    async fn get(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        let stub = match self.steps.claim(Node::Front, wants).await? {
            Look::Value(found) => return Ok(Some(found)),
            Look::Stub { pin, is_mine: true } => pin,
            // Somebody else promotes, or writes.
            Look::Stub { is_mine: false, .. } | Look::Nothing => return self.behind_then_front(wants).await,
        };
        match self.behind(wants.and(WHOLE)).await? {
            // It has been read, and that is what was asked: a promotion that fails does no harm.
            Some(found) => match self.steps.store_if(Node::Front, stub, again(&found, self.now_s)).await {
                Ok(Swap::Done(told)) => {
                    let pin = pin_of(&told)?;
                    Ok(Some(found.at(Node::Front, pin)))
                }
                Ok(Swap::Exists | Swap::Nothing) | Err(_) => Ok(Some(found)),
            },
            None => match self.steps.kill_if(Node::Front, stub).await? {
                Swap::Done(_) => Ok(None),
                // A writer has taken the stub, or it was evicted.
                Swap::Exists | Swap::Nothing => self.behind_then_front(wants).await,
            },
        }
    }

    async fn behind_then_front(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        if let Some(found) = self.behind(wants).await? {
            return Ok(Some(found));
        }
        match self.steps.look(Node::Front, wants).await? {
            Look::Value(found) => Ok(Some(found)),
            Look::Stub { .. } | Look::Nothing => Ok(None),
        }
    }

    /// A reader may take an overflow server that is away for one that has nothing: a miss is never wrong.
    async fn behind(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        match self.steps.look(Node::Overflow, wants).await {
            Ok(Look::Value(found)) => Ok(Some(found)),
            Ok(Look::Stub { .. } | Look::Nothing) | Err(Stop::Failed(_)) => Ok(None),
            Err(stop @ (Stop::Again | Stop::Refused(_))) => Err(stop),
        }
    }

    async fn set(&self, store: Store<'_>) -> Result<Outcome, Stop> {
        let pin = self.steps.claim(Node::Front, Wants::NOTHING).await?.claimed()?;
        self.put(pin, store).await
    }

    async fn add(&self, store: Store<'_>) -> Result<Outcome, Stop> {
        let wants = if self.owes.get() { WHOLE } else { Wants::NOTHING };
        let (pin, is_mine) = match self.steps.claim(Node::Front, wants).await? {
            Look::Value(found) => {
                self.make_good(&found).await?;
                return Ok(self.bare(store.wants, Status::NotStored));
            }
            Look::Stub { pin, is_mine } => (pin, is_mine),
            Look::Nothing => return Err(Stop::Again),
        };
        if self.steps.look(Node::Overflow, Wants::NOTHING).await?.is_value() {
            if is_mine {
                _ = self.steps.kill_if(Node::Front, pin).await;
            }
            return Ok(self.bare(store.wants, Status::NotStored));
        }
        self.put(pin, store).await
    }

    /// Stores on this version in front, and behind.
    async fn put(&self, pin: Pin, store: Store<'_>) -> Result<Outcome, Stop> {
        let told = self.store(pin, Store { mode: Mode::Set, ..store }).await?;
        Ok(done(self.request, store.wants, Node::Front, &told))
    }

    async fn store(&self, pin: Pin, store: Store<'_>) -> Result<Told, Stop> {
        let place = self.clear().await?;
        let told = self.steps.store_if(Node::Front, pin, store).await?.or_again()?;
        self.copy(place, store).await;
        Ok(told)
    }

    /// Kills the copy behind and leaves a stub as the place for the next one; none if there is no memory for it. What
    /// somebody else puts there meanwhile will do: only one of us can store in front.
    async fn clear(&self) -> Result<Option<Pin>, Stop> {
        self.kill_behind().await?;
        Ok(self.steps.claim(Node::Overflow, Wants::NOTHING).await?.pin())
    }

    async fn kill_behind(&self) -> Result<(), Stop> {
        let was_there = self.steps.kill(Node::Overflow).await?;
        self.was_there.set(self.was_there.get() || was_there);
        self.owes.set(true);
        Ok(())
    }

    /// Before an operation ends that has killed a copy behind, and then found that it may not store anything: what is
    /// in front is put behind again.
    async fn make_good(&self, found: &Found) -> Result<(), Stop> {
        if self.owes.get() {
            self.store(found.pin, again(found, self.now_s)).await?;
        }
        Ok(())
    }

    /// Puts behind what has been stored in front, into the place that was made for it or nowhere, however late it
    /// comes. If it fails the value is stored all the same, and lost once the front evicts it.
    async fn copy(&self, place: Option<Pin>, copy: Store<'_>) {
        self.owes.set(false);
        let copied = match place {
            Some(stub) => self.steps.store_if(Node::Overflow, stub, copy).await,
            None => Ok(Swap::Nothing),
        };
        let is_lost = match copied {
            // Somebody has made a place for something newer.
            Ok(Swap::Done(_) | Swap::Exists) => false,
            // The stub was evicted; or killed by somebody who will write, or make it good.
            Ok(Swap::Nothing) => !matches!(
                self.steps.look(Node::Overflow, Wants::NOTHING).await,
                Ok(Look::Value(_) | Look::Stub { .. })
            ),
            Err(_) => true,
        };
        if is_lost {
            self.steps.nodes.note(Event::SpillLost);
        }
    }

    async fn delete(&self, wants: Wants) -> Result<Outcome, Stop> {
        let seen = self.steps.claim(Node::Front, Wants::NOTHING).await?;
        self.was_there.set(self.was_there.get() || seen.is_value());
        self.kill_behind().await?;
        self.steps.kill_if(Node::Front, seen.claimed()?).await?.or_again()?;
        let status = if self.was_there.get() { Status::Done } else { Status::NotFound };
        Ok(self.bare(wants, status))
    }

    /// Brings the item to the front, or makes sure that there is none.
    async fn settle(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        let stub = match self.steps.claim(Node::Front, wants).await? {
            Look::Value(found) => return Ok(Some(found)),
            look @ (Look::Stub { .. } | Look::Nothing) => look.claimed()?,
        };
        match self.steps.look(Node::Overflow, wants.and(WHOLE)).await? {
            Look::Value(found) => {
                let swap = self.steps.store_if(Node::Front, stub, again(&found, self.now_s)).await?;
                let pin = pin_of(&swap.or_again()?)?;
                Ok(Some(found.at(Node::Front, pin)))
            }
            Look::Stub { .. } | Look::Nothing => {
                self.steps.kill_if(Node::Front, stub).await?.or_again()?;
                Ok(None)
            }
        }
    }

    /// What needs the item that is there, and perhaps a certain version of it.
    async fn change(&self, token: Option<Token>) -> Result<Outcome, Stop> {
        let wants = wants_of(&self.request.op);
        let Some(found) = self.settle(wants.and(WHOLE)).await? else { return self.missing(wants).await };
        match token {
            None => (),
            Some(Token::Front(pin)) if pin == found.pin => (),
            Some(Token::Front(_) | Token::Foreign) => {
                self.make_good(&found).await?;
                return Ok(self.bare(wants, Status::Exists));
            }
        }
        match self.request.op {
            Op::Get(Get { touch, .. }) => {
                let exptime = touch.unwrap_or_default();
                let told = self.store(found.pin, Store { exptime, ..again(&found, self.now_s) }).await?;
                let found = found.stored(pin_of(&told)?).touched(exptime, self.now_s);
                Ok(self.hit(&found, wants))
            }
            Op::Store(store) => match store.mode {
                Mode::Set | Mode::Replace => self.put(found.pin, store).await,
                Mode::Append => self.extend(&found, store, [found.value(), store.value]).await,
                Mode::Prepend => self.extend(&found, store, [store.value, found.value()]).await,
                Mode::Add => Err(Stop::Again),
            },
            Op::Arith(arith) => self.count(&found, arith).await,
            Op::Delete(_) => {
                self.kill_behind().await?;
                self.steps.kill_if(Node::Front, found.pin).await?.or_again()?;
                Ok(self.bare(wants, Status::Done))
            }
            Op::Debug => Err(Stop::Again),
        }
    }

    /// `ms MA` and `ms MP`, of an item that becomes `parts` in a row.
    async fn extend(&self, found: &Found, store: Store<'_>, parts: [&Bytes; 2]) -> Result<Outcome, Stop> {
        let place = self.clear().await?;
        match self.steps.store_if(Node::Front, found.pin, store).await? {
            Swap::Done(told) => {
                let value = Bytes::from(parts.map(Bytes::as_ref).concat());
                self.copy(place, Store { value: &value, ..again(found, self.now_s) }).await;
                Ok(done(self.request, store.wants, Node::Front, &told))
            }
            Swap::Exists => Err(Stop::Again),
            // No room for the longer item, and the old one stays, and is to be behind again; or it has just gone.
            Swap::Nothing => {
                self.store(found.pin, again(found, self.now_s)).await?;
                Ok(self.bare(store.wants, Status::NotStored))
            }
        }
    }

    /// `ma`.
    async fn count(&self, found: &Found, arith: Arith) -> Result<Outcome, Stop> {
        let place = self.clear().await?;
        let same = again(found, self.now_s);
        let told = match self.steps.count_if(Node::Front, found.pin, arith).await {
            // Not a number: it stays, and is to be behind again.
            Err(stop @ Stop::Refused(_)) => {
                self.store(found.pin, same).await?;
                return Err(stop);
            }
            swap => swap?.or_again()?,
        };
        let exptime = arith.touch.unwrap_or(same.exptime);
        self.copy(place, Store { value: &told.reply.value, exptime, ..same }).await;
        Ok(done(self.request, arith.wants, Node::Front, &told))
    }

    /// There is nothing to change.
    async fn missing(&self, wants: Wants) -> Result<Outcome, Stop> {
        if self.was_there.replace(false) {
            // Evicted in front just when its copy behind was dead already; or deleted by somebody else.
            self.steps.nodes.note(Event::SpillLost);
        }
        let status = match self.request.op {
            Op::Get(_) | Op::Debug => Status::Miss,
            Op::Store(
                store @ Store {
                    mode: Mode::Append | Mode::Prepend, vivify: Some(exptime), compare: None, ..
                },
            ) => return self.make(Store { exptime, ..store }).await,
            Op::Store(Store { mode: Mode::Append | Mode::Prepend, .. }) => Status::NotStored,
            Op::Store(Store { mode: Mode::Replace, compare: None, .. }) => Status::NotStored,
            Op::Store(_) | Op::Delete(_) => Status::NotFound,
            Op::Arith(Arith { vivify: Some(exptime), initial, .. }) => {
                return self.make_counter(exptime, initial.unwrap_or(0), wants).await;
            }
            Op::Arith(_) => Status::NotFound,
        };
        Ok(self.bare(wants, status))
    }

    /// Stores what is not there.
    async fn make(&self, store: Store<'_>) -> Result<Outcome, Stop> {
        let outcome = self.add(store).await?;
        if outcome.reply.status == Status::Done { Ok(outcome) } else { Err(Stop::Again) }
    }

    /// `ma N J` of a counter that is not there.
    async fn make_counter(&self, exptime: i32, initial: u64, wants: Wants) -> Result<Outcome, Stop> {
        let digits = Bytes::from(initial.to_string());
        let store = Store { exptime, ..Store::new(Mode::Add, &digits) };
        self.make(store).await?;
        let told =
            Told { reply: Reply::new(Status::Value, Bytes::from_static(b"VA"), digits), link: Link(0) };
        Ok(Outcome { origin: None, ..done(self.request, wants, Node::Front, &told) })
    }

    /// `me`, of the copy that a read would show.
    async fn debug(&self) -> Result<Outcome, Stop> {
        let mut told = self.steps.ask(Node::Front, self.request.op, None).await?;
        if told.reply.status == Status::Miss {
            told = self.steps.ask(Node::Overflow, self.request.op, None).await?;
        }
        Ok(Outcome { reply: told.reply, origin: None })
    }
}

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tests;
