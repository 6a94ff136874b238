//! What is counted of a tenant: for its own `stats`, and for the operator's metrics.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use groove_common::telemetry::{Counter, Gauge, Histogram, Registry};

use super::limits::Bound;
use crate::session::state::{Command, Finished};

/// Logins, whoever tried.
#[derive(Debug, Clone)]
pub struct LoginMetrics {
    right: Counter,
    wrong: Counter,
}

impl LoginMetrics {
    /// All series from the start.
    pub fn new(registry: &Registry) -> Self {
        let logins = |result| {
            let help = "Credentials that clients have sent, by what became of them";
            registry.counter("groove_memcached_logins", help, &[("result", result)])
        };
        Self { right: logins("right"), wrong: logins("wrong") }
    }

    /// Counts one.
    pub fn count(&self, is_right: bool) {
        if is_right { &self.right } else { &self.wrong }.inc();
    }
}

/// One tenant's numbers; all workers write them.
#[derive(Debug)]
pub struct Counters {
    commands: Box<[PerCommand]>,
    requests: Counter,
    hits: Counter,
    misses: Counter,
    failures: Counter,
    refused: Box<[Counter]>,
    /// Connections that are open.
    pub sessions: Gauge,
    sessions_begun: Counter,
    /// Logins that were right.
    pub logins: Counter,
    /// Bytes that came from its clients.
    pub read: Counter,
    /// Bytes that went to them.
    pub written: Counter,
    latency: Histogram,
}

/// For `stats`: counted apart, as memcached counts.
#[derive(Debug)]
struct PerCommand {
    requests: Counter,
    hits: Counter,
    misses: Counter,
}

impl Counters {
    /// The series of one tenant.
    pub fn new(registry: &Registry, workers: usize, tenant: &str) -> Arc<Self> {
        let labels = [("tenant", tenant)];
        let per_command = |_: &Command| PerCommand {
            requests: Counter::new(workers),
            hits: Counter::new(workers),
            misses: Counter::new(workers),
        };
        let keys = |result| {
            let help =
                "Keys of a tenant that were found, stored, counted or deleted (hit), or were not (miss)";
            registry.counter("groove_memcached_tenant_keys", help, &[("result", result), ("tenant", tenant)])
        };
        let refused = |bound: &Bound| {
            let help = "What was refused because a tenant was over one of its limits";
            let labels = [("limit", bound.name()), ("tenant", tenant)];
            registry.counter("groove_memcached_tenant_refused", help, &labels)
        };
        let bytes = |direction| {
            let help = "Bytes from a tenant's clients and to them";
            let labels = [("direction", direction), ("tenant", tenant)];
            registry.counter("groove_memcached_tenant_bytes", help, &labels)
        };
        Arc::new(Self {
            commands: Command::ALL.iter().map(per_command).collect(),
            requests: registry.counter("groove_memcached_tenant_requests", "Requests of a tenant", &labels),
            hits: keys("hit"),
            misses: keys("miss"),
            failures: registry.counter(
                "groove_memcached_tenant_failures",
                "Requests of a tenant that no server answered",
                &labels,
            ),
            refused: Bound::ALL.iter().map(refused).collect(),
            sessions: registry.gauge("groove_memcached_tenant_sessions", "A tenant's connections", &labels),
            sessions_begun: Counter::new(workers),
            logins: Counter::new(workers),
            read: bytes("in"),
            written: bytes("out"),
            latency: registry.histogram(
                "groove_memcached_tenant_seconds",
                "From a request of a tenant to its answer",
                &labels,
            ),
        })
    }

    /// Counts an exchange.
    pub fn count(&self, finished: &Finished, took: Duration) {
        self.requests.inc();
        self.latency.record(took);
        let (hits, misses) = (u64::from(finished.hits), u64::from(finished.misses));
        self.hits.add(hits);
        self.misses.add(misses);
        if finished.failure.is_some() {
            self.failures.inc();
        }
        if let Some(command) = self.commands.get(finished.command as usize) {
            command.requests.inc();
            command.hits.add(hits);
            command.misses.add(misses);
        }
    }

    /// From requests to their answers.
    pub fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Counts what was over a limit.
    pub fn count_refused(&self, bound: Bound) {
        if let Some(counter) = self.refused.get(bound as usize) {
            counter.inc();
        }
    }

    /// Counts a connection that begins.
    pub fn begin_session(&self) {
        self.sessions.inc();
        self.sessions_begun.inc();
    }

    /// The tenant's own `stats`, under memcached's names, without `END`.
    pub fn stats(&self, uptime: Duration, time: Duration) -> Bytes {
        let mut text = String::new();
        let mut line = |name: &str, value: u64| {
            // Writing to a text cannot fail.
            _ = write!(text, "STAT {name} {value}\r\n");
        };
        let sum = |commands: &[Command], what: fn(&PerCommand) -> &Counter| -> u64 {
            let counters = commands.iter().filter_map(|command| self.commands.get(*command as usize));
            counters.map(|command| what(command).get()).sum()
        };
        let hits = |commands: &[Command]| sum(commands, |command| &command.hits);
        let misses = |commands: &[Command]| sum(commands, |command| &command.misses);
        let requests = |commands: &[Command]| sum(commands, |command| &command.requests);
        line("uptime", uptime.as_secs());
        line("time", time.as_secs());
        line("curr_connections", u64::try_from(self.sessions.get()).unwrap_or_default());
        line("total_connections", self.sessions_begun.get());
        line("rejected_connections", self.refused.get(Bound::Connections as usize).map_or(0, Counter::get));
        line("cmd_get", hits(GETS) + misses(GETS));
        line("cmd_set", requests(SETS));
        line("cmd_flush", requests(&[Command::FlushAll]));
        line("cmd_touch", hits(TOUCHES) + misses(TOUCHES));
        line("get_hits", hits(GETS));
        line("get_misses", misses(GETS));
        for (name, commands) in [
            ("delete", &[Command::Delete, Command::MetaDelete][..]),
            // Meta clients' `ma` goes up or down; it is counted here.
            ("incr", &[Command::Incr, Command::MetaArith]),
            ("decr", &[Command::Decr]),
            ("cas", &[Command::Cas]),
            ("touch", TOUCHES),
        ] {
            line(&format!("{name}_misses"), misses(commands));
            line(&format!("{name}_hits"), hits(commands));
        }
        line("auth_cmds", self.logins.get());
        line("bytes_read", self.read.get());
        line("bytes_written", self.written.get());
        Bytes::from(text)
    }
}

const GETS: &[Command] = &[Command::Get, Command::Gets, Command::Gat, Command::Gats, Command::MetaGet];

const TOUCHES: &[Command] = &[Command::Touch, Command::Gat, Command::Gats];

const SETS: &[Command] =
    &[Command::Set, Command::Add, Command::Replace, Command::Append, Command::Prepend, Command::Cas];
