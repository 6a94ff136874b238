//! memcached: nutcracker (twemproxy) and ours over two stock servers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use super::{Candidate, Measure, Settings, Suite, write_filled};
use crate::load::{count, memcached as load};
use crate::process::{Process, Usage};
use crate::{Kind, Memcached, Port, paths};

const CONNECTIONS: usize = 50;
const DEPTHS: [usize; 2] = [1, 16];

pub(super) struct Memcacheds {
    candidates: Vec<Candidate>,
    _servers: Vec<Memcached>,
}

impl Memcacheds {
    pub(super) fn start() -> Result<Self> {
        let servers = Memcached::start_many(2)?;
        let mut values = Vec::new();
        for (name, server) in ["CACHE1", "CACHE2"].into_iter().zip(&servers) {
            values.push((name, server.address().to_string()));
        }
        let mut candidates: Vec<Candidate> =
            servers.first().map(|server| Candidate::direct(server.address())).into_iter().collect();
        candidates.push(nutcracker(values.clone())?);
        candidates.push(Candidate::ours(Kind::Memcached, &values)?);
        for candidate in &candidates {
            load::fill(candidate.address)?;
        }
        Ok(Self { candidates, _servers: servers })
    }
}

fn nutcracker(mut values: Vec<(&'static str, String)>) -> Result<Candidate> {
    let (port, statistics, folder) = (Port::reserve()?, Port::reserve()?, TempDir::new()?);
    values.push(("LISTEN", port.to_string()));
    let file = write_filled("nutcracker.yml", folder.path(), &values)?;
    let mut command = Command::new(paths::program("nutcracker")?);
    command.arg("-c").arg(file).args(["-a", "127.0.0.1", "-s", &statistics.number().to_string()]);
    let mut process = Process::spawn("nutcracker", command)?;
    let address = port.address();
    process.until("accepting", || TcpStream::connect(address).is_ok())?;
    Ok(Candidate::peer("nutcracker", address, move || {
        let _held = (&port, &statistics, &folder);
        process.usage()
    }))
}

impl Suite for Memcacheds {
    fn title(&self) -> String {
        format!("memcached: {CONNECTIONS} connections, 64-byte values, 9 gets to a set, 2 servers")
    }

    fn ours(&self) -> Kind {
        Kind::Memcached
    }

    fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn scenarios(&self) -> Vec<String> {
        DEPTHS.iter().map(|depth| format!("{depth} in flight")).collect()
    }

    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure> {
        let options = load::Options {
            address: candidate.address,
            connections: CONNECTIONS,
            depth: DEPTHS.get(scenario).copied().unwrap_or(1),
            set_percent: 10,
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(settings.seconds),
        };
        let mut samples: Vec<Usage> = Vec::with_capacity(2);
        let report = load::run(&options, &mut || {
            samples.push(candidate.usage()?);
            Ok(())
        })?;
        let cpu_s = samples.last().map_or(0.0, |usage| usage.cpu_s)
            - samples.first().map_or(0.0, |usage| usage.cpu_s);
        Ok(Measure {
            throughput: report.throughput(),
            p50_us: report.quantile_us(0.5),
            p99_us: report.quantile_us(0.99),
            cpu_us: cpu_s * 1e6 / count(report.operations.max(1)),
            errors: report.errors,
        })
    }

    fn idle(
        &self,
        candidate: &Candidate,
        connections: usize,
        weigh: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let mut held = Vec::with_capacity(connections);
        for _ in 0..connections {
            let mut stream = TcpStream::connect(candidate.address)?;
            stream.set_read_timeout(Some(crate::PATIENCE))?;
            stream.write_all(b"get missing\r\n")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer)?;
            ensure!(&answer == b"END\r\n", "get was answered by {:?}", String::from_utf8_lossy(&answer));
            held.push(stream);
        }
        weigh()
    }
}
