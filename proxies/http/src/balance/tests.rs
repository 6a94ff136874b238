//! Where requests belong, and who gets them.

use super::*;
use crate::config::{self, Config};
use crate::wire::{Edits, Fields, Limits, RequestHead};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use groove_common::balance::Dice;
use groove_common::config::check_text;
use groove_common::discovery::{Cluster, ConnectProber, Exchange, Snapshot};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// The servers of an app with these lines.
fn servers(more: &str) -> config::Cluster {
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\napps:\n  a:\n    hosts: [a.test]\n    endpoints: [127.0.0.1:9]\n    \
         health: {{probe: null}}\n    {more}\n"
    );
    let config: Config = check_text("http.yaml", &text).expect("a good configuration");
    config.apps["a"].servers()
}

fn plan(more: &str) -> Arc<Plan> {
    Arc::new(Plan::of(&servers(more)).expect("a plan").expect("there is something to say"))
}

/// A cluster of the endpoints that are written so in YAML.
fn cluster(endpoints: &str) -> Arc<Cluster> {
    let mut servers = servers("balance: p2c");
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\napps:\n  a:\n    hosts: [a.test]\n    endpoints: [{endpoints}]\n"
    );
    let config: Config = check_text("http.yaml", &text).expect("good endpoints");
    servers.endpoints = config.apps["a"].endpoints.clone();
    let prober = Arc::new(ConnectProber);
    Cluster::start("a", &servers.endpoints, &servers.health, prober, &Handle::current()).expect("a cluster")
}

fn numbered(count: usize) -> String {
    (0..count).map(|number| format!("127.0.0.1:{}", 1000 + number)).collect::<Vec<_>>().join(", ")
}

/// Chooses, and says which port; the exchange goes on.
fn take(
    chooser: &mut Chooser,
    plan: &Arc<Plan>,
    snapshot: &Snapshot,
    key: Key,
    dice: &mut Dice,
) -> Option<(String, bool, Exchange)> {
    let ask = Ask { key, failed: &[] };
    let choice = chooser.choose(plan, snapshot, ask, Duration::ZERO, dice)?;
    let address = choice.member.endpoint.address.to_string();
    Some((address, choice.is_new_home, choice.member.endpoint.begin()))
}

fn key_of(by: &str, head: &str) -> Key {
    let head = head.replace('\n', "\r\n");
    let mut fields = Fields::default();
    let head = RequestHead::parse(head.as_bytes(), &Limits::default(), &mut fields).expect("a good head");
    plan(by).key(&head, b"192.0.2.1", None)
}

