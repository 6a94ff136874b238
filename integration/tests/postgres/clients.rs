//! pgbench, psql, psycopg and asyncpg.

use std::process::Command;

use anyhow::{Result, ensure};
use harness::{Kind, Postgres, Proxy, paths, python};

use super::{TRUSTING, proxy};

pub(super) fn pgbench(port: u16, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(paths::program("pgbench")?);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "app"]).env("PGPASSWORD", "secret");
    let output = harness::run(command.args(arguments).arg("shop"))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbench {arguments:?}: {said}");
    Ok(said)
}

#[test]
fn pgbench_with_two_hundred_clients_on_twenty_connections() -> Result<()> {
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    pgbench(proxy.address().port(), &["-i", "-q", "-s", "1"])?;
    for mode in ["simple", "extended", "prepared"] {
        let said = pgbench(proxy.address().port(), &["-n", "-M", mode, "-c", "200", "-j", "2", "-t", "20"])?;
        ensure!(said.contains("actually processed: 4000/4000"), "{mode}: {said}");
        ensure!(!said.contains("error"), "{mode}: {said}");
    }
    // One thread, which prepares synchronously: what it prepares must not wait for those it keeps waiting.
    for _ in 0..3 {
        let said =
            pgbench(proxy.address().port(), &["-n", "-M", "prepared", "-c", "60", "-j", "1", "-t", "5"])?;
        ensure!(said.contains("actually processed: 300/300"), "{said}");
    }
    let connections = server.sql("shop", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")?;
    ensure!(connections.parse::<u32>()? <= 20, "{connections} connections");
    Ok(())
}

#[test]
fn psql_runs_a_script_with_errors_notices_and_copy() -> Result<()> {
    const SCRIPT: &str = "
        \\set VERBOSITY sqlstate
        CREATE TABLE t (n int);
        COPY t FROM STDIN;\n1\n2\n\\.
        SELECT sum(n) FROM t;
        SELECT 1/0;
        DO $$ BEGIN RAISE NOTICE 'heard'; END $$;
        BEGIN; SELECT nonsense; SELECT 1; ROLLBACK;
        \\copy t to stdout
        SELECT 1 AS one \\gdesc
    ";
    let (server, proxy) = proxy(1)?;
    let psql = |port: u16, database: &str| -> Result<String> {
        let script = server.socket_folder().join(format!("script-{port}"));
        std::fs::write(&script, SCRIPT.replace("        ", ""))?;
        let mut command = Command::new(paths::program("psql")?);
        command.args(["-XAtq", "-h", "127.0.0.1", "-U", "app", "-p", &port.to_string(), "-f"]).arg(&script);
        let output = harness::run(command.args(["-d", database]).env("PGPASSWORD", "secret"))?;
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(said.replace(&format!("script-{port}"), "script"))
    };
    let direct = psql(server.address().port(), "shop")?;
    ensure!(direct.contains("22012") && direct.contains("NOTICE"), "the script tests nothing: {direct}");
    server.sql("shop", "DROP TABLE t")?;
    assert_eq!(psql(proxy.address().port(), "shop")?, direct);
    Ok(())
}

/// psql looks for notifications when a query is over: what was sent by then has to be there.
#[test]
fn psql_is_told_what_it_listens_to() -> Result<()> {
    let (server, proxy) = proxy(1)?;
    let psql = |port: u16| -> Result<String> {
        let mut command = Command::new(paths::program("psql")?);
        command.args(["-XAtq", "-h", "127.0.0.1", "-U", "app", "-p", &port.to_string(), "-d", "shop"]);
        for sql in [
            "LISTEN one",
            "NOTIFY one, 'first'",
            "BEGIN",
            "LISTEN two; NOTIFY two, 'second'; NOTIFY one",
            "COMMIT",
            "SELECT pg_notify('two', 'third')",
            "BEGIN; UNLISTEN one; ROLLBACK; NOTIFY one, 'fourth'",
            "UNLISTEN *",
            "NOTIFY one, 'unheard'",
            "SELECT 1",
        ] {
            command.args(["-c", sql]);
        }
        let output = harness::run(command.env("PGPASSWORD", "secret"))?;
        let said = String::from_utf8(output.stdout)?;
        // Whose process sent it is told, too.
        Ok(said
            .lines()
            .map(|line| line.split(" from server").next().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n"))
    };
    let direct = psql(server.address().port())?;
    for payload in ["first", "second", "third", "fourth"] {
        ensure!(direct.contains(payload), "psql itself is not told: {direct}");
    }
    assert_eq!(psql(proxy.address().port())?, direct);
    Ok(())
}

#[test]
fn psycopg_asyncpg_and_sqlalchemy_are_content() -> Result<()> {
    let (_server, proxy) = proxy(3)?;
    let counts = python::pytest(
        "postgres clients",
        &paths::repository().join("integration/python"),
        &["postgres_clients.py"],
        &[("GROOVE_PORT", proxy.address().port().to_string())],
    )?;
    assert_eq!((counts.failed, counts.skipped), (0, 0));
    assert!(counts.passed >= 14, "{counts:?}");
    Ok(())
}
