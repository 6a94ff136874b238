//! PostgreSQL: pgbouncer and ours before one server, in transaction pooling.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{Candidate, Measure, Settings, Suite};
use crate::process::{Process, run, run_as};
use crate::{Kind, PATIENCE, Postgres, paths};

const CLIENTS: usize = 64;
const MODES: [&str; 3] = ["simple", "extended", "prepared"];
const SCALE: &str = "10";

pub(super) struct Poolers {
    candidates: Vec<Candidate>,
    _server: Postgres,
}

impl Poolers {
    pub(super) fn start(settings: &Settings) -> Result<Self> {
        let server = Postgres::builder().set("shared_buffers", "512MB").start()?;
        let port = server.address().port().to_string();
        let output = run(Command::new(paths::program("pgbench")?)
            .args(["-q", "-i", "-s", SCALE, "-U", "app", "-p", &port, "-h"])
            .arg(server.socket_folder())
            .arg("shop"))?;
        ensure!(output.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&output.stderr));
        let ours = [("SERVER", server.address().to_string()), ("WORKERS", settings.workers.to_string())];
        let candidates = vec![
            Candidate::direct(server.address()),
            pgbouncer(port)?,
            Candidate::ours(Kind::Postgres, &ours)?,
        ];
        Ok(Self { candidates, _server: server })
    }
}

fn pgbouncer(server_port: String) -> Result<Candidate> {
    Candidate::program("pgbouncer", "pgbouncer.ini", vec![("SERVER_PORT", server_port)], |folder, _| {
        // It refuses to run as root, and reads its files as the user it runs as.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(folder.join("users.txt"), "\"app\" \"secret\"\n")?;
        let mut command = Command::new(paths::program("pgbouncer")?);
        command.arg(folder.join("pgbouncer.ini"));
        run_as(&mut command, "postgres")?;
        Ok(command)
    })
}

impl Suite for Poolers {
    fn title(&self) -> String {
        format!("PostgreSQL: pgbench -S, {CLIENTS} clients on 20 server connections, transaction pooling")
    }

    fn ours(&self) -> Kind {
        Kind::Postgres
    }

    fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn scenarios(&self) -> Vec<String> {
        MODES.map(str::to_owned).to_vec()
    }

    /// pgbench tells its progress each second: measuring begins with the first such line, when every client
    /// has logged in, and ends with the summary.
    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure> {
        let folder = TempDir::new()?;
        let mode = MODES.get(scenario).copied().unwrap_or("simple");
        let mut command = Command::new(paths::program("pgbench")?);
        command.args(["-n", "-S", "-j", "2", "-P", "1", "-M", mode, "-h", "127.0.0.1", "-U", "app"]);
        command.args(["-c", &CLIENTS.to_string(), "-T", &(settings.seconds + 1).to_string()]);
        command.args(["-p", &candidate.address.port().to_string()]);
        command.args(["-l", "--sampling-rate=0.05", "--log-prefix=latency", "shop"]);
        command.env("PGPASSWORD", "secret").current_dir(folder.path());
        let mut pgbench = Process::spawn("pgbench", command)?;

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
        let (p50_us, p99_us) = quantiles(folder.path())?;
        Ok(Measure {
            throughput: transactions / (last.at_s - first.at_s).max(1e-3),
            p50_us,
            p99_us,
            cpu_us: (after.cpu_s - before.cpu_s) * 1e6 / transactions.max(1.0),
            errors: progress.iter().map(|line| line.failed).sum(),
            ..Measure::default()
        })
    }

    fn idle(
        &self,
        candidate: &Candidate,
        connections: usize,
        weigh: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let (host, port) = (candidate.address.ip(), candidate.address.port());
        let login = format!("host={host} port={port} user=app password=secret dbname=shop");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut held = Vec::with_capacity(connections);
            for _ in 0..connections {
                let (client, connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                client.simple_query("SELECT 1").await?;
                held.push(client);
            }
            weigh()
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
        let text = std::fs::read_to_string(file?.path())?;
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
