//! What is copied, and what is dropped and why.

use super::*;
use crate::apps::Roster;
use crate::config::Config;
use crate::upstream::Ground;
use crate::wire::{Fields, Limits, RequestHead};
use groove_common::config::check_text;
use groove_common::telemetry::Registry;
use tokio::runtime::Handle;

const HEAD: &str = "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n";

/// A rule with these lines.
fn mirror(more: &str) -> Arc<Mirror> {
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\napps:\n  a:\n    hosts: [a.test]\n    endpoints: [127.0.0.1:9]\n    \
         clusters: {{b: {{endpoints: [127.0.0.1:10]}}}}\n    \
         routes: [{{match: {{path: /*}}, mirror: {{cluster: b, {more}}}}}]\n"
    );
    let config: Config = check_text("http.yaml", &text).expect("a good configuration");
    let ground = Ground::new(Handle::current(), Registry::new(1));
    let mut roster = Roster::new(Arc::new(ground), Arc::default());
    let app = &config.apps["a"];
    let change = roster.prepare([("a", Some(app))], &config.timeouts).expect("a good change");
    roster.apply(change);
    let (mut fields, raw) = (Fields::default(), HEAD.as_bytes());
    let head = RequestHead::parse(raw, &Limits::default(), &mut fields).expect("a good head");
    let target = roster.get("a").expect("an app").target(&head, || 0.0);
    let action = target.action.as_ref().expect("a route with an action");
    Arc::clone(action.mirror.as_ref().expect("a mirror"))
}

fn dropped(mirror: &Mirror) -> Vec<(Dropped, u64)> {
    let counts = Dropped::ALL.map(|why| (why, mirror.metrics.count_of(why)));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn held(mirror: &Mirror) -> (usize, usize) {
    (mirror.count.load(Ordering::Relaxed), mirror.bytes.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_copy_is_the_head_and_all_of_the_body_and_leaves_nothing_behind() {
    let mirror = mirror("percent: 100");
    let mut copy = mirror.copy(format!("{HEAD}01234").as_bytes(), 0.999).expect("a copy");
    copy.take(b"56");
    copy.take(b"789");
    let ready = copy.finish().expect("all of it");
    assert_eq!(ready.bytes, format!("{HEAD}0123456789").as_bytes());
    assert_eq!(held(&mirror), (1, HEAD.len() + 10));
    drop(ready);
    assert_eq!((held(&mirror), dropped(&mirror)), ((0, 0), vec![]));
}

#[tokio::test]
async fn the_dice_decide_about_a_share() {
    let mirror = mirror("percent: 5");
    assert!(mirror.copy(HEAD.as_bytes(), 0.0499).is_some());
    assert!(mirror.copy(HEAD.as_bytes(), 0.05).is_none());
    let none = self::mirror("percent: 0");
    assert!(none.copy(HEAD.as_bytes(), 0.0).is_none());
    assert_eq!(dropped(&none), [], "who is not chosen is not dropped");
}

#[tokio::test]
async fn what_is_over_a_bound_is_dropped_and_its_room_is_free_again() {
    let by_count = mirror("in_flight: 2");
    let (one, two) = (by_count.copy(HEAD.as_bytes(), 0.0), by_count.copy(HEAD.as_bytes(), 0.0));
    assert!(one.is_some() && two.is_some() && by_count.copy(HEAD.as_bytes(), 0.0).is_none());
    assert_eq!(dropped(&by_count), [(Dropped::InFlight, 1)]);
    drop(one.and_then(Copy::finish));
    assert!(by_count.copy(HEAD.as_bytes(), 0.0).is_some(), "there is room again");

    let by_body = mirror("body: 8B");
    let mut copy = by_body.copy(HEAD.as_bytes(), 0.0).expect("a copy");
    copy.take(b"01234567");
    assert_eq!(dropped(&by_body), [], "as long as it may be");
    copy.take(b"8");
    assert_eq!((held(&by_body), dropped(&by_body)), ((0, 0), vec![(Dropped::Body, 1)]));
    copy.take(b"9");
    assert!(copy.finish().is_none() && dropped(&by_body).len() == 1);

    let by_bytes = mirror("bytes: 64KiB, body: 64KiB");
    let mut copies: Vec<_> = (0..2).filter_map(|_| by_bytes.copy(HEAD.as_bytes(), 0.0)).collect();
    copies[0].take(&[0; 60 << 10]);
    copies[1].take(&[0; 3 << 10]);
    assert_eq!(dropped(&by_bytes), []);
    copies[1].take(&[0; 3 << 10]);
    assert_eq!(dropped(&by_bytes), [(Dropped::Bytes, 1)]);
    copies[0].take(&[0; 3 << 10]);
    assert!(copies.remove(0).finish().is_some(), "the first one still has its room");
}

#[tokio::test]
async fn half_a_request_is_no_copy() {
    let mirror = mirror("percent: 100");
    let mut copy = mirror.copy(HEAD.as_bytes(), 0.0).expect("a copy");
    copy.take(b"012");
    drop(copy);
    assert_eq!((held(&mirror), dropped(&mirror)), ((0, 0), vec![(Dropped::Incomplete, 1)]));
}
