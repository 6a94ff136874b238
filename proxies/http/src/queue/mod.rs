//! One queue a cluster, for all workers: who finds no endpoint with room waits here, and gets the first that has.
//!
//! ```text
//!  enter ──► Granted            room, and nobody before it
//!    ├─────► Waiting(place) ──► a grant comes: an exchange ended, an endpoint came or recovered
//!    │          └── dropped ──► out of the line; a grant on its way goes to the next
//!    └─────► Refused            too many wait, too many bytes, nobody to wait for
//! ```
//!
//! Exchanges begin only under this lock, so that an endpoint never has more than its bound; they end without it, and
//! tell afterwards (see [`Released`]). A grant *is* the exchange that has begun: no room is free while somebody waits
//! for it, and whoever comes later cannot snatch it.

mod drain;
mod line;
#[cfg(test)]
mod tests;

use crate::balance::{Ask, Choice, Chooser, Home, Key, Plan};
use crate::metrics::QueueMetrics;
use drain::Drain;
use groove_common::balance::Dice;
use groove_common::discovery::{Cluster, Endpoint, Exchange, Health, Reader, Released, Snapshot, fresh_dice};
use groove_common::ids::EndpointId;
use line::{Desk, Line, Waiter};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

/// An exchange that has begun with an endpoint.
#[derive(Debug)]
pub struct Grant {
    /// It, until it is dropped.
    pub exchange: Exchange,
    /// The endpoint's identity, if the client is to be told that its session lives there from now on.
    pub new_home: Option<Box<str>>,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait already as may.
    Full,
    /// As many bytes wait already as may.
    Bytes,
    /// As many wait for its endpoint already as may.
    Endpoint,
    /// There is no endpoint left that it was not tried with.
    Nobody,
}

/// Somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// In how many seconds it is worth to come back, by how fast the line moves.
    pub retry_after_s: u64,
}

/// What became of somebody who came.
#[derive(Debug)]
pub enum Entry {
    /// It goes.
    Granted(Grant),
    /// It waits.
    Waiting(Place),
}

/// The queue of one cluster. It outlives reloads.
pub struct Queue {
    me: Weak<Self>,
    cluster: Arc<Cluster>,
    state: Mutex<State>,
    metrics: QueueMetrics,
    /// Tells of endpoints that come, go, fall or rise. Ends with the queue.
    watch: Mutex<Option<AbortOnDropHandle<()>>>,
}

struct State {
    plan: Arc<Plan>,
    reader: Reader,
    /// The generation for which everybody is at the right desk.
    generation: Option<u64>,
    chooser: Chooser,
    dice: Dice,
    line: Line<Caller>,
    drain: Drain,
    /// The next place's number.
    next: u64,
}

/// Whom to tell.
#[derive(Debug)]
struct Caller {
    key: Key,
    turn: oneshot::Sender<Grant>,
}

/// Grants to be handed over once the lock is free: a caller that is gone drops its own, and that locks.
type Given = Vec<(Caller, Grant)>;

