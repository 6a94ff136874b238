//! nginx, as an HTTP application and as a peer to compare with.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::paths;
use crate::ports::Port;
use crate::process::{Log, Process, Usage};

/// A running nginx on a free loopback port, in the foreground, in a folder of its own.
#[derive(Debug)]
pub struct Nginx {
    port: Port,
    folder: TempDir,
    process: Process,
}

impl Nginx {
    /// An application that answers GET with a few bytes and takes POST bodies.
    ///
    /// # Errors
    /// When nginx is not installed or does not come up.
    pub fn app() -> Result<Self> {
        Self::serving(1, "location / { default_type text/plain; return 200 'hello from nginx\\n'; }")
    }

    /// A server with `workers` processes and one `server` block of `locations`; extra `http` directives may
    /// not stand there.
    ///
    /// # Errors
    /// As [`Nginx::app`].
    pub fn serving(workers: usize, locations: &str) -> Result<Self> {
        Self::configured(workers, |listen| {
            format!("server {{ listen {listen} backlog=4096; keepalive_requests 100000000; {locations} }}")
        })
    }

    /// A server with `workers` processes and the `http` block that `block` writes for its address.
    ///
    /// # Errors
    /// As [`Nginx::app`].
    pub fn configured(workers: usize, block: impl FnOnce(SocketAddr) -> String) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = TempDir::with_prefix("groove-nginx-")?;
        let file = folder.path().join("nginx.conf");
        let root = folder.path().display();
        let temp_paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {root}/{kind};\n"))
            .concat();
        let user = if rustix::process::getuid().is_root() { "user root;\n" } else { "" };
        let text = format!(
            "{user}worker_processes {workers};\ndaemon off;\npid {root}/nginx.pid;\nerror_log stderr warn;\n\
             worker_rlimit_nofile 20000;\nevents {{ worker_connections 8192; }}\n\
             http {{\n    access_log off;\n{temp_paths}    {}\n}}\n",
            block(port.address())
        );
        std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let mut command = Command::new(paths::program("nginx")?);
        command.args(["-e", "stderr", "-p"]).arg(folder.path()).arg("-c").arg(&file);
        // The master passes SIGTERM on to its workers.
        let mut process = Process::spawn(format!("nginx {port}"), command)?.ended_by(Signal::TERM);
        process.until("accepting", || TcpStream::connect(port.address()).is_ok())?;
        Ok(Self { port, folder, process })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The folder it lives in.
    #[must_use]
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// What master and workers have used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }
}
