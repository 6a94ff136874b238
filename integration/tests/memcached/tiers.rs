//! Memcached in front, and behind them a node that keeps on disk what has no room there.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use harness::{Kind, Memcached, PATIENCE, Proxy, Signal, eventually};

use crate::client::Client;

/// Requests on their way at once.
const BATCH: usize = 64;

/// How much there is of everything.
#[derive(Clone, Copy)]
struct Scale {
    /// Servers in front.
    front: usize,
    /// Megabytes of each.
    front_mib: usize,
    /// Of the node's memory and disk.
    node: [&'static str; 2],
    /// The length of a key's value in a round.
    value_len: fn(usize, usize) -> usize,
    keys: usize,
}

/// The least that memcached takes; items of 16 KiB.
const SMALL: Scale = Scale {
    front: 2,
    front_mib: 16,
    node: ["16MiB", "1GiB"],
    value_len: |_, _| 16 << 10,
    keys: 4 * 2 * 16 * 1024 / 16,
};

/// A gigabyte over a quarter of one. Lengths from 100 bytes to 200 KiB, 26 KiB on average, others in each round.
const LARGE: Scale = Scale {
    front: 4,
    front_mib: 64,
    node: ["64MiB", "4GiB"],
    value_len: |number, round| match (number + round) % 10 {
        0..6 => 100 + (number * 37 + round) % 5_000,
        6..9 => (10 << 10) + (number * 101 + round) % (12 << 10),
        _ => (160 << 10) + (number * 1009 + round) % (80 << 10),
    },
    keys: 42_000,
};

impl Scale {
    /// A node with a little memory and a disk.
    fn node(&self) -> Result<Proxy> {
        let [memory, disk] = self.node;
        Proxy::of(Kind::Memcached)
            .config(&format!(
                "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nworkers: 1\nclusters:\n  main:\n    \
                 endpoints: {{embedded: {{capacity: {memory}, disk: {{path: $DIR/cache, capacity: {disk}}}}}}}\n"
            ))
            .start()
    }

    fn value(&self, number: usize, round: usize) -> Vec<u8> {
        let text = format!("{number}/{round}/").into_bytes();
        text.into_iter().cycle().take((self.value_len)(number, round)).collect()
    }

    /// Bytes of all values in their first round.
    fn working_set_len(&self) -> usize {
        (0..self.keys).map(|number| (self.value_len)(number, 1)).sum()
    }

    fn write(&self, address: SocketAddr, numbers: &[usize], round: usize) -> Result<()> {
        let mut client = Client::connect(address)?;
        for batch in numbers.chunks(BATCH) {
            let mut requests = Vec::new();
            for number in batch {
                let value = self.value(*number, round);
                requests.extend(format!("set key{number} 0 3600 {}\r\n", value.len()).into_bytes());
                requests.extend(value);
                requests.extend(b"\r\n");
            }
            client.send(&requests)?;
            for number in batch {
                let answer = client.line()?;
                ensure!(answer == "STORED", "key{number}: {answer}");
            }
        }
        Ok(())
    }

    fn delete(&self, address: SocketAddr, numbers: &[usize]) -> Result<()> {
        let mut client = Client::connect(address)?;
        for number in numbers {
            let answer = client.ask(&format!("delete key{number}\r\n"))?;
            ensure!(answer == "DELETED", "key{number}: {answer}");
        }
        Ok(())
    }

    /// The values are those of `round_of`, or none.
    fn check(&self, address: SocketAddr, round_of: impl Fn(usize) -> Option<usize>) -> Result<()> {
        let mut client = Client::connect(address)?;
        for first in (0..self.keys).step_by(BATCH) {
            let batch = first..self.keys.min(first + BATCH);
            for number in batch.clone() {
                client.send(format!("get key{number}\r\n").as_bytes())?;
            }
            for number in batch {
                let line = client.line()?;
                let seen = match line.strip_prefix(&format!("VALUE key{number} 0 ")) {
                    None => {
                        ensure!(line == "END", "key{number}: {line}");
                        None
                    }
                    Some(len) => {
                        let value = client.take(len.parse()?)?;
                        ensure!(client.take(7)? == b"\r\nEND\r\n", "key{number} ends elsewhere");
                        Some(value)
                    }
                };
                let wanted = round_of(number).map(|round| self.value(number, round));
                ensure!(
                    seen == wanted,
                    "key{number}: {:?} for {:?}",
                    seen.map(|seen| String::from_utf8_lossy(seen.get(..20).unwrap_or(&seen)).into_owned()),
                    round_of(number)
                );
            }
        }
        Ok(())
    }

