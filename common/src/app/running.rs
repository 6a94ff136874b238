//! A proxy at work: its workers, listeners and admin server, in this process.
//!
//! `run` puts signals, files and the service manager around it; demos and tests use it as it is.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{info, warn};

use super::proxy::{Context, Control, Proxy, StartError};
use crate::admin::{self, Reload};
use crate::config::Document;
use crate::ids::Address;
use crate::lifecycle::handover::{HandOver, Socket};
use crate::lifecycle::{Drain, Phase};
use crate::net::{self, Listeners};
use crate::telemetry::{AccessLog, Registry};

/// Sessions that were cut have this long to be dropped by their workers.
const CUT_TIME_MAX: Duration = Duration::from_secs(1);

/// Clusters that the log names at the start.
const ANNOUNCED_MAX: usize = 64;

/// A started proxy. Dropped, its sessions end with the runtime.
pub struct Running<P: Proxy> {
    pub(super) state: Arc<State<P>>,
    admin: admin::Server,
}

/// What the admin server and the program look at together.
pub(super) struct State<P: Proxy> {
    pub(super) proxy: Arc<P>,
    pub(super) config: ArcSwap<P::Config>,
    pub(super) listeners: Listeners,
    pub(super) context: Context,
    pub(super) started: Instant,
    pub(super) started_at: SystemTime,
}

/// Listeners that are bound and wait to be used.
struct Change {
    listeners: net::Change,
    admin: admin::Change,
}

impl Change {
    fn apply<P: Proxy>(self, running: &Running<P>, config: &P::Config) {
        running.state.listeners.apply(self.listeners, config.basics().drain.get());
        running.admin.apply(self.admin);
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every session finished what it had begun.
    Clean,
    /// So many sessions were cut.
    Cut(usize),
}

impl<P: Proxy> Running<P> {
    /// Starts everything; when it returns, clients can connect. `reloads` gets what is asked of the admin server.
    pub fn start(
        config: P::Config,
        runtime: Handle,
        reloads: mpsc::Sender<Reload>,
    ) -> Result<Self, StartError> {
        Self::start_with(config, runtime, reloads, Vec::new())
    }

    /// As [`Self::start`], with the listening sockets of the process before.
    pub(super) fn start_with(
        config: P::Config,
        runtime: Handle,
        reloads: mpsc::Sender<Reload>,
        sockets: Vec<Socket>,
    ) -> Result<Self, StartError> {
        let workers = workers(&config);
        let registry = Registry::new(workers);
        let access = AccessLog::start(&registry, io::stdout())?;
        access.set_sample(config.basics().log.access.as_ref().map(|access| access.sample));
        let drain = Drain::new();
        let control = Control::new(reloads.clone());
        let handover = HandOver::new(&registry);
        let context =
            Context { runtime: runtime.clone(), workers, drain, control, registry, access, handover };
        let config = Arc::new(config);
        let proxy = P::start(Arc::clone(&config), &context)?;
        let registry = Arc::clone(&context.registry);
        let listeners = Listeners::new(proxy.service(), workers, runtime.clone(), registry)?;
        let state = Arc::new(State {
            proxy,
            config: ArcSwap::from(config),
            listeners,
            context,
            started: Instant::now(),
            started_at: SystemTime::now(),
        });
        let routes = super::routes::of(&state, reloads);
        let registry = Arc::clone(&state.context.registry);
        let admin = admin::Server::new(P::NAME, routes, runtime, registry)?;
        let running = Self { state, admin };
        let (own, clients): (Vec<_>, Vec<_>) = sockets.into_iter().partition(|socket| socket.is_admin);
        running.admin.inherit(own.into_iter().map(|socket| socket.listener).collect());
        running.state.listeners.inherit(clients.into_iter().map(|socket| socket.listener).collect());
        let config = running.config();
        running.prepare(&config)?.apply(&running, &config);
        Ok(running)
    }

    /// The proxy itself.
    pub fn proxy(&self) -> &Arc<P> {
        &self.state.proxy
    }

    /// Returns once the proxy has asked for the program's end.
    pub(super) async fn stop_asked(&self) {
        self.state.context.control.stop_asked().await;
    }

    /// The configuration in effect.
    pub fn config(&self) -> Arc<P::Config> {
        self.state.config.load_full()
    }

    /// Connections open now.
    pub fn sessions(&self) -> usize {
        self.state.listeners.connections()
    }

    /// Where it listens, in the order of the configuration.
    pub fn addresses(&self) -> Vec<Address> {
        let listeners = self.state.listeners.status();
        listeners.into_iter().filter(|listener| !listener.leaving).map(|listener| listener.address).collect()
    }

    /// Where its admin server listens.
    pub fn admin(&self) -> Option<Address> {
        self.admin.address()
    }

    /// Its metrics.
    pub(super) fn registry(&self) -> &Registry {
        &self.state.context.registry
    }

    /// What it tells of itself: listeners, clusters, endpoints, pools.
    pub fn status(&self) -> Value {
        self.state.status()
    }

