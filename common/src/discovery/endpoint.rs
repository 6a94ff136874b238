//! One server, for as long as it is known: what its exchanges count and tell.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::balance::PeakEwma;
use crate::ids::{Address, EndpointId};

/// Set in an endpoint's count of exchanges while somebody wants to hear of each that ends: who ends one sees it in the
/// count it lowers anyhow.
const WATCHED: u32 = 1 << 31;

/// Who wants to hear of exchanges that end.
pub trait Released: Send + Sync {
    /// One ended; the endpoint's count is lower already. Called by whoever dropped the [`Exchange`], on its thread.
    fn released(&self, endpoint: &Endpoint);
}

/// One server. It stays the same object, with the same id and slot, through every change
/// of its weight, zone or health, until it leaves the cluster.
pub struct Endpoint {
    /// Unique in the process, never reused.
    pub id: EndpointId,
    /// Where it answers.
    pub address: Address,
    /// Its position in the hash.
    pub slot: usize,
    /// The exchanges, and [`WATCHED`].
    in_flight: AtomicU32,
    watcher: Mutex<Option<Weak<dyn Released>>>,
    latency: PackedEwma,
    successes: AtomicU64,
    failures: AtomicU64,
    /// The breaker has something against it, so successes matter.
    pub(super) watched: AtomicBool,
    /// Half-open, and nobody has taken the trial yet.
    pub(super) trial_offered: AtomicBool,
}

/// How an exchange with an endpoint ended, for its breaker and its latency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The server answered (an error in its protocol is an answer).
    Success {
        /// From the request's last byte to the answer's first.
        latency: Duration,
    },
    /// It could not be reached, broke off, or took too long.
    Failure,
}

impl Endpoint {
    pub(super) fn new(address: Address, slot: usize) -> Self {
        Self {
            id: EndpointId::next(),
            address,
            slot,
            in_flight: AtomicU32::new(0),
            watcher: Mutex::new(None),
            latency: PackedEwma::default(),
            successes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            trial_offered: AtomicBool::new(false),
        }
    }

    /// Counts an exchange as under way until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Exchange {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Exchange(Arc::clone(self))
    }

    /// Exchanges under way, by all workers.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed) & !WATCHED
    }

    /// From now on `watcher` hears of each exchange that ends, those included that have begun already; in place of
    /// whoever did. `None`: nobody does.
    pub fn watch(&self, watcher: Option<Weak<dyn Released>>) {
        let mut place = self.watcher.lock();
        match &watcher {
            Some(_) => self.in_flight.fetch_or(WATCHED, Ordering::Relaxed),
            None => self.in_flight.fetch_and(!WATCHED, Ordering::Relaxed),
        };
        *place = watcher;
    }

    #[cold]
    fn tell_watcher(&self) {
        let watcher = self.watcher.lock().as_ref().and_then(Weak::upgrade);
        if let Some(watcher) = watcher {
            watcher.released(self);
        }
    }

    /// The peak-sensitive average latency, in seconds.
    pub fn latency_s(&self, now: Duration) -> f64 {
        self.latency.load(now).at(now)
    }

    /// Exchanges that succeeded and failed so far.
    pub fn totals(&self) -> (u64, u64) {
        (self.successes.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    /// Takes the one exchange that a half-open endpoint is tried with. Whoever gets `true`
    /// sends its exchange there and reports the outcome; a claim nobody reports is offered
    /// again after a while.
    pub fn claim_trial(&self) -> bool {
        self.trial_offered.load(Ordering::Relaxed) && self.trial_offered.swap(false, Ordering::Relaxed)
    }

    /// Whether a trial is there to be claimed.
    pub fn offers_trial(&self) -> bool {
        self.trial_offered.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self, now: Duration, outcome: Outcome) {
        match outcome {
            Outcome::Success { latency } => {
                self.successes.fetch_add(1, Ordering::Relaxed);
                self.latency.observe(now, latency);
            }
            Outcome::Failure => {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("id", &self.id)
            .field("address", &self.address)
            .field("slot", &self.slot)
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// An exchange under way, see [`Endpoint::begin`].
#[derive(Debug)]
pub struct Exchange(Arc<Endpoint>);

impl Exchange {
    /// The endpoint it runs with.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let before = self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        if before & WATCHED != 0 {
            self.0.tell_watcher();
        }
    }
}

/// A [`PeakEwma`] in one word: the latency as `f32` seconds above, the time of the last
/// sample in milliseconds below. Workers overwrite each other's samples now and then;
/// an average can bear that, a lock on the way of every exchange it could not.
#[derive(Debug, Default)]
struct PackedEwma(AtomicU64);

impl PackedEwma {
    fn load(&self, now: Duration) -> PeakEwma {
        let word = self.0.load(Ordering::Relaxed);
        let (latency_bits, at_ms) = ((word >> 32) as u32, (word & 0xffff_ffff) as u32);
        // The milliseconds wrap after 49 days; their distance does not.
        let age = Duration::from_millis(u64::from(low_millis(now).wrapping_sub(at_ms)));
        PeakEwma::from_parts(f64::from(f32::from_bits(latency_bits)), now.saturating_sub(age))
    }

    fn observe(&self, now: Duration, latency: Duration) {
        let (latency_s, at) = self.load(now).observe(now, latency).parts();
        // Seven digits of a latency are plenty.
        #[allow(clippy::cast_possible_truncation)]
        let latency_bits = (latency_s as f32).to_bits();
        let word = (u64::from(latency_bits) << 32) | u64::from(low_millis(at));
        self.0.store(word, Ordering::Relaxed);
    }
}

/// The low 32 bits of a time in milliseconds.
fn low_millis(time: Duration) -> u32 {
    (time.as_millis() & 0xffff_ffff) as u32
}
