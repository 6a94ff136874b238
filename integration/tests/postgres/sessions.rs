//! What a session may rely on, although it shares its servers.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{SinkExt, TryStreamExt, pin_mut};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use harness::{Kind, Postgres, Proxy};

use super::{CONFIG, code, connect, connect_as, proxy, proxy_with_wait, run, text};

const ROUNDS: usize = 30;

#[test]
fn settings_follow_their_session_and_no_other() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let zones = ["Asia/Tokyo", "Europe/Berlin", "UTC", "America/Lima", "Africa/Cairo"];
        let clients = try_join_all(zones.map(|_| connect(&proxy, "shop"))).await?;
        try_join_all(clients.iter().zip(zones).map(|(client, zone)| async move {
            client.batch_execute(&format!("SET TimeZone = '{zone}'")).await?;
            for _ in 0..ROUNDS {
                assert_eq!(text(client, "SHOW TimeZone").await?, zone);
            }
            Ok::<_, tokio_postgres::Error>(())
        }))
        .await?;
        Ok(())
    })
}

#[test]
fn what_a_startup_packet_asks_for_is_kept() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(1)?;
        let asked = "user=app password=secret dbname=shop application_name=mine \
                     options='-c search_path=pg_catalog -c statement_timeout=7s'";
        let (one, other) = (connect_as(&proxy, asked).await?, connect(&proxy, "shop").await?);
        let query = "SELECT current_setting('search_path') || ' ' || current_setting('statement_timeout') \
                     || ' ' || current_setting('application_name')";
        for _ in 0..3 {
            assert_eq!(text(&one, query).await?, "pg_catalog 7s mine");
            assert_eq!(text(&other, query).await?, "\"$user\", public 0 ");
        }
        Ok(())
    })
}

#[test]
fn what_is_not_reported_does_not_leak() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(1)?;
        let (one, other) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        one.batch_execute("SET statement_timeout = '7s'; PREPARE p AS SELECT 1; DEALLOCATE p").await?;
        one.batch_execute("LISTEN l; UNLISTEN *; CREATE TEMP TABLE only_here ON COMMIT DROP AS SELECT 1")
            .await?;
        one.simple_query("SELECT set_config('lock_timeout', '7s', false)").await?;
        assert_eq!(text(&other, "SHOW lock_timeout").await?, "0");
        assert_eq!(text(&other, "SHOW statement_timeout").await?, "0");
        assert_eq!(text(&other, "SELECT count(*) FROM pg_prepared_statements").await?, "0");
        assert_eq!(text(&other, "SELECT count(*) FROM pg_listening_channels()").await?, "0");
        Ok(())
    })
}

#[test]
fn prepared_statements_work_on_any_connection() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(3)?;
        let clients = try_join_all((0..12).map(|_| connect(&proxy, "shop"))).await?;
        let pids = try_join_all(clients.iter().enumerate().map(|(index, client)| async move {
            // Some share a statement, some have their own.
            let own = format!("SELECT pg_backend_pid(), $1::int + {}", index % 4);
            let statement = client.prepare(&own).await?;
            let mut pids = BTreeSet::new();
            for number in 0..i32::try_from(ROUNDS)? {
                let row = client.query_one(&statement, &[&number]).await?;
                assert_eq!(row.get::<_, i32>(1), number + i32::try_from(index % 4)?);
                pids.insert(row.get::<_, i32>(0));
            }
            anyhow::Ok(pids)
        }))
        .await?;
        let pids: BTreeSet<i32> = pids.into_iter().flatten().collect();
        assert!(pids.len() <= 3, "{pids:?}");
        let calls = server.sql("shop", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")?;
        assert!(calls.parse::<usize>()? <= 3);
        Ok(())
    })
}

#[test]
fn a_statement_that_does_not_parse_leaves_nothing_behind() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        let client = connect(&proxy, "shop").await?;
        assert_eq!(code(client.prepare("SELECT * FROM later").await), SqlState::UNDEFINED_TABLE);
        server.sql("shop", "CREATE TABLE later AS SELECT 5 AS five; GRANT SELECT ON later TO app")?;
        let statement = client.prepare("SELECT * FROM later").await?;
        assert_eq!(client.query_one(&statement, &[]).await?.get::<_, i32>(0), 5);
        client.batch_execute("DISCARD ALL").await?;
        assert_eq!(code(client.query(&statement, &[]).await), SqlState::INVALID_SQL_STATEMENT_NAME);
        Ok(())
    })
}

