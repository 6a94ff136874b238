//! Servers by name: A and AAAA with a configured port, or SRV, which brings its own.
//!
//! Asked again when the answer's TTL ends, within bounds and with jitter; a failed or
//! empty answer changes nothing and is asked again after a back-off.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hickory_resolver::config::LookupIpStrategy;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{ResolverBuilder, TokioResolver};
use tokio::time::sleep;
use tracing::warn;

use crate::balance::Dice;
use crate::config;
use crate::health::Backoff;
use crate::ids::Address;

use super::clock::fresh_dice;
use super::source::{Found, Source, SourceError};

/// Never ask more often than this, whatever the TTL says: many answers have a TTL of 0.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// Between asking again after failures.
const RETRY: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(30) };

/// What a name stands for, and for how long.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) endpoints: Vec<config::Endpoint>,
    pub(super) ttl: Duration,
}

/// Asks once. A function, so that tests answer without a network.
pub(super) type Ask = Box<dyn Fn() -> BoxFuture<'static, Result<Answer, String>> + Send>;

/// The DNS source.
pub(super) struct Dns {
    description: String,
    ask: Ask,
    refresh_max: Duration,
    dice: Dice,
    failures: u32,
    /// Before asking next.
    pause: Duration,
}

impl Dns {
    /// Asks the name servers that the system is set up with.
    pub(super) fn new(config: &config::Dns) -> Result<Self, SourceError> {
        let builder = TokioResolver::builder_tokio();
        let builder = builder.map_err(|error| SourceError::Resolver(error.to_string()))?;
        Ok(Self::with(config, ask_with(builder, config)?, fresh_dice()))
    }

    pub(super) fn with(config: &config::Dns, ask: Ask, dice: Dice) -> Self {
        let description = match config.port {
            Some(port) => format!("dns {}:{port}", config.name),
            None => format!("dns {} SRV", config.name),
        };
        let refresh_max = config.refresh.get().max(REFRESH_MIN);
        Self { description, ask, refresh_max, dice, failures: 0, pause: Duration::ZERO }
    }

    /// Asks until there is an answer with somebody in it.
    async fn next_answer(&mut self) -> Found {
        loop {
            sleep(self.pause).await;
            // Set before asking: a cancelled question is asked again, not at once.
            self.pause = REFRESH_MIN;
            match (self.ask)().await {
                Ok(answer) if !answer.endpoints.is_empty() => {
                    self.failures = 0;
                    self.pause = refresh(answer.ttl, self.refresh_max, self.dice.unit());
                    let mut endpoints = answer.endpoints;
                    // Servers shuffle their answers; slots must not depend on that.
                    endpoints.sort_by(|one, other| one.address.cmp(&other.address));
                    return Found { endpoints, may_be_empty: false };
                }
                Ok(_) => self.put_off("the answer is empty"),
                Err(reason) => self.put_off(&reason),
            }
        }
    }

    fn put_off(&mut self, reason: &str) {
        self.pause = RETRY.delay(self.failures, self.dice.unit()).max(REFRESH_MIN);
        self.failures = self.failures.saturating_add(1);
        warn!(source = self.description, reason, again_in = ?self.pause, "cannot resolve; keeping what is known");
    }
}

/// When to ask again: at the end of the TTL within bounds, up to a tenth earlier, so that
/// sidecars that asked together do not do so for ever.
pub(super) fn refresh(ttl: Duration, max: Duration, dice: f64) -> Duration {
    ttl.clamp(REFRESH_MIN, max).mul_f64(1.0 - dice / 10.0)
}

impl Source for Dns {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn initial(&mut self) -> Option<Found> {
        None
    }

    fn next(&mut self) -> BoxFuture<'_, Found> {
        Box::pin(self.next_answer())
    }
}

/// Asks through a resolver.
pub(super) fn ask_with(
    mut builder: ResolverBuilder<TokioRuntimeProvider>,
    config: &config::Dns,
) -> Result<Ask, SourceError> {
    let options = builder.options_mut();
    // We ask when we mean it; and half of a dual-stack answer is better than none.
    options.cache_size = 0;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    let resolver = builder.build().map_err(|error| SourceError::Resolver(error.to_string()))?;
    let (name, port) = (config.name.clone(), config.port);
    Ok(Box::new(move || {
        let (resolver, name) = (resolver.clone(), name.clone());
        Box::pin(async move {
            match port {
                Some(port) => hosts(&resolver, &name, port).await,
                None => services(&resolver, &name).await,
            }
        })
    }))
}

/// A and AAAA.
async fn hosts(resolver: &TokioResolver, name: &str, port: u16) -> Result<Answer, String> {
    let found = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
    let addresses = found.iter().map(|ip| Address::tcp(ip.to_string(), port));
    Ok(Answer {
        endpoints: addresses.map(config::Endpoint::from).collect(),
        ttl: left_of(found.valid_until()),
    })
}

/// SRV (RFC 2782): of the targets those of the best priority, with their weights. A target
/// stays a name; connecting resolves it. The target `.` says that the service is not there.
async fn services(resolver: &TokioResolver, name: &str) -> Result<Answer, String> {
    let found = resolver.lookup(name, RecordType::SRV).await.map_err(|error| error.to_string())?;
    let services: Vec<_> = found
        .answers()
        .iter()
        .filter_map(|record| if let RData::SRV(service) = &record.data { Some(service) } else { None })
        .filter(|service| !service.target.is_root())
        .collect();
    let best = services.iter().map(|service| service.priority).min();
    let endpoints = services
        .into_iter()
        .filter(|service| Some(service.priority) == best)
        .map(|service| {
            let host = service.target.to_utf8().trim_end_matches('.').to_owned();
            let address = Address::tcp(host, service.port);
            // Weight 0 is "no choice to be made" there, and "no traffic" here.
            config::Endpoint { weight: u32::from(service.weight).max(1), ..config::Endpoint::from(address) }
        })
        .collect();
    Ok(Answer { endpoints, ttl: left_of(found.valid_until()) })
}

fn left_of(valid_until: Instant) -> Duration {
    valid_until.saturating_duration_since(Instant::now())
}
