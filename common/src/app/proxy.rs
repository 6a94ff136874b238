//! What a proxy is to the program around it.

use std::future::Future;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::admin::{self, Reload};
use crate::config::Document;
use crate::lifecycle::Drain;
use crate::lifecycle::handover::HandOver;
use crate::net::{Downstream, Service, Serving};
use crate::telemetry::{AccessLog, Registry};

/// Why a proxy cannot start, or cannot take a new configuration. Its text is for the log.
pub type StartError = Box<dyn std::error::Error + Send + Sync>;

/// What the program gives a proxy at its start. Clones share it.
#[derive(Debug, Clone)]
pub struct Context {
    /// The control runtime: probes, discovery, timers; also the sessions of a shared service.
    pub runtime: Handle,
    /// How many worker threads there will be.
    pub workers: usize,
    /// The program's drain. A session has its listener's, which begins no later.
    pub drain: Drain,
    /// What the proxy may ask of the program around it.
    pub control: Control,
    /// Where metrics are made.
    pub registry: Arc<Registry>,
    /// Where exchanges are logged.
    pub access: AccessLog,
    /// The way to the next process, and to the one before.
    pub handover: HandOver,
}

/// What a proxy may ask of the program around it, as an operator does from outside. Clones share it.
#[derive(Debug, Clone)]
pub struct Control {
    reloads: mpsc::Sender<Reload>,
    stop: Arc<Notify>,
}

impl Control {
    /// For the program that takes the reloads.
    pub fn new(reloads: mpsc::Sender<Reload>) -> Self {
        Self { reloads, stop: Arc::default() }
    }

    /// Reads the configuration again, as SIGHUP does: the changes, or what is wrong with it.
    pub async fn reload(&self) -> Result<Vec<String>, String> {
        let (answer, answered) = oneshot::channel();
        let nobody = || "nothing reloads here".to_owned();
        self.reloads.send(Reload { answer }).await.map_err(|_| nobody())?;
        answered.await.map_err(|_| nobody())?
    }

    /// Ends the program, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Returns once somebody has asked for the end.
    pub(super) async fn stop_asked(&self) {
        self.stop.notified().await;
    }
}

/// Goes on with a client of the process before.
pub type Resumed = Box<dyn FnOnce(Downstream) -> Serving + Send>;

/// A proxy: what it is called, how it starts, serves, reloads, and what it tells of itself.
pub trait Proxy: Sized + Send + Sync + 'static {
    /// The binary's name.
    const NAME: &'static str;
    /// One line for `--help`.
    const ABOUT: &'static str;
    /// The version, `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;
    /// The admin server's address if the configuration names none.
    const ADMIN: &'static str;

    /// The version of what its sessions leave to the next process; `None` if they drain in the old one. A service
    /// whose sessions move has to be a shared one.
    const HANDOVER: Option<u32> = None;

    /// Its configuration.
    type Config: Document;
    /// Verbs of its own; an empty enum if it has none.
    type Verb: clap::Subcommand;
    /// Arguments of its `demo`.
    type Demo: clap::Args;

    /// Starts everything but the listeners. Nothing may be awaited: discovery goes on in tasks of `cx.runtime`.
    fn start(config: Arc<Self::Config>, cx: &Context) -> Result<Arc<Self>, StartError>;

    /// What serves its connections, and on which threads.
    fn service(self: &Arc<Self>) -> Service;

    /// Takes a new configuration, all of it or nothing. The listeners are not its business.
    fn reload(&self, config: Arc<Self::Config>) -> Result<(), StartError>;

    /// The next process has the listeners; sessions that move do so from here on ([`Phase::HandingOver`]).
    ///
    /// [`Phase::HandingOver`]: crate::lifecycle::Phase::HandingOver
    fn hand_over(&self) {}

    /// What goes on with a session of the process before, from its state; or why that is not possible: then it stays
    /// there.
    fn resume(self: &Arc<Self>, state: &[u8]) -> Result<Resumed, String> {
        let _ = state;
        Err("sessions are not taken".to_owned())
    }

    /// What the next process has to say.
    fn heard(self: &Arc<Self>, word: Vec<u8>) {
        let _ = word;
    }

    /// `{"clusters": [...], "pools": [...]}`: lists of flat objects, which `status` prints as tables.
    fn status(&self) -> serde_json::Value;

    /// How many clusters there are, and so many of them at the most as [`Self::status`] has them: for the log at the
    /// start.
    fn clusters(&self, at_most: usize) -> (usize, Vec<serde_json::Value>) {
        let status = self.status();
        let all = status.get("clusters").and_then(serde_json::Value::as_array);
        (all.map_or(0, Vec::len), all.into_iter().flatten().take(at_most).cloned().collect())
    }

    /// Its own routes on the admin server.
    fn routes(self: &Arc<Self>) -> admin::Routes {
        admin::Routes::new()
    }

    /// Shows its main job: starts itself in this process (see [`super::Running`]), drives it with a real
    /// client, and tells what it saw.
    fn demo(args: Self::Demo) -> impl Future<Output = Result<Vec<DemoRow>, StartError>>;

    /// Runs one of its own verbs against a running proxy.
    fn verb(verb: Self::Verb, admin: admin::Client) -> impl Future<Output = Result<(), StartError>>;
}

/// One line of a demo's table.
#[derive(Debug, Clone)]
pub struct DemoRow {
    /// What was tried.
    pub what: String,
    /// What was seen.
    pub seen: String,
    /// Was it as it should be?
    pub good: bool,
}

impl DemoRow {
    /// A line of the table.
    pub fn new(what: impl Into<String>, seen: impl Into<String>, good: bool) -> Self {
        Self { what: what.into(), seen: seen.into(), good }
    }
}
