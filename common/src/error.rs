//! Words shared by every error: which side failed, and whether to try again.
//!
//! Each proxy's top error (`error.rs`) implements [`Classified`]: four answers, for four readers, of which three
//! stand in a row of a table.
//!
//! | answer | who reads it |
//! |---|---|
//! | [`kind`](Classified::kind) | the metric: a label with few values |
//! | [`side`](Classified::side) | the log, and the person who is woken up: whose fault is it |
//! | [`retry`](Classified::retry) | the driver: may the exchange be tried elsewhere |
//! | [`client_message`](Classified::client_message) | the client: what it may be told, and no more |
//!
//! The error's own `Display` and sources are for the log alone: they may name servers and files.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The app's side: it sent something wrong, or went away.
    Downstream,
    /// The servers' side: unreachable, slow, or wrong.
    Upstream,
    /// The proxy's own: a limit, a configuration, a defect.
    Internal,
}

impl Side {
    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Whether the exchange that failed may be tried again, on another endpoint or a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Retry {
    /// Nothing of it reached a server: try again, whatever it was.
    Safe,
    /// A server may have acted on it: try again only what changes nothing.
    IfIdempotent,
    /// Trying again cannot help, or would do harm.
    Never,
}

/// What failed, in words that all proxies share: the values of the metric label `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The peer closed or reset the connection. Logged at debug level.
    Hangup,
    /// A connection could not be opened.
    Connect,
    /// TLS could not be agreed on.
    Tls,
    /// Bytes that the protocol does not allow.
    Protocol,
    /// Over a bound: a buffer, a queue, a header, a key, a value.
    Limit,
    /// Who is there is not known, or not allowed.
    Denied,
    /// No route for this request.
    NoRoute,
    /// No endpoint that may be used.
    NoEndpoint,
    /// The queue for a connection was full.
    QueueFull,
    /// A deadline passed.
    Timeout,
    /// The proxy is draining.
    Draining,
    /// A defect of ours.
    Internal,
}

impl Kind {
    /// Every kind, so that a metric can have all its series from the start.
    pub const ALL: [Self; 12] = [
        Self::Hangup,
        Self::Connect,
        Self::Tls,
        Self::Protocol,
        Self::Limit,
        Self::Denied,
        Self::NoRoute,
        Self::NoEndpoint,
        Self::QueueFull,
        Self::Timeout,
        Self::Draining,
        Self::Internal,
    ];

    /// The metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hangup => "hangup",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Limit => "limit",
            Self::Denied => "denied",
            Self::NoRoute => "no_route",
            Self::NoEndpoint => "no_endpoint",
            Self::QueueFull => "queue_full",
            Self::Timeout => "timeout",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// What an error of an established connection means: mostly that the peer left.
    pub fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as E;
        let kind = error.kind();
        if matches!(kind, E::TimedOut) {
            Self::Timeout
        } else if matches!(kind, E::InvalidData) {
            // rustls reports what the peer did wrong as invalid data.
            Self::Tls
        } else {
            Self::Hangup
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// What each proxy's top error answers.
pub trait Classified: Error {
    /// What failed, whose fault it is, and whether to try the exchange again: a row an error.
    fn class(&self) -> (Kind, Side, Retry);

    /// What failed, as a metric label.
    fn kind(&self) -> Kind {
        self.class().0
    }

    /// Whose fault it is.
    fn side(&self) -> Side {
        self.class().1
    }

    /// Whether to try the exchange again.
    fn retry(&self) -> Retry {
        self.class().2
    }

    /// What the client is told: nothing of servers, files or configuration.
    fn client_message(&self) -> Cow<'static, str>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_a_kind() {
        let labels: std::collections::BTreeSet<_> = Kind::ALL.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), Kind::ALL.len());
    }

    #[test]
    fn what_io_says_of_a_connection() {
        let of = |kind: io::ErrorKind| Kind::of_io(&kind.into());
        assert_eq!(of(io::ErrorKind::TimedOut), Kind::Timeout);
        assert_eq!(of(io::ErrorKind::ConnectionReset), Kind::Hangup);
        assert_eq!(of(io::ErrorKind::InvalidData), Kind::Tls);
    }
}
