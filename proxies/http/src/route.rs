//! From a request's host, path and method to what serves it. Pure: what is found is the caller's.

use foldhash::fast::RandomState;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The longest name DNS has (RFC 1035); a longer host matches nothing.
const HOST_BYTES_MAX: usize = 253;

/// Hosts, exact and by suffix. Tens of thousands cost a look-up as much as ten do.
#[derive(Debug)]
pub struct Hosts<A> {
    exact: HashMap<Box<[u8]>, A, RandomState>,
    /// Keyed by what follows the star, dot included: `.example.com`.
    suffixes: HashMap<Box<[u8]>, A, RandomState>,
    any: Option<A>,
}

impl<A> Default for Hosts<A> {
    fn default() -> Self {
        Self { exact: HashMap::default(), suffixes: HashMap::default(), any: None }
    }
}

impl<A> Hosts<A> {
    /// Adds `shop.example.com`, `*.example.com` or `*`. Gives back what stood there before, which then stays.
    pub fn insert(&mut self, pattern: &str, value: A) -> Result<(), A> {
        let pattern = pattern.to_ascii_lowercase();
        if pattern == "*" {
            return match &self.any {
                Some(_) => Err(value),
                None => {
                    self.any = Some(value);
                    Ok(())
                }
            };
        }
        let (map, key) = match pattern.strip_prefix('*') {
            Some(suffix) => (&mut self.suffixes, suffix),
            None => (&mut self.exact, pattern.as_str()),
        };
        match map.entry(key.as_bytes().into()) {
            Entry::Occupied(_) => Err(value),
            Entry::Vacant(place) => {
                place.insert(value);
                Ok(())
            }
        }
    }

    /// What was inserted with exactly this pattern.
    pub fn owner(&self, pattern: &str) -> Option<&A> {
        let pattern = pattern.to_ascii_lowercase();
        match pattern.strip_prefix('*') {
            Some("") => self.any.as_ref(),
            Some(suffix) => self.suffixes.get(suffix.as_bytes()),
            None => self.exact.get(pattern.as_bytes()),
        }
    }

    /// What serves a host as Host writes it: case, port and a final dot aside; the longest suffix wins, and an exact
    /// name over all.
    pub fn find(&self, host: &[u8]) -> Option<&A> {
        let name = without_port(host);
        let name = name.strip_suffix(b".").unwrap_or(name);
        let mut lower = [0; HOST_BYTES_MAX];
        let Some(lower) = lower.get_mut(..name.len()) else { return self.any.as_ref() };
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        if let Some(found) = self.exact.get(&*lower) {
            return Some(found);
        }
        if !self.suffixes.is_empty() {
            for dot in memchr::memchr_iter(b'.', lower).filter(|dot| *dot > 0) {
                if let Some(found) = lower.get(dot..).and_then(|suffix| self.suffixes.get(suffix)) {
                    return Some(found);
                }
            }
        }
        self.any.as_ref()
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

    /// Whether a path as it came is one of these.
    pub fn matches(&self, path: &[u8]) -> bool {
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

    fn hosts(patterns: &[&'static str]) -> Hosts<&'static str> {
        let mut hosts = Hosts::default();
        for pattern in patterns {
            hosts.insert(pattern, *pattern).expect("no pattern twice");
        }
        hosts
    }

    #[test]
    fn an_exact_host_wins_then_the_longest_suffix_then_the_star() {
        let hosts = hosts(&["*", "*.example.com", "*.eu.example.com", "shop.example.com", "[::1]"]);
        for (host, want) in [
            ("shop.example.com", "shop.example.com"),
            ("SHOP.Example.Com:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("a.example.com", "*.example.com"),
            ("a.b.example.com", "*.example.com"),
            ("a.eu.example.com", "*.eu.example.com"),
            ("example.com", "*"),
            ("xexample.com", "*"),
            ("[::1]", "[::1]"),
            ("[::1]:80", "[::1]"),
            ("", "*"),
        ] {
            assert_eq!(hosts.find(host.as_bytes()), Some(&want), "{host}");
        }
        assert_eq!(hosts.find(&[b'a'; 400]), Some(&"*"));
    }

    #[test]
    fn an_unknown_host_is_none() {
        let hosts = hosts(&["shop.example.com", "*.example.org"]);
        for host in ["", "example.com", "example.org", ".example.orgx", "shop.example.com.evil.net"] {
            assert_eq!(hosts.find(host.as_bytes()), None, "{host}");
        }
    }

    #[test]
    fn a_pattern_twice_is_refused() {
        let mut hosts = hosts(&["a.example", "*.b.example", "*"]);
        for pattern in ["A.example", "*.B.example", "*"] {
            assert_eq!(hosts.insert(pattern, "again"), Err("again"), "{pattern}");
        }
        assert_eq!(hosts.find(b"a.example"), Some(&"a.example"));
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
