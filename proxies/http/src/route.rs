//! From a request's host, path and method to what serves it. Pure: what is found is the caller's.

use crate::rules::Conditions;
use foldhash::fast::RandomState;
use regex::bytes::Regex;
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
    /// All of the path is what an expression describes.
    Regex(Pattern),
}

/// An expression. Two that are written alike are the same.
#[derive(Debug, Clone)]
pub struct Pattern(pub Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Pattern {}

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
            Self::Regex(pattern) => pattern.0.is_match(path),
            Self::Prefix(prefix) => path
                .strip_prefix(&**prefix)
                .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/')),
        }
    }

    /// How much of a path the match takes up that a rewrite may replace.
    pub fn prefix_len(&self) -> usize {
        match self {
            Self::Exact(path) | Self::Prefix(path) => path.len(),
            Self::Regex(_) => 0,
        }
    }

    /// Exact before expression before prefix, long before short.
    fn precedence(&self) -> (u8, usize) {
        match self {
            Self::Exact(path) => (2, path.len()),
            Self::Regex(pattern) => (1, pattern.0.as_str().len()),
            Self::Prefix(path) => (0, path.len()),
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
    conditions: Option<Box<Conditions>>,
    target: T,
}

impl<T> Rule<T> {
    fn weight(&self) -> impl Ord + use<T> {
        let conditions = self.conditions.as_ref().map(|conditions| conditions.precedence());
        (self.path.precedence(), !self.methods.is_empty(), conditions.unwrap_or_default())
    }
}

impl<T> Paths<T> {
    /// No rules: all goes to `otherwise`.
    pub fn new(otherwise: T) -> Self {
        Self { rules: Vec::new(), otherwise }
    }

    /// Adds a rule. Among rules that match, an exact path wins over an expression and that over a prefix, a longer over a
    /// shorter, one that names methods over one that does not, one with more headers over one with fewer, then query
    /// parameters, then cookies, and then the one that was added first (Gateway API's order, where it has one).
    pub fn insert(
        &mut self,
        path: PathMatch,
        methods: Vec<Box<[u8]>>,
        conditions: Option<Box<Conditions>>,
        target: T,
    ) {
        let rule = Rule { path, methods, conditions, target };
        let at = self.rules.partition_point(|other| other.weight() >= rule.weight());
        self.rules.insert(at, rule);
    }

    /// Where what no rule matches goes.
    pub fn otherwise(&self) -> &T {
        &self.otherwise
    }

    /// What serves a request. `hold` says whether it meets a rule's conditions.
    pub fn find(&self, method: &[u8], path: &[u8], hold: impl Fn(&Conditions) -> bool) -> &T {
        self.rules
            .iter()
            .find(|rule| {
                rule.path.matches(path)
                    && (rule.methods.is_empty() || rule.methods.iter().any(|allowed| **allowed == *method))
                    && rule.conditions.as_ref().is_none_or(|conditions| hold(conditions))
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
        paths.insert(rule("/api/*"), vec![], None, "api");
        paths.insert(rule("/api/*"), vec![b"POST".as_slice().into()], None, "api writes");
        paths.insert(rule("/api/v2/*"), vec![], None, "v2");
        paths.insert(rule("/api/v2"), vec![], None, "v2 itself");
        paths.insert(rule("/only"), vec![b"PUT".as_slice().into()], None, "put");
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
            assert_eq!(*paths.find(method.as_bytes(), path.as_bytes(), |_| true), want, "{method} {path}");
        }
    }

    #[test]
    fn a_path_that_can_match_nothing_is_refused() {
        for text in ["", "api", "/a*", "/*/b", "/a?b", "/a/*/*", "*"] {
            assert!(PathMatch::parse(text).is_err(), "{text}");
        }
        assert_eq!(PathMatch::parse("/*"), Ok(PathMatch::Prefix((*b"").into())));
    }

    #[test]
    fn the_order_is_gateway_apis() {
        let conditions = |text: &str| {
            let matches = serde_json::from_str(text).expect("a match");
            Conditions::new(&matches).expect("good expressions").map(Box::new)
        };
        let rule = |text: &str| PathMatch::parse(text).expect("a valid path");
        let regex =
            |text: &str| PathMatch::Regex(Pattern(crate::rules::pattern(text).expect("an expression")));
        let mut paths = Paths::new("default");
        let get = || vec![b"GET".as_slice().into()];
        paths.insert(rule("/a/*"), vec![], None, "prefix");
        paths.insert(rule("/a/*"), vec![], conditions(r#"{"cookies": {"a": "1"}}"#), "cookie");
        paths.insert(
            rule("/a/*"),
            vec![],
            conditions(r#"{"query": {"a": "1"}, "cookies": {"a": "1"}}"#),
            "query",
        );
        paths.insert(rule("/a/*"), vec![], conditions(r#"{"headers": {"a": "1"}}"#), "header");
        paths.insert(rule("/a/*"), vec![], conditions(r#"{"headers": {"a": "1", "b": "1"}}"#), "two headers");
        paths.insert(rule("/a/*"), get(), None, "method");
        paths.insert(rule("/a/b/c/d/e/f/g/h/i/j/*"), vec![], None, "longer");
        paths.insert(regex("/a/[a-z]+"), vec![], None, "expression");
        paths.insert(rule("/a/b"), vec![], None, "exact");
        paths.insert(rule("/a/b"), vec![], None, "exact again");
        let order: Vec<_> = paths.rules.iter().map(|rule| rule.target).collect();
        let want = [
            "exact",
            "exact again",
            "expression",
            "longer",
            "method",
            "two headers",
            "header",
            "query",
            "cookie",
            "prefix",
        ];
        assert_eq!(order, want);
        assert_eq!(*paths.find(b"GET", b"/a/c", |_| true), "expression");
        assert_eq!(*paths.find(b"GET", b"/a/1", |_| true), "method");
        assert_eq!(*paths.find(b"PUT", b"/a/1", |_| false), "prefix");
    }
}
