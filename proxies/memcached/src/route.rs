//! Which cluster a key belongs to, and where in it. Pure.

use xxhash_rust::xxh3::xxh3_64;

/// Rules by prefix, and the cluster of everything else. Clusters are told by their number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Longest prefix first.
    rules: Vec<(Box<[u8]>, usize)>,
    default: usize,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The cluster's number.
    pub cluster: usize,
    /// The key's hash, which picks the server (jump hash over the cluster's slots).
    pub hash: u64,
}

impl Table {
    /// A table of `(prefix, cluster)` rules in any order.
    pub fn new(rules: impl IntoIterator<Item = (Vec<u8>, usize)>, default: usize) -> Self {
        let mut rules: Vec<_> =
            rules.into_iter().map(|(prefix, cluster)| (prefix.into_boxed_slice(), cluster)).collect();
        rules.sort_by(|(a, _), (b, _)| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        Self { rules, default }
    }

    /// The place of a key: the longest prefix that fits decides.
    pub fn route(&self, key: &[u8]) -> Route {
        let cluster = self
            .rules
            .iter()
            .find(|(prefix, _)| key.starts_with(prefix))
            .map_or(self.default, |(_, cluster)| *cluster);
        Route { cluster, hash: xxh3_64(key) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let table = Table::new([(b"user:".to_vec(), 1), (b"user:vip:".to_vec(), 2)], 0);
        let cluster = |key: &[u8]| table.route(key).cluster;
        assert_eq!(
            (cluster(b"x"), cluster(b"user:7"), cluster(b"user:vip:7"), cluster(b"user")),
            (0, 1, 2, 0)
        );
    }

    #[test]
    fn the_hash_is_a_promise() {
        // Keys live where this hash put them: another value here means cold caches everywhere.
        let table = Table::new([], 0);
        assert_eq!(table.route(b"").hash, 0x2d06_8005_38d3_94c2);
        assert_eq!(table.route(b"foo").hash, xxh3_64(b"foo"));
    }
}
