//! The roles of one database's servers, as everybody shares them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use groove_common::app::Context;
use groove_common::balance::least_loaded;
use groove_common::discovery::{Cluster, Endpoint, Health, fresh_dice};
use groove_common::ids::EndpointId;
use groove_common::telemetry::Registry;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::arbiter::{Arbiter, Split};
use super::monitor;
use super::positions::Positions;
use super::seen::Sighting;
use super::view::{Standing, View, Wish};
use crate::config::Monitor;
use crate::live::Live;
use crate::metrics::{PrimaryMetrics, ServerMetrics};
use crate::upstream::{Target, UserPool};

/// How long a dial waits for a server of its wish before it is told that there is none, and asked to come again.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How long servers are asked in quick succession once the primary is gone.
const HUNT_MAX: Duration = Duration::from_secs(60);
/// Questions in a row that a primary has to leave unanswered to be taken for lost: it may be busy, and nothing is won as
/// long as there is no other. Whoever refuses a connection or closes one is lost at once.
const LATE_MAX: u32 = 3;
/// In which succession, at the most.
const HUNT_PACE: Duration = Duration::from_millis(100);

/// The roles of one database's servers. Its monitor ends with it.
pub struct Roles {
    pub(super) database: String,
    cluster: Arc<Cluster>,
    wish: Wish,
    pub(super) monitor: Monitor,
    /// Whom the configuration names to ask as.
    asker: Option<Arc<Target>>,
    pub(super) known: Mutex<Known>,
    positions: Mutex<Positions>,
    view: ArcSwap<View>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    nudges: watch::Sender<()>,
    /// Those who lease by these roles. Where nobody is named to ask as, one of them lends its login.
    pools: Mutex<Vec<Weak<UserPool>>>,
    registry: Arc<Registry>,
    pub(super) metrics: PrimaryMetrics,
    live: Arc<Live>,
    task: Mutex<Option<AbortOnDropHandle<()>>>,
}

pub(super) struct Known {
    pub(super) arbiter: Arbiter,
    pub(super) members: HashMap<EndpointId, Member>,
    /// Since when there is no primary; `None` while there is one.
    hunting_since: Option<Instant>,
    had_primary: bool,
    /// Already warned of.
    pub(super) split: Option<Split>,
}

impl Known {
    fn is_late(&self, id: EndpointId) -> bool {
        self.members.get(&id).is_some_and(|member| member.late > 0)
    }
}

/// What is kept beside a server's standing.
pub(super) struct Member {
    pub(super) address: String,
    pub(super) metrics: ServerMetrics,
    /// Why it has not said what it is, when asked last.
    pub(super) silence: Option<String>,
    /// It is there, and does not let us ask.
    is_mute: bool,
    /// Questions in a row that it has not answered in time.
    late: u32,
}

impl Roles {
    /// Begins to watch a database's servers; connections are wanted by `wish`.
    pub(crate) fn start(
        database: &str,
        cluster: &Arc<Cluster>,
        wish: Wish,
        lag_max: Option<Duration>,
        (monitor, asker): (Monitor, Option<Target>),
        (cx, live): (&Context, &Arc<Live>),
    ) -> Arc<Roles> {
        let known = Known {
            arbiter: Arbiter::new(lag_max),
            members: HashMap::new(),
            hunting_since: Some(Instant::now()),
            had_primary: false,
            split: None,
        };
        let roles = Arc::new(Roles {
            database: database.to_owned(),
            cluster: Arc::clone(cluster),
            wish,
            monitor,
            asker: asker.map(Arc::new),
            known: Mutex::new(known),
            positions: Mutex::default(),
            view: ArcSwap::default(),
            generation: AtomicU64::new(1),
            changed: watch::Sender::new(1),
            nudges: watch::Sender::new(()),
            pools: Mutex::default(),
            registry: Arc::clone(&cx.registry),
            metrics: PrimaryMetrics::new(&cx.registry, database),
            live: Arc::clone(live),
            task: Mutex::default(),
        });
        roles.take_members();
        let task = cx.runtime.spawn(monitor::run(Arc::downgrade(&roles), Arc::clone(cluster)));
        *roles.task.lock() = Some(AbortOnDropHandle::new(task));
        roles
    }

    /// A pool leases by these roles from now on.
    pub(crate) fn enroll(&self, pool: &Arc<UserPool>) {
        let mut pools = self.pools.lock();
        pools.retain(|known| known.strong_count() > 0 && !Weak::ptr_eq(known, &Arc::downgrade(pool)));
        pools.push(Arc::downgrade(pool));
        drop(pools);
        self.nudge();
    }

    /// As whom to ask; `None` while nobody is known who may.
    pub(super) fn asker(&self) -> Option<Arc<Target>> {
        let lent = || self.pools.lock().iter().find_map(Weak::upgrade).map(|pool| pool.target());
        self.asker.clone().or_else(lent)
    }

