//! Tenants: who a client is, what it may use, and keys, statistics and a `flush_all` of its own.
//!
//! | file | what |
//! |---|---|
//! | `config.rs` | tenants, as written |
//! | `key.rs` | a client's key as the servers see it: nobody's meets another's |
//! | `directory.rs` | which tenant a connection belongs to |
//! | `guest.rs` | what a session does with its tenant |
//! | `reception.rs` | a connection's way to its tenant |
//! | `login/` | clients that have to say who they are first: the words of both protocols |
//! | `vault.rs`, `password.rs` | whose a password is |
//! | `guesses.rs` | what wrong ones cost |
//! | `limits.rs` | how fast a tenant may ask |
//! | `fair.rs` | how tenants share a worker |
//! | `generations.rs` | `flush_all`, agreed between sidecars |
//! | `counters.rs` | what is counted |
//!
//! `key`, `guesses`, `limits` and `fair` know no socket and no clock.

pub mod config;
pub mod counters;
pub mod directory;
pub mod fair;
pub mod generations;
pub mod guesses;
pub mod guest;
pub mod key;
pub mod limits;
pub mod login;
pub mod password;
pub mod reception;
pub mod vault;
