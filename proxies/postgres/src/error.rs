//! What can go wrong, and who is told what.

use std::borrow::Cow;
use std::io;

use bytes::Bytes;
use groove_common::error::{Classified, Kind, Retry, Side};

use crate::auth::scram::ScramError;
use crate::wire::DecodeError;
use crate::wire::startup::Version;

/// Everything that ends an exchange or a session.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client's socket failed, or the client left.
    #[error("client: {0}")]
    Client(io::Error),
    /// The client sent what the protocol does not allow.
    #[error("client: {0}")]
    Protocol(#[from] DecodeError),
    /// The client asks for another protocol.
    #[error("unsupported frontend protocol {}.{}: server supports 3.0 to 3.2", .0.major, .0.minor)]
    Version(Version),
    /// TLS without an SSLRequest, and without saying that PostgreSQL is meant.
    #[error("received direct SSL connection request without ALPN protocol negotiation extension")]
    DirectTls,
    /// Something else where the proof was asked for.
    #[error("expected password response, got message type {0}")]
    ExpectedPassword(u8),
    /// Something else in the midst of a SASL exchange.
    #[error("expected SASL response, got message type {0}")]
    ExpectedSasl(u8),
    /// A startup packet without a user.
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
    /// Password, user or database are wrong; the client is told nothing more.
    #[error("password authentication failed for user \"{user}\"")]
    Denied {
        /// As the client gave it.
        user: String,
    },
    /// The client's certificate is not one by which this user may log in.
    #[error("certificate authentication failed for user \"{user}\"")]
    Certificate {
        /// As the client gave it.
        user: String,
    },
    /// Only a certificate will do, and the client showed none.
    #[error("connection requires a valid client certificate")]
    NoCertificate,
    /// The password itself is asked for, and others could read it on its way.
    #[error("a password is not asked for without TLS")]
    InTheClear,
    /// No password at all, which PostgreSQL never takes.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// Not one string.
    #[error("invalid password packet size")]
    PasswordSize,
    /// The client's side of the SASL exchange is broken.
    #[error("client: {0}")]
    Scram(ScramError),
    /// A mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    Mechanism,
    /// A database that is not configured.
    #[error("database \"{0}\" does not exist")]
    NoDatabase(String),
    /// The client takes too long to log in.
    #[error("canceling authentication due to timeout")]
    LoginTimeout,
    /// Too many clients are logging in, or have pools of their own.
    #[error("sorry, too many clients already")]
    TooManyClients,
    /// The listener has no room.
    #[error("sorry, too many clients already on this listener")]
    ListenerFull,
    /// The pool's queue is full.
    #[error("too many clients are waiting for a server connection")]
    QueueFull,
    /// No server connection became free in time.
    #[error("no server connection became free in time")]
    QueueTimeout,
    /// The client cancelled while it waited for a server connection.
    #[error("canceling statement due to user request")]
    Cancelled,
    /// No server may be used.
    #[error("no server of this database is available")]
    NoEndpoint,
    /// There is no primary at this moment, or no replica.
    #[error("no server of this database has the role that is wanted")]
    NoServerOfRole,
    /// Another server is the primary by now.
    #[error("terminating connection because its server is not the primary any more")]
    Deposed,
    /// A server could not be reached.
    #[error("server: {0}")]
    Connect(io::Error),
    /// The server refused our login, in its own words.
    #[error("server: {}", describe(.0))]
    Refused(Bytes),
    /// The server asks for a proof that the configuration has not.
    #[error("server: {0}")]
    ServerAuth(&'static str),
    /// The server lets us in without the client's password: it may be any.
    #[error("server: no password is asked for, so that the client's proves nothing")]
    Unproven,
    /// The server's side of the SASL exchange is broken.
    #[error("server: {0}")]
    ServerScram(ScramError),
    /// The servers could not be asked who may log in.
    #[error("auth_query: {0}")]
    AuthQuery(String),
    /// The server's socket failed, or the server left, in the midst of an exchange.
    #[error("server closed the connection unexpectedly: {0}")]
    Lost(io::Error),
    /// The server sent what the protocol does not allow.
    #[error("server: {0}")]
    Upstream(DecodeError),
    /// The client's settings could not be carried over to a server connection.
    #[error("the session's settings could not be restored on a server connection")]
    Setup,
    /// A transaction block in statement pooling.
    #[error("transaction blocks not allowed in statement pooling mode")]
    StatementMode,
    /// A client has as many prepared statements as it may.
    #[error("more than {max} prepared statements in one session")]
    TooManyStatements {
        /// The configured bound.
        max: usize,
    },
    /// A client's prepared statements are as long together as they may be.
    #[error("more than {max} bytes of prepared statements in one session")]
    StatementBytes {
        /// The configured bound.
        max: usize,
    },
    /// A name that the client has parsed already.
    #[error("prepared statement \"{}\" already exists", String::from_utf8_lossy(.0))]
    DuplicateStatement(Box<[u8]>),
    /// A client that listens does not read what is sent to it.
    #[error("more than {max} bytes of notifications wait for this session")]
    MailboxFull {
        /// The bound.
        max: usize,
    },
    /// Nobody knows what a client that listens has missed.
    #[error("the server connection that receives notifications for this session was lost")]
    ListenerLost,
    /// The same, on purpose.
    #[error(
        "terminating connection: its server connections are being replaced, and it listens for notifications"
    )]
    ListenerReplaced,
    /// An operator lets nobody new in.
    #[error("database \"{0}\" is disabled")]
    Disabled(String),
    /// An operator has ended the session.
    #[error("terminating connection due to administrator command")]
    Killed,
    /// A user of databases only.
    #[error("user \"{0}\" may not use the console")]
    NotOperator(String),
    /// A replicated database does not let the client in.
    #[error("{message}")]
    Group {
        /// SQLSTATE.
        code: &'static str,
        /// Why.
        message: String,
    },
    /// The proxy is going down.
    #[error("terminating connection due to administrator command")]
    Draining,
}

