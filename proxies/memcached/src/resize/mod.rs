//! Transparent resizing: from one list of servers to another while clients go on, with no stale read.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | which lists there may be, and what follows from a source's |
//! | `phase.rs` | the shared state, and what comes next: pure, and simulated |
//! | `wishes.rs` | what may be asked of it: lists, standby servers, to stop or go back: pure |
//! | `api.rs`, `verb.rs` | what operators ask for, and see |
//! | `section.rs` | the configuration |
//! | `shared.rs` | what of it stands in the store |
//! | `control.rs` | a sidecar's part: joining, taking steps on, acknowledging them |
//! | `part.rs` | whether a cluster takes part at all, as configured |
//! | `driver.rs` | the one sidecar that drives; `watched.rs` asks whether servers answer |
//! | `standby.rs` | standby servers join and leave; `pressure.rs` says when: pure |
//! | `mover.rs` | moving and purging keys: `crawl.rs` lists them, `lanes.rs` asks servers, over `line.rs` |
//! | `view.rs` | what a worker knows of it: the phase and both lists, one immutable value |
//! | `metrics.rs` | what is counted of it |
//! | `agreement.rs` | how workers get a view and say that they are done with older ones |
//!
//! ```text
//!   store: the committed list, the change, its phase ─► control (one a sidecar) ─► Arc<View> ─► workers
//!          who is present, who acknowledged what     ◄─ control ◄─ steps that workers are done with
//! ```
//!
//! Every change of what sidecars go by is a *step*. A step is taken only when every sidecar that is present has
//! acknowledged the one before, so no two sidecars are ever further apart than one step.

mod agreement;
pub mod api;
mod control;
mod crawl;
mod driver;
mod lanes;
mod line;
mod metrics;
mod mover;
mod part;
pub mod phase;
pub mod plan;
mod pressure;
mod section;
mod shared;
mod standby;
pub mod verb;
mod view;
mod watched;
pub mod wishes;

pub use agreement::{Agreement, Member};
pub use control::{Control, Origin};
pub use mover::PlaceOf;
pub use part::{Part, told, wait_until_joined};
pub use section::{Policy, Section};
pub use view::{Gone, Phase, Place, Server, Slots, View};
