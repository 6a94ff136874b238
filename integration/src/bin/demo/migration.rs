//! groove-postgres: a database moves to another server and back under pgbench.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, PATIENCE, Postgres, Process, Proxy, Release, paths, run};

use crate::configured;
use crate::table::{Row, Table};

const PROXY: &str = "postgres";
const CLIENTS: &str = "16";
const SECONDS: &str = "8";

/// Shows it.
pub(crate) fn show(table: &mut Table) -> Result<()> {
    let logical = |release| Postgres::builder().release(release).set("wal_level", "logical").start();
    let source = logical(Release::V15)?;
    // The newer server is a package of npm's; where there is none, the database moves to one of the same release.
    let (release, target) = match logical(Release::V18) {
        Ok(target) => (Release::V18, target),
        Err(_) => (Release::V15, logical(Release::V15)?),
    };
    target.sql("postgres", "DROP DATABASE shop")?;
    let port = source.address().port().to_string();
    let output = run(Command::new(paths::program("pgbench")?)
        .args(["-q", "-i", "-s", "1", "-U", "app", "-p", &port, "-h"])
        .arg(source.socket_folder())
        .arg("shop"))?;
    ensure!(output.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&output.stderr));
    let proxy = configured(
        Kind::Postgres,
        "postgres-migration.yaml",
        &[
            ("127.0.0.1:6432", "$LISTEN"),
            ("127.0.0.1:9632", "$ADMIN"),
            ("127.0.0.1:5432", "$SERVER"),
            ("/var/lib/groove/migration", "$DIR/migration"),
        ],
    )?
    .set("SERVER", source.address())
    .start()?;
    migrate(&proxy, "start", &["--to", &target.address().to_string()])?;
    let mut command = Command::new(paths::program("pgbench")?);
    command.args(["-n", "-j", "2", "-c", CLIENTS, "-T", SECONDS, "-P", "1", "-h", "127.0.0.1", "-U", "app"]);
    command.args(["-p", &proxy.address().port().to_string(), "shop"]).env("PGPASSWORD", "secret");
    let mut bench = Process::spawn("pgbench", command)?;
    bench.log().expect("progress: ")?;
    for (action, to) in [("cutover", release), ("rollback", Release::V15)] {
        let said = migrate(&proxy, action, &["--max-pause", "2s"])?;
        let stall = said.split("gate closed for ").nth(1).and_then(|rest| rest.split(" (").next());
        let what = format!("{action} to PostgreSQL {to} under pgbench, {CLIENTS} clients");
        table.push(Row::judged(PROXY, &what, "a short wait", stall.context("no time")?, true));
        let same = said.lines().find_map(|line| line.split("compared as of the switch: ").nth(1));
        let same = same.unwrap_or("not compared");
        table.push(Row::judged(PROXY, "  rows of both", "the same", same, same.contains("are the same")));
    }
    let status = bench.exit(PATIENCE)?;
    let lines = bench.log().lines();
    let number = |head: &str| lines.iter().find_map(|line| line.strip_prefix(head)?.split([' ', '(']).next());
    let failed = number("number of failed transactions: ").unwrap_or("unknown");
    let done = number("number of transactions actually processed: ").unwrap_or_default();
    let failed = if status.success() { failed } else { "aborted" };
    table.push(Row::same(PROXY, "  failed transactions", "0", failed));
    let rows = source.sql("shop", "SELECT count(*) FROM pgbench_history")?;
    table.push(Row::same(PROXY, "  rows that pgbench has written", done, rows));
    Ok(())
}

fn migrate(proxy: &Proxy, action: &str, more: &[&str]) -> Result<String> {
    let file = proxy.config_file().display().to_string();
    let arguments = [&["migrate", action, "--config", &file, "--database", "shop"], more].concat();
    let output = Kind::Postgres.run(&arguments)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "migrate {action}: {said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}
