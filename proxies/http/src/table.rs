//! The configuration as resolved: what rules every exchange in one immutable table, swapped whole, and each app by
//! itself, swapped without the others.

use crate::apps::Stand;
use crate::auth::{Auth, Providers};
use crate::balance::Tenants;
use crate::compress::Compression;
use crate::config::{self, Config};
use crate::demands::{AppDemands, Demands};
use crate::error::Error;
use crate::fair::{Bounds, Fair};
use crate::http2;
use crate::identity::Tracing;
use crate::metrics::{AppMetrics, FairMetrics, MirrorMetrics};
use crate::mirror::Mirror;
use crate::route::{PathMatch, Paths, Pattern};
use crate::rules::{Action, Answer, Conditions, Cors, Place, pattern};
use crate::session::pace::MinRate;
use crate::signify::{Library, Maintenance, Page, Pages};
use crate::upstream::{Changes, Ground, Make, Upstream, Upstreams};
use crate::wire::{Edits, Limits, RequestHead, Says};
use groove_common::app::StartError;
use groove_common::net::{ClientAuthority, Peer};
use groove_common::telemetry::Registry;
use ipnet::IpNet;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

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
    /// The least rate of a client.
    pub min_rate: Option<MinRate>,
    /// What servers are told of who asks.
    pub says: Says,
    /// What is done about traces.
    pub tracing: Option<Tracing>,
    /// Pages that stand for all apps.
    pages: Pages,
    /// Replies that may be compressed at once.
    pub encoders_max: usize,
    /// The proxy's own bound of exchanges under way.
    pub fair: Option<(Arc<Fair>, Bounds)>,
    trusted: Vec<IpNet>,
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
    pub name: Arc<str>,
    /// As configured.
    pub config: Arc<config::App>,
    /// Its numbers, from its first request on.
    pub metrics: LazyLock<Box<AppMetrics>, Make<Box<AppMetrics>>>,
    /// All its servers.
    pub upstreams: Box<[Arc<Upstream>]>,
    /// Opening a connection.
    pub connect: Duration,
    /// The server's first byte.
    pub first_byte: Duration,
    /// A body on which nothing moves.
    pub body_idle: Duration,
    /// What tells its tenants apart.
    pub tenants: Option<Box<Tenants>>,
    /// Further tries when connecting fails.
    pub retries: u32,
    /// What an operator says of it.
    pub stand: Stand,
    /// Pages of its own.
    pages: Option<Box<Pages>>,
    paths: Paths<Choice>,
    /// Another has taken its place, or none.
    is_retired: AtomicBool,
}

/// Targets that share a route's requests; mostly one.
#[derive(Debug)]
struct Choice {
    target: Target,
    /// By weight, if there are several.
    shares: Box<[(u32, Target)]>,
}

impl Choice {
    fn pick(&self, dice: impl FnOnce() -> f64) -> &Target {
        if self.shares.is_empty() {
            return &self.target;
        }
        let total: u32 = self.shares.iter().map(|(weight, _)| weight).sum();
        let mut roll = f64::from(total) * dice();
        let chosen = self.shares.iter().find(|(weight, _)| {
            roll -= f64::from(*weight);
            roll < 0.0
        });
        chosen.map_or(&self.target, |(_, target)| target)
    }
}

/// What else a route has to do with: see [`Target`] and [`Action`].
type More = (Option<Arc<Maintenance>>, Option<Arc<Demands>>, Option<Arc<Mirror>>);

/// What serves a request, and what is edited on its way.
#[derive(Debug)]
pub struct Target {
    /// What else is done. Most routes do nothing else.
    pub action: Option<Box<Action>>,
    /// The servers.
    pub upstream: Arc<Upstream>,
    /// Edits to the request.
    pub request: Edits,
    /// Edits to the reply.
    pub reply: Edits,
    /// It is closed.
    pub maintenance: Option<Arc<Maintenance>>,
    /// What is asked of requests beside. Most are asked nothing.
    pub demands: Option<Arc<Demands>>,
}

