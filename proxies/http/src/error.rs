//! Every way an exchange fails, and what each reader of a failure is told.

use crate::session::state::Fault;
use crate::wire::Malformed;
use groove_common::error::{Classified, Kind, Retry, Side};
use std::borrow::Cow;
use thiserror::Error;

/// Why an exchange failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The request is not HTTP as we read it, or over a limit.
    #[error("the request was refused: {0}")]
    Request(Malformed),
    /// An Expect that nobody here can meet.
    #[error("the request expects what is not offered")]
    Expectation,
    /// CONNECT: this is no forward proxy.
    #[error("CONNECT was refused")]
    Connect,
    /// The listener has as many connections as it may have.
    #[error("the listener is full")]
    Full,
    /// The client took too long over its head.
    #[error("the request's head took too long")]
    HeadTimeout,
    /// The client's body stood still.
    #[error("the request's body stood still for too long")]
    UploadTimeout,
    /// The client left before its exchange was over.
    #[error("the client left")]
    ClientGone,
    /// The client stopped reading.
    #[error("the client did not take its reply")]
    ClientStuck,
    /// Its body's type is none that the route takes.
    #[error("the body's type is not taken here")]
    MediaType,
    /// Who sends it is not known.
    #[error("{way}: {reason}")]
    Unauthenticated {
        /// The way to be known that said so.
        way: &'static str,
        /// Why.
        reason: &'static str,
        /// What WWW-Authenticate says.
        challenges: Vec<String>,
    },
    /// Who sends it is known, and may not.
    #[error("{way}: {reason}")]
    Forbidden {
        /// The way to be known that said so.
        way: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// Who would know the client cannot be reached.
    #[error("{way}: {reason}")]
    AuthUnreachable {
        /// The way to be known that said so.
        way: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// No app has this host.
    #[error("no app has the host {0:?}")]
    UnknownHost(String),
    /// The cluster has no endpoint that may be used.
    #[error("cluster {0} has no endpoint to use")]
    NoEndpoint(String),
    /// No endpoint could be connected to.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// The endpoint tried last.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// Connecting took too long.
    #[error("connecting to {0} took too long")]
    ConnectTimeout(String),
    /// The server owes its first byte for too long.
    #[error("the server did not answer in time")]
    FirstByteTimeout,
    /// A reply stood still.
    #[error("the server's reply stood still for too long")]
    DownloadTimeout,
    /// The server closed without answering.
    #[error("the server closed the connection without a reply")]
    Unanswered,
    /// The server closed in the midst of its reply.
    #[error("the server closed the connection in the midst of its reply")]
    Cut,
    /// The server's reply is not HTTP as we read it.
    #[error("the server's reply was refused: {0}")]
    Reply(Malformed),
}

impl Error {
    /// The status a client sees, where it still can be shown one. 499 is for the log alone: nobody is there to see it.
    pub fn status(&self) -> u16 {
        match self {
            Self::Request(malformed) => malformed.status(),
            Self::Expectation => 417,
            Self::MediaType => 415,
            Self::Unauthenticated { .. } => 401,
            Self::Forbidden { .. } => 403,
            Self::Connect => 405,
            Self::HeadTimeout | Self::UploadTimeout => 408,
            Self::ClientGone | Self::ClientStuck => 499,
            Self::UnknownHost(_) => 404,
            Self::NoEndpoint(_) | Self::Full | Self::AuthUnreachable { .. } => 503,
            Self::ConnectTimeout(_) | Self::FirstByteTimeout | Self::DownloadTimeout => 504,
            Self::Unreachable { .. } | Self::Unanswered | Self::Cut | Self::Reply(_) => 502,
        }
    }

    /// Whether what follows on the client's connection can no longer be told apart from what failed.
    pub fn ends_client(&self) -> bool {
        match self {
            Self::Request(_)
            | Self::Connect
            | Self::Full
            | Self::HeadTimeout
            | Self::UploadTimeout
            | Self::ClientGone
            | Self::ClientStuck => true,
            Self::Expectation
            | Self::MediaType
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::AuthUnreachable { .. }
            | Self::UnknownHost(_)
            | Self::NoEndpoint(_)
            | Self::Unreachable { .. }
            | Self::ConnectTimeout(_)
            | Self::FirstByteTimeout
            | Self::DownloadTimeout
            | Self::Unanswered
            | Self::Cut
            | Self::Reply(_) => false,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Request(malformed) => Self::Request(malformed),
            Fault::Reply(malformed) => Self::Reply(malformed),
            Fault::Unanswered => Self::Unanswered,
            Fault::Cut => Self::Cut,
        }
    }
}

impl Classified for Error {
    fn class(&self) -> (Kind, Side, Retry) {
        use Retry::{IfIdempotent, Never, Safe};
        use Side::{Downstream, Internal, Upstream};
        match self {
            Self::Request(Malformed::HeadTooLong | Malformed::TargetTooLong | Malformed::BodyTooLarge) => {
                (Kind::Limit, Downstream, Never)
            }
            Self::Unauthenticated { .. } | Self::Forbidden { .. } => (Kind::Denied, Downstream, Never),
            Self::AuthUnreachable { .. } => (Kind::Connect, Internal, Never),
            Self::Request(_) | Self::Expectation | Self::Connect | Self::MediaType => {
                (Kind::Protocol, Downstream, Never)
            }
            Self::HeadTimeout | Self::UploadTimeout | Self::ClientStuck => (Kind::Timeout, Downstream, Never),
            Self::ClientGone => (Kind::Hangup, Downstream, Never),
            Self::UnknownHost(_) => (Kind::NoRoute, Downstream, Never),
            Self::Full => (Kind::Limit, Internal, Never),
            Self::NoEndpoint(_) => (Kind::NoEndpoint, Upstream, Never),
            Self::Unreachable { .. } => (Kind::Connect, Upstream, Safe),
            Self::ConnectTimeout(_) => (Kind::Timeout, Upstream, Safe),
            Self::FirstByteTimeout | Self::DownloadTimeout => (Kind::Timeout, Upstream, Never),
            Self::Unanswered => (Kind::Hangup, Upstream, IfIdempotent),
            Self::Cut => (Kind::Hangup, Upstream, Never),
            Self::Reply(_) => (Kind::Protocol, Upstream, Never),
        }
    }

    fn client_message(&self) -> Cow<'static, str> {
        match self {
            Self::Request(malformed) => format!("{malformed}").into(),
            Self::Expectation => "only \"Expect: 100-continue\" can be met here".into(),
            Self::Connect => "this is not a forward proxy: CONNECT is not offered".into(),
            Self::MediaType => "the type of the request's body is not taken here".into(),
            Self::Unauthenticated { .. } => "who you are has to be shown first".into(),
            Self::Forbidden { .. } => "you may not do this".into(),
            Self::AuthUnreachable { .. } => "who you are cannot be found out at the moment".into(),
            Self::Full => "there are too many connections at the moment".into(),
            Self::HeadTimeout => "the request's head did not arrive in time".into(),
            Self::UploadTimeout => "the request's body did not arrive in time".into(),
            Self::ClientGone | Self::ClientStuck => "the client left".into(),
            Self::UnknownHost(host) => format!("no app answers for the host \"{host}\"").into(),
            Self::NoEndpoint(_) => "no server of this app can be used at the moment".into(),
            Self::Unreachable { .. } => "no server of this app could be reached".into(),
            Self::ConnectTimeout(_) => "no server of this app could be reached in time".into(),
            Self::FirstByteTimeout => "the app did not answer in time".into(),
            Self::DownloadTimeout => "the app's answer stood still".into(),
            Self::Unanswered => "the app closed the connection without an answer".into(),
            Self::Cut => "the app closed the connection in the midst of its answer".into(),
            Self::Reply(_) => "the app's answer is not valid HTTP".into(),
        }
    }
}
