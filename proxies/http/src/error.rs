//! Every way an exchange fails, and what each reader of a failure is told.

use crate::session::state::Fault;
use crate::signify::Code;
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
    /// The client's certificate was asked for on behalf of another app than the one its request names.
    #[error("the connection was made for {0:?}, which is another app than the host's")]
    Misdirected(String),
    /// The client sent or took less than the least rate.
    #[error("the client was slower than it may be")]
    TooSlow,
    /// The app, or this route of it, is closed; for so many seconds if that is known.
    #[error("the app is in maintenance")]
    Maintenance(Option<u64>),
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
    /// An operator lets no new exchange begin.
    #[error("app {0} is drained")]
    Drained(String),
    /// The cluster has no endpoint at all.
    #[error("cluster {0} has no endpoint")]
    NoServer(String),
    /// The cluster has endpoints, but none that may be used.
    #[error("cluster {0} has no endpoint to use")]
    NoEndpoint(String),
    /// The proxy has as much under way as it may, and this request's turn does not come.
    #[error("the proxy has as much under way as it may")]
    Overloaded,
    /// As many wait for the app already as may.
    #[error("the queue of {cluster} is full")]
    QueueFull {
        /// Whose queue.
        cluster: String,
        /// When it may have moved on.
        retry_after_s: u64,
    },
    /// No endpoint became free in time.
    #[error("no endpoint of {cluster} became free in time")]
    QueueTimeout {
        /// Whose queue.
        cluster: String,
        /// When it may have moved on.
        retry_after_s: u64,
    },
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
    /// The server answered with a status after which the request is sent again: no client is told.
    #[error("the server answered {0}, and is asked again")]
    Status(u16),
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
            Self::Misdirected(_) => 421,
            Self::HeadTimeout | Self::UploadTimeout | Self::TooSlow => 408,
            Self::ClientGone | Self::ClientStuck => 499,
            Self::UnknownHost(_) => 404,
            Self::NoServer(_)
            | Self::NoEndpoint(_)
            | Self::Full
            | Self::Maintenance(_)
            | Self::Drained(_)
            | Self::Overloaded
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::AuthUnreachable { .. } => 503,
            Self::ConnectTimeout(_) | Self::FirstByteTimeout | Self::DownloadTimeout => 504,
            Self::Unreachable { .. } | Self::Status(_) | Self::Unanswered | Self::Cut | Self::Reply(_) => 502,
        }
    }

    /// The code of what happened, which tells more than the status does.
    pub fn code(&self) -> Code {
        match self {
            Self::Request(_)
            | Self::Expectation
            | Self::Connect
            | Self::MediaType
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. } => Code::H26,
            Self::AuthUnreachable { .. } => Code::H99,
            Self::Misdirected(_) => Code::H31,
            Self::UnknownHost(_) => Code::H30,
            Self::Full | Self::Overloaded => Code::H22,
            Self::QueueFull { .. } | Self::QueueTimeout { .. } => Code::H11,
            Self::HeadTimeout | Self::UploadTimeout | Self::ClientStuck | Self::TooSlow => Code::H28,
            Self::ClientGone => Code::H27,
            Self::Maintenance(_) | Self::Drained(_) => Code::H80,
            Self::NoServer(_) => Code::H14,
            Self::NoEndpoint(_) => Code::H10,
            Self::Unreachable { .. } => Code::H21,
            Self::ConnectTimeout(_) => Code::H19,
            Self::FirstByteTimeout => Code::H12,
            Self::DownloadTimeout => Code::H15,
            Self::Unanswered | Self::Status(_) => Code::H13,
            Self::Cut => Code::H18,
            Self::Reply(Malformed::HeadTooLong | Malformed::TargetTooLong | Malformed::TrailerTooLong) => {
                Code::H25
            }
            Self::Reply(_) => Code::H17,
        }
    }

    /// Seconds after which to try again, where that is worth saying.
    pub fn retry_after_s(&self) -> Option<u64> {
        if let Self::Maintenance(seconds) = self {
            return *seconds;
        }
        if let Self::QueueFull { retry_after_s, .. } | Self::QueueTimeout { retry_after_s, .. } = self {
            return Some(*retry_after_s);
        }
        (self.status() == 503).then_some(1)
    }

    /// Whether what follows on the client's connection can no longer be told apart from what failed.
    pub fn ends_client(&self) -> bool {
        match self {
            Self::Request(_)
            | Self::Connect
            | Self::Full
            | Self::HeadTimeout
            | Self::UploadTimeout
            | Self::Misdirected(_)
            | Self::TooSlow
            | Self::ClientGone
            | Self::ClientStuck => true,
            Self::Expectation
            | Self::Maintenance(_)
            | Self::MediaType
            | Self::Unauthenticated { .. }
            | Self::Forbidden { .. }
            | Self::AuthUnreachable { .. }
            | Self::UnknownHost(_)
            | Self::Drained(_)
            | Self::NoServer(_)
            | Self::NoEndpoint(_)
            | Self::Overloaded
            | Self::QueueFull { .. }
            | Self::QueueTimeout { .. }
            | Self::Unreachable { .. }
            | Self::ConnectTimeout(_)
            | Self::FirstByteTimeout
            | Self::DownloadTimeout
            | Self::Status(_)
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
            // To its client it is the same.
            Fault::Cut | Fault::Encoder => Self::Cut,
            Fault::Status(status) => Self::Status(status),
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
            Self::Request(_) | Self::Expectation | Self::Connect | Self::MediaType => {
                (Kind::Protocol, Downstream, Never)
            }
            Self::Misdirected(_) | Self::Unauthenticated { .. } | Self::Forbidden { .. } => {
                (Kind::Denied, Downstream, Never)
            }
            Self::AuthUnreachable { .. } => (Kind::Connect, Internal, Never),
            Self::HeadTimeout | Self::UploadTimeout | Self::ClientStuck | Self::TooSlow => {
                (Kind::Timeout, Downstream, Never)
            }
            // The app's own doing: nothing of the proxy's or the servers' failed.
            Self::Maintenance(_) => (Kind::Denied, Internal, Never),
            Self::Drained(_) => (Kind::Draining, Internal, Never),
            Self::ClientGone => (Kind::Hangup, Downstream, Never),
            Self::UnknownHost(_) => (Kind::NoRoute, Downstream, Never),
            Self::Full => (Kind::Limit, Internal, Never),
            Self::NoServer(_) | Self::NoEndpoint(_) => (Kind::NoEndpoint, Upstream, Never),
            Self::Overloaded => (Kind::Limit, Internal, Never),
            Self::QueueFull { .. } => (Kind::QueueFull, Upstream, Never),
            Self::QueueTimeout { .. } => (Kind::Timeout, Upstream, Never),
            Self::Unreachable { .. } => (Kind::Connect, Upstream, Safe),
            Self::ConnectTimeout(_) => (Kind::Timeout, Upstream, Safe),
            Self::FirstByteTimeout | Self::DownloadTimeout => (Kind::Timeout, Upstream, Never),
            Self::Status(_) => (Kind::Protocol, Upstream, Safe),
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
            Self::Misdirected(_) => "this connection was made for another host: use a new one".into(),
            Self::TooSlow => "the request came too slowly".into(),
            Self::Maintenance(_) => "the app is being worked on and will be back".into(),
            Self::MediaType => "the type of the request's body is not taken here".into(),
            Self::Unauthenticated { .. } => "who you are has to be shown first".into(),
            Self::Forbidden { .. } => "you may not do this".into(),
            Self::AuthUnreachable { .. } => "who you are cannot be found out at the moment".into(),
            Self::Full => "there are too many connections at the moment".into(),
            Self::HeadTimeout => "the request's head did not arrive in time".into(),
            Self::UploadTimeout => "the request's body did not arrive in time".into(),
            Self::ClientGone | Self::ClientStuck => "the client left".into(),
            Self::UnknownHost(host) => format!("no app answers for the host \"{host}\"").into(),
            Self::Drained(_) => "the app takes no requests at the moment".into(),
            Self::NoServer(_) => "this app has no server at the moment".into(),
            Self::NoEndpoint(_) => "every server of this app is down at the moment".into(),
            Self::Overloaded => "there is too much under way at the moment".into(),
            Self::QueueFull { .. } => "too many requests wait for this app at the moment".into(),
            Self::QueueTimeout { .. } => "no server of this app became free in time".into(),
            Self::Unreachable { .. } => "no server of this app could be reached".into(),
            Self::ConnectTimeout(_) => "no server of this app could be reached in time".into(),
            Self::FirstByteTimeout => "the app did not answer in time".into(),
            Self::DownloadTimeout => "the app's answer stood still".into(),
            Self::Status(_) => "the app failed to answer".into(),
            Self::Unanswered => "the app closed the connection without an answer".into(),
            Self::Cut => "the app closed the connection in the midst of its answer".into(),
            Self::Reply(_) => "the app's answer is not valid HTTP".into(),
        }
    }
}
