//! `groove-postgres tap`, the slow-query log and the histograms, as an operator uses them.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::{SinkExt, pin_mut};
use harness::{Kind, PATIENCE, Postgres, Process, Proxy, Signal, eventually};
use serde_json::Value;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::clients::pgbench;
use super::{CONFIG, TRUSTING, code, connect, connect_as, proxy, run};

/// Watches the proxy with these arguments, once it is known to do so.
fn watch(proxy: &Proxy, arguments: &[&str]) -> Result<Process> {
    let before = watchers(proxy)?;
    let mut command = Command::new(Kind::Postgres.binary()?);
    command.args(["tap", "--admin", &proxy.admin().to_string()]).args(arguments);
    let process = Process::spawn("tap", command)?;
    eventually("it watches", || watchers(proxy).ok().filter(|count| *count > before))?;
    Ok(process)
}

fn watchers(proxy: &Proxy) -> Result<f64> {
    proxy.metrics()?.sum("groove_postgres_tap_watchers", &[]).context("nobody counts watchers")
}

fn parsed(process: &Process) -> Vec<Value> {
    process.log().lines().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// What is told of each statement: what it says, how many rows, how it ended.
fn told(line: &Value) -> (String, u64, String) {
    let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let outcome = line.get("sqlstate").and_then(Value::as_str).map(str::to_owned);
    (text("query"), number(line, "rows"), outcome.unwrap_or_else(|| text("outcome")))
}

fn number(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The next so many statements, from this place on.
fn statements(process: &Process, from: usize, count: usize) -> Result<Vec<Value>> {
    let lines = eventually("so many lines", || {
        let lines = parsed(process);
        (lines.len() >= from + count).then_some(lines)
    })?;
    Ok(lines.into_iter().skip(from).collect())
}

#[test]
fn each_statement_is_shown_and_no_literal() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(2)?;
        connect(&proxy, "shop").await?.batch_execute("CREATE TABLE t (a int, b text)").await?;
        let all = watch(&proxy, &["--sample", "100%", "--json"])?;
        let other = watch(&proxy, &["--sample", "1/1", "--user", "legacy"])?;
        let mut from = 0;
        for database in ["shop", "own", "single"] {
            let login = format!("user=app password=secret dbname={database} application_name=ours");
            let client = connect_as(&proxy, &login).await?;
            client.batch_execute("SELECT generate_series(1, 7), 'zq12345' /* zq12345 */").await?;
            let insert = client.prepare("INSERT INTO t VALUES ($1, 'zq12345'), (12345, $2)").await?;
            for _ in 0..2 {
                client.execute(&insert, &[&12345, &"zq12345"]).await?;
            }
            // One after the other in one piece.
            let queries = (0..3).map(|_| client.execute(&insert, &[&12345, &"zq12345"]));
            try_join_all(queries).await?;
            assert_eq!(
                code(client.execute("SELECT 12345 / $1::int", &[&0]).await),
                SqlState::DIVISION_BY_ZERO
            );
            assert_eq!(code(client.prepare("SELECT zq, 'zq12345'").await), SqlState::UNDEFINED_COLUMN);
            assert_eq!(code(client.batch_execute("SELECT 'zq12345").await), SqlState::SYNTAX_ERROR);
            client.batch_execute("SELECT 1; UPDATE t SET a = 12345; SELECT true").await?;
            let sink = client.copy_in("COPY t FROM STDIN (DELIMITER ',')").await?;
            pin_mut!(sink);
            sink.send(bytes::Bytes::from_static(b"12345,zq12345\n")).await?;
            sink.finish().await?;
            let inserted = ("insert into t values (?, ?)".to_owned(), 2, "done".to_owned());
            let row = |text: &str, rows, outcome: &str| (text.to_owned(), rows, outcome.to_owned());
            let mut wanted = vec![row("select generate_series(?, ?), ?", 7, "done")];
            wanted.extend(vec![inserted; 5]);
            wanted.push(row("select ? / ? :: int", 0, "22012"));
            // What has failed to be prepared in session mode is nobody's.
            if database != "own" {
                wanted.push(row("select zq, ?", 0, "42703"));
            }
            wanted.push(row("select ?", 0, "42601"));
            let rows =
                2 + [10, 21, 32][["shop", "own", "single"].iter().position(|n| *n == database).unwrap_or(0)];
            wanted.push(row("select ?; update t set a = ?; select ?", rows, "done"));
            wanted.push(row("copy t from stdin(delimiter ?)", 1, "done"));
            let seen = statements(&all, from, wanted.len())?;
            from += wanted.len();
            assert_eq!(seen.iter().map(told).collect::<Vec<_>>(), wanted, "{database}");
            for line in &seen {
                assert_eq!(line.get("database").and_then(Value::as_str), Some(database));
                assert_eq!(line.get("application_name").and_then(Value::as_str), Some("ours"));
                assert_eq!(line.get("server").and_then(Value::as_str), Some(&*server.address().to_string()));
            }
            let together: Vec<_> = seen.iter().map(|line| number(line, "together")).collect();
            assert!(together.iter().all(|count| (1..=3).contains(count)), "{together:?}");
        }
        let shown = all.log().lines().concat();
        ensure!(
            !shown.contains("12345\"") && !shown.contains("zq12345"),
            "nobody is shown a literal: {shown}"
        );
        let legacy = connect_as(&proxy, "user=legacy password=secret dbname=shop").await?;
        legacy.batch_execute("SELECT 12345").await?;
        let line = other.log().expect("select ?")?;
        ensure!(line.contains("shop.legacy done") && line.contains("1 rows"), "{line}");
        ensure!(other.log().lines().len() == 1, "{:?}", other.log().lines());
        // Whoever hangs up is no watcher any more; whoever is left hears the end.
        drop(other);
        eventually("one watches", || watchers(&proxy).ok().filter(|count| *count == 1.0))?;
        drop((legacy, server));
        let mut all = all;
        proxy.signal(Signal::TERM)?;
        ensure!(all.exit(PATIENCE)?.success(), "{:?}", all.log().lines());
        Ok(())
    })
}