    /// This login was refused: whoever lends one next is somebody else.
    pub(super) fn try_another_asker(&self, refused: &Arc<Target>) {
        let mut pools = self.pools.lock();
        // Of several servers that refuse one login, the first has seen to it already.
        let is_next =
            |pool: &Weak<UserPool>| pool.upgrade().is_none_or(|pool| Arc::ptr_eq(&pool.target(), refused));
        if pools.len() > 1 && pools.first().is_some_and(is_next) {
            pools.rotate_left(1);
        }
    }

    /// A server for a dial. Waits a while for one where there is none.
    pub(crate) async fn pick(&self, wish: Wish) -> Option<Arc<Endpoint>> {
        let mut changes = self.changed.subscribe();
        let patience = async {
            loop {
                changes.mark_unchanged();
                if let Some(endpoint) = self.pick_now(wish) {
                    return Some(endpoint);
                }
                self.nudge();
                changes.changed().await.ok()?;
            }
        };
        timeout(WAIT_MAX, patience).await.ok().flatten()
    }

    fn pick_now(&self, wish: Wish) -> Option<Arc<Endpoint>> {
        let (view, snapshot) = (self.view(), self.cluster.snapshot());
        let fits = |id| match wish {
            Wish::Any => !matches!(view.of(id), Standing::Fenced | Standing::Lost),
            Wish::Primary | Wish::Replica { .. } => view.admits(wish, id),
        };
        let mut fitting: Vec<_> =
            snapshot.members.iter().filter(|member| fits(member.endpoint.id)).cloned().collect();
        if fitting.is_empty() {
            return self.unasked();
        }
        // Those whose logins fail come last; whether they are up at all, the monitor knows better than a breaker.
        if fitting.iter().any(|member| member.health == Health::Up) {
            fitting.retain(|member| member.health == Health::Up);
        }
        fitting.iter_mut().for_each(|member| member.health = Health::Up);
        let least = least_loaded(&fitting, self.cluster.now(), &mut fresh_dice()).unwrap_or(0);
        fitting.get(least).map(|member| Arc::clone(&member.endpoint))
    }

    /// Goes on with a dial until its server is not what was wanted any more: it may not even refuse.
    pub(crate) async fn while_wanted<T>(
        &self,
        wish: Wish,
        id: EndpointId,
        dial: impl Future<Output = T>,
    ) -> Option<T> {
        let mut changes = self.changed.subscribe();
        let unwanted = async { while changes.changed().await.is_ok() && self.view().admits(wish, id) {} };
        tokio::select! {
            biased;
            dialled = dial => Some(dialled),
            () = unwanted => None,
        }
    }

    /// Where nobody lets us ask, not even as those whose connections are wanted, they shall hear it in the server's own
    /// words: one that refuses the login.
    fn unasked(&self) -> Option<Arc<Endpoint>> {
        let known = self.known.lock();
        let is_mute = |id: &EndpointId| known.members.get(id).is_some_and(|member| member.is_mute);
        let view = self.view();
        let is_nothing = |standing: &Standing| matches!(standing, Standing::Unknown | Standing::Lost);
        let all_are_nothing = view.standings.iter().all(|(_, standing)| is_nothing(standing));
        let id = view.standings.iter().map(|(id, _)| *id).find(is_mute).filter(|_| all_are_nothing)?;
        Some(Arc::clone(&self.cluster.snapshot().member(id)?.endpoint))
    }

    /// Asks every server at once.
    pub(crate) fn nudge(&self) {
        self.nudges.send_replace(());
    }

