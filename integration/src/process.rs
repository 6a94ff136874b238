//! One child process: its log as it comes, signals, its exit as an event, and what it costs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::wait::PATIENCE;

/// How many of its last lines a log shows when a test fails.
const TAIL_LINES: usize = 80;

/// The unit of times in `/proc/PID/stat`: Linux shows user space 100 a second on every machine it runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// A program started by the harness and ended by its process id when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Log,
    farewell: Signal,
}

impl Process {
    /// Starts `command` in a process group of its own with its output collected; `name` heads its log.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(name: impl Into<String>, command: Command) -> Result<Self> {
        Self::spawn_to(name, command, Stdio::piped())
    }

    /// The same, with its standard output going elsewhere than into the log.
    ///
    /// # Errors
    /// As [`Process::spawn`].
    pub fn spawn_to(name: impl Into<String>, mut command: Command, stdout: Stdio) -> Result<Self> {
        let name = name.into();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}: {command:?}"))?;
        let log = Log::default();
        log.collect(child.stdout.take());
        log.collect(child.stderr.take());
        Ok(Self { name, child, log, farewell: Signal::KILL })
    }

    /// The signal that ends it on drop. SIGKILL unless told: a parent of workers must get one it passes on.
    #[must_use]
    pub fn ended_by(mut self, signal: Signal) -> Self {
        self.farewell = signal;
        self
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed, as it comes.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("signalling {} ({pid:?})", self.name))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end and for the rest of its log.
    ///
    /// # Errors
    /// When it still runs after `within`; the message carries the log.
    pub fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{} still runs after {within:?}\n{}", self.name, self.log);
            }
            let handle = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
            let span =
                Timespec { tv_sec: i64::try_from(left.as_secs())?, tv_nsec: left.subsec_nanos().into() };
            poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&span))?;
        };
        self.log.wait_closed();
        Ok(status)
    }

    /// Ends it at once with SIGKILL and waits for the kernel to have done so.
    ///
    /// # Errors
    /// When the process was not ours to wait for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// The same with its children, none of which has a moment to notice.
    ///
    /// # Errors
    /// As [`Process::kill`].
    pub fn kill_all(&mut self) -> Result<()> {
        // Stopped, it makes no more of them.
        self.signal_all(Signal::STOP)?;
        self.signal_children(Signal::KILL)?;
        self.kill()
    }

    /// Sends a signal to it, and then to its children.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        self.signal_children(signal)
    }

    fn signal_children(&self, signal: Signal) -> Result<()> {
        for child in Usage::children_of(self.pid())? {
            // One that has just ended by itself will do.
            let _gone = Pid::from_raw(i32::try_from(child)?).map(|pid| kill_process(pid, signal));
        }
        Ok(())
    }

    /// Looks at `ready` until it is true, and gives up early with the log if the process ends.
    ///
    /// # Errors
    /// When it ended or was not ready within [`PATIENCE`].
    pub fn until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                self.log.wait_closed();
                bail!("{} ended ({status}) before {what}\n{}", self.name, self.log);
            }
            if Instant::now() > deadline {
                bail!("{}: no {what} within {PATIENCE:?}\n{}", self.name, self.log);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// CPU time and memory of it and all its descendants, from `/proc`.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of_tree(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log);
        }
        // Already gone is as good as ended.
        if self.is_running() && self.farewell != Signal::KILL {
            let _gone = self.signal(self.farewell);
            let _late = self.exit(Duration::from_secs(5));
        }
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Ends a process that another has started in our name.
///
/// # Errors
/// When it is gone.
pub fn end(pid: i32) -> Result<()> {
    let pid = Pid::from_raw(pid).context("not a process id")?;
    kill_process(pid, Signal::KILL).with_context(|| format!("ending {pid:?}"))
}

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started.
pub fn run(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("running {command:?}"))
}

/// The user a server is run as when the tests run as root, which PostgreSQL refuses to be.
pub(crate) fn run_as(command: &mut Command, user: &str) -> Result<Option<(u32, u32)>> {
    if !rustix::process::getuid().is_root() {
        return Ok(None);
    }
    let ids = user_ids(user)?;
    command.uid(ids.0).gid(ids.1);
    Ok(Some(ids))
}

/// User and group id from `/etc/passwd`.
pub(crate) fn user_ids(user: &str) -> Result<(u32, u32)> {
    let passwd = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user));
    let mut fields = line.with_context(|| format!("no user {user} on this machine"))?.split(':').skip(2);
    let mut id = || fields.next().context("a short line in /etc/passwd").and_then(|f| Ok(f.parse::<u32>()?));
    Ok((id()?, id()?))
}

