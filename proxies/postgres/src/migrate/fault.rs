//! What can go wrong, in words for whoever moves a database.

use groove_common::admin::ClientError;
use groove_common::store::StoreError;

use super::policy::findings::Finding;

/// Why a step of a migration did not happen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// A server said no, or is gone.
    #[error("{node}: {what}: {reason}")]
    Sql {
        /// Which one.
        node: &'static str,
        /// What it was asked.
        what: String,
        /// What it said.
        reason: String,
    },
    /// What is kept cannot be read or written.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is kept makes no sense.
    #[error("the journal of {database} cannot be read: {reason}")]
    Journal {
        /// Whose.
        database: String,
        /// Why.
        reason: String,
    },
    /// Somebody else has changed what is kept.
    #[error("somebody else goes on with this migration: look at `migrate status`")]
    Overtaken,
    /// A proxy said no.
    #[error("{0}")]
    Proxy(#[from] ClientError),
    /// A program did not do what it was to.
    #[error("{program}: {reason}")]
    Tool {
        /// Which one.
        program: String,
        /// What it said.
        reason: String,
    },
    /// It stands still for longer than it may.
    #[error("not within the longest pause: {0}")]
    Budget(String),
    /// It must not be begun.
    #[error("{}", told(.0))]
    Blocked(Vec<Finding>),
    /// It must not be done.
    #[error("{0}")]
    Refused(String),
}

fn told(findings: &[Finding]) -> String {
    let lines: Vec<_> = findings.iter().map(Finding::told).collect();
    format!("nothing has been touched, as this stands in the way:\n{}", lines.join("\n"))
}

/// What a step comes to.
pub(crate) type Outcome<T> = Result<T, Fault>;

/// Something that must not be done.
pub(crate) fn refused<T>(why: impl Into<String>) -> Outcome<T> {
    Err(Fault::Refused(why.into()))
}
