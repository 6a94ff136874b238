//! Ketama: a ring of MD5 points, compatible with libmemcached's weighted flavour and with
//! twemproxy, so that people can change to us without a cold cache.
//!
//! Both lay 160 points a server (in proportion to weight), four from each MD5 of
//! `label-i`; they differ in the label, and usually in the hash of the key.

use super::hash::md5_words;

const POINTS_PER_SERVER: f32 = 160.0;
const POINTS_PER_DIGEST: f32 = 4.0;
const DEFAULT_PORT: u16 = 11211;

/// A server as the ring knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KetamaServer {
    label: String,
    weight: u32,
}

impl KetamaServer {
    /// As libmemcached labels it: `host` on port 11211, else `host:port`. Weight 0 counts as 1 there.
    pub fn libmemcached(host: &str, port: u16, weight: u32) -> Self {
        let label = if port == DEFAULT_PORT { host.to_owned() } else { format!("{host}:{port}") };
        Self { label, weight: weight.max(1) }
    }

    /// As twemproxy labels it: by the name configured. (A server without a name is called there
    /// by its address as [`KetamaServer::libmemcached`] would write it.)
    pub fn twemproxy(name: &str, weight: u32) -> Self {
        Self { label: name.to_owned(), weight }
    }
}

/// A ketama continuum. Built once a set of servers, then only looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ring {
    /// By point; the index is that of the server in the list given.
    points: Vec<(u32, usize)>,
}

impl Ring {
    /// Lays the points of all servers. Without servers, or with weights that are all 0, it is empty.
    pub fn new(servers: &[KetamaServer]) -> Self {
        let total: u32 = servers.iter().fold(0, |sum, server| sum.saturating_add(server.weight));
        let mut points = Vec::new();
        for (index, server) in servers.iter().enumerate() {
            for digest in 0..digests(server.weight, total, servers.len()) {
                let words = md5_words(format!("{}-{digest}", server.label).as_bytes());
                points.extend(words.map(|word| (word, index)));
            }
        }
        points.sort_unstable();
        Self { points }
    }

    /// The server that owns a key with this hash: the one of the first point at or after it.
    pub fn owner(&self, hash: u32) -> Option<usize> {
        self.owners(hash).next()
    }

    /// Servers in the order in which they would inherit the key; the same one may come again.
    pub fn owners(&self, hash: u32) -> impl Iterator<Item = usize> + '_ {
        let start = self.points.partition_point(|&(point, _)| point < hash);
        self.points.iter().cycle().skip(start).take(self.points.len()).map(|&(_, index)| index)
    }
}

/// MD5s for one server. The arithmetic is single precision as in the originals, where
/// rounding decides whether a server gets 40 or 39.
fn digests(weight: u32, total: u32, servers: usize) -> u32 {
    if total == 0 {
        return 0;
    }
    let share = weight as f32 / total as f32;
    let exact = share * POINTS_PER_SERVER / POINTS_PER_DIGEST * servers as f32;
    // A share is at most 1, so this is at most 40 times the servers; the originals, too, go
    // through double precision and back.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let digests = ((f64::from(exact) + 0.000_000_000_1) as f32).floor() as u32;
    digests
}
