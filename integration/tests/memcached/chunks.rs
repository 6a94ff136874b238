//! Values that are longer than the servers take (1 MiB), in parts: over real servers, with overwrites, losses and many
//! clients at once.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::{Memcached, Proxy, eventually};

use crate::client::Client;
use crate::proxy_to;

const MIB: usize = 1 << 20;

/// The longest value that is one item, and the longest part: the default.
const PART_LEN: usize = 1000 << 10;

/// The longest value here.
const VALUE_LEN_MAX: usize = 12 * MIB;

fn sidecar(servers: &[SocketAddr]) -> Result<Proxy> {
    let patient = "    timeout: 20s\n    connect_timeout: 20s\n    health: {probe: {interval: 500ms, timeout: 500ms, failures: 20}}\n";
    proxy_to(servers, &format!("{patient}    chunks: {{}}\nlimits: {{value: 12MiB}}\n")).start()
}

fn servers() -> Result<(Vec<Memcached>, Vec<SocketAddr>)> {
    let start = |_| Memcached::builder().arg("-m").arg("256").start();
    let servers = (0..3).map(start).collect::<Result<Vec<_>>>()?;
    let addresses = servers.iter().map(Memcached::address).collect();
    Ok((servers, addresses))
}

/// Bytes of which no part is like another.
fn value(len: usize, seed: usize) -> Vec<u8> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [_, _, byte, ..] = state.to_be_bytes();
        byte
    };
    (0..len).map(|_| next()).collect()
}

fn store(client: &mut Client, command: &str, key: &str, exptime: u32, value: &[u8]) -> Result<String> {
    client.send(format!("{command} {key} 7 {exptime} {}\r\n", value.len()).as_bytes())?;
    client.send(value)?;
    client.ask("\r\n")
}

fn get(client: &mut Client, key: &str) -> Result<Option<Vec<u8>>> {
    let line = client.ask(&format!("get {key}\r\n"))?;
    if line == "END" {
        return Ok(None);
    }
    let len = line.strip_prefix(&format!("VALUE {key} 7 ")).with_context(|| format!("{key}: {line}"))?;
    let value = client.take(len.parse()?)?;
    ensure!(client.take(7)? == b"\r\nEND\r\n", "{key}: the value ends elsewhere");
    Ok(Some(value))
}

/// Items of all servers.
fn items(servers: &[SocketAddr]) -> Result<u64> {
    let mut items = 0;
    for server in servers {
        let lines = Client::connect(*server)?.ask_all("stats\r\n")?;
        let line = lines.iter().find_map(|line| line.strip_prefix("STAT curr_items "));
        items += line.context("no curr_items")?.parse::<u64>()?;
    }
    Ok(items)
}

/// The parts that are on the servers, each with its expiry.
fn parts(servers: &[SocketAddr]) -> Result<Vec<String>> {
    let mut parts = Vec::new();
    for server in servers {
        let lines = Client::connect(*server)?.ask_all("lru_crawler metadump all\r\n")?;
        parts.extend(lines.into_iter().filter(|line| line.starts_with("key=groove-part")));
    }
    Ok(parts)
}

#[test]
fn values_of_ten_megabytes_are_stored_read_and_gone_without_a_trace() -> Result<()> {
    let (_servers, addresses) = servers()?;
    let sidecars = [sidecar(&addresses)?, sidecar(&addresses)?];
    let [mut client, mut other] =
        [Client::connect(sidecars[0].address())?, Client::connect(sidecars[1].address())?];
    let (large, longer) = (value(10 * MIB, 1), value(10 * MIB + 17, 2));
    let parts_of = |value: &[u8]| value.len().div_ceil(PART_LEN) as u64;

    ensure!(store(&mut client, "set", "big", 0, &large)? == "STORED");
    ensure!(items(&addresses)? == parts_of(&large) + 1);
    ensure!(get(&mut other, "big")?.as_deref() == Some(&large[..]), "not what was stored");
    ensure!(store(&mut other, "add", "big", 0, &longer)? == "NOT_STORED");
    ensure!(client.ask("incr big 1\r\n")?.starts_with("CLIENT_ERROR cannot increment"));
    ensure!(client.ask("mg big s f\r\n")? == format!("HD s{} f7", large.len()));
    ensure!(client.ask("touch big 1000\r\n")? == "TOUCHED");
    ensure!(parts(&addresses)?.iter().all(|line| !line.contains("exp=-1 ")));

    // By token, and by a token that is old by then.
    let line = client.ask("gets big\r\n")?;
    let token = line.rsplit(' ').next().context("no token")?.to_owned();
    _ = client.take(large.len() + 7)?;
    let cas = |client: &mut Client, value: &[u8]| {
        client.send(format!("cas big 7 0 {} {token}\r\n", value.len()).as_bytes())?;
        client.send(value)?;
        client.ask("\r\n")
    };
    ensure!(cas(&mut client, &longer)? == "STORED");
    ensure!(cas(&mut client, &large)? == "EXISTS");
    ensure!(items(&addresses)? == parts_of(&longer) + 1, "parts of the version before are left");

    ensure!(store(&mut other, "append", "big", 0, b"tail")? == "STORED");
    ensure!(store(&mut client, "prepend", "big", 0, &large[..MIB])? == "STORED");
    let joined = [&large[..MIB], &longer, b"tail"].concat();
    ensure!(get(&mut other, "big")?.as_deref() == Some(&joined[..]), "not what was joined");
    ensure!(store(&mut client, "append", "big", 0, &large[..MIB])? == "NOT_STORED", "over the limit");
    ensure!(items(&addresses)? == parts_of(&joined) + 1);

    let answer = store(&mut client, "set", "huge", 0, &value(VALUE_LEN_MAX + 1, 3))?;
    ensure!(answer == "SERVER_ERROR object too large for cache", "{answer}");
    ensure!(store(&mut client, "set", "big", 0, b"small")? == "STORED");
    ensure!(get(&mut other, "big")?.as_deref() == Some(&b"small"[..]));
    ensure!(items(&addresses)? == 1, "parts of what was overwritten are left");
    ensure!(store(&mut client, "set", "big", 0, &large)? == "STORED");
    ensure!(other.ask("delete big\r\n")? == "DELETED");
    ensure!(items(&addresses)? == 0, "parts of what was deleted are left");

    // What begins as a head does is a value like any other.
    let tricky = b"\0groove parts 1\0 and so on";
    ensure!(store(&mut client, "set", "tricky", 0, tricky)? == "STORED");
    ensure!(get(&mut other, "tricky")?.as_deref() == Some(&tricky[..]));
    ensure!(other.ask("delete tricky\r\n")? == "DELETED");

    ensure!(store(&mut client, "set", "brief", 1, &large)? == "STORED");
    ensure!(items(&addresses)? == parts_of(&large) + 1);
    eventually("what has expired is gone with its parts", || {
        for server in &addresses {
            // Expired items are counted until somebody comes by.
            _ = Client::connect(*server).and_then(|mut client| client.ask("lru_crawler crawl all\r\n"));
        }
        items(&addresses).is_ok_and(|items| items == 0).then_some(())
    })
}

