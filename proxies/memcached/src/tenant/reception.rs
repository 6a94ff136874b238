//! A connection's way to its tenant: where it came in, its certificate, its password; then a session.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use groove_common::net::Downstream;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::counters::LoginMetrics;
use super::directory::{Arrival, Directory, Member, Proof, Tenant};
use super::generations::Generations;
use super::login::{self, Door, LoginError, Porch};
use crate::reply;

/// How long a connection waits for its tenant's generation, which is known moments after the start.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a worker needs to receive tenants' clients.
#[derive(Debug)]
pub struct Reception {
    porch: Rc<Porch>,
    logins: LoginMetrics,
    workers: usize,
    /// For `flush_all`.
    pub generations: Arc<Generations>,
}

/// A client that is somebody's, and what it has sent already.
pub struct Received {
    /// Whose it is.
    pub member: Member,
    /// What is to be looked at next.
    pub input: BytesMut,
}

impl Reception {
    /// One of so many workers.
    pub fn new(workers: usize, logins: LoginMetrics, generations: Arc<Generations>) -> Self {
        Self { porch: Rc::default(), logins, workers, generations }
    }

    /// Of how many workers this is one.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Finds out whose a connection is. None: it has been told why it is not served, if it could be.
    pub async fn receive(&self, directory: &Directory, conn: &mut Downstream) -> Option<Received> {
        let mut input = BytesMut::new();
        let member = match self.find(directory, conn, &mut input).await {
            Ok(member) => member,
            Err(Turned::Login(error)) => {
                debug!(peer = %conn.peer, %error, "nobody logged in");
                return None;
            }
            Err(Turned::Away(words)) => {
                // It may be gone already; it is not served either way.
                _ = conn.stream.write_all(words).await;
                return None;
            }
        };
        let tenant = Arc::clone(&member.tenant);
        let is_known = async {
            while tenant.head().is_none() {
                sleep(LOOK_EVERY).await;
            }
        };
        if tenant.head().is_none() && timeout(KNOWN_WITHIN, is_known).await.is_err() {
            // Its requests are told so.
            debug!(tenant = tenant.name(), "the tenant's generation is not known");
        }
        Some(Received { member, input })
    }

    async fn find(
        &self,
        directory: &Directory,
        conn: &mut Downstream,
        input: &mut BytesMut,
    ) -> Result<Member, Turned> {
        let certificate = conn.tls.as_ref().and_then(|tls| tls.certificate.as_ref());
        let names = certificate.map(|certificate| certificate.names.as_slice()).unwrap_or_default();
        match directory.arrive(&conn.listener.name, names) {
            Arrival::Known(tenant, proof) => {
                let may_log_in = directory.may_log_in(&conn.listener.name, &proof);
                if may_log_in && login::wants_to(conn, input).await.map_err(Turned::Login)? {
                    return self.log_in(directory, conn, input).await;
                }
                enter(tenant, proof)
            }
            Arrival::MustLogIn => self.log_in(directory, conn, input).await,
            Arrival::Nobody => Err(Turned::Away(login::UNAUTHENTICATED)),
        }
    }

    async fn log_in(
        &self,
        directory: &Directory,
        conn: &mut Downstream,
        input: &mut BytesMut,
    ) -> Result<Member, Turned> {
        let places = directory.authentication().pending.div_ceil(self.workers.max(1));
        let door = Door { directory, places, metrics: &self.logins };
        login::log_in(door, &self.porch, conn, input).await.map_err(Turned::Login)
    }
}

/// Why a connection is not served.
enum Turned {
    Login(LoginError),
    /// With these words.
    Away(&'static [u8]),
}

fn enter(tenant: Arc<Tenant>, proof: Proof) -> Result<Member, Turned> {
    Member::enter(tenant, proof).map_err(|_| Turned::Away(reply::TOO_MANY_CONNECTIONS))
}