impl Queue {
    /// The queue of a cluster.
    pub fn start(
        cluster: Arc<Cluster>,
        plan: Arc<Plan>,
        metrics: QueueMetrics,
        runtime: &Handle,
    ) -> Arc<Self> {
        let state = State {
            plan,
            reader: cluster.reader(),
            generation: None,
            chooser: Chooser::default(),
            dice: fresh_dice(),
            line: Line::default(),
            drain: Drain::default(),
            next: 0,
        };
        let queue = Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            cluster,
            state: Mutex::new(state),
            metrics,
            watch: Mutex::new(None),
        });
        let watch = runtime.spawn(follow(Arc::downgrade(&queue), Arc::clone(&queue.cluster)));
        *queue.watch.lock() = Some(AbortOnDropHandle::new(watch));
        queue
    }

    /// Goes by another plan from now on. Who waits keeps its place.
    pub fn set_plan(&self, plan: Arc<Plan>) {
        let mut state = self.state.lock();
        if Arc::ptr_eq(&state.plan, &plan) {
            return;
        }
        state.plan = plan;
        state.generation = None;
        self.serve(state);
    }

    /// Asks for an exchange with an endpoint that has room; `bytes` are held of the request. Who waited before comes
    /// back to its place by its `number`.
    ///
    /// # Errors
    ///
    /// When it may not wait.
    pub fn enter(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        bytes: usize,
        number: Option<u64>,
    ) -> Result<Entry, Refused> {
        let now = self.cluster.now();
        let mut state = self.state.lock();
        let snapshot = state.look(&self.me);
        if state.line.is_empty()
            && let Some(grant) = state.grant(&snapshot, *ask, now)
        {
            return Ok(Entry::Granted(grant));
        }
        let number = number.unwrap_or_else(|| {
            state.next += 1;
            state.next
        });
        let (turn, arrival) = oneshot::channel();
        let desk = state.desk(&snapshot, ask.key);
        let handle = Caller { key: ask.key, turn };
        state.line.push(number, Waiter { desk, failed: ask.failed.into(), bytes, handle });
        // Whoever has waited longer goes first, and then perhaps this one.
        let given = state.settle(&snapshot, now);
        let refusal = state.line.get(number).and_then(|_| state.refusal(&snapshot, ask, desk));
        let mut retry_after_s = 0;
        if refusal.is_some() {
            retry_after_s = state.retry_after_s(now);
            state.line.take(number);
            let is_waited = !state.line.is_empty();
            state.drain.observe(now, 0, is_waited);
        }
        self.gauge(&state);
        drop(state);
        hand_over(given);
        match refusal {
            Some(why) => {
                self.metrics.refused(why);
                Err(Refused { why, retry_after_s })
            }
            None => Ok(Entry::Waiting(Place { queue: Arc::clone(self), number, arrival })),
        }
    }

    /// How long one may wait.
    pub fn age_max(&self) -> Duration {
        self.state.lock().plan.waits.map_or(Duration::ZERO, |waits| waits.age_max)
    }

    /// In how many seconds it is worth to come back for who has waited for too long.
    pub fn retry_after_s(&self) -> u64 {
        self.state.lock().retry_after_s(self.cluster.now())
    }

    /// An exchange with an endpoint is over, and took that long.
    pub fn observe(&self, endpoint: &Endpoint, latency: Duration) {
        let now = self.cluster.now();
        let mut state = self.state.lock();
        let State { plan, chooser, .. } = &mut *state;
        chooser.observe(plan, endpoint, now, latency);
    }

    /// Its numbers.
    pub fn metrics(&self) -> &QueueMetrics {
        &self.metrics
    }

    /// Serves whoever can be served.
    fn settle(&self) {
        let state = self.state.lock();
        if !state.line.is_empty() {
            self.serve(state);
        }
    }

    fn serve(&self, mut state: MutexGuard<'_, State>) {
        let snapshot = state.look(&self.me);
        let given = state.settle(&snapshot, self.cluster.now());
        self.gauge(&state);
        drop(state);
        hand_over(given);
    }

    /// Gives a place up.
    fn leave(&self, number: u64) {
        let now = self.cluster.now();
        let mut state = self.state.lock();
        state.line.take(number);
        let is_waited = !state.line.is_empty();
        state.drain.observe(now, 0, is_waited);
        self.gauge(&state);
    }

    fn gauge(&self, state: &State) {
        self.metrics.waiting.set(i64::try_from(state.line.len()).unwrap_or(i64::MAX));
        self.metrics.bytes.set(i64::try_from(state.line.bytes()).unwrap_or(i64::MAX));
    }
}

impl Released for Queue {
    fn released(&self, _: &Endpoint) {
        self.settle();
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("cluster", &self.cluster.name()).finish_non_exhaustive()
    }
}

impl State {
    /// The latest snapshot. If it is new, its endpoints tell of their exchanges, and everybody goes to the right desk.
    fn look(&mut self, me: &Weak<Queue>) -> Arc<Snapshot> {
        let snapshot = Arc::clone(self.reader.get());
        if self.generation != Some(snapshot.generation) {
            self.generation = Some(snapshot.generation);
            let waits = self.plan.waits.is_some();
            for member in &snapshot.members {
                let watcher = waits.then(|| Weak::clone(me) as Weak<dyn Released>);
                member.endpoint.watch(watcher);
            }
            let Self { plan, chooser, line, .. } = self;
            line.resettle(|caller| desk(chooser, plan, &snapshot, caller.key));
        }
        snapshot
    }

    fn desk(&mut self, snapshot: &Snapshot, key: Key) -> Desk {
        desk(&mut self.chooser, &self.plan, snapshot, key)
    }

    fn grant(&mut self, snapshot: &Snapshot, ask: Ask<'_>, now: Duration) -> Option<Grant> {
        let choice = self.chooser.choose(&self.plan, snapshot, ask, now, &mut self.dice)?;
        Some(Grant::of(&choice))
    }

