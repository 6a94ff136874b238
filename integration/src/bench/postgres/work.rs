//! What is measured: pgbench's own `-S`, and scripts for what it has no word for.

use anyhow::Result;

use super::super::{Candidate, Measure};
use super::pgbench::Pgbench;

/// One scenario.
pub(super) struct Work {
    pub(super) name: &'static str,
    clients: usize,
    /// pgbench's `-M`.
    mode: &'static str,
    /// A connection for each transaction.
    reconnects: bool,
    /// What a transaction is, in place of `-S`.
    script: Option<Script>,
}

/// A transaction, and how many operations it counts as.
struct Script {
    text: fn() -> String,
    operations: u32,
}

const fn select(name: &'static str, mode: &'static str, clients: usize) -> Work {
    Work { name, clients, mode, reconnects: false, script: None }
}

pub(super) const WORK: [Work; 13] = [
    select("simple, 1 client", "simple", 1),
    select("simple, 16 clients", "simple", 16),
    select("simple, 64 clients", "simple", 64),
    select("simple, 200 clients", "simple", 200),
    select("extended, 16 clients", "extended", 16),
    select("extended, 64 clients", "extended", 64),
    select("extended, 200 clients", "extended", 200),
    select("prepared, 16 clients", "prepared", 16),
    select("prepared, 64 clients", "prepared", 64),
    select("prepared, 200 clients", "prepared", 200),
    Work { reconnects: true, ..select("connect, query, disconnect", "simple", 8) },
    Work {
        script: Some(Script { text: pipeline, operations: PIPELINED }),
        ..select("a statement of 16 in a pipeline", "extended", 64)
    },
    Work {
        script: Some(Script { text: || STREAM.to_owned(), operations: 1 }),
        ..select("10 MB of rows", "simple", 4)
    },
];

const PIPELINED: u32 = 16;
const STREAM: &str = "SELECT repeat('x', 1000) FROM generate_series(1, 10000);\n";

/// The statement of `-S`, sixteen times before one Sync.
fn pipeline() -> String {
    let numbers = 1..=PIPELINED;
    let set = |n: u32| format!("\\set aid{n} random(1, 1000000)\n");
    let select = |n: u32| format!("SELECT abalance FROM pgbench_accounts WHERE aid = :aid{n};\n");
    let sets: String = numbers.clone().map(set).collect();
    let selects: String = numbers.map(select).collect();
    format!("{sets}\\startpipeline\n{selects}\\endpipeline\n")
}

impl Work {
    pub(super) fn measure(&self, candidate: &Candidate, seconds: u64) -> Result<Measure> {
        let mut pgbench = Pgbench::new(candidate.address, self.clients, self.mode)?;
        if self.reconnects {
            pgbench.arg("-C");
        } else if self.script.is_none() {
            // So many are enough, and what pgbench writes costs all of us.
            pgbench.arg("--sampling-rate=0.05");
        }
        match &self.script {
            Some(script) => pgbench.script(&(script.text)())?,
            None => pgbench.arg("-S"),
        }
        let mut measure = pgbench.measure(candidate, seconds)?;
        let operations = f64::from(self.script.as_ref().map_or(1, |script| script.operations));
        measure.throughput *= operations;
        measure.cpu_us /= operations;
        Ok(measure)
    }
}
