//! `clusters.X.standby`: servers that join by themselves when the others evict, and leave when they are not needed.

use groove_common::config::{Duration, Endpoint, Endpoints, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Cluster;
use crate::resize::Policy;

/// Servers that stand by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Standby {
    /// Which. They join in this order, behind the cluster's own servers, and leave in the opposite one.
    #[schemars(length(min = 1))]
    pub endpoints: Vec<Endpoint>,
    /// When the next one joins.
    #[serde(default)]
    pub join: Join,
    /// When the last one leaves.
    #[serde(default)]
    pub leave: Leave,
    /// After any change of the servers, before evictions count.
    #[serde(default = "default_settle")]
    pub settle: Duration,
}

/// When a standby server joins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Join {
    /// Evictions of all servers together.
    #[schemars(range(min = 1))]
    pub evictions_per_second: u32,
    /// How long they must go on, without a pause.
    #[serde(rename = "for")]
    pub lasting: Duration,
}

/// When a standby server leaves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Leave {
    /// When all that is stored is less than this part of what the other servers held when they evicted, in percent.
    #[schemars(range(min = 1, max = 95))]
    pub below_percent: u8,
    /// For how long.
    pub after: Duration,
}

fn default_settle() -> Duration {
    Duration::from_secs(60)
}

impl Default for Join {
    fn default() -> Self {
        Self { evictions_per_second: 1, lasting: Duration::from_secs(60) }
    }
}

impl Default for Leave {
    fn default() -> Self {
        Self { below_percent: 70, after: Duration::from_secs(600) }
    }
}

impl Standby {
    pub(super) fn check(&self, name: &str, cluster: &Cluster, issues: &mut Issues) {
        let at = ["clusters", name, "standby"];
        let resize = cluster.resize.as_ref();
        if !resize.is_some_and(|resize| resize.policy == Policy::Transparent && resize.state.is_some()) {
            let help = "add `resize: {state: FOLDER}`";
            issues.at_key(&at, "standby servers join through a transparent resize", Some(help));
        }
        let servers = ["clusters", name, "standby", "endpoints"];
        Endpoints::Static(self.endpoints.clone()).check(&servers, issues);
        cluster.hash.check_weights(&servers, &self.endpoints, issues);
        if let Endpoints::Static(listed) = &cluster.endpoints {
            let is_listed = |server: &Endpoint| listed.iter().any(|it| it.address == server.address);
            for (index, _) in self.endpoints.iter().enumerate().filter(|(_, server)| is_listed(server)) {
                let number = index.to_string();
                let path = [&servers[..], &[&number]].concat();
                let help = "list it in `endpoints` or in `standby`";
                issues.at(&path, "this server is in service all the time", Some(help));
            }
        }
        let least = Duration::from_secs(1);
        let (join, leave) = (self.join.lasting, self.leave.after);
        for (time, section, key, help) in
            [(join, "join", "for", "write `1m`"), (leave, "leave", "after", "write `10m`")]
        {
            if time < least {
                let path = ["clusters", name, "standby", section, key];
                issues.at(&path, "servers are asked once a second at most", Some(help));
            }
        }
    }
}
