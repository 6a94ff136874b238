//! Live migration: a database moves to another server while its clients go on, and back if need be.
//!
//! ```text
//! groove-postgres migrate …                                     the running proxy
//!   verb ─► policy::phase::next ─► start ─► cutover ─► clear       api ─► keeper ─► gates, routes, pools
//!             │                      │         │ └── proxies ──────►        │
//!             │                      └─────────┴── node (SQL) ─► servers    │ the holder is not heard of again
//!             └──────── files: journal, routes ◄────── recover ◄────────────┘
//! ```
//!
//! The command does the work and may be killed at any moment; the proxy keeps the gate, which is on a lease, and where
//! databases have moved to. `recover` is called by either. docs/migration.md says what is guaranteed and why.

mod api;
mod clear;
mod cutover;
mod fault;
mod files;
mod keeper;
mod node;
mod plan;
mod policy;
mod proxies;
mod recover;
mod start;
mod status;
mod tools;
mod verb;
mod work;

use std::fmt::Display;
use std::io::{self, Write};

pub(crate) use api::routes;
pub use keeper::Keeper;
pub use verb::Migrate;

/// A line of what was asked for.
fn print(line: impl Display) {
    // `| head`: the reader has what it wanted.
    writeln!(io::stdout(), "{line}").unwrap_or_default();
}
