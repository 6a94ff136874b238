//! Which cluster a key belongs to, and where in it. Pure.

use groove_common::balance::Hasher;

/// Rules by prefix, and the cluster of everything else. Clusters are told by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Longest prefix first.
    rules: Vec<(Box<[u8]>, usize)>,
    default: usize,
    /// By cluster.
    hashers: Vec<Hasher>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'k> {
    /// The cluster's number.
    pub cluster: usize,
    /// The part of the key that decides over its server.
    pub part: &'k [u8],
    /// Its hash.
    pub hash: u64,
}

impl Table {
    /// A table of `(prefix, cluster)` rules in any order, and how each cluster hashes.
    pub fn new(
        rules: impl IntoIterator<Item = (Vec<u8>, usize)>,
        default: usize,
        hashers: Vec<Hasher>,
    ) -> Self {
        let mut rules: Vec<_> =
            rules.into_iter().map(|(prefix, cluster)| (prefix.into_boxed_slice(), cluster)).collect();
        rules.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self { rules, default, hashers }
    }

    /// The place of a key: the longest prefix that fits decides.
    pub fn route<'k>(&self, key: &'k [u8]) -> Route<'k> {
        self.route_renamed(key, key)
    }

    /// The place of a tenant's key: the rules are about what its client calls it, the place in the cluster is
    /// that of what the servers call it.
    pub fn route_renamed<'k>(&self, own: &[u8], key: &'k [u8]) -> Route<'k> {
        let cluster = self
            .rules
            .iter()
            .find(|(prefix, _)| own.starts_with(prefix))
            .map_or(self.default, |(_, cluster)| *cluster);
        self.route_in(cluster, key)
    }

    /// The place of a key in a cluster that is known to be its own.
    pub fn route_in<'k>(&self, cluster: usize, key: &'k [u8]) -> Route<'k> {
        let hasher = self.hashers.get(cluster).copied().unwrap_or_default();
        let (part, hash) = hasher.hash(key);
        Route { cluster, part, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let table = Table::new([(b"user:".to_vec(), 1), (b"user:vip:".to_vec(), 2)], 0, Vec::new());
        let cluster = |key: &[u8]| table.route(key).cluster;
        assert_eq!(
            (cluster(b"x"), cluster(b"user:7"), cluster(b"user:vip:7"), cluster(b"user")),
            (0, 1, 2, 0)
        );
    }

    #[test]
    fn the_hash_is_a_promise() {
        // Keys live where this hash put them: another value here means cold caches everywhere.
        let table = Table::new([], 0, vec![Hasher::default()]);
        assert_eq!(table.route(b"").hash, 0x2d06_8005_38d3_94c2);
        assert_eq!(table.route(b"foo").hash, xxhash_rust::xxh3::xxh3_64(b"foo"));
    }
}
