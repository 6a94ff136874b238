//! Every distribution against the clients whose caches are to stay warm: `golden/*.json` has, for 200 keys and
//! several lists of servers, which server each client itself gave each key to (see `integration/golden/make.py`).

// A test may fail as it likes.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::path::Path;

use groove_common::balance::{Place, Placement};
use groove_common::config::Endpoint;
use groove_memcached::config::Hash;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    hash: Hash,
    endpoints: Vec<Endpoint>,
    /// By key; none if the client does not take that key.
    owners: Vec<Option<usize>>,
}

fn read<T: for<'de> Deserialize<'de>>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A character a byte.
fn keys() -> Vec<Vec<u8>> {
    let bytes = |key: &String| key.chars().map(|char| u8::try_from(char).unwrap()).collect();
    read::<Vec<String>>("keys.json").iter().map(bytes).collect()
}

fn owners(case: &Case, keys: &[Vec<u8>]) -> Vec<usize> {
    let place = |(slot, endpoint): (usize, &'_ Endpoint)| (slot, endpoint.clone());
    let known: Vec<_> = case.endpoints.iter().enumerate().map(place).collect();
    let places: Vec<_> = known
        .iter()
        .map(|(slot, endpoint)| Place {
            slot: *slot,
            address: &endpoint.address,
            name: endpoint.name.as_deref(),
            weight: endpoint.weight,
        })
        .collect();
    let placement = Placement::new(case.hash.rule(), &places);
    let hasher = case.hash.hasher();
    let owner = |key: &Vec<u8>| {
        let (part, hash) = hasher.hash(key);
        placement.owner(part, hash).unwrap()
    };
    keys.iter().map(owner).collect()
}

fn compare(client: &str, cases_min: usize) {
    let (keys, cases) = (keys(), read::<Vec<Case>>(&format!("{client}.json")));
    assert!(cases.len() >= cases_min, "{client} has {} cases", cases.len());
    let mut wrong = Vec::new();
    for case in &cases {
        assert_eq!(case.owners.len(), keys.len());
        let ours = owners(case, &keys);
        let pairs = case.owners.iter().zip(&ours);
        let differing = pairs.filter(|(theirs, ours)| theirs.is_some_and(|theirs| theirs != **ours)).count();
        if differing > 0 {
            let weights: Vec<_> = case.endpoints.iter().map(|endpoint| endpoint.weight).collect();
            wrong.push(format!("{:?} over {weights:?}: {differing} of 200 keys", case.hash));
        }
    }
    assert!(wrong.is_empty(), "{client}:\n{}", wrong.join("\n"));
}

#[test]
fn twemproxy() {
    compare("twemproxy", 18);
}

#[test]
fn libmemcached() {
    compare("libmemcached", 21);
}

#[test]
fn pymemcache() {
    compare("pymemcache", 2);
}

#[test]
fn python_memcached() {
    compare("python-memcached", 3);
}

#[test]
fn dalli() {
    compare("dalli", 3);
}

#[test]
fn spymemcached() {
    compare("spymemcached", 5);
}
