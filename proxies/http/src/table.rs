//! The configuration as resolved: one immutable table, swapped whole.

use crate::balance::Tenants;
use crate::config::{self, Config};
use crate::fair::{Bounds, Fair};
use crate::http2;
use crate::metrics::{AppMetrics, FairMetrics};
use crate::route::{Hosts, PathMatch, Paths};
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
    /// Bounds of a connection that speaks HTTP/2.
    pub http2: http2::Bounds,
    /// Our name in Via; empty for none.
    pub via: Box<[u8]>,
    /// The proxy's own bound of exchanges under way.
    pub fair: Option<Arc<Fair>>,
    /// Every upstream by its name.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
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
    /// What tells its tenants apart.
    pub tenants: Option<Tenants>,
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
        let mut hosts = Hosts::default();
        let mut apps = Vec::with_capacity(config.apps.len());
        for (name, app) in &config.apps {
            for host in &app.hosts {
                hosts
                    .insert(host, apps.len())
                    .map_err(|_| format!("the host `{host}` belongs to two apps"))?;
            }
            apps.push(App::build(name, app, &config.timeouts, &mut upstreams, registry)?);
        }
        let limits = &config.limits;
        let timeouts = &config.timeouts;
        Ok(Self {
            limits: Limits {
                head_bytes: limits.head.bytes(),
                target_bytes: limits.target.bytes(),
                fields: limits.fields,
                trailer_bytes: limits.trailers.bytes(),
                body_bytes: limits.body.map_or(u64::MAX, |size| size.0),
            },
            buffer_bytes: limits.buffer.bytes(),
            idle_per_endpoint: limits.idle_per_endpoint,
            http2: http2::Bounds {
                streams: limits.streams,
                head_bytes: u32::try_from(limits.head.bytes()).unwrap_or(u32::MAX),
                buffer_bytes: limits.buffer.bytes(),
                head_time: timeouts.head.get(),
                keep_alive: timeouts.keep_alive.get(),
                server_keep_alive: timeouts.server_keep_alive.get(),
            },
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
            fair: fair(limits.in_flight.as_ref(), before, registry),
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

    /// Networks whose word on who the client is counts.
    pub fn trusted(&self) -> &[IpNet] {
        &self.trusted
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
        registry: &Registry,
    ) -> Result<Self, StartError> {
        let own = upstreams.take(name, &app.servers())?;
        let request = edits(&app.request_headers);
        let reply = edits(&app.response_headers);
        let mut paths =
            Paths::new(Target { upstream: Arc::clone(&own), request: request.clone(), reply: reply.clone() });
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
            tenants: app.tenants.as_ref().map(Tenants::from),
            retries: app.retries,
            paths,
        })
    }

    /// What serves a request of this app.
    pub fn target(&self, method: &[u8], path: &[u8]) -> &Target {
        self.paths.find(method, path)
    }
}

/// The bound of the table before lives on: what is under way counts.
fn fair(
    in_flight: Option<&config::InFlight>,
    before: Option<&Table>,
    registry: &Registry,
) -> Option<Arc<Fair>> {
    let before = before.and_then(|table| table.fair.as_ref());
    let Some(in_flight) = in_flight else {
        // Who waits for it does not have to any more.
        let open = Bounds { limit: usize::MAX, length_max: 0, age_max: Duration::ZERO };
        before.inspect(|fair| fair.set(open));
        return None;
    };
    let bounds = in_flight.bounds();
    let fair = before.map_or_else(|| Arc::new(Fair::new(bounds, FairMetrics::new(registry))), Arc::clone);
    fair.set(bounds);
    Some(fair)
}

fn edits(headers: &config::Headers) -> Edits {
    Edits::new(&headers.remove, &headers.set, &headers.add)
}
