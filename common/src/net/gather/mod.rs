//! Keeps the sessions of a shared service together on as few worker threads as their work needs.
//!
//! A thread that serves many sessions finds several of them ready whenever it looks, and wakes nobody: one that is awake
//! for 64 clients costs a fifth less than two that share them. So all begin on one worker. When that one is near the end
//! of its core, some of its sessions move to the next, each between two pieces of its work; when fewer workers would do,
//! they move back.
//!
//! ```text
//!  watch ── CPU of each worker ──► policy ── who is to lose how many sessions to whom ──► Gathering
//!                                                                                            │
//!  a session, where it begins a piece of work: due()? ◄──────────────────────────────────────┘
//!        │ its sockets change over to the other worker's runtime
//!        └─ hop ──► its task ends here and begins there, with the same future
//! ```

mod hop;
mod policy;
mod watch;

use std::cell::{Cell, OnceCell};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use rustix::thread::Pid;
use tokio::runtime::Handle;

pub(super) use hop::{Counted, Travelling};
pub(super) use watch::watch;

use self::policy::Plan;
use super::downstream::Open;
use super::service::WorkerId;
use super::stream::Stream;

thread_local! {
    static HERE: OnceCell<Here> = const { OnceCell::new() };
}

/// What a worker's thread knows of itself.
struct Here {
    id: WorkerId,
    gathering: Arc<Gathering>,
    /// Where the session goes on that is being polled, if it leaves.
    bound_for: Cell<Option<WorkerId>>,
}

/// The workers of a shared service, and who of their sessions is to move.
#[derive(Debug)]
pub(super) struct Gathering {
    /// Begins at 1, and goes on each time the loads are looked at.
    round: AtomicU32,
    /// The workers that new sessions begin on are those before this one.
    awake: AtomicUsize,
    places: Vec<Place>,
}

/// One worker.
#[derive(Debug)]
struct Place {
    runtime: Handle,
    open: Arc<Open>,
    /// Sessions that have begun a piece of work in this round.
    active: AtomicU32,
    /// So many sessions are still to leave...
    leaving: AtomicU32,
    /// ... for this worker.
    target: AtomicUsize,
    /// The thread, as the system counts its time.
    thread: watch::Thread,
}

/// A worker that is being made: its runtime, its thread's id, its count of connections.
pub(super) struct Founding {
    pub(super) runtime: Handle,
    pub(super) thread: Pid,
    pub(super) open: Arc<Open>,
}

impl Gathering {
    pub(super) fn new(workers: Vec<Founding>) -> Self {
        let places = workers.into_iter().map(|Founding { runtime, thread, open }| Place {
            runtime,
            open,
            active: AtomicU32::new(0),
            leaving: AtomicU32::new(0),
            target: AtomicUsize::new(0),
            thread: watch::Thread::new(thread),
        });
        Self { round: AtomicU32::new(1), awake: AtomicUsize::new(1), places: places.collect() }
    }

    /// How many workers new sessions are spread over.
    pub(super) fn awake(&self) -> usize {
        self.awake.load(Ordering::Relaxed)
    }

    /// Has `leaving` sessions of worker `from` go on at `to`, each when it next begins a piece of work.
    #[cfg(test)]
    pub(super) fn order(&self, from: usize, leaving: u32, to: usize) {
        let stay = |target| policy::Order { leaving: 0, target };
        let mut orders: Vec<_> = (0..self.places.len()).map(stay).collect();
        orders[from] = policy::Order { leaving, target: to };
        self.carry_out(&Plan { awake: self.places.len(), orders });
    }

    fn carry_out(&self, plan: &Plan) {
        self.awake.store(plan.awake, Ordering::Relaxed);
        for (place, order) in self.places.iter().zip(&plan.orders) {
            place.target.store(order.target, Ordering::Relaxed);
            place.leaving.store(order.leaving, Ordering::Relaxed);
        }
    }

    fn place(&self, id: WorkerId) -> Option<&Place> {
        self.places.get(id.0)
    }
}

impl Place {
    /// Where the session that asks is to go.
    fn due(&self) -> Option<WorkerId> {
        let leaving = self.leaving.load(Ordering::Relaxed);
        // Only this worker's thread takes from it; that an order is renewed meanwhile does no harm.
        self.leaving.store(leaving.checked_sub(1)?, Ordering::Relaxed);
        Some(WorkerId(self.target.load(Ordering::Relaxed)))
    }
}

/// Tells the calling thread which worker it is.
pub(super) fn settle_here(id: WorkerId, gathering: Arc<Gathering>) {
    HERE.with(|here| drop(here.set(Here { id, gathering, bound_for: Cell::new(None) })));
}

/// The worker of a shared service that the calling thread is, if it is one.
pub fn here() -> Option<WorkerId> {
    HERE.with(|here| here.get().map(|here| here.id))
}

/// Whether the calling session is to go on elsewhere, and where: asked where it begins a piece of work. `round` is its
/// own memory of when it asked last, at first 0.
pub fn due(round: &mut u32) -> Option<WorkerId> {
    HERE.with(|here| {
        let here = here.get()?;
        let place = here.gathering.place(here.id)?;
        let now = here.gathering.round.load(Ordering::Relaxed);
        if std::mem::replace(round, now) != now {
            place.active.fetch_add(1, Ordering::Relaxed);
        }
        if place.leaving.load(Ordering::Relaxed) == 0 { None } else { place.due() }
    })
}

/// Goes on as a task of worker `to`, with `stream`, which is the only one of the caller's that is watched for it.
///
/// # Errors
/// The system gives no second descriptor for the socket, or the other runtime is ending: all is as before.
pub async fn go_on_at(to: WorkerId, stream: &mut Stream) -> io::Result<()> {
    let moved = HERE.with(|here| {
        let place = here.get().and_then(|here| here.gathering.place(to));
        place.map(|place| {
            let _entered = place.runtime.enter();
            stream.register_here()
        })
    });
    match moved {
        Some(moved) => moved?,
        None => return Ok(()),
    }
    hop::hop(to).await;
    Ok(())
}
