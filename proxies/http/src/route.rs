//! From a request's host, path and method to what serves it. Pure: what is found is the caller's.

use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The longest name DNS has (RFC 1035); a longer host matches nothing.
const HOST_BYTES_MAX: usize = 253;

/// Patterns of hosts and whom they belong to, whatever their case.
#[derive(Debug)]
pub struct Hosts<A>(HashMap<String, A, RandomState>);

impl<A> Default for Hosts<A> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<A> Hosts<A> {
    /// Adds `shop.example.com`, `*.example.com` or `*`. Gives it back if another stands there, which then stays.
    pub fn insert(&mut self, pattern: &str, value: A) -> Result<(), A> {
        match self.0.entry(pattern.to_ascii_lowercase()) {
            Entry::Occupied(_) => Err(value),
            Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
        }
    }

    /// What was inserted with exactly this pattern.
    pub fn owner(&self, pattern: &str) -> Option<&A> {
        self.0.get(&pattern.to_ascii_lowercase())
    }
}

/// A host as it is looked up: in small letters, without port and final dot.
#[derive(Debug)]
pub struct HostName {
    bytes: [u8; HOST_BYTES_MAX],
    len: usize,
}

impl HostName {
    /// From what Host says; `None` is longer than any name.
    pub fn of(host: &[u8]) -> Option<Self> {
        let name = without_port(host);
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut bytes = [0; HOST_BYTES_MAX];
        let lower = bytes.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Some(Self { bytes, len: name.len() })
    }

    /// The name itself.
    pub fn exact(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// What could stand behind a star, dot included, the longest first.
    pub fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        let name = self.exact();
        memchr::memchr_iter(b'.', name).filter(|dot| *dot > 0).filter_map(|dot| name.get(dot..))
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(colon) if host.last() != Some(&b']') => host.get(..colon).unwrap_or_default(),
        _ => host,
    }
}

/// A path as a route matches it: `/login` exactly, or `/api/*` for `/api` and all below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// This path and no other.
    Exact(Box<[u8]>),
    /// This path, and every path that goes on after it with a slash. Kept without the final slash.
    Prefix(Box<[u8]>),
}

impl PathMatch {
    /// Reads `/login`, `/api/*` or `/*`.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with('/') {
            return Err("a path starts with \"/\"");
        }
        if text.contains(['?', '#', ' ']) {
            return Err("a path has no query, no fragment and no space");
        }
        match text.strip_suffix("/*") {
            Some(prefix) if prefix.contains('*') => Err("\"*\" stands only at the end, as in \"/api/*\""),
            Some(prefix) => Ok(Self::Prefix(prefix.as_bytes().into())),
            None if text.contains('*') => Err("\"*\" stands only at the end after a slash, as in \"/api/*\""),
            None => Ok(Self::Exact(text.as_bytes().into())),
        }
    }

    fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => **exact == *path,
            Self::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/')),
        }
    }

    /// Exact before prefix, long before short.
    fn precedence(&self) -> (bool, usize) {
        match self {
            Self::Exact(path) => (true, path.len()),
            Self::Prefix(path) => (false, path.len()),
        }
    }
}

/// The routes of one app.
#[derive(Debug)]
pub struct Paths<T> {
    rules: Vec<Rule<T>>,
    otherwise: T,
}

#[derive(Debug)]
struct Rule<T> {
    path: PathMatch,
    /// Any, if empty.
    methods: Vec<Box<[u8]>>,
    target: T,
}

impl<T> Paths<T> {
    /// No rules: all goes to `otherwise`.
    pub fn new(otherwise: T) -> Self {
        Self { rules: Vec::new(), otherwise }
    }

    /// Adds a rule. Among rules that match, an exact path wins over a prefix, a longer over a shorter, one that names
    /// methods over one that does not, and then the one that was added first.
    pub fn insert(&mut self, path: PathMatch, methods: Vec<Box<[u8]>>, target: T) {
        let weight = |rule: &Rule<T>| (rule.path.precedence(), !rule.methods.is_empty());
        let rule = Rule { path, methods, target };
        let at = self.rules.partition_point(|other| weight(other) >= weight(&rule));
        self.rules.insert(at, rule);
    }

    /// What serves a request.
    pub fn find(&self, method: &[u8], path: &[u8]) -> &T {
        self.rules
            .iter()
            .find(|rule| {
                rule.path.matches(path)
                    && (rule.methods.is_empty() || rule.methods.iter().any(|allowed| **allowed == *method))
            })
            .map_or(&self.otherwise, |rule| &rule.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_twice_is_refused() {
        let mut hosts = Hosts::default();
        for pattern in ["a.example", "*.b.example", "*"] {
            hosts.insert(pattern, pattern).expect("no pattern twice");
        }
        for pattern in ["A.example", "*.B.example", "*"] {
            assert_eq!(hosts.insert(pattern, "again"), Err("again"), "{pattern}");
        }
        assert_eq!(hosts.owner("a.EXAMPLE"), Some(&"a.example"));
    }

    #[test]
    fn the_most_exact_path_wins() {
        let mut paths = Paths::new("default");
        let rule = |text: &str| PathMatch::parse(text).expect("a valid path");
        paths.insert(rule("/api/*"), vec![], "api");
        paths.insert(rule("/api/*"), vec![b"POST".as_slice().into()], "api writes");
        paths.insert(rule("/api/v2/*"), vec![], "v2");
        paths.insert(rule("/api/v2"), vec![], "v2 itself");
        paths.insert(rule("/only"), vec![b"PUT".as_slice().into()], "put");
        for (method, path, want) in [
            ("GET", "/", "default"),
            ("GET", "/api", "api"),
            ("GET", "/api/", "api"),
            ("POST", "/api/x", "api writes"),
            ("GET", "/apix", "default"),
            ("GET", "/api/v2", "v2 itself"),
            ("POST", "/api/v2/x", "v2"),
            ("GET", "/only", "default"),
            ("PUT", "/only", "put"),
            ("PUT", "/only/", "default"),
        ] {
            assert_eq!(*paths.find(method.as_bytes(), path.as_bytes()), want, "{method} {path}");
        }
    }

    #[test]
    fn a_path_that_can_match_nothing_is_refused() {
        for text in ["", "api", "/a*", "/*/b", "/a?b", "/a/*/*", "*"] {
            assert!(PathMatch::parse(text).is_err(), "{text}");
        }
        assert_eq!(PathMatch::parse("/*"), Ok(PathMatch::Prefix((*b"").into())));
    }
}
