//! The logs for pgbadger, read by pgbadger itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, PATIENCE, Postgres, Proxy, Signal, eventually, paths};
use serde_json::Value;
use tokio_postgres::error::SqlState;

use super::{code, connect, connect_as, run};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
databases: {shop: {endpoints: [$SERVER], pool: {size: 1, max_wait: 100ms}}}
users: {app: {password: secret}}
slow_query: 0s
pgbadger: {sessions: $FOLDER/sessions.log, statements: $FOLDER/statements.log, stats: 1s}
";

/// The prefix that docs/postgres.md tells.
const PREFIX: &str = "%m [%p]: user=%u,db=%d,app=%a,client=%h ";

/// What pgbadger makes of a log.
fn report(log: &Path, arguments: &[&str]) -> Result<Value> {
    let out = log.with_extension("json");
    let mut command = Command::new(paths::program("pgbadger")?);
    command.args(["--quiet", "--format"]).args(arguments).args(["--extension", "json", "--outfile"]);
    let output = harness::run(command.arg(&out).arg(log))?;
    ensure!(output.status.success(), "pgbadger: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&fs::read(&out)?).context("pgbadger's report")
}

fn number(report: &Value, place: &str) -> u64 {
    report.pointer(place).and_then(Value::as_u64).unwrap_or_default()
}

#[test]
fn pgbadger_tells_of_sessions_errors_traffic_and_slow_statements() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (sessions, statements) = (folder.path().join("sessions.log"), folder.path().join("statements.log"));
    let server = Postgres::start()?;
    let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address());
    let mut proxy = builder.set("FOLDER", folder.path().display()).start()?;
    run(async {
        let login = "user=app password=secret dbname=shop application_name=till";
        let holder = connect_as(&proxy, login).await?;
        holder.batch_execute("BEGIN; SELECT 'zq12345'").await?;
        let waiting = connect(&proxy, "shop").await?;
        assert_eq!(code(waiting.batch_execute("SELECT 1").await), SqlState::TOO_MANY_CONNECTIONS);
        holder.batch_execute("COMMIT").await?;
        for wrong in ["user=app password=wrong dbname=shop", "user=mallory password=x dbname=shop"] {
            assert_eq!(code(connect_as(&proxy, wrong).await), SqlState::INVALID_PASSWORD);
        }
        Ok(())
    })?;
    logged(&sessions, "closing because: client close request", 2)?;
    eventually("traffic is told", || {
        let log = fs::read_to_string(&sessions).ok()?;
        log.lines().any(|line| line.contains(" stats: ") && !line.contains(" in 0 B/s")).then_some(())
    })?;

    // Whoever rotates logs moves them away and says so.
    let moved = rotated(&sessions, &proxy)?;
    run(async { Ok(connect(&proxy, "shop").await?.batch_execute("SELECT 1").await?) })?;
    logged(&sessions, "login attempt", 1)?;
    ensure!(proxy.signal(Signal::TERM).and_then(|()| proxy.exit(PATIENCE))?.success());

    let told = report(&moved, &["pgbouncer"])?;
    let connections = ["/count", "/user/app", "/user/mallory", "/database/shop", "/host/127.0.0.1"];
    let connections = connections.map(|place| number(&told, &format!("/pgb_connection_info{place}")));
    assert_eq!(connections, [4, 3, 1, 4, 4], "{told}");
    assert_eq!(number(&told, "/pgb_session_info/count"), 4, "{told}");
    assert!(number(&told, "/pgb_overall_stat/queries_number") > 0, "lines of traffic: {told}");
    let errors = told.pointer("/pgb_error_info").and_then(Value::as_object).context("no errors")?;
    let count = |text: &str| {
        errors
            .iter()
            .filter(|(error, _)| error.contains(text))
            .map(|(_, told)| number(told, "/count"))
            .sum::<u64>()
    };
    assert_eq!(count("password authentication failed"), 2, "{told}");
    assert_eq!(count("no server connection became free in time"), 1, "{told}");

    let told = report(&statements, &["stderr", "--prefix", PREFIX])?;
    assert_eq!(number(&told, "/database_info/postgres/shop/count"), 3, "{told}");
    assert_eq!(number(&told, "/application_info/postgres/till/count"), 2, "{told}");
    assert!(!fs::read_to_string(&statements)?.contains("zq12345"));
    Ok(())
}

/// Moves a log away and has the proxy open it anew.
fn rotated(log: &Path, proxy: &Proxy) -> Result<PathBuf> {
    let moved = log.with_extension("1");
    fs::rename(log, &moved)?;
    proxy.signal(Signal::HUP)?;
    eventually("it is there again", || log.exists().then_some(()))?;
    Ok(moved)
}

/// Waits for so many lines with a text.
fn logged(log: &Path, text: &str, count: usize) -> Result<()> {
    eventually(text, || {
        let log = fs::read_to_string(log).ok()?;
        (log.lines().filter(|line| line.contains(text)).count() >= count).then_some(())
    })
}

#[test]
fn a_file_that_cannot_be_written_is_told_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let server = Postgres::start()?;
    let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address());
    let mut proxy = builder.set("FOLDER", folder.path().display()).start()?;
    let mark = proxy.log().mark();
    proxy.set("FOLDER", folder.path().join("nowhere").display());
    proxy.rewrite(CONFIG)?;
    proxy.log().after(mark, "cannot write to")?;
    run(async { Ok(connect(&proxy, "shop").await?.batch_execute("SELECT 1").await?) })?;
    logged(&folder.path().join("sessions.log"), "login attempt", 1)
}
