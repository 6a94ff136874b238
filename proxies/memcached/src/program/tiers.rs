//! One operation on a key that lives in two tiers: a front server that evicts, an overflow server behind it.
//!
//! What is read and not in front is looked for behind and copied to the front. What is written goes to the
//! front, once the copy behind is dead: the version in front is seen first (an empty stub if there is none), then
//! the other copy is killed, then the value is stored on that version. So an older copy behind never outlives a
//! newer one in front, whatever is evicted and whoever else is at it. Writing through ([`Spill::Write`]) then puts
//! the new value behind as well, before the client is answered: stock memcached tells nobody what it evicts.
//!
//! | | front | overflow | then |
//! |---|---|---|---|
//! | get | `mg N30`: value | | |
//! | | stub of mine | `mg` | `ms C` in front; nothing: `md C` in front, and look once more |
//! | | stub of others | `mg` | look in front once more |
//! | set | `mg N30` | `md` | `ms C` in front |
//! | delete | `mg N30` | `md` | `md C` in front |
//! | change | as get, and no value is a miss | `md` | `ms C` or `ma C` in front |
//! | spill | version | `mg N30`: my stub | bump in front, `ms C` behind |
//!
//! A failed comparison begins the operation again. Clients' own stubs and stale marks (`N`, `R`, `I`) have no
//! meaning here, as they would be mistaken for those of the tiers: `N` and `R` of a retrieval are left out, and
//! what is to be marked stale is deleted.

use std::cell::Cell;

use bytes::Bytes;

use super::found::{Found, Look, WHOLE, bare, done, wants_of};
use super::steps::{Steps, Stop, Swap, again, attempts, pin_of};
use super::{Event, Node, Nodes, Outcome, Pin, Told};
use crate::error::Failure;
use crate::wire::meta::{Arith, Get, Mode, Op, Reply, Request, Status, Store, Wants};
use crate::wire::number;

/// When what is written comes to be behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spill {
    /// At once.
    Write,
    /// Never by this operation.
    Later,
}

/// When and how a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// What becomes of written values.
    pub spill: Spill,
    /// The Unix time in seconds.
    pub now_s: u64,
}

/// A client's CAS token, by whose it is. The epoch in it has been checked and taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Of the front server as it runs now.
    Front(Pin),
    /// Of another server, or of one that has been restarted.
    Foreign,
}

/// Carries out what a client asked. `token` stands for the client's CAS token, whatever `compare` in the request
/// says; a request without one has none.
///
/// # Errors
///
/// Why nothing can be told. Nothing was acknowledged; it may have been done all the same, now or a little later.
pub async fn run<N: Nodes>(
    nodes: &N,
    at: At,
    request: &Request<'_>,
    token: Option<Token>,
) -> Result<Outcome, Failure> {
    let tiered = Tiered { steps: Steps::of(nodes, request), at, request, was_there: Cell::new(false) };
    attempts(|| tiered.operation(token)).await
}

