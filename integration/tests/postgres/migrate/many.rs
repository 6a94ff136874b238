//! The same with pgbench itself, again and again, and how long its clients had to wait.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use harness::{PATIENCE, Process};
use tokio::task::spawn_blocking;

use super::{Load, Stage};
use crate::failover::figure;

/// There and back so often.
const RUNS: usize = 10;
/// pgbench works for so long, in which a database goes there and back.
const SECONDS: &str = "8";

#[test]
#[ignore = "minutes: ten times there and back with 16 clients of pgbench"]
fn ten_times_there_and_back_with_sixteen_clients() -> Result<()> {
    many_times(16)
}

#[test]
#[ignore = "minutes: ten times there and back with 64 clients of pgbench"]
fn ten_times_there_and_back_with_sixty_four_clients() -> Result<()> {
    many_times(64)
}

fn many_times(clients: usize) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let stage = Stage::start(20)?;
        let mut stage = spawn_blocking(move || stage.done("start", &[]).map(|_| stage)).await??;
        let ledger = Load::start(stage.proxy.address(), 1);
        let (mut written, mut stalls) = (0, Vec::new());
        for run in 1..=RUNS {
            ledger.more(1).await?;
            let (back, done, stall) = spawn_blocking(move || {
                let (done, stall) = once(&stage, clients, run)?;
                Ok::<_, anyhow::Error>((stage, done, stall))
            })
            .await??;
            stage = back;
            written += done;
            stalls.push(stall);
        }
        let tally = ledger.stop().await?;
        ensure!(tally.errors.is_empty(), "{:?}", tally.errors);
        figure(format_args!(
            "{clients} clients, {RUNS} times there and back: the longest waits at a gate were {stalls:?}; the ledger's {:?}",
            tally.stall
        ));
        stage.until_same()?;
        for server in stage.both() {
            let rows = server.sql("shop", "SELECT count(*) FROM pgbench_history WHERE filler IS NULL")?;
            ensure!(rows == written.to_string(), "{rows} rows of {written} transactions");
            let rows = server.sql("shop", "SELECT count(DISTINCT filler) FROM pgbench_history")?;
            ensure!(rows == tally.acknowledged.len().to_string(), "{rows} rows of the ledger");
        }
        stage.done("finish", &[])?;
        Stage::is_clean(&stage.source)
    })
}

/// There and back under pgbench: how many transactions it did, and the longest that one of them took.
fn once(stage: &Stage, clients: usize, run: usize) -> Result<(u64, Duration)> {
    let prefix = stage.proxy.folder().join(format!("pgbench-{run}"));
    let mut command = Command::new(harness::paths::program("pgbench")?);
    command.args(["-n", "-j", "2", "-T", SECONDS, "-P", "1", "-h", "127.0.0.1", "-U", "app", "-l"]);
    command.args(["-c", &clients.to_string(), "-p", &stage.proxy.address().port().to_string()]);
    command.arg(format!("--log-prefix={}", prefix.display())).arg("shop").env("PGPASSWORD", "secret");
    let mut bench = Process::spawn("pgbench", command)?;
    bench.log().expect("progress: ")?;
    let mut gates = Vec::new();
    for action in ["cutover", "rollback"] {
        let mut command = stage.begin(action, &["--max-pause", "2s"])?;
        let steps = command.log().expect("gate closed for")?;
        let opened = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let word = steps.split("gate closed for ").nth(1).and_then(|rest| rest.split(' ').next());
        let closed = Duration::from_secs_f64(word.context("no time")?.parse::<f64>()? / 1000.0);
        gates.push((opened.saturating_sub(closed), opened));
        figure(format_args!("{clients} clients, run {run}, {action}: {}", steps.trim()));
        let status = command.exit(PATIENCE)?;
        ensure!(status.success(), "{}", command.log());
        command.log().expect("are the same on both")?;
    }
    let status = bench.exit(PATIENCE)?;
    let lines = bench.log().lines();
    ensure!(status.success(), "pgbench {status}\n{}", bench.log());
    let number = |head: &str| -> Option<u64> {
        lines.iter().find_map(|line| line.strip_prefix(head))?.split([' ', '(']).next()?.parse().ok()
    };
    let done = number("number of transactions actually processed: ").context("no count")?;
    ensure!(number("number of failed transactions: ") == Some(0), "{}", bench.log());
    let (mut longest, mut stall) = (Duration::ZERO, Duration::ZERO);
    for entry in std::fs::read_dir(stage.proxy.folder())?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&format!("pgbench-{run}.")) {
            continue;
        }
        // client, transaction, microseconds, script, and when it ended: seconds, microseconds.
        for line in std::fs::read_to_string(entry.path())?.lines() {
            let fields: Vec<u64> = line.split(' ').filter_map(|field| field.parse().ok()).collect();
            let &[_, _, took_us, _, end_s, end_us, ..] = fields.as_slice() else { continue };
            let (took, end) =
                (Duration::from_micros(took_us), Duration::from_micros(end_s * 1_000_000 + end_us));
            longest = longest.max(took);
            if gates.iter().any(|(closed, opened)| end >= *closed && end.saturating_sub(took) <= *opened) {
                stall = stall.max(took);
            }
        }
    }
    figure(format_args!(
        "{clients} clients, run {run}: {done} transactions, the longest took {longest:?}, the longest at a gate {stall:?}"
    ));
    Ok((done, stall))
}
