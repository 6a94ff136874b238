//! One run of pgbench, and what it tells.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::super::{Candidate, Measure};
use crate::process::Process;
use crate::{PATIENCE, paths};

/// A run that is being put together.
pub(super) struct Pgbench {
    command: Command,
    /// For its script and its log.
    folder: TempDir,
}

impl Pgbench {
    pub(super) fn new(address: SocketAddr, clients: usize, mode: &str) -> Result<Pgbench> {
        let folder = TempDir::new()?;
        let mut command = Command::new(paths::program("pgbench")?);
        command.args(["-n", "-P", "1", "-M", mode, "-U", "app"]);
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()]);
        command.args(["-c", &clients.to_string(), "-j", &clients.min(2).to_string()]);
        command.args(["-l", "--log-prefix=latency"]);
        command.env("PGPASSWORD", "secret").current_dir(folder.path());
        Ok(Pgbench { command, folder })
    }

    pub(super) fn arg(&mut self, arg: &str) {
        self.command.arg(arg);
    }

    /// Runs this in place of a script of its own.
    pub(super) fn script(&mut self, text: &str) -> Result<()> {
        std::fs::write(self.folder.path().join("script.sql"), text)?;
        self.command.args(["-f", "script.sql"]);
        Ok(())
    }

    /// pgbench tells its progress each second: measuring begins with the first such line, when every client has logged
    /// in, and ends with the summary.
    pub(super) fn measure(mut self, candidate: &Candidate, seconds: u64) -> Result<Measure> {
        self.command.args(["-T", &(seconds + 1).to_string(), "shop"]);
        let mut pgbench = Process::spawn("pgbench", self.command)?;

        pgbench.log().expect("progress: ")?;
        let before = candidate.usage()?;
        pgbench.log().expect("transaction type: ")?;
        let after = candidate.usage()?;
        let status = pgbench.exit(PATIENCE)?;
        let lines = pgbench.log().lines();
        let complaint =
            lines.iter().find(|line| line.contains("error:")).map_or("no reason told", String::as_str);
        ensure!(status.success(), "{complaint}\n{}", pgbench.log());

        let progress: Vec<Progress> = lines.iter().filter_map(|line| Progress::parse(line)).collect();
        let [first, .., last] = progress.as_slice() else {
            bail!("pgbench told too little progress\n{}", pgbench.log())
        };
        // Under load a line comes late and tells so; its rate is for the time since the one before.
        let transactions: f64 =
            progress.windows(2).map(|pair| pair.last().map_or(0.0, |now| now.tps) * span(pair)).sum();
        let (p50_us, p99_us) = quantiles(self.folder.path())?;
        Ok(Measure {
            throughput: transactions / (last.at_s - first.at_s).max(1e-3),
            p50_us,
            p99_us,
            cpu_us: (after.cpu_s - before.cpu_s) * 1e6 / transactions.max(1.0),
            errors: progress.iter().map(|line| line.failed).sum(),
            ..Measure::default()
        })
    }
}

/// `progress: 2.0 s, 31234.5 tps, lat 2.041 ms stddev 0.311, 0 failed`
struct Progress {
    at_s: f64,
    tps: f64,
    failed: u64,
}

/// The time between two lines of progress.
fn span(pair: &[Progress]) -> f64 {
    pair.last().map_or(0.0, |line| line.at_s) - pair.first().map_or(0.0, |line| line.at_s)
}

impl Progress {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.strip_prefix("progress: ")?.split(", ");
        let at_s = parts.next()?.strip_suffix(" s")?.parse().ok()?;
        let tps = parts.next()?.strip_suffix(" tps")?.parse().ok()?;
        let failed = parts.nth(1)?.strip_suffix(" failed")?.parse().ok()?;
        Some(Self { at_s, tps, failed })
    }
}

/// Median and 99th percentile of the sampled latencies, the third field of each line, in microseconds.
fn quantiles(folder: &std::path::Path) -> Result<(f64, f64)> {
    let mut latencies: Vec<f64> = Vec::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        if !file.file_name().as_encoded_bytes().starts_with(b"latency") {
            continue;
        }
        let text = std::fs::read_to_string(file.path())?;
        for line in text.lines() {
            let field = line.split_whitespace().nth(2).context("a short line in pgbench's log")?;
            latencies.push(field.parse()?);
        }
    }
    if latencies.is_empty() {
        bail!("pgbench sampled no latency");
    }
    latencies.sort_by(f64::total_cmp);
    let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
    Ok((at(50), at(99)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_lines_are_read() {
        let line = "progress: 2.0 s, 31234.5 tps, lat 2.041 ms stddev 0.311, 3 failed";
        let progress = Progress::parse(line).unwrap();
        assert_eq!((progress.at_s, progress.tps, progress.failed), (2.0, 31234.5, 3));
        assert!(Progress::parse("transaction type: <builtin: select only>").is_none());
    }
}