#[test]
fn what_takes_most_time_is_summed_up() -> Result<()> {
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    pgbench(proxy.address().port(), &["-i", "-q", "-s", "1"])?;
    let tap = watch(&proxy, &["--sample", "100%", "--top", "3", "--every", "100ms", "--json"])?;
    let (mut before, mut fingerprints) = (0, Vec::new());
    for mode in ["simple", "extended", "prepared"] {
        pgbench(proxy.address().port(), &["-n", "-S", "-M", mode, "-c", "8", "-j", "2", "-t", "100"])?;
        before += 800;
        let rows = eventually("all of them", || {
            let summaries = parsed(&tap);
            let rows =
                summaries.iter().filter_map(|line| line.get("statements")?.as_array().cloned()).flatten();
            let text = "select abalance from pgbench_accounts where aid = ?";
            let rows: Vec<_> = rows.filter(|row| told(row).0 == text).collect();
            (rows.iter().map(|row| number(row, "count")).sum::<u64>() >= before).then_some(rows)
        })?;
        let sum = |name: &str| rows.iter().map(|row| number(row, name)).sum::<u64>();
        assert_eq!((sum("count"), sum("rows"), sum("errors")), (before, before, 0), "{mode}");
        fingerprints.extend(rows.iter().filter_map(|row| row.get("fingerprint").cloned()));
        for row in &rows {
            let ms = |name: &str| row.get(name).and_then(Value::as_f64).unwrap_or_default();
            ensure!(ms("p50_ms") > 0.0 && ms("p99_ms") >= ms("p50_ms") && ms("mean_ms") > 0.0, "{row}");
        }
    }
    fingerprints.dedup();
    assert_eq!(fingerprints.len(), 1, "the protocol makes no difference");
    // The same for people.
    let page = watch(&proxy, &["--top", "--every", "100ms"])?;
    page.log().expect("statements a second")?;
    Ok(())
}

