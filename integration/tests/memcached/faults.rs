//! Servers that die, hang and come back; clients that do not read; values that are too large.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Memcached, Proxy, Scripted, Signal, eventually};

use crate::client::Client;
use crate::{embedded, proxy_to};

/// Longer than the timeout below by what a busy machine may add, and far shorter than for ever.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

fn addresses(servers: &[Memcached]) -> Vec<SocketAddr> {
    servers.iter().map(Memcached::address).collect()
}

/// A key whose server is down when `is_down` says so, found by asking.
fn keys_by_health(client: &mut Client) -> Result<(Vec<String>, Vec<String>)> {
    let (mut well, mut down) = (Vec::new(), Vec::new());
    for number in 0..60 {
        let key = format!("key{number}");
        let begun = Instant::now();
        let heard = client.ask_all(&format!("get {key}\r\n"))?;
        ensure!(begun.elapsed() < ANSWERED_WITHIN, "{key} took {:?}", begun.elapsed());
        match heard.last().map(String::as_str) {
            Some("END") => well.push(key),
            Some(error) if error.starts_with("SERVER_ERROR ") => down.push(key),
            other => anyhow::bail!("{other:?}"),
        }
    }
    Ok((well, down))
}

#[test]
fn a_server_is_killed_under_load_and_comes_back() -> Result<()> {
    let mut servers = Memcached::start_many(3)?;
    let proxy = proxy_to(&addresses(&servers), "    timeout: 500ms\n").start()?;
    let (stop, address) = (Arc::new(AtomicBool::new(false)), proxy.address());
    let load: Vec<_> = (0..8)
        .map(|client| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || -> Result<(u32, u32)> {
                let (mut client, name) = (Client::connect(address)?, client);
                let (mut good, mut failed) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let key = format!("load{name}-{}", good % 50);
                    let begun = Instant::now();
                    let heard = client.ask(&format!("set {key} 0 0 2\r\nhi\r\n"))?;
                    ensure!(begun.elapsed() < ANSWERED_WITHIN, "a request hung for {:?}", begun.elapsed());
                    match heard.as_str() {
                        "STORED" => good += 1,
                        error if error.starts_with("SERVER_ERROR ") => failed += 1,
                        other => anyhow::bail!("{other}"),
                    }
                }
                Ok((good, failed))
            })
        })
        .collect();
    servers[1].kill()?;
    let mut client = Client::connect(address)?;
    eventually("the dead server's keys fail", || {
        keys_by_health(&mut client).ok().filter(|(well, down)| !well.is_empty() && !down.is_empty())
    })?;
    let (well, down) = keys_by_health(&mut client)?;
    // A retrieval of many keys is served as far as it can be.
    let all = format!("get {} {}\r\n", well.join(" "), down.join(" "));
    assert_eq!(client.ask_all(&all)?, ["END"]);
    let flushed = client.ask("flush_all\r\n")?;
    assert!(flushed.starts_with("SERVER_ERROR "), "{flushed}");
    servers[1].restart()?;
    eventually("all keys are well again", || {
        keys_by_health(&mut client).ok().filter(|(_, down)| down.is_empty())
    })?;
    stop.store(true, Ordering::Relaxed);
    for client in load {
        let (good, _) = client.join().ok().context("a client panicked")??;
        assert!(good > 0);
    }
    Ok(())
}

#[test]
fn a_server_that_hangs_fails_its_keys_in_time() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let proxy = proxy_to(&addresses(&servers), "    timeout: 200ms\n    connect_timeout: 200ms\n").start()?;
    let mut client = Client::connect(proxy.address())?;
    assert!(keys_by_health(&mut client)?.1.is_empty());
    servers[0].signal(Signal::STOP)?;
    let (well, down) = keys_by_health(&mut client)?;
    assert!(!well.is_empty() && !down.is_empty());
    servers[0].signal(Signal::CONT)?;
    eventually("it is well again", || keys_by_health(&mut client).ok().filter(|(_, down)| down.is_empty()))?;
    Ok(())
}

#[test]
fn keys_of_a_dead_server_move_if_they_may() -> Result<()> {
    let mut servers = Memcached::start_many(3)?;
    let more = "    failover: rehash\n    health: {breaker: {consecutive_failures: 2}}\n";
    let proxy = proxy_to(&addresses(&servers), more).start()?;
    let mut client = Client::connect(proxy.address())?;
    assert_eq!(client.ask("set a 0 0 1\r\nx\r\n")?, "STORED");
    servers[2].kill()?;
    eventually("every key has a server", || {
        keys_by_health(&mut client).ok().filter(|(_, down)| down.is_empty())
    })?;
    servers[2].restart()?;
    eventually("the server has its keys back", || {
        for number in 0..60 {
            client.ask(&format!("set back{number} 0 0 1\r\nx\r\n")).ok()?;
        }
        let stats = Client::connect(servers[2].address()).ok()?.ask_all("stats\r\n").ok()?;
        stats.iter().find(|line| line.starts_with("STAT curr_items ") && !line.ends_with(" 0")).cloned()
    })?;
    Ok(())
}