impl Table {
    /// Resolves a configuration, but for its apps.
    ///
    /// # Errors
    /// A page cannot be read.
    pub fn build(config: &Config, before: Option<&Self>, registry: &Registry) -> Result<Self, StartError> {
        let mut library = Library::default();
        let limits = &config.limits;
        let timeouts = &config.timeouts;
        Ok(Self {
            limits: bounds(limits),
            buffer_bytes: limits.buffer.bytes(),
            idle_per_endpoint: limits.idle_per_endpoint,
            http2: http2::Bounds {
                streams: limits.streams,
                head_bytes: u32::try_from(limits.head.bytes()).unwrap_or(u32::MAX),
                buffer_bytes: limits.buffer.bytes(),
                head_time: timeouts.head.get(),
                keep_alive: timeouts.keep_alive.get(),
                server_keep_alive: timeouts.server_keep_alive.get(),
                ping: config.http2.ping.as_ref().map(http2::KeepAlive::from),
                server_ping: config.http2.server_ping.as_ref().map(http2::KeepAlive::from),
            },
            timeouts: Timeouts {
                head: timeouts.head.get(),
                keep_alive: timeouts.keep_alive.get(),
                tunnel_idle: timeouts.tunnel_idle.get(),
                server_keep_alive: timeouts.server_keep_alive.get(),
            },
            via: config.via.as_deref().unwrap_or_default().as_bytes().into(),
            min_rate: limits
                .min_rate
                .as_ref()
                .map(|min| MinRate { bytes: min.rate.0, grace: min.grace.get() }),
            says: config.forwarded.says(),
            tracing: config.forwarded.tracing(),
            pages: library.pages(&config.pages)?,
            encoders_max: limits.compressing,
            trusted: config.trusted.clone(),
            fair: fair(limits.in_flight.as_ref(), before, registry),
        })
    }

    /// It is the table from now on: those who wait for a turn wait by its bounds.
    pub fn take_effect(&self, before: &Self) {
        match (&self.fair, &before.fair) {
            (Some((fair, bounds)), _) => fair.set(*bounds),
            // Who waits for it does not have to any more.
            (None, Some((fair, _))) => {
                fair.set(Bounds { limit: usize::MAX, length_max: 0, age_max: Duration::ZERO });
            }
            (None, None) => {}
        }
    }

    /// Whether a peer's word on who the client is counts. A unix socket is as near as loopback.
    pub fn trusts(&self, peer: &Peer) -> bool {
        if self.trusted.is_empty() {
            return false;
        }
        self.trusts_address(peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    /// As [`Self::trusts`], for an address that somebody has told us of.
    pub fn trusts_address(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted.iter().any(|net| net.contains(&ip))
    }

    /// The page that an operator wants shown for a failure: of what is closed, of the app, of all apps.
    pub fn page<'t>(
        &'t self,
        app: Option<&'t App>,
        target: Option<&'t Target>,
        error: &Error,
    ) -> Option<&'t Page> {
        let closed = target.and_then(|target| target.maintenance.as_ref());
        let closed = closed.filter(|_| matches!(error, Error::Maintenance(_)));
        closed.and_then(|closed| closed.page.as_deref()).or_else(|| {
            let own = app.and_then(|app| app.pages.as_ref());
            let (code, status) = (error.code(), error.status());
            own.and_then(|pages| pages.find(code, status)).or_else(|| self.pages.find(code, status))
        })
    }
}