#[test]
fn errors_end_a_pipeline_where_postgresql_ends_it() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let client = connect(&proxy, "shop").await?;
        for _ in 0..ROUNDS {
            let (good, bad, after) = tokio::join!(
                client.query_one("SELECT 1", &[]),
                client.query_one("SELECT 1/0", &[]),
                client.query_one("SELECT 3", &[]),
            );
            assert_eq!(good?.get::<_, i32>(0), 1);
            assert_eq!(code(bad), SqlState::DIVISION_BY_ZERO);
            assert_eq!(after?.get::<_, i32>(0), 3);
        }
        Ok(())
    })
}

#[test]
fn copy_goes_both_ways() -> Result<()> {
    const LINES: usize = 20_000;
    run(async {
        let (_server, proxy) = proxy(1)?;
        let client = connect(&proxy, "shop").await?;
        client.batch_execute("CREATE TABLE lines (n int, filler text)").await?;
        let sink = client.copy_in("COPY lines FROM STDIN").await?;
        pin_mut!(sink);
        for number in 0..LINES {
            sink.send(Bytes::from(format!("{number}\t{}\n", "x".repeat(200)))).await?;
        }
        assert_eq!(sink.finish().await?, LINES as u64);
        let stream = client.copy_out("COPY lines TO STDOUT").await?;
        let copied = stream.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await?;
        assert!(copied > LINES * 200, "{copied}");
        // A COPY that fails half way leaves the session usable.
        let sink = client.copy_in::<_, Bytes>("COPY lines FROM STDIN").await?;
        pin_mut!(sink);
        sink.send(Bytes::from_static(b"not a number\tx\n")).await?;
        assert_eq!(code(sink.finish().await), SqlState::INVALID_TEXT_REPRESENTATION);
        assert_eq!(text(&client, "SELECT count(*) FROM lines").await?, LINES.to_string());
        Ok(())
    })
}

#[test]
fn large_results_are_streamed() -> Result<()> {
    const BYTES: usize = 200 << 20;
    run(async {
        let (_server, proxy) = proxy(1)?;
        let client = connect(&proxy, "shop").await?;
        let before = proxy.usage()?.resident_bytes;
        let row = text(&client, &format!("SELECT repeat('x', {BYTES})")).await?;
        assert_eq!(row.len(), BYTES);
        let grown = proxy.usage()?.resident_bytes.saturating_sub(before);
        assert!(grown < 20 << 20, "{grown} bytes for a row of {BYTES}");
        Ok(())
    })
}

async fn sleeping(client: &Client) -> Result<String, tokio_postgres::Error> {
    text(client, "SELECT pg_sleep(60)").await
}

#[test]
fn a_cancel_request_finds_what_runs_and_what_waits() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        let (runs, waits) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        let (stop_running, stop_waiting) = (runs.cancel_token(), waits.cancel_token());
        let orders = async {
            let query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
            while server.sql("shop", query)? != "1" {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            while proxy.status()?["pools"][0]["waiting"] != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            stop_waiting.cancel_query(NoTls).await?;
            stop_running.cancel_query(NoTls).await?;
            anyhow::Ok(())
        };
        let in_turn = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            text(&waits, "SELECT 1").await
        };
        let (ran, waited, ordered) = tokio::join!(sleeping(&runs), in_turn, orders);
        ordered?;
        assert_eq!(code(ran), SqlState::QUERY_CANCELED);
        assert_eq!(code(waited), SqlState::QUERY_CANCELED);
        assert_eq!(text(&runs, "SELECT 2").await?, "2");
        assert_eq!(text(&waits, "SELECT 3").await?, "3");
        Ok(())
    })
}

#[test]
fn who_waits_too_long_is_told_so_and_stays() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy_with_wait(1, "300ms")?;
        let (holder, waiter) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        holder.batch_execute("BEGIN; SELECT 1").await?;
        let refused = waiter.simple_query("SELECT 1").await.err().context("served")?;
        let refused = refused.as_db_error().context("not told why")?.clone();
        assert_eq!(refused.code(), &SqlState::TOO_MANY_CONNECTIONS);
        assert!(refused.hint().is_some_and(|hint| hint.contains("max_wait")), "{refused:?}");
        assert_eq!(code(waiter.prepare("SELECT 1").await), SqlState::TOO_MANY_CONNECTIONS);
        holder.batch_execute("COMMIT").await?;
        assert_eq!(text(&waiter, "SELECT 1").await?, "1");
        Ok(())
    })
}

