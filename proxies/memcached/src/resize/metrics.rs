//! What is counted of a cluster's changes. Each sidecar tells its own part; what only the one who drives knows is 0
//! elsewhere, so sums over all sidecars are right.

use std::time::{SystemTime, UNIX_EPOCH};

use groove_common::telemetry::{Counter, Gauge, Registry};

use super::phase::State;
use super::view::Phase;

const PHASES: [(Phase, &str); 5] =
    [(Phase::Plain, "plain"), (Phase::B, "b"), (Phase::C, "c"), (Phase::E, "e"), (Phase::F, "f")];

/// The series of one cluster; clones share them.
#[derive(Debug, Clone)]
pub(super) struct ResizeMetrics {
    phases: Vec<(Phase, Gauge)>,
    phase_begun: Gauge,
    /// What this sidecar has acknowledged.
    pub(super) acknowledged: Gauge,
    /// Does it drive?
    pub(super) drives: Gauge,
    /// Sidecars that have not acknowledged the latest step.
    pub(super) behind: Gauge,
    /// Of a resize under way.
    pub(super) keys_left: Gauge,
    /// By the mover.
    pub(super) keys_moved: Counter,
    pub(super) bytes_moved: Counter,
    pub(super) keys_refused: Counter,
    pub(super) tries_failed: Counter,
    pub(super) resizes_done: Counter,
    pub(super) resizes_undone: Counter,
    /// By clients' requests.
    pub(super) programs: ProgramMetrics,
    /// Standby servers in service.
    pub(super) standbys_joined: Gauge,
    pub(super) standbys_waiting: Gauge,
    /// While the standby servers are watched.
    pub(super) evictions: Counter,
}

/// What clients' requests do on keys that move.
#[derive(Debug, Clone)]
pub(super) struct ProgramMetrics {
    /// Keys that a client's request copied.
    pub(super) copies: Counter,
    /// How often one began again.
    pub(super) conflicts: Counter,
}

impl ProgramMetrics {
    fn new(registry: &Registry, cluster: &str) -> Self {
        let counter = |name, help| registry.counter(name, help, &[("cluster", cluster)]);
        Self {
            copies: counter(
                "groove_memcached_resize_client_copies",
                "Keys that were copied to their new server because a client asked for them",
            ),
            conflicts: counter(
                "groove_memcached_resize_conflicts",
                "Times that a request on a key that moves began again because somebody else was quicker",
            ),
        }
    }
}

impl ResizeMetrics {
    /// The series of a cluster, all from the start.
    pub(super) fn new(registry: &Registry, cluster: &str) -> Self {
        let own = [("cluster", cluster)];
        let counter = |name, help| registry.counter(name, help, &own);
        let gauge = |name, help| registry.gauge(name, help, &own);
        let phase = |(phase, name): (Phase, &str)| {
            let help = "The phase of a resize that this proxy is in: 1";
            let labels = [("cluster", cluster), ("phase", name)];
            (phase, registry.gauge("groove_memcached_resize_phase", help, &labels))
        };
        let resizes = |result| {
            let help = "Resizes that ended while this proxy drove them";
            registry.counter("groove_memcached_resizes", help, &[("cluster", cluster), ("result", result)])
        };
        let standbys = |state| {
            let help = "Standby servers in service (joined), and those that are not (waiting)";
            let labels = [("cluster", cluster), ("state", state)];
            registry.gauge("groove_memcached_standby_servers", help, &labels)
        };
        Self {
            phases: PHASES.into_iter().map(phase).collect(),
            phase_begun: gauge(
                "groove_memcached_resize_phase_begun_timestamp_seconds",
                "When this proxy came into the phase, in Unix seconds",
            ),
            acknowledged: gauge(
                "groove_memcached_resize_acknowledged_step",
                "The step of the servers' changes that this proxy has acknowledged",
            ),
            drives: gauge("groove_memcached_resize_drives", "1 if this proxy drives the cluster's changes"),
            behind: gauge(
                "groove_memcached_resize_sidecars_behind",
                "Proxies that a resize waits for, as the one that drives knows",
            ),
            keys_left: gauge(
                "groove_memcached_resize_keys_left",
                "Keys still to be moved, about, as the one that drives knows",
            ),
            keys_moved: counter(
                "groove_memcached_resize_moved_keys",
                "Keys that this proxy's mover has moved",
            ),
            bytes_moved: counter(
                "groove_memcached_resize_moved_bytes",
                "Bytes of values that this proxy's mover has read and written",
            ),
            keys_refused: counter(
                "groove_memcached_resize_refused_keys",
                "Keys that a new server did not take",
            ),
            tries_failed: counter(
                "groove_memcached_resize_failed_tries",
                "Tries to move a key that failed and are repeated",
            ),
            resizes_done: resizes("done"),
            resizes_undone: resizes("undone"),
            programs: ProgramMetrics::new(registry, cluster),
            standbys_joined: standbys("joined"),
            standbys_waiting: standbys("waiting"),
            evictions: counter(
                "groove_memcached_standby_evictions",
                "Evictions that were seen by the proxy that watches over the standby servers",
            ),
        }
    }

    /// The workers are given this state.
    pub(super) fn adopted(&self, before: Option<&State>, state: &State) {
        let about = |state: &State| (state.changes, state.phase());
        if before.map(about) == Some(about(state)) {
            return;
        }
        for (phase, gauge) in &self.phases {
            gauge.set(i64::from(*phase == state.phase()));
        }
        self.phase_begun.set(now_s().cast_signed());
    }

    /// One who drove a step says what became of it.
    pub(super) fn stepped(&self, before: &State, after: &State) {
        if after.change.is_some() {
            return;
        }
        match &before.change {
            Some(change) if after.slots != change.to => self.resizes_undone.inc(),
            Some(_) => self.resizes_done.inc(),
            // At once.
            None if before.slots != after.slots => self.resizes_done.inc(),
            None => {}
        }
        self.keys_left.set(0);
    }

    /// It drives no longer.
    pub(super) fn deposed(&self) {
        for gauge in
            [&self.drives, &self.behind, &self.keys_left, &self.standbys_joined, &self.standbys_waiting]
        {
            gauge.set(0);
        }
    }
}

/// The Unix time in seconds.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
