//! What is counted.

use std::time::Duration;

use groove_common::error::{Classified, Kind};
use groove_common::telemetry::{Counter, Gauge, Histogram, Registry};

use crate::error::Error;
use crate::roles::{Lag, Standing};

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
    /// Bytes from clients.
    pub received: Counter,
    /// Bytes from servers.
    pub sent: Counter,
    /// How long transactions took.
    pub transaction_seconds: Histogram,
    /// How long servers were at what clients sent at once.
    pub query_seconds: Histogram,
    /// Cancel requests carried out.
    pub cancels: Counter,
    /// Times that a server was asked what a session has left on its connection.
    pub surveys: Counter,
    /// Notifications handed to sessions that listen through the pool.
    pub notifications: Counter,
    /// Clients that are logged in.
    pub clients: Gauge,
    /// Sessions that listen through the pool.
    pub listening: Gauge,
    /// Channels that these listen to.
    pub channels: Gauge,
    /// Sessions that keep their server connection beyond a transaction, although their pool shares.
    pub pinned: Gauge,
    errors: [Counter; Kind::ALL.len()],
}

impl PoolMetrics {
    /// The series of one pool.
    pub fn new(registry: &Registry, database: &str, user: &str) -> PoolMetrics {
        let labels = [("database", database), ("user", user)];
        let counter = |name, help| registry.counter(name, help, &labels);
        let histogram = |name, help| registry.histogram(name, help, &labels);
        let error = |kind: Kind| {
            let labels = [("database", database), ("user", user), ("kind", kind.label())];
            registry.counter("groove_postgres_errors", "What went wrong, by kind", &labels)
        };
        PoolMetrics {
            transactions: counter("groove_postgres_transactions", "Transactions (in session mode: sessions)"),
            queries: counter("groove_postgres_queries", "Queries, executions and function calls"),
            wait: histogram(
                "groove_postgres_wait_seconds",
                "How long clients waited for a server connection",
            ),
            connects: counter("groove_postgres_server_connects", "Logins on servers"),
            received: counter("groove_postgres_received_bytes", "Bytes from clients that are logged in"),
            sent: counter("groove_postgres_sent_bytes", "Bytes from servers to clients"),
            transaction_seconds: histogram(
                "groove_postgres_transaction_seconds",
                "How long transactions took (in session mode: sessions), from their server connection on",
            ),
            query_seconds: histogram(
                "groove_postgres_query_seconds",
                "How long servers were at what clients sent at once: a statement, or a pipeline of them",
            ),
            cancels: counter("groove_postgres_cancels", "Cancel requests carried out"),
            surveys: counter(
                "groove_postgres_surveys",
                "Times a server was asked what a session has left on its connection",
            ),
            notifications: counter(
                "groove_postgres_notifications",
                "Notifications handed to sessions that listen through their pool",
            ),
            listening: registry.gauge(
                "groove_postgres_listening",
                "Sessions that listen through their pool",
                &labels,
            ),
            channels: registry.gauge(
                "groove_postgres_channels",
                "Channels that sessions listen to through their pool",
                &labels,
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

    /// What the console adds up.
    pub fn totals(&self) -> Totals {
        Totals {
            transactions: self.transactions.get(),
            queries: self.queries.get(),
            received: self.received.get(),
            sent: self.sent.get(),
            transaction_us: micros(self.transaction_seconds.snapshot().sum()),
            query_us: micros(self.query_seconds.snapshot().sum()),
            wait_us: micros(self.wait.snapshot().sum()),
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

/// Counted for each pool whose reads are split from its writes: exchanges, by where they went.
pub struct SplitMetrics {
    /// Reads, to a replica.
    pub replica: Counter,
    /// What may write, to the primary.
    pub primary: Counter,
    /// Reads, to the primary: no replica was known to have what the session had written.
    pub own_writes: Counter,
    /// Reads that failed on a replica and were repeated on the primary.
    pub repeated: Counter,
}

impl SplitMetrics {
    /// The series of one pool.
    pub fn new(registry: &Registry, database: &str, user: &str) -> SplitMetrics {
        let counter = |to| {
            let labels = [("database", database), ("user", user), ("to", to)];
            let help =
                "Transactions by where they went; own_writes and repeated are reads that went to the primary";
            registry.counter("groove_postgres_split", help, &labels)
        };
        SplitMetrics {
            replica: counter("replica"),
            primary: counter("primary"),
            own_writes: counter("own_writes"),
            repeated: counter("repeated"),
        }
    }
}

/// Counted for each database whose servers have roles.
pub struct PrimaryMetrics {
    /// Times that a primary was found: at the start, after a failover, after an outage.
    pub changes: Counter,
}

impl PrimaryMetrics {
    /// The series of one database.
    pub fn new(registry: &Registry, database: &str) -> PrimaryMetrics {
        let help = "Times a primary was found: at the start, after a failover, after an outage";
        PrimaryMetrics {
            changes: registry.counter("groove_postgres_primary_changes", help, &[("database", database)]),
        }
    }
}

/// What is known of one server of such a database.
pub struct ServerMetrics {
    standings: [Gauge; Standing::ALL.len()],
    lag_ms: Gauge,
    lag_bytes: Gauge,
}

impl ServerMetrics {
    /// The series of one server.
    pub fn new(registry: &Registry, database: &str, endpoint: &str) -> ServerMetrics {
        let labels = [("database", database), ("endpoint", endpoint)];
        let standing = |standing: Standing| {
            let labels = [("database", database), ("endpoint", endpoint), ("role", standing.label())];
            registry.gauge(
                "groove_postgres_server_role",
                "1 for what a server is, 0 for what it is not",
                &labels,
            )
        };
        let gauge = |name, help| registry.gauge(name, help, &labels);
        ServerMetrics {
            standings: Standing::ALL.map(standing),
            lag_ms: gauge(
                "groove_postgres_replica_lag_milliseconds",
                "For how long what a replica has not applied has been known of",
            ),
            lag_bytes: gauge("groove_postgres_replica_lag_bytes", "WAL that a replica has not applied"),
        }
    }

    /// What the server is now.
    pub fn standing(&self, now: Standing) {
        for (standing, gauge) in Standing::ALL.iter().zip(&self.standings) {
            gauge.set(i64::from(*standing == now));
        }
    }

    /// How far it is behind; nothing for one that does not follow.
    pub fn lag(&self, lag: Option<Lag>) {
        let ms = lag.map_or(0, |lag| i64::try_from(lag.time.as_millis()).unwrap_or(i64::MAX));
        self.lag_ms.set(ms);
        self.lag_bytes.set(lag.map_or(0, |lag| i64::try_from(lag.bytes).unwrap_or(i64::MAX)));
    }
}

/// Sums over pools, since the program began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Transactions; in session mode sessions.
    pub transactions: u64,
    /// Queries, executions and function calls.
    pub queries: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes from servers.
    pub sent: u64,
    /// Microseconds of transactions.
    pub transaction_us: u64,
    /// Microseconds of those in which something ran.
    pub query_us: u64,
    /// Microseconds that clients waited for server connections.
    pub wait_us: u64,
}

impl Totals {
    /// Each number of both.
    fn zip(self, other: Totals, of: impl Fn(u64, u64) -> u64) -> Totals {
        Totals {
            transactions: of(self.transactions, other.transactions),
            queries: of(self.queries, other.queries),
            received: of(self.received, other.received),
            sent: of(self.sent, other.sent),
            transaction_us: of(self.transaction_us, other.transaction_us),
            query_us: of(self.query_us, other.query_us),
            wait_us: of(self.wait_us, other.wait_us),
        }
    }

    /// What has come since `before`.
    pub fn since(self, before: Totals) -> Totals {
        self.zip(before, u64::saturating_sub)
    }

    /// PgBouncer's averages over a time: counts, bytes and waiting by the second, times by what took them.
    pub fn average(self, time: Duration) -> Totals {
        let time_us = time.as_micros().max(1);
        let a_second = |n: u64| {
            let n = u128::from(n) * 1_000_000 / time_us;
            u64::try_from(n).unwrap_or(u64::MAX)
        };
        Totals {
            transactions: a_second(self.transactions),
            queries: a_second(self.queries),
            received: a_second(self.received),
            sent: a_second(self.sent),
            transaction_us: self.transaction_us.checked_div(self.transactions).unwrap_or(0),
            query_us: self.query_us.checked_div(self.queries).unwrap_or(0),
            wait_us: a_second(self.wait_us),
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        *self = self.zip(other, u64::wrapping_add);
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

/// Whole microseconds.
pub fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_by_the_second_and_times_by_what_took_them() {
        let since = Totals {
            transactions: 20,
            queries: 60,
            received: 1_000,
            sent: 5_000,
            transaction_us: 4_000,
            query_us: 3_000,
            wait_us: 500,
        };
        let expected = Totals {
            transactions: 2,
            queries: 6,
            received: 100,
            sent: 500,
            transaction_us: 200,
            query_us: 50,
            wait_us: 50,
        };
        assert_eq!(since.average(Duration::from_secs(10)), expected);
        let nothing = Totals::default();
        assert_eq!(nothing.average(Duration::ZERO), nothing, "nothing happened in no time");
    }
}
