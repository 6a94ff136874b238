//! memcached: nutcracker (twemproxy) and ours over two stock servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::fairness::FLOODS;
use super::processors::Apart;
use super::{Candidate, Measure, Settings, Suite};
use crate::load::{count, memcached as load};
use crate::process::Usage;
use crate::{Kind, Memcached, paths};

const CONNECTIONS: usize = 50;

/// What is done: requests in flight, bytes of a value, keys of a get, and of a hundred requests how many are sets.
struct Case {
    name: &'static str,
    depth: usize,
    value_bytes: usize,
    keys_per_get: u32,
    set_percent: u32,
    /// Whether ours has its clients log in as two tenants; peers know none.
    has_tenants: bool,
}

const fn case(name: &'static str, depth: usize, value_bytes: usize) -> Case {
    Case { name, depth, value_bytes, keys_per_get: 1, set_percent: 10, has_tenants: false }
}

const fn many(name: &'static str, value_bytes: usize) -> Case {
    Case { name, depth: 1, value_bytes, keys_per_get: 24, set_percent: 0, has_tenants: false }
}

const CASES: [Case; 10] = [
    case("64 bytes, 1 in flight", 1, 64),
    case("64 bytes, 16 in flight", 16, 64),
    many("64 bytes, 24 keys a get", 64),
    case("1 KiB, 1 in flight", 1, 1024),
    case("1 KiB, 16 in flight", 16, 1024),
    many("1 KiB, 24 keys a get", 1024),
    Case { has_tenants: true, ..case("64 bytes, 1 in flight, two tenants", 1, 64) },
    Case { has_tenants: true, ..case("64 bytes, 16 in flight, two tenants", 16, 64) },
    Case { has_tenants: true, ..many("64 bytes, 24 keys a get, two tenants", 64) },
    Case { has_tenants: true, ..many("1 KiB, 24 keys a get, two tenants", 1024) },
];

/// As in `groove-memcached-tenants.yaml`.
const LOGINS: [(&str, &str); 2] = [("shop", "secret"), ("news", "secret")];

impl Case {
    fn load(&self, address: SocketAddr, seconds: u64, is_ours: bool) -> load::Options {
        load::Options {
            address,
            connections: CONNECTIONS,
            depth: self.depth,
            set_percent: self.set_percent,
            value_bytes: self.value_bytes,
            keys_per_get: self.keys_per_get,
            hot_percent: 0,
            logins: if self.has_tenants && is_ours { &LOGINS } else { &[] },
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(seconds),
        }
    }
}

pub(super) struct Memcacheds {
    candidates: Vec<Candidate>,
    /// Ours again, with tenants.
    tenants: Candidate,
    servers: Vec<Memcached>,
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
        let tenants = Candidate::configured(Kind::Memcached, "groove-memcached-tenants.yaml", &values)?;
        let suite = Self { candidates, tenants, servers };
        for case in CASES.iter().filter(|case| case.keys_per_get > 1 || case.has_tenants) {
            for index in 0..suite.candidates.len() {
                suite.fill(case, index)?;
            }
        }
        Ok(suite)
    }

    /// Where a case sends its load for a candidate, and whether that is ours.
    fn of<'a>(&'a self, case: &Case, candidate: &'a Candidate) -> (&'a Candidate, bool) {
        let is_ours = self.is_ours(candidate);
        (if is_ours && case.has_tenants { &self.tenants } else { candidate }, is_ours)
    }

    fn is_ours(&self, candidate: &Candidate) -> bool {
        candidate.name == self.ours().name()
    }

    fn fill(&self, case: &Case, index: usize) -> Result<()> {
        let candidate = self.candidates.get(index).context("no such candidate")?;
        let (candidate, is_ours) = self.of(case, candidate);
        load::fill(&case.load(candidate.address, 0, is_ours))
    }
}

fn nutcracker(values: Vec<(&'static str, String)>) -> Result<Candidate> {
    Candidate::program("nutcracker", "nutcracker.yml", values, |folder, statistics| {
        let mut command = Command::new(paths::program("nutcracker")?);
        command.arg("-c").arg(folder.join("nutcracker.yml"));
        command.args(["-a", "127.0.0.1", "-s", &statistics.to_string()]);
        Ok(command)
    })
}

impl Suite for Memcacheds {
    fn title(&self) -> String {
        format!("memcached: {CONNECTIONS} connections, 9 gets to a set (of 24 keys: gets only), 2 servers")
    }

    fn ours(&self) -> Kind {
        Kind::Memcached
    }

    fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn scenarios(&self) -> Vec<String> {
        let names = CASES.iter().map(|case| case.name).chain(FLOODS.iter().map(|flood| flood.name));
        names.map(str::to_owned).collect()
    }

    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure> {
        let Some(case) = CASES.get(scenario) else {
            let flood = FLOODS.get(scenario - CASES.len()).context("no such case")?;
            let is_ours = self.is_ours(candidate);
            let candidate = if is_ours { &self.tenants } else { candidate };
            let servers: Vec<u32> = self.servers.iter().map(Memcached::pid).collect();
            let apart = Apart::place(candidate.pid, &servers)?;
            return flood.measure(candidate.address, is_ours, &apart, settings.seconds);
        };
        let (candidate, is_ours) = self.of(case, candidate);
        let options = case.load(candidate.address, settings.seconds, is_ours);
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
            ..Measure::default()
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
