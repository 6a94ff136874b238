//! Who may run where. On two processors a load, the servers and a proxy wait for each other longer than for what the
//! proxy does; what is to be seen of its queues is seen when it has a processor of its own.

use std::hint;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use super::ended;
use crate::{paths, process};

/// A proxy on one processor, other processes on the others, until this is dropped.
pub(super) struct Apart {
    all: CpuSet,
    /// All but the proxy's.
    others: CpuSet,
    placed: Vec<u32>,
}

impl Apart {
    /// With one processor in all, nothing is placed anywhere.
    pub(super) fn place(proxy: Option<u32>, others: &[u32]) -> Result<Self> {
        let all = sched_getaffinity(None)?;
        let (mut own, mut rest) = (CpuSet::new(), all);
        let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| all.is_set(*cpu)).unwrap_or_default();
        own.set(last);
        rest.unset(last);
        if rest.count() == 0 {
            return Ok(Self { all, others: all, placed: Vec::new() });
        }
        let apart = Self { all, others: rest, placed: others.iter().copied().chain(proxy).collect() };
        others.iter().try_for_each(|pid| place(*pid, &rest))?;
        proxy.map_or(Ok(()), |pid| place(pid, &own))?;
        Ok(apart)
    }

    /// Keeps every processor awake while this runs, with threads that stand back for all others. One that falls asleep
    /// is slow to wake, which would be taken for the proxy's.
    pub(super) fn awake<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let is_over = AtomicBool::new(false);
        let spin = |cpu| -> Result<()> {
            let mut own = CpuSet::new();
            own.set(cpu);
            sched_setaffinity(None, &own)?;
            yield_to_all()?;
            while !is_over.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
            Ok(())
        };
        thread::scope(|scope| {
            let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| self.all.is_set(*cpu));
            let spin = &spin;
            let spinning: Vec<_> = cpus.map(|cpu| scope.spawn(move || spin(cpu))).collect();
            let told = run();
            is_over.store(true, Ordering::Relaxed);
            spinning.into_iter().try_for_each(ended)?;
            told
        })
    }

    /// Keeps the calling thread off the proxy's processor.
    pub(super) fn join_others(&self) -> Result<()> {
        Ok(sched_setaffinity(None, &self.others)?)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for pid in &self.placed {
            let _gone = place(*pid, &self.all);
        }
    }
}

/// Places every thread that the process has.
fn place(pid: u32, cpus: &CpuSet) -> Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let name = entry?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        sched_setaffinity(Some(thread.context("a thread without a number")?), cpus)?;
    }
    Ok(())
}

/// The calling thread runs only when nobody else wants its processor.
pub(super) fn yield_to_all() -> Result<()> {
    schedule("--idle", "0")
}

/// The calling thread runs as soon as it can.
pub(super) fn go_before_all() -> Result<()> {
    schedule("--fifo", "1")
}

fn schedule(policy: &str, priority: &str) -> Result<()> {
    let thread = gettid().as_raw_nonzero().to_string();
    let mut command = Command::new(paths::program("chrt")?);
    let output = process::run(command.args([policy, "--pid", priority, &thread]))?;
    ensure!(output.status.success(), "chrt: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
