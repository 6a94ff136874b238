//! What the configuration says of a cluster's balance, made ready for requests.

use super::key::{self, Source, token_text};
use super::{Adaptive, Key};
use crate::auth::Identity;
use crate::config::{self, AffinityMode, Balance, SessionKey};
use crate::wire::{Edits, RequestHead};
use aws_lc_rs::hmac;
use std::time::Duration;

/// How many exchanges an endpoint may have under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Not more while another endpoint is below it.
    pub soft: u32,
    /// Never more.
    pub hard: u32,
}

impl Bounds {
    /// No bounds.
    pub const NONE: Self = Self { soft: u32::MAX, hard: u32::MAX };
}

/// Who may wait, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waits {
    /// So many requests.
    pub count_max: usize,
    /// So many of them that no other endpoint may serve than their session's.
    pub endpoint_max: usize,
    /// With so many bytes.
    pub bytes_max: usize,
    /// For so long.
    pub age_max: Duration,
}

/// A cluster's policy.
#[derive(Debug)]
pub struct Plan {
    /// Where any endpoint will do.
    pub balance: Balance,
    source: Option<Source>,
    /// Requests with a key wait for their endpoint.
    pub is_strict: bool,
    /// Requests with a key belong to a session: an endpoint that drains keeps them.
    pub has_sessions: bool,
    named: Option<Named>,
    /// Bounds of each endpoint.
    pub bounds: Bounds,
    /// How the hard bound follows latency, if it does.
    pub adaptive: Option<Adaptive>,
    /// The queue; `None` where there is nothing to wait for.
    pub waits: Option<Waits>,
}

/// A cookie of ours that names an endpoint.
struct Named {
    cookie: String,
    key: hmac::Key,
}

impl std::fmt::Debug for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Named").field("cookie", &self.cookie).finish_non_exhaustive()
    }
}

impl Default for Plan {
    /// The least loaded of all, whoever asks.
    fn default() -> Self {
        Self {
            balance: Balance::LeastLoaded,
            source: None,
            is_strict: false,
            has_sessions: false,
            named: None,
            bounds: Bounds::NONE,
            adaptive: None,
            waits: None,
        }
    }
}

impl Plan {
    /// The plan of a cluster; `None` is the least loaded of all, whoever asks.
    pub fn of(servers: &config::Cluster) -> Result<Option<Self>, String> {
        let affinity = servers.affinity.as_ref();
        let is_strict = affinity.is_some_and(|affinity| affinity.mode == AffinityMode::Strict);
        let waits = servers.concurrency.is_some() || servers.queue.is_some() || is_strict;
        if affinity.is_none() && !waits && servers.balance == Balance::LeastLoaded {
            return Ok(None);
        }
        let source = match (affinity, &servers.balance) {
            (Some(affinity), _) => {
                Some(Source::of_session(&affinity.by).map_err(|error| format!("affinity: {error}"))?)
            }
            (None, Balance::Hash(key)) => Some(Source::from(key)),
            (None, Balance::LeastLoaded | Balance::P2c | Balance::PeakEwma | Balance::RoundRobin) => None,
        };
        let bounds = servers.concurrency.as_ref().map_or(Bounds::NONE, |concurrency| Bounds {
            soft: concurrency.soft.unwrap_or(concurrency.hard),
            hard: concurrency.hard,
        });
        let queue = servers.queue.clone().unwrap_or_default();
        Ok(Some(Self {
            balance: servers.balance.clone(),
            source,
            is_strict,
            has_sessions: affinity.is_some(),
            named: affinity.and_then(|affinity| named(&affinity.by)),
            bounds,
            adaptive: servers.concurrency.as_deref().and_then(config::Concurrency::adaptive),
            waits: waits.then(|| Waits {
                count_max: queue.max,
                endpoint_max: queue.max_per_endpoint.unwrap_or(usize::MAX),
                bytes_max: queue.bytes.bytes(),
                age_max: queue.timeout.get(),
            }),
        }))
    }

    /// Whether two clusters have the same plan.
    pub fn is_same(one: &config::Cluster, other: &config::Cluster) -> bool {
        one.balance == other.balance
            && one.affinity == other.affinity
            && one.concurrency == other.concurrency
            && one.queue == other.queue
    }

    /// Where a request belongs. `identity` is who sends it, where that was found out by tokens: of those who show one it
    /// is the token that was verified which counts.
    pub fn key(&self, head: &RequestHead<'_>, client: &[u8], identity: Option<&Identity>) -> Key {
        match (&self.source, identity) {
            (None, _) => Key::None,
            (Some(Source::Claim(name)), Some(identity)) => key::of_claim(identity.claim(name)),
            (Some(source), _) => source.key(head, client),
        }
    }

    /// What the cookie says of an endpoint, where the proxy makes one.
    pub fn token(&self, identity: &str) -> Option<u64> {
        let named = self.named.as_ref()?;
        let tag = hmac::sign(&named.key, identity.as_bytes());
        let bytes = tag.as_ref().first_chunk::<8>()?;
        Some(u64::from_be_bytes(*bytes))
    }

    /// The edits of a reply that tells its client where its session lives from now on: those there are, and the cookie.
    pub fn naming(&self, identity: &str, edits: &Edits, is_secure: bool) -> Option<Edits> {
        let (named, token) = (self.named.as_ref()?, self.token(identity)?);
        let secure = if is_secure { "; Secure" } else { "" };
        let value = format!("{}={}; Path=/; HttpOnly; SameSite=Lax{secure}", named.cookie, token_text(token));
        let none = std::iter::empty::<&str>();
        Some(edits.then(&Edits::new(none, std::iter::empty(), [("Set-Cookie", value.as_str())])))
    }

    /// Whether the proxy makes a cookie.
    pub fn names_endpoints(&self) -> bool {
        self.named.is_some()
    }
}

fn named(by: &SessionKey) -> Option<Named> {
    let SessionKey::Cookie(cookie) = by else { return None };
    let secret = cookie.secret.as_ref().filter(|_| cookie.generate)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    Some(Named { cookie: cookie.name.clone(), key })
}