#[test]
fn session_pooling_keeps_everything_and_leaves_nothing() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(1)?;
        let client = connect(&proxy, "own").await?;
        client.batch_execute("CREATE TEMP TABLE mine (n int); SET work_mem = '7MB'; LISTEN l").await?;
        assert_eq!(text(&client, "SELECT count(*) FROM mine").await?, "0");
        assert_eq!(text(&client, "SHOW work_mem").await?, "7MB");
        drop(client);
        // On the same server connection, or on a new one if that could not be cleaned in time.
        let next = connect(&proxy, "own").await?;
        assert_eq!(text(&next, "SHOW work_mem").await?, "4MB");
        assert_eq!(code(next.simple_query("SELECT * FROM mine").await), SqlState::UNDEFINED_TABLE);
        Ok(())
    })
}

#[test]
fn a_reset_query_that_keeps_statements_is_believed() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let config = CONFIG.replace("{size: $SIZE,", "{size: $SIZE, reset_query: RESET search_path,");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let proxy = builder.set("SIZE", 1).set("WAIT", "30s").start()?;
        let asked = "user=app password=secret dbname=shop options='-c work_mem=7MB'";
        let client = connect_as(&proxy, asked).await?;
        let statement = client.prepare("SELECT $1::int + 1").await?;
        for _ in 0..3 {
            assert_eq!(client.query_one(&statement, &[&1]).await?.get::<_, i32>(0), 2);
            // One that leaves in a transaction: its connection is reset.
            let leaving = connect_as(&proxy, asked).await?;
            leaving.batch_execute("BEGIN; SET search_path = theirs").await?;
            drop(leaving);
            assert_eq!(client.query_one(&statement, &[&1]).await?.get::<_, i32>(0), 2);
            assert_eq!(text(&client, "SHOW work_mem").await?, "7MB");
            assert_eq!(text(&connect(&proxy, "shop").await?, "SHOW work_mem").await?, "4MB");
        }
        Ok(())
    })
}

#[test]
fn pools_that_nobody_uses_make_room() -> Result<()> {
    const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases: {shop: {endpoints: [$SERVER], pool: {idle: 400ms}}}
users: {app: {server_password: secret}}
limits: {pools: 2}
";
    run(async {
        let server = Postgres::start()?;
        let proxy = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address()).start()?;
        let stays = connect_as(&proxy, "user=app dbname=shop").await?;
        for number in 0..5 {
            let invented = connect_as(&proxy, &format!("user=invented{number} dbname=shop")).await;
            assert_eq!(
                code(invented),
                SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
                "there is no password for the server"
            );
        }
        while proxy.status()?["pools"].as_array().context("pools")?.len() != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(text(&stays, "SELECT 1").await?, "1");
        let series = ("groove_postgres_clients", [("user", "invented4")]);
        assert_eq!(proxy.metrics()?.sum(series.0, &series.1), None, "its metrics are gone, too");
        drop(stays);
        while !proxy.status()?["pools"].as_array().context("pools")?.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    })
}

#[test]
fn prepared_statements_are_bounded_in_bytes() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let config = format!("{CONFIG}limits: {{message: 64KiB, statement_bytes: 100KiB}}\n");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let proxy = builder.set("SIZE", 1).set("WAIT", "30s").start()?;
        let client = connect(&proxy, "shop").await?;
        let large = |n: usize| format!("SELECT {n} AS {}", "x".repeat(40 << 10));
        let (_one, _two) = (client.prepare(&large(1)).await?, client.prepare(&large(2)).await?);
        let refused = client.prepare(&large(3)).await.err().context("taken")?;
        let refused = refused.as_db_error().context("not told why")?.clone();
        assert_eq!(refused.code(), &SqlState::PROGRAM_LIMIT_EXCEEDED);
        assert!(refused.hint().is_some_and(|hint| hint.contains("statement_bytes")), "{refused:?}");
        Ok(())
    })
}

#[test]
fn statement_pooling_refuses_transaction_blocks() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(1)?;
        let client = connect(&proxy, "single").await?;
        assert_eq!(text(&client, "SELECT 1").await?, "1");
        assert_eq!(code(client.batch_execute("BEGIN").await), SqlState::FEATURE_NOT_SUPPORTED);
        let next = connect(&proxy, "single").await?;
        assert_eq!(text(&next, "SELECT 2").await?, "2");
        Ok(())
    })
}
