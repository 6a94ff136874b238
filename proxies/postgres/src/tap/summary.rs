//! What took most time in an interval: counted in bounded memory, whatever clients ask ([`Heavy`]).

use std::time::Duration;

use groove_common::tap::{self, Heavy};
use serde::{Deserialize, Serialize};

use super::Seen;
use super::slow::millis;
use crate::metrics::micros;
use crate::session::state::Outcome;

/// Statements that are kept apart, at least; at most twice as many are known at a time.
const KEPT_MIN: usize = 500;

/// A power of two has so many buckets: a time is told a quarter too long at the most.
const STEPS: u32 = 4;
/// The longest time that is told apart from longer ones is 2^32 microseconds, more than an hour.
const BUCKETS: usize = 32 * STEPS as usize;

/// How long statements took.
#[derive(Debug, Clone)]
struct Times {
    sum_us: u64,
    counts: Box<[u32; BUCKETS]>,
}

impl Times {
    fn new() -> Times {
        Times { sum_us: 0, counts: Box::new([0; BUCKETS]) }
    }

    fn add(&mut self, us: u64) {
        self.sum_us += us;
        let us = us.max(1);
        // The power of two, and the two bits behind it.
        let power = us.ilog2();
        let step = (if power >= 2 { us >> (power - 2) } else { us << (2 - power) }) & 3;
        let bucket = usize::try_from(u64::from(power * STEPS) + step).unwrap_or(usize::MAX);
        if let Some(count) = self.counts.get_mut(bucket.min(BUCKETS - 1)) {
            *count += 1;
        }
    }

    /// The upper end of the bucket that this share of them reaches into.
    fn quantile_us(&self, share: f64) -> f64 {
        let all: u64 = self.counts.iter().copied().map(u64::from).sum();
        let mut left = (all as f64 * share).ceil();
        for (bucket, count) in (0_u32..).zip(self.counts.iter()) {
            left -= f64::from(*count);
            if left <= 0.0 {
                let (power, step) = (bucket / STEPS, bucket % STEPS);
                return 2_f64.powi(power.try_into().unwrap_or(i32::MAX)) * (1.0 + f64::from(step + 1) / 4.0);
            }
        }
        0.0
    }
}

/// What is counted of a statement, or of all of them.
#[derive(Debug)]
struct Tally {
    /// Microseconds at the most, and one for each time: what is thrown out first has least of it.
    weight: u64,
    text: Box<str>,
    count: u64,
    rows: u64,
    errors: u64,
    times: Times,
}

impl tap::Tally for Tally {
    fn new(weight: u64) -> Tally {
        Tally { weight, text: Box::default(), count: 0, rows: 0, errors: 0, times: Times::new() }
    }

    fn weight(&self) -> u64 {
        self.weight
    }
}

impl Tally {
    fn add(&mut self, seen: &Seen) {
        let us = micros(seen.took);
        if self.count == 0 {
            self.text = seen.statement.text.clone();
        }
        self.weight += us + 1;
        self.count += 1;
        self.rows += seen.rows;
        self.errors += u64::from(seen.outcome != Outcome::Done);
        self.times.add(us);
    }
}

/// One interval.
#[derive(Debug)]
pub(super) struct Summary {
    top: usize,
    all: Tally,
    /// By database and fingerprint.
    statements: Heavy<(String, u64), Tally>,
}

/// What is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How long it was.
    pub seconds: f64,
    /// Statements that were seen.
    pub seen: u64,
    /// Statements that were not, as there was no room.
    pub dropped: u64,
    /// All together.
    pub all: Row,
    /// Those that took most time.
    pub statements: Vec<Row>,
}

/// A line of it. Counts are estimates if not all was looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The database; nothing for all together.
    pub database: String,
    /// The same for statements that differ in literals only; nothing for all together.
    pub fingerprint: String,
    /// What it says, without its literals.
    pub query: String,
    /// How often it ran.
    pub count: u64,
    /// Rows that came, went or changed.
    pub rows: u64,
    /// How often it failed, or was not finished.
    pub errors: u64,
    /// Its share of the time of all statements.
    pub share: f64,
    /// Time of all of them.
    pub total_ms: f64,
    /// Time of one, on average.
    pub mean_ms: f64,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// All but one in a hundred took no longer.
    pub p99_ms: f64,
}

impl Summary {
    /// An interval in which nothing was seen, for a report of `top` lines.
    pub(super) fn new(top: usize) -> Summary {
        Summary { top, all: tap::Tally::new(0), statements: Heavy::new(KEPT_MIN.max(2 * top)) }
    }

    /// Counts a statement.
    pub(super) fn add(&mut self, seen: &Seen) {
        self.all.add(seen);
        let key = (seen.database.clone(), seen.statement.id);
        self.statements.add(&key, |tally| tally.add(seen));
    }

    /// What is to be told, if the interval took so long, a share of `sample` of all was to be seen, and `dropped`
    /// of that was not.
    pub(super) fn report(&self, took: Duration, sample: f64, dropped: u64) -> Report {
        // What there was no room for is taken to have been like the rest.
        let times = (self.all.count + dropped) as f64 / self.all.count.max(1) as f64 / sample;
        let all_us = self.all.times.sum_us;
        let top = self.statements.top(self.top, |tally| (tally.times.sum_us, tally.count));
        let row = |((database, id), tally): (&(String, u64), &Tally)| {
            let mut row = Row::new(tally, times, all_us);
            row.database.clone_from(database);
            row.fingerprint = format!("{id:016x}");
            row
        };
        Report {
            seconds: took.as_secs_f64(),
            seen: self.all.count,
            dropped,
            all: Row { query: String::new(), ..Row::new(&self.all, times, all_us) },
            statements: top.into_iter().map(row).collect(),
        }
    }
}

impl Row {
    fn new(tally: &Tally, times: f64, all_us: u64) -> Row {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate, and neither below 0 nor near the end"
        )]
        let scaled = |count: u64| (count as f64 * times).round() as u64;
        let us = |us: f64| millis(Duration::from_secs_f64(us / 1e6));
        Row {
            database: String::new(),
            fingerprint: String::new(),
            query: tally.text.to_string(),
            count: scaled(tally.count),
            rows: scaled(tally.rows),
            errors: scaled(tally.errors),
            share: tally.times.sum_us as f64 / all_us.max(1) as f64,
            total_ms: us(tally.times.sum_us as f64 * times),
            mean_ms: us(tally.times.sum_us as f64 / tally.count.max(1) as f64),
            p50_ms: us(tally.times.quantile_us(0.5)),
            p99_ms: us(tally.times.quantile_us(0.99)),
        }
    }
}
