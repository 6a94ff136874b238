//! What is counted.

use groove_common::error::{Classified, Kind};
use groove_common::telemetry::{Counter, Gauge, Histogram, Registry};

use crate::error::Error;

/// Counted for each pool.
pub struct PoolMetrics {
    /// Server connections given back after a transaction (or session).
    pub transactions: Counter,
    /// Queries, executions and function calls.
    pub queries: Counter,
    /// How long clients waited for a server connection.
    pub wait: Histogram,
    /// Logins on servers.
    pub connects: Counter,
    /// Cancel requests carried out.
    pub cancels: Counter,
    /// Times that a server was asked what a session has left on its connection.
    pub surveys: Counter,
    /// Clients that are logged in.
    pub clients: Gauge,
    /// Sessions that keep their server connection beyond a transaction, although their pool shares.
    pub pinned: Gauge,
    errors: [Counter; Kind::ALL.len()],
}

impl PoolMetrics {
    /// The series of one pool.
    pub fn new(registry: &Registry, database: &str, user: &str) -> PoolMetrics {
        let labels = [("database", database), ("user", user)];
        let counter = |name, help| registry.counter(name, help, &labels);
        let error = |kind: Kind| {
            let labels = [("database", database), ("user", user), ("kind", kind.label())];
            registry.counter("groove_postgres_errors", "What went wrong, by kind", &labels)
        };
        PoolMetrics {
            transactions: counter("groove_postgres_transactions", "Transactions (in session mode: sessions)"),
            queries: counter("groove_postgres_queries", "Queries, executions and function calls"),
            wait: registry.histogram(
                "groove_postgres_wait_seconds",
                "How long clients waited for a server connection",
                &labels,
            ),
            connects: counter("groove_postgres_server_connects", "Logins on servers"),
            cancels: counter("groove_postgres_cancels", "Cancel requests carried out"),
            surveys: counter(
                "groove_postgres_surveys",
                "Times a server was asked what a session has left on its connection",
            ),
            clients: registry.gauge("groove_postgres_clients", "Clients that are logged in", &labels),
            pinned: registry.gauge(
                "groove_postgres_pinned",
                "Sessions that keep their server connection for what they have left on it",
                &labels,
            ),
            errors: Kind::ALL.map(error),
        }
    }

    /// Counts an error.
    pub fn failed(&self, error: &Error) {
        let kind = error.kind();
        if let Some(counter) = Kind::ALL.iter().position(|k| *k == kind).and_then(|at| self.errors.get(at)) {
            counter.inc();
        }
    }
}

/// Counted before a client has a pool.
pub struct LoginMetrics {
    /// Logins that failed.
    pub failed: Counter,
    /// Cancel requests that named no session.
    pub stray_cancels: Counter,
}

impl LoginMetrics {
    /// The series of the program.
    pub fn new(registry: &Registry) -> LoginMetrics {
        let counter = |name, help| registry.counter(name, help, &[]);
        LoginMetrics {
            failed: counter("groove_postgres_failed_logins", "Logins that failed"),
            stray_cancels: counter("groove_postgres_stray_cancels", "Cancel requests that named no session"),
        }
    }
}
