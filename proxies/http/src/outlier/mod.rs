//! Endpoints that fail too often beside the others of their cluster, though never many times in a row. The rule is
//! Envoy's success rate: who is further below the mean than so many standard deviations is out. [`Detector`] is pure;
//! a task of the cluster asks it every interval.

mod detector;

pub use detector::{Detector, Rules, Totals};

use crate::config;
use crate::retry::Statuses;
use groove_common::discovery::Cluster;
use groove_common::telemetry::{Counter, Registry};
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

/// What counts against a cluster's endpoints, and who watches them.
#[derive(Debug)]
pub struct Outlier {
    /// Replies that count as failures.
    pub statuses: Statuses,
    /// Ends with it.
    _watch: Option<AbortOnDropHandle<()>>,
}

impl Outlier {
    /// As configured. `cluster` is asked for where its endpoints are to be watched.
    pub fn new(
        outlier: &config::Outlier,
        cluster: impl FnOnce() -> Arc<Cluster>,
        registry: &Registry,
        runtime: &Handle,
    ) -> Self {
        let watch = outlier.success_rate.as_ref().map(|written| {
            let cluster = cluster();
            let labels = [("cluster", cluster.name()), ("detector", "success_rate")];
            let help = "Endpoints that were ejected for failing more often than the others";
            let ejections = registry.counter("groove_http_outlier_ejections", help, &labels);
            let task = watch(Arc::downgrade(&cluster), Rules::from(written), ejections);
            AbortOnDropHandle::new(runtime.spawn(task))
        });
        Self { statuses: Statuses::of(&outlier.on), _watch: watch }
    }
}

/// Looks at a cluster's endpoints every interval, as long as there is the cluster.
async fn watch(cluster: Weak<Cluster>, rules: Rules, ejections: Counter) {
    let mut detector = Detector::default();
    let mut ticks = interval(rules.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(cluster) = cluster.upgrade() else { return };
        let snapshot = cluster.snapshot();
        let totals = snapshot.members.iter().map(|member| {
            let (successes, failures) = member.endpoint.totals();
            Totals { endpoint: member.endpoint.id, successes, failures }
        });
        for outlier in detector.sweep(&rules, totals) {
            let member = snapshot.member(outlier);
            if member.is_some_and(|member| cluster.eject(&member.endpoint, rules.max_share)) {
                ejections.inc();
            }
        }
    }
}
