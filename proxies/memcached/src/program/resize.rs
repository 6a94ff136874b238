//! One operation on a key that moves from an old server to a new one.
//!
//! | phase | home | reads | |
//! |---|---|---|---|
//! | [`Phase::B`] | old | old | knows stubs; may stand beside the time before and C |
//! | [`Phase::C`] | old | both | writes go to old and kill new |
//! | [`Phase::E`] | new | both | writes go to new and kill old; reads and the mover copy |
//! | [`Phase::F`] | new | new | writes still kill old; lasts longer than a stub lives |
//! | [`Phase::G`] | new | new | the old server is not asked at all: it is gone, and everyone was in F |
//!
//! Before B and after F (or G) requests are plain. Neighbours may be in use at once on different sidecars,
//! never others. Before C the moved keys are purged at the new server. The mover runs in E once nobody is in
//! C. Going back from E to C is sound; an old server that dies in B or C is got rid of by going on to E, F, G.
//!
//! What makes it sound, in all phases with two servers:
//!
//! - *A write kills the other copy before it stores its own*, and stores it only over the version that it saw
//!   before the killing. So nobody can have put anything between, and there are never two values of which
//!   the older could be read once the newer is evicted.
//! - *A copy is bumped where it comes from before it is put where it goes*: whoever saw the old version and
//!   would still delete or change it comes too late, notices, and begins again. Otherwise a copy could bring
//!   back what was overwritten while it was under way.
//! - *A fill goes only into the stub that it made itself*, and a delete takes the stub away. A plain `add`
//!   would bring back what was deleted meanwhile.
//! - *A CAS value is used on the connection that told it*: a restarted server counts from the beginning.
//!
//! Clients' own `N`, `R`, `I` and `x` cannot be had on a key that moves: they would look like our stubs. A
//! retrieval with them is a plain one, a delete with them deletes.

mod change;
mod copy;
mod get;
mod token;
mod write;

use super::found::{bare, wants_of};
use super::steps::{Steps, Stop, attempts};
use super::{Event, Node, Nodes, Outcome, Pin};
use crate::error::Failure;
use crate::wire::meta::{Get, Mode, Op, Request, Status, Store, Wants};

pub use copy::{Key, Moved, copy, purge};

/// How far the move of a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Old only, stubs hidden.
    B,
    /// Home is old.
    C,
    /// Home is new.
    E,
    /// New only; writes delete at old.
    F,
    /// New only, stubs hidden.
    G,
}

/// When and how a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At {
    /// The phase it begins in, and ends in whatever happens meanwhile.
    pub phase: Phase,
    /// The Unix time in seconds.
    pub now_s: u64,
}

/// A client's CAS token, by whose it is. The epoch in it has been checked and taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// Of the old server as it runs now.
    Old(Pin),
    /// Of the new server as it runs now.
    New(Pin),
    /// Of another server, or of one that has been restarted.
    Foreign,
}

/// Carries out what a client asked. `token` stands for the client's CAS token, whatever `compare` in the
/// request says; a request without one has none.
///
/// # Errors
///
/// Why nothing can be told. Nothing was acknowledged; it may have been done all the same, now or a little later.
/// [`Failure::Contended`]: others changed the key each time.
pub async fn run<N: Nodes>(
    nodes: &N,
    at: At,
    request: &Request<'_>,
    token: Option<Token>,
) -> Result<Outcome, Failure> {
    #[cfg(any(test, feature = "mutants"))]
    let nodes = &super::mutants::Mutated::new(nodes, at.phase, request);
    #[cfg(any(test, feature = "mutants"))]
    let (at, token) = (nodes.at(at), nodes.token(token));
    let moving = Moving { steps: Steps::of(nodes, request), at, request };
    attempts(|| async {
        let done = moving.operation(token).await;
        if matches!(done, Err(Stop::Again)) {
            nodes.note(Event::Again);
        }
        done
    })
    .await
}

/// An operation on a key that moves.
struct Moving<'a, N> {
    steps: Steps<'a, N>,
    at: At,
    request: &'a Request<'a>,
}

impl<N: Nodes> Moving<'_, N> {
    async fn operation(&self, token: Option<Token>) -> Result<Outcome, Stop> {
        match (self.request.op, token) {
            (Op::Get(Get { wants, touch: None, .. }), _) => self.get(wants).await,
            (Op::Get(Get { touch: Some(_), .. }) | Op::Arith(_), None) => self.change().await,
            // An add is for what is not there, whatever its token says.
            (Op::Store(store @ Store { mode: Mode::Add, .. }), _) => self.add(store).await,
            (Op::Store(store @ Store { mode: Mode::Set, .. }), None) => self.set(store).await,
            (Op::Store(_), None) => self.change().await,
            (Op::Delete(delete), None) => self.delete(delete.wants).await,
            (Op::Get(Get { touch: Some(_), .. }), Some(_)) => self.change().await,
            (Op::Store(_) | Op::Arith(_) | Op::Delete(_), Some(token)) => self.compare(token).await,
            (Op::Debug, _) => self.debug().await,
        }
    }

    /// The two servers in the order in which they are asked in this phase: home first.
    fn home_and_other(&self) -> (Node, Node) {
        match self.at.phase {
            Phase::B | Phase::C => (Node::Old, Node::New),
            Phase::E | Phase::F | Phase::G => (Node::New, Node::Old),
        }
    }

    /// Makes sure of it that nothing is at the other server, before something is stored at `home`.
    async fn kill_other(&self, home: Node) -> Result<bool, Stop> {
        let other = if home == Node::New { Node::Old } else { Node::New };
        match self.at.phase {
            Phase::C | Phase::E | Phase::F => self.steps.kill(other).await,
            // The other server is not in use.
            Phase::B | Phase::G => Ok(false),
        }
    }

    /// A reply of nothing but how it went, and what the client wants with that.
    fn told(&self, status: Status) -> Outcome {
        self.bare(wants_of(&self.request.op), status)
    }

    fn bare(&self, wants: Wants, status: Status) -> Outcome {
        bare(self.request, wants, status)
    }
}
