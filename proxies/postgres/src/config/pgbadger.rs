//! Logs that pgbadger reads.

use std::path::PathBuf;

use groove_common::config::{Duration, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;

/// Files that pgbadger makes a report of. They are opened anew by each reload, as whoever rotates them wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pgbadger {
    /// Who came and went, what was refused and how much went through, as PgBouncer logs it; none if left out.
    pub sessions: Option<PathBuf>,
    /// Slow statements, as PostgreSQL logs them, without their literals; none if left out.
    pub statements: Option<PathBuf>,
    /// How often `sessions` is told how much went through.
    pub stats: Duration,
}

impl Default for Pgbadger {
    fn default() -> Pgbadger {
        // pgbadger takes it for granted.
        Pgbadger { sessions: None, statements: None, stats: Duration::from_secs(60) }
    }
}

impl Pgbadger {
    pub(super) fn validate(&self, config: &Config, issues: &mut Issues) {
        if self.statements.is_some() && config.slow_query.is_none() {
            let help = Some("add `slow_query: 500ms`, or leave it out");
            issues.at(&["pgbadger", "statements"], "no statement is slow without a limit", help);
        }
        if self.statements.is_some() && self.statements == self.sessions {
            let help = Some("write another file");
            issues.at(&["pgbadger", "statements"], "each file has a form of its own", help);
        }
        if self.stats.get() < std::time::Duration::from_secs(1) {
            let help = Some("write a length of time, like `60s`");
            issues.at(&["pgbadger", "stats"], "less than a second", help);
        }
    }
}
