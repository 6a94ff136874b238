//! A stock memcached.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use crate::paths;
use crate::ports::Port;
use crate::process::{Log, Process, Usage};

/// A running memcached on a free loopback port.
#[derive(Debug)]
pub struct Memcached {
    port: Port,
    arguments: Vec<String>,
    process: Process,
}

/// How a [`Memcached`] is to be started.
#[derive(Clone, Debug, Default)]
pub struct MemcachedBuilder {
    arguments: Vec<String>,
}

impl MemcachedBuilder {
    /// Adds a command line argument, such as `-m` then `64`.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it and waits until it accepts.
    ///
    /// # Errors
    /// When memcached is not installed or does not come up.
    pub fn start(self) -> Result<Memcached> {
        let port = Port::reserve()?;
        let process = launch(&port, &self.arguments)?;
        Ok(Memcached { port, arguments: self.arguments, process })
    }
}

impl Memcached {
    /// Starts one with Debian's defaults.
    ///
    /// # Errors
    /// As [`MemcachedBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Starts several.
    ///
    /// # Errors
    /// As [`MemcachedBuilder::start`].
    pub fn start_many(count: usize) -> Result<Vec<Self>> {
        (0..count).map(|_| Self::start()).collect()
    }

    /// To start one with arguments of one's own.
    #[must_use]
    pub fn builder() -> MemcachedBuilder {
        MemcachedBuilder::default()
    }

    /// Where it listens, also while it is down.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When the process was not ours to wait for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts it again, empty, on the same port with the same arguments.
    ///
    /// # Errors
    /// As [`MemcachedBuilder::start`].
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_running() {
            self.process.kill()?;
        }
        self.process = launch(&self.port, &self.arguments)?;
        Ok(())
    }

    /// Sends a signal: SIGSTOP makes it a server that accepts and never answers, SIGCONT wakes it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }
}

fn launch(port: &Port, arguments: &[String]) -> Result<Process> {
    let mut command = Command::new(paths::program("memcached")?);
    // -u is only read when started by root.
    command.args(["-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p"]).arg(port.number().to_string());
    command.args(arguments);
    let mut process = Process::spawn(format!("memcached {port}"), command)?;
    process.until("accepting", || TcpStream::connect(port.address()).is_ok())?;
    Ok(process)
}
