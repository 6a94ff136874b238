//! Side by side with what Debian packages: interleaved rounds, medians, and what it costs.
//!
//! `integration/bench/` holds the peers' configurations and says what was decided to keep it fair.

mod fairness;
mod http;
mod memcached;
mod plot;
mod postgres;
mod processors;
mod report;
mod stalls;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread::ScopedJoinHandle;

use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use tempfile::TempDir;

use crate::load::count;
use crate::process::{Process, Usage};
use crate::{Kind, Port, Proxy, ProxyBuilder, paths, template};

pub use report::write;

/// Times that a few connections come, ask and go before idle ones are weighed.
const WARMING: usize = 250;

/// How long and how often to measure.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// Each candidate is measured that often in each scenario.
    pub rounds: usize,
    /// Each measurement takes that long, its warm-up not counted.
    pub seconds: u64,
    /// Workers of ours, and processes or threads of peers that can have several.
    pub workers: usize,
    /// Idle connections to weigh; none are with 0.
    pub idle_connections: usize,
    /// Only scenarios whose name has this in it.
    pub scenario: Option<String>,
}

impl Settings {
    /// Is the scenario of this name to be measured?
    fn wants(&self, name: &str) -> bool {
        self.scenario.as_ref().is_none_or(|part| name.contains(part))
    }
}

/// A proxy under comparison, or the server itself for reference.
pub(crate) struct Candidate {
    name: String,
    address: SocketAddr,
    /// The process that listens, and is the parent of others of the proxy's; `None` for the server itself.
    pid: Option<u32>,
    /// CPU and memory of the proxy; `None` for the server itself.
    usage: Option<Box<dyn Fn() -> Result<Usage>>>,
}

impl Candidate {
    fn direct(address: SocketAddr) -> Self {
        Self { name: "no proxy".to_owned(), address, pid: None, usage: None }
    }

    /// A peer: a process that listens on `address`, which lives as long as the candidate.
    fn peer(name: &str, address: SocketAddr, pid: u32, usage: impl Fn() -> Result<Usage> + 'static) -> Self {
        Self { name: name.to_owned(), address, pid: Some(pid), usage: Some(Box::new(usage)) }
    }

    /// A peer that is a program with a file of `integration/bench/`, in which `$LISTEN`, `$LISTEN_PORT` and `$DIR`
    /// stand for what it is to have; `command` starts it from the folder that has the file, and may use one more
    /// port.
    fn program(
        name: &str,
        file: &str,
        mut values: Vec<(&'static str, String)>,
        command: impl FnOnce(&Path, u16) -> Result<Command>,
    ) -> Result<Self> {
        let (port, another, folder) = (Port::reserve()?, Port::reserve()?, TempDir::new()?);
        values.push(("LISTEN", port.to_string()));
        values.push(("LISTEN_PORT", port.number().to_string()));
        values.push(("DIR", folder.path().display().to_string()));
        std::fs::write(folder.path().join(file), filled(file, &values)?)?;
        let mut process = Process::spawn(name, command(folder.path(), another.number())?)?;
        let address = port.address();
        process.until("accepting", || TcpStream::connect(address).is_ok())?;
        let pid = process.pid();
        Ok(Self::peer(name, address, pid, move || {
            let _held = (&port, &another, &folder);
            process.usage()
        }))
    }

    /// Ours, with a configuration of `integration/bench/`.
    fn ours(kind: Kind, values: &[(&str, String)]) -> Result<Self> {
        Self::configured(kind, &format!("{}.yaml", kind.name()), values)
    }

    /// Ours, with this file of `integration/bench/`.
    fn configured(kind: Kind, file: &str, values: &[(&str, String)]) -> Result<Self> {
        Self::built(Proxy::of(kind), kind, file, values)
    }

    /// The same, its access log added to `log`.
    fn logging(kind: Kind, log: &Path, values: &[(&str, String)]) -> Result<Self> {
        Self::built(Proxy::of(kind).stdout(log), kind, &format!("{}.yaml", kind.name()), values)
    }

    fn built(builder: ProxyBuilder, kind: Kind, file: &str, values: &[(&str, String)]) -> Result<Self> {
        let mut builder = builder.config(&template(file)?);
        for (name, value) in values {
            builder = builder.set(name, value);
        }
        let proxy = builder.start()?;
        Ok(Self::peer(kind.name(), proxy.address(), proxy.pid(), move || proxy.usage()))
    }

    fn usage(&self) -> Result<Usage> {
        self.usage.as_ref().map_or_else(|| Ok(Usage::default()), |usage| usage())
    }
}

/// One measurement, or the median of several.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Measure {
    /// Operations a second.
    pub throughput: f64,
    /// Median latency.
    pub p50_us: f64,
    /// The latency one in a hundred exceeds.
    pub p99_us: f64,
    /// CPU time of the proxy an operation.
    pub cpu_us: f64,
    /// Operations that failed.
    pub errors: u64,
    /// Of a hundred operations, those whose latency does not count because the machine stood still.
    pub left_out_percent: f64,
}

