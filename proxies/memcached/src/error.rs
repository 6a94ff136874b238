//! What can go wrong between a request and its answer.

use std::borrow::Cow;
use std::time::Duration;

use groove_common::error::{Classified, Kind, Retry, Side};

use crate::tenant::limits::{Bound, Refused};

/// A request that no server answered. The words for the client are in `reply.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// The server is not reachable, or the breaker keeps it out.
    #[error("the server is down")]
    Down,
    /// The connection broke while the request was on its way.
    #[error("the connection to the server broke")]
    Lost,
    /// No answer within the cluster's timeout.
    #[error("the server did not answer in time")]
    TimedOut,
    /// An answer that does not belong to the request.
    #[error("the server's answer makes no sense")]
    Nonsense,
    /// A value that is larger than we pass on.
    #[error("the value is over the limit")]
    TooLarge,
    /// The cluster has no server yet.
    #[error("no server is known")]
    NoServer,
    /// Others changed the key each time an operation of several steps came to its last.
    #[error("the key is changed too often")]
    Contended,
    /// The tenant asks for more than it may.
    #[error("the tenant is over its {}", .0.bound.name())]
    OverLimit(Refused),
    /// What the tenant's keys begin with is not known: the store that proxies share does not answer.
    #[error("the tenant's generation is not known")]
    NotReady,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Down,
        Self::Lost,
        Self::TimedOut,
        Self::Nonsense,
        Self::TooLarge,
        Self::NoServer,
        Self::Contended,
        Self::OverLimit(Refused { bound: Bound::Requests, retry_after: Duration::from_millis(7) }),
        Self::NotReady,
    ];
}

impl Classified for Failure {
    fn class(&self) -> (Kind, Side, Retry) {
        use Retry::{IfIdempotent, Never, Safe};
        use Side::{Internal, Upstream};
        match self {
            Self::Down => (Kind::Connect, Upstream, Safe),
            Self::Lost => (Kind::Hangup, Upstream, IfIdempotent),
            Self::TimedOut => (Kind::Timeout, Upstream, IfIdempotent),
            Self::Nonsense => (Kind::Protocol, Upstream, Never),
            Self::NoServer => (Kind::NoEndpoint, Upstream, Safe),
            Self::TooLarge => (Kind::Limit, Internal, Never),
            Self::Contended | Self::OverLimit(_) => (Kind::Limit, Internal, Safe),
            Self::NotReady => (Kind::NoEndpoint, Internal, Safe),
        }
    }

    fn client_message(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Down => "the server for this key is down",
            Self::Lost => "the connection to the server for this key broke",
            Self::TimedOut => "the server for this key did not answer in time",
            Self::Nonsense => "the server for this key answered nonsense",
            Self::TooLarge => "the value is larger than this proxy passes on",
            Self::NoServer => "no server is known",
            Self::Contended => "try again",
            Self::OverLimit(Refused { bound, retry_after }) => {
                let (name, wait_ms) = (bound.name(), retry_after.as_millis() + 1);
                return Cow::Owned(format!("this tenant is over its {name}, try again in {wait_ms} ms"));
            }
            Self::NotReady => {
                "the folder that proxies share cannot be read, so this tenant's keys are not known"
            }
        })
    }
}
