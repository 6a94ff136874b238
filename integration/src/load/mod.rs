//! Load generators of our own, where Debian has none that fits.

pub mod memcached;
pub mod paced;
pub mod probe;

use std::time::Duration;

use hdrhistogram::Histogram;

/// What a generator saw while it measured.
#[derive(Debug, Clone)]
pub struct Report {
    /// Replies that came in the measured time.
    pub operations: u64,
    /// Replies that were not what was asked for.
    pub errors: u64,
    /// The measured time.
    pub elapsed: Duration,
    /// From request to reply, in nanoseconds.
    pub latency_ns: Histogram<u64>,
}

impl Report {
    /// Operations a second.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        count(self.operations) / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency in microseconds; 0.5 is the median.
    #[must_use]
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        quantile_us(&self.latency_ns, quantile)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} operations in {:.1} s: {:.0}/s, p50 {:.0} us, p99 {:.0} us, {} errors",
            self.operations,
            self.elapsed.as_secs_f64(),
            self.throughput(),
            self.quantile_us(0.5),
            self.quantile_us(0.99),
            self.errors
        )
    }
}

/// A count as a float; exact up to 2^53.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "counts of what a benchmark does stay far below 2^53")]
pub fn count(number: u64) -> f64 {
    number as f64
}

/// A quantile of a histogram of nanoseconds, in microseconds.
pub(crate) fn quantile_us(latency_ns: &Histogram<u64>, quantile: f64) -> f64 {
    count(latency_ns.value_at_quantile(quantile)) / 1000.0
}

/// A duration in nanoseconds, for a histogram.
pub(crate) fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