#[test]
fn a_server_that_dies_costs_whole_values_and_leaves_no_part_without_an_end() -> Result<()> {
    const KEYS: usize = 12;
    let (mut servers, addresses) = servers()?;
    let sidecar = sidecar(&addresses)?;
    let mut client = Client::connect(sidecar.address())?;
    let values: Vec<_> = (0..KEYS).map(|number| value(3 * MIB + number, number)).collect();
    for (number, value) in values.iter().enumerate() {
        ensure!(store(&mut client, "set", &format!("key{number}"), 0, value)? == "STORED");
    }
    servers[1].kill()?;
    servers[1].restart()?;
    for number in 0..50 {
        let key = format!("probe{number}");
        eventually("the server is in use again", || {
            store(&mut client, "set", &key, 1, b"x").is_ok_and(|answer| answer == "STORED").then_some(())
        })?;
    }
    let mut misses = 0;
    for (number, value) in values.iter().enumerate() {
        let key = format!("key{number}");
        match get(&mut client, &key)? {
            Some(seen) => ensure!(seen == *value, "{key} is not what was stored"),
            None => misses += 1,
        }
        ensure!(store(&mut client, "set", &key, 0, value)? == "STORED");
        ensure!(get(&mut client, &key)?.as_deref() == Some(&value[..]), "{key} cannot be stored again");
    }
    ensure!(misses > 0, "every value has a part or its head on each server, nearly");
    let left = parts(&addresses)?;
    ensure!(left.iter().all(|line| !line.contains("exp=-1 ")), "{left:?}");
    for number in 0..KEYS {
        ensure!(client.ask(&format!("delete key{number}\r\n"))? == "DELETED");
    }
    // What belonged to heads that died with their server has its own end, and nothing else is there.
    let heads_lost = parts(&addresses)?.len();
    ensure!(heads_lost < KEYS * 4, "{heads_lost}");
    Ok(())
}

#[test]
fn many_clients_at_one_key_never_see_a_mixture() -> Result<()> {
    let (_servers, addresses) = servers()?;
    let sidecars = [sidecar(&addresses)?, sidecar(&addresses)?];
    let proxies = sidecars.each_ref().map(Proxy::address);
    let is_over = AtomicBool::new(false);
    let write = |writer: usize| -> Result<()> {
        let mut client = Client::connect(proxies[writer % 2])?;
        for round in 0..12 {
            // Every byte of it says whose it is.
            let fill = u8::try_from(1 + writer * 50 + round)?;
            let len = if round % 3 == 2 { 100 } else { 2 * MIB + usize::from(fill) };
            let answer = store(&mut client, "set", "one", 0, &vec![fill; len])?;
            ensure!(answer == "STORED" || answer == "SERVER_ERROR try again", "{answer}");
        }
        Ok(())
    };
    let read = |reader: usize| -> Result<usize> {
        let (mut client, mut seen) = (Client::connect(proxies[reader % 2])?, 0);
        while !is_over.load(Ordering::Relaxed) {
            let Some(value) = get(&mut client, "one")? else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            let fill = *value.first().context("an empty value")?;
            let len = if value.len() == 100 { 100 } else { 2 * MIB + usize::from(fill) };
            if value.len() != len || value.iter().any(|byte| *byte != fill) {
                bail!("a mixture: {} bytes, the first is {fill}", value.len());
            }
            seen += 1;
        }
        Ok(seen)
    };
    thread::scope(|scope| -> Result<()> {
        let readers = [0, 1].map(|reader| scope.spawn(move || read(reader)));
        let writers = [0, 1, 2, 3].map(|writer| scope.spawn(move || write(writer)));
        let written = writers.into_iter().map(|writer| writer.join().unwrap()).collect::<Result<Vec<_>>>();
        is_over.store(true, Ordering::Relaxed);
        let seen = readers.into_iter().map(|reader| reader.join().unwrap()).sum::<Result<usize>>()?;
        written?;
        ensure!(seen > 0, "nobody has read anything");
        Ok(())
    })?;
    let mut client = Client::connect(proxies[0])?;
    ensure!(client.ask("delete one\r\n")? == "DELETED");
    ensure!(items(&addresses)? == 0, "{:?}", parts(&addresses)?);
    Ok(())
}
