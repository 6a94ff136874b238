//! The cluster that the clients of [`super`] go at: real servers, sidecars, and what happens to them meanwhile.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::client::Protocol;
use super::history::Report;
use super::load::{Options, Shared};
use super::steady::{self, Event, Hits};
use crate::{Kind, Memcached, Process, Proxy, paths};

/// How the list of servers changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Not at all.
    Never,
    /// By `groove-memcached resize`: nothing may be lost.
    Resize,
    /// By the file of every sidecar, at once: what moves is lost and may come back.
    Reload,
    /// The first sidecar has another list than the others, from the beginning.
    Split,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Operations in all; more if the servers have not changed as they should by then.
    pub operations: u64,
    /// Clients.
    pub clients: u16,
    /// Keys that are fought over.
    pub keys: u32,
    /// Keys of the steady set.
    pub steady_keys: u32,
    /// Sidecars.
    pub sidecars: usize,
    /// How they speak.
    pub protocols: Vec<Protocol>,
    /// How the servers change.
    pub change: Change,
    /// To how many, one after the other; three at first. At most five.
    pub sizes: Vec<usize>,
    /// How often all of that, from three again.
    pub cycles: u32,
    /// Whether a server is killed and started again after the first change of each cycle.
    pub kill: bool,
    /// Keys that are moved in a second: slow enough that clients meet them in every state of a move.
    pub keys_per_second: u32,
    /// One of the mistakes that the product can be built with, for the proof that they are caught.
    pub mutant: Option<String>,
    /// By how many milliseconds sidecars are to differ in their steps, in the same build.
    pub lag_ms: u32,
    /// For the dice.
    pub seed: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            operations: 300_000,
            clients: 48,
            keys: 400,
            steady_keys: 5000,
            sidecars: 3,
            protocols: vec![Protocol::Classic],
            change: Change::Resize,
            sizes: vec![5, 2],
            cycles: 1,
            kill: true,
            keys_per_second: 200,
            mutant: None,
            lag_ms: 0,
            seed: 1,
        }
    }
}

/// What a run showed.
#[derive(Debug)]
pub struct Outcome {
    /// What the checker found.
    pub report: Report,
    /// Operations with unknown outcome.
    pub unknown: u64,
    /// The hit ratio of the steady set.
    pub hits: Hits,
    /// Where the series was written.
    pub series: PathBuf,
    /// How long the load took.
    pub took: Duration,
    /// What happened when.
    pub events: Vec<String>,
}

impl Outcome {
    /// Whether everything that was seen may be seen, of servers that change so.
    #[must_use]
    pub fn is_clean(&self, change: Change) -> bool {
        self.report.counts.keys().all(|what| change == Change::Resize && what.is_a_resizes_right())
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            f,
            "load of {:.0} s, {} operations of unknown outcome",
            self.took.as_secs_f64(),
            self.unknown
        )?;
        self.events.iter().try_for_each(|event| writeln!(f, "  {event}"))?;
        writeln!(f, "{}", self.hits)?;
        writeln!(f, "series: {}", self.series.display())?;
        write!(f, "{}", self.report)
    }
}

/// The most servers there are.
const SERVERS: usize = 5;

/// Without a miss for so long, the steady set is what it was.
const WHOLE_AFTER: Duration = Duration::from_secs(2);

/// A resize that takes longer stands still.
const RESIZED_WITHIN: Duration = Duration::from_secs(300);

/// What every cycle begins with.
const FIRST: usize = 3;

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 1
clusters:
  main:
    endpoints: [$SERVERS]
    timeout: 1s
    connect_timeout: 500ms
$MORE";

const TRANSPARENT: &str = "    resize: {policy: transparent, state: $STATE, keys_per_second: $RATE}\n";

