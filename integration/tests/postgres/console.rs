//! The console: true numbers, and what an operator may do.

mod wire;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{Kind, PATIENCE, Postgres, Proxy};
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use super::{code, connect, connect_as, run, text};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
databases:
  shop: {endpoints: [$SERVER], pool: {size: $SIZE}}
  other: {endpoints: [$SERVER], dbname: shop}
users:
  app: {password: secret}
  boss: {password: secret}
  watcher: {password: secret}
console: {admins: [boss], stats: [watcher]}
";

fn proxy(size: usize) -> Result<(Postgres, Proxy)> {
    let server = Postgres::start()?;
    let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address());
    Ok((server, builder.set("SIZE", size).start()?))
}

async fn console(proxy: &Proxy) -> Result<Client, Error> {
    connect_as(proxy, "user=boss password=secret dbname=groove").await
}

/// The rows of an answer, each value by its column's name.
async fn rows(console: &Client, command: &str) -> Result<Vec<HashMap<String, String>>, Error> {
    let answer = console.simple_query(command).await?;
    let row = |message: &SimpleQueryMessage| {
        let SimpleQueryMessage::Row(row) = message else { return None };
        let columns = row.columns().iter().enumerate();
        let value = |at: usize| row.get(at).unwrap_or("NULL").to_owned();
        Some(columns.map(|(at, column)| (column.name().to_owned(), value(at))).collect())
    };
    Ok(answer.iter().filter_map(row).collect())
}

/// The one row whose `key` is `value`.
async fn row(console: &Client, command: &str, key: &str, value: &str) -> Result<HashMap<String, String>> {
    let found = rows(console, command).await?;
    let mut found = found.into_iter().filter(|row| row.get(key).is_some_and(|found| found == value));
    found.next().with_context(|| format!("{command}: no row with {key} = {value}"))
}

/// Looks until a row is as it should be; what is looked at has no event.
async fn until_row(
    console: &Client,
    command: &str,
    (key, value): (&str, &str),
    column: &str,
    wanted: &str,
) -> Result<HashMap<String, String>> {
    let looks = async {
        loop {
            if let Ok(found) = row(console, command, key, value).await
                && found.get(column).is_some_and(|value| value == wanted)
            {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let looked = tokio::time::timeout(PATIENCE, looks).await;
    looked.with_context(|| format!("{command}: {column} of {value} never was {wanted}"))?
}

fn connections(server: &Postgres) -> Result<String> {
    server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
}

#[test]
fn who_may_do_what_and_how_others_are_told() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(1)?;
        let watcher = connect_as(&proxy, "user=watcher password=secret dbname=groove").await?;
        rows(&watcher, "SHOW DATABASES").await?;
        for command in ["PAUSE", "RESUME", "KILL shop", "RELOAD", "SHUTDOWN", "DISABLE shop", "RECONNECT"] {
            assert_eq!(code(watcher.simple_query(command).await).code(), "42501", "{command}");
        }
        assert_eq!(code(connect(&proxy, "groove").await).code(), "42501");
        let wrong = connect_as(&proxy, "user=boss password=wrong dbname=groove").await;
        assert_eq!(code(wrong).code(), "28P01");
        let boss = console(&proxy).await?;
        for (command, expected) in [
            ("SELECT 1", "42601"),
            ("SHOW NOTHING", "42601"),
            ("SUSPEND", "0A000"),
            ("SET verbose = 1", "0A000"),
            ("PAUSE nowhere", "3D000"),
            ("RESUME", "55000"),
        ] {
            let error = boss.simple_query(command).await.err().context(command)?;
            assert_eq!(error.code().map(|code| code.code()), Some(expected), "{command}");
            if expected == "42601" {
                let hint = error.as_db_error().and_then(|error| error.hint());
                assert_eq!(hint, Some("SHOW HELP"), "{command}");
            }
        }
        boss.simple_query("").await?;
        boss.simple_query("resume shop;").await?;
        assert_eq!(row(&boss, "SHOW DATABASES", "name", "shop").await?["paused"], "0");
        Ok(())
    })
}

