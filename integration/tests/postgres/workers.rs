//! Sessions that go to a second worker thread when the first is full, and come back.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{Kind, Postgres, Proxy, eventually};
use tokio_postgres::Client;

use super::clients::pgbench;
use super::{connect, connect_as, run, text};

const CONFIG: &str = "
workers: 2
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
databases: {shop: {endpoints: [$SERVER], pool: {size: 20}}}
users:
  app: {password: secret}
  boss: {password: secret}
console: {admins: [boss]}
";

/// Sessions beside the load, each of which knows what it should see.
const WITNESSES: usize = 30;

/// Connections of each worker.
fn spread(proxy: &Proxy) -> Option<[u64; 2]> {
    let status = proxy.status().ok()?;
    let workers = status.get("workers")?.as_array()?.iter().map(|count| count.as_u64());
    workers.collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// Lets every thread of the proxy go before all others, so that a worker can be full on a busy machine. Where that is
/// not allowed, it takes longer.
fn goes_first(proxy: &Proxy) -> Result<()> {
    for thread in std::fs::read_dir(format!("/proc/{}/task", proxy.pid()))? {
        let thread = thread?.file_name();
        drop(harness::run(Command::new("renice").args(["-n", "-19", "-p"]).arg(thread)));
    }
    Ok(())
}

/// How far the test is.
#[derive(Default)]
struct Stage {
    /// Both workers have sessions: the load ends.
    is_shared: AtomicBool,
    is_done: AtomicBool,
}

/// Asks for what the session was told to remember, again and again, and seldom once that is no load. Every
/// other one listens.
async fn witness(client: &Client, number: usize, stage: &Stage) -> Result<()> {
    client.batch_execute(&format!("SET app.number = '{number}'")).await?;
    if number.is_multiple_of(2) {
        client.batch_execute(&format!("LISTEN channel_{number}")).await?;
    }
    while !stage.is_done.load(Ordering::Relaxed) {
        let seen = text(client, "SELECT current_setting('app.number')").await?;
        ensure!(seen == number.to_string(), "{seen} is another's, not {number}'s");
        if stage.is_shared.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

#[test]
fn a_full_worker_shares_and_a_calm_one_takes_back() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let proxy = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address()).start()?;
        goes_first(&proxy)?;
        let port = proxy.address().port();
        pgbench(port, &["-i", "-q", "-s", "1"])?;
        let clients: Vec<_> = try_join_all((0..WITNESSES).map(|_| connect(&proxy, "shop"))).await?;
        ensure!(spread(&proxy) == Some([WITNESSES as u64, 0]), "one worker is enough: {:?}", spread(&proxy));
        let (clients, stage) = (Arc::new(clients), Arc::new(Stage::default()));
        let witnesses: Vec<_> = (0..WITNESSES)
            .map(|number| {
                let (clients, stage) = (Arc::clone(&clients), Arc::clone(&stage));
                tokio::spawn(async move {
                    witness(clients.get(number).context("a client")?, number, &stage).await
                })
            })
            .collect();
        let load = thread::spawn({
            let stage = Arc::clone(&stage);
            move || {
                while !stage.is_shared.load(Ordering::Relaxed) {
                    pgbench(port, &["-n", "-S", "-c", "40", "-j", "1", "-T", "2"])?;
                }
                anyhow::Ok(())
            }
        });
        let both = tokio::task::block_in_place(|| {
            eventually("sessions on both workers", || spread(&proxy).filter(|[_, second]| *second > 0))
        });
        stage.is_shared.store(true, Ordering::Relaxed);
        ensure!(tokio::task::block_in_place(|| load.join()).is_ok_and(|load| load.is_ok()), "pgbench failed");
        both?;
        tokio::task::block_in_place(|| {
            eventually("all back on the first worker", || {
                spread(&proxy).filter(|[first, second]| *first == WITNESSES as u64 && *second == 0)
            })
        })?;

        stage.is_done.store(true, Ordering::Relaxed);
        for witness in witnesses {
            witness.await??;
        }
        // Where they are now, they are found: each is idle, and hears of it at once.
        let boss = connect_as(&proxy, "user=boss password=secret dbname=groove").await?;
        boss.simple_query("KILL shop").await?;
        for client in &*clients {
            while !client.is_closed() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(())
    })
}
