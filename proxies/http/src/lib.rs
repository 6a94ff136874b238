//! groove-http: an HTTP sidecar that routes by host and path, edits headers and keeps connections on both sides.
//!
//! ```text
//!  client ──► session ── read ── admit ── route ── lease ── exchange ── release ──┐
//!             (one task,   │                │        │         │                  │
//!              both        wire::head       table    worker's  session::state     next request
//!              sockets)                     (Arc)    idle list (pure)
//! ```

pub mod apps;
pub mod config;
mod demo;
pub mod error;
pub mod metrics;
mod probe;
pub mod reply;
pub mod route;
pub mod session;
pub mod table;
pub mod upstream;
pub mod wire;
pub mod worker;

use crate::apps::{Directory, Roster};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::upstream::Ground;
use crate::worker::{Shared, Worker};
use groove_common::admin;
use groove_common::app::{Context, DemoRow, Proxy, StartError};
use groove_common::net::Service;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// The HTTP proxy.
#[derive(Debug)]
pub struct Http {
    shared: Arc<Shared>,
    /// Held by whoever changes it: one change at a time.
    roster: Mutex<Roster>,
}

/// It has no verbs of its own yet.
#[derive(Debug, clap::Subcommand)]
pub enum Verb {}

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
        let ground = Ground { runtime: cx.runtime.clone(), registry: Arc::clone(&cx.registry) };
        let mut roster = Roster::new(Arc::new(ground), Arc::clone(&directory));
        let apps = config.apps.iter().map(|(name, app)| (name.as_str(), Some(app)));
        let change = roster.prepare(apps, &config.timeouts)?;
        roster.apply(change);
        let metrics = Metrics::new(&cx.registry);
        let shared = Shared::new(Table::build(&config), directory, metrics, cx.access.clone());
        Ok(Arc::new(Self { shared: Arc::new(shared), roster: Mutex::new(roster) }))
    }

    fn service(self: &Arc<Self>) -> Service {
        let shared = Arc::clone(&self.shared);
        Service::per_core(move |_| Worker::new(Arc::clone(&shared))).alpn(&[b"http/1.1"])
    }

    fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        let mut roster = self.roster.lock();
        let gone: Vec<Arc<str>> = roster
            .apps()
            .filter(|app| !config.apps.contains_key(&*app.name))
            .map(|app| Arc::clone(&app.name))
            .collect();
        let gone = gone.iter().map(|name| (&**name, None));
        let apps = config.apps.iter().map(|(name, app)| (name.as_str(), Some(app)));
        let change = roster.prepare(apps.chain(gone), &config.timeouts)?;
        self.shared.swap(Table::build(&config));
        roster.apply(change);
        Ok(())
    }

    fn status(&self) -> Value {
        let roster = self.roster.lock();
        let clusters: Vec<_> = roster.apps().flat_map(|app| &app.upstreams).map(|it| it.status()).collect();
        let apps: Vec<Value> = roster.apps().map(|app| app.status()).collect();
        json!({ "apps": apps, "clusters": clusters })
    }

    async fn demo(_: Demo) -> Result<Vec<DemoRow>, StartError> {
        demo::run().await
    }

    async fn verb(verb: Verb, _: admin::Client) -> Result<(), StartError> {
        match verb {}
    }
}
