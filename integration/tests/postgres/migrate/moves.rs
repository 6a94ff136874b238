//! There and back.

use anyhow::{Context, Result, ensure};
use tokio::task::spawn_blocking;
use tokio_postgres::error::SqlState;

use super::{Load, Stage};
use crate::{code, connect, run, text};

/// The server that clients of the proxy are on.
async fn release(stage: &Stage) -> Result<String> {
    let client = connect(&stage.proxy, "shop").await?;
    let release = text(&client, "SHOW server_version").await?;
    Ok(release.split('.').next().unwrap_or_default().to_owned())
}

#[test]
fn a_database_moves_and_comes_back_under_load() -> Result<()> {
    run(async {
        let stage = Stage::start(16)?;
        let load = Load::start(stage.proxy.address(), 16);
        load.more(100).await?;
        let mut stage = spawn_blocking(move || {
            let planned = stage.done("plan", &[])?;
            ensure!(planned.contains("nothing stands in the way"), "{planned}");
            ensure!(planned.contains("public.pgbench_history"), "a table without a key is named: {planned}");
            stage.done("start", &[])?;
            stage.done("start", &[])?;
            Ok(stage)
        })
        .await??;
        load.more(100).await?;
        frozen(&stage).await?;
        stage = cut(stage, &load, "cutover", "18").await?;
        stage = cut(stage, &load, "rollback", "15").await?;
        stage = cut(stage, &load, "cutover", "18").await?;
        let tally = load.stop().await?;
        assert_eq!(tally.errors, Vec::<String>::new());
        let stage = spawn_blocking(move || {
            stage.until_same()?;
            stage.compare(&tally)?;
            // Where it is outlives the proxy, whose file says otherwise.
            stage.proxy.restart()?;
            stage.proxy.log().expect("it has moved")?;
            let said = stage.done("finish", &[])?;
            ensure!(said.contains("write `endpoints:"), "{said}");
            Stage::is_clean(&stage.source)?;
            Stage::is_clean(&stage.target)?;
            ensure!(stage.refused("cutover", &[])?.contains("there is no migration"));
            stage.proxy.restart()?;
            Ok::<_, anyhow::Error>(stage)
        })
        .await??;
        assert_eq!(release(&stage).await?, "18");
        let mut stage = stage;
        spawn_blocking(move || {
            ensure!(route(&stage).as_deref() == Some("in effect"), "{:?}", route(&stage));
            let address = stage.target.address();
            stage.proxy.set("SOURCE", address);
            stage.proxy.rewrite(super::CONFIG)?;
            harness::eventually("it is written by now", || {
                route(&stage).filter(|route| route == "as written").map(|_| ())
            })?;
            Ok::<_, anyhow::Error>(())
        })
        .await??;
        Ok(())
    })
}

/// What the proxy's status says of where the database has moved to.
fn route(stage: &Stage) -> Option<String> {
    let status = stage.proxy.status().ok()?;
    Some(status.pointer("/migrations/0/route")?.as_str()?.to_owned())
}

/// Moves it under load, and looks at what was said of it.
async fn cut(stage: Stage, load: &Load, action: &'static str, to: &str) -> Result<Stage> {
    load.more(50).await?;
    let stage = spawn_blocking(move || {
        let said = stage.done(action, &["--max-pause", "5s"])?;
        crate::failover::figure(&said);
        ensure!(said.contains("are the same on both"), "{said}");
        Ok::<_, anyhow::Error>(stage)
    })
    .await??;
    assert_eq!(release(&stage).await?, to);
    load.more(50).await?;
    Ok(stage)
}

/// The schema cannot be changed meanwhile, but for what is nobody else's.
async fn frozen(stage: &Stage) -> Result<()> {
    let client = connect(&stage.proxy, "shop").await?;
    for statement in [
        "CREATE TABLE another (n int)",
        "ALTER TABLE tickets ADD COLUMN more int",
        "DROP TABLE tickets",
        "CREATE INDEX CONCURRENTLY by_who ON tickets (who)",
    ] {
        assert_eq!(code(client.batch_execute(statement).await), SqlState::OBJECT_IN_USE, "{statement}");
    }
    client.batch_execute("CREATE TEMP TABLE mine (n int); DROP TABLE mine").await?;
    let invalid = stage.source.sql("shop", "SELECT count(*) FROM pg_index WHERE NOT indisvalid")?;
    assert_eq!(invalid, "0");
    Ok(())
}

#[test]
fn a_transaction_that_does_not_end_in_time_leaves_all_as_it_was() -> Result<()> {
    run(async {
        let stage = Stage::start(8)?;
        let open = connect(&stage.proxy, "shop").await?;
        let stage = spawn_blocking(move || stage.done("start", &[]).map(|_| stage)).await??;
        open.batch_execute("BEGIN; UPDATE pgbench_branches SET filler = 'mine'").await?;
        let waiting = connect(&stage.proxy, "shop").await?;
        let stage = spawn_blocking(move || {
            let said = stage.refused("cutover", &["--max-pause", "300ms"])?;
            ensure!(said.contains("1 clients are in a transaction"), "{said}");
            ensure!(said.contains("serves as before"), "{said}");
            ensure!(stage.phase()?.pointer("/ready/serving").is_some_and(|side| side == "source"));
            Ok(stage)
        })
        .await??;
        assert_eq!(text(&waiting, "SELECT 1").await?, "1", "clients are served again");
        open.batch_execute("COMMIT").await?;
        let limit = "SELECT datconnlimit FROM pg_database WHERE datname = 'shop'";
        assert_eq!(stage.source.sql("shop", limit)?, "-1");
        assert_eq!(stage.target.sql("shop", limit)?, "0", "nobody writes there");
        // And it can be gone on with.
        let stage = spawn_blocking(move || stage.done("cutover", &[]).map(|_| stage)).await??;
        assert_eq!(text(&open, "SELECT filler FROM pgbench_branches").await?.trim_end(), "mine");
        spawn_blocking(move || {
            stage.done("rollback", &[])?;
            stage.done("finish", &[])?;
            Stage::is_clean(&stage.source)?;
            let databases =
                stage.target.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'shop'")?;
            ensure!(databases == "0", "the copy is removed");
            Ok::<_, anyhow::Error>(())
        })
        .await??;
        Ok(())
    })
}

