//! Which endpoint a request gets: where any will do by the app's policy, where it belongs to a session by that.
//!
//! ```text
//!  head ── Plan::key ──► Key ──┐
//!                              ├── Chooser::choose ──► the member, or nobody has room
//!  snapshot, bounds, dice ─────┘
//! ```
//!
//! All of it is pure: the snapshot, the time and the dice come in as arguments.

mod chooser;
mod gradient;
mod key;
mod plan;
#[cfg(test)]
mod tests;

pub use chooser::{Ask, Choice, Chooser, Home};
pub use gradient::{Adaptive, Gradient};
pub use key::{Key, Tenants, flow};
pub use plan::{Bounds, Plan, Waits};