impl App {
    /// Resolves one app. Clusters that it shares with the one `before` live on; they learn of changes later.
    pub fn build(
        name: &Arc<str>,
        app: &Arc<config::App>,
        timeouts: &config::Timeouts,
        before: Option<&Self>,
        ground: &Arc<Ground>,
    ) -> Result<(Self, Changes), StartError> {
        let (mut upstreams, mut library) = (Upstreams::new(ground, app, before), Library::default());
        let own = upstreams.take(Arc::clone(name), None, &app.servers())?;
        let mut providers = Providers::new(&ground.runtime, &ground.known);
        let demands = AppDemands::new(name, app, ground, &mut providers)?;
        let request = edits(app.request_headers.as_deref()).stripping(demands.stripped.clone());
        let closed = maintenance(app.maintenance.as_deref(), &mut library)?;
        let mut paths = Paths::new(Choice {
            target: Target {
                maintenance: closed.clone(),
                action: None,
                upstream: Arc::clone(&own),
                request: request.clone(),
                reply: replies(&demands, app, None),
                demands: demands.of(None, &mut providers)?,
            },
            shares: Box::default(),
        });
        for route in &app.routes {
            let closed = match &route.maintenance {
                Some(own) => maintenance(Some(own), &mut library)?,
                None => closed.clone(),
            };
            let mirror =
                route.mirror.as_deref().map(|it| mirror(it, name, app, &mut upstreams)).transpose()?;
            let reply = replies(&demands, app, Some(route));
            let asked = demands.of(Some(route), &mut providers)?;
            let mut target = |cluster: Option<&String>| {
                let upstream = match cluster {
                    Some(cluster) => {
                        let servers =
                            app.clusters.get(cluster).ok_or_else(|| format!("no cluster `{cluster}`"))?;
                        upstreams.take(format!("{name}/{cluster}").into(), Some(cluster), servers)?
                    }
                    None => Arc::clone(&own),
                };
                let more = (closed.clone(), asked.clone(), mirror.clone());
                Target::build(route, upstream, &request, &reply, more)
            };
            let shares = route.split.iter().map(|share| Ok((share.weight, target(share.cluster.as_ref())?)));
            let shares = shares.collect::<Result<Box<[_]>, StartError>>()?;
            let choice = Choice { target: target(route.cluster.as_ref())?, shares };
            let methods = route.matches.methods.iter().map(|method| method.as_bytes().into()).collect();
            let conditions = Conditions::new(&route.matches)?.map(Box::new);
            paths.insert(path(&route.matches)?, methods, conditions, choice);
        }
        let (upstreams, changes) = upstreams.finish();
        let (registry, label) = (Arc::clone(ground), Arc::clone(name));
        let metrics = Box::new(move || Box::new(AppMetrics::new(&registry.registry, &label))) as Make<_>;
        let app = Self {
            name: Arc::clone(name),
            config: Arc::clone(app),
            metrics: LazyLock::new(metrics),
            upstreams,
            connect: app.timeouts.connect.unwrap_or(timeouts.connect).get(),
            first_byte: app.timeouts.first_byte.unwrap_or(timeouts.first_byte).get(),
            body_idle: app.timeouts.body_idle.unwrap_or(timeouts.body_idle).get(),
            tenants: app.tenants.as_deref().map(Tenants::from).map(Box::new),
            retries: app.retries,
            stand: Stand::default(),
            pages: Some(library.pages(&app.pages)?).filter(|own| !own.is_empty()).map(Box::new),
            paths,
            is_retired: AtomicBool::new(false),
        };
        Ok((app, changes))
    }

    /// Its numbers, if there are any yet.
    pub fn counted(&self) -> Option<&AppMetrics> {
        LazyLock::get(&self.metrics).map(|metrics| &**metrics)
    }

    /// For the status page.
    pub fn status(&self) -> Value {
        let counted = self.counted();
        json!({
            "name": self.name,
            "in_flight": counted.map_or(0, |it| it.in_flight.get()),
            "requests": counted.map_or(0, AppMetrics::requests),
            "failures": counted.map_or(0, AppMetrics::failures),
        })
    }

    /// Whose certificates its clients show, if it has a word of its own on that.
    pub fn client_authority(&self) -> Option<&Arc<ClientAuthority>> {
        self.paths.otherwise().target.client_authority()
    }

    /// New exchanges begin with another from now on, or with none.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Release);
    }

    /// Whether new exchanges should look for it anew.
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Acquire)
    }

    /// What serves a request of this app. `dice` are thrown where several share a route.
    pub fn target(&self, head: &RequestHead<'_>, dice: impl FnOnce() -> f64) -> &Target {
        self.paths.find(head.method, head.path(), |conditions| conditions.hold(head)).pick(dice)
    }
}

impl Target {
    fn build(
        route: &config::Route,
        upstream: Arc<Upstream>,
        request: &Edits,
        reply: &Edits,
        (maintenance, demands, mirror): More,
    ) -> Result<Self, StartError> {
        let matched = path(&route.matches)?.prefix_len();
        let rewrite = route.rewrite.as_ref();
        let host = rewrite.and_then(|it| it.host.as_deref()).map(|host| ("Host", host));
        let request = request.then(&Edits::new([], host, [])).then(&edits(route.request_headers.as_deref()));
        let redirect = route.redirect.as_ref().map(|redirect| Answer::redirect(redirect, matched));
        let action = Action {
            rewrite: rewrite.and_then(|it| Place::new(it.path.as_deref(), it.prefix.as_deref(), matched)),
            answer: redirect.or_else(|| route.respond.as_ref().map(Answer::fixed)),
            cors: route.cors.as_ref().map(|cors| Cors::new(cors, reply)),
            mirror,
        };
        let action = action.is_some().then(|| Box::new(action));
        Ok(Self { action, upstream, request, reply: reply.clone(), maintenance, demands })
    }

    /// Who may ask, where not anybody may.
    pub fn auth(&self) -> Option<&Auth> {
        self.demands.as_ref()?.auth.as_deref()
    }

