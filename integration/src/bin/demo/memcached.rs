//! groove-memcached: a session cache over three nodes, one killed and brought back.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::{Kind, Memcached, PATIENCE, Proxy};
use memcache_async::ascii::Protocol;
use tokio::net::TcpStream;

use crate::configured;
use crate::table::{Row, Table};

const PROXY: &str = "memcached";
const SESSIONS: usize = 300;
const NODES: [(&str, &str); 3] =
    [("127.0.0.1:11211", "$NODE1"), ("127.0.0.1:11212", "$NODE2"), ("127.0.0.1:11213", "$NODE3")];

type Client = Protocol<TcpStream>;

pub(crate) struct Demo {
    nodes: Vec<Memcached>,
    proxy: Proxy,
}

impl Demo {
    pub(crate) fn start() -> Result<Self> {
        let nodes = Memcached::start_many(NODES.len())?;
        let mut addresses = vec![("127.0.0.1:11311", "$LISTEN"), ("127.0.0.1:9311", "$ADMIN")];
        addresses.extend(NODES);
        let mut builder = configured(Kind::Memcached, "memcached-demo.yaml", &addresses)?;
        for ((_, name), node) in NODES.iter().zip(&nodes) {
            builder = builder.set(name.trim_start_matches('$'), node.address());
        }
        Ok(Self { nodes, proxy: builder.start()? })
    }

    pub(crate) fn by_hand(&self) -> String {
        format!("memcached  {}   admin http://{}/", self.proxy.address(), self.proxy.admin())
    }

    pub(crate) async fn show(&mut self, table: &mut Table) -> Result<()> {
        let all = format!("{SESSIONS} of {SESSIONS}");
        store(self.proxy.address()).await?;
        table.push(Row::same(
            PROXY,
            "sessions stored and read back",
            &all,
            read(self.proxy.address()).await?.told(),
        ));

        let mut held = Vec::new();
        for node in &self.nodes {
            held.push(items(node.address()).await?);
        }
        let total: usize = held.iter().sum();
        let spread = held.iter().map(usize::to_string).collect::<Vec<_>>().join(" + ");
        let even = total == SESSIONS && held.iter().all(|count| *count * 6 > SESSIONS);
        table.push(Row::judged(
            PROXY,
            "spread over the nodes",
            "every session once, all in use",
            spread,
            even,
        ));

        let lost = held.first().copied().unwrap_or_default();
        self.nodes.first_mut().context("no node")?.kill()?;
        let begun = Instant::now();
        let seen = read(self.proxy.address()).await?;
        let good = seen.hits == SESSIONS - lost && begun.elapsed() < PATIENCE;
        let what = format!("a node killed: the others' {} sessions", SESSIONS - lost);
        table.push(Row::judged(PROXY, &what, "all served", seen.told(), good));

        self.nodes.first_mut().context("no node")?.restart()?;
        let told = back(self.proxy.address()).await?;
        table.push(Row::same(PROXY, "brought back, sessions stored anew", &all, told));
        Ok(())
    }
}

/// What became of reading every session.
struct Seen {
    hits: usize,
}

impl Seen {
    fn told(&self) -> String {
        format!("{} of {SESSIONS}", self.hits)
    }
}

async fn client(address: SocketAddr) -> Result<Client> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Protocol::new(stream))
}

fn session(number: usize) -> (String, String) {
    (format!("session:{number}"), format!("user {number} has a basket"))
}

async fn store(address: SocketAddr) -> Result<()> {
    let mut client = client(address).await?;
    for (key, value) in (0..SESSIONS).map(session) {
        client.set(&key, value.as_bytes(), 0).await.with_context(|| format!("storing {key}"))?;
    }
    // This client sets without waiting for replies; the answer to one more request tells that all have been done.
    client.version().await.context("after storing")?;
    Ok(())
}

async fn read(address: SocketAddr) -> Result<Seen> {
    let mut client = self::client(address).await?;
    let mut hits = 0;
    for (key, value) in (0..SESSIONS).map(session) {
        match client.get(&key).await {
            Ok(found) => hits += usize::from(found == value.as_bytes()),
            // A miss, or the error for a node that is down; the next request gets a fresh connection so
            // that an answer the client did not understand cannot be taken for the next one's.
            Err(_) => client = self::client(address).await?,
        }
    }
    Ok(Seen { hits })
}

/// Stores and reads until every session is served again: the proxy finds out by itself that the node is back.
async fn back(address: SocketAddr) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let stored = store(address).await.is_ok();
        let seen = read(address).await?;
        if (stored && seen.hits == SESSIONS) || Instant::now() > deadline {
            return Ok(seen.told());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// How many items a node holds.
async fn items(node: SocketAddr) -> Result<usize> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let mut stream = TcpStream::connect(node).await?;
    stream.write_all(b"stats\r\nquit\r\n").await?;
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        if let Some(count) = line.strip_prefix("STAT curr_items ") {
            return Ok(count.trim().parse()?);
        }
    }
    anyhow::bail!("{node} told no curr_items")
}
