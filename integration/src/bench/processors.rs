//! Who may run where, and before whom. On two processors a load, the servers and a proxy wait for each other longer
//! than for what the proxy does, and for half a millisecond at a time when something else on the machine has work; what
//! is to be seen of the proxy's queues is seen when it has a processor of its own and goes before strangers.

use std::hint;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, gettid, sched_getaffinity, sched_setaffinity};

use super::ended;
use super::stalls::{self, Stall};
use crate::{paths, process};

/// A proxy on one processor, other processes on the others, all before whatever else runs, until this is dropped.
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
        apart.placed.iter().try_for_each(|pid| schedule(&["--all-tasks", "--fifo"], "1", *pid))?;
        Ok(apart)
    }

    /// Keeps every processor awake while this runs, with threads that stand back for all others. One that falls asleep
    /// is slow to wake, which would be taken for the proxy's.
    pub(super) fn awake<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let spin = |is_over: &AtomicBool| {
            yield_to_all()?;
            while !is_over.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
            Ok(())
        };
        Ok(self.beside(spin, run)?.0)
    }

    /// Watches every processor while this runs, and tells when one stood still.
    pub(super) fn watched<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Stall>)> {
        let watch = |is_over: &AtomicBool| {
            schedule(&["--fifo"], "3", this_thread())?;
            Ok(stalls::watch(is_over))
        };
        let (told, stalls) = self.beside(watch, run)?;
        Ok((told, stalls.into_iter().flatten().collect()))
    }

    /// A thread on every processor beside `run`, until that is over.
    fn beside<T, U: Send>(
        &self,
        each: impl Fn(&AtomicBool) -> Result<U> + Sync,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<(T, Vec<U>)> {
        let is_over = AtomicBool::new(false);
        let on = |cpu| {
            let mut own = CpuSet::new();
            own.set(cpu);
            sched_setaffinity(None, &own)?;
            each(&is_over)
        };
        thread::scope(|scope| {
            let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| self.all.is_set(*cpu));
            let on = &on;
            let threads: Vec<_> = cpus.map(|cpu| scope.spawn(move || on(cpu))).collect();
            let told = run();
            is_over.store(true, Ordering::Relaxed);
            let ends: Result<Vec<_>> = threads.into_iter().map(ended).collect();
            Ok((told?, ends?))
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
            let _gone = schedule(&["--all-tasks", "--other"], "0", *pid);
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
    schedule(&["--idle"], "0", this_thread())
}

/// The calling thread runs as soon as it can: before what is placed, and behind who watches the processors alone.
pub(super) fn go_before_all() -> Result<()> {
    schedule(&["--fifo"], "2", this_thread())
}

fn this_thread() -> u32 {
    gettid().as_raw_nonzero().get().unsigned_abs()
}

fn schedule(policy: &[&str], priority: &str, id: u32) -> Result<()> {
    let mut command = Command::new(paths::program("chrt")?);
    let output = process::run(command.args(policy).args(["--pid", priority, &id.to_string()]))?;
    ensure!(output.status.success(), "chrt: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
