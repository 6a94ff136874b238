//! Keys that are asked for very often, before real servers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Memcached, PATIENCE, Proxy};

use crate::client::Client;
use crate::proxy_to;

const TTL: Duration = Duration::from_secs(2);

fn proxy(server: &Memcached) -> Result<Proxy> {
    proxy_to(&[server.address()], "    connections: 2\n    hot_keys: {ttl: 2s, rate: 10}\n").start()
}

fn count(proxy: &Proxy, what: &str) -> Result<f64> {
    let name = format!("groove_memcached_hot_key_{what}_total");
    proxy.metrics()?.sum(&name, &[("cluster", "main")]).context(name)
}

fn get(client: &mut Client) -> Result<u64> {
    let lines = client.ask_all("get hot\r\n")?;
    let value = lines.get(1).with_context(|| format!("{lines:?}"))?;
    Ok(value.parse()?)
}

fn set(client: &mut Client, value: u64) -> Result<()> {
    let text = value.to_string();
    let heard = client.ask(&format!("set hot 0 0 {}\r\n{text}\r\n", text.len()))?;
    ensure!(heard == "STORED", "{heard}");
    Ok(())
}

/// How often the server was asked for a key.
fn asked(server: &Memcached) -> Result<u64> {
    let lines = Client::connect(server.address())?.ask_all("stats\r\n")?;
    let line = lines.iter().find_map(|line| line.strip_prefix("STAT cmd_get "));
    Ok(line.context("no cmd_get")?.parse()?)
}

#[test]
fn a_hot_key_is_asked_seldom_and_another_sidecars_write_is_seen_in_time() -> Result<()> {
    let server = Memcached::start()?;
    let (here, elsewhere) = (proxy(&server)?, proxy(&server)?);
    let (mut client, mut other) = (Client::connect(here.address())?, Client::connect(elsewhere.address())?);
    set(&mut client, 1)?;
    let before = asked(&server)?;
    for _ in 0..1000 {
        assert_eq!(get(&mut client)?, 1);
    }
    let asked = asked(&server)? - before;
    assert!(asked < 500, "{asked} of 1000");
    assert!(count(&here, "hits")? >= 500.0 && count(&here, "fills")? >= 1.0);
    // Through the same sidecar: at once, whoever asks.
    set(&mut client, 2)?;
    assert_eq!(get(&mut Client::connect(here.address())?)?, 2);
    let (written, mut seen) = (Instant::now(), 2);
    set(&mut other, 3)?;
    while seen == 2 {
        assert!(written.elapsed() < TTL + PATIENCE, "not seen at all");
        let begun = Instant::now();
        seen = get(&mut client)?;
        assert!(seen == 3 || begun - written <= TTL + Duration::from_millis(100), "older than that");
    }
    assert_eq!(seen, 3);
    client.ask("flush_all\r\n")?;
    assert_eq!(client.ask_all("get hot\r\n")?, ["END"]);
    Ok(())
}

/// Whatever was acknowledged before a read began, the read sees: over both workers and their connections.
#[test]
fn no_read_is_older_than_the_last_write_through_the_same_sidecar() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&server)?;
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    set(&mut Client::connect(proxy.address())?, 0)?;
    let read = || -> Result<u64> {
        let mut client = Client::connect(proxy.address())?;
        let mut reads = 0;
        while !is_over.load(Ordering::SeqCst) {
            let least = acknowledged.load(Ordering::SeqCst);
            let seen = get(&mut client)?;
            ensure!(seen >= least, "{seen} was read, and {least} acknowledged before");
            reads += 1;
        }
        Ok(reads)
    };
    let write = || -> Result<()> {
        let mut client = Client::connect(proxy.address())?;
        for value in 1..=1500 {
            set(&mut client, value)?;
            acknowledged.store(value, Ordering::SeqCst);
            if value % 10 == 0 {
                // Time for something to be kept.
                (0..10).try_for_each(|_| get(&mut client).map(drop))?;
            }
        }
        Ok(())
    };
    let reads = std::thread::scope(|scope| -> Result<u64> {
        let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
        let written = write();
        is_over.store(true, Ordering::SeqCst);
        let mut reads = 0;
        for reader in readers {
            reads += reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        written.map(|()| reads)
    })?;
    let (hits, merged) = (count(&proxy, "hits")?, count(&proxy, "merged")?);
    assert!(
        reads > 1000 && hits > 100.0 && count(&proxy, "invalidations")? > 10.0,
        "{reads} {hits} {merged}"
    );
    Ok(())
}
