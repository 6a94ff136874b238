//! What is counted of a group.

use groove_common::telemetry::{Counter, Gauge, Histogram, Registry};

/// Of one group.
pub struct GroupMetrics {
    /// Transactions that are committed on the members.
    pub commits: Counter,
    /// Transactions that were to be committed and were not.
    pub aborts: Counter,
    /// Statements that were not carried out, as they would not do the same everywhere.
    pub refused: Counter,
    /// Statements that did something else on a member than on the leader.
    pub mismatches: Counter,
    /// Times a member was set aside.
    pub set_aside: Counter,
    /// Transactions that a member was fed from the log.
    pub fed: Counter,
    /// Members that are in.
    pub members_in: Gauge,
    /// From a COMMIT to its acknowledgement.
    pub commit_seconds: Histogram,
    /// How long transactions waited for those that write the same tables.
    pub lock_seconds: Histogram,
}

impl GroupMetrics {
    /// The series of one group.
    pub fn new(registry: &Registry, database: &str) -> GroupMetrics {
        let labels = [("database", database)];
        let counter = |name, help| registry.counter(name, help, &labels);
        GroupMetrics {
            commits: counter(
                "groove_postgres_replicated_commits",
                "Transactions committed on a group's members",
            ),
            aborts: counter(
                "groove_postgres_replicated_aborts",
                "Transactions with writes that were to be committed and were rolled back",
            ),
            refused: counter(
                "groove_postgres_replicated_refusals",
                "Statements refused because they would not do the same on every member",
            ),
            mismatches: counter(
                "groove_postgres_replicated_mismatches",
                "Statements that did something else on a member than on the leader",
            ),
            set_aside: counter("groove_postgres_members_set_aside", "Times a member was set aside"),
            fed: counter(
                "groove_postgres_replicated_catch_ups",
                "Transactions that members were fed from the log",
            ),
            members_in: registry.gauge("groove_postgres_members_in", "Members that are in", &labels),
            commit_seconds: registry.histogram(
                "groove_postgres_replicated_commit_seconds",
                "From a COMMIT to its acknowledgement: prepared, decided, committed on all members",
                &labels,
            ),
            lock_seconds: registry.histogram(
                "groove_postgres_replicated_lock_seconds",
                "How long transactions waited for those that write the same tables",
                &labels,
            ),
        }
    }
}
