//! A PostgreSQL sidecar: a pooler that sessions do not notice.

// That a session may go to another thread follows from all that it holds, a pool's connection deep down included.
#![recursion_limit = "256"]

pub mod auth;
pub mod config;
pub mod console;
mod demo;
pub mod error;
mod import;
pub mod listen;
pub mod live;
pub mod metrics;
pub mod migrate;
pub mod pgbadger;
mod proxy;
pub mod replicate;
pub mod reply;
pub mod roles;
pub mod route;
pub mod session;
pub mod split;
pub mod sql;
pub mod tap;
pub mod upstream;
pub mod wire;

use std::sync::Arc;

use groove_common::telemetry::AccessLog;
use tokio::sync::Semaphore;

pub use proxy::Postgres;

/// What all sessions share.
pub struct Shared {
    /// Users, databases, pools.
    pub directory: Arc<upstream::Directory>,
    /// Sessions by cancel key.
    pub cancels: Arc<session::cancel::Cancels>,
    /// Counted before a client has a pool.
    pub login_metrics: metrics::LoginMetrics,
    /// Who is connected.
    pub live: Arc<live::Live>,
    /// What the databases had counted a while ago.
    pub history: console::History,
    /// The program around us.
    pub control: groove_common::app::Control,
    /// Who is told of statements.
    pub tap: tap::Tap,
    /// Databases whose servers each carry out every write.
    pub groups: replicate::Groups,
    /// Logs that pgbadger reads.
    pub pgbadger: Arc<pgbadger::Pgbadger>,
    /// Where exchanges are logged.
    pub access: AccessLog,
    /// Clients that may be logging in at once.
    pub logins: Semaphore,
    /// Where databases have moved to, and their gates.
    pub migrations: migrate::Keeper,
    /// The way to the next process, and to the one before.
    pub handover: groove_common::lifecycle::handover::HandOver,
}

impl Shared {
    /// Carries a cancel request out, or passes it on to the process before this one, where its session may still be.
    /// False if it names none.
    pub async fn cancel(&self, key: wire::startup::CancelKey) -> bool {
        self.cancels.cancel(&key).await || self.handover.tell(key.to_word()).await
    }
}
