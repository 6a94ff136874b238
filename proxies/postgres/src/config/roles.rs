//! Which of a database's servers are wanted, where they are copies of each other.

use groove_common::config::{Duration, EndpointRole, Endpoints, Issues, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Database, PoolMode};
use crate::roles::Wish;

/// What connections are wanted to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Any server that is well. None is asked what it is.
    #[default]
    Any,
    /// The one that takes writes; it is followed when it moves.
    Primary,
    /// Those that follow it closely enough.
    Replica,
    /// Statements that only read go to replicas, all others to the primary.
    Split,
}

/// What becomes of statements where reads and writes are split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// Whether what a session has written is in everything that it reads.
    pub read_your_writes: bool,
    /// Functions that only read, beside PostgreSQL's own: `name` in any schema, or `schema.name`.
    #[schemars(inner(length(min = 1)))]
    pub read_only_functions: Vec<String>,
}

/// How the servers are asked what they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Monitor {
    /// As whom; left out, as one whose clients use the database.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Between two questions to a server while all is well.
    pub interval: Duration,
    /// For an answer, a login included.
    pub timeout: Duration,
}

impl Default for Monitor {
    fn default() -> Monitor {
        Monitor {
            user: None,
            password: None,
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(1),
        }
    }
}

/// Which replicas are read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Replicas {
    /// One that is further behind is left out until it has caught up; null: however far.
    pub max_lag: Option<Duration>,
    /// Whether the primary does where there is no replica.
    pub or_primary: bool,
}

impl Default for Replicas {
    fn default() -> Replicas {
        Replicas { max_lag: Some(Duration::from_secs(10)), or_primary: true }
    }
}

impl Database {
    /// What a lease wants of its server.
    pub fn wish(&self) -> Wish {
        match self.role {
            Role::Any => Wish::Any,
            // Who only reads leases elsewhere, see `upstream::split`.
            Role::Primary | Role::Split => Wish::Primary,
            Role::Replica => Wish::Replica { or_primary: self.replicas.or_primary },
        }
    }

    pub(super) fn validate_roles(&self, at: &[&str], issues: &mut Issues) {
        let path = |rest: &[&'static str]| [at, rest].concat();
        if self.role == Role::Any {
            let help = Some("write `role: primary`, or leave it out");
            for (key, is_written) in [
                ("monitor", self.monitor != Monitor::default()),
                ("replicas", self.replicas != Replicas::default()),
            ] {
                if is_written {
                    let message = "servers are not asked what they are where any will do";
                    issues.at_key(&[at, &[key]].concat(), message, help);
                }
            }
        }
        if self.role == Role::Primary && self.replicas != Replicas::default() {
            let help = Some("write `role: replica`, or leave it out");
            issues.at_key(&path(&["replicas"]), "no replica is read from where the primary is wanted", help);
        }
        self.validate_split(at, issues);
        if self.monitor.password.is_some() && self.monitor.user.is_none() {
            let help = Some("add `user`");
            issues.at_key(&path(&["monitor", "password"]), "it is not said whose this is", help);
        }
        let times = [("interval", self.monitor.interval), ("timeout", self.monitor.timeout)];
        for (key, _) in times.iter().filter(|(_, time)| time.is_zero()) {
            let help = Some("write a length of time, like `500ms`");
            issues.at(&[at, &["monitor", key]].concat(), "no time at all", help);
        }
        if self.replicas.max_lag.is_some_and(Duration::is_zero) {
            let help = Some("write a length of time, like `10s`, or `null` for any lag");
            issues.at(&path(&["replicas", "max_lag"]), "no replica is never behind", help);
        }
        self.validate_declared(at, issues);
    }

    fn validate_split(&self, at: &[&str], issues: &mut Issues) {
        let path = |rest: &[&'static str]| [at, rest].concat();
        if self.role != Role::Split {
            if self.split != Split::default() {
                let help = Some("write `role: split`, or leave it out");
                issues.at_key(&path(&["split"]), "reads and writes go to the same servers", help);
            }
            return;
        }
        if self.pool.mode == PoolMode::Session {
            let help = Some("write `mode: transaction`, or `role: primary`");
            let message = "a session has one server connection here, for reads and writes";
            issues.at(&path(&["pool", "mode"]), message, help);
        }
        for (index, name) in self.split.read_only_functions.iter().enumerate() {
            if name.split('.').count() > 2 || name.split('.').any(str::is_empty) {
                let index = index.to_string();
                let at = [at, &["split", "read_only_functions", &index]].concat();
                issues.at(&at, "not a function's name", Some("write `name`, or `schema.name`"));
            }
        }
        if let (true, Endpoints::Static(list)) = (self.split.read_your_writes, &self.endpoints)
            && list.iter().any(|endpoint| endpoint.role.is_some())
        {
            let help = Some("leave `role` out where servers are listed, so that they are asked");
            let message = "a server whose role is declared is not asked how far it has come";
            issues.at(&path(&["split", "read_your_writes"]), message, help);
        }
    }

    fn validate_declared(&self, at: &[&str], issues: &mut Issues) {
        let Endpoints::Static(list) = &self.endpoints else { return };
        let mut primaries = 0;
        for (index, endpoint) in list.iter().enumerate() {
            let index = index.to_string();
            let at = [at, &["endpoints", &index, "role"]].concat();
            match endpoint.role {
                Some(_) if self.role == Role::Any => {
                    let help = Some("give the database a `role`, or leave it out");
                    issues.at_key(&at, "nothing depends on it where any server will do", help);
                }
                Some(EndpointRole::Primary) => {
                    primaries += 1;
                    if primaries == 2 {
                        let help = Some("leave it out, and the servers are asked");
                        issues.at(&at, "another endpoint is the primary already", help);
                    }
                }
                Some(EndpointRole::Replica) | None => {}
            }
        }
        let is_replica =
            |endpoint: &groove_common::config::Endpoint| endpoint.role == Some(EndpointRole::Replica);
        if matches!(self.role, Role::Primary | Role::Split) && !list.is_empty() && list.iter().all(is_replica)
        {
            let help = Some("leave `role` out where servers change theirs");
            issues.at(&[at, &["endpoints"]].concat(), "none of these can be the primary", help);
        }
    }
}