    /// Takes a new configuration: on an error nothing has changed.
    pub fn reload(&self, config: P::Config) -> Result<(), StartError> {
        let config = Arc::new(config);
        let change = self.prepare(&config)?;
        self.state.proxy.reload(Arc::clone(&config))?;
        change.apply(self, &config);
        self.state.context.access.set_sample(config.basics().log.access.as_ref().map(|access| access.sample));
        self.warn_of_what_needs_a_restart(&config);
        self.state.config.store(config);
        Ok(())
    }

    /// Everything of a new configuration's listeners that may fail.
    fn prepare(&self, config: &P::Config) -> Result<Change, StartError> {
        let listeners = self.state.listeners.prepare(config.basics().listeners);
        let admin = self.admin.prepare(config.basics().admin);
        match (listeners, admin) {
            (Ok(listeners), Ok(admin)) => Ok(Change { listeners, admin }),
            (listeners, admin) => {
                let errors = listeners.err().into_iter().chain(admin.err()).flatten();
                Err(errors.map(|error| error.to_string()).collect::<Vec<_>>().join("; ").into())
            }
        }
    }

    fn warn_of_what_needs_a_restart(&self, new: &P::Config) {
        let old = self.state.config.load();
        if workers(&**old) != workers(new) {
            warn!("the number of workers changes with the next start");
        }
        if old.basics().handover != new.basics().handover {
            warn!("the socket for the hand-over changes with the next start");
        }
        if old.basics().log.format != new.basics().log.format {
            warn!("the log's format changes with the next start");
        }
    }

    /// The listening sockets, for the next process.
    pub(super) fn sockets(&self) -> io::Result<Vec<Socket>> {
        let of = |listeners: Vec<net::Inherited>, is_admin| {
            listeners.into_iter().map(move |listener| Socket { listener, is_admin })
        };
        Ok(of(self.state.listeners.share()?, false).chain(of(self.admin.share()?, true)).collect())
    }

    /// The next process accepts: nothing is accepted here any more, and sessions that can move do so.
    pub(super) fn hand_over(&self) {
        self.state.context.drain.advance(Phase::HandingOver);
        self.state.listeners.hand_over();
        self.admin.hand_over();
        self.state.proxy.hand_over();
    }

    /// Returns once nobody is let in any more and the last connection is gone.
    pub(super) async fn ended(&self) {
        self.state.listeners.ended().await;
    }

    /// No new connections; sessions finish what they have begun. At the deadline, or when `now` resolves,
    /// those that are left are cut.
    pub async fn drain(&self, deadline: Duration, now: impl Future<Output = ()>) -> Drained {
        let listeners = &self.state.listeners;
        self.state.context.drain.advance(Phase::Draining);
        listeners.drain();
        tokio::select! {
            biased;
            () = listeners.ended() => {}
            () = tokio::time::sleep(deadline) => {}
            () = now => {}
        }
        let left = listeners.connections();
        self.state.context.drain.advance(Phase::Cut);
        listeners.cut();
        if timeout(CUT_TIME_MAX, listeners.ended()).await.is_err() {
            warn!(sessions = listeners.connections(), "sessions do not end although they were cut");
        }
        self.state.context.access.flush();
        if left == 0 { Drained::Clean } else { Drained::Cut(left) }
    }

    /// One line a listener, cluster and admin address.
    pub(super) fn announce(&self) {
        for listener in self.state.listeners.status() {
            let tls = if listener.tls { "TLS" } else { "plain" };
            info!(name = %listener.name, "listening on {} ({tls})", listener.address);
        }
        let (count, clusters) = self.state.proxy.clusters(ANNOUNCED_MAX);
        if count > clusters.len() {
            info!("{count} clusters, of which these are the first");
        }
        for cluster in &clusters {
            let text = |field| cluster.get(field).and_then(Value::as_str).unwrap_or_default();
            let (name, source) = (text("name"), text("source"));
            match cluster.get("endpoints").and_then(Value::as_array).map_or(0, Vec::len) {
                0 => info!("cluster {name}: {source}"),
                endpoints => info!("cluster {name}: {source}, {endpoints} endpoints"),
            }
        }
        if let Some(address) = self.admin() {
            info!("admin on http://{address}/");
        }
    }
}

impl<P: Proxy> State<P> {
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "name": P::NAME,
            "version": P::VERSION,
            "pid": std::process::id(),
            "started": humantime::format_rfc3339_seconds(self.started_at).to_string(),
            "uptime_seconds": self.started.elapsed().as_secs(),
            "draining": self.context.drain.is_draining(),
            "workers": self.listeners.connections_by_worker(),
            "listeners": self.listeners.status(),
        });
        if let (Value::Object(all), Value::Object(own)) = (&mut status, self.proxy.status()) {
            all.extend(own);
        }
        status
    }
}

/// Worker threads: as configured, or one a core.
pub(super) fn workers(config: &impl Document) -> usize {
    config.basics().workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
}
