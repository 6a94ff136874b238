//! Rings of points, compatible with those of libmemcached, twemproxy, spymemcached, EVCache and Dalli, so that
//! people can change to us without a cold cache.
//!
//! | dialect | points of a server | its label |
//! |---|---|---|
//! | libmemcached (and twemproxy) | 160 by weight, four from each MD5 of `label-i` | `host` on port 11211, else `host:port` |
//! | the same, unweighted | 100, the key's function of `label-i` | the same |
//! | spymemcached | as libmemcached | `host:port` |
//! | EVCache | as libmemcached | `host/host:11211` |
//! | Dalli | 160 by weight, one from each SHA-1 of `label:i` | `host:port` |
//!
//! A label that a configuration names (`name: …`) takes the place of any of these.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::Function;
use super::hash::md5_words;
use crate::ids::Address;

const POINTS_PER_SERVER: f32 = 160.0;
const POINTS_PER_DIGEST: f32 = 4.0;
const POINTS_UNWEIGHTED: u32 = 100;
const DEFAULT_PORT: u16 = 11211;

/// Whose ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// libmemcached's weighted ketama, which is twemproxy's as well.
    Libmemcached,
    /// libmemcached's ketama without weights.
    Unweighted,
    /// spymemcached's.
    Spymemcached,
    /// EVCache's.
    Evcache,
    /// Dalli's.
    Dalli,
}

impl Dialect {
    /// What it calls a server at this address. A unix socket is its path.
    pub fn label(self, address: &Address) -> String {
        let (host, port) = match address {
            Address::Tcp { host, port } => (host, *port),
            Address::Unix(path) => return path.display().to_string(),
        };
        match self {
            Self::Libmemcached | Self::Unweighted if port == DEFAULT_PORT => host.clone(),
            Self::Libmemcached | Self::Unweighted | Self::Spymemcached | Self::Dalli => {
                format!("{host}:{port}")
            }
            // Whatever its port, as there.
            Self::Evcache => format!("{host}/{host}:{DEFAULT_PORT}"),
        }
    }
}

/// A server as a ring knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingServer {
    /// What a look-up answers.
    pub slot: usize,
    /// What its points are hashed from.
    pub label: String,
    /// Its share of the points; 0 gets none.
    pub weight: u32,
}

/// A continuum. Built once a set of servers, then only looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// By point, each with its server's slot.
    points: Vec<(u32, usize)>,
    /// A key belongs to the last point up to its hash, not to the first from there on.
    owns_upwards: bool,
}

impl Ring {
    /// Lays the points of all servers. Without servers, or with weights that are all 0, it is empty.
    pub fn new(dialect: Dialect, function: Function, servers: &[RingServer]) -> Self {
        let total: u32 = servers.iter().fold(0, |sum, server| sum.saturating_add(server.weight));
        let mut points = Vec::new();
        for server in servers.iter().filter(|server| server.weight > 0) {
            let share = Share { weight: server.weight, total, servers };
            lay(dialect, function, server, share, &mut points);
        }
        // Stable: of two servers with the same point the first in the list comes first.
        points.sort_by_key(|&(point, _)| point);
        if matches!(dialect, Dialect::Spymemcached | Dialect::Evcache) {
            // Its points are the keys of a map: who comes later takes them over.
            points.reverse();
            points.dedup_by_key(|(point, _)| *point);
            points.reverse();
        }
        Self { points, owns_upwards: dialect == Dialect::Dalli }
    }

    /// The server that owns a key with this hash.
    pub fn owner(&self, hash: u32) -> Option<usize> {
        let len = self.points.len();
        let index = self.start(hash);
        self.points.get(if index == len { 0 } else { index }).map(|&(_, slot)| slot)
    }

    /// Servers in the order in which they would inherit the key; the same one may come again.
    pub fn owners(&self, hash: u32) -> impl Iterator<Item = usize> + '_ {
        let start = self.start(hash);
        self.points.iter().cycle().skip(start).take(self.points.len()).map(|&(_, slot)| slot)
    }

    /// The index of the owning point; the list's length means the first.
    fn start(&self, hash: u32) -> usize {
        if self.owns_upwards {
            let after = self.points.partition_point(|&(point, _)| point <= hash);
            return after.checked_sub(1).unwrap_or(self.points.len().saturating_sub(1));
        }
        self.points.partition_point(|&(point, _)| point < hash)
    }
}

/// One server's part of the whole.
#[derive(Clone, Copy)]
struct Share<'a> {
    weight: u32,
    total: u32,
    servers: &'a [RingServer],
}

fn lay(
    dialect: Dialect,
    function: Function,
    server: &RingServer,
    share: Share<'_>,
    to: &mut Vec<(u32, usize)>,
) {
    let RingServer { label, slot, .. } = server;
    match dialect {
        Dialect::Libmemcached | Dialect::Spymemcached | Dialect::Evcache => {
            for number in 0..digests(dialect, share) {
                let words = md5_words(format!("{label}-{number}").as_bytes());
                to.extend(words.map(|word| (word, *slot)));
            }
        }
        Dialect::Unweighted => {
            for number in 0..POINTS_UNWEIGHTED {
                let hash = function.hash(format!("{label}-{number}").as_bytes());
                to.push(((hash & 0xffff_ffff) as u32, *slot));
            }
        }
        Dialect::Dalli => {
            for number in 0..entries(share) {
                let text = format!("{label}:{number}");
                let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
                if let Some(first) = digest.as_ref().first_chunk() {
                    to.push((u32::from_be_bytes(*first), *slot));
                }
            }
        }
    }
}

/// MD5s for one server. The arithmetic is single precision as in the originals, where
/// rounding decides whether a server gets 40 or 39.
fn digests(dialect: Dialect, share: Share<'_>) -> u32 {
    let Share { weight, total, servers } = share;
    let is_equal = servers.iter().all(|server| server.weight == weight);
    if is_equal && dialect != Dialect::Libmemcached {
        return 40;
    }
    let share = weight as f32 / total as f32;
    let exact = share * POINTS_PER_SERVER / POINTS_PER_DIGEST * servers.len() as f32;
    // A share is at most 1, so this is at most 40 times the servers; the originals, too, go
    // through double precision and back.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let digests = ((f64::from(exact) + 0.000_000_000_1) as f32).floor() as u32;
    digests
}

/// Dalli's points for one server, in whole numbers before the division.
fn entries(share: Share<'_>) -> u32 {
    let points = share.servers.len() as u64 * 160 * u64::from(share.weight);
    u32::try_from(points / u64::from(share.total.max(1))).unwrap_or(u32::MAX)
}