#[test]
fn who_watches_and_does_not_look_holds_nobody_up() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let tap = watch(&proxy, &["--sample", "100%", "--json"])?;
        tap.signal(Signal::STOP)?;
        let client = connect(&proxy, "shop").await?;
        let padding = "a + ".repeat(300);
        for _ in 0..1000 {
            client.batch_execute(&format!("SELECT {padding} 1 FROM (SELECT 1 AS a) AS b")).await?;
        }
        drop(tap);
        eventually("nobody watches", || watchers(&proxy).ok().filter(|count| *count == 0.0))?;
        client.batch_execute("SELECT 1").await?;
        Ok(())
    })
}

#[test]
fn who_never_looks_is_let_go() -> Result<()> {
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    let mut tap = watch(&proxy, &["--sample", "100%", "--json"])?;
    tap.signal(Signal::STOP)?;
    // More than two sockets and a queue hold.
    let script = server.socket_folder().join("script");
    std::fs::write(&script, format!("SELECT 1 WHERE {};\n", ["true"; 140].join(" AND ")))?;
    let file = script.to_string_lossy().into_owned();
    pgbench(proxy.address().port(), &["-n", "-c", "16", "-j", "2", "-t", "1250", "-f", &file])?;
    let dropped = proxy.metrics()?.sum("groove_postgres_tap_dropped_total", &[]);
    // It is still there, and given up after half a minute.
    ensure!(tap.is_running() && watchers(&proxy)? == 1.0);
    let gone = || watchers(&proxy).ok().filter(|count| *count == 0.0);
    eventually("it is let go", gone).or_else(|_| eventually("it is let go", gone))?;
    ensure!(tap.is_running(), "{dropped:?}");
    ensure!(dropped.is_some_and(|count| count > 0.0), "{dropped:?}");
    Ok(())
}

#[test]
fn what_cannot_be_watched_is_said() -> Result<()> {
    let (_server, proxy) = proxy(1)?;
    let admin = proxy.admin().to_string();
    for (arguments, told) in [
        (["--database", "shpo"], "there is no database `shpo`; there are `own`, `shop`, `single`"),
        (["--sample", "0"], "a share is written"),
        (["--every", "1ms"], "`every_ms`"),
        (["--top", "0"], "`top`"),
    ] {
        let output = Kind::Postgres.run(&[&["tap", "--admin", &admin][..], &arguments].concat())?;
        let heard = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && heard.contains(told), "{arguments:?}: {heard}");
    }
    let watching: Vec<_> = (0..8).map(|_| watch(&proxy, &[])).collect::<Result<_>>()?;
    let output = Kind::Postgres.run(&["tap", "--admin", &admin])?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("as many watch as may"));
    drop(watching);
    eventually("nobody watches", || watchers(&proxy).ok().filter(|count| *count == 0.0))?;
    Ok(())
}