#[test]
fn what_it_shows_is_true() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        let boss = console(&proxy).await?;
        let busy = connect_as(&proxy, "user=app password=secret dbname=shop application_name=busy").await?;
        let waits = connect_as(&proxy, "user=app password=secret dbname=shop application_name=waits").await?;
        let client = |name: &'static str| row(&boss, "SHOW CLIENTS", "application_name", name);
        assert_eq!(client("busy").await?["state"], "idle");

        busy.batch_execute("BEGIN").await?;
        let pid = text(&busy, "SELECT pg_backend_pid()").await?;
        let (active, on) = (client("busy").await?, row(&boss, "SHOW SERVERS", "remote_pid", &pid).await?);
        assert_eq!((&*active["state"], &*on["state"], &*on["database"]), ("active", "active", "shop"));
        assert_eq!((&active["link"], &on["link"]), (&on["ptr"], &active["ptr"]));
        assert_eq!(on["port"], server.address().port().to_string());
        assert_eq!(active["local_port"], proxy.address().port().to_string());

        let query = tokio::spawn(async move { waits.batch_execute("SELECT 1").await.map(|()| waits) });
        let pool = until_row(&boss, "SHOW POOLS", ("database", "shop"), "cl_waiting", "1").await?;
        assert_eq!((&*pool["cl_active"], &*pool["sv_active"], &*pool["sv_idle"]), ("1", "1", "0"));
        assert_eq!(client("waits").await?["state"], "waiting");
        busy.batch_execute("SELECT pg_sleep(0.2)").await?;
        assert_ne!(client("waits").await?["wait_us"], "0");
        busy.batch_execute("COMMIT").await?;
        let waits = query.await??;
        let pool = until_row(&boss, "SHOW POOLS", ("database", "shop"), "sv_idle", "1").await?;
        assert_eq!((&*pool["cl_active"], &*pool["cl_waiting"], &*pool["sv_active"]), ("2", "0", "0"));
        assert_eq!((&*client("busy").await?["state"], &*client("busy").await?["link"]), ("idle", ""));

        let stats = row(&boss, "SHOW STATS", "database", "shop").await?;
        let number = |name: &str| stats[name].parse::<u64>().map_err(anyhow::Error::from);
        // The BEGIN was put off, and went with the first statement.
        assert_eq!((number("total_xact_count")?, number("total_query_count")?), (2, 4));
        let (in_transactions, in_queries) = (number("total_xact_time")?, number("total_query_time")?);
        ensure!((200_000..10_000_000).contains(&in_queries), "{in_queries} us of queries");
        ensure!(in_transactions > in_queries, "{in_transactions} us, but it rested between its queries");
        ensure!(number("total_wait_time")? >= 200_000, "the other one waited: {stats:?}");
        // Each Query is its text, a length, a type and a zero.
        let texts = ["SELECT pg_backend_pid()", "SELECT 1", "SELECT pg_sleep(0.2)", "COMMIT", "BEGIN"];
        let sent: usize = texts.iter().map(|text| text.len() + 6).sum();
        assert_eq!(number("total_received")?, sent as u64);
        ensure!(number("total_sent")? > 100, "{stats:?}");
        assert_eq!(row(&boss, "SHOW LISTS", "list", "used_clients").await?["items"], "2");
        drop((busy, waits));
        until_row(&boss, "SHOW LISTS", ("list", "used_clients"), "items", "0").await?;
        Ok(())
    })
}

/// Clients that ask without a stop, until they are told to; how often they were answered.
fn load(clients: Vec<Client>) -> (Arc<AtomicBool>, Arc<AtomicUsize>, impl Future<Output = Result<()>>) {
    let (stop, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|client| {
            let (stop, answers) = (Arc::clone(&stop), Arc::clone(&answers));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    client.batch_execute("BEGIN; SELECT 1; COMMIT").await?;
                    answers.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Error>(())
            })
        })
        .collect();
    let ended = async {
        for outcome in try_join_all(tasks).await? {
            outcome?;
        }
        Ok(())
    };
    (stop, answers, ended)
}

