//! Operations that make a new item of the one that is there: counting, appending, replacing, touching.

use bytes::Bytes;

use super::get::Copied;
use super::{Moving, Phase};
use crate::program::found::{Found, Look, WHOLE, done};
use crate::program::steps::{Stop, Swap, pin_of};
use crate::program::{Node, Nodes, Outcome, Pin, Told};
use crate::wire::meta::{Arith, Delete, Get, Mode, Op, Reply, Status, Store, Wants};

/// What became of a change to one version.
pub(super) enum Changed {
    /// Made.
    Done(Outcome),
    /// There is another version.
    Exists,
    /// There is nothing.
    Nothing,
}

impl Changed {
    /// It must be made, or all begins again.
    fn or_again(self) -> Result<Outcome, Stop> {
        match self {
            Self::Done(outcome) => Ok(outcome),
            Self::Exists | Self::Nothing => Err(Stop::Again),
        }
    }
}

/// The version that a change is to be made to.
pub(super) struct Target {
    pub(super) node: Node,
    pub(super) pin: Pin,
    /// What was seen of it, unless it is a stub that stands for an item at the other server.
    pub(super) found: Option<Found>,
}

impl From<Found> for Target {
    fn from(found: Found) -> Self {
        Self { node: found.node, pin: found.pin, found: Some(found) }
    }
}

