//! Paths that take the place of others.

/// What a path becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This, whatever it was.
    Full(Box<[u8]>),
    /// Its first so many bytes are replaced.
    Prefix(usize, Box<[u8]>),
}

impl Place {
    /// From a rule's words: the whole path, or what takes the place of the `matched` prefix.
    pub fn new(path: Option<&str>, prefix: Option<&str>, matched: usize) -> Option<Self> {
        match (path, prefix) {
            (Some(path), _) => Some(Self::Full(path.as_bytes().into())),
            (None, Some(prefix)) => {
                // `/` for `/api` makes `/x` of `/api/x`, not `//x`.
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                Some(Self::Prefix(matched, prefix.as_bytes().into()))
            }
            (None, None) => None,
        }
    }

    /// What a target becomes; its query stays.
    pub fn of(&self, target: &[u8]) -> Vec<u8> {
        let end = memchr::memchr(b'?', target).unwrap_or(target.len());
        let (path, query) = target.split_at_checked(end).unwrap_or_default();
        let mut placed = match self {
            Self::Full(full) => full.to_vec(),
            Self::Prefix(matched, prefix) => [prefix, path.get(*matched..).unwrap_or_default()].concat(),
        };
        if placed.is_empty() {
            placed.push(b'/');
        }
        placed.extend_from_slice(query);
        placed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_whole_paths_are_replaced_and_queries_stay() {
        let prefix = |to| Place::new(None, Some(to), "/api".len()).expect("a place");
        for (to, target, want) in [
            ("/v2", "/api/x?y=/api", "/v2/x?y=/api"),
            ("/v2", "/api", "/v2"),
            ("/v2/", "/api/", "/v2/"),
            ("/", "/api/x", "/x"),
            ("/", "/api", "/"),
            ("/", "/api?q", "/?q"),
        ] {
            let placed = prefix(to).of(target.as_bytes());
            assert_eq!(String::from_utf8_lossy(&placed), want, "{to} {target}");
        }
        let full = Place::new(Some("/one"), None, 0).expect("a place");
        assert_eq!(full.of(b"/a/b?c"), b"/one?c");
        assert_eq!(Place::new(None, None, 3), None);
    }
}
