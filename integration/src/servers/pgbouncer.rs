//! A real PgBouncer, to compare consoles with.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::paths;
use crate::ports::Port;
use crate::process::{Process, run_as};

/// A running PgBouncer before one server's database `shop`; whoever comes may use its console.
#[derive(Debug)]
pub struct PgBouncer {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

impl PgBouncer {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed (Debian's package `pgbouncer`) or does not come up.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = TempDir::with_prefix("groove-pgbouncer-")?;
        // It refuses to run as root, and reads its files as the user it runs as.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        let file = folder.path().join("pgbouncer.ini");
        let users = folder.path().join("users.txt");
        std::fs::write(&users, "\"app\" \"secret\"\n")?;
        let text = format!(
            "[databases]\nshop = host={} port={} dbname=shop\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = trust\nauth_file = {}\nadmin_users = app\n\
             pool_mode = transaction\n",
            server.ip(),
            server.port(),
            port.number(),
            users.display()
        );
        std::fs::write(&file, text)?;
        let mut command = Command::new(paths::program("pgbouncer")?);
        command.arg(&file);
        run_as(&mut command, "postgres")?;
        let mut process = Process::spawn("pgbouncer", command)?;
        let log = process.log().clone();
        process.until("readiness", || log.lines().iter().any(|line| line.contains("process up")))?;
        Ok(Self { port, _process: process, _folder: folder })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }
}