async fn until_more(answers: &AtomicUsize) -> Result<()> {
    let before = answers.load(Ordering::Relaxed);
    let more = async {
        while answers.load(Ordering::Relaxed) <= before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, more).await.context("nobody is answered any more")
}

#[test]
fn a_pause_under_load_is_nobodys_error() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(3)?;
        let clients = try_join_all((0..16).map(|_| connect(&proxy, "shop"))).await?;
        let boss = console(&proxy).await?;
        let (stop, answers, ended) = load(clients);
        for command in ["PAUSE shop", "PAUSE"].into_iter().cycle().take(6) {
            until_more(&answers).await?;
            boss.simple_query(command).await?;
            let at_rest = answers.load(Ordering::Relaxed);
            until_row(&boss, "SHOW POOLS", ("database", "shop"), "cl_waiting", "16").await?;
            assert_eq!(rows(&boss, "SHOW SERVERS").await?.len(), 0);
            // The server notices the ends of its connections by and by.
            harness::eventually("no connection", || connections(&server).ok().filter(|n| n == "0"))?;
            let late = answers.load(Ordering::Relaxed) - at_rest;
            ensure!(late <= 16, "{late} answers in a pause: more than were on their way");
            assert_eq!(code(boss.simple_query(command).await).code(), "55000", "paused already");
            boss.simple_query("RESUME").await?;
        }
        until_more(&answers).await?;
        stop.store(true, Ordering::Relaxed);
        ended.await
    })
}

#[test]
fn a_pause_that_does_not_get_to_its_end_opens_again() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let (open, other) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        let (boss, watcher) = (console(&proxy).await?, console(&proxy).await?);
        open.batch_execute("BEGIN; SELECT 1").await?;
        let paused =
            |wanted: &'static str| until_row(&watcher, "SHOW DATABASES", ("name", "shop"), "paused", wanted);

        // Over its time.
        let error = boss.simple_query("PAUSE shop TIMEOUT '200ms'").await.err().context("paused")?;
        assert_eq!(error.code().map(|code| code.code()), Some("57014"));
        let message = error.as_db_error().context("no answer")?.message();
        ensure!(message.contains("1 server connections are still in use"), "{message}");
        paused("0").await?;
        other.batch_execute("SELECT 1").await?;

        // Cancelled.
        let cancel = boss.cancel_token();
        let pause = tokio::spawn(async move { (boss.simple_query("PAUSE shop").await.err(), boss) });
        paused("1").await?;
        cancel.cancel_query(NoTls).await?;
        let (error, boss) = pause.await?;
        assert_eq!(error.context("paused")?.code().map(|code| code.code()), Some("57014"));
        paused("0").await?;

        // Resumed by another one.
        let pause = tokio::spawn(async move { (boss.simple_query("PAUSE shop").await.err(), boss) });
        paused("1").await?;
        watcher.simple_query("RESUME shop").await?;
        let (error, boss) = pause.await?;
        assert_eq!(error.context("paused")?.code().map(|code| code.code()), Some("57014"));

        // Left alone.
        drop(boss);
        let target = format!("host=127.0.0.1 port={}", proxy.address().port());
        let target = format!("{target} user=boss password=secret dbname=groove");
        let (boss, connection) = tokio_postgres::connect(&target, NoTls).await?;
        let connection = tokio::spawn(connection);
        let pause = tokio::spawn(async move { boss.simple_query("PAUSE shop").await.err() });
        paused("1").await?;
        connection.abort();
        ensure!(pause.await?.is_some(), "it had no time to get to its end");
        paused("0").await?;
        other.batch_execute("SELECT 1").await?;
        open.batch_execute("COMMIT").await?;

        // And one that does.
        watcher.simple_query("PAUSE shop TIMEOUT '10s'").await?;
        paused("1").await?;
        // Another database is not concerned, a pool that is made meanwhile is.
        connect(&proxy, "other").await?.batch_execute("SELECT 1").await?;
        watcher.simple_query("RESUME shop").await?;
        open.batch_execute("SELECT 1").await?;
        Ok(())
    })
}

