//! Which apps there are. One may change while tens of thousands do not: what a change costs is that app's alone.
//!
//! ```text
//!  file, admin API ──► Control ──► Roster ──► Directory ──────► Seats
//!                      what wins   names,     hosts, swapped    what a worker's
//!                         │        in a lock  in small parts    clients ask for
//!                         └──► Keeper: the state file
//! ```

pub mod api;
mod control;
mod directory;
mod keeper;
mod restarts;
mod roster;
mod seats;
mod standing;
pub mod verb;

pub use control::{Control, Refused};
pub(crate) use directory::ByName;
pub use directory::{Directory, Found};
pub use restarts::{Restarted, Restarts};
pub use roster::{Change, Roster};
pub use seats::{Seat, Seats};
pub use standing::{Stand, Standing};
