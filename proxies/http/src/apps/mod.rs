//! Which apps there are. One may change while tens of thousands do not: what a change costs is that app's alone.
//!
//! ```text
//!  file, admin API ──► Roster (names, under a lock) ──► Directory (hosts, swapped in small parts) ──► Seats
//!                      one change at a time             read by every worker, without a lock          a worker's own
//! ```

mod directory;
mod roster;
mod seats;

pub use directory::{Directory, Found};
pub use roster::{Change, Roster};
pub use seats::{Seat, Seats};
