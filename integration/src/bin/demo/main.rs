//! `make demo`: real servers, the three proxies in front of them, real clients, and a table of what was seen.
//!
//! On a terminal it then stays up, to be tried by hand, until Ctrl-C. Elsewhere it ends with the table: with
//! success, or with failure if a row failed.

mod http;
mod memcached;
mod migration;
mod postgres;
mod table;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use harness::{Kind, Proxy, ProxyBuilder, paths};
use tokio::signal::unix::{SignalKind, signal};

use table::Table;

#[tokio::main]
async fn main() -> Result<ExitCode> {
    eprintln!("starting memcached, PostgreSQL, nginx and the proxies ...");
    let mut cache = memcached::Demo::start()?;
    let database = postgres::Demo::start()?;
    let web = http::Demo::start()?;

    let mut table = Table::default();
    eprintln!("a session cache over three nodes, one killed and brought back ...");
    let shown = cache.show(&mut table).await;
    table.conclude("memcached", shown);
    eprintln!("pgbench with more clients than server connections ...");
    let shown = database.show(&mut table);
    table.conclude("postgres", shown);
    eprintln!("a database moves to another server and back under pgbench ...");
    let shown = migration::show(&mut table);
    table.conclude("postgres", shown);
    eprintln!("requests over two apps, with headers edited ...");
    let shown = web.show(&mut table);
    table.conclude("http", shown);

    let mut out = std::io::stdout();
    writeln!(out, "\n{table}")?;
    if std::io::stdin().is_terminal() && out.is_terminal() {
        writeln!(out, "{}\n{}\n{}\nCtrl-C ends it all.", cache.by_hand(), database.by_hand(), web.by_hand())?;
        // A terminal that is closed hangs up: the servers must not outlive it.
        let (mut interrupt, mut terminate, mut hangup) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        );
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
    Ok(if table.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A proxy on its file of `configs/`, where each of `addresses` is replaced by the name beside it.
fn configured(kind: Kind, file: &str, addresses: &[(&str, &str)]) -> Result<ProxyBuilder> {
    let path = paths::repository().join("configs").join(file);
    let mut text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    for (address, name) in addresses {
        anyhow::ensure!(text.contains(address), "{file} does not name {address} any more");
        text = text.replace(address, name);
    }
    Ok(Proxy::of(kind).config(&text))
}
