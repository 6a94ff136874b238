//! Transparent resizing: from one list of servers to another while clients go on, with no stale read.
//!
//! | file | what |
//! |---|---|
//! | `plan.rs` | which lists there may be, and what follows from a source's |
//! | `phase.rs` | the shared state, and what comes next: pure, and simulated |
//! | `view.rs` | what a worker knows of it: the phase and both lists, one immutable value |
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
pub mod phase;
pub mod plan;
mod view;

pub use agreement::{Agreement, Member};
pub use view::{Gone, Phase, Place, Server, Slots, View};
