//! Which of a database's servers is the primary, and what follows from it.
//!
//! ```text
//!  watch (one a server) ─ sightings ─► Arbiter (pure) ─ verdict ─► View, swapped whole
//!        ▲                                                          │        │
//!        └── nudged: ask at once ◄── a dial or lease found otherwise┘        ▼
//!                                               dials pick by it, pools judge their connections by it
//! ```
//!
//! Nobody is held back by a gate: who wants a role that no server has at this moment waits where it would dial, in
//! turn and until its deadline, and goes on with the verdict that names one.

mod arbiter;
mod ask;
mod cluster;
mod monitor;
mod news;
mod positions;
mod seen;
#[cfg(test)]
mod tests;
mod tie;
mod view;

pub use arbiter::Lag;
pub use cluster::Roles;
pub use tie::Tie;
pub use view::{Standing, Wish};