impl Plan {
    /// Starts everything, runs the load while the servers change, and checks what was seen.
    ///
    /// # Errors
    /// When something does not start, or an answer is none of memcached's. Violations are no error.
    pub fn run(&self) -> Result<Outcome> {
        let mut stage = Stage::set(self)?;
        let sidecars: Vec<SocketAddr> = stage.sidecars.iter().map(Proxy::address).collect();
        let shared = Shared::new();
        let options = Options {
            sidecars: sidecars.clone(),
            clients: self.clients,
            keys: self.keys,
            operations: self.operations,
            protocols: self.protocols.clone(),
            seed: self.seed,
        };
        let (ready, stop) = (AtomicBool::new(false), Arc::new(AtomicBool::new(false)));
        let missed = Arc::clone(&stage.missed_at_ms);
        stage.begun = Instant::now();
        let begun = stage.begun;
        std::thread::scope(|scope| {
            let steady =
                scope.spawn(|| steady::run(&sidecars, self.steady_keys, begun, &ready, &missed, &stop));
            while !ready.load(Ordering::Relaxed) && !steady.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            if !ready.load(Ordering::Relaxed) {
                let series = steady.join().unwrap_or_else(|_| bail!("the steady load panicked"));
                return Err(series.err().unwrap_or_else(|| anyhow!("the steady set was not stored")));
            }
            let load = scope.spawn(|| options.run(&shared));
            let played = stage.play(self, &shared, &|| load.is_finished());
            shared.stop.store(true, Ordering::Relaxed);
            let history = load.join().unwrap_or_else(|_| bail!("the load panicked"));
            let took = begun.elapsed();
            stop.store(true, Ordering::Relaxed);
            let series = steady.join().unwrap_or_else(|_| bail!("the steady load panicked"));
            played?;
            let (history, series) = (history?, series?);
            let file = paths::target()?.join("checker").join(format!("hits-{}.csv", std::process::id()));
            std::fs::create_dir_all(paths::target()?.join("checker"))?;
            std::fs::write(&file, series.table(&stage.events)?)?;
            Ok(Outcome {
                unknown: shared.unknown.load(Ordering::Relaxed),
                hits: series.hits(&stage.events),
                series: file,
                took,
                events: stage
                    .events
                    .iter()
                    .map(|e| format!("{:7.1} s: {}", e.at.as_secs_f64(), e.what))
                    .collect(),
                report: history.check(),
            })
        })
    }
}

/// Servers and sidecars, and what has been done to them.
struct Stage {
    servers: Vec<Memcached>,
    sidecars: Vec<Proxy>,
    /// What the sidecars share, and the lists for `resize`.
    folder: tempfile::TempDir,
    begun: Instant,
    events: Vec<Event>,
    /// When the steady set missed something for the last time.
    missed_at_ms: Arc<AtomicU64>,
}

impl Stage {
    fn set(plan: &Plan) -> Result<Self> {
        // Room for everything: nothing is to be evicted but by what is done on purpose.
        let server = || Memcached::builder().arg("-m").arg("256").start();
        let servers = (0..SERVERS).map(|_| server()).collect::<Result<Vec<_>>>()?;
        let folder = tempfile::tempdir()?;
        let mut stage = Self {
            servers,
            sidecars: Vec::new(),
            folder,
            begun: Instant::now(),
            events: Vec::new(),
            missed_at_ms: Arc::default(),
        };
        let state = stage.folder.path().join("state");
        std::fs::create_dir_all(&state)?;
        for number in 0..plan.sidecars {
            let is_odd = plan.change == Change::Split && number == 0;
            let list = stage.list(if is_odd { SERVERS } else { FIRST });
            let more = if plan.change == Change::Resize { TRANSPARENT } else { "" };
            let mut builder = Proxy::of(Kind::Memcached)
                .config(&CONFIG.replace("$MORE", more))
                .set("SERVERS", list)
                .set("STATE", state.display())
                .set("RATE", plan.keys_per_second)
                .env("GROOVE_LAG", plan.lag_ms.to_string());
            if let Some(mutant) = &plan.mutant {
                builder = builder.env("GROOVE_MUTANT", mutant);
            }
            stage.sidecars.push(builder.start()?);
        }
        Ok(stage)
    }