/// An operation on a key in two tiers.
struct Tiered<'a, N> {
    steps: Steps<'a, N>,
    at: At,
    request: &'a Request<'a>,
    /// A delete that begins again has deleted something before.
    was_there: Cell<bool>,
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
            Some(found) => match self.steps.store_if(Node::Front, stub, again(&found, self.at.now_s)).await {
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
        self.steps.kill(Node::Overflow).await?;
        self.put(pin, store).await
    }

    async fn add(&self, store: Store<'_>) -> Result<Outcome, Stop> {
        let (pin, is_mine) = match self.steps.claim(Node::Front, Wants::NOTHING).await? {
            Look::Value(_) => return Ok(self.bare(store.wants, Status::NotStored)),
            Look::Stub { pin, is_mine } => (pin, is_mine),
            Look::Nothing => return Err(Stop::Again),
        };
        if self.steps.look(Node::Overflow, Wants::NOTHING).await?.is_value() {
            if is_mine {
                _ = self.steps.kill_if(Node::Front, pin).await;
            }
            return Ok(self.bare(store.wants, Status::NotStored));
        }
        self.steps.kill(Node::Overflow).await?;
        self.put(pin, Store { mode: Mode::Set, ..store }).await
    }

    /// Stores on this version in front, and behind.
    async fn put(&self, pin: Pin, store: Store<'_>) -> Result<Outcome, Stop> {
        let told = self.steps.store_if(Node::Front, pin, store).await?.or_again()?;
        let stored = pin_of(&told)?;
        let copy = Store { mode: Mode::Set, compare: None, invalidate: false, vivify: None, ..store };
        let told = match self.spill(stored, copy).await {
            Some(bumped) => Told { reply: with_cas(bumped.cas), link: bumped.link },
            None => told,
        };
        Ok(done(self.request, store.wants, Node::Front, &told))
    }

    /// Puts a copy behind what has this version in front. It has a new version then. What fails leaves no copy: the
    /// older one has been killed before, and this one goes into the stub that was left for it or nowhere, however
    /// late it comes. So the value is stored all the same, and lost once the front evicts it, which is counted.
    async fn spill(&self, pin: Pin, copy: Store<'_>) -> Option<Pin> {
        if self.at.spill == Spill::Later {
            return None;
        }
        let lost = || self.steps.nodes.note(Event::SpillLost);
        let stub = match self.steps.claim(Node::Overflow, Wants::NOTHING).await {
            Ok(Look::Stub { pin: stub, is_mine: true }) => stub,
            // Somebody else has stored something newer.
            Ok(Look::Value(_)) => return None,
            Ok(Look::Stub { is_mine: false, .. } | Look::Nothing) | Err(_) => {
                lost();
                return None;
            }
        };
        // Whoever has seen the old version begins again, and kills this copy first.
        let bumped = self.steps.bump(Node::Front, pin).await;
        let copied = match &bumped {
            Ok(Some(_)) => self.steps.store_if(Node::Overflow, stub, copy).await.map(drop),
            // There is something newer in front.
            Ok(None) => {
                _ = self.steps.kill_if(Node::Overflow, stub).await;
                Ok(())
            }
            Err(_) => self.steps.kill_if(Node::Overflow, stub).await.and(Err(Stop::Again)),
        };
        if copied.is_err() {
            lost();
        }
        bumped.ok().flatten()
    }

    /// Puts behind what is in front, as it is now.
    async fn spill_again(&self) {
        if let Ok(Look::Value(found)) = self.steps.look(Node::Front, WHOLE).await {
            self.spill(found.pin, again(&found, self.at.now_s)).await;
        }
    }

    async fn delete(&self, wants: Wants) -> Result<Outcome, Stop> {
        let seen = self.steps.claim(Node::Front, Wants::NOTHING).await?;
        let was_behind = self.steps.kill(Node::Overflow).await?;
        self.was_there.set(self.was_there.get() || was_behind || seen.is_value());
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
                let swap = self.steps.store_if(Node::Front, stub, again(&found, self.at.now_s)).await?;
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
            // Nothing has been touched: the item stays where it is.
            Some(Token::Front(_) | Token::Foreign) => return Ok(self.bare(wants, Status::Exists)),
        }
        if let Op::Arith(arith) = self.request.op
            && number::unsigned(found.value()).is_none()
        {
            // The server's own words; this version cannot be counted on.
            self.steps.count_if(Node::Front, found.pin, arith).await?;
            return Err(Stop::Again);
        }
        self.steps.kill(Node::Overflow).await?;
        self.apply(found, wants).await
    }

    /// Does it to this version in front, now that there is no other copy.
    async fn apply(&self, found: Found, wants: Wants) -> Result<Outcome, Stop> {
        let pin = found.pin;
        let outcome = match self.request.op {
            Op::Get(Get { touch, .. }) => {
                let exptime = touch.unwrap_or_default();
                let same = Store { exptime, ..again(&found, self.at.now_s) };
                let told = self.steps.store_if(Node::Front, pin, same).await?.or_again()?;
                let found = found.stored(pin_of(&told)?).touched(exptime, self.at.now_s);
                self.hit(&found, wants)
            }
            Op::Store(store) => match store.mode {
                Mode::Set | Mode::Replace => {
                    return self.put(pin, Store { mode: Mode::Set, ..store }).await;
                }
                Mode::Append | Mode::Prepend => {
                    match self.steps.store_if(Node::Front, pin, store).await? {
                        Swap::Done(told) => done(self.request, wants, Node::Front, &told),
                        Swap::Exists => return Err(Stop::Again),
                        // No room for the longer item; the old one stays.
                        Swap::Nothing => self.bare(wants, Status::NotStored),
                    }
                }
                Mode::Add => return Err(Stop::Again),
            },
            Op::Arith(arith) => {
                let told = self.steps.count_if(Node::Front, pin, arith).await?.or_again()?;
                done(self.request, wants, Node::Front, &told)
            }
            Op::Delete(_) => {
                self.steps.kill_if(Node::Front, pin).await?.or_again()?;
                return Ok(self.bare(wants, Status::Done));
            }
            Op::Debug => return Err(Stop::Again),
        };
        if self.at.spill == Spill::Write {
            self.spill_again().await;
            // Its version is another one now, which was not told.
            return Ok(Outcome { origin: None, ..outcome });
        }
        Ok(outcome)
    }

    /// There is nothing to change.
    async fn missing(&self, wants: Wants) -> Result<Outcome, Stop> {
        let status = match self.request.op {
            Op::Get(_) | Op::Debug => Status::Miss,
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

    /// `ma N J` of a counter that is not there.
    async fn make_counter(&self, exptime: i32, initial: u64, wants: Wants) -> Result<Outcome, Stop> {
        let digits = Bytes::from(initial.to_string());
        let store = Store { exptime, ..Store::new(Mode::Add, &digits) };
        if self.add(store).await?.reply.status != Status::Done {
            return Err(Stop::Again);
        }
        let told = Told {
            reply: Reply::new(Status::Value, Bytes::from_static(b"VA"), digits),
            link: super::Link(0),
        };
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

fn with_cas(cas: u64) -> Reply {
    Reply::new(Status::Done, Bytes::from(format!("HD c{cas}")), Bytes::new())
}

#[cfg(test)]
#[path = "tiers_tests.rs"]
mod tests;
