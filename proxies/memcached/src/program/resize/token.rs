//! Operations with a client's CAS token: they are done to the version that the client saw, or not at all.

use super::change::{Changed, Target};
use super::get::Copied;
use super::{Moving, Phase, Token};
use crate::program::found::{Found, Look, WHOLE};
use crate::program::steps::{Stop, Swap};
use crate::program::{Node, Nodes, Outcome, Pin};
use crate::wire::meta::{Delete, Mode, Op, Status, Store, Wants};

impl<N: Nodes> Moving<'_, N> {
    pub(super) async fn compare(&self, token: Token) -> Result<Outcome, Stop> {
        let (node, pin) = match token {
            Token::Old(pin) => (Node::Old, pin),
            Token::New(pin) => (Node::New, pin),
            Token::Foreign => return self.mismatch().await,
        };
        match (self.at.phase, node) {
            (Phase::B, Node::Old) | (Phase::C, _) | (Phase::E | Phase::F | Phase::G, Node::New) => {
                // If the token is out of date this may kill the live copy: lost, but never stale.
                self.kill_other(node).await?;
                self.finish(Target { node, pin, found: None }).await
            }
            (Phase::E, Node::Old) => self.compare_at_old(pin).await,
            (_, _) => self.mismatch().await,
        }
    }

    async fn finish(&self, target: Target) -> Result<Outcome, Stop> {
        Ok(match self.apply(&target).await? {
            Changed::Done(outcome) => outcome,
            Changed::Exists => self.told(Status::Exists),
            Changed::Nothing => self.told(Status::NotFound),
        })
    }

    /// The client saw the item at old, and the change belongs to new.
    async fn compare_at_old(&self, token: Pin) -> Result<Outcome, Stop> {
        let stub = match self.steps.claim(Node::New, Wants::NOTHING).await? {
            Look::Value(_) => return Ok(self.told(Status::Exists)),
            look @ (Look::Stub { .. } | Look::Nothing) => look.claimed()?,
        };
        let outcome = match self.request.op {
            Op::Store(Store { mode: Mode::Set | Mode::Add | Mode::Replace, .. }) | Op::Delete(_) => {
                self.compare_whole(token, stub).await
            }
            Op::Store(Store { mode: Mode::Append | Mode::Prepend, .. }) | Op::Arith(_) => {
                self.compare_part(token, stub).await
            }
            Op::Get(_) | Op::Debug => self.mismatch().await,
        }?;
        if matches!(outcome.reply.status, Status::Exists | Status::NotFound) {
            // Readers need not wait for this stub. If it cannot be told, it runs out.
            _ = self.steps.kill_if(Node::New, stub).await;
        }
        if outcome.reply.status == Status::NotFound {
            // Gone from old it may be at new by now, moved by somebody else.
            return self.mismatch().await;
        }
        Ok(outcome)
    }

    /// The comparison is made by deleting at old; from then on the stub holds the place.
    async fn compare_whole(&self, token: Pin, stub: Pin) -> Result<Outcome, Stop> {
        match self.steps.kill_if(Node::Old, token).await? {
            Swap::Done(_) => (),
            Swap::Exists => return Ok(self.told(Status::Exists)),
            Swap::Nothing => return Ok(self.told(Status::NotFound)),
        }
        if let Op::Delete(Delete { wants, .. }) = self.request.op {
            return Ok(match self.steps.kill_if(Node::New, stub).await? {
                Swap::Done(_) | Swap::Nothing => self.bare(wants, Status::Done),
                // The client saw what a copy had bumped, and the copy has come: nothing is deleted.
                Swap::Exists => self.told(Status::Exists),
            });
        }
        match self.apply(&Target { node: Node::New, pin: stub, found: None }).await? {
            Changed::Done(outcome) => Ok(outcome),
            // Somebody has written since.
            Changed::Exists | Changed::Nothing => Ok(self.told(Status::Exists)),
        }
    }

    /// The comparison is made by the copy's bump; what is at new afterwards is what the client saw.
    async fn compare_part(&self, token: Pin, stub: Pin) -> Result<Outcome, Stop> {
        let seen = match self.steps.look(Node::Old, WHOLE).await? {
            Look::Value(found @ Found { pin, .. }) if pin == token => found,
            Look::Value(_) => return Ok(self.told(Status::Exists)),
            Look::Stub { .. } | Look::Nothing => return Ok(self.told(Status::NotFound)),
        };
        let Copied::There { pin, .. } = self.copy_into(stub, &seen).await? else {
            return Ok(self.told(Status::Exists));
        };
        self.kill_other(Node::New).await?;
        match self.apply(&seen.at(Node::New, pin).into()).await? {
            Changed::Done(outcome) => Ok(outcome),
            Changed::Exists | Changed::Nothing => Ok(self.told(Status::Exists)),
        }
    }

    /// No server's version is the one that the client saw. It is told whether there is another.
    async fn mismatch(&self) -> Result<Outcome, Stop> {
        let there = self.get(Wants::NOTHING).await?;
        Ok(self.told(match there.reply.status == Status::Miss {
            true => Status::NotFound,
            false => Status::Exists,
        }))
    }
}