#[test]
fn slow_statements_are_logged_without_their_literals_while_they_are_to_be() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let slow = format!("{CONFIG}slow_query: 300ms\n");
        let builder = Proxy::of(Kind::Postgres).config(&slow).set("SERVER", server.address());
        let mut proxy = builder.set("SIZE", 1).set("WAIT", "30s").start()?;
        let login = "user=app password=secret dbname=shop application_name=ours";
        let (client, other) = (connect_as(&proxy, login).await?, connect_as(&proxy, login).await?);
        let own = connect(&proxy, "own").await?;
        for client in [&client, &own] {
            client.batch_execute("SELECT 'zq1', 1 AS fast").await?;
            client.batch_execute("SELECT pg_sleep(0.4), 'zq1' AS simple").await?;
            client.query("SELECT pg_sleep(0.4 + $1::int), 'zq1' AS extended", &[&0]).await?;
            client.batch_execute("BEGIN; SET LOCAL statement_timeout = 350").await?;
            let failed = client.batch_execute("SELECT pg_sleep(7), 'zq1' AS failed").await;
            assert_eq!(code(failed), SqlState::QUERY_CANCELED);
            client.batch_execute("ROLLBACK").await?;
        }
        // The one waits for the other.
        let pair = [&client, &other].map(|client| client.batch_execute("SELECT pg_sleep(0.2) AS queued"));
        try_join_all(pair).await?;
        // It leaves in the midst of one.
        let address = proxy.address();
        let target = format!("host={} port={} {login}", address.ip(), address.port());
        let (left, connection) = tokio_postgres::connect(&target, NoTls).await?;
        let connection = tokio::spawn(connection);
        let mark = proxy.log().mark();
        let query = left.batch_execute("SELECT pg_sleep(60) AS abandoned");
        ensure!(tokio::time::timeout(Duration::from_millis(400), query).await.is_err());
        connection.abort();
        proxy.log().after(mark, "as abandoned")?;

        proxy.rewrite(CONFIG)?;
        let mark = proxy.log().mark();
        proxy.signal(Signal::HUP)?;
        proxy.log().after(mark, "reloaded")?;
        client.batch_execute("SELECT pg_sleep(0.4) AS off").await?;
        proxy.rewrite(&slow)?;
        let mark = proxy.log().mark();
        proxy.signal(Signal::HUP)?;
        proxy.log().after(mark, "reloaded")?;
        client.batch_execute("SELECT pg_sleep(0.4) AS on").await?;
        proxy.log().after(mark, "as on")?;

        let lines: Vec<_> = proxy.log().lines();
        let slow: Vec<_> = lines.iter().filter(|line| line.contains("a slow query")).collect();
        for (what, count, says) in [
            ("select pg_sleep(?), ? as simple", 2, "done"),
            ("select pg_sleep(? + ? :: int), ? as extended", 2, "done"),
            ("select pg_sleep(?), ? as failed", 2, "57014"),
            ("as queued", 1, "wait_ms"),
            ("as abandoned", 1, "unfinished"),
            ("as fast", 0, ""),
            ("as off", 0, ""),
            ("as on", 1, "application_name"),
        ] {
            let about: Vec<_> = slow.iter().filter(|line| line.contains(what)).collect();
            assert_eq!(about.len(), count, "{what}: {slow:#?}");
            assert!(about.iter().all(|line| line.contains(says) && line.contains("took_ms")), "{about:#?}");
        }
        ensure!(!lines.concat().contains("zq1"), "{lines:#?}");
        Ok(())
    })
}

#[test]
fn times_are_counted_by_database_and_user() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let counted = |name: &str, database: &str| -> Result<f64> {
            let labels = [("database", database), ("user", "app")];
            proxy.metrics()?.sum(&format!("groove_postgres_{name}"), &labels).context("nobody counts")
        };
        for (database, transactions) in [("shop", 2.0), ("own", 1.0)] {
            let client = connect(&proxy, database).await?;
            client.batch_execute("SELECT pg_sleep(0.1)").await?;
            for text in ["BEGIN", "SELECT 1", "SELECT pg_sleep(0.1)", "COMMIT"] {
                client.batch_execute(text).await?;
            }
            drop(client);
            eventually("it has left", || {
                counted("transaction_seconds_count", database).ok().filter(|count| *count == transactions)
            })?;
            // A BEGIN needs no server where connections are shared.
            let queries = if database == "shop" { 4.0 } else { 5.0 };
            assert_eq!(counted("query_seconds_count", database)?, queries, "{database}");
            let (query, transaction) =
                (counted("query_seconds_sum", database)?, counted("transaction_seconds_sum", database)?);
            ensure!(query >= 0.2 && transaction >= query, "{database}: {query} {transaction}");
        }
        Ok(())
    })
}
