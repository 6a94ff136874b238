//! groove-postgres before a real PostgreSQL 15, with real clients.

mod auth;
mod auth_query;
mod clients;
mod console;
mod dump;
mod failover;
mod faults;
mod handover;
mod import;
mod listen;
mod login;
mod migrate;
mod passthrough;
mod pgbadger;
mod regress;
mod replicate;
mod replication;
mod roles;
mod scram;
mod sessions;
mod shares;
mod split;
mod storm;
mod suites;
mod tap;
mod transparency;
mod workers;

use std::future::Future;

use anyhow::Result;
use harness::{Kind, Postgres, Proxy};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

/// The smallest configuration there is, with the modes side by side.
const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
databases:
  shop: {endpoints: [$SERVER], pool: {size: $SIZE, max_wait: $WAIT}}
  own: {endpoints: [$SERVER], dbname: shop, pool: {mode: session, size: 20}}
  single: {endpoints: [$SERVER], dbname: shop, pool: {mode: statement, size: 2}}
users:
  app: {password: secret}
  legacy: {password: secret}
";

/// Without a password: 200 logins prove nothing here but patience.
const TRUSTING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases: {shop: {endpoints: [$SERVER], pool: {size: 20}}}
users: {app: {server_password: secret}}
";

/// A server and a proxy before it with so many connections.
fn proxy(size: usize) -> Result<(Postgres, Proxy)> {
    proxy_with_wait(size, "30s")
}

fn proxy_with_wait(size: usize, wait: &str) -> Result<(Postgres, Proxy)> {
    let server = Postgres::start()?;
    let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address());
    Ok((server, builder.set("SIZE", size).set("WAIT", wait).start()?))
}

/// Logs in as `app`.
async fn connect(proxy: &Proxy, database: &str) -> Result<Client, Error> {
    connect_as(proxy, &format!("user=app password=secret dbname={database}")).await
}

async fn connect_as(proxy: &Proxy, rest: &str) -> Result<Client, Error> {
    let address = proxy.address();
    let target = format!("host={} port={} {rest}", address.ip(), address.port());
    let (client, connection) = tokio_postgres::connect(&target, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The SQLSTATE of what has to be an error of the server's or the proxy's; another word if it is not.
fn code<T>(outcome: Result<T, Error>) -> SqlState {
    match outcome {
        Ok(_) => SqlState::from_code("no error"),
        Err(error) => error.code().cloned().unwrap_or_else(|| SqlState::from_code(&error.to_string())),
    }
}

/// The first column of the first row.
async fn text(client: &Client, query: &str) -> Result<String, Error> {
    use tokio_postgres::SimpleQueryMessage;
    let found = client.simple_query(query).await?;
    let row = found
        .iter()
        .find_map(|message| if let SimpleQueryMessage::Row(row) = message { row.get(0) } else { None });
    Ok(row.unwrap_or_default().to_owned())
}

/// Waits for what nobody tells.
async fn until(what: &str, mut seen: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = tokio::time::Instant::now() + harness::PATIENCE;
    while !seen()? {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}

/// xorshift64*: the seed is all there is to know.
fn roll(dice: &mut u64, sides: usize) -> usize {
    *dice ^= *dice >> 12;
    *dice ^= *dice << 25;
    *dice ^= *dice >> 27;
    usize::try_from(dice.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap_or_default() % sides
}

/// Runs a test's future with time to spare, but not for ever.
fn run(test: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(harness::PATIENCE * 2, test).await? })
}
