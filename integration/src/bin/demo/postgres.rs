//! groove-postgres: pgbench with many more clients than server connections.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, PATIENCE, Postgres, Process, Proxy, paths, run};

use crate::configured;
use crate::table::{Row, Table};

const PROXY: &str = "postgres";
const CLIENTS: &str = "64";
/// As in configs/postgres-demo.yaml.
const SERVER_CONNECTIONS: usize = 8;
const SECONDS: &str = "3";

pub(crate) struct Demo {
    server: Postgres,
    proxy: Proxy,
}

impl Demo {
    pub(crate) fn start() -> Result<Self> {
        let server = Postgres::start()?;
        let port = server.address().port().to_string();
        let output = run(Command::new(paths::program("pgbench")?)
            .args(["-q", "-i", "-s", "1", "-U", "app", "-p", &port, "-h"])
            .arg(server.socket_folder())
            .arg("shop"))?;
        ensure!(output.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&output.stderr));
        let addresses =
            [("127.0.0.1:6432", "$LISTEN"), ("127.0.0.1:9632", "$ADMIN"), ("127.0.0.1:5432", "$SERVER")];
        let builder = configured(Kind::Postgres, "postgres-demo.yaml", &addresses)?;
        let proxy = builder.set("SERVER", server.address()).start()?;
        Ok(Self { server, proxy })
    }

    pub(crate) fn by_hand(&self) -> String {
        let (at, admin) = (self.proxy.address(), self.proxy.admin());
        format!("postgres   psql postgresql://app:secret@{at}/shop   admin http://{admin}/")
    }

    pub(crate) fn show(&self, table: &mut Table) -> Result<()> {
        // pgbench waits for each PREPARE with its whole thread: inside transactions that hold every server
        // connection it would wait for itself, so the prepared run is one of single statements.
        for mode in [&["simple"] as &[&str], &["extended"], &["prepared", "-S"]] {
            let bench = self.pgbench(mode)?;
            let what = format!("pgbench -M {}, {CLIENTS} clients", mode.join(" "));
            table.push(Row::judged(
                PROXY,
                &what,
                "0 failed",
                bench.told(),
                bench.failed == 0 && bench.done > 0,
            ));
            let seen = bench.connections_max;
            let good = (1..=SERVER_CONNECTIONS).contains(&seen);
            table.push(Row::judged(
                PROXY,
                "  connections at the server",
                "8 at most",
                seen.to_string(),
                good,
            ));
        }
        // Each transaction of pgbench adds the same amount to an account, a teller and a branch.
        let sums =
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";
        table.push(Row::same(PROXY, "balances add up to the history", "t", self.server.sql("shop", sums)?));
        Ok(())
    }

    fn pgbench(&self, mode: &[&str]) -> Result<Bench> {
        let mut command = Command::new(paths::program("pgbench")?);
        command.args(["-n", "-j", "2", "-c", CLIENTS, "-T", SECONDS, "-P", "1", "-h", "127.0.0.1", "-M"]);
        command.args(mode);
        command.args(["-p", &self.proxy.address().port().to_string(), "-U", "app", "shop"]);
        let mut process = Process::spawn("pgbench", {
            command.env("PGPASSWORD", "secret");
            command
        })?;
        let mut connections_max = 0;
        let mut mark = 0;
        for _ in 0..2 {
            process.log().after(mark, "progress: ")?;
            mark = process.log().mark();
            let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
            connections_max = connections_max.max(self.server.sql("shop", sql)?.parse()?);
        }
        let status = process.exit(PATIENCE)?;
        let lines = process.log().lines();
        let number = |head: &str| -> Option<u64> {
            let rest = lines.iter().find_map(|line| line.strip_prefix(head))?;
            rest.split([' ', '/', '.', '(']).next()?.parse().ok()
        };
        let done = number("number of transactions actually processed: ");
        let done = done.with_context(|| format!("pgbench {status}\n{}", process.log()))?;
        let failed = number("number of failed transactions: ").unwrap_or_default();
        let tps = number("tps = ").unwrap_or_default();
        Ok(Bench { done, failed: failed + u64::from(!status.success()), tps, connections_max })
    }
}

/// What pgbench counted.
struct Bench {
    done: u64,
    failed: u64,
    tps: u64,
    connections_max: usize,
}

impl Bench {
    fn told(&self) -> String {
        format!("{} failed of {}, {} a second", self.failed, self.done, self.tps)
    }
}