/// An error's code and message, from the body of an ErrorResponse.
fn describe(body: &[u8]) -> String {
    use crate::wire::backend::error_field;
    let field = |kind| String::from_utf8_lossy(error_field(body, kind).unwrap_or_default()).into_owned();
    format!("{} ({})", field(b'M'), field(b'C'))
}

impl Error {
    /// The SQLSTATE the client gets.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Error::Protocol(error) => error.sqlstate(),
            Error::Scram(error) => error.sqlstate(),
            Error::DirectTls
            | Error::ExpectedPassword(_)
            | Error::ExpectedSasl(_)
            | Error::PasswordSize
            | Error::Mechanism => "08P01",
            Error::Version(_) | Error::StatementMode => "0A000",
            Error::NoUser | Error::Certificate { .. } | Error::NoCertificate | Error::InTheClear => "28000",
            Error::Denied { .. } | Error::EmptyPassword => "28P01",
            Error::NoDatabase(_) => "3D000",
            Error::LoginTimeout | Error::Cancelled => "57014",
            Error::TooManyClients | Error::ListenerFull | Error::QueueFull | Error::QueueTimeout => "53300",
            // It may be over soon: a client that tries again is right.
            Error::NoEndpoint | Error::NoServerOfRole | Error::Connect(_) | Error::Disabled(_) => "57P03",
            Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven | Error::AuthQuery(_) => "08001",
            Error::Refused(_) => "08004",
            Error::Client(_) | Error::Lost(_) | Error::ListenerLost => "08006",
            Error::Upstream(_) => "08P01",
            Error::Setup => "XX000",
            Error::TooManyStatements { .. } | Error::StatementBytes { .. } | Error::MailboxFull { .. } => {
                "54000"
            }
            Error::DuplicateStatement(_) => "42P05",
            Error::Draining | Error::Killed | Error::ListenerReplaced | Error::Deposed => "57P01",
            Error::NotOperator(_) => "42501",
            Error::Group { code, .. } => code,
        }
    }

    /// What PostgreSQL adds to the message.
    pub fn detail(&self) -> Option<String> {
        if let Error::Scram(error) = self { error.detail() } else { None }
    }

    /// What the client can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Error::QueueFull => {
                Some("Raise the pool's \"size\" or \"max_waiters\", or run fewer transactions at once.")
            }
            Error::QueueTimeout => {
                Some("Raise the pool's \"size\" or \"max_wait\", or look for transactions that stay open.")
            }
            Error::TooManyStatements { .. } => Some("Close statements, or raise \"limits.statements\"."),
            Error::StatementBytes { .. } => Some("Close statements, or raise \"limits.statement_bytes\"."),
            Error::Protocol(DecodeError::TooLarge { .. }) => Some("Raise \"limits.message\"."),
            Error::ServerAuth(_) => Some("Set \"server_password\" of this user to the plain password."),
            Error::InTheClear => Some("Connect with sslmode=require."),
            Error::StatementMode => Some("Use a pool in transaction mode."),
            Error::NotOperator(_) => Some("Add the user to \"console.admins\" or \"console.stats\"."),
            Error::MailboxFull { .. } => Some("Read notifications as they come, also within transactions."),
            Error::ListenerLost | Error::ListenerReplaced => {
                Some("Connect again, LISTEN, and look for what was missed.")
            }
            Error::Client(_)
            | Error::Protocol(_)
            | Error::Version(_)
            | Error::DirectTls
            | Error::ExpectedPassword(_)
            | Error::ExpectedSasl(_)
            | Error::NoUser
            | Error::Denied { .. }
            | Error::Certificate { .. }
            | Error::NoCertificate
            | Error::EmptyPassword
            | Error::PasswordSize
            | Error::Scram(_)
            | Error::Mechanism
            | Error::NoDatabase(_)
            | Error::LoginTimeout
            | Error::TooManyClients
            | Error::ListenerFull
            | Error::Cancelled
            | Error::NoEndpoint
            | Error::NoServerOfRole
            | Error::Deposed
            | Error::Connect(_)
            | Error::Refused(_)
            | Error::ServerScram(_)
            | Error::Unproven
            | Error::AuthQuery(_)
            | Error::Lost(_)
            | Error::Upstream(_)
            | Error::Setup
            | Error::DuplicateStatement(_)
            | Error::Disabled(_)
            | Error::Killed
            | Error::Group { .. }
            | Error::Draining => None,
        }
    }
}

