//! groove-memcached: a memcached sidecar. Any of memcached's protocols in, the meta protocol out, over servers
//! that come and go.
//!
//! | room | what it does |
//! |---|---|
//! | [`config`] | the configuration, as written |
//! | [`wire`] | the codecs: bytes to frames and back, no IO |
//! | [`session`] | one client: the pure machine, and the loop that gives it bytes |
//! | [`route`] | a key's cluster and hash |
//! | [`program`] | operations of several steps |
//! | [`failover`] | what becomes of requests whose server is away |
//! | [`hot`] | values that are asked for very often, kept for a moment |
//! | [`upstream`] | clusters, pipelined connections |
//! | [`store`] | the embedded store: in memory, and on disk behind it |
//! | [`worker`] | what the sessions of one thread share |
//! | [`stats`] | the statistics of many servers as if they were one |
//! | [`tenant`] | who a client is, what it may use, and what is its own |
//! | [`error`], [`reply`] | what can go wrong, and the words for it |
//! | [`resize`] | changing the servers while clients go on |
//! | [`advertise`] | what clients are told that ask where to connect |
//! | [`metrics`] | what is counted |
//! | [`tap`] | what goes through, for whoever watches |

pub mod advertise;
pub mod config;
mod demo;
pub mod error;
pub mod failover;
pub mod hot;
pub mod metrics;
pub mod program;
pub mod reply;
pub mod resize;
pub mod route;
pub mod session;
pub mod stats;
pub mod store;
pub mod tap;
pub mod tenant;
#[cfg(test)]
mod testing;
pub mod upstream;
pub mod wire;
pub mod worker;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use groove_common::admin;
use groove_common::app::{Context, DemoRow, Proxy, StartError};
use groove_common::net::Service;

use config::Config;
use metrics::Metrics;
use tap::{Hub, Probe};
use tenant::counters::LoginMetrics;
use tenant::directory::Makings;
use tenant::generations::Generations;
use tenant::reception::Reception;
use upstream::Topology;
use worker::Worker;

/// The proxy.
pub struct Memcached {
    topology: Arc<ArcSwap<Topology>>,
    metrics: Metrics,
    logins: LoginMetrics,
    makings: Makings,
    generations: Arc<Generations>,
    tap: Arc<Hub>,
    cx: Context,
    started: Instant,
}

/// Its own verbs.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Verb {
    /// Change a cluster's servers while clients go on, or see how that goes
    Resize(resize::verb::Resize),
    /// Show what goes through: each exchange, or what is asked most
    Tap(tap::verb::Tap),
}

/// `demo` needs to know nothing.
#[derive(Debug, Clone, clap::Args)]
pub struct Demo {}

impl Proxy for Memcached {
    const NAME: &'static str = "groove-memcached";
    const ABOUT: &'static str =
        "A memcached sidecar: any of its protocols in, meta protocol out, over servers that come and go";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ADMIN: &'static str = "127.0.0.1:9311";

    type Config = Config;
    type Verb = Verb;
    type Demo = Demo;

    fn start(config: Arc<Config>, cx: &Context) -> Result<Arc<Self>, StartError> {
        let makings = Makings::new(&cx.registry, cx.workers)?;
        let topology = Topology::build(&config, None, &makings, cx)?;
        let topology = Arc::new(ArcSwap::from_pointee(topology));
        let generations = Generations::new(config.state.as_deref(), Arc::clone(&topology))?;
        cx.runtime.spawn(Arc::clone(&generations).run());
        Ok(Arc::new(Self {
            topology,
            metrics: Metrics::new(&cx.registry),
            logins: LoginMetrics::new(&cx.registry),
            makings,
            generations,
            tap: tap::hub(&cx.registry),
            cx: cx.clone(),
            started: Instant::now(),
        }))
    }

    fn service(self: &Arc<Self>) -> Service {
        let proxy = Arc::clone(self);
        Service::per_core(move |_| {
            let Self { topology, metrics, logins, generations, cx, started, tap, .. } = &*proxy;
            let reception = Reception::new(cx.workers, logins.clone(), Arc::clone(generations));
            let (topology, tap) = (Arc::clone(topology), Probe::new(Arc::clone(tap)));
            Worker::new(topology, metrics.clone(), cx.access.clone(), reception, tap, *started)
        })
    }

    fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        let topology = Topology::build(&config, Some(&self.topology.load()), &self.makings, &self.cx)?;
        self.topology.store(Arc::new(topology));
        self.generations.reload();
        Ok(())
    }

    fn status(&self) -> serde_json::Value {
        let topology = self.topology.load();
        serde_json::json!({ "clusters": topology.status(), "tenants": topology.directory.status() })
    }

    fn routes(self: &Arc<Self>) -> admin::Routes {
        resize::api::routes(&self.topology).and(tap::api::routes(&self.tap, &self.topology, &self.cx.drain))
    }

    async fn demo(_: Demo) -> Result<Vec<DemoRow>, StartError> {
        demo::run().await
    }

    async fn verb(verb: Verb, admin: admin::Client) -> Result<(), StartError> {
        match verb {
            Verb::Resize(resize) => resize.run(admin).await,
            Verb::Tap(tap) => tap.run(admin).await,
        }
    }
}
