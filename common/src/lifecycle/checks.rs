//! Start-up checks: what of the machine is too small for the configuration, and the command that raises it.

use std::fmt;
use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Each downstream connection may need one upstream; some are left for files, logs and probes.
const SPARE_FILES: u64 = 64;

/// What the configuration asks of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// The sum of the listeners' caps on connections; `None` if one has none.
    pub connections_max: Option<u64>,
    /// The longest backlog.
    pub backlog_max: u64,
}

/// What the machine allows; what could not be read is `None` and not complained of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Open files of this process, after [`raise_open_files`].
    pub open_files: Option<u64>,
    /// Open files of the whole machine.
    pub open_files_of_all: Option<u64>,
    /// The longest backlog the kernel grants.
    pub somaxconn: Option<u64>,
}

/// Something that is too small: a warning, since the configuration may never be used to its limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is too small, for what.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl Limits {
    /// Asks the machine.
    pub fn read() -> Self {
        Self {
            // RLIM_INFINITY is no limit at all.
            open_files: Some(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)),
            open_files_of_all: read_number("/proc/sys/fs/file-max"),
            somaxconn: read_number("/proc/sys/net/core/somaxconn"),
        }
    }
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Raises this process's limit on open files as far as it may: there is no select(2) here that would mind.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused means that it stays as it is, which the checks then speak of.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap_or_default();
}

/// Compares the two.
pub fn findings(limits: &Limits, plan: &Plan) -> Vec<Finding> {
    let connections = plan.connections_max;
    let files = connections.map_or(1024, |connections| connections.saturating_mul(2)) + SPARE_FILES;
    let of_what = match connections {
        Some(connections) => format!("{connections} connections (max_connections) and as many to servers"),
        None => "even 512 connections and as many to servers".to_owned(),
    };
    let mut findings = Vec::new();
    let mut compare = |limit: Option<u64>, needed: u64, what: String, remedy: String| {
        if limit.is_some_and(|limit| limit < needed) {
            findings.push(Finding { what, remedy });
        }
    };
    let show = |limit: Option<u64>| limit.unwrap_or_default();
    compare(
        limits.open_files,
        files,
        format!("this process may open {} files, {of_what} need {files}", show(limits.open_files)),
        format!("raise it with `ulimit -n {files}`, or LimitNOFILE={files} in the systemd unit"),
    );
    compare(
        limits.open_files_of_all,
        files,
        format!("this machine may open {} files, {of_what} need {files}", show(limits.open_files_of_all)),
        format!("raise it with `sysctl -w fs.file-max={files}`"),
    );
    compare(
        limits.somaxconn,
        plan.backlog_max,
        format!("the kernel cuts a listener's backlog of {} to {}", plan.backlog_max, show(limits.somaxconn)),
        format!("raise it with `sysctl -w net.core.somaxconn={}`", plan.backlog_max),
    );
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_compared_and_its_command_named() {
        let enough =
            Limits { open_files: Some(1_000_000), open_files_of_all: Some(1_000_000), somaxconn: Some(4096) };
        let plan = Plan { connections_max: Some(10_000), backlog_max: 4096 };
        assert_eq!(findings(&enough, &plan), []);

        let small = Limits { open_files: Some(1024), open_files_of_all: Some(20_063), somaxconn: Some(128) };
        let said: Vec<String> = findings(&small, &plan).iter().map(Finding::to_string).collect();
        assert_eq!(said.len(), 3);
        assert!(
            said[0].contains("may open 1024 files") && said[0].contains("ulimit -n 20064"),
            "{}",
            said[0]
        );
        assert!(said[1].contains("fs.file-max=20064"), "{}", said[1]);
        assert!(said[2].contains("4096 to 128") && said[2].contains("somaxconn=4096"), "{}", said[2]);
    }

    #[test]
    fn what_cannot_be_read_is_not_complained_of() {
        let plan = Plan { connections_max: Some(u64::MAX / 4), backlog_max: 65_535 };
        assert_eq!(findings(&Limits::default(), &plan), []);
    }

    #[test]
    fn without_caps_a_modest_number_is_expected() {
        let limits = Limits { open_files: Some(256), ..Limits::default() };
        let plan = Plan { connections_max: None, backlog_max: 0 };
        assert_eq!(findings(&limits, &plan).len(), 1);
    }

    #[test]
    fn this_machine_can_be_asked() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        // Lower than it may be, as a shell gives it to what it starts.
        let current = Some(maximum.map_or(1024, |maximum| maximum - 1));
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        raise_open_files();
        let limits = Limits::read();
        assert_eq!(limits.open_files, Some(maximum.unwrap_or(u64::MAX)));
        assert!(limits.open_files_of_all.is_some() && limits.somaxconn.is_some(), "{limits:?}");
    }
}
