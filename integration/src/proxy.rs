//! A proxy of ours as an operator meets it: a binary, a YAML file, signals, and an admin address.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::http::{self, Response};
use crate::metrics::Metrics;
use crate::paths;
use crate::ports::Port;
use crate::process::{Log, Process, Usage, run};
use crate::template::fill;
use crate::wait::PATIENCE;

/// Set by the Makefile when it has just built everything: then nothing is built here.
const BUILT: &str = "GROOVE_BUILT";

/// A folder with binaries to test instead of those of the source, such as a release's.
const BINARIES: &str = "GROOVE_BINARIES";

/// Whether this process has seen to it that the binaries are those of the source.
static FRESH: Mutex<bool> = Mutex::new(false);

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `groove-memcached`
    Memcached,
    /// `groove-postgres`
    Postgres,
    /// `groove-http`
    Http,
}

impl Kind {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Memcached, Self::Postgres, Self::Http];

    /// The binary's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Memcached => "groove-memcached",
            Self::Postgres => "groove-postgres",
            Self::Http => "groove-http",
        }
    }

    /// The binary, built in the profile of this program if the Makefile has not done so.
    ///
    /// # Errors
    /// When it does not build.
    pub fn binary(self) -> Result<PathBuf> {
        let folder = match std::env::var_os(BINARIES) {
            Some(folder) => PathBuf::from(folder),
            None => {
                let profile = paths::profile()?;
                build(&profile)?;
                profile
            }
        };
        let binary = folder.join(self.name());
        ensure!(binary.is_file(), "{} is missing", binary.display());
        Ok(binary)
    }

    /// Runs the binary to its end: `check`, `schema` and the other verbs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run<A: AsRef<OsStr>>(self, arguments: &[A]) -> Result<Output> {
        run(Command::new(self.binary()?).args(arguments))
    }
}

fn build(profile: &Path) -> Result<()> {
    let mut fresh = FRESH.lock().unwrap_or_else(PoisonError::into_inner);
    if *fresh || std::env::var_os(BUILT).is_some() {
        return Ok(());
    }
    let name = profile.file_name().and_then(OsStr::to_str).context("the profile folder has no name")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::repository()).args(["build", "--quiet", "--target-dir"]).arg(paths::target()?);
    command.args(["--profile", if name == "debug" { "dev" } else { name }, "--bins"]);
    command.args(Kind::ALL.iter().flat_map(|kind| ["--package", kind.name()]));
    let output = run(&mut command)?;
    ensure!(
        output.status.success(),
        "the proxies do not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    *fresh = true;
    Ok(())
}

/// How a [`Proxy`] is to be started.
///
/// The configuration is a YAML text in which `$NAME` stands for a value: `$LISTEN` and `$ADMIN` are free
/// loopback addresses, `$DIR` the proxy's own temporary folder, and others come from [`ProxyBuilder::set`]
/// and [`ProxyBuilder::port`].
#[derive(Debug)]
pub struct ProxyBuilder {
    kind: Kind,
    template: String,
    folder: Option<TempDir>,
    values: BTreeMap<String, String>,
    ports: Vec<String>,
    environment: Vec<(String, String)>,
    open_files_max: Option<u64>,
    ready_path: &'static str,
    token: Option<String>,
    stdout: Option<PathBuf>,
}

impl ProxyBuilder {
    /// The configuration's text.
    #[must_use]
    pub fn config(mut self, template: &str) -> Self {
        template.clone_into(&mut self.template);
        self
    }

    /// What `$NAME` stands for.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl Display) -> Self {
        self.values.insert(name.to_owned(), value.to_string());
        self
    }

    /// Makes `$NAME` another free loopback address; [`Proxy::at`] tells which.
    #[must_use]
    pub fn port(mut self, name: &str) -> Self {
        self.ports.push(name.to_owned());
        self
    }

    /// Makes an existing folder the proxy's own, `$DIR`: for certificates and other files made before.
    #[must_use]
    pub fn folder(mut self, folder: TempDir) -> Self {
        self.folder = Some(folder);
        self
    }

    /// An environment variable of the proxy.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Display) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Lets the proxy open that many files at most (`ulimit -n`).
    #[must_use]
    pub fn open_files_max(mut self, count: u64) -> Self {
        self.open_files_max = Some(count);
        self
    }

    /// Regards the proxy as started once it is alive, though it says that it is not ready: for tests whose
    /// servers are down.
    #[must_use]
    pub fn alive_is_enough(mut self) -> Self {
        self.ready_path = "/healthz";
        self
    }

    /// Shows this token to the admin server.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Has standard output added to a file, rather than to the log that is kept of the process.
    #[must_use]
    pub fn stdout(mut self, file: &Path) -> Self {
        self.stdout = Some(file.to_owned());
        self
    }

    /// Writes the file, starts the proxy and waits until its admin address says that it is ready. Without
    /// `$ADMIN` in the configuration, until `$LISTEN` accepts.
    ///
    /// # Errors
    /// When it does not come up; the message carries its log.
    pub fn start(mut self) -> Result<Proxy> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => TempDir::with_prefix(format!("{}-", self.kind.name()))?,
        };
        let mut ports = BTreeMap::new();
        for name in ["LISTEN", "ADMIN"].into_iter().map(str::to_owned).chain(self.ports.drain(..)) {
            let port = Port::reserve()?;
            self.values.insert(name.clone(), port.to_string());
            ports.insert(name, port);
        }
        self.values.insert("DIR".to_owned(), folder.path().display().to_string());
        let file = folder.path().join("config.yaml");
        std::fs::write(&file, fill(&self.template, &self.values)?)?;
        let process = self.launch(&file)?;
        let mut proxy = Proxy { builder: self, folder, ports, process };
        proxy.until_ready()?;
        Ok(proxy)
    }

    fn launch(&self, file: &Path) -> Result<Process> {
        let binary = self.kind.binary()?;
        let mut command = match self.open_files_max {
            Some(count) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--nofile={count}:{count}")).arg(binary);
                limited
            }
            None => Command::new(binary),
        };
        command.args(["run", "--config"]).arg(file);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let stdout = match &self.stdout {
            Some(file) => OpenOptions::new().create(true).append(true).open(file)?.into(),
            None => Stdio::piped(),
        };
        Process::spawn_to(self.kind.name(), command, stdout)
    }
}

