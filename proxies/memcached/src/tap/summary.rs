//! What was asked most in an interval: counted in bounded memory, whatever clients ask ([`Heavy`]).

use std::time::Duration;

use groove_common::tap::{self, Heavy};
use serde::{Deserialize, Serialize};

use super::seen::{Result, Seen, readable};

/// Keys that are kept apart, at least; at most twice as many are known at a time.
const KEPT_MIN: usize = 1000;

/// What is counted of a key, a prefix, a tenant or all of them.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    count: u64,
    hits: u64,
    misses: u64,
    errors: u64,
    values: u64,
    values_len: u64,
}

impl Tally {
    fn add(&mut self, seen: &Seen) {
        self.count += 1;
        match seen.result {
            Result::Hit => self.hits += 1,
            Result::Miss => self.misses += 1,
            Result::Error => self.errors += 1,
            Result::Stored | Result::NotStored | Result::Exists | Result::Deleted | Result::NotFound => (),
        }
        if let Some(len) = seen.value_len {
            self.values += 1;
            self.values_len += len as u64;
        }
    }
}

impl tap::Tally for Tally {
    fn new(count: u64) -> Self {
        Self { count, ..Self::default() }
    }

    fn weight(&self) -> u64 {
        self.count
    }
}

/// A key or a prefix with its tenant before it, and how long the tenant's name is.
type Named = (usize, Vec<u8>);

/// One interval.
#[derive(Debug)]
pub(super) struct Summary {
    top: usize,
    all: Tally,
    keys: Heavy<Named, Tally>,
    prefixes: Heavy<Named, Tally>,
    tenants: Heavy<Named, Tally>,
}

/// What is told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How long it was.
    pub seconds: f64,
    /// Exchanges that were seen.
    pub seen: u64,
    /// Exchanges that were not, as there was no room.
    pub dropped: u64,
    /// All together.
    pub all: Row,
    /// The keys that were asked most.
    pub keys: Vec<Row>,
    /// What many keys begin with.
    pub prefixes: Vec<Row>,
    /// Whose they are; empty without tenants.
    pub tenants: Vec<Row>,
}

/// A line of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Whose, if there are tenants.
    pub tenant: Option<String>,
    /// The key or the prefix; nothing for all together.
    pub name: String,
    /// Requests a second, estimated.
    pub per_second: f64,
    /// Its share of all requests.
    pub share: f64,
    /// Of its reads, how many found nothing. None: nothing was read.
    pub miss_ratio: Option<f64>,
    /// Requests that failed, a second.
    pub errors_per_second: f64,
    /// Bytes of a value, on average. None: no value was seen.
    pub value_bytes: Option<u64>,
}

impl Summary {
    /// An interval in which nothing was seen, for a report of `top` lines a list.
    pub(super) fn new(top: usize) -> Self {
        let kept = KEPT_MIN.max(4 * top);
        Self {
            top,
            all: Tally::default(),
            keys: Heavy::new(kept),
            prefixes: Heavy::new(kept),
            tenants: Heavy::new(kept),
        }
    }

    /// Counts an exchange.
    pub(super) fn add(&mut self, seen: &Seen) {
        self.all.add(seen);
        let mut name: Named = (0, Vec::with_capacity(seen.key.len() + 16));
        if let Some(tenant) = &seen.tenant {
            name = (tenant.len(), tenant.as_bytes().to_vec());
            self.tenants.add(&name, |tally| tally.add(seen));
        }
        name.1.extend_from_slice(prefix_of(&seen.key));
        self.prefixes.add(&name, |tally| tally.add(seen));
        name.1.truncate(name.0);
        name.1.extend_from_slice(&seen.key);
        self.keys.add(&name, |tally| tally.add(seen));
    }

    /// What is to be told, if the interval took so long, a share of `sample` of all was to be seen, and `dropped`
    /// of that was not.
    pub(super) fn report(&self, took: Duration, sample: f64, dropped: u64) -> Report {
        let scale = Scale {
            // What there was no room for is taken to have been like the rest.
            times: (self.all.count + dropped) as f64 / self.all.count.max(1) as f64 / sample,
            seconds: took.as_secs_f64().max(0.001),
            all: self.all.count,
        };
        let rows = |heavy: &Heavy<Named, Tally>| {
            let top = heavy.top(self.top, |tally| tally.count);
            top.into_iter().map(|((split, name), tally)| scale.row(name.split_at(*split), tally)).collect()
        };
        Report {
            seconds: scale.seconds,
            seen: self.all.count,
            dropped,
            all: scale.row((b"", b""), &self.all),
            keys: rows(&self.keys),
            prefixes: rows(&self.prefixes),
            tenants: rows(&self.tenants),
        }
    }
}

/// From what was counted to what it stands for.
struct Scale {
    times: f64,
    seconds: f64,
    all: u64,
}

impl Scale {
    fn row(&self, (tenant, name): (&[u8], &[u8]), tally: &Tally) -> Row {
        let per_second = |count: u64| count as f64 * self.times / self.seconds;
        let reads = tally.hits + tally.misses;
        Row {
            tenant: (!tenant.is_empty()).then(|| readable(tenant)),
            name: readable(name),
            per_second: per_second(tally.count),
            share: tally.count as f64 / self.all.max(1) as f64,
            miss_ratio: (reads > 0).then(|| tally.misses as f64 / reads as f64),
            errors_per_second: per_second(tally.errors),
            value_bytes: tally.values_len.checked_div(tally.values),
        }
    }
}

/// What a key begins with: up to its first `:` or `/`, or nothing.
fn prefix_of(key: &[u8]) -> &[u8] {
    let end = key.iter().position(|byte| matches!(byte, b':' | b'/'));
    end.and_then(|end| key.get(..=end)).unwrap_or_default()
}
