//! Apps by their hosts, for all workers: many small maps, each swapped whole when one of its hosts changes.

use crate::route::HostName;
use crate::table::App;
use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::fast::RandomState;
use groove_common::net::{ClientAuthorities, ClientAuthority};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Maps that the hosts are spread over. With 50,000 hosts each holds about fifty: that is what one change copies.
const PARTS: usize = 1024;

/// Hosts as they are looked up: a name, or what follows the star, dot included (`.example.com`).
type Part<A> = HashMap<Arc<[u8]>, Arc<A>, RandomState>;

/// Where a host leads from now on, if anywhere.
type Turn<A> = (Arc<[u8]>, Option<Arc<A>>);

/// Apps by host, exact and by suffix.
#[derive(Debug)]
pub struct Directory<A = App> {
    parts: Box<[ArcSwap<Part<A>>]>,
    any: ArcSwapOption<A>,
    /// How many suffixes there are: with none they are not looked for.
    suffixes: AtomicUsize,
    /// Grows when hosts come or go, so that what was found by another way than by its name is looked for again.
    generation: AtomicU64,
    hasher: RandomState,
}

/// An app that answers for a host.
#[derive(Debug)]
pub struct Found<A = App> {
    /// The app.
    pub app: Arc<A>,
    /// It has this very name: whatever other hosts come or go, it stays the answer.
    pub is_exact: bool,
}

impl<A> Default for Directory<A> {
    fn default() -> Self {
        let empty = Arc::new(Part::<A>::default());
        Self {
            parts: (0..PARTS).map(|_| ArcSwap::from(Arc::clone(&empty))).collect(),
            any: ArcSwapOption::empty(),
            suffixes: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            hasher: RandomState::default(),
        }
    }
}

impl<A> Directory<A> {
    /// What serves a host: an exact name wins, then the longest suffix, then the star.
    pub fn find(&self, host: Option<&HostName>) -> Option<Found<A>> {
        let by_name = host.and_then(|host| {
            // `.example.com` is no name, but how a suffix is kept.
            let exact = Some(host.exact()).filter(|name| name.first() != Some(&b'.'));
            if let Some(app) = exact.and_then(|name| self.get(name)) {
                return Some(Found { app, is_exact: true });
            }
            if self.suffixes.load(Ordering::Acquire) == 0 {
                return None;
            }
            let app = host.suffixes().find_map(|suffix| self.get(suffix))?;
            Some(Found { app, is_exact: false })
        });
        by_name.or_else(|| Some(Found { app: self.any.load_full()?, is_exact: false }))
    }

    /// The app that has exactly this pattern among its hosts.
    pub fn owner(&self, pattern: &str) -> Option<Arc<A>> {
        match key(pattern) {
            Some(key) => self.get(&key),
            None => self.any.load_full(),
        }
    }