/// What one candidate did in one scenario.
#[derive(Debug, Serialize)]
pub struct Row {
    /// The candidate.
    pub candidate: String,
    /// The median of each figure over the rounds.
    pub median: Measure,
    /// Each turn of each round.
    pub rounds: Vec<Measure>,
    /// Why it could not be measured.
    pub failure: Option<String>,
}

/// What all candidates did in one scenario.
#[derive(Debug, Serialize)]
pub struct Scenario {
    /// What was done.
    pub name: String,
    /// One row a candidate, ours last.
    pub rows: Vec<Row>,
}

/// Everything about one protocol.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// The protocol and the peers.
    pub title: String,
    /// The name of our candidate.
    pub ours: &'static str,
    /// What was measured.
    pub scenarios: Vec<Scenario>,
    /// Bytes of private memory an idle connection, by candidate.
    pub idle_bytes: BTreeMap<String, f64>,
    /// How the candidates were set.
    pub notes: Vec<&'static str>,
}

/// A protocol's bench: what it compares, and how it measures and fills with idle connections.
trait Suite {
    fn title(&self) -> String;
    fn ours(&self) -> Kind;
    fn candidates(&self) -> &[Candidate];
    fn scenarios(&self) -> Vec<String>;
    /// How the candidates were set, where that is not to be taken for granted.
    fn notes(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// How often the candidates take turns in a round, and for how many seconds at a time.
    fn turns(&self, settings: &Settings) -> (usize, u64) {
        (1, settings.seconds)
    }
    /// Measures one candidate once, for one turn, in the scenario with this index.
    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure>;
    /// Opens idle connections, calls `weigh` while they are open, and closes them.
    fn idle(
        &self,
        candidate: &Candidate,
        connections: usize,
        weigh: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()>;
}

/// Compares one protocol; `told` hears what is going on.
///
/// # Errors
/// When servers or proxies do not start. A measurement that fails is a row that says so.
pub fn compare(kind: Kind, settings: &Settings, told: &mut dyn FnMut(&str)) -> Result<Comparison> {
    raise_open_files()?;
    let suite: Box<dyn Suite> = match kind {
        Kind::Memcached => Box::new(memcached::Memcacheds::start()?),
        Kind::Postgres => Box::new(postgres::Poolers::start(settings)?),
        Kind::Http => Box::new(http::Balancers::start(settings)?),
    };
    let idle_bytes = weigh_idle(suite.as_ref(), settings, told);
    let scenarios = measure_all(suite.as_ref(), settings, told);
    let notes = suite.notes();
    Ok(Comparison { title: suite.title(), ours: suite.ours().name(), scenarios, idle_bytes, notes })
}

/// First of all, while every proxy is fresh: memory that a load has left behind would hide the growth.
fn weigh_idle(suite: &dyn Suite, settings: &Settings, told: &mut dyn FnMut(&str)) -> BTreeMap<String, f64> {
    let mut weights = BTreeMap::new();
    if settings.idle_connections == 0 {
        return weights;
    }
    for candidate in suite.candidates().iter().filter(|candidate| candidate.usage.is_some()) {
        let weighed = (|| -> Result<f64> {
            // Buffers that are there once for all, such as the log's, are not what is weighed.
            for _ in 0..WARMING {
                suite.idle(candidate, 8, &mut || Ok(()))?;
            }
            let before = candidate.usage()?.resident_bytes;
            let mut after = before;
            suite.idle(candidate, settings.idle_connections, &mut || {
                after = candidate.usage()?.resident_bytes;
                Ok(())
            })?;
            Ok(count(after.saturating_sub(before)) / count(u64::try_from(settings.idle_connections)?))
        })();
        match weighed {
            Ok(bytes) => {
                told(&format!("{}: {bytes:.0} bytes an idle connection", candidate.name));
                weights.insert(candidate.name.clone(), bytes);
            }
            Err(error) => told(&format!("{}: idle connections not weighed: {error:#}", candidate.name)),
        }
    }
    weights
}

fn measure_all(suite: &dyn Suite, settings: &Settings, told: &mut dyn FnMut(&str)) -> Vec<Scenario> {
    let candidates = suite.candidates();
    let mut scenarios: Vec<(usize, Scenario)> = suite
        .scenarios()
        .into_iter()
        .enumerate()
        .filter(|(_, name)| settings.wants(name))
        .map(|(index, name)| (index, Scenario { name, rows: candidates.iter().map(Row::empty).collect() }))
        .collect();
    let (turns, seconds) = suite.turns(settings);
    let settings = &Settings { seconds, ..settings.clone() };
    for round in 0..settings.rounds {
        for (index, scenario) in &mut scenarios {
            for turn in 0..turns {
                // Another one begins each turn, so that what warms or tires the machine falls on all alike.
                let begins = round + turn;
                for at in (0..candidates.len()).map(|place| (place + begins) % candidates.len()) {
                    let (Some(candidate), Some(row)) = (candidates.get(at), scenario.rows.get_mut(at)) else {
                        continue;
                    };
                    if row.failure.is_none() {
                        match suite.measure(candidate, *index, settings) {
                            Ok(measure) => row.add(measure),
                            Err(error) => row.failure = Some(format!("{error:#}")),
                        }
                        told(&format!("round {} {}: {row}", round + 1, scenario.name));
                    }
                }
            }
        }
    }
    scenarios.into_iter().map(|(_, scenario)| scenario).collect()
}

impl Row {
    fn empty(candidate: &Candidate) -> Self {
        Self {
            candidate: candidate.name.clone(),
            median: Measure::default(),
            rounds: Vec::new(),
            failure: None,
        }
    }

    fn add(&mut self, measure: Measure) {
        self.rounds.push(measure);
        let median = |figure: fn(&Measure) -> f64| median(self.rounds.iter().map(figure).collect());
        self.median = Measure {
            throughput: median(|m| m.throughput),
            p50_us: median(|m| m.p50_us),
            p99_us: median(|m| m.p99_us),
            cpu_us: median(|m| m.cpu_us),
            errors: self.rounds.iter().map(|m| m.errors).sum(),
            left_out_percent: median(|m| m.left_out_percent),
        };
    }
}

/// The middle one, or what lies between the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2).copied().unwrap_or_default();
    let lower = values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    f64::midpoint(lower, upper)
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.failure, self.rounds.last()) {
            (Some(failure), _) => {
                write!(f, "{} failed: {}", self.candidate, failure.lines().next().unwrap_or_default())
            }
            (None, Some(m)) => write!(
                f,
                "{} {:.0}/s, p50 {:.0} us, p99 {:.0} us, CPU {:.2} us, {} errors, {:.1} % left out",
                self.candidate, m.throughput, m.p50_us, m.p99_us, m.cpu_us, m.errors, m.left_out_percent
            ),
            (None, None) => write!(f, "{} not measured", self.candidate),
        }
    }
}

/// A file of `integration/bench/`.
fn template(name: &str) -> Result<String> {
    let file = paths::repository().join("integration/bench").join(name);
    std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
}

/// The same with its names filled in.
fn filled(name: &str, values: &[(&str, String)]) -> Result<String> {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    template::fill(&template(name)?, &values)
}

/// Thousands of idle connections need as many descriptors, here and in what is started from here.
fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// What a thread of a load has come to.
fn ended<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a load panicked"))?
}
