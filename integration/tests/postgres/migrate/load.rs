//! pgbench's transactions by clients that remember what they were told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::{roll, until};

/// Clients at work.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<Tally>>>,
}

/// What they have seen.
#[derive(Default)]
pub(super) struct Tally {
    /// Transactions whose COMMIT was answered.
    pub(super) acknowledged: Vec<String>,
    /// What they were refused.
    pub(super) errors: Vec<String>,
    /// The longest that any of them waited for one transaction.
    pub(super) stall: Duration,
}

impl Load {
    /// So many clients of the proxy.
    pub(super) fn start(proxy: SocketAddr, clients: usize) -> Load {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |number: usize| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            // One of them comes by another name for the same database.
            let database = if number == 1 { "alias" } else { "shop" };
            tokio::spawn(async move {
                let target = format!(
                    "host={} port={} user=app password=secret dbname={database}",
                    proxy.ip(),
                    proxy.port()
                );
                let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
                tokio::spawn(connection);
                let mut tally = Tally::default();
                let mut dice = 0x9E37_79B9_7F4A_7C15 ^ (number as u64 + 1);
                for turn in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (name, begun) = (format!("{number}-{turn}"), Instant::now());
                    match transaction(&client, &name, &mut dice).await {
                        Ok(()) => tally.acknowledged.push(name),
                        Err(error) => {
                            tally.errors.push(format!("{name}: {error:?}"));
                            break;
                        }
                    }
                    tally.stall = tally.stall.max(begun.elapsed());
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(tally)
            })
        };
        let clients = (0..clients).map(client).collect();
        Load { stop, done, clients }
    }

    /// Returns when so many more transactions are done.
    pub(super) async fn more(&self, count: u64) -> Result<()> {
        let wanted = self.done.load(Ordering::Relaxed) + count;
        until("transactions go on", || Ok(self.done.load(Ordering::Relaxed) >= wanted)).await
    }

    /// Ends it.
    pub(super) async fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.await??;
            all.acknowledged.extend(tally.acknowledged);
            all.errors.extend(tally.errors);
            all.stall = all.stall.max(tally.stall);
        }
        Ok(all)
    }
}

async fn transaction(client: &Client, name: &str, dice: &mut u64) -> Result<(), tokio_postgres::Error> {
    let (account, teller, branch) = (roll(dice, 100_000) + 1, roll(dice, 10) + 1, 1);
    let delta = i64::try_from(roll(dice, 10_000)).unwrap_or_default() - 5_000;
    for statement in [
        "BEGIN".to_owned(),
        format!("UPDATE pgbench_accounts SET abalance = abalance + {delta} WHERE aid = {account}"),
        format!("SELECT abalance FROM pgbench_accounts WHERE aid = {account}"),
        format!("INSERT INTO tickets (who) VALUES ('{name}')"),
        format!("UPDATE pgbench_tellers SET tbalance = tbalance + {delta} WHERE tid = {teller}"),
        format!("UPDATE pgbench_branches SET bbalance = bbalance + {delta} WHERE bid = {branch}"),
        format!(
            "INSERT INTO pgbench_history (tid, bid, aid, delta, mtime, filler) \
             VALUES ({teller}, {branch}, {account}, {delta}, now(), '{name}')"
        ),
        "COMMIT".to_owned(),
    ] {
        client.batch_execute(&statement).await?;
    }
    Ok(())
}
