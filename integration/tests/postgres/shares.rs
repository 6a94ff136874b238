//! A limit on all server connections together, and reserves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use harness::{Kind, Postgres, Proxy};
use tokio::time::{Instant, sleep};

use super::{connect_as, run, text};

/// As many as the servers take.
const LIMIT: usize = 6;

const LIMITED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases:
  shop: {endpoints: [$SERVER], pool: {size: 20}}
  again: {endpoints: [$SERVER], dbname: shop, pool: {size: 20}}
users: {app: {server_password: secret}}
limits: {server_connections: 6}
";

const RESERVED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases:
  shop: {endpoints: [$SERVER], pool: {size: 2, reserve: 3, reserve_after: 200ms}}
users: {app: {server_password: secret}}
";

/// Clients that ask one short query after another.
struct Crowd {
    answered: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<Result<()>>>,
}

impl Crowd {
    async fn start(proxy: &Proxy, database: &str, clients: usize) -> Result<Crowd> {
        let (answered, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let start = (0..clients).map(|_| async {
            let client = connect_as(proxy, &format!("user=app dbname={database}")).await?;
            let (answered, stop) = (Arc::clone(&answered), Arc::clone(&stop));
            anyhow::Ok(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    text(&client, "SELECT pg_sleep(0.005)").await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }))
        });
        let clients = try_join_all(start).await?;
        Ok(Crowd { answered, stop, clients })
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits for so many answers more.
    async fn answers(&self, more: usize) -> Result<()> {
        let (goal, late) = (self.answered() + more, Instant::now() + harness::PATIENCE);
        while self.answered() < goal {
            ensure!(Instant::now() < late, "nobody serves them");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn finish(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        try_join_all(self.clients).await?.into_iter().collect()
    }
}

/// The server is asked past the proxy how many connections of `app` it has.
async fn open(server: &Postgres) -> Result<usize> {
    let target =
        format!("host={} port={} user=postgres", server.socket_folder().display(), server.address().port());
    let (client, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let count = text(&client, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'").await?;
    Ok(count.parse()?)
}

/// All that there may be is open; more never is. One that goes from one pool to the other is open in neither for a moment.
async fn fills(server: &Postgres) -> Result<()> {
    let late = Instant::now() + harness::PATIENCE;
    loop {
        let open = open(server).await?;
        ensure!(open <= LIMIT, "{open} are open");
        if open == LIMIT {
            return Ok(());
        }
        ensure!(Instant::now() < late, "no more than {open} are open");
    }
}

#[test]
fn pools_share_what_there_may_be_in_all() -> Result<()> {
    run(async {
        // One more, and the server refuses it; superusers have a place of their own.
        let full = (LIMIT + 3).to_string();
        let server = Postgres::builder().set("max_connections", &full).set("max_wal_senders", "0").start()?;
        let proxy = Proxy::of(Kind::Postgres).config(LIMITED).set("SERVER", server.address()).start()?;
        let first = Crowd::start(&proxy, "shop", 30).await?;
        first.answers(200).await?;
        fills(&server).await?;

        let second = Crowd::start(&proxy, "again", 30).await?;
        // Each wants as much.
        let late = Instant::now() + harness::PATIENCE;
        loop {
            let before = (first.answered(), second.answered());
            second.answers(400).await?;
            let (one, other) = (first.answered() - before.0, second.answered() - before.1);
            if one * 2 > other && other * 2 > one {
                break;
            }
            ensure!(Instant::now() < late, "{one} and {other} answers");
        }
        fills(&server).await?;

        second.finish().await?;
        first.answers(600).await?;
        fills(&server).await?;
        first.finish().await?;
        let refused = proxy.log().lines().iter().filter(|line| line.contains("cannot connect")).count();
        assert_eq!(refused, 0, "{}", proxy.log());
        Ok(())
    })
}

#[test]
fn a_reserve_is_opened_for_those_who_wait_for_long() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let proxy = Proxy::of(Kind::Postgres).config(RESERVED).set("SERVER", server.address()).start()?;
        let crowd = Crowd::start(&proxy, "shop", 10).await?;
        let late = Instant::now() + harness::PATIENCE;
        while open(&server).await? < 5 {
            ensure!(Instant::now() < late, "no reserve");
        }
        crowd.answers(100).await?;
        assert_eq!(open(&server).await?, 5, "and no more");
        crowd.finish().await?;
        while open(&server).await? > 2 {
            ensure!(Instant::now() < late, "the reserve stays open");
        }
        Ok(())
    })
}
