//! The demo: a pool in front of a PostgreSQL server that is there already, driven by a real client.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use groove_common::app::{DemoRow, Running, StartError};
use groove_common::config::check_text;
use groove_common::ids::Address;
use serde_json::json;
use tokio::runtime::Handle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::Postgres;
use crate::config::Config;

const CLIENTS: usize = 50;
const CONNECTIONS: usize = 5;
const TRANSACTIONS: usize = 40;

/// Arguments of the demo.
#[derive(clap::Args)]
pub struct Args {
    /// The PostgreSQL server to put the proxy in front of, HOST:PORT.
    #[arg(long)]
    server: Option<Address>,
    /// The role to log in as.
    #[arg(long, default_value = "postgres")]
    user: String,
    /// Its password, if the server asks for one.
    #[arg(long, env = "PGPASSWORD", hide_env_values = true)]
    password: Option<String>,
    /// The database.
    #[arg(long, default_value = "postgres")]
    database: String,
}

/// Starts the proxy in this process, drives it, and tells what was seen.
pub(crate) async fn run(args: Args) -> Result<Vec<DemoRow>, StartError> {
    let Some(server) = &args.server else {
        return Err("the demo needs a PostgreSQL server: groove-postgres demo --server 127.0.0.1:5432 \
                    --user NAME --database NAME, and the password in PGPASSWORD"
            .into());
    };
    let config = config(server, &args)?;
    let (reloads, _reloads) = tokio::sync::mpsc::channel(1);
    let proxy: Running<Postgres> = Running::start(config, Handle::current(), reloads)?;
    let Some(Address::Tcp { host, port }) = proxy.addresses().into_iter().next() else {
        return Err("the proxy does not listen".into());
    };
    let (user, database) = (&args.user, &args.database);
    let target = format!("host={host} port={port} user={user} dbname={database}");

    let clients = try_join_all((0..CLIENTS).map(|_| connect(&target))).await?;
    let rows = vec![
        many_on_few(&clients).await?,
        settings_stay(&clients).await?,
        errors_come_through(&clients).await?,
        a_query_is_cancelled(&clients).await?,
    ];
    drop(clients);
    proxy.drain(Duration::from_secs(2), std::future::pending()).await;
    Ok(rows)
}

fn config(server: &Address, args: &Args) -> Result<Config, StartError> {
    let mut user = serde_json::Map::new();
    if let Some(password) = &args.password {
        user.insert("server_password".to_owned(), json!(password));
    }
    // JSON is YAML, and quotes whatever has to be quoted.
    let config = json!({
        "listeners": [{"address": "127.0.0.1:0"}],
        "admin": {"address": "127.0.0.1:0"},
        "auth": "trust",
        "databases": {&args.database: {"endpoints": [server], "pool": {"size": CONNECTIONS}}},
        "users": {&args.user: user},
    });
    Ok(check_text("demo", &config.to_string())?)
}

async fn connect(target: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(target, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Every client runs prepared statements; the servers' process ids tell how many connections there were.
async fn many_on_few(clients: &[Client]) -> Result<DemoRow, StartError> {
    let started = Instant::now();
    let work = clients.iter().map(|client| async move {
        let statement = client.prepare("SELECT pg_backend_pid(), $1::int + 1").await?;
        let mut pids = Vec::new();
        for number in 0..TRANSACTIONS {
            let number = i32::try_from(number).unwrap_or_default();
            let row = client.query_one(&statement, &[&number]).await?;
            if row.get::<_, i32>(1) == number + 1 {
                pids.push(row.get::<_, i32>(0));
            }
        }
        Ok::<_, tokio_postgres::Error>(pids)
    });
    let mut pids: Vec<i32> = try_join_all(work).await?.into_iter().flatten().collect();
    let right = pids.len();
    pids.sort_unstable();
    pids.dedup();
    let seen = format!("{right} right answers, {} server connections, {:.0?}", pids.len(), started.elapsed());
    let good = right == CLIENTS * TRANSACTIONS && pids.len() <= CONNECTIONS;
    Ok(DemoRow::new(format!("{CLIENTS} clients with prepared statements"), seen, good))
}

/// A setting follows its client from connection to connection, and nobody else.
async fn settings_stay(clients: &[Client]) -> Result<DemoRow, StartError> {
    let [one, other, ..] = clients else { return Err("too few clients".into()) };
    one.batch_execute("SET TimeZone = 'Asia/Tokyo'").await?;
    let (mut kept, mut leaked) = (0, 0);
    for _ in 0..TRANSACTIONS {
        let zones = tokio::try_join!(zone(one), zone(other))?;
        kept += usize::from(zones.0 == "Asia/Tokyo");
        leaked += usize::from(zones.1 == "Asia/Tokyo");
    }
    let seen = format!("kept in {kept} of {TRANSACTIONS} transactions, leaked into {leaked}");
    Ok(DemoRow::new("SET TimeZone by one client", seen, kept == TRANSACTIONS && leaked == 0))
}

async fn zone(client: &Client) -> Result<String, tokio_postgres::Error> {
    Ok(client.query_one("SHOW TimeZone", &[]).await?.get(0))
}

async fn errors_come_through(clients: &[Client]) -> Result<DemoRow, StartError> {
    let [client, ..] = clients else { return Err("too few clients".into()) };
    let code = match client.simple_query("SELECT 1/0").await {
        Ok(_) => "no error".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned()),
    };
    let good = code == SqlState::DIVISION_BY_ZERO.code();
    Ok(DemoRow::new("a division by zero", format!("SQLSTATE {code}"), good))
}

async fn a_query_is_cancelled(clients: &[Client]) -> Result<DemoRow, StartError> {
    let [client, ..] = clients else { return Err("too few clients".into()) };
    let token = client.cancel_token();
    let started = Instant::now();
    let canceller = tokio::spawn(async move {
        loop {
            // The request may come before the query: then it cancels nothing, and another has to.
            tokio::time::sleep(Duration::from_millis(50)).await;
            if token.cancel_query(NoTls).await.is_err() {
                return;
            }
        }
    });
    let outcome = client.simple_query("SELECT pg_sleep(30)").await;
    canceller.abort();
    let good = outcome.is_err_and(|error| error.code() == Some(&SqlState::QUERY_CANCELED));
    let seen =
        format!("{} after {:.0?}", if good { "cancelled" } else { "not cancelled" }, started.elapsed());
    Ok(DemoRow::new("pg_sleep(30), and a cancel request", seen, good))
}
