//! What wrong passwords cost whoever sends them: time, more with each. Pure.
//!
//! The count is kept by address and user, so that somebody who guesses one user's password holds up neither other
//! users nor other addresses. Names that do not exist count as one user. What was wrong is told at once; it is the
//! next try that waits, on this connection or any other.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Tries that everybody has: a password is being changed, a file was mistyped.
const FREE: u32 = 3;

/// The first wait; each further failure doubles it.
const WAIT_MIN: Duration = Duration::from_millis(250);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// After so long without a failure all is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Guessers that are told apart; all others share one entry.
const GUESSERS_MAX: usize = 10_000;

/// Who sends passwords.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Guesser {
    address: Option<IpAddr>,
    user: Option<usize>,
}

impl Guesser {
    /// Somebody at this address (none: on this machine, by a unix socket) who claims to be this user (none: one
    /// that does not exist). Of an IPv6 address the network counts: each client has a whole one.
    pub fn new(address: Option<IpAddr>, user: Option<usize>) -> Self {
        let address = address.map(|ip| match ip.to_canonical() {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        });
        Self { address, user }
    }
}

/// Everybody's failures. Times are durations since any fixed origin.
#[derive(Debug, Default)]
pub struct Guesses {
    known: HashMap<Guesser, Failures>,
    others: Option<Failures>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    /// The next try is looked at from here on.
    ready_at: Duration,
    last: Duration,
}

impl Guesses {
    /// How long this one must wait before another password of his is looked at.
    pub fn wait(&self, who: &Guesser, now: Duration) -> Duration {
        let failures = match self.known.get(who) {
            Some(failures) => Some(failures),
            None if self.known.len() >= GUESSERS_MAX => self.others.as_ref(),
            None => None,
        };
        failures.map_or(Duration::ZERO, |failures| failures.ready_at.saturating_sub(now))
    }

    /// A password was wrong.
    pub fn failed(&mut self, who: Guesser, now: Duration) {
        if self.known.len() >= GUESSERS_MAX && !self.known.contains_key(&who) {
            self.known.retain(|_, failures| failures.last + FORGOTTEN_AFTER > now);
        }
        let fresh = Failures { count: 0, ready_at: now, last: now };
        let failures = match self.known.len() < GUESSERS_MAX || self.known.contains_key(&who) {
            true => self.known.entry(who).or_insert(fresh),
            false => self.others.get_or_insert(fresh),
        };
        if failures.last + FORGOTTEN_AFTER <= now {
            *failures = fresh;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = now;
        if let Some(doublings) = failures.count.checked_sub(FREE) {
            let wait = WAIT_MIN.saturating_mul(1 << doublings.min(16)).min(WAIT_MAX);
            failures.ready_at = now + wait;
        }
    }

    /// A password was right: whoever has it was no guesser.
    pub fn succeeded(&mut self, who: &Guesser) {
        if !self.known.is_empty() {
            self.known.remove(who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(address: &str, user: Option<usize>) -> Guesser {
        Guesser::new(Some(address.parse().unwrap()), user)
    }

    #[test]
    fn the_wait_grows_and_is_bounded() {
        let (mut guesses, who, now) = (Guesses::default(), at("10.0.0.1", Some(0)), secs(100));
        for _ in 1..FREE {
            guesses.failed(who, now);
            assert_eq!(guesses.wait(&who, now), Duration::ZERO);
        }
        let (mut now, mut waits) = (now, Vec::new());
        for _ in 0..8 {
            guesses.failed(who, now);
            let wait = guesses.wait(&who, now);
            waits.push(wait.as_millis());
            now += wait;
            assert_eq!(guesses.wait(&who, now), Duration::ZERO);
        }
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn nobody_else_waits() {
        let (mut guesses, now) = (Guesses::default(), secs(1));
        (0..20).for_each(|_| guesses.failed(at("10.0.0.1", Some(0)), now));
        for other in [at("10.0.0.1", Some(1)), at("10.0.0.1", None), at("10.0.0.2", Some(0))] {
            assert_eq!(guesses.wait(&other, now), Duration::ZERO);
        }
        assert_eq!(guesses.wait(&Guesser::new(None, Some(0)), now), Duration::ZERO);
    }

    #[test]
    fn one_network_is_one_guesser_and_a_mapped_address_is_the_same() {
        let (one, other) = (at("2001:db8::1", Some(0)), at("2001:db8::ffff:2", Some(0)));
        assert_eq!(one, other);
        assert_ne!(one, at("2001:db8:0:1::1", Some(0)));
        assert_eq!(at("::ffff:10.0.0.1", None), at("10.0.0.1", None));
    }

    #[test]
    fn the_right_password_and_time_forgive() {
        let (mut guesses, who, now) = (Guesses::default(), at("10.0.0.1", Some(0)), secs(1));
        (0..10).for_each(|_| guesses.failed(who, now));
        guesses.succeeded(&who);
        assert_eq!(guesses.wait(&who, now), Duration::ZERO);
        (0..5).for_each(|_| guesses.failed(who, now));
        guesses.failed(who, now + FORGOTTEN_AFTER);
        assert_eq!(guesses.wait(&who, now + FORGOTTEN_AFTER), Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded_and_a_crowd_frees_nobody() {
        let (mut guesses, known, now) = (Guesses::default(), at("10.0.0.1", Some(0)), secs(1));
        (0..5).for_each(|_| guesses.failed(known, now));
        for number in 0..3 * u32::try_from(GUESSERS_MAX).unwrap() {
            let address = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
            guesses.failed(Guesser::new(Some(address.into()), None), now);
        }
        assert_eq!(guesses.known.len(), GUESSERS_MAX);
        assert!(guesses.wait(&known, now) > Duration::ZERO);
        assert!(guesses.wait(&at("12.0.0.1", None), now) > Duration::ZERO, "the crowd waits together");
    }
}