impl Classified for Error {
    fn class(&self) -> (Kind, Side, Retry) {
        use Retry::{IfIdempotent, Never, Safe};
        use Side::{Downstream, Internal, Upstream};
        match self {
            Error::Client(error) => (Kind::of_io(error), Downstream, Never),
            Error::Protocol(DecodeError::TooLarge { .. })
            | Error::TooManyStatements { .. }
            | Error::StatementBytes { .. }
            | Error::MailboxFull { .. } => (Kind::Limit, Downstream, Never),
            Error::Protocol(_)
            | Error::Version(_)
            | Error::DirectTls
            | Error::ExpectedPassword(_)
            | Error::ExpectedSasl(_)
            | Error::NoUser
            | Error::PasswordSize
            | Error::Scram(_)
            | Error::Mechanism
            | Error::StatementMode
            | Error::DuplicateStatement(_) => (Kind::Protocol, Downstream, Never),
            Error::Denied { .. }
            | Error::Certificate { .. }
            | Error::NoCertificate
            | Error::InTheClear
            | Error::EmptyPassword
            | Error::NotOperator(_) => (Kind::Denied, Downstream, Never),
            Error::NoDatabase(_) => (Kind::NoRoute, Downstream, Never),
            Error::LoginTimeout => (Kind::Timeout, Downstream, Never),
            Error::Cancelled => (Kind::Hangup, Downstream, Never),
            Error::TooManyClients | Error::ListenerFull => (Kind::Limit, Internal, Never),
            Error::QueueFull => (Kind::QueueFull, Internal, Safe),
            Error::QueueTimeout => (Kind::Timeout, Internal, Safe),
            Error::Setup => (Kind::Internal, Internal, Never),
            Error::Draining | Error::Killed | Error::ListenerReplaced => (Kind::Draining, Internal, Safe),
            Error::Disabled(_) => (Kind::Denied, Internal, Never),
            Error::NoEndpoint | Error::NoServerOfRole | Error::Group { .. } => {
                (Kind::NoEndpoint, Upstream, Safe)
            }
            Error::Deposed => (Kind::Hangup, Upstream, IfIdempotent),
            Error::Connect(_) | Error::AuthQuery(_) => (Kind::Connect, Upstream, Safe),
            Error::Refused(_) | Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven => {
                (Kind::Connect, Upstream, Never)
            }
            Error::Lost(error) => (Kind::of_io(error), Upstream, IfIdempotent),
            Error::ListenerLost => (Kind::Hangup, Upstream, Safe),
            Error::Upstream(_) => (Kind::Protocol, Upstream, IfIdempotent),
        }
    }

    fn client_message(&self) -> Cow<'static, str> {
        match self {
            // These name servers and files.
            Error::Connect(_) => "no server of this database can be reached now".into(),
            Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven => {
                "the server did not accept the proxy's login".into()
            }
            Error::AuthQuery(_) => "could not ask the server who may log in".into(),
            Error::Lost(_) => "server closed the connection unexpectedly".into(),
            Error::Upstream(_) => "the server sent an invalid message".into(),
            Error::Scram(error) => error.to_string().into(),
            Error::Protocol(error) => error.to_string().into(),
            Error::Client(_)
            | Error::Version(_)
            | Error::DirectTls
            | Error::ExpectedPassword(_)
            | Error::ExpectedSasl(_)
            | Error::NoUser
            | Error::Denied { .. }
            | Error::Certificate { .. }
            | Error::NoCertificate
            | Error::InTheClear
            | Error::EmptyPassword
            | Error::PasswordSize
            | Error::Mechanism
            | Error::NoDatabase(_)
            | Error::LoginTimeout
            | Error::TooManyClients
            | Error::ListenerFull
            | Error::QueueFull
            | Error::QueueTimeout
            | Error::Cancelled
            | Error::NoEndpoint
            | Error::NoServerOfRole
            | Error::Deposed
            | Error::Refused(_)
            | Error::Setup
            | Error::StatementMode
            | Error::TooManyStatements { .. }
            | Error::StatementBytes { .. }
            | Error::DuplicateStatement(_)
            | Error::MailboxFull { .. }
            | Error::ListenerLost
            | Error::ListenerReplaced
            | Error::Disabled(_)
            | Error::Killed
            | Error::NotOperator(_)
            | Error::Group { .. }
            | Error::Draining => self.to_string().into(),
        }
    }
}
