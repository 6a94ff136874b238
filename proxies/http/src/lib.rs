//! groove-http: an HTTP sidecar that routes by host and path, edits headers and keeps connections on both sides.
//!
//! ```text
//!  client ──► session ── read ── admit ── route ── lease ── exchange ── release ──┐
//!             (one task,   │                │        │         │                  │
//!              both        wire::head       table    worker's  session::state     next request
//!              sockets)                     (Arc)    idle list (pure)
//! ```

pub mod auth;
pub mod body;
pub mod config;
mod demo;
pub mod edit;
pub mod error;
pub mod metrics;
mod probe;
pub mod reply;
pub mod route;
pub mod rules;
pub mod scene;
pub mod session;
pub mod table;
pub mod upstream;
pub mod wire;
pub mod worker;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::table::Table;
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
    context: Context,
    /// One reload at a time.
    reloading: Mutex<()>,
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
        let table = Table::build(&config, None, &cx.runtime, &cx.registry)?;
        let shared = Arc::new(Shared::new(table, Metrics::new(&cx.registry), cx.access.clone()));
        Ok(Arc::new(Self { shared, context: cx.clone(), reloading: Mutex::new(()) }))
    }

    fn service(self: &Arc<Self>) -> Service {
        let shared = Arc::clone(&self.shared);
        Service::per_core(move |_| Worker::new(Arc::clone(&shared))).alpn(&[b"http/1.1"])
    }

    fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        let _one = self.reloading.lock();
        let before = self.shared.table();
        let table = Table::build(&config, Some(&before), &self.context.runtime, &self.context.registry)?;
        self.shared.swap(table);
        Ok(())
    }

    fn status(&self) -> Value {
        let table = self.shared.table();
        let apps: Vec<Value> = table
            .apps()
            .iter()
            .map(|app| {
                json!({
                    "name": app.name,
                    "in_flight": app.metrics.in_flight.get(),
                    "requests": app.metrics.requests(),
                    "failures": app.metrics.failures(),
                })
            })
            .collect();
        let clusters: Vec<_> = table.upstreams.values().map(|upstream| upstream.cluster.status()).collect();
        json!({ "apps": apps, "clusters": clusters })
    }

    async fn demo(_: Demo) -> Result<Vec<DemoRow>, StartError> {
        demo::run().await
    }

    async fn verb(verb: Verb, _: admin::Client) -> Result<(), StartError> {
        match verb {}
    }
}
