//! The configuration as resolved: one immutable table, swapped whole.

use crate::auth::Providers;
use crate::auth::providers::Known;
use crate::config::{self, Config};
use crate::metrics::AppMetrics;
use crate::route::{Hosts, PathMatch, Paths};
use crate::rules::{AppRules, Rules};
use crate::upstream::{Upstream, Upstreams};
use crate::wire::{Edits, Limits};
use groove_common::app::StartError;
use groove_common::net::Peer;
use groove_common::telemetry::Registry;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Everything that a worker needs to know of the configuration.
#[derive(Debug)]
pub struct Table {
    /// Bounds of heads and bodies.
    pub limits: Limits,
    /// Bytes held for a peer that reads slowly.
    pub buffer_bytes: usize,
    /// Idle connections a worker keeps to one endpoint.
    pub idle_per_endpoint: usize,
    /// Timeouts that are not an app's.
    pub timeouts: Timeouts,
    /// Our name in Via; empty for none.
    pub via: Box<[u8]>,
    /// Every upstream by its name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// What is known of those who are asked who a client is.
    providers: Arc<Known>,
    trusted: Vec<IpNet>,
    hosts: Hosts<usize>,
    apps: Vec<App>,
}

/// Timeouts that are not an app's.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// A request's head.
    pub head: Duration,
    /// Between two requests.
    pub keep_alive: Duration,
    /// A tunnel on which nothing moves.
    pub tunnel_idle: Duration,
    /// An idle connection to a server.
    pub server_keep_alive: Duration,
}

/// One app.
#[derive(Debug)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its numbers.
    pub metrics: AppMetrics,
    /// Opening a connection.
    pub connect: Duration,
    /// The server's first byte.
    pub first_byte: Duration,
    /// A body on which nothing moves.
    pub body_idle: Duration,
    /// Further tries when connecting fails.
    pub retries: u32,
    paths: Paths<Target>,
}

/// What serves a request, and what is edited on its way.
#[derive(Debug)]
pub struct Target {
    /// The servers.
    pub upstream: Arc<Upstream>,
    /// Edits to the request.
    pub request: Edits,
    /// Edits to the reply.
    pub reply: Edits,
    /// What is asked of requests beside.
    pub rules: Rules,
}

impl Table {
    /// Resolves a configuration. Clusters that it shares with the one `before` live on.
    pub fn build(
        config: &Config,
        before: Option<&Self>,
        runtime: &Handle,
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let mut upstreams = Upstreams::new(runtime, registry, before);
        let mut providers = Providers::new(runtime, before.map(|before| Arc::clone(&before.providers)));
        let limits = bounds(&config.limits);
        let mut hosts = Hosts::default();
        let mut apps = Vec::with_capacity(config.apps.len());
        for (name, app) in &config.apps {
            for host in &app.hosts {
                hosts
                    .insert(host, apps.len())
                    .map_err(|_| format!("the host `{host}` belongs to two apps"))?;
            }
            let rules = AppRules::new(name, app, &limits, &mut providers)?;
            apps.push(App::build(
                name,
                app,
                &config.timeouts,
                &mut upstreams,
                (&rules, &mut providers),
                registry,
            )?);
        }
        let (bounds, limits) = (limits, &config.limits);
        let timeouts = &config.timeouts;
        Ok(Self {
            limits: bounds,
            providers: providers.finish(),
            buffer_bytes: limits.buffer.bytes(),
            idle_per_endpoint: limits.idle_per_endpoint,
            timeouts: Timeouts {
                head: timeouts.head.get(),
                keep_alive: timeouts.keep_alive.get(),
                tunnel_idle: timeouts.tunnel_idle.get(),
                server_keep_alive: timeouts.server_keep_alive.get(),
            },
            via: config.via.as_deref().unwrap_or_default().as_bytes().into(),
            trusted: config.trusted.clone(),
            hosts,
            apps,
            upstreams: upstreams.finish()?,
        })
    }

    /// The app that answers for a host.
    pub fn app(&self, host: &[u8]) -> Option<&App> {
        self.hosts.find(host).and_then(|index| self.apps.get(*index))
    }

    /// All apps.
    pub fn apps(&self) -> &[App] {
        &self.apps
    }

    /// Whether a peer's word on who the client is counts. A unix socket is as near as loopback.
    pub fn trusts(&self, peer: &Peer) -> bool {
        if self.trusted.is_empty() {
            return false;
        }
        let ip = peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }
}

impl App {
    fn build(
        name: &str,
        app: &config::App,
        timeouts: &config::Timeouts,
        upstreams: &mut Upstreams<'_>,
        (rules, providers): (&AppRules<'_>, &mut Providers),
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let own = upstreams.take(name, &app.servers())?;
        let request = edits(&app.request_headers).stripping(rules.stripped.clone());
        let reply = edits(&app.response_headers);
        let mut paths = Paths::new(Target {
            upstream: Arc::clone(&own),
            request: request.clone(),
            reply: reply.clone(),
            rules: rules.of(None, providers)?,
        });
        for route in &app.routes {
            let upstream = match &route.cluster {
                Some(cluster) => {
                    let servers =
                        app.clusters.get(cluster).ok_or_else(|| format!("no cluster `{cluster}`"))?;
                    upstreams.take(&format!("{name}/{cluster}"), servers)?
                }
                None => Arc::clone(&own),
            };
            let target = Target {
                upstream,
                request: request.then(&edits(&route.request_headers)),
                reply: reply.then(&edits(&route.response_headers)),
                rules: rules.of(Some(route), providers)?,
            };
            let methods = route.matches.methods.iter().map(|method| method.as_bytes().into()).collect();
            paths.insert(PathMatch::parse(&route.matches.path)?, methods, target);
        }
        Ok(Self {
            name: name.to_owned(),
            metrics: AppMetrics::new(registry, name),
            connect: app.timeouts.connect.unwrap_or(timeouts.connect).get(),
            first_byte: app.timeouts.first_byte.unwrap_or(timeouts.first_byte).get(),
            body_idle: app.timeouts.body_idle.unwrap_or(timeouts.body_idle).get(),
            retries: app.retries,
            paths,
        })
    }

    /// What serves a request of this app.
    pub fn target(&self, method: &[u8], path: &[u8]) -> &Target {
        self.paths.find(method, path)
    }
}

fn bounds(limits: &config::Limits) -> Limits {
    Limits {
        head_bytes: limits.head.bytes(),
        target_bytes: limits.target.bytes(),
        fields: limits.fields,
        trailer_bytes: limits.trailers.bytes(),
        body_bytes: limits.body.map_or(u64::MAX, |size| size.0),
    }
}

fn edits(headers: &config::Headers) -> Edits {
    Edits::new(&headers.remove, &headers.set, &headers.add)
}
