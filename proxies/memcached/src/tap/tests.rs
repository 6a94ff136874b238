//! Sampling, filters, bounds, and what is asked most.

use std::time::{Duration, Instant};

use bytes::Bytes;
use groove_common::tap::{QUEUE_LEN, WATCHERS_MAX};
use groove_common::testing::Dice;

use super::seen::Result;
use super::summary::Summary;
use super::*;
use crate::error::Failure;
use crate::session::state::Answer;
use crate::wire::meta::{Get, Op, Reply, Request, Status, Wants};

fn get(key: &str) -> Request<'_> {
    let get = Get { wants: Wants::ITEM, ..Get::default() };
    Request { key: key.as_bytes(), is_coded: false, op: Op::Get(get) }
}

fn hit(value: &'static str) -> Answer {
    Answer::Reply(Reply::new(
        Status::Value,
        Bytes::from_static(b"VA 1"),
        Bytes::from_static(value.as_bytes()),
    ))
}

/// Everybody is of the tenant `shop`, every key in the cluster `main`.
fn asker() -> Asker<'static> {
    Asker { tenant: Some("shop"), cluster: "main" }
}

fn hub() -> Arc<Hub> {
    super::hub(&Registry::new(1))
}

fn begin(probe: &Probe, key: &str) -> Option<Begun> {
    probe.begin(&get(key), Instant::now(), asker)
}

#[test]
fn what_nobody_wants_to_see_is_not_noted() {
    let hub = hub();
    let probe = Probe::new(Arc::clone(&hub));
    assert!(!probe.is_watched());
    let filter = Filter {
        tenant: Some("shop".to_owned()),
        cluster: Some("main".to_owned()),
        prefix: b"user:".to_vec(),
    };
    for other in [
        Filter { tenant: Some("news".to_owned()), ..filter.clone() },
        Filter { cluster: Some("pages".to_owned()), ..filter.clone() },
        Filter { prefix: b"page:".to_vec(), ..filter.clone() },
    ] {
        let _watch = hub.watch(other, 1.0).unwrap();
        assert!(probe.is_watched() && begin(&probe, "user:7").is_none());
    }
    assert!(!probe.is_watched(), "they are gone");
    let mut watch = hub.watch(filter, 1.0).unwrap();
    probe.wait(1, 5, begin(&probe, "user:7").unwrap());
    assert!(probe.is_waiting());
    probe.answered(1, 4, &hit("x"));
    probe.answered(2, 5, &hit("x"));
    assert!(probe.is_waiting(), "those were other requests");
    probe.answered(1, 5, &hit("12345"));
    assert!(!probe.is_waiting());
    let seen = watch.seen.try_recv().unwrap();
    assert_eq!((&*seen.key, seen.result, seen.value_len), (&b"user:7"[..], Result::Hit, Some(5)));
    assert_eq!((seen.verb.name, seen.tenant.as_deref()), ("get", Some("shop")));
}

#[test]
fn the_share_that_is_seen_is_the_share_that_was_asked_for() {
    let hub = hub();
    let probe = Probe::new(Arc::clone(&hub));
    let mut watch = hub.watch(Filter::default(), 0.1).unwrap();
    let noted = (0..20_000).filter(|_| begin(&probe, "a").is_some()).count();
    assert!((1700..2300).contains(&noted), "{noted}");
    assert!(watch.seen.try_recv().is_err());
}

#[test]
fn a_watcher_that_does_not_look_costs_a_bounded_queue() {
    let hub = hub();
    let probe = Probe::new(Arc::clone(&hub));
    let watch = hub.watch(Filter::default(), 1.0).unwrap();
    for _ in 0..QUEUE_LEN + 10 {
        probe.tell(begin(&probe, "a").unwrap(), &Answer::Failed(Failure::Down));
    }
    assert_eq!((watch.dropped(), watch.seen.len()), (10, QUEUE_LEN));
    let others: Vec<_> = (1..WATCHERS_MAX).map(|_| hub.watch(Filter::default(), 1.0).unwrap()).collect();
    assert!(hub.watch(Filter::default(), 1.0).is_none());
    drop(others);
    assert!(hub.watch(Filter::default(), 1.0).is_some());
}

fn seen(key: &str, result: Result, value_len: usize) -> Seen {
    Seen {
        at: std::time::SystemTime::UNIX_EPOCH,
        tenant: Some("shop".to_owned()),
        cluster: "main".to_owned(),
        verb: Verb::of(&get(key)),
        key: key.as_bytes().into(),
        result,
        value_len: (result == Result::Hit).then_some(value_len),
        took: Duration::ZERO,
        server: Server::Proxy,
        failure: None,
    }
}

#[test]
fn hot_keys_are_found_among_more_keys_than_are_kept() {
    let (mut summary, mut dice) = (Summary::new(2), Dice::new(7));
    for round in 0..200_000 {
        // A quarter are of one key, an eighth of another; the others are hardly ever the same.
        let key = match dice.below(8) {
            0 | 1 => "hot:1".to_owned(),
            2 => "hot:2".to_owned(),
            _ => format!("cold/{}", dice.below(1_000_000)),
        };
        let result = if round % 10 == 0 { Result::Miss } else { Result::Hit };
        summary.add(&seen(&key, result, 100));
    }
    let report = summary.report(Duration::from_secs(2), 0.5, 200_000);
    assert_eq!(report.all.per_second, 400_000.0, "half of the half that was looked at found no room");
    let [first, second] = report.keys.as_slice() else { panic!("{:?}", report.keys) };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("hot:1", "hot:2"));
    // No less than it was, and not much more.
    assert!((0.248..0.27).contains(&first.share), "{first:?}");
    assert!((90_000.0..108_000.0).contains(&first.per_second), "{first:?}");
    assert!((0.09..0.11).contains(&first.miss_ratio.unwrap()), "{first:?}");
    assert_eq!(first.value_bytes, Some(100));
    let prefixes: Vec<_> = report.prefixes.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(prefixes, ["cold/", "hot:"]);
    assert_eq!(report.tenants[0].tenant.as_deref(), Some("shop"));
}

#[test]
fn no_key_is_a_command_for_a_terminal() {
    assert_eq!(seen::readable("grün:7".as_bytes()), "grün:7");
    assert_eq!(seen::readable(b"\x1b[2J"), "\\x1b[2J");
    assert_eq!(seen::readable(b"a\xffb"), "a\\xffb");
    assert_eq!(seen::readable("a\u{9b}b".as_bytes()), "a\\xc2\\x9bb");
}
