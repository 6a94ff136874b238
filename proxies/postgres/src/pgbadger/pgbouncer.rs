//! Lines of PgBouncer's log.
//!
//! They are as older releases wrote them: no brackets about the process, no unit behind an age. That form pgbadger 12
//! reads in full, while of PgBouncer 1.18's it leaves out how long sessions took, or all if it is told `-f pgbouncer`.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, SystemTime};

use groove_common::net::Peer;

use super::{Name, Text, Time, Who};
use crate::error::Error;
use crate::metrics::Totals;

/// A line about a client.
pub(super) fn line(at: SystemTime, level: &str, who: &Who<'_>, message: &str) -> String {
    let Who { number, database, user, peer } = *who;
    let (database, user, peer) = (Name(database), Name(user), Where(peer));
    let message = Text(message);
    format!("{} C-0x{number:x}: {database}/{user}@{peer} {message}\n", Head(at, level))
}

pub(super) fn attempt(database: &str, user: &str, is_tls: bool) -> String {
    let tls = if is_tls { "yes" } else { "no" };
    format!("login attempt: db={} user={} tls={tls}", Name(database), Name(user))
}

pub(super) fn closing(reason: &str, age: Duration) -> String {
    format!("closing because: {reason} (age={})", age.as_secs())
}

pub(super) fn problem(error: &Error) -> String {
    format!("pooler error: {error}")
}

/// How much went through.
pub(super) fn stats(at: SystemTime, average: Totals) -> String {
    let Totals { transactions, queries, received, sent, transaction_us, query_us, wait_us } = average;
    format!(
        "{} stats: {transactions} xacts/s, {queries} queries/s, in {received} B/s, out {sent} B/s, \
         xact {transaction_us} us, query {query_us} us, wait {wait_us} us\n",
        Head(at, "LOG"),
    )
}

/// The line that tells of lines that were lost.
pub(super) fn lost(lines: u64) -> String {
    format!("{} {lines} lines of this log were lost\n", Head(SystemTime::now(), "WARNING"))
}

/// What each line begins with: when, the process, how bad it is.
struct Head<'a>(SystemTime, &'a str);

impl Display for Head<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", Time(self.0), std::process::id(), self.1)
    }
}

/// Where a client comes from. pgbadger takes the colons of an IPv6 address for what they are only without brackets.
struct Where(Peer);

impl Display for Where {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Peer::Ip(address) if address.is_ipv6() => write!(f, "{}({})", address.ip(), address.port()),
            Peer::Ip(address) => write!(f, "{address}"),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(peer: Peer) -> Who<'static> {
        Who { number: 26, database: "shop", user: "app", peer }
    }

    #[test]
    fn a_session_is_told_in_pgbouncers_words() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_234);
        let process = std::process::id();
        let told =
            |peer: &str, message: &str| line(at, "LOG", &who(Peer::Ip(peer.parse().unwrap())), message);
        assert_eq!(
            told("10.0.0.7:5555", &attempt("shop", "app", true)),
            format!(
                "1970-01-01 00:00:01.234 UTC {process} LOG C-0x1a: shop/app@10.0.0.7:5555 \
                 login attempt: db=shop user=app tls=yes\n"
            )
        );
        let age = Duration::from_millis(5_900);
        let closed = told("[2001:db8::1]:5555", &closing("client close request", age));
        assert!(
            closed.ends_with(" shop/app@2001:db8::1(5555) closing because: client close request (age=5)\n"),
            "{closed}"
        );
    }

    #[test]
    fn nobody_writes_a_line_of_its_own() {
        let who = Who { database: "a b/c\nd", user: "x@y\r", ..who(Peer::Unix) };
        let told = line(SystemTime::UNIX_EPOCH, "LOG", &who, "bad\nnews");
        assert!(told.ends_with(" C-0x1a: a_b_c_d/x_y_@unix bad news\n"), "{told}");
        assert_eq!(attempt("a b", "c=d", false), "login attempt: db=a_b user=c_d tls=no");
    }
}