#[test]
fn sessions_past_the_proxy_are_ended_only_with_consent() -> Result<()> {
    run(async {
        let stage = Stage::start(8)?;
        let at = stage.source.address();
        let target = format!("host=127.0.0.1 port={} user=app password=secret dbname=shop", at.port());
        let (past, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let stage = spawn_blocking(move || {
            let planned = stage.done("plan", &[])?;
            ensure!(planned.contains("sessions past the proxy"), "{planned}");
            stage.done("start", &[])?;
            ensure!(stage.refused("cutover", &[])?.contains("--terminate-others"));
            Ok(stage)
        })
        .await??;
        assert_eq!(text(&past, "SELECT 1").await?, "1");
        let stage =
            spawn_blocking(move || stage.done("cutover", &["--terminate-others"]).map(|_| stage)).await??;
        assert!(past.simple_query("SELECT 1").await.is_err());
        let again = tokio_postgres::connect(&target, tokio_postgres::NoTls).await;
        let error = again.err().context("the old server lets somebody in")?;
        assert_eq!(error.code(), Some(&SqlState::TOO_MANY_CONNECTIONS));
        assert_eq!(release(&stage).await?, "18");
        Ok(())
    })
}

/// What a client has set and prepared goes with it to a server of another release, and back.
#[test]
fn sessions_go_along() -> Result<()> {
    run(async {
        let stage = Stage::start(8)?;
        let client = connect(&stage.proxy, "shop").await?;
        client.batch_execute("SET search_path = pg_catalog, public; SET work_mem = '5MB'").await?;
        let statement = client.prepare("SELECT count(*) FROM pgbench_tellers WHERE tid > $1::int").await?;
        let plain = connect(&stage.proxy, "shop").await?;
        plain.simple_query("SELECT 1").await?;
        let mut stage = spawn_blocking(move || stage.done("start", &[]).map(|_| stage)).await??;
        for action in ["cutover", "rollback"] {
            stage = spawn_blocking(move || stage.done(action, &[]).map(|_| stage)).await??;
            for _ in 0..3 {
                assert_eq!(client.query_one(&statement, &[&5]).await?.get::<_, i64>(0), 5);
                assert_eq!(text(&client, "SHOW search_path").await?, "pg_catalog, public");
                assert_eq!(text(&client, "SHOW work_mem").await?, "5MB");
                assert_eq!(text(&plain, "SHOW search_path").await?, "\"$user\", public");
                assert_eq!(text(&plain, "SHOW work_mem").await?, "4MB");
            }
            let newcomer = connect(&stage.proxy, "shop").await?;
            assert_eq!(text(&newcomer, "SHOW search_path").await?, "\"$user\", public");
        }
        Ok(())
    })
}

/// Two proxies before one database move it together, or not at all.
#[test]
fn several_proxies_go_together() -> Result<()> {
    run(async {
        let stage = Stage::start(8)?;
        let other = harness::Proxy::of(harness::Kind::Postgres).config(super::CONFIG).set("SIZE", 4);
        let other = other.set("SOURCE", stage.source.address()).start()?;
        let sidecar = other.admin().to_string();
        let with = ["--sidecar", sidecar.as_str(), "--max-pause", "3s"].map(str::to_owned);
        let with = move |stage: &Stage, action| stage.done(action, &with.each_ref().map(String::as_str));
        let stage = spawn_blocking({
            let with = with.clone();
            move || with(&stage, "start").map(|_| stage)
        })
        .await??;
        // Without it, its sessions come past the proxies.
        let open = connect(&other, "shop").await?;
        open.batch_execute("BEGIN; SELECT count(*) FROM tickets").await?;
        let stage = spawn_blocking(move || {
            ensure!(stage.refused("cutover", &[])?.contains("sessions come past the proxy"));
            let said = stage.refused("cutover", &["--sidecar", &sidecar, "--max-pause", "300ms"])?;
            ensure!(said.contains("serves as before"), "{said}");
            Ok::<_, anyhow::Error>(stage)
        })
        .await??;
        open.batch_execute("COMMIT").await?;
        for proxy in [&stage.proxy, &other] {
            let client = connect(proxy, "shop").await?;
            assert!(text(&client, "SHOW server_version").await?.starts_with("15"), "and both are open");
        }
        let loads = [Load::start(stage.proxy.address(), 3), Load::start(other.address(), 3)];
        let mut stage = stage;
        for (action, to) in [("cutover", "18"), ("rollback", "15")] {
            loads[0].more(20).await?;
            loads[1].more(20).await?;
            stage = spawn_blocking({
                let with = with.clone();
                move || with(&stage, action).map(|_| stage)
            })
            .await??;
            for proxy in [&stage.proxy, &other] {
                let client = connect(proxy, "shop").await?;
                assert!(text(&client, "SHOW server_version").await?.starts_with(to));
            }
        }
        for load in loads {
            assert_eq!(load.stop().await?.errors, Vec::<String>::new());
        }
        Ok(())
    })
}
