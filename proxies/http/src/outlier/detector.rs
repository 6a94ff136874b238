//! Who is an outlier, of numbers. Pure.

use crate::config;
use foldhash::fast::RandomState;
use groove_common::ids::EndpointId;
use std::collections::HashMap;
use std::time::Duration;

/// More than sums of rates are off by.
const ROUNDING: f64 = 1e-9;

/// When an endpoint is an outlier.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// How often they are looked at.
    pub interval: Duration,
    /// With fewer endpoints that have had enough requests nobody is.
    pub hosts_min: usize,
    /// Requests in an interval, with fewer of which an endpoint is not judged.
    pub volume_min: u64,
    /// How many standard deviations below the mean.
    pub deviations: f64,
    /// The share of the endpoints that may be out at once.
    pub max_share: f64,
}

impl From<&config::SuccessRate> for Rules {
    fn from(written: &config::SuccessRate) -> Self {
        Self {
            interval: written.interval.get(),
            hosts_min: written.minimum_hosts,
            volume_min: written.request_volume,
            deviations: written.stdev_factor,
            max_share: written.max_ejection_percent / 100.0,
        }
    }
}

/// What an endpoint has had so far.
#[derive(Debug, Clone, Copy)]
pub struct Totals {
    /// Which.
    pub endpoint: EndpointId,
    /// Exchanges that succeeded, ever.
    pub successes: u64,
    /// Exchanges that failed, ever.
    pub failures: u64,
}

/// Knows what there was at the last look.
#[derive(Debug, Default)]
pub struct Detector {
    before: HashMap<EndpointId, (u64, u64), RandomState>,
}

impl Detector {
    /// The outliers of the time since the last look, the worst first. One that was not there then is not judged.
    pub fn sweep(&mut self, rules: &Rules, totals: impl Iterator<Item = Totals>) -> Vec<EndpointId> {
        let mut rates: Vec<(EndpointId, f64)> = Vec::new();
        let mut after = HashMap::default();
        for Totals { endpoint, successes, failures } in totals {
            after.insert(endpoint, (successes, failures));
            let Some((good, bad)) = self.before.get(&endpoint) else { continue };
            let (good, bad) = (successes.saturating_sub(*good), failures.saturating_sub(*bad));
            let volume = good + bad;
            if volume > 0 && volume >= rules.volume_min {
                rates.push((endpoint, good as f64 / volume as f64));
            }
        }
        self.before = after;
        let count = rates.len();
        if count == 0 || count < rules.hosts_min {
            return Vec::new();
        }
        let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count as f64;
        let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count as f64;
        let least = mean - rules.deviations * variance.sqrt();
        // Equal rates have a mean that is a rounding apart from each.
        rates.retain(|(_, rate)| rate + ROUNDING < least);
        rates.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        rates.into_iter().map(|(endpoint, _)| endpoint).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        interval: Duration::from_secs(10),
        hosts_min: 5,
        volume_min: 100,
        deviations: 1.9,
        max_share: 0.1,
    };

    /// Which of the endpoints are outliers that have answered so many well and so many badly.
    fn outliers(rules: &Rules, counts: &[(u64, u64)]) -> Vec<usize> {
        let ids: Vec<_> = counts.iter().map(|_| EndpointId::next()).collect();
        let mut detector = Detector::default();
        let none = ids.iter().map(|id| Totals { endpoint: *id, successes: 7, failures: 3 });
        assert_eq!(detector.sweep(rules, none), [], "the first look knows of nothing before");
        let some = ids.iter().zip(counts).map(|(id, (good, bad))| Totals {
            endpoint: *id,
            successes: 7 + good,
            failures: 3 + bad,
        });
        let found = detector.sweep(rules, some);
        found.iter().filter_map(|id| ids.iter().position(|known| known == id)).collect()
    }

    #[test]
    fn who_is_far_below_the_others_is_one() {
        let with = |last: (u64, u64)| [(200, 0), (198, 2), (199, 1), (200, 0), (197, 3), (200, 0), last];
        assert_eq!(outliers(&RULES, &with((120, 80))), [6]);
        assert_eq!(outliers(&RULES, &with((199, 1))), [] as [usize; 0]);
        // Too few requests to be judged.
        assert_eq!(outliers(&RULES, &with((1, 98))), [] as [usize; 0]);
        // All are as bad.
        assert_eq!(outliers(&RULES, &[(100, 100); 7]), [] as [usize; 0]);
        assert_eq!(outliers(&RULES, &[(0, 200); 7]), [] as [usize; 0]);
        // The mean of these is a little more than each of them.
        let strict = Rules { hosts_min: 3, deviations: 0.0, ..RULES };
        assert_eq!(outliers(&strict, &[(10, 90); 3]), [] as [usize; 0]);
    }

    #[test]
    fn few_endpoints_are_no_crowd_to_be_held_against() {
        let four = [(200, 0), (200, 0), (200, 0), (0, 200)];
        assert_eq!(outliers(&RULES, &four), [] as [usize; 0]);
        let rules = Rules { hosts_min: 4, deviations: 1.5, ..RULES };
        assert_eq!(outliers(&rules, &four), [3]);
        assert_eq!(outliers(&rules, &[]), [] as [usize; 0]);
    }

    #[test]
    fn the_worst_comes_first() {
        let mut counts = vec![(200, 0); 30];
        counts.extend([(100, 100), (50, 150)]);
        assert_eq!(outliers(&RULES, &counts), [31, 30]);
    }

    #[test]
    fn only_what_came_since_the_last_look_counts() {
        let ids: Vec<_> = (0..6).map(|_| EndpointId::next()).collect();
        let mut detector = Detector::default();
        let look = |detector: &mut Detector, rounds: u64, bad: u64| {
            let totals = ids.iter().enumerate().map(|(index, id)| Totals {
                endpoint: *id,
                successes: 200 * rounds,
                failures: if index == 0 { bad } else { 0 },
            });
            detector.sweep(&RULES, totals.collect::<Vec<_>>().into_iter())
        };
        look(&mut detector, 1, 0);
        assert_eq!(look(&mut detector, 2, 150), [ids[0]]);
        assert_eq!(look(&mut detector, 3, 150), [], "it does well by now");
    }
}
