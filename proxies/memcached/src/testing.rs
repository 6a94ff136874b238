//! What tests of several rooms start from: a worker, its cluster of servers that follow a script, and clients.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use groove_common::app::{Context, Control};
use groove_common::config::{Endpoint, check_text};
use groove_common::net::{Drain, LocalService};
use groove_common::telemetry::{AccessLog, Registry};
use groove_common::testing::{ScriptedPeer, downstream};
use tokio::net::UnixListener;
use tokio::runtime::Handle;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::resize::{Agreement, Phase, View};
use crate::tap::{self, Probe};
use crate::tenant::counters::LoginMetrics;
use crate::tenant::directory::Makings;
use crate::tenant::generations::Generations;
use crate::tenant::reception::Reception;
use crate::upstream::Topology;
use crate::worker::Worker;

/// What a server says to its introduction. `pid` tells one run from another.
pub(crate) fn about(pid: usize) -> String {
    format!("MN\r\nSTAT pid {pid}\r\nSTAT uptime 10\r\nSTAT time 1000\r\nSTAT version 1.6.18\r\nEND\r\n")
}

/// Runs a test where sessions and connections may spawn their tasks, under paused time.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let options = tokio::runtime::LocalOptions::default();
    builder.enable_all().start_paused(true).build_local(options).unwrap().block_on(test);
}

/// One worker and the servers it knows.
pub(crate) struct Scene {
    pub(crate) worker: Rc<Worker>,
    pub(crate) topology: Arc<ArcSwap<Topology>>,
    listeners: Vec<UnixListener>,
    endpoints: Vec<Endpoint>,
    _folder: tempfile::TempDir,
}

impl Scene {
    /// With so many servers in a cluster that has these options besides.
    pub(crate) fn new(servers: usize, options: &str) -> Self {
        Self::start(servers, |addresses| {
            format!(
                "  main:\n    endpoints: [{}]\n    health: {{probe: null}}\n{options}",
                addresses.join(", ")
            )
        })
    }

    /// With a server in a cluster that has these replicas, and another in a cluster `copy`.
    pub(crate) fn copied(replicas: &str) -> Self {
        Self::start(2, |addresses| {
            let cluster = |name: &str, address: &str, options: &str| {
                format!("  {name}:\n    endpoints: [{address}]\n    health: {{probe: null}}\n{options}")
            };
            let main = cluster("main", &addresses[0], &format!("    replicas: {replicas}\n"));
            main + &cluster("copy", &addresses[1], "")
        })
    }

    fn start(servers: usize, clusters: impl FnOnce(&[String]) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<_> = (0..servers).map(|index| folder.path().join(index.to_string())).collect();
        let listeners = paths.iter().map(|path| UnixListener::bind(path).unwrap()).collect();
        let addresses: Vec<_> = paths.iter().map(|path| format!("'unix:{}'", path.display())).collect();
        let text = format!("listeners: [{{address: 127.0.0.1:1}}]\nclusters:\n{}", clusters(&addresses));
        let config: Config = check_text("scene", &text).unwrap();
        let registry = Registry::new(1);
        let cx = Context {
            runtime: Handle::current(),
            workers: 1,
            drain: Drain::new(),
            control: Control::new(tokio::sync::mpsc::channel(1).0),
            access: AccessLog::start(&registry, std::io::sink()).unwrap(),
            handover: groove_common::lifecycle::handover::HandOver::new(&registry),
            registry,
        };
        let topology = Topology::build(&config, None, &Makings::new(&cx.registry, 1).unwrap(), &cx).unwrap();
        let topology = Arc::new(ArcSwap::from_pointee(topology));
        let metrics = Metrics::new(&cx.registry);
        let generations = Generations::new(None, Arc::clone(&topology)).unwrap();
        let reception = Reception::new(1, LoginMetrics::new(&cx.registry), generations);
        let (tap, access) = (Probe::new(tap::hub(&cx.registry)), cx.access.clone());
        let worker = Worker::new(Arc::clone(&topology), metrics, access, reception, tap, Instant::now());
        let endpoint = |path: &std::path::PathBuf| {
            Endpoint::from(format!("unix:{}", path.display()).parse::<groove_common::ids::Address>().unwrap())
        };
        let endpoints = paths.iter().map(endpoint).collect();
        Self { worker, topology, listeners, endpoints, _folder: folder }
    }

    /// The cluster's agreement.
    pub(crate) fn agreement(&self) -> Arc<Agreement> {
        Arc::clone(self.topology.load().clusters[0].agreement().unwrap())
    }

    /// A view with these servers, by number, and no change under way.
    pub(crate) fn plain(&self, step: u64, servers: &[usize]) -> View {
        View::plain(groove_common::balance::Rule::default(), step, &self.list(servers))
    }

    /// A view with a change under way.
    pub(crate) fn changing(&self, step: u64, phase: Phase, old: &[usize], new: &[usize]) -> View {
        let rule = groove_common::balance::Rule::default();
        View::changing(rule, step, phase, &self.list(old), &self.list(new), &Default::default())
    }

    /// These servers.
    pub(crate) fn list(&self, servers: &[usize]) -> Vec<Endpoint> {
        servers.iter().map(|&index| self.endpoints[index].clone()).collect()
    }

    /// Has nobody dialled this server since the last that was accepted?
    pub(crate) fn nobody_dialled(&self, server: usize) -> bool {
        self.listeners[server].accept().now_or_never().is_none()
    }

    /// A client, served by the worker.
    pub(crate) fn client(&self) -> ScriptedPeer {
        let (conn, client, _drain) = downstream().unwrap();
        tokio::task::spawn_local(Rc::clone(&self.worker).serve(conn));
        client
    }

    /// The next connection to this server, greeted.
    pub(crate) async fn accept(&self, server: usize) -> ScriptedPeer {
        self.accept_as(server, server + 1).await
    }

    /// The same, of a run of the server that has this pid.
    pub(crate) async fn accept_as(&self, server: usize, pid: usize) -> ScriptedPeer {
        let (stream, _) = self.listeners[server].accept().await.unwrap();
        let mut peer = ScriptedPeer::new(stream);
        peer.expect("mn\r\nstats\r\n").await;
        peer.send(about(pid)).await;
        peer
    }
}

/// Lets every task that can run do so.
pub(crate) async fn settle() {
    // Under paused time the clock moves when nobody else has anything to do.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
}