    /// Everything is found with the right value, whatever is evicted, overwritten, deleted and restarted.
    fn run(&self) -> Result<()> {
        let begun = Instant::now();
        let done = |what: &str| eprintln!("{:7.1} s: {what}", begun.elapsed().as_secs_f64());
        let start = |_| Memcached::builder().arg("-m").arg(self.front_mib.to_string()).start();
        let front = (0..self.front).map(start).collect::<Result<Vec<_>>>()?;
        let mut node = self.node()?;
        let addresses: Vec<_> = front.iter().map(Memcached::address).collect();
        let sidecars = [sidecar(&addresses, node.address())?, sidecar(&addresses, node.address())?];
        let [first, second] = sidecars.each_ref().map(Proxy::address);

        self.write(first, &(0..self.keys).collect::<Vec<_>>(), 1)?;
        let sum = |name: &str| addresses.iter().map(|server| stat(*server, name)).sum::<Result<u64>>();
        let (evictions, len) = (sum("evictions")?, self.working_set_len());
        done(&format!(
            "{} keys, {} MiB written over {} MiB of memory in front: {evictions} evictions there",
            self.keys,
            len >> 20,
            self.front * self.front_mib
        ));
        ensure!(len >= (4 * self.front * self.front_mib) << 20, "only {len} bytes were written");
        ensure!(evictions > self.keys as u64 / 2, "only {evictions} of {} items were evicted", self.keys);
        self.check(second, |_| Some(1))?;
        done("every value found");

        self.write(second, &(0..self.keys).step_by(3).collect::<Vec<_>>(), 2)?;
        self.delete(first, &(0..self.keys).step_by(10).collect::<Vec<_>>())?;
        done("every third written anew, every tenth deleted");
        let round_of = |number: usize| {
            (!number.is_multiple_of(10)).then_some(if number.is_multiple_of(3) { 2 } else { 1 })
        };
        self.check(first, round_of)?;
        ensure!(stat(node.address(), "disk_hits")? > 0);
        done(&format!(
            "every value found: {} hits on disk, {} items aged out there",
            stat(node.address(), "disk_hits")?,
            stat(node.address(), "disk_aged_out")?
        ));
        for sidecar in &sidecars {
            let lost = sidecar.metrics()?.sum("groove_memcached_spills_lost_total", &[]);
            ensure!(lost == Some(0.0), "{lost:?} values were not copied behind");
        }

        // What is behind outlives a restart of the node.
        node.signal(Signal::TERM)?;
        ensure!(node.exit(PATIENCE)?.success());
        node.restart()?;
        let mut client = Client::connect(second)?;
        eventually("the node behind is in use again", || {
            client.ask("set again 0 0 1\r\nx\r\n").is_ok_and(|answer| answer == "STORED").then_some(())
        })?;
        self.check(second, round_of)?;
        done("every value found after a restart of the node behind");

        let mut client = Client::connect(first)?;
        ensure!(client.ask("flush_all\r\n")? == "OK");
        self.check(second, |_| None)?;
        done("nothing found after flush_all");
        Ok(())
    }
}

/// A sidecar over the two tiers.
fn sidecar(front: &[SocketAddr], node: SocketAddr) -> Result<Proxy> {
    // The machine may have much else to do: a connection that is not greeted in time counts as a server that is down.
    let patient = "    timeout: 20s\n    connect_timeout: 20s\n    health: {probe: {interval: 2s, timeout: 2s, failures: 50}}\n";
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

fn stat(address: SocketAddr, name: &str) -> Result<u64> {
    let lines = Client::connect(address)?.ask_all("stats\r\n")?;
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    Ok(line.with_context(|| format!("no {name} in {lines:?}"))?.parse()?)
}

#[test]
fn four_times_the_memory_in_front_is_found_with_the_right_values() -> Result<()> {
    SMALL.run()
}

#[test]
#[ignore = "a gigabyte through debug builds: `make tiers`"]
fn a_gigabyte_behind_a_quarter_of_one_is_found_with_the_right_values() -> Result<()> {
    LARGE.run()
}
