//! HAProxy, as a peer to compare with.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::paths;
use crate::ports::Port;
use crate::process::Process;

/// A running HAProxy on a free loopback port, in the foreground, in a folder of its own.
#[derive(Debug)]
pub struct HaProxy {
    port: Port,
    // Kept until the process that lives in it is gone.
    _folder: TempDir,
    _process: Process,
}

impl HaProxy {
    /// A proxy with the configuration that `text` writes for its address.
    ///
    /// # Errors
    /// When HAProxy is not installed or does not come up.
    pub fn configured(text: impl FnOnce(SocketAddr) -> String) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = TempDir::with_prefix("groove-haproxy-")?;
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, text(port.address())).with_context(|| format!("writing {}", file.display()))?;
        let mut command = Command::new(paths::program("haproxy")?);
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::spawn(format!("haproxy {port}"), command)?;
        process.until("accepting", || TcpStream::connect(port.address()).is_ok())?;
        Ok(Self { port, _folder: folder, _process: process })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}
