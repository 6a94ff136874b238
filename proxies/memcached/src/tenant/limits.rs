//! What a tenant may use of this proxy, and the words when it is too much.

use std::time::Duration;

use groove_common::admission::SharedBucket;

use super::config::TenantLimits;

/// What lies ready in a bucket that was not used lately: so much of a second's worth.
const BURST_SECONDS: f64 = 0.1;

/// The bound that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// `requests_per_second`.
    Requests,
    /// `bytes_per_second`.
    Bytes,
    /// `connections`.
    Connections,
}

impl Bound {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Bytes, Self::Connections];

    /// As it is called in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests_per_second",
            Self::Bytes => "bytes_per_second",
            Self::Connections => "connections",
        }
    }
}

/// A request that is not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Refused {
    /// Why.
    pub bound: Bound,
    /// When another would be.
    pub retry_after: Duration,
}

/// A tenant's rates.
#[derive(Debug, Default)]
pub struct Rates {
    requests: Option<SharedBucket>,
    bytes: Option<SharedBucket>,
    patience: Duration,
}

impl Rates {
    /// As configured.
    pub fn new(limits: &TenantLimits) -> Self {
        let bucket = |rate: u64| {
            #[allow(clippy::cast_precision_loss, reason = "a rate above 2^52 is none")]
            let rate = rate.max(1) as f64;
            SharedBucket::new(rate, rate * BURST_SECONDS)
        };
        Self {
            requests: limits.requests_per_second.map(bucket),
            bytes: limits.bytes_per_second.map(|size| bucket(size.0)),
            patience: limits.patience.get(),
        }
    }

    /// Admits one request of so many bytes: at once (zero), after a wait, or not at all.
    ///
    /// # Errors
    ///
    /// When the wait would be longer than the tenant's patience. Nothing is taken then, but for a request's
    /// token where it is the bytes that are missing: a client that goes on asking for too much pays for it.
    pub fn admit(&self, now: Duration, bytes_len: usize) -> Result<Duration, Refused> {
        let mut wait = Duration::ZERO;
        if let Some(requests) = &self.requests {
            let refused = |retry_after| Refused { bound: Bound::Requests, retry_after };
            wait = requests.reserve(now, 1.0, self.patience).map_err(refused)?;
        }
        if let Some(bytes) = &self.bytes {
            let refused = |retry_after| Refused { bound: Bound::Bytes, retry_after };
            wait = wait.max(bytes.reserve(now, amount(bytes_len), self.patience).map_err(refused)?);
        }
        Ok(wait)
    }

    /// Counts bytes that a server has sent.
    pub fn charge(&self, now: Duration, bytes_len: usize) {
        if let Some(bytes) = &self.bytes {
            bytes.charge(now, amount(bytes_len));
        }
    }

    /// Does anything have to be asked at all?
    pub fn is_unbounded(&self) -> bool {
        self.requests.is_none() && self.bytes.is_none()
    }

    /// Are bytes counted?
    pub fn counts_bytes(&self) -> bool {
        self.bytes.is_some()
    }
}

fn amount(bytes_len: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "an item is at most a gigabyte")]
    let amount = bytes_len as f64;
    amount
}

#[cfg(test)]
mod tests {
    use groove_common::config::{Duration as Written, Size};

    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_little_too_much_waits_and_far_too_much_is_refused() {
        let limits = TenantLimits { requests_per_second: Some(1000), ..TenantLimits::default() };
        let rates = Rates::new(&limits);
        let waits: Vec<_> = (0..250).map(|_| rates.admit(ms(1), 10)).collect();
        assert!(
            waits[..100].iter().all(|wait| *wait == Ok(Duration::ZERO)),
            "a tenth of a second lies ready"
        );
        assert_eq!(waits[100], Ok(ms(1)));
        assert_eq!(waits[199], Ok(ms(100)));
        assert_eq!(waits[200], Err(Refused { bound: Bound::Requests, retry_after: ms(101) }));
    }

    #[test]
    fn bytes_count_in_both_directions() {
        let bytes_per_second = Some(Size(1_000_000));
        let patience = Written::from_millis(0);
        let rates = Rates::new(&TenantLimits { bytes_per_second, patience, ..TenantLimits::default() });
        assert_eq!(rates.admit(ms(1), 60_000), Ok(Duration::ZERO));
        rates.charge(ms(1), 60_000);
        let refused = rates.admit(ms(1), 1000).unwrap_err();
        assert_eq!((refused.bound, refused.retry_after), (Bound::Bytes, ms(21)));
    }
}