    /// As long as somebody can be served, the one who came first of those.
    fn settle(&mut self, snapshot: &Snapshot, now: Duration) -> Given {
        let mut given = Given::new();
        while let Some(number) = self.first(snapshot) {
            let Self { plan, chooser, dice, line, .. } = self;
            let Some(waiter) = line.get(number) else { break };
            let ask = Ask { key: waiter.handle.key, failed: &waiter.failed };
            let Some(choice) = chooser.choose(plan, snapshot, ask, now, dice) else { break };
            // No grant is dropped under the lock.
            let Some(waiter) = line.take(number) else { break };
            given.push((waiter.handle, Grant::of(&choice)));
        }
        self.drain.observe(now, given.len(), !self.line.is_empty());
        given
    }

    /// In how many seconds the line may be at its end.
    fn retry_after_s(&mut self, now: Duration) -> u64 {
        self.drain.seconds_for(now, self.line.len())
    }

    /// The first of all who can be served.
    fn first(&self, snapshot: &Snapshot) -> Option<u64> {
        if self.line.is_empty() {
            return None;
        }
        let has_room = snapshot.members.iter().filter(|member| {
            let takes = match member.health {
                Health::Up => true,
                Health::Trial => member.endpoint.offers_trial(),
                Health::Down => false,
            };
            takes && member.endpoint.in_flight() < self.chooser.hard(&self.plan, member.endpoint.id)
        });
        let first = has_room.filter_map(|member| {
            let takes_any = !member.is_draining && member.described.weight > 0;
            self.line.first_for(member.endpoint.id, takes_any)
        });
        first.min()
    }

    /// Why somebody may not wait, if so.
    fn refusal(&self, snapshot: &Snapshot, ask: &Ask<'_>, desk: Desk) -> Option<Refusal> {
        let is_left = |id: EndpointId| !ask.failed.contains(&id);
        let is_up = |health| health != Health::Down;
        let somebody = match desk {
            Desk::At(id) => is_left(id),
            Desk::Nobody => true,
            Desk::Any if ask.failed.is_empty() => true,
            Desk::Any => {
                snapshot.members.iter().any(|member| is_left(member.endpoint.id) && is_up(member.health))
            }
        };
        let Some(waits) = self.plan.waits.filter(|_| somebody) else { return Some(Refusal::Nobody) };
        if self.line.len() > waits.count_max {
            let nobody = !snapshot.members.iter().any(|member| is_up(member.health));
            return Some(if nobody { Refusal::Nobody } else { Refusal::Full });
        }
        if matches!(desk, Desk::At(_)) && self.line.len_at(desk) > waits.endpoint_max {
            return Some(Refusal::Endpoint);
        }
        (self.line.bytes() > waits.bytes_max).then_some(Refusal::Bytes)
    }
}

/// Where a request waits: for its endpoint if the plan says so, for any otherwise.
fn desk(chooser: &mut Chooser, plan: &Arc<Plan>, snapshot: &Snapshot, key: Key) -> Desk {
    if !plan.is_strict {
        return Desk::Any;
    }
    match chooser.home(plan, snapshot, key) {
        Home::Any => Desk::Any,
        Home::At(index) => {
            snapshot.members.get(index).map_or(Desk::Nobody, |member| Desk::At(member.endpoint.id))
        }
        Home::Nowhere => Desk::Nobody,
    }
}

/// A caller that is gone gives its grant back by dropping it, which serves the next.
fn hand_over(given: Given) {
    for (caller, grant) in given {
        drop(caller.turn.send(grant));
    }
}

impl Grant {
    /// Begins the exchange.
    pub fn of(choice: &Choice<'_>) -> Self {
        let new_home = choice.is_new_home.then(|| choice.member.identity().into());
        Self { exchange: choice.member.endpoint.begin(), new_home }
    }
}

/// A place in line, given up when dropped.
#[derive(Debug)]
pub struct Place {
    queue: Arc<Queue>,
    number: u64,
    arrival: oneshot::Receiver<Grant>,
}

impl Place {
    /// By which one comes back to it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Waits for its turn.
    pub async fn turn(&mut self) -> Option<Grant> {
        (&mut self.arrival).await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A grant that has come meanwhile is dropped after this, without the lock.
        self.queue.leave(self.number);
    }
}

/// Serves whoever can be served each time that endpoints change.
async fn follow(queue: Weak<Queue>, cluster: Arc<Cluster>) {
    let mut seen = 0;
    loop {
        seen = cluster.changed(seen).await;
        match queue.upgrade() {
            Some(queue) => queue.settle(),
            None => return,
        }
    }
}
