//! What is done to keys that no client asked for.

use super::get::Copied;
use super::{At, Moving, Phase};
use crate::error::Failure;
use crate::program::found::{Found, Look, WHOLE};
use crate::program::steps::{Steps, Stop, Swap};
use crate::program::{Node, Nodes, Pin};
use crate::wire::meta::{Op, Request, Wants};

/// A key, for the mover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// Its true bytes.
    pub bytes: &'a [u8],
    /// It travels in base64.
    pub is_coded: bool,
}

/// What the mover's step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Moved {
    /// It is at the new server now, and no longer at the old one.
    Copied,
    /// It was there already; what was left at the old server is deleted.
    Cleared,
    /// There is nothing to move.
    Nothing,
    /// Somebody else is at it: come back later.
    Busy,
    /// A server refuses it, such as a new one that takes only smaller values.
    Refused,
}

/// The mover's step for one key: copies it and deletes it where it was. Only in E, and when no sidecar is in C.
///
/// # Errors
///
/// Why it could not be finished. It may be tried again at any time.
pub async fn copy<N: Nodes>(nodes: &N, now_s: u64, key: Key<'_>) -> Result<Moved, Failure> {
    let request = Request { key: key.bytes, is_coded: key.is_coded, op: Op::Debug };
    #[cfg(any(test, feature = "mutants"))]
    let nodes = &crate::program::mutants::Mutated::new(nodes, Phase::E, &request);
    let at = At { phase: Phase::E, now_s };
    let moving = Moving { steps: Steps::of(nodes, &request), at, request: &request };
    match moving.copy().await {
        Ok(moved) => Ok(moved),
        Err(Stop::Again) => Ok(Moved::Busy),
        Err(Stop::Refused(_)) => Ok(Moved::Refused),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// Deletes one key at the new server, where it was left by an earlier change. Only before C.
///
/// # Errors
///
/// Why that is not certain.
pub async fn purge<N: Nodes>(nodes: &N, key: Key<'_>) -> Result<(), Failure> {
    let request = Request { key: key.bytes, is_coded: key.is_coded, op: Op::Debug };
    match Steps::of(nodes, &request).kill(Node::New).await {
        Ok(_) => Ok(()),
        Err(Stop::Failed(failure)) => Err(failure),
        // A server that refuses to delete has not deleted.
        Err(Stop::Again | Stop::Refused(_)) => Err(Failure::Nonsense),
    }
}

impl<N: Nodes> Moving<'_, N> {
    async fn copy(&self) -> Result<Moved, Stop> {
        let stub = match self.steps.claim(Node::New, Wants::NOTHING).await? {
            Look::Stub { pin, is_mine: true } => pin,
            Look::Stub { is_mine: false, .. } | Look::Nothing => return Ok(Moved::Busy),
            // Only what is seen now may be deleted: a later version may be at old alone.
            Look::Value(_) => {
                return match self.steps.look(Node::Old, Wants::NOTHING).await? {
                    Look::Value(Found { pin, .. }) => self.clear(pin, Moved::Cleared).await,
                    Look::Stub { .. } | Look::Nothing => Ok(Moved::Nothing),
                };
            }
        };
        match self.steps.look(Node::Old, WHOLE).await? {
            Look::Value(found) => match self.copy_into(stub, &found).await? {
                Copied::There { bumped, .. } => self.clear(bumped, Moved::Copied).await,
                Copied::Bumped(_) | Copied::Stale => Ok(Moved::Busy),
            },
            Look::Stub { .. } | Look::Nothing => {
                // Gone or not, it is no longer waited for.
                _ = self.steps.kill_if(Node::New, stub).await?;
                Ok(Moved::Nothing)
            }
        }
    }

    async fn clear(&self, pin: Pin, moved: Moved) -> Result<Moved, Stop> {
        Ok(match self.steps.kill_if(Node::Old, pin).await? {
            Swap::Done(_) | Swap::Nothing => moved,
            // Another copy was begun, which bumped it.
            Swap::Exists => Moved::Busy,
        })
    }
}
