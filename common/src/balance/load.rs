//! Picks by load, where any endpoint will do.

use std::time::Duration;

use super::{Candidate, Dice};

/// How long a latency peak takes to lose two thirds of its weight.
const EWMA_DECAY: Duration = Duration::from_secs(10);

/// The share of the average latency below which an old average does not fade.
const LATENCY_SHARE_MIN: f64 = 0.1;

/// Slow start never gives less than this share, or a new endpoint would learn nothing.
const SLOW_START_SHARE_MIN: f64 = 0.1;

/// The endpoint with the fewest exchanges per weight; among equals a random one, each in proportion to its weight.
///
/// One pass: each of a tie takes the place with the probability of its share of the weights so far (a weighted
/// reservoir of one). Without that the first of the list would get every request of an idle cluster, or each the same
/// however little it can do.
pub fn least_loaded<C: Candidate>(candidates: &[C], now: Duration, dice: &mut Dice) -> Option<usize> {
    least(candidates, now, dice, |candidate, weight| f64::from(candidate.in_flight()) / weight)
}

/// The endpoint expected to answer first: peak EWMA latency × (exchanges under way + 1),
/// per weight (Finagle's and Linkerd's "peak EWMA"). Equals are settled at random.
///
/// Of an endpoint that has not answered yet nothing is known: it is expected to be as fast as
/// the others are on average. And none counts as faster than a tenth of that average, however
/// long ago its last answer: what is merely forgotten must not get everything until it answers.
pub fn peak_ewma<C: Candidate>(candidates: &[C], now: Duration, dice: &mut Dice) -> Option<usize> {
    let mean_s = mean_latency_s(candidates, now);
    least(candidates, now, dice, |candidate, weight| {
        let known_s = candidate.latency_s(now);
        let expected_s = if known_s > 0.0 { known_s.max(mean_s * LATENCY_SHARE_MIN) } else { mean_s };
        expected_s * (f64::from(candidate.in_flight()) + 1.0) / weight
    })
}

/// Of those that take traffic and have answered before; any length will do when nobody has.
fn mean_latency_s<C: Candidate>(candidates: &[C], now: Duration) -> f64 {
    let known = candidates.iter().filter(|candidate| candidate.is_usable());
    let known = known.map(|candidate| candidate.latency_s(now)).filter(|latency_s| *latency_s > 0.0);
    let (sum_s, count) = known.fold((0.0, 0.0), |(sum_s, count), latency_s| (sum_s + latency_s, count + 1.0));
    if count > 0.0 { sum_s / count } else { 1.0 }
}

fn least<C: Candidate>(
    candidates: &[C],
    now: Duration,
    dice: &mut Dice,
    cost: impl Fn(&C, f64) -> f64,
) -> Option<usize> {
    let mut best = None;
    let mut best_cost = f64::INFINITY;
    let mut tied_weight = 0.0;
    for (index, candidate) in candidates.iter().enumerate() {
        let weight = candidate.weight(now);
        if !candidate.is_usable() || weight <= 0.0 {
            continue;
        }
        let cost = cost(candidate, weight);
        if cost < best_cost || best.is_none() {
            (best, best_cost, tied_weight) = (Some(index), cost, weight);
        } else if cost == best_cost {
            tied_weight += weight;
            if dice.unit() * tied_weight < weight {
                best = Some(index);
            }
        }
    }
    best
}

/// The better of two random ones (power of two choices; Mitzenmacher 2001): nearly as even
/// as the least loaded, without looking at all of them. Falls back to a full look when
/// chance finds nobody usable.
pub fn p2c<C: Candidate>(candidates: &[C], now: Duration, dice: &mut Dice) -> Option<usize> {
    const TRIES: usize = 4;
    let mut draw = || {
        (0..TRIES).map(|_| dice.below(candidates.len())).find_map(|index| {
            let candidate = candidates.get(index)?;
            let weight = candidate.weight(now);
            let usable = candidate.is_usable() && weight > 0.0;
            usable.then(|| (index, f64::from(candidate.in_flight()) / weight, weight))
        })
    };
    match (draw(), draw()) {
        (Some((first, its_cost, its_weight)), Some((second, other_cost, other_weight))) => {
            let is_tie = other_cost == its_cost;
            let other = if is_tie {
                dice.unit() * (its_weight + other_weight) < other_weight
            } else {
                other_cost < its_cost
            };
            Some(if other { second } else { first })
        }
        (Some((only, ..)), None) | (None, Some((only, ..))) => Some(only),
        (None, None) => least_loaded(candidates, now, dice),
    }
}

/// The share of its weight that an endpoint gets `age` after it joined or recovered: rises
/// linearly from a tenth to all of it over `window`.
pub fn slow_start(age: Duration, window: Duration) -> f64 {
    if age >= window {
        return 1.0;
    }
    (age.as_secs_f64() / window.as_secs_f64()).max(SLOW_START_SHARE_MIN)
}

/// A moving average of latency that believes bad news at once and good news slowly: a
/// sample above it replaces it, one below pulls it down with a decay of ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PeakEwma {
    latency_s: f64,
    at: Duration,
}

impl PeakEwma {
    /// An average from its parts, see [`PeakEwma::parts`].
    pub fn from_parts(latency_s: f64, at: Duration) -> Self {
        Self { latency_s, at }
    }

    /// The average in seconds as of the last sample, and when that was.
    pub fn parts(&self) -> (f64, Duration) {
        (self.latency_s, self.at)
    }

    /// Takes a sample in.
    #[must_use]
    pub fn observe(self, now: Duration, latency: Duration) -> Self {
        let sample_s = latency.as_secs_f64();
        let latency_s = if sample_s > self.latency_s {
            sample_s
        } else {
            let keep = self.keep(now);
            self.latency_s * keep + sample_s * (1.0 - keep)
        };
        Self { latency_s, at: now }
    }

    /// The average at `now`, in seconds: a peak fades while nobody samples, so that an
    /// endpoint everybody avoids is tried again.
    pub fn at(&self, now: Duration) -> f64 {
        self.latency_s * self.keep(now)
    }

    fn keep(&self, now: Duration) -> f64 {
        (-now.saturating_sub(self.at).as_secs_f64() / EWMA_DECAY.as_secs_f64()).exp()
    }
}
