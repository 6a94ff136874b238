//! A database as a group of servers that each carry out every write.

use std::path::PathBuf;

use groove_common::config::{Duration, Endpoints, Issues, Secret, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Auth, Config, Database, Role};

/// Every write on every server: the database's endpoints are the members of the group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replicate {
    /// When a commit is acknowledged.
    #[serde(default)]
    pub mode: ReplicateMode,
    /// The folder of the durable log: on a disk of this machine, for this group alone.
    pub log: PathBuf,
    /// The log is begun anew when it is longer, and a member that has not caught up by then is left behind.
    #[serde(default = "default_log_max")]
    pub log_max: Size,
    /// A superuser of the members, who prepares, recovers and compares them.
    #[schemars(length(min = 1))]
    pub user: String,
    /// What proves it.
    #[serde(default)]
    pub password: Option<Secret>,
    /// How long a transaction waits for those that write the same tables.
    #[serde(default = "default_lock_wait")]
    pub lock_wait: Duration,
    /// A member that is later than the leader by more is set aside.
    #[serde(default = "default_member_wait")]
    pub member_wait: Duration,
    /// Between two looks at each member.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// Client sessions at most: each has a connection to each member that it writes to.
    #[serde(default = "default_sessions")]
    #[schemars(range(min = 1, max = 100_000))]
    pub sessions: u32,
}

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReplicateMode {
    /// When it is in the log, and on every member that is in.
    #[default]
    Synchronous,
}

fn default_log_max() -> Size {
    Size::mib(1024)
}

fn default_lock_wait() -> Duration {
    Duration::from_secs(30)
}

fn default_member_wait() -> Duration {
    Duration::from_secs(5)
}

fn default_interval() -> Duration {
    Duration::from_millis(500)
}

fn default_sessions() -> u32 {
    50
}

impl Config {
    pub(super) fn validate_replicate(&self, issues: &mut Issues) {
        let mut folders = Vec::new();
        for (name, database) in &self.databases {
            let Some(replicate) = &database.replicate else { continue };
            let at = ["databases", name, "replicate"];
            database.validate_replicate(replicate, &at, issues);
            if folders.contains(&&replicate.log) {
                let help = Some("give each group a folder of its own");
                issues.at(&[&at[..], &["log"]].concat(), "another group has its log there", help);
            }
            folders.push(&replicate.log);
            if self.auth == Auth::Passthrough {
                let help = Some("write `auth: password`");
                let message = "a client's password has to be known here, as it logs in on every member";
                issues.at(&["auth"], message, help);
            }
        }
    }
}

impl Database {
    fn validate_replicate(&self, replicate: &Replicate, at: &[&str], issues: &mut Issues) {
        let path = |key: &'static str| [at, &[key]].concat();
        match &self.endpoints {
            Endpoints::Static(members) if members.len() >= 2 => {}
            Endpoints::Static(_) => {
                let help = Some("list two endpoints or more, or leave `replicate` out");
                issues.at_key(at, "a group has two members at the least", help);
            }
            Endpoints::Dns(_) | Endpoints::Elasticache(_) | Endpoints::File(_) | Endpoints::Embedded(_) => {
                let help = Some("list the members under `endpoints`");
                issues.at_key(at, "the members of a group do not come and go by themselves", help);
            }
        }
        if self.role != Role::Any {
            let help = Some("leave `role` out");
            issues.at_key(at, "members of a group are all written to, none is another's replica", help);
        }
        if !replicate.log.is_absolute() {
            let help = Some("write the whole path");
            issues.at(&path("log"), "the folder would depend on where the proxy is started", help);
        }
        if replicate.log_max.bytes() < 1 << 20 {
            issues.at(&path("log_max"), "too short to catch up from", Some("write `64MiB` or more"));
        }
        let times = [
            ("lock_wait", replicate.lock_wait),
            ("member_wait", replicate.member_wait),
            ("interval", replicate.interval),
        ];
        for (key, _) in times.iter().filter(|(_, time)| time.is_zero()) {
            issues.at(&path(key), "no time at all", Some("write a length of time, like `5s`"));
        }
    }
}

#[cfg(test)]
mod tests {
    use groove_common::config::check_text;

    use super::*;

    fn told(database: &str, rest: &str) -> String {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:6432}}]\ndatabases: {{shop: {database}{rest}}}\nusers: {{app: {{password: secret}}}}\n"
        );
        match check_text::<Config>("test", &text) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_group_that_cannot_be_is_refused_with_every_reason() {
        let good = "{endpoints: [127.0.0.1:1, 127.0.0.1:2], replicate: {log: /var/lib/g, user: postgres}}";
        assert_eq!(told(good, ""), "");
        for (database, expected) in [
            (
                "{endpoints: [127.0.0.1:1], replicate: {log: /g, user: p}}",
                "a group has two members at the least",
            ),
            (
                "{endpoints: {dns: a.test:1}, replicate: {log: /g, user: p}}",
                "do not come and go by themselves",
            ),
            (
                "{endpoints: [127.0.0.1:1, 127.0.0.1:2], replicate: {log: g, user: p}}",
                "would depend on where the proxy is started",
            ),
            (
                "{endpoints: [127.0.0.1:1, 127.0.0.1:2], role: primary, replicate: {log: /g, user: p}}",
                "none is another's replica",
            ),
            (
                "{endpoints: [127.0.0.1:1, 127.0.0.1:2], replicate: {log: /g, user: p, lock_wait: 0s}}",
                "no time at all",
            ),
            (
                "{endpoints: [127.0.0.1:1, 127.0.0.1:2], replicate: {log: /g, user: p, log_max: 1KiB}}",
                "too short to catch up from",
            ),
            ("{endpoints: [127.0.0.1:1, 127.0.0.1:2], replicate: {user: p}}", "log"),
            (
                "{endpoints: [127.0.0.1:1, 127.0.0.1:2], replicate: {log: /g, user: p, mode: asynchronous}}",
                "asynchronous",
            ),
        ] {
            let told = told(database, "");
            assert!(told.contains(expected), "{database}: {told}");
        }
        let two = format!(", other: {good}");
        assert!(told(good, &two).contains("another group has its log there"));
    }
}