impl<N: Nodes> Moving<'_, N> {
    pub(super) async fn change(&self) -> Result<Outcome, Stop> {
        if let (Phase::B, Op::Arith(arith)) = (self.at.phase, self.request.op) {
            return self.count_alone(arith).await;
        }
        let Some(target) = self.target().await? else { return self.absent().await };
        // A stub is no item to be changed, and what is at the other server may not outlive the change.
        self.kill_other(target.node).await?;
        self.apply(&target).await?.or_again()
    }

    /// Where only one server is in use a counter needs no second step, as nothing changes a stub into a number.
    async fn count_alone(&self, arith: Arith) -> Result<Outcome, Stop> {
        match self.steps.count(Node::Old, arith).await {
            Ok(Swap::Done(told)) => Ok(done(self.request, arith.wants, Node::Old, &told)),
            Ok(Swap::Exists | Swap::Nothing) => self.absent().await,
            // Not a number: it may be a stub, and is no more when it is looked at.
            Err(Stop::Refused(_)) => match self.steps.look(Node::Old, Wants::NOTHING).await? {
                Look::Value(found) => self.apply(&found.into()).await?.or_again(),
                Look::Stub { .. } | Look::Nothing => self.absent().await,
            },
            Err(stop) => Err(stop),
        }
    }

    async fn target(&self) -> Result<Option<Target>, Stop> {
        let wants = match self.request.op {
            Op::Get(get) => get.wants.and(WHOLE),
            Op::Store(_) | Op::Arith(_) | Op::Delete(_) | Op::Debug => Wants::NOTHING,
        };
        let found = match (self.at.phase, self.request.op) {
            (Phase::B, _) => self.first_of(&[Node::Old], wants).await?,
            (Phase::C, _) => self.first_of(&[Node::Old, Node::New], wants).await?,
            (Phase::E, Op::Store(Store { mode: Mode::Replace, .. })) => return self.settle_place().await,
            (Phase::E, _) => self.settle(wants).await?,
            (Phase::F | Phase::G, _) => self.first_of(&[Node::New], wants).await?,
        };
        Ok(found.map(Target::from))
    }

    /// Sees to it that the item is at new, as a change made at old would be overlooked there.
    async fn settle(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        let stub = match self.steps.claim(Node::New, wants).await? {
            Look::Value(found) => return Ok(Some(found)),
            look @ (Look::Stub { .. } | Look::Nothing) => look.claimed()?,
        };
        match self.steps.look(Node::Old, wants.and(WHOLE)).await? {
            Look::Value(found) => match self.copy_into(stub, &found).await? {
                Copied::There { pin, .. } => Ok(Some(found.at(Node::New, pin))),
                Copied::Bumped(_) | Copied::Stale => Err(Stop::Again),
            },
            Look::Stub { .. } | Look::Nothing => self.unclaim(stub).await.map(|()| None),
        }
    }

    /// As [`Self::settle`], for what needs no old value: whether there is one is enough.
    async fn settle_place(&self) -> Result<Option<Target>, Stop> {
        let pin = match self.steps.claim(Node::New, Wants::NOTHING).await? {
            Look::Value(found) => return Ok(Some(found.into())),
            look @ (Look::Stub { .. } | Look::Nothing) => look.claimed()?,
        };
        match self.steps.look(Node::Old, Wants::NOTHING).await? {
            Look::Value(_) => Ok(Some(Target { node: Node::New, pin, found: None })),
            Look::Stub { .. } | Look::Nothing => self.unclaim(pin).await.map(|()| None),
        }
    }

    /// There is nothing, and that is certain only if nobody has put anything in the stub's place.
    async fn unclaim(&self, stub: Pin) -> Result<(), Stop> {
        match self.steps.kill_if(Node::New, stub).await? {
            Swap::Done(_) | Swap::Nothing => Ok(()),
            Swap::Exists => Err(Stop::Again),
        }
    }

    /// Does what the client asked to this version and no other.
    pub(super) async fn apply(&self, target: &Target) -> Result<Changed, Stop> {
        let Target { node, pin, ref found } = *target;
        let (swap, wants) = match self.request.op {
            Op::Get(Get { touch, wants, .. }) => {
                let (Some(found), Some(exptime)) = (found, touch) else { return Ok(Changed::Nothing) };
                return self.touch(found, exptime, wants).await;
            }
            Op::Store(store) => {
                let mode = match store.mode {
                    // Over a stub a replace would be told that there is nothing.
                    Mode::Set | Mode::Add | Mode::Replace => Mode::Set,
                    mode @ (Mode::Append | Mode::Prepend) => mode,
                };
                (self.steps.store_if(node, pin, Store { mode, ..store }).await?, store.wants)
            }
            Op::Arith(arith) => (self.count_if(node, pin, arith).await?, arith.wants),
            Op::Delete(Delete { wants, .. }) => (self.steps.kill_if(node, pin).await?, wants),
            Op::Debug => return Ok(Changed::Nothing),
        };
        Ok(match swap {
            Swap::Done(told) => Changed::Done(done(self.request, wants, node, &told)),
            Swap::Exists => Changed::Exists,
            Swap::Nothing => Changed::Nothing,
        })
    }

    /// A server calls a stub no number before it has looked at its version.
    async fn count_if(&self, node: Node, pin: Pin, arith: Arith) -> Result<Swap, Stop> {
        match self.steps.count_if(node, pin, arith).await {
            Err(Stop::Refused(reply)) => match self.steps.look(node, Wants::NOTHING).await? {
                Look::Value(Found { pin: now, .. }) if now == pin => Err(Stop::Refused(reply)),
                Look::Value(_) | Look::Stub { .. } | Look::Nothing => Ok(Swap::Exists),
            },
            counted => counted,
        }
    }

    /// The value is stored again: `T` has no `C` of its own, and would make a stub live on.
    async fn touch(&self, found: &Found, exptime: i32, wants: Wants) -> Result<Changed, Stop> {
        let store = Store { flags: found.flags, exptime, ..Store::new(Mode::Set, found.value()) };
        Ok(match self.steps.store_if(found.node, found.pin, store).await? {
            Swap::Done(told) => {
                let touched = found.stored(pin_of(&told)?).touched(exptime, self.at.now_s);
                Changed::Done(touched.hit(self.request, wants))
            }
            Swap::Exists => Changed::Exists,
            Swap::Nothing => Changed::Nothing,
        })
    }

    /// There is nothing to change: unless the client asked for something to begin with, that is the answer.
    async fn absent(&self) -> Result<Outcome, Stop> {
        match self.request.op {
            Op::Store(Store { vivify: Some(exptime), mode: Mode::Append | Mode::Prepend, .. })
            | Op::Arith(Arith { vivify: Some(exptime), .. }) => self.begin(exptime).await,
            Op::Get(_) | Op::Debug => Ok(self.told(Status::Miss)),
            Op::Store(_) => Ok(self.told(Status::NotStored)),
            Op::Arith(_) | Op::Delete(_) => Ok(self.told(Status::NotFound)),
        }
    }

    async fn begin(&self, exptime: i32) -> Result<Outcome, Stop> {
        match self.request.op {
            Op::Store(store) => {
                let (node, told) = self.add_to(Store { exptime, ..store }).await?.ok_or(Stop::Again)?;
                Ok(done(self.request, store.wants, node, &told))
            }
            Op::Arith(arith) => {
                let digits = Bytes::from(arith.initial.unwrap_or(0).to_string());
                let exptime = arith.touch.unwrap_or(exptime);
                let store = Store { exptime, ..Store::new(Mode::Add, &digits) };
                let (node, Told { reply, link }) = self.add_to(store).await?.ok_or(Stop::Again)?;
                let cas = reply.flag(b'c').unwrap_or(b"0");
                let line = [&b"VA 0 c"[..], cas].concat();
                let told = Told { reply: Reply::new(Status::Value, line.into(), digits), link };
                Ok(done(self.request, arith.wants, node, &told))
            }
            Op::Get(_) | Op::Delete(_) | Op::Debug => Err(Stop::Again),
        }
    }
}
