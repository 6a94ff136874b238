//! Clients that die, servers that restart, cancels by the hundred, a drain and a broken file under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use harness::{Proxy, Signal};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use super::{CONFIG, code, connect, proxy, proxy_with_wait, run, text};

const CLIENTS: usize = 16;

/// Logs in, and gives what ends the connection as `kill -9` would.
async fn mortal(proxy: &Proxy) -> Result<(Client, JoinHandle<()>)> {
    let address = proxy.address();
    let target =
        format!("host={} port={} user=app password=secret dbname=shop", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
    let task = tokio::spawn(async move {
        // Its error is what the test makes.
        let _ended = connection.await;
    });
    Ok((client, task))
}

pub(super) async fn until<F: Future<Output = Result<bool>>>(
    what: &str,
    mut seen: impl FnMut() -> F,
) -> Result<()> {
    let patience = tokio::time::timeout(harness::PATIENCE, async {
        while !seen().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
    patience.await.with_context(|| what.to_owned())?
}

#[test]
fn a_transaction_dies_with_its_client_and_its_connection_lives() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        server.sql("shop", "CREATE TABLE kept (n int); GRANT ALL ON kept TO app")?;
        let (victim, task) = mortal(&proxy).await?;
        let pid = text(&victim, "SELECT pg_backend_pid()").await?;
        victim.batch_execute("BEGIN; INSERT INTO kept VALUES (1)").await?;
        task.abort();
        let heir = connect(&proxy, "shop").await?;
        assert_eq!(
            text(&heir, "SELECT count(*) || ' ' || pg_backend_pid() FROM kept").await?,
            format!("0 {pid}")
        );

        // Also one that is in the midst of a query.
        let (victim, task) = mortal(&proxy).await?;
        let sleeping = tokio::spawn(async move { victim.batch_execute("BEGIN; SELECT pg_sleep(60)").await });
        let asleep =
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'";
        until("sleep", || async { Ok(server.sql("postgres", asleep)? == "1") }).await?;
        task.abort();
        assert_eq!(text(&heir, "SELECT pg_backend_pid()").await?, pid);
        drop(sleeping);
        Ok(())
    })
}

#[test]
fn the_idle_do_not_notice_that_the_server_was_restarted() -> Result<()> {
    run(async {
        let (mut server, proxy) = proxy(2)?;
        let (idle, open) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        let statement = idle.prepare("SELECT $1::int + 1").await?;
        idle.query_one(&statement, &[&1]).await?;
        open.batch_execute("BEGIN; SELECT 1").await?;
        server.restart()?;
        assert!(open.simple_query("SELECT 1").await.is_err(), "its transaction died with the server");
        for number in 0..10 {
            assert_eq!(idle.query_one(&statement, &[&number]).await?.get::<_, i32>(0), number + 1);
        }
        Ok(())
    })
}

#[test]
fn those_who_come_while_the_server_is_down_wait_for_it() -> Result<()> {
    run(async {
        let (mut server, proxy) = proxy(2)?;
        let client = connect(&proxy, "shop").await?;
        assert_eq!(text(&client, "SELECT 1").await?, "1");
        server.stop()?;
        let waiting = tokio::spawn(async move { text(&client, "SELECT 2").await });
        until("a client in line", || async { Ok(proxy.status()?["pools"][0]["dial_failures"] != 0) }).await?;
        server.restart()?;
        assert_eq!(waiting.await??, "2");
        Ok(())
    })
}

#[test]
fn those_who_wait_in_vain_are_told_to_come_again() -> Result<()> {
    run(async {
        let (mut server, proxy) = proxy_with_wait(2, "300ms")?;
        let client = connect(&proxy, "shop").await?;
        assert_eq!(text(&client, "SELECT 1").await?, "1");
        server.stop()?;
        assert_eq!(code(text(&client, "SELECT 2").await), SqlState::CANNOT_CONNECT_NOW);
        server.restart()?;
        until("served again", || async { Ok(text(&client, "SELECT 3").await.is_ok()) }).await
    })
}

/// Clients that run transactions of three statements.
struct Load {
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    async fn start(proxy: &Proxy) -> Result<Load> {
        let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = connect(proxy, "shop").await?;
            let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
            clients.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Refused before it has begun: the proxy is going down.
                    if client.batch_execute("BEGIN").await.is_err() {
                        return Ok(());
                    }
                    client.simple_query("SELECT pg_sleep(0.001)").await.context("in a transaction")?;
                    client.batch_execute("COMMIT").await.context("at its end")?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        Ok(Load { done, stop, clients })
    }

    async fn more(&self, count: usize) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + count;
        until("transactions", || async { Ok(self.done.load(Ordering::Relaxed) >= goal) }).await
    }

    async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        try_join_all(self.clients).await?.into_iter().collect()
    }
}

#[test]
fn a_drain_under_load_fails_no_transaction_that_has_begun() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(4)?;
        let load = Load::start(&proxy).await?;
        let idle = connect(&proxy, "own").await?;
        load.more(200).await?;
        proxy.signal(Signal::TERM)?;
        let ended = tokio::task::spawn_blocking(move || proxy.exit(Duration::from_secs(10))).await??;
        assert!(ended.success());
        load.finish().await?;
        until("goodbye", || async { Ok(idle.is_closed()) }).await
    })
}

#[test]
fn a_broken_file_changes_nothing() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(4)?;
        let load = Load::start(&proxy).await?;
        load.more(50).await?;
        let mark = proxy.log().mark();
        proxy.rewrite(&CONFIG.replace("databases:", "databasses:"))?;
        proxy.signal(Signal::HUP)?;
        proxy.log().after(mark, "databasses")?;
        load.more(50).await?;
        load.finish().await?;
        assert_eq!(text(&connect(&proxy, "shop").await?, "SELECT 1").await?, "1");
        Ok(())
    })
}

#[test]
fn a_reload_takes_effect_without_dropping_anyone() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(4)?;
        let load = Load::start(&proxy).await?;
        load.more(50).await?;
        proxy.set("SIZE", 2);
        proxy.rewrite(&CONFIG.replace("  legacy: ", "  newcomer: {password: new}\n  legacy: "))?;
        proxy.signal(Signal::HUP)?;
        until("a smaller pool", || async { Ok(proxy.status()?["pools"][0]["size"] == 2) }).await?;
        let refused = super::connect_as(&proxy, "user=newcomer password=old dbname=shop").await;
        assert_eq!(code(refused), SqlState::INVALID_PASSWORD);
        load.more(50).await?;
        load.finish().await
    })
}