    /// Whose certificates clients show, where the app has a word of its own on that.
    pub fn client_authority(&self) -> Option<&Arc<ClientAuthority>> {
        self.demands.as_ref()?.clients.as_ref()
    }

    /// Whether clients are known by tokens here, whose claims are then those of a token that was verified.
    pub fn asks_tokens(&self) -> bool {
        self.auth().is_some_and(Auth::asks_tokens)
    }

    /// What of its replies is compressed, if any are.
    pub fn compression(&self) -> Option<&Compression> {
        self.demands.as_ref()?.compression.as_ref()
    }

    /// Whether a request is a browser's question about another, which it asks without showing who it is of.
    pub fn is_preflight(&self, head: &RequestHead<'_>) -> bool {
        let cors = self.action.as_ref().and_then(|action| action.cors.as_ref());
        cors.is_some_and(|cors| cors.is_preflight(head))
    }

    /// Whether the answer is the same whoever asks, so that nobody need show who they are; least of all over a connection
    /// that is not the one they are to use.
    pub fn answers_anybody(&self, head: &RequestHead<'_>, scheme: &str) -> bool {
        let answer = self.action.as_ref().and_then(|action| action.answer.as_ref());
        let wanted = answer.and_then(Answer::wants_scheme);
        wanted.is_some_and(|wanted| wanted != scheme) || self.is_preflight(head)
    }

    /// Refuses a request whose body is not taken here.
    pub fn admit(&self, head: &RequestHead<'_>, limits: &Limits) -> Result<(), Error> {
        self.demands.as_ref().map_or(Ok(()), |demands| demands.admit(head, limits))
    }

    /// The limits, with its own bound of bodies.
    pub fn limits(&self, limits: &Limits) -> Limits {
        self.demands.as_ref().map_or(*limits, |demands| demands.limits(limits))
    }
}

/// Which paths a match means.
fn path(matches: &config::Match) -> Result<PathMatch, StartError> {
    match &matches.path_regex {
        Some(regex) => Ok(PathMatch::Regex(Pattern(pattern(regex)?))),
        None => Ok(PathMatch::parse(&matches.path)?),
    }
}

/// A route's rule for copies, whose cluster the app has.
fn mirror(
    written: &config::Mirror,
    name: &Arc<str>,
    app: &config::App,
    upstreams: &mut Upstreams<'_>,
) -> Result<Arc<Mirror>, StartError> {
    let cluster = &written.cluster;
    let servers = app.clusters.get(cluster).ok_or_else(|| format!("no cluster `{cluster}`"))?;
    let upstream = upstreams.take(format!("{name}/{cluster}").into(), Some(cluster), servers)?;
    let (ground, label) = (upstreams.ground(), Arc::clone(&upstream.name));
    Ok(Arc::new(Mirror::new(written, upstream, move || MirrorMetrics::new(&ground.registry, &label))))
}

fn maintenance(
    written: Option<&config::signify::Maintenance>,
    library: &mut Library,
) -> Result<Option<Arc<Maintenance>>, StartError> {
    let Some(written) = written.filter(|it| it.enabled) else { return Ok(None) };
    Ok(Some(Arc::new(Maintenance {
        allow: written.allow.clone(),
        page: written.page.as_ref().map(|file| library.page(file)).transpose()?,
        retry_after_s: written.retry_after.map(|after| after.get().as_secs().max(1)),
    })))
}

/// The bound of exchanges under way. What is in it lives on from the table before.
fn fair(
    in_flight: Option<&config::InFlight>,
    before: Option<&Table>,
    registry: &Registry,
) -> Option<(Arc<Fair>, Bounds)> {
    let bounds = in_flight?.bounds();
    let before = before.and_then(|table| table.fair.as_ref());
    let fair = before.map_or_else(
        || Arc::new(Fair::new(bounds, FairMetrics::new(registry))),
        |(fair, _)| Arc::clone(fair),
    );
    Some((fair, bounds))
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

fn edits(headers: Option<&config::Headers>) -> Edits {
    headers.map_or_else(Edits::default, |it| Edits::new(&it.remove, &it.set, &it.add))
}

/// The edits that all replies get; none where they are worked out for each.
fn replies(demands: &AppDemands<'_>, app: &config::App, route: Option<&config::Route>) -> Edits {
    if demands.varies_reply(route) {
        return Edits::default();
    }
    let own = route.and_then(|route| route.response_headers.as_deref());
    edits(app.response_headers.as_deref()).then(&edits(own))
}