    /// Grows when hosts come or go.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Lets each of these patterns lead to another app, or to none. One change at a time.
    pub fn apply(&self, changes: HashMap<String, Option<Arc<A>>>) {
        let mut by_part: HashMap<usize, Vec<Turn<A>>> = HashMap::new();
        let mut hosts_changed = false;
        for (pattern, app) in changes {
            match key(&pattern) {
                Some(key) => by_part.entry(self.part(&key)).or_default().push((key, app)),
                None => hosts_changed |= self.any.swap(app.clone()).is_some() != app.is_some(),
            }
        }
        for (part, changes) in by_part {
            let Some(part) = self.parts.get(part) else { continue };
            let mut map = Part::<A>::clone(&part.load());
            for (key, app) in changes {
                let is_suffix = key.first() == Some(&b'.');
                let (before, after) = match app {
                    // The key that is there stays: it is shared with the copies that exchanges may still look at.
                    Some(app) => (map.insert(key, app).is_some(), true),
                    None => (map.remove(&key).is_some(), false),
                };
                hosts_changed |= before != after;
                if is_suffix && before != after {
                    let count = if after { 1 } else { usize::MAX };
                    self.suffixes.fetch_add(count, Ordering::AcqRel);
                }
            }
            part.store(Arc::new(map));
        }
        if hosts_changed {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn get(&self, key: &[u8]) -> Option<Arc<A>> {
        self.parts.get(self.part(key))?.load().get(key).map(Arc::clone)
    }

    fn part(&self, key: &[u8]) -> usize {
        // The maps use the low bits of a hash of their own.
        usize::try_from(self.hasher.hash_one(key) % PARTS as u64).unwrap_or_default()
    }
}

/// Which apps have authorities for clients' certificates of their own, for handshakes.
pub(crate) struct ByName {
    pub(crate) directory: Arc<Directory>,
    pub(crate) count: Arc<AtomicUsize>,
}

impl ClientAuthorities for ByName {
    fn are_there_any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    fn find(&self, name: &str) -> Option<Arc<ClientAuthority>> {
        let app = self.directory.find(HostName::of(name.as_bytes()).as_ref())?.app;
        app.client_authority().cloned()
    }
}

/// How a pattern is kept; `None` is the star alone.
fn key(pattern: &str) -> Option<Arc<[u8]>> {
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix('*') {
        Some("") => None,
        Some(suffix) => Some(suffix.as_bytes().into()),
        None => Some(pattern.as_bytes().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(directory: &Directory<&'static str>, pattern: &str, to: Option<&'static str>) {
        directory.apply(HashMap::from([(pattern.to_owned(), to.map(Arc::new))]));
    }

    fn directory(patterns: &[&'static str]) -> Directory<&'static str> {
        let directory = Directory::default();
        patterns.iter().for_each(|pattern| change(&directory, pattern, Some(pattern)));
        directory
    }

    fn find(directory: &Directory<&'static str>, host: &[u8]) -> Option<(&'static str, bool)> {
        directory.find(HostName::of(host).as_ref()).map(|found| (*found.app, found.is_exact))
    }

    #[test]
    fn an_exact_host_wins_then_the_longest_suffix_then_the_star() {
        let directory = directory(&["*", "*.example.com", "*.eu.example.com", "shop.example.com", "[::1]"]);
        for (host, want) in [
            ("shop.example.com", ("shop.example.com", true)),
            ("SHOP.Example.Com:8080", ("shop.example.com", true)),
            ("shop.example.com.", ("shop.example.com", true)),
            ("a.example.com", ("*.example.com", false)),
            ("a.b.example.com", ("*.example.com", false)),
            ("a.eu.example.com", ("*.eu.example.com", false)),
            ("example.com", ("*", false)),
            ("xexample.com", ("*", false)),
            (".example.com", ("*", false)),
            ("[::1]", ("[::1]", true)),
            ("[::1]:80", ("[::1]", true)),
            ("", ("*", false)),
        ] {
            assert_eq!(find(&directory, host.as_bytes()), Some(want), "{host}");
        }
        assert_eq!(find(&directory, &[b'a'; 400]), Some(("*", false)));
    }

    #[test]
    fn an_unknown_host_is_none() {
        let directory = directory(&["shop.example.com", "*.example.org"]);
        for host in ["", "example.com", "example.org", ".example.orgx", "shop.example.com.evil.net"] {
            assert_eq!(find(&directory, host.as_bytes()), None, "{host}");
        }
    }

    #[test]
    fn the_generation_tells_of_hosts_that_come_and_go_and_of_nothing_else() {
        let directory = directory(&["*.example.com", "*"]);
        let before = directory.generation();
        change(&directory, "*.example.com", Some("changed"));
        change(&directory, "*", Some("changed"));
        change(&directory, "gone.test", None);
        assert_eq!(directory.generation(), before);
        assert_eq!(find(&directory, b"a.example.com"), Some(("changed", false)));
        for (pattern, to) in [("a.example.com", Some("new")), ("*.example.com", None), ("*", None)] {
            let before = directory.generation();
            change(&directory, pattern, to);
            assert_eq!(directory.generation(), before + 1, "{pattern}");
        }
        assert_eq!(find(&directory, b"a.example.com"), Some(("new", true)));
        assert_eq!(find(&directory, b"b.example.com"), None);
        assert_eq!(directory.suffixes.load(Ordering::Acquire), 0);
    }
}
