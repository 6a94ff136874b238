//! Two memcached in front, and behind them a node that keeps on disk what has no room there.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use harness::{Kind, Memcached, PATIENCE, Proxy, Signal, eventually};

use crate::client::Client;

/// Each of the two has so many megabytes, their least.
const FRONT_MIB: usize = 16;

/// Items of 16 KiB: four times what the two in front can hold.
const KEYS: usize = 4 * 2 * FRONT_MIB * 1024 / 16;
const VALUE_LEN: usize = 16 << 10;

/// Requests on their way at once.
const BATCH: usize = 64;

/// A node with a little memory and a disk.
fn node() -> Result<Proxy> {
    Proxy::of(Kind::Memcached)
        .config(
            "listeners: [{address: $LISTEN}]\nadmin: {address: $ADMIN}\nworkers: 1\nclusters:\n  main:\n    \
             endpoints: {embedded: {capacity: 16MiB, disk: {path: $DIR/cache, capacity: 1GiB}}}\n",
        )
        .start()
}

/// A sidecar over the two tiers.
fn sidecar(front: &[SocketAddr], node: SocketAddr) -> Result<Proxy> {
    // The machine may have much else to do.
    let patient = "    timeout: 20s\n    health: {probe: {interval: 2s, timeout: 2s, failures: 50}}\n";
    let front: Vec<String> = front.iter().map(SocketAddr::to_string).collect();
    Proxy::of(Kind::Memcached)
        .config(&format!(
            "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nworkers: 1\ndefault_cluster: front\n\
             clusters:\n  front:\n    endpoints: [{}]\n    overflow: {{cluster: behind, spill: write}}\n\
             {patient}  behind:\n    endpoints: [{node}]\n{patient}",
            front.join(", ")
        ))
        .start()
}

fn value(number: usize, round: usize) -> String {
    format!("{number}/{round}/").chars().cycle().take(VALUE_LEN).collect()
}

fn write(address: SocketAddr, numbers: &[usize], round: usize) -> Result<()> {
    let mut client = Client::connect(address)?;
    for batch in numbers.chunks(BATCH) {
        for number in batch {
            client.send(
                format!("set key{number} 0 3600 {VALUE_LEN}\r\n{}\r\n", value(*number, round)).as_bytes(),
            )?;
        }
        for number in batch {
            let answer = client.line()?;
            ensure!(answer == "STORED", "key{number}: {answer}");
        }
    }
    Ok(())
}

/// The values are those of `round_of`, or none.
fn check(address: SocketAddr, round_of: impl Fn(usize) -> Option<usize>) -> Result<()> {
    let mut client = Client::connect(address)?;
    for first in (0..KEYS).step_by(BATCH) {
        let batch = first..KEYS.min(first + BATCH);
        for number in batch.clone() {
            client.send(format!("get key{number}\r\n").as_bytes())?;
        }
        for number in batch {
            let mut seen = None;
            loop {
                match client.line()? {
                    line if line == "END" => break,
                    line if line.starts_with("VALUE ") => seen = Some(client.line()?),
                    line => ensure!(false, "key{number}: {line}"),
                }
            }
            let wanted = round_of(number).map(|round| value(number, round));
            ensure!(
                seen == wanted,
                "key{number}: {:?} for {:?}",
                seen.map(|seen| seen[..20].to_owned()),
                round_of(number)
            );
        }
    }
    Ok(())
}

fn stat(address: SocketAddr, name: &str) -> Result<u64> {
    let lines = Client::connect(address)?.ask_all("stats\r\n")?;
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    Ok(line.with_context(|| format!("no {name} in {lines:?}"))?.parse()?)
}

#[test]
fn four_times_the_memory_in_front_is_found_with_the_right_values() -> Result<()> {
    let start = || Memcached::builder().arg("-m").arg(FRONT_MIB.to_string()).start();
    let (front, mut node) = ([start()?, start()?], node()?);
    let addresses = front.each_ref().map(Memcached::address);
    let sidecars = [sidecar(&addresses, node.address())?, sidecar(&addresses, node.address())?];
    let [first, second] = sidecars.each_ref().map(Proxy::address);

    write(first, &(0..KEYS).collect::<Vec<_>>(), 1)?;
    let evictions = stat(addresses[0], "evictions")? + stat(addresses[1], "evictions")?;
    ensure!(evictions > KEYS as u64 / 2, "only {evictions} of {KEYS} items were evicted");
    check(second, |_| Some(1))?;

    write(second, &(0..KEYS).step_by(3).collect::<Vec<_>>(), 2)?;
    let mut client = Client::connect(first)?;
    for number in (0..KEYS).step_by(10) {
        let answer = client.ask(&format!("delete key{number}\r\n"))?;
        ensure!(answer == "DELETED", "key{number}: {answer}");
    }
    let round_of =
        |number: usize| (!number.is_multiple_of(10)).then_some(if number.is_multiple_of(3) { 2 } else { 1 });
    check(first, round_of)?;
    ensure!(stat(node.address(), "disk_hits")? > 0);

    // What is behind outlives a restart of the node.
    node.signal(Signal::TERM)?;
    ensure!(node.exit(PATIENCE)?.success());
    node.restart()?;
    let mut client = Client::connect(second)?;
    eventually("the node behind is in use again", || {
        client.ask("set again 0 0 1\r\nx\r\n").is_ok_and(|answer| answer == "STORED").then_some(())
    })?;
    check(second, round_of)
}