    pub(super) fn nudged(&self) -> watch::Receiver<()> {
        self.nudges.subscribe()
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Asked in what succession: sooner while there is no primary to be found.
    pub(super) fn pace(&self) -> Duration {
        let known = self.known.lock();
        let is_hunting = known.hunting_since.is_some_and(|since| since.elapsed() < HUNT_MAX)
            && (known.had_primary || self.wish == Wish::Primary);
        let is_hunting = is_hunting || self.view().primary().is_some_and(|id| known.is_late(id));
        let interval = self.monitor.interval.get();
        if is_hunting { interval.min(HUNT_PACE) } else { interval }
    }

    /// Takes in who there is, and how those are whose roles are declared.
    pub(super) fn take_members(&self) {
        let snapshot = self.cluster.snapshot();
        let members: Vec<_> =
            snapshot.members.iter().map(|member| (member.endpoint.id, member.described.role)).collect();
        let mut known = self.known.lock();
        known.members.retain(|id, _| snapshot.member(*id).is_some());
        self.positions.lock().retain(|id| snapshot.member(id).is_some());
        for member in &snapshot.members {
            let address = member.endpoint.address.to_string();
            known.members.entry(member.endpoint.id).or_insert_with(|| Member {
                metrics: ServerMetrics::new(&self.registry, &self.database, &address),
                address,
                silence: None,
                is_mute: false,
                late: 0,
            });
        }
        known.arbiter.set_members(&members);
        for member in snapshot.members.iter().filter(|member| member.described.role.is_some()) {
            match member.health {
                Health::Up | Health::Trial => known.arbiter.well(member.endpoint.id),
                Health::Down => known.arbiter.lost(member.endpoint.id),
            }
        }
        self.publish(&mut known);
    }

    /// A server has said what it is.
    pub(super) fn saw(&self, id: EndpointId, sighting: Sighting, asked: Instant) {
        let mut known = self.known.lock();
        known.arbiter.saw(id, self.cluster.now(), sighting);
        let lag = known.arbiter.lag_of(id);
        if let Some(member) = known.members.get_mut(&id) {
            (member.silence, member.is_mute, member.late) = (None, false, 0);
            member.metrics.lag(lag);
        }
        self.publish(&mut known);
        drop(known);
        let mut positions = self.positions.lock();
        match sighting.in_recovery {
            true => positions.replayed(id, sighting.applied),
            false => positions.forget(id),
        }
        if self.view().primary() == Some(id) {
            positions.mark(asked, sighting.inserted);
        }
    }

    /// A position in the WAL which everything is within that was committed before `time`; `None` if it is not known yet,
    /// and then it soon is.
    pub(crate) fn position_after(&self, time: Instant) -> Option<u64> {
        let position = self.positions.lock().after(time);
        if position.is_none() {
            self.nudge();
        }
        position
    }

    /// Whether a replica is known to have replayed up to there; if not, it is asked soon.
    pub(crate) fn has_replica_at(&self, position: u64) -> bool {
        let has = self.positions.lock().any_has(position);
        if !has {
            self.nudge();
        }
        has
    }

    pub(super) fn is_primary(&self, id: EndpointId) -> bool {
        self.view().primary() == Some(id)
    }

    /// Whether who wants a replica gets one at this moment, or the primary in its place; `None` if neither is sure.
    pub(crate) fn gives_replica(&self, wish: Wish) -> Option<bool> {
        let Wish::Replica { .. } = wish else { return None };
        let view = self.view();
        let admitted = view.standings.iter().filter(|(id, _)| view.admits(wish, *id));
        admitted.map(|(_, standing)| *standing == Standing::Replica).next()
    }

    /// Whether what this server is read for is there: it is the primary, or has replayed up to there.
    pub(super) fn is_at(&self, id: EndpointId, position: u64) -> bool {
        self.is_primary(id) || self.positions.lock().has(id, position)
    }

    /// A server does not answer, or is not up.
    pub(super) fn lost(&self, id: EndpointId, reason: String) {
        self.positions.lock().forget(id);
        let mut known = self.known.lock();
        known.arbiter.lost(id);
        if let Some(member) = known.members.get_mut(&id) {
            (member.silence, member.is_mute) = (Some(reason), false);
            member.metrics.lag(None);
        }
        self.publish(&mut known);
    }

    /// A server has not answered in time.
    pub(super) fn late(&self, id: EndpointId) {
        let is_primary = self.view().primary() == Some(id);
        let late = {
            let mut known = self.known.lock();
            let Some(member) = known.members.get_mut(&id) else { return };
            member.late += 1;
            member.late
        };
        if !is_primary || late >= LATE_MAX {
            let time_max = self.monitor.timeout.get();
            self.lost(id, format!("no answer within {time_max:?}"));
        }
    }

    /// A server is there and does not let us ask: what was known of it stays.
    pub(super) fn mute(&self, id: EndpointId, reason: String) {
        let mut known = self.known.lock();
        let Some(member) = known.members.get_mut(&id) else { return };
        let is_news = !member.is_mute;
        if is_news {
            let endpoint = &member.address;
            warn!(database = self.database, endpoint, reason, "cannot be asked whether it is the primary");
        }
        (member.silence, member.is_mute) = (Some(reason), true);
        known.arbiter.mute(id);
        self.publish(&mut known);
        drop(known);
        if is_news {
            // Who waits may as well hear it from the server.
            self.changed.send_modify(|_| {});
        }
    }

    /// Lets everybody know if something has changed. Under the lock, so that views come out in their order.
    fn publish(&self, known: &mut Known) {
        let (before, view) = (self.view(), known.arbiter.view());
        self.warn_of_split(known);
        if *before == view {
            return;
        }
        let primary = view.primary();
        self.tell(known, &before, &view);
        known.had_primary |= primary.is_some();
        known.hunting_since = match primary {
            Some(_) => None,
            None => known.hunting_since.or_else(|| Some(Instant::now())),
        };
        self.view.store(Arc::new(view));
        let generation = self.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.changed.send_replace(generation);
        // Connections to what is not wanted any more are closed while they are idle.
        self.pools.lock().iter().filter_map(Weak::upgrade).for_each(|pool| pool.tend());
        // Who waits for the answer of a server that was replaced waits in vain.
        if primary.is_some() {
            let clients = self.live.clients();
            clients
                .iter()
                .filter(|client| client.pool.database == self.database)
                .for_each(|client| client.wake());
        } else if before.primary().is_some() {
            self.nudge();
        }
    }
}
