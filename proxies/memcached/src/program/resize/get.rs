//! Reading a key that moves.

use super::{Moving, Phase};
use crate::program::found::{Found, Look, WHOLE};
use crate::program::steps::{Stop, Swap, again, pin_of};
use crate::program::{Event, Node, Nodes, Outcome, Pin};
use crate::wire::meta::{Status, Wants};

/// What became of a copy.
pub(super) enum Copied {
    /// It is at both servers.
    There {
        /// In this version at the new one,
        pin: Pin,
        /// and in this one at the old one.
        bumped: Pin,
    },
    /// It is not, as somebody was quicker; at the old server it has this version now.
    Bumped(Pin),
    /// It is not, as it was changed at the old server.
    Stale,
}

impl<N: Nodes> Moving<'_, N> {
    pub(super) async fn get(&self, wants: Wants) -> Result<Outcome, Stop> {
        let found = match self.at.phase {
            Phase::B => self.first_of(&[Node::Old], wants).await?,
            // What was missed at old may have gone to new and come back: only the second look at the home
            // makes a miss likely. A miss is never wrong, in a cache.
            Phase::C => self.first_of(&[Node::Old, Node::New, Node::Old], wants).await?,
            Phase::E => self.get_and_copy(wants).await?,
            Phase::F | Phase::G => self.first_of(&[Node::New], wants).await?,
        };
        Ok(found.map_or_else(|| self.bare(wants, Status::Miss), |found| found.hit(self.request, wants)))
    }

    pub(super) async fn first_of(&self, nodes: &[Node], wants: Wants) -> Result<Option<Found>, Stop> {
        for node in nodes {
            if let Look::Value(found) = self.steps.look(*node, wants).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Reads at new; what is only at old is copied by the one reader whose stub it is.
    async fn get_and_copy(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        let stub = match self.steps.claim(Node::New, wants).await? {
            Look::Value(found) => return Ok(Some(found)),
            Look::Stub { pin, is_mine: true } => pin,
            // Somebody else copies, or writes.
            Look::Stub { is_mine: false, .. } | Look::Nothing => return self.old_then_new(wants).await,
        };
        match self.steps.look(Node::Old, wants.and(WHOLE)).await? {
            Look::Value(found) => {
                // It has been read, and that is what was asked: a copy that fails does no harm.
                let copied = self.copy_into(stub, &found).await.unwrap_or(Copied::Stale);
                Ok(Some(match copied {
                    Copied::There { pin, .. } => found.at(Node::New, pin),
                    Copied::Bumped(pin) => found.at(Node::Old, pin),
                    Copied::Stale => found,
                }))
            }
            Look::Stub { .. } | Look::Nothing => match self.steps.kill_if(Node::New, stub).await? {
                Swap::Done(_) => Ok(None),
                // A writer has taken the stub, or it was evicted.
                Swap::Exists | Swap::Nothing => self.old_then_new(wants).await,
            },
        }
    }

    async fn old_then_new(&self, wants: Wants) -> Result<Option<Found>, Stop> {
        self.first_of(&[Node::Old, Node::New], wants).await
    }

    /// Puts what was found at old, whole, in the place of a stub at new.
    pub(super) async fn copy_into(&self, stub: Pin, found: &Found) -> Result<Copied, Stop> {
        // From here on whoever saw the same version at old cannot kill or change it by comparing: with its
        // token a client could otherwise succeed there after a writer had succeeded here.
        let bumped = self.steps.bump(Node::Old, found.pin).await;
        let Ok(Some(bumped)) = bumped else {
            // Others need not wait for a copy that does not come. Should this fail too, the stub runs out.
            _ = self.steps.kill_if(Node::New, stub).await;
            return bumped.map(|_| Copied::Stale);
        };
        match self.steps.store_if(Node::New, stub, again(found, self.at.now_s)).await? {
            Swap::Done(told) => {
                self.steps.nodes.note(Event::Copied);
                Ok(Copied::There { pin: pin_of(&told)?, bumped })
            }
            Swap::Exists | Swap::Nothing => Ok(Copied::Bumped(bumped)),
        }
    }

    /// `me`, of the copy that a read would show.
    pub(super) async fn debug(&self) -> Result<Outcome, Stop> {
        let (home, other) = self.home_and_other();
        let told = self.steps.ask(home, self.request.op, None).await?;
        if told.reply.status != Status::Miss || self.at.phase == Phase::B || self.at.phase >= Phase::F {
            return Ok(Outcome { reply: told.reply, origin: None });
        }
        let reply = self.steps.ask(other, self.request.op, None).await?.reply;
        Ok(Outcome { reply, origin: None })
    }
}