#[test]
fn the_key_is_found_wherever_the_configuration_says() {
    let token = format!("x.{}.y", URL_SAFE_NO_PAD.encode(r#"{"sub":"42","n":7}"#));
    let head = format!(
        "GET /games/42/moves?a=1&room=42 HTTP/1.1\nHost: a.test\nX-Game: 42\nCookie: b=1; g=42\nCookie: c=\"42\"\n\
         Authorization: bearer {token}\n\n"
    );
    let want = key_of("affinity: {by: {header: x-game}}", &head);
    assert_ne!(want, Key::None);
    for by in [
        "affinity: {by: {cookie: g}}",
        "affinity: {by: {cookie: c}}",
        "affinity: {by: {query: room}}",
        "affinity: {by: {segment: 2}}",
        "affinity: {by: {path: \"^/games/([0-9]+)/\"}}",
        "affinity: {by: {path: \"[0-9]+\"}}",
        "affinity: {by: {jwt_claim: sub}}",
        "balance: {hash: {header: X-Game}}",
        "balance: {hash: {cookie: g}}",
        "balance: {hash: {query: room}}",
    ] {
        assert_eq!(key_of(by, &head), want, "{by}");
    }
    for by in ["balance: {hash: client_ip}", "balance: {hash: path}", "affinity: {by: {jwt_claim: n}}"] {
        assert!(!matches!(key_of(by, &head), Key::None), "{by}");
    }
}

#[test]
fn who_does_not_say_belongs_nowhere() {
    let head = "GET /games// HTTP/1.1\nHost: a.test\nX-Game: \nCookie: gg=1\nAuthorization: Basic x.y.z\n\n";
    for by in [
        "{header: X-Game}",
        "{cookie: g}",
        "{query: room}",
        "{segment: 2}",
        "{segment: 9}",
        "{path: \"^/rooms/(.*)\"}",
        "{jwt_claim: sub}",
        "{cookie: {name: g, generate: true, secret: 0123456789abcdef}}",
    ] {
        assert_eq!(key_of(&format!("affinity: {{by: {by}}}"), head), Key::None, "{by}");
    }
}

#[tokio::test]
async fn no_more_than_its_share_moves_when_a_server_comes_or_goes() {
    const KEYS: u64 = 20_000;
    for sticky in ["affinity: {by: {header: X}}", "balance: {hash: {header: X}}"] {
        let plan = plan(sticky);
        let (twenty, more) = (cluster(&numbered(20)), cluster(&numbered(21)));
        let (mut first, mut second, mut dice) = (Chooser::default(), Chooser::default(), Dice::seeded(1));
        let mut moved = 0;
        for key in 0..KEYS {
            let key = Key::Hash(xxhash_rust::xxh3::xxh3_64(&key.to_le_bytes()));
            let (before, ..) = take(&mut first, &plan, &twenty.snapshot(), key, &mut dice).expect("one");
            let (after, ..) = take(&mut second, &plan, &more.snapshot(), key, &mut dice).expect("one");
            if before != after {
                assert_eq!(after, "127.0.0.1:1020", "only the new one takes any");
                moved += 1;
            }
        }
        let share = f64::from(moved) / KEYS as f64;
        assert!((share - 1.0 / 21.0).abs() < 0.01, "{share}");
    }
}

#[tokio::test]
async fn a_soft_session_goes_elsewhere_while_its_server_is_full_and_comes_back() {
    let plan = plan("affinity: {by: {header: X}}\n    concurrency: {hard: 1}");
    let cluster = cluster(&numbered(3));
    let (snapshot, mut chooser, mut dice) = (cluster.snapshot(), Chooser::default(), Dice::seeded(1));
    let key = Key::Hash(42);
    let (home, _, first) = take(&mut chooser, &plan, &snapshot, key, &mut dice).expect("one");
    let (other, _, _second) = take(&mut chooser, &plan, &snapshot, key, &mut dice).expect("another");
    assert_ne!(home, other);
    drop(first);
    assert_eq!(take(&mut chooser, &plan, &snapshot, key, &mut dice).expect("one").0, home);
}

#[tokio::test]
async fn a_strict_session_gets_its_server_or_none() {
    let plan = plan("affinity: {by: {header: X}, mode: strict}\n    concurrency: {hard: 1}");
    let cluster = cluster(&numbered(3));
    let (snapshot, mut chooser, mut dice) = (cluster.snapshot(), Chooser::default(), Dice::seeded(1));
    let key = Key::Hash(42);
    let held = take(&mut chooser, &plan, &snapshot, key, &mut dice).expect("one");
    assert!(take(&mut chooser, &plan, &snapshot, key, &mut dice).is_none());
    assert!(take(&mut chooser, &plan, &snapshot, Key::None, &mut dice).is_some(), "others are free");
    drop(held);
    assert!(take(&mut chooser, &plan, &snapshot, key, &mut dice).is_some());
}

#[tokio::test]
async fn a_server_that_drains_keeps_its_sessions_and_gets_no_others() {
    let plan = plan(
        "affinity: {by: {cookie: {name: home, generate: true, secret: 0123456789abcdef}}, mode: strict}",
    );
    let draining = "127.0.0.1:1000, {address: 127.0.0.1:1001, metadata: {draining: \"true\"}}";
    let cluster = cluster(draining);
    let (snapshot, mut chooser, mut dice) = (cluster.snapshot(), Chooser::default(), Dice::seeded(1));
    for _ in 0..50 {
        let (address, is_new, _) = take(&mut chooser, &plan, &snapshot, Key::None, &mut dice).expect("one");
        assert_eq!((address.as_str(), is_new), ("127.0.0.1:1000", true));
    }
    let named = Key::Named(plan.token("127.0.0.1:1001").expect("it names endpoints"));
    let (address, is_new, _) = take(&mut chooser, &plan, &snapshot, named, &mut dice).expect("one");
    assert_eq!((address.as_str(), is_new), ("127.0.0.1:1001", false));
    // Of a server that is gone, or made up by the client: it begins anew.
    let (_, is_new, _) = take(&mut chooser, &plan, &snapshot, Key::Named(7), &mut dice).expect("one");
    assert!(is_new);
    // Without sessions there is nothing to keep.
    let plain = super::tests::plan("balance: {hash: {header: X}}");
    for key in 0..50 {
        let (address, ..) =
            take(&mut Chooser::default(), &plain, &snapshot, Key::Hash(key), &mut dice).expect("one");
        assert_eq!(address, "127.0.0.1:1000");
    }
}

#[test]
fn the_cookie_tells_nothing_without_the_secret() {
    let with = |secret: &str| {
        plan(&format!("affinity: {{by: {{cookie: {{name: home, generate: true, secret: {secret}}}}}}}"))
    };
    let (one, two) = (with("0123456789abcdef"), with("0123456789abcdeg"));
    assert_ne!(one.token("10.0.0.1:80"), two.token("10.0.0.1:80"));
    assert_eq!(one.token("10.0.0.1:80"), with("0123456789abcdef").token("10.0.0.1:80"));
    let edits = one.naming("10.0.0.1:80", &Edits::default(), true).expect("a cookie");
    let line = String::from_utf8_lossy(edits.lines()).into_owned();
    assert!(
        line.starts_with("Set-Cookie: home=")
            && line.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure\r\n")
    );
    assert!(!line.contains("10.0.0.1"), "{line}");
}

#[tokio::test]
async fn the_soft_bound_gives_way_only_when_all_are_over_it() {
    let plan = plan("balance: round_robin\n    concurrency: {soft: 2, hard: 3}");
    let cluster = cluster("{address: 127.0.0.1:1, weight: 100}, 127.0.0.1:2");
    let (snapshot, mut chooser, mut dice) = (cluster.snapshot(), Chooser::default(), Dice::seeded(1));
    let mut held = Vec::new();
    while let Some((address, _, exchange)) = take(&mut chooser, &plan, &snapshot, Key::None, &mut dice) {
        held.push((address, exchange));
    }
    let order: Vec<_> = held.iter().map(|(address, _)| address.as_str()).collect();
    // However much heavier the first is, it gets a third only once the other has two.
    assert_eq!(order.len(), 6, "{order:?}");
    assert_eq!(order[..4].iter().filter(|address| **address == "127.0.0.1:1").count(), 2, "{order:?}");
}

#[tokio::test]
async fn each_policy_gives_each_server_its_share() {
    for balance in ["round_robin", "p2c", "peak_ewma", "{hash: {header: X}}"] {
        let plan = plan(&format!("balance: {balance}"));
        let cluster = cluster("{address: 127.0.0.1:1, weight: 3}, 127.0.0.1:2");
        let (snapshot, mut chooser, mut dice) = (cluster.snapshot(), Chooser::default(), Dice::seeded(1));
        let (mut counts, mut held) = (HashMap::<String, u32>::new(), Vec::new());
        for number in 0..4000_u64 {
            let key = match balance {
                "{hash: {header: X}}" => Key::Hash(xxhash_rust::xxh3::xxh3_64(&number.to_le_bytes())),
                _ => Key::None,
            };
            let (address, _, exchange) = take(&mut chooser, &plan, &snapshot, key, &mut dice).expect("one");
            *counts.entry(address).or_default() += 1;
            // What is under way decides, but for turns and hashes.
            held.push(exchange);
        }
        let share = f64::from(counts["127.0.0.1:1"]) / 4000.0;
        assert!((share - 0.75).abs() < 0.03, "{balance}: {counts:?}");
    }
}

#[tokio::test]
async fn turns_begin_anywhere() {
    let plan = plan("balance: round_robin");
    let cluster = cluster(&numbered(4));
    let (snapshot, mut dice) = (cluster.snapshot(), Dice::seeded(1));
    let mut counts = HashMap::<String, u32>::new();
    for _ in 0..400 {
        // As for an app that is seldom asked for: each time by a chooser that is new.
        let (address, ..) =
            take(&mut Chooser::default(), &plan, &snapshot, Key::None, &mut dice).expect("one");
        *counts.entry(address).or_default() += 1;
    }
    assert!(counts.len() == 4 && counts.values().all(|count| (60..=140).contains(count)), "{counts:?}");
}

#[test]
fn the_defaults_leave_nothing_to_say() {
    assert!(Plan::of(&servers("balance: least_loaded")).expect("a plan").is_none());
    assert_eq!(plan("queue: {}").bounds, Bounds::NONE);
    assert!(plan("affinity: {by: {header: X}}").waits.is_none(), "a soft session waits for nobody");
    assert!(plan("affinity: {by: {header: X}, mode: strict}").waits.is_some());
}
