//! A real PostgreSQL, from a template made once, so that a test has its own in half a second.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::certs::Authority;
use crate::paths;
use crate::ports::Port;
use crate::process::{Log, Process, Usage, run, user_ids};
use crate::servers::release::Release;

/// Made once in the template: a superuser, and roles for each way to log in. All passwords are `secret`.
/// Roles whose name starts with `plain` are let in without one.
const ROLES: &str = "
    CREATE ROLE app LOGIN PASSWORD 'secret';
    CREATE ROLE plain LOGIN;
    SET password_encryption = 'md5';
    CREATE ROLE legacy LOGIN PASSWORD 'secret';
    RESET password_encryption;
    ALTER ROLE postgres PASSWORD 'secret';";

/// Who may come in how, unless a test says otherwise.
const HBA: &str = "local all,replication all trust
host all plain 127.0.0.1/32 trust
host all legacy 127.0.0.1/32 md5
host all all 127.0.0.1/32 scram-sha-256
";

/// For speed: what a test writes need not outlive the machine.
const SETTINGS: &str = "listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
shared_buffers = '64MB'
max_connections = 200
max_wal_size = '256MB'
autovacuum_naptime = '1h'
log_checkpoints = off
timezone = 'UTC'
log_timezone = 'UTC'
";

/// A running PostgreSQL on a free loopback port, and on a unix socket in its folder.
///
/// It has the roles `postgres` (superuser), `app` (SCRAM), `legacy` (md5), all with the password `secret`,
/// and `plain` (no password), and the database `shop`, which `app` owns and anyone may create in.
#[derive(Debug)]
pub struct Postgres {
    port: Port,
    folder: TempDir,
    process: Process,
    authority: Option<Authority>,
    release: Release,
    is_frozen: bool,
}

/// How a [`Postgres`] is to be started.
#[derive(Clone, Debug, Default)]
pub struct PostgresBuilder {
    settings: String,
    hba: Option<String>,
    tls: bool,
    release: Release,
}

impl PostgresBuilder {
    /// A setting as in `postgresql.conf`; quotes around the value are added.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push_str(&format!("{name} = '{value}'\n"));
        self
    }

    /// The whole `pg_hba.conf` instead of the usual one.
    #[must_use]
    pub fn hba(mut self, text: &str) -> Self {
        self.hba = Some(text.to_owned());
        self
    }

    /// Of another release than Debian's 15.
    #[must_use]
    pub fn release(mut self, release: Release) -> Self {
        self.release = release;
        self
    }

    /// With TLS, by a certificate for `localhost` and 127.0.0.1 from an authority of its own.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Copies the template, starts the server and waits until it lets clients in.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up.
    pub fn start(self) -> Result<Postgres> {
        let port = Port::reserve()?;
        let folder = server_folder()?;
        let data = folder.path().join("data");
        copy(&template(self.release)?, &data)?;
        let mut settings = format!("{SETTINGS}unix_socket_directories = '{}'\n", folder.path().display());
        let mut authority = None;
        if self.tls {
            let signed_by = Authority::new(folder.path())?;
            let issued = signed_by.issue("server", &["localhost", "127.0.0.1"])?;
            hand_over(&issued.key)?;
            settings.push_str(&format!(
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nssl_ca_file = '{}'\n",
                issued.certificate.display(),
                issued.key.display(),
                signed_by.certificate().display()
            ));
            authority = Some(signed_by);
        }
        settings.push_str(&self.settings);
        std::fs::write(data.join("postgresql.conf"), settings)?;
        std::fs::write(data.join("pg_hba.conf"), self.hba.as_deref().unwrap_or(HBA))?;
        let process = launch(self.release, folder.path(), port.number())?;
        let server = Postgres { port, folder, process, authority, release: self.release, is_frozen: false };
        // A comparison of two releases that were one would show no difference, and be believed.
        let version = server.sql("postgres", "SHOW server_version")?;
        let release = self.release.to_string();
        ensure!(version.starts_with(&release), "asked for PostgreSQL {release}, started {version}");
        Ok(server)
    }
}

impl Postgres {
    /// Starts one with the usual roles and settings.
    ///
    /// # Errors
    /// As [`PostgresBuilder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// To start one with settings of one's own.
    #[must_use]
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// Starts a replica that streams from this one, on a port of its own: a copy of its data as of now, with its
    /// settings. `pg_hba.conf` has to let replication in on the unix socket, as the usual one does.
    ///
    /// # Errors
    /// When `pg_basebackup` fails or the replica does not come up.
    pub fn replica(&self) -> Result<Self> {
        let port = Port::reserve()?;
        let folder = server_folder()?;
        let data = folder.path().join("data");
        let mut copy = self.release.command("pg_basebackup")?;
        copy.arg("-D").arg(&data).args(["-R", "-X", "stream", "-c", "fast", "-U", "postgres"]);
        copy.arg("-h").arg(self.socket_folder()).args(["-p", &self.port.number().to_string()]);
        let output = run(copy.current_dir(folder.path()))?;
        ensure!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let settings = std::fs::read_to_string(data.join("postgresql.conf"))?;
        let settings =
            settings.replace(&self.folder.path().display().to_string(), &folder.path().display().to_string());
        // It is not to wait for long before it looks for its primary again.
        std::fs::write(data.join("postgresql.conf"), settings + "wal_retrieve_retry_interval = '100ms'\n")?;
        let process = launch(self.release, folder.path(), port.number())?;
        Ok(Self { port, folder, process, authority: None, release: self.release, is_frozen: false })
    }

    /// Makes a replica a primary, and returns once it is.
    ///
    /// # Errors
    /// When it is none, or does not become one.
    pub fn promote(&self) -> Result<()> {
        let promoted = self.sql("postgres", "SELECT pg_promote()")?;
        ensure!(promoted == "t", "not promoted in time");
        Ok(())
    }

