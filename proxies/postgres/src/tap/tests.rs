//! What takes most time is found, in bounded memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use groove_common::net::Peer;
use groove_common::testing::Dice;

use groove_common::tap::ALL;
use groove_common::telemetry::Registry;

use super::summary::Summary;
use super::{Seen, Tap};
use crate::pgbadger::Pgbadger;
use crate::session::state::{How, Outcome};
use crate::sql::mask;

fn seen(text: &str, took: Duration, outcome: Outcome) -> Seen {
    Seen {
        at: SystemTime::UNIX_EPOCH,
        database: "shop".to_owned(),
        user: "app".to_owned(),
        peer: Peer::Unix,
        application_name: String::new(),
        server: "127.0.0.1:5432".to_owned(),
        statement: mask(text.as_bytes(), false),
        how: How::Extended,
        rows: 2,
        outcome,
        took,
        waited: Duration::ZERO,
        together: 1,
    }
}

#[test]
fn what_takes_most_time_is_found_among_more_than_is_kept() {
    let (mut summary, mut dice) = (Summary::new(2), Dice::new(7));
    for round in 0..100_000 {
        // One is rare and slow, one frequent, the others hardly ever the same.
        let (text, millis) = match dice.below(100) {
            0 => ("select slow".to_owned(), 100),
            1..=20 => ("select often".to_owned(), 2),
            _ => (format!("select c{}", dice.below(1_000_000)), 1),
        };
        let outcome = if round % 10 == 0 { Outcome::Failed(*b"22012") } else { Outcome::Done };
        summary.add(&seen(&text, Duration::from_millis(millis), outcome));
    }
    let report = summary.report(Duration::from_secs(2), 0.5, 100_000);
    assert_eq!((report.seen, report.all.count, report.all.rows), (100_000, 400_000, 800_000));
    assert_eq!(report.all.errors, 40_000);
    let [first, second] = report.statements.as_slice() else { panic!("{:?}", report.statements) };
    assert_eq!((first.query.as_str(), second.query.as_str()), ("select slow", "select often"));
    assert!((3_000..5_000).contains(&first.count), "{first:?}");
    assert!((70_000..90_000).contains(&second.count), "{second:?}");
    for (row, millis) in [(first, 100.0), (second, 2.0)] {
        for time in [row.p50_ms, row.p99_ms] {
            assert!(time >= millis && time < millis * 1.26, "{row:?}");
        }
        assert!((row.mean_ms - millis).abs() < 0.001, "{row:?}");
    }
    assert_eq!(first.fingerprint, mask(b"SELECT slow", false).fingerprint());
}

#[test]
fn times_of_every_size_are_told_within_a_quarter() {
    let mut dice = Dice::new(1);
    for power in 0..30 {
        let us = (1_u64 << power) + dice.below(1 << power) as u64;
        let mut summary = Summary::new(1);
        summary.add(&seen("select 1", Duration::from_micros(us), Outcome::Done));
        let told = summary.report(Duration::from_secs(1), 1.0, 0).all.p50_ms * 1e3;
        assert!(told >= us as f64 && told <= us as f64 * 1.26 + 1.0, "{us}: {told}");
    }
}

#[test]
fn the_dice_fall_evenly() {
    let registry = Registry::new(1);
    let pgbadger = Pgbadger::new(&crate::config::Pgbadger::default(), &registry).unwrap();
    let tap = Tap::new(&registry, None, Arc::new(pgbadger));
    let low = (0..20_000).filter(|_| tap.roll() < ALL / 10).count();
    assert!((1700..2300).contains(&low), "{low}");
}