/// GET on an admin address, showing a token if there is one.
fn ask(admin: SocketAddr, path: &str, token: Option<&str>) -> Result<Response> {
    let mut request = ::http::Request::get(path).header("host", admin.to_string());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    http::send(admin, request.body(Bytes::new())?)
}

/// A running proxy; killed when dropped.
#[derive(Debug)]
pub struct Proxy {
    builder: ProxyBuilder,
    folder: TempDir,
    ports: BTreeMap<String, Port>,
    process: Process,
}

impl Proxy {
    /// Begins a proxy of this kind.
    #[must_use]
    pub fn of(kind: Kind) -> ProxyBuilder {
        ProxyBuilder {
            kind,
            template: String::new(),
            folder: None,
            values: BTreeMap::new(),
            ports: Vec::new(),
            environment: Vec::new(),
            open_files_max: None,
            ready_path: "/readyz",
            token: None,
            stdout: None,
        }
    }

    /// The address `$LISTEN`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.at("LISTEN")
    }

    /// The address `$ADMIN`.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.at("ADMIN")
    }

    /// The address `$NAME` made by [`ProxyBuilder::port`].
    ///
    /// # Panics
    /// When there is no such port: a mistake in the test.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a name the test itself has not given")]
    pub fn at(&self, name: &str) -> SocketAddr {
        self.ports.get(name).expect("a port the builder was asked for").address()
    }

    /// The proxy's own folder, `$DIR`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration file.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// What it printed.
    #[must_use]
    pub fn log(&self) -> &Log {
        self.process.log()
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When it is gone.
    pub fn usage(&self) -> Result<Usage> {
        self.process.usage()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// GET on the admin address.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn get(&self, path: &str) -> Result<Response> {
        ask(self.admin(), path, self.builder.token.as_deref())
    }

    /// The metrics page.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<Metrics> {
        Ok(Metrics::parse(&self.get("/metrics")?.text()))
    }

    /// What `status --json` prints.
    ///
    /// # Errors
    /// When the verb fails.
    pub fn status(&self) -> Result<serde_json::Value> {
        let admin = self.admin().to_string();
        let output = self.builder.kind.run(&["status", "--json", "--admin", &admin])?;
        ensure!(output.status.success(), "status: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Writes another configuration (the same names stand for the same values) without a signal: the proxy
    /// watches its file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn rewrite(&mut self, template: &str) -> Result<()> {
        template.clone_into(&mut self.builder.template);
        // Replaced whole, as editors and orchestrators do.
        let new = self.folder.path().join("config.yaml.new");
        std::fs::write(&new, fill(template, &self.builder.values)?)?;
        std::fs::rename(new, self.config_file())?;
        Ok(())
    }

    /// Gives `$NAME` another value for the next [`Proxy::rewrite`].
    pub fn set(&mut self, name: &str, value: impl Display) {
        self.builder.values.insert(name.to_owned(), value.to_string());
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub fn exit(&mut self, within: Duration) -> Result<ExitStatus> {
        self.process.exit(within)
    }

    /// Ends it with SIGKILL.
    ///
    /// # Errors
    /// When it was not ours to wait for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts another process on the same file, which takes this one's place (`handover:` has to be configured), and
    /// gives the one before, which may have clients left.
    ///
    /// # Errors
    /// When it does not come up, as [`ProxyBuilder::start`]; then nothing has changed.
    pub fn hand_over(&mut self) -> Result<Process> {
        let next = self.builder.launch(&self.config_file())?;
        next.log().expect("took the place of another process")?;
        Ok(std::mem::replace(&mut self.process, next))
    }

    /// Starts another process beside it, with another configuration (the same names stand for the same values). It is
    /// not waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn beside(&self, template: &str) -> Result<Process> {
        let file = self.folder.path().join("beside.yaml");
        std::fs::write(&file, fill(template, &self.builder.values)?)?;
        self.builder.launch(&file)
    }

    /// Starts it again on the same addresses with the same file, after it ended or was killed.
    ///
    /// # Errors
    /// As [`ProxyBuilder::start`].
    pub fn restart(&mut self) -> Result<()> {
        if self.process.is_running() {
            self.process.kill()?;
        }
        self.process = self.builder.launch(&self.config_file())?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<()> {
        let (address, admin) = (self.address(), self.admin());
        let (path, token) = (self.builder.ready_path, self.builder.token.as_deref());
        if self.builder.template.contains("$ADMIN") {
            self.process
                .until(path, || ask(admin, path, token).is_ok_and(|answer| answer.status.is_success()))
        } else if self.builder.template.contains("$LISTEN") {
            self.process
                .until("accepting", || std::net::TcpStream::connect_timeout(&address, PATIENCE).is_ok())
        } else {
            Ok(())
        }
    }
}
