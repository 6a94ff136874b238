//! A database moves from PostgreSQL 15 to 18 and back while its clients go on; the command that moves it is killed; and
//! what stands in the way is told before anything is touched.

mod awkward;
mod kills;
mod load;
mod many;
mod moves;

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use harness::{Kind, Postgres, Process, Proxy, Release};

use load::Load;

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
databases:
  shop: {endpoints: [$SOURCE], pool: {size: $SIZE}}
  alias: {endpoints: [$SOURCE], dbname: shop, pool: {size: 4}}
users: {app: {password: secret}}
migration: {folder: $DIR/migration, user: postgres, password: secret}
";

/// A server of either release, and the proxy before the older one.
struct Stage {
    source: Postgres,
    target: Postgres,
    proxy: Proxy,
}

impl Stage {
    /// With so many server connections at most, and pgbench's tables.
    fn start(size: usize) -> Result<Stage> {
        let stage = Stage::bare(size)?;
        let output = harness::run(
            Command::new(harness::paths::program("pgbench")?)
                .args(["-i", "-q", "-h", "127.0.0.1", "-U", "app", "-p"])
                .args([&stage.source.address().port().to_string(), "shop"])
                .env("PGPASSWORD", "secret"),
        )?;
        ensure!(output.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&output.stderr));
        let table = "CREATE TABLE tickets (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who text NOT NULL); \
                     ALTER TABLE tickets OWNER TO app";
        stage.source.sql("shop", table)?;
        Ok(stage)
    }

    /// Nothing is in the database.
    fn bare(size: usize) -> Result<Stage> {
        let logical = |release| {
            Postgres::builder()
                .release(release)
                .set("wal_level", "logical")
                .set("max_prepared_transactions", "4")
                .start()
        };
        let (source, target) = (logical(Release::V15)?, logical(Release::V18)?);
        target.sql("postgres", "DROP DATABASE shop")?;
        let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SIZE", size);
        let proxy = builder.set("SOURCE", source.address()).start()?;
        Ok(Stage { source, target, proxy })
    }

    fn arguments(&self, action: &str, more: &[&str]) -> Vec<String> {
        let file = self.proxy.config_file().display().to_string();
        let mut arguments =
            ["migrate", action, "--config", &file, "--database", "shop"].map(str::to_owned).to_vec();
        if matches!(action, "plan" | "start") {
            arguments.extend(["--to".to_owned(), self.target.address().to_string()]);
        }
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        arguments
    }

    /// Runs a verb to its end, however that is.
    fn migrate(&self, action: &str, more: &[&str]) -> Result<Output> {
        Kind::Postgres.run(&self.arguments(action, more))
    }

    /// Runs a verb that has to succeed; what it printed.
    fn done(&self, action: &str, more: &[&str]) -> Result<String> {
        let output = self.migrate(action, more)?;
        ensure!(
            output.status.success(),
            "migrate {action}: {}{}\n{}",
            text(&output.stdout),
            text(&output.stderr),
            self.proxy.log()
        );
        Ok(text(&output.stdout))
    }

    /// Runs a verb that has to fail; what it said.
    fn refused(&self, action: &str, more: &[&str]) -> Result<String> {
        let output = self.migrate(action, more)?;
        ensure!(!output.status.success(), "migrate {action} succeeded: {}", text(&output.stdout));
        Ok(text(&output.stdout) + &text(&output.stderr))
    }

    /// Begins a verb.
    fn begin(&self, action: &str, more: &[&str]) -> Result<Process> {
        let mut command = Command::new(Kind::Postgres.binary()?);
        command.args(self.arguments(action, more));
        Process::spawn(format!("migrate {action}"), command)
    }

    /// How far it is, by the journal.
    fn status(&self) -> Result<serde_json::Value> {
        let output = self.migrate("status", &["--json"])?;
        ensure!(output.status.success(), "status: {}", text(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    fn phase(&self) -> Result<serde_json::Value> {
        self.status()?.pointer("/migration/phase").cloned().context("no phase")
    }

    /// The journal itself, which is quicker to have than its status: a line of the store's, and JSON.
    fn journal(&self) -> Result<serde_json::Value> {
        let text = std::fs::read_to_string(self.proxy.folder().join("migration/data/migration+shop"))?;
        let (_, journal) = text.split_once('\n').context("an empty journal")?;
        Ok(serde_json::from_str(journal)?)
    }

    /// Both servers.
    fn both(&self) -> [&Postgres; 2] {
        [&self.source, &self.target]
    }

    /// Both have the same rows, and what clients were told is among them, once.
    fn compare(&self, load: &load::Tally) -> Result<()> {
        let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), \
                    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)";
        for server in self.both() {
            let written = server.sql("shop", "SELECT trim(filler) FROM pgbench_history ORDER BY 1")?;
            let mut written: Vec<&str> = written.lines().filter(|line| !line.is_empty()).collect();
            let count = written.len();
            written.dedup();
            ensure!(written.len() == count, "{} rows are doubled", count - written.len());
            let mut acknowledged = load.acknowledged.clone();
            acknowledged.sort();
            ensure!(
                acknowledged.iter().eq(written.iter()),
                "{} acknowledged, {} written",
                acknowledged.len(),
                written.len()
            );
            let sums = server.sql("shop", sums)?;
            let sums: Vec<&str> = sums.split('|').collect();
            ensure!(sums.windows(2).all(|pair| pair.first() == pair.last()), "half a transaction: {sums:?}");
            let tickets = server.sql("shop", "SELECT count(*), count(DISTINCT who) FROM tickets")?;
            ensure!(tickets == format!("{count}|{count}"), "tickets {tickets} instead of {count}");
        }
        Ok(())
    }

    /// Waits until what is on one side is on the other.
    fn until_same(&self) -> Result<()> {
        harness::eventually("the same rows on both sides", || {
            let counts = "SELECT count(*) FROM pgbench_history";
            let [source, target] = self.both().map(|server| server.sql("shop", counts).ok());
            (source.is_some() && source == target).then_some(())
        })
    }

    /// Nothing of a migration's is there.
    fn is_clean(server: &Postgres) -> Result<()> {
        Stage::is_clean_but_for(server, "")
    }

    fn is_clean_but_for(server: &Postgres, but_for: &str) -> Result<()> {
        let left = server.sql(
            "shop",
            "SELECT 'slot ' || slot_name FROM pg_replication_slots UNION ALL SELECT 'publication ' || pubname \
             FROM pg_publication UNION ALL SELECT 'subscription ' || subname FROM pg_subscription UNION ALL \
             SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'groove%' UNION ALL \
             SELECT 'trigger ' || evtname FROM pg_event_trigger UNION ALL SELECT 'identity of ' || relname \
             FROM pg_class WHERE relreplident = 'f' UNION ALL SELECT 'origin ' || roname FROM pg_replication_origin \
             UNION ALL SELECT 'setting ' || setting FROM pg_file_settings WHERE sourcefile LIKE '%auto.conf'",
        )?;
        ensure!(left.is_empty() || left == but_for, "left behind: {left}");
        Ok(())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