    fn list(&self, count: usize) -> String {
        let addresses: Vec<String> =
            self.servers.iter().take(count).map(|server| server.address().to_string()).collect();
        addresses.join(", ")
    }

    fn note(&mut self, what: impl Into<String>, is_planned: bool) {
        let what = what.into();
        let at = self.begun.elapsed();
        eprintln!("{:7.1} s: {what}", at.as_secs_f64());
        self.events.push(Event { at, what, is_planned });
    }

    /// Does what the plan says, each when the load has come so far, and waits until it has come far enough.
    fn play(&mut self, plan: &Plan, shared: &Shared, is_over: &dyn Fn() -> bool) -> Result<()> {
        let until = |share: f64| {
            let wanted = crate::load::count(plan.operations) * share;
            while crate::load::count(shared.begun.load(Ordering::Relaxed)) < wanted && !is_over() {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let changes = matches!(plan.change, Change::Resize | Change::Reload);
        // A tenth of the load is left for the steady state before and as much after.
        let steps = plan.sizes.len().max(1);
        let step = 0.8 / f64::from(plan.cycles.max(1)) / f64::from(u32::try_from(steps)?);
        let mut from = 0.1;
        for number in 0..plan.cycles {
            for turn in 0..steps {
                until(from);
                if changes && number > 0 && turn == 0 {
                    self.change(plan, FIRST)?;
                }
                if let Some(size) = plan.sizes.get(turn).filter(|_| changes) {
                    self.change(plan, *size)?;
                }
                if turn == 0 && plan.kill {
                    until(from + step * 0.7);
                    self.kill_one(1, is_over)?;
                }
                from += step;
            }
        }
        until(1.0);
        Ok(())
    }

    fn kill_one(&mut self, number: usize, is_over: &dyn Fn() -> bool) -> Result<()> {
        // Before: a process that is killed may take seconds to be gone, on a busy machine.
        self.note(format!("server {number} is killed"), false);
        self.servers.get_mut(number).context("no such server")?.kill()?;
        std::thread::sleep(Duration::from_millis(500));
        let server = self.servers.get_mut(number).context("no such server")?;
        server.restart()?;
        self.note(format!("server {number} was started again"), false);
        let mut whole = Duration::ZERO;
        while whole < WHOLE_AFTER && !is_over() {
            std::thread::sleep(Duration::from_millis(50));
            let missed = Duration::from_millis(self.missed_at_ms.load(Ordering::Relaxed));
            let restarted = self.events.last().map_or(Duration::ZERO, |event| event.at);
            whole = self.begun.elapsed().saturating_sub(missed.max(restarted));
        }
        self.note("the steady set is whole again", true);
        Ok(())
    }

    fn change(&mut self, plan: &Plan, size: usize) -> Result<()> {
        let list = self.list(size);
        self.note(format!("to {size} servers"), true);
        match plan.change {
            Change::Never | Change::Split => {}
            Change::Reload => {
                for sidecar in &mut self.sidecars {
                    sidecar.set("SERVERS", &list);
                    sidecar.rewrite(&CONFIG.replace("$MORE", ""))?;
                }
            }
            Change::Resize => {
                self.resize(&list)?;
                self.note(format!("now {size} servers"), true);
            }
        }
        Ok(())
    }

    /// Asks the last sidecar, waits until it says that it is done.
    fn resize(&self, list: &str) -> Result<()> {
        let file = self.folder.path().join("servers");
        std::fs::write(&file, format!("[{list}]\n"))?;
        let admin = self.sidecars.last().context("no sidecar")?.admin().to_string();
        let file = file.display().to_string();
        let mut command = Command::new(Kind::Memcached.binary()?);
        command.args(["resize", "--cluster", "main", "--to", &file, "--admin", &admin]);
        let mut verb = Process::spawn("resize", command)?;
        let status = verb.exit(RESIZED_WITHIN)?;
        ensure!(status.success(), "resize: {}", verb.log());
        Ok(())
    }
}
