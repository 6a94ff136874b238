//! Drains, reloads and bounds, under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use harness::{Memcached, PATIENCE, Signal, eventually};

use crate::client::Client;
use crate::proxy_to;

/// Clients that set and get until they are told to stop, or until the proxy says goodbye between two
/// exchanges. Anything else is an error: a part of an answer, a wrong answer, a failure.
struct Load {
    stop: Arc<AtomicBool>,
    exchanges: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (stop, exchanges) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |number| {
            let (stop, exchanges) = (Arc::clone(&stop), Arc::clone(&exchanges));
            thread::spawn(move || one_client(address, number, &stop, &exchanges))
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, exchanges, clients }
    }

    /// Waits until so many more exchanges were good.
    fn until(&self, more: u64) -> Result<()> {
        let wanted = self.exchanges.load(Ordering::Relaxed) + more;
        eventually("the load goes on", || (self.exchanges.load(Ordering::Relaxed) >= wanted).then_some(()))
    }

    fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
    }
}

fn one_client(address: SocketAddr, number: usize, stop: &AtomicBool, exchanges: &AtomicU64) -> Result<()> {
    let mut client = Client::connect(address)?;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("load{number}");
        let request = format!("set {key} 0 0 3\r\nabc\r\nget {key}\r\n");
        if client.send(request.as_bytes()).is_err() {
            return Ok(());
        }
        let wanted = format!("STORED\r\nVALUE {key} 0 3\r\nabc\r\nEND\r\n");
        let mut lines = String::new();
        while lines.len() < wanted.len() {
            match client.line() {
                Ok(line) => lines += &format!("{line}\r\n"),
                Err(_) if lines.is_empty() && client.unread().is_empty() => return Ok(()),
                Err(error) => return Err(error.context(lines)),
            }
        }
        ensure!(lines == wanted, "{lines}");
        exchanges.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn sigterm_under_load_breaks_no_exchange() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let addresses: Vec<_> = servers.iter().map(Memcached::address).collect();
    let mut proxy = proxy_to(&addresses, "").start()?;
    let load = Load::start(proxy.address(), 16);
    load.until(2000)?;
    proxy.signal(Signal::TERM)?;
    assert_eq!(proxy.exit(PATIENCE)?.code(), Some(0));
    load.end()
}

#[test]
fn sighup_with_a_bad_file_under_load_changes_nothing() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let addresses: Vec<_> = servers.iter().map(Memcached::address).collect();
    let mut proxy = proxy_to(&addresses, "").start()?;
    let load = Load::start(proxy.address(), 8);
    load.until(500)?;
    let mark = proxy.log().mark();
    proxy.rewrite("listeners: [{address: $LISTEN}]\nclusters: {main: {endpoints: [nowhere]}}\n")?;
    proxy.signal(Signal::HUP)?;
    proxy.log().after(mark, "nowhere")?;
    load.until(500)?;
    load.end()
}

#[test]
fn a_reload_moves_sessions_to_the_new_servers() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let mut proxy = proxy_to(&[servers[0].address()], "").start()?;
    let load = Load::start(proxy.address(), 4);
    let mut client = Client::connect(proxy.address())?;
    assert_eq!(client.ask("set here 0 0 1\r\nx\r\n")?, "STORED");
    let text = format!(
        "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nworkers: 2\n\
         clusters: {{main: {{endpoints: [{}], connections: 2}}}}\n",
        servers[1].address()
    );
    proxy.rewrite(&text)?;
    eventually("the session asks the new server", || {
        let heard = client.ask_all("get here\r\n").ok()?;
        (heard == ["END"]).then_some(())
    })?;
    load.until(200)?;
    load.end()
}

#[test]
fn routes_by_prefix_and_a_store_of_its_own() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy_to(
        &[server.address()],
        "  own:\n    endpoints: {embedded: {capacity: 8MiB}}\nroutes: [{prefix: 'own:', cluster: own}]\n",
    )
    .start()?;
    let mut client = Client::connect(proxy.address())?;
    assert_eq!(client.ask("set own:a 0 0 1\r\nx\r\n")?, "STORED");
    assert_eq!(client.ask("set a 0 0 1\r\ny\r\n")?, "STORED");
    assert_eq!(client.ask_all("get a own:a\r\n")?, ["VALUE a 0 1", "y", "VALUE own:a 0 1", "x", "END"]);
    let mut direct = Client::connect(server.address())?;
    assert_eq!(direct.ask_all("get a own:a\r\n")?, ["VALUE a 0 1", "y", "END"]);
    let stats = client.ask_all("stats\r\n")?;
    assert!(
        stats.contains(&"STAT curr_items 2".to_owned()) || stats.iter().any(|line| line == "STAT cmd_set 2")
    );
    assert!(stats.contains(&"STAT curr_connections 1".to_owned()), "{stats:?}");
    let metrics = proxy.metrics()?;
    assert!(metrics.names().iter().any(|name| name.contains("groove_memcached_requests")));
    Ok(())
}

#[test]
fn over_the_cap_is_told() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = harness::Proxy::of(harness::Kind::Memcached)
        .config(
            "listeners: [{address: $LISTEN, max_connections: 1}]\nadmin: {address: $ADMIN}\n\
             clusters: {main: {endpoints: [$SERVER]}}\n",
        )
        .set("SERVER", server.address())
        .start()?;
    let mut first = Client::connect(proxy.address())?;
    assert_eq!(first.ask("get a\r\n")?, "END");
    assert_eq!(Client::connect(proxy.address())?.line()?, "ERROR Too many open connections");
    assert_eq!(first.ask("get a\r\n")?, "END");
    Ok(())
}

#[test]
fn a_line_without_end_is_told_and_hung_up_on() -> Result<()> {
    let proxy = crate::embedded()?;
    let mut client = Client::connect(proxy.address())?;
    client.send(&[&b"get"[..], &b" k".repeat(600_000)].concat())?;
    assert_eq!(client.line()?, "CLIENT_ERROR line too long");
    assert!(client.line().is_err(), "it is still open");
    Ok(())
}
