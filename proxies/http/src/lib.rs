//! groove-http: an HTTP sidecar that routes for many apps, holds their servers to their bounds, and asks and tells
//! clients what has to be known.
//!
//! ```text
//!  client ──► session ── read ── admit ── route ── ask ── lease ── exchange ── release ──┐
//!             (one task,   │                │       │       │         │                  │
//!              both        wire::head       apps    auth    balance,  session::state     next request
//!              sockets)                     rules           queue     (pure)
//! ```

pub mod apps;
pub mod auth;
pub mod balance;
pub mod body;
pub mod compress;
pub mod config;
pub mod demands;
mod demo;
pub mod edit;
pub mod error;
pub mod fair;
pub mod http2;
pub mod identity;
pub mod metrics;
pub mod mirror;
pub mod outlier;
mod probe;
pub mod queue;
pub mod reply;
pub mod retry;
pub mod route;
pub mod rules;
pub mod scene;
pub mod session;
pub mod signify;
pub mod table;
pub mod upstream;
pub mod wire;
pub mod worker;

use crate::apps::verb::Apps;
use crate::apps::{ByName, Control, Directory};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::upstream::Ground;
use crate::worker::{Shared, Worker};
use groove_common::admin;
use groove_common::app::{Context, DemoRow, Proxy, StartError};
use groove_common::net::Service;
use groove_common::telemetry::Registry;
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

/// The HTTP proxy.
#[derive(Debug)]
pub struct Http {
    shared: Arc<Shared>,
    apps: Arc<Control>,
    registry: Arc<Registry>,
    /// How many apps have authorities for clients' certificates of their own.
    client_authorities: Arc<AtomicUsize>,
}

/// Its own verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {
    /// Look at the apps of a running proxy, or change them
    #[command(subcommand)]
    Apps(Apps),
}

/// The demo takes no arguments.
#[derive(Debug, clap::Args)]
pub struct Demo {}

impl Proxy for Http {
    const NAME: &'static str = "groove-http";
    const ABOUT: &'static str = "An HTTP sidecar: routes by host and path, edits headers, keeps connections.";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const ADMIN: &'static str = "127.0.0.1:9680";

    type Config = Config;
    type Verb = Verb;
    type Demo = Demo;

    fn start(config: Arc<Config>, cx: &Context) -> Result<Arc<Self>, StartError> {
        let directory = Arc::new(Directory::default());
        let ground = Ground::new(cx.runtime.clone(), Arc::clone(&cx.registry));
        let client_authorities = Arc::clone(&ground.client_authorities);
        let metrics = Metrics::new(&cx.registry);
        let table = Table::build(&config, None, &cx.registry)?;
        let shared = Shared::new(table, Arc::clone(&directory), metrics, cx.access.clone());
        let restarts = Arc::clone(&shared.restarts);
        let apps = Control::start(&config, Arc::new(ground), directory, restarts)?;
        let registry = Arc::clone(&cx.registry);
        Ok(Arc::new(Self { shared: Arc::new(shared), apps: Arc::new(apps), registry, client_authorities }))
    }

    fn service(self: &Arc<Self>) -> Service {
        let shared = Arc::clone(&self.shared);
        let (directory, count) = (Arc::clone(&shared.directory), Arc::clone(&self.client_authorities));
        Service::per_core(move |_| Worker::new(Arc::clone(&shared)))
            .alpn(&[b"h2", b"http/1.1"])
            .client_authorities(Arc::new(ByName { directory, count }))
    }

    fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        let table = Table::build(&config, Some(&self.shared.table()), &self.registry)?;
        self.apps.reload(&config, || self.shared.swap(table))
    }

    fn status(&self) -> Value {
        self.apps.status()
    }

    fn clusters(&self, at_most: usize) -> (usize, Vec<Value>) {
        self.apps.clusters(at_most)
    }

    fn routes(self: &Arc<Self>) -> admin::Routes {
        apps::api::routes(&self.apps)
    }

    async fn demo(_: Demo) -> Result<Vec<DemoRow>, StartError> {
        demo::run().await
    }

    async fn verb(verb: Verb, admin: admin::Client) -> Result<(), StartError> {
        match verb {
            Verb::Apps(apps) => apps.run(admin).await,
        }
    }
}