#[test]
fn no_server_at_all_is_told_at_once() -> Result<()> {
    let nowhere = harness::Port::reserve()?;
    let proxy = proxy_to(&[nowhere.address()], "").alive_is_enough().start()?;
    let mut client = Client::connect(proxy.address())?;
    for request in ["get a\r\n", "set a 0 0 1\r\nx\r\n", "incr a 1\r\n", "version\r\n", "stats\r\n"] {
        let begun = Instant::now();
        let heard = client.ask(request)?;
        assert!(heard.starts_with("SERVER_ERROR "), "{request:?}: {heard}");
        assert!(begun.elapsed() < ANSWERED_WITHIN, "{request:?} took {:?}", begun.elapsed());
    }
    // Nobody hears of these.
    assert_eq!(client.ask("set a 0 0 1 noreply\r\nx\r\nfoo\r\n")?, "ERROR");
    Ok(())
}

#[test]
fn a_server_that_talks_nonsense_is_left() -> Result<()> {
    use std::io::{Read, Write};
    let liar = Scripted::start(|_, mut stream| {
        let mut part = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut part) {
            let answer: &[u8] = match part.get(..count) {
                Some(b"mn\r\n") => b"MN\r\n",
                Some(b"mn\r\nstats\r\n") => b"MN\r\nERROR\r\n",
                _ => b"HTTP/1.1 400 Bad Request\r\n\r\n",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    })?;
    let proxy = proxy_to(&[liar.address()], "").start()?;
    let mut client = Client::connect(proxy.address())?;
    assert!(client.ask("get a\r\n")?.starts_with("SERVER_ERROR "));
    assert!(client.ask("set a 0 0 1\r\nx\r\n")?.starts_with("SERVER_ERROR "));
    Ok(())
}

fn resident_mib(proxy: &Proxy) -> Result<u64> {
    Ok(proxy.usage()?.resident_bytes >> 20)
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody_and_little_memory() -> Result<()> {
    let servers = Memcached::start_many(1)?;
    let proxy = proxy_to(&addresses(&servers), "").start()?;
    let mut other = Client::connect(proxy.address())?;
    other.send(format!("set big 0 0 1000000\r\n{}\r\n", "v".repeat(1_000_000)).as_bytes())?;
    assert_eq!(other.line()?, "STORED");
    let before = resident_mib(&proxy)?;
    let mut lazy: Vec<Client> = (0..2).map(|_| Client::connect(proxy.address())).collect::<Result<_>>()?;
    for client in &mut lazy {
        client.send(format!("get{}\r\n", " big".repeat(200)).as_bytes())?;
    }
    for _ in 0..200 {
        let begun = Instant::now();
        assert_eq!(other.ask_all("get small\r\n")?, ["END"]);
        assert!(begun.elapsed() < ANSWERED_WITHIN, "held up for {:?}", begun.elapsed());
    }
    // Both want 200 MB; what is held is far less.
    let held = resident_mib(&proxy)?.saturating_sub(before);
    assert!(held < 250, "{held} MiB are held for clients that do not read");
    // And they get all of it once they do read.
    for client in &mut lazy {
        let mut values = 0;
        while client.line()? != "END" {
            values += 1;
        }
        assert_eq!(values, 400, "a line and a value each");
    }
    Ok(())
}

#[test]
fn a_huge_value_is_refused_without_being_held() -> Result<()> {
    let proxy = embedded()?;
    let mut client = Client::connect(proxy.address())?;
    assert_eq!(client.ask("set a 0 0 1\r\nx\r\n")?, "STORED");
    let before = resident_mib(&proxy)?;
    client.send(b"set a 0 0 300000000\r\n")?;
    assert_eq!(client.line()?, "SERVER_ERROR object too large for cache");
    let part = vec![b'v'; 1_000_000];
    for _ in 0..300 {
        client.send(&part)?;
    }
    client.send(b"\r\n")?;
    // The old value is gone, as with memcached.
    assert_eq!(client.ask("get a\r\n")?, "END");
    assert!(resident_mib(&proxy)? < before + 20);
    Ok(())
}