#[test]
fn a_pool_made_in_a_pause_is_paused() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let boss = console(&proxy).await?;
        boss.simple_query("PAUSE").await?;
        let late = async { connect(&proxy, "shop").await?.batch_execute("SELECT 1").await };
        tokio::pin!(late);
        let pools = until_row(&boss, "SHOW POOLS", ("database", "shop"), "cl_waiting", "1");
        tokio::select! {
            served = &mut late => anyhow::bail!("served in a pause: {served:?}"),
            pools = pools => pools?,
        };
        assert_eq!(rows(&boss, "SHOW SERVERS").await?.len(), 0);
        assert_eq!(row(&boss, "SHOW STATE", "key", "paused").await?["value"], "yes");
        boss.simple_query("RESUME").await?;
        late.await?;
        Ok(())
    })
}

#[test]
fn a_kill_ends_clients_and_connections_until_a_resume() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(2)?;
        let (open, idle) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        let (other, boss) = (connect(&proxy, "other").await?, console(&proxy).await?);
        idle.batch_execute("SELECT 1").await?;
        open.batch_execute("BEGIN; CREATE TABLE lost (n int)").await?;
        boss.simple_query("KILL shop").await?;
        harness::eventually("ends", || (open.is_closed() && idle.is_closed()).then_some(()))?;
        let left: Vec<_> =
            rows(&boss, "SHOW SERVERS").await?.into_iter().map(|row| row["database"].clone()).collect();
        assert_eq!(left, ["other"]);
        harness::eventually("no connection", || connections(&server).ok().filter(|n| n == "1"))?;
        assert_eq!(row(&boss, "SHOW DATABASES", "name", "shop").await?["paused"], "1");
        other.batch_execute("SELECT 1").await?;
        boss.simple_query("RESUME shop").await?;
        let anew = connect(&proxy, "shop").await?;
        assert_eq!(text(&anew, "SELECT to_regclass('lost') IS NULL").await?, "t", "rolled back");
        Ok(())
    })
}

#[test]
fn a_disabled_database_takes_nobody_new() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let (old, boss) = (connect(&proxy, "shop").await?, console(&proxy).await?);
        boss.simple_query("DISABLE shop").await?;
        assert_eq!(code(connect(&proxy, "shop").await).code(), "57P03");
        old.batch_execute("SELECT 1").await?;
        assert_eq!(row(&boss, "SHOW DATABASES", "name", "shop").await?["disabled"], "1");
        boss.simple_query("ENABLE shop").await?;
        connect(&proxy, "shop").await?.batch_execute("SELECT 1").await?;
        Ok(())
    })
}

#[test]
fn it_reconnects_reloads_and_shuts_down() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let (client, boss) = (connect(&proxy, "shop").await?, console(&proxy).await?);
        let pid = text(&client, "SELECT pg_backend_pid()").await?;
        assert_eq!(text(&client, "SELECT pg_backend_pid()").await?, pid);
        boss.simple_query("RECONNECT shop").await?;
        assert_ne!(text(&client, "SELECT pg_backend_pid()").await?, pid);

        let file = proxy.config_file();
        let written = std::fs::read_to_string(&file)?;
        std::fs::write(&file, written.replace("size: 2", "size: none"))?;
        let error = boss.simple_query("RELOAD").await.err().context("a broken file was taken")?;
        assert_eq!(error.code().map(|code| code.code()), Some("F0000"));
        std::fs::write(&file, written.replace("size: 2", "size: 7"))?;
        boss.simple_query("RELOAD").await?;
        assert_eq!(row(&boss, "SHOW DATABASES", "name", "shop").await?["pool_size"], "7");
        assert_eq!(row(&boss, "SHOW CONFIG", "key", "databases.shop.pool.size").await?["value"], "7");
        let secret = row(&boss, "SHOW CONFIG", "key", "users.app.password").await?;
        ensure!(!secret["value"].contains("secret"), "{secret:?}");

        boss.simple_query("SHUTDOWN").await?;
        harness::eventually("the end", || (client.is_closed() && boss.is_closed()).then_some(()))?;
        assert!(connect(&proxy, "shop").await.is_err());
        Ok(())
    })
}