    /// Starts a replica that was stopped, as a primary of its own that knows nothing of what happened meanwhile: a standby
    /// signal that is left behind is taken away.
    ///
    /// # Errors
    /// As [`Postgres::restart`].
    pub fn restart_alone(&mut self) -> Result<()> {
        match std::fs::remove_file(self.folder.path().join("data/standby.signal")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => self.restart(),
        }
    }

    /// Where it listens, also while it is down.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// The folder with its unix socket `.s.PGSQL.PORT`.
    #[must_use]
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The authority that signed its certificate, when it has TLS.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.authority.as_ref()
    }

    /// Runs SQL as the superuser, past any proxy, and gives what psql prints (`-At`: bare values).
    ///
    /// # Errors
    /// When a statement fails; the message is the server's.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        psql(self.folder.path(), self.port.number(), database, sql)
    }

    /// Ends it at once, as a crash would (SIGQUIT: its children end with it, the next start recovers).
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.stop_by(Signal::QUIT)
    }

    /// Ends it and all its children by SIGKILL: nobody is told anything, as when the machine is gone.
    ///
    /// # Errors
    /// When it does not end.
    pub fn crash(&mut self) -> Result<()> {
        self.process.kill_all()
    }

    /// Stops it and all its children where they are: they answer nothing and close nothing, as when the machine has
    /// been cut off.
    ///
    /// # Errors
    /// When it is gone.
    pub fn freeze(&mut self) -> Result<()> {
        self.is_frozen = true;
        self.process.signal_all(Signal::STOP)
    }

    /// Lets it go on after [`Postgres::freeze`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn thaw(&mut self) -> Result<()> {
        self.is_frozen = false;
        self.process.signal_all(Signal::CONT)
    }

    /// Shuts it down in order, ending its sessions (SIGINT, "fast").
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.stop_by(Signal::INT)
    }

    /// Starts it again on the same port, with the data as it was.
    ///
    /// # Errors
    /// As [`PostgresBuilder::start`].
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_running() {
            self.stop()?;
        }
        self.process = launch(self.release, self.folder.path(), self.port.number())?;
        Ok(())
    }

    /// Sends a signal to the postmaster.
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

    /// What it and its children have used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    fn stop_by(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)?;
        self.process.exit(Duration::from_secs(20))?;
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Frozen, its children would outlive it.
        if self.is_frozen {
            let _gone = self.crash();
        }
    }
}

/// A temporary folder that the user postgres may enter and write.
fn server_folder() -> Result<TempDir> {
    let folder = TempDir::with_prefix("groove-postgres-")?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    hand_over(folder.path())?;
    Ok(folder)
}

/// Gives a file to the user the server runs as.
fn hand_over(path: &Path) -> Result<()> {
    if rustix::process::getuid().is_root() {
        let (uid, gid) = user_ids("postgres")?;
        chown(path, Some(uid), Some(gid))
            .with_context(|| format!("giving {} to postgres", path.display()))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from).arg(to))?;
    ensure!(output.status.success(), "copying the template: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn launch(release: Release, folder: &Path, port: u16) -> Result<Process> {
    let mut command = release.command("postgres")?;
    command.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]).current_dir(folder);
    // SIGQUIT takes the children along; SIGKILL would orphan them.
    let mut process = Process::spawn(format!("postgres 127.0.0.1:{port}"), command)?.ended_by(Signal::QUIT);
    // Of a replica it says "read-only connections".
    let mark =
        |line: &String| line.contains("database system is ready to accept") && line.ends_with("connections");
    let log = process.log().clone();
    process.until("readiness", || log.lines().iter().any(mark))?;
    Ok(process)
}

fn psql(socket_folder: &Path, port: u16, database: &str, sql: &str) -> Result<String> {
    let mut command = Command::new(paths::program("psql")?);
    command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", database, "-c", sql]);
    command.arg("-h").arg(socket_folder).args(["-p", &port.to_string()]);
    let output = run(&mut command)?;
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The data folder every server starts from, made by the first who needs it.
fn template(release: Release) -> Result<PathBuf> {
    let home = paths::target()?.join("harness");
    std::fs::create_dir_all(&home)?;
    let name = format!("postgres-{release}");
    let template = home.join(&name);
    let lock = std::fs::File::create(home.join(format!("{name}.lock")))?;
    lock.lock()?;
    if !template.exists() {
        let folder = server_folder()?;
        make_template(release, folder.path())?;
        // Renamed last, so that a template that exists is whole.
        let unfinished = home.join(format!("{name}.new"));
        if unfinished.exists() {
            std::fs::remove_dir_all(&unfinished)?;
        }
        copy(&folder.path().join("data"), &unfinished)?;
        std::fs::rename(unfinished, &template)?;
    }
    Ok(template)
}

fn make_template(release: Release, folder: &Path) -> Result<()> {
    let data = folder.join("data");
    let mut initdb = release.command("initdb")?;
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"]);
    initdb.arg("--locale=C.UTF-8").current_dir(folder);
    let output = run(&mut initdb)?;
    ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));

    let settings = format!("{SETTINGS}unix_socket_directories = '{}'\n", folder.display());
    std::fs::write(data.join("postgresql.conf"), settings)?;
    let port = Port::reserve()?;
    let mut process = launch(release, folder, port.number())?;
    psql(folder, port.number(), "postgres", ROLES)?;
    psql(folder, port.number(), "postgres", "CREATE DATABASE shop OWNER app")?;
    psql(folder, port.number(), "shop", "GRANT ALL ON SCHEMA public TO PUBLIC")?;
    process.signal(Signal::INT)?;
    process.exit(Duration::from_secs(20))?;
    Ok(())
}
