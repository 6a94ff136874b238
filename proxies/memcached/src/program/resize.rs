//! One operation on a key that moves from an old server to a new one.
//!
//! The phases (A and H, before and after, need no program):
//!
//! | phase | home | reads | |
//! |---|---|---|---|
//! | [`Phase::B`] | old | old | knows stubs; may stand beside A and C |
//! | [`Phase::C`] | old | both | writes go to old and kill new |
//! | [`Phase::E`] | new | both | writes go to new and kill old; reads and the mover copy |
//! | [`Phase::F`] | new | new | writes still kill old; lasts longer than a stub lives |
//! | [`Phase::G`] | new | new | the old server is not asked at all: it is gone, and everyone was in F |
//!
//! Neighbours may be in use at once on different sidecars, never others. Before C the moved keys are purged at
//! the new server. The mover runs in E once nobody is in C. Back from E to C is sound; C needs both servers,
//! so an old server that died in B or C is got rid of by going on to E, F, G.

use super::Pin;
use super::{Nodes, Outcome};
use crate::error::Failure;
use crate::wire::meta::Request;

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
    _ = (nodes, at, request, token);
    Err(Failure::NoServer)
}

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
}

/// The mover's step for one key: copies it and deletes it where it was. Only in E, and when no sidecar is in C.
///
/// # Errors
///
/// Why it could not be finished. It may be tried again at any time.
pub async fn copy<N: Nodes>(nodes: &N, now_s: u64, key: Key<'_>) -> Result<Moved, Failure> {
    _ = (nodes, now_s, key);
    Err(Failure::NoServer)
}

/// Deletes one key at the new server, where it was left by an earlier change. Only before C.
///
/// # Errors
///
/// Why that is not certain.
pub async fn purge<N: Nodes>(nodes: &N, key: Key<'_>) -> Result<(), Failure> {
    _ = (nodes, key);
    Err(Failure::NoServer)
}