/// The lines of a process's standard output and error, in the order they arrived.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<String>,
    open_streams: usize,
}

impl Log {
    fn collect(&self, stream: Option<impl Read + Send + 'static>) {
        let Some(stream) = stream else { return };
        self.with(|lines| lines.open_streams += 1);
        let log = self.clone();
        std::thread::spawn(move || {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                log.with(|lines| lines.lines.push(text));
                line.clear();
            }
            log.with(|lines| lines.open_streams -= 1);
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Lines) -> T) -> T {
        let result = change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
        result
    }

    fn wait<T>(&self, within: Duration, mut seen: impl FnMut(&Lines) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + within;
        let mut lines = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(value) = seen(&lines) {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            lines = self.0.1.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_closed(&self) {
        // A grandchild may hold the stream open; then what came so far has to do.
        let _closed = self.wait(Duration::from_secs(1), |lines| (lines.open_streams == 0).then_some(()));
    }

    /// Where the log stands now, for [`Log::after`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.with(|lines| lines.lines.len())
    }

    /// All lines so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.with(|lines| lines.lines.clone())
    }

    /// Waits for a line that contains `text`, from the log's beginning.
    ///
    /// # Errors
    /// When none came within [`PATIENCE`] or the process closed its output; the message carries the log.
    pub fn expect(&self, text: &str) -> Result<String> {
        self.after(0, text)
    }

    /// Waits for a line that contains `text` after `mark`.
    ///
    /// # Errors
    /// As [`Log::expect`].
    pub fn after(&self, mark: usize, text: &str) -> Result<String> {
        let found = self.wait(PATIENCE, |lines| {
            match lines.lines.iter().skip(mark).find(|line| line.contains(text)) {
                Some(line) => Some(Some(line.clone())),
                None => (lines.open_streams == 0).then_some(None),
            }
        });
        found.flatten().with_context(|| format!("no line with {text:?} in the log\n{self}"))
    }
}

impl std::fmt::Display for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines = self.lines();
        let skipped = lines.len().saturating_sub(TAIL_LINES);
        if skipped > 0 {
            writeln!(f, "... {skipped} lines before")?;
        }
        lines.iter().skip(skipped).try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// What a process and its descendants have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// User and system time in seconds.
    pub cpu_s: f64,
    /// Resident memory in bytes that is its own: pages that a process has written and shares with none.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
}

impl Usage {
    /// Sums a process and all its descendants.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of_tree(root: u32) -> Result<Self> {
        let mut total = Self::default();
        let mut pending = vec![root];
        while let Some(pid) = pending.pop() {
            let Ok(one) = Self::of_one(pid, &mut pending) else {
                anyhow::ensure!(pid != root, "process {root} is gone");
                continue;
            };
            total.cpu_s += one.cpu_s;
            total.resident_bytes += one.resident_bytes;
            total.descriptors += one.descriptors;
            total.threads += one.threads;
        }
        Ok(total)
    }

    fn children_of(pid: u32) -> Result<Vec<u32>> {
        let mut children = Vec::new();
        Self::of_one(pid, &mut children)?;
        Ok(children)
    }

    fn of_one(pid: u32, children: &mut Vec<u32>) -> Result<Self> {
        let folder = std::path::PathBuf::from(format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(folder.join("stat"))?;
        // The name in parentheses may hold spaces; what follows is split by them (man proc_pid_stat).
        let after_name = stat.rsplit_once(')').context("a strange stat line")?.1;
        let fields: Vec<&str> = after_name.split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
        let rollup = std::fs::read_to_string(folder.join("smaps_rollup")).unwrap_or_default();
        // Clean private pages are the program's file: they are nobody else's only as long as no other process of the same
        // program runs, and so come and go with the tests beside this one.
        let private_kib: u64 = rollup
            .lines()
            .filter(|line| line.starts_with("Private_Dirty:"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        let mut threads = 0;
        for thread in std::fs::read_dir(folder.join("task"))?.flatten() {
            threads += 1;
            let listed = std::fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            children.extend(listed.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Ok(Self {
            cpu_s: (f64::from(ticks(11)) + f64::from(ticks(12))) / TICKS_A_SECOND,
            resident_bytes: private_kib * 1024,
            descriptors: std::fs::read_dir(folder.join("fd")).map_or(0, Iterator::count),
            threads,
        })
    }
}
