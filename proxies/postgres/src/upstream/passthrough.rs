//! Passwords that only the servers know: `auth: passthrough`.
//!
//! A client's password is proven by logging into the server with it. What was proven is believed for a while, and kept
//! with the pool, which logs in with it. Who guesses waits: one guess at a time for each user, database and address,
//! and each that is wrong takes its time. A server that asks for no password proves nothing.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{sleep, timeout};

use super::dial::Target;
use super::login::Login;
use crate::auth::Stored;
use crate::error::Error;
use crate::wire::backend::error_field;

/// How long a server's word is believed: after a change of a password the one of before is good for so long at the most.
const PROVEN_FOR: Duration = Duration::from_secs(60);
/// What a wrong password costs, beside the server's own delays.
const WRONG_COSTS: Duration = Duration::from_secs(1);
/// Logins under way that may turn out to be guesses.
const PROOFS_MAX: usize = 8;
/// Bytes of names and passwords in memory, for those who were proven and again for those in line.
const CACHE_BYTES_MAX: u64 = 8 << 20;
/// What an entry takes beside its names.
const ENTRY_BYTES: usize = 1024;

/// Who says who he is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The database, as clients name it.
    pub database: String,
    /// The user.
    pub user: String,
    /// From where; a unix socket has no address.
    pub from: Option<IpAddr>,
}

/// What the servers have confirmed, and who is being confirmed.
pub(super) struct Passthrough {
    proven: Cache<(String, String), Arc<Login>>,
    turns: Cache<Claim, Arc<Mutex<()>>>,
    proofs: Semaphore,
}

impl Default for Passthrough {
    fn default() -> Passthrough {
        let bytes = |names: usize| u32::try_from(names + ENTRY_BYTES).unwrap_or(u32::MAX);
        Passthrough {
            proven: Cache::builder()
                .weigher(move |(database, user): &(String, String), login: &Arc<Login>| {
                    bytes(database.len() + user.len() + 2 * plain(login).len())
                })
                .max_capacity(CACHE_BYTES_MAX)
                .time_to_live(PROVEN_FOR)
                .build(),
            turns: Cache::builder()
                .weigher(move |claim: &Claim, _: &Arc<Mutex<()>>| {
                    bytes(claim.database.len() + claim.user.len())
                })
                .max_capacity(CACHE_BYTES_MAX)
                .time_to_idle(PROVEN_FOR)
                .build(),
            proofs: Semaphore::new(PROOFS_MAX),
        }
    }
}

impl Passthrough {
    /// The login of one who gives this password, if the servers take it. `target` says where and as whom to try; there
    /// is none for a database that does not exist, which is told as slowly as a wrong password.
    pub(super) async fn prove(
        &self,
        claim: Claim,
        login: Login,
        target: Option<Target>,
    ) -> Result<Arc<Login>, Error> {
        if let Some(known) = self.known(&claim, &login) {
            return Ok(known);
        }
        let turn = self.turns.get_with(claim.clone(), Arc::default);
        let _turn = turn.lock().await;
        // Who stood before in line may have been the same.
        if let Some(known) = self.known(&claim, &login) {
            return Ok(known);
        }
        let outcome = match target {
            Some(target) => self.ask(target).await,
            None => Err(Error::Denied { user: claim.user.clone() }),
        };
        match outcome {
            Ok(()) => {
                let login = Arc::new(login);
                self.proven.insert((claim.database, claim.user), Arc::clone(&login));
                Ok(login)
            }
            Err(error) => {
                if is_denial(&error) {
                    sleep(WRONG_COSTS).await;
                }
                Err(error)
            }
        }
    }

    fn known(&self, claim: &Claim, login: &Login) -> Option<Arc<Login>> {
        let known = self.proven.get(&(claim.database.clone(), claim.user.clone()))?;
        let is_same = verify_slices_are_equal(plain(&known).as_bytes(), plain(login).as_bytes()).is_ok();
        (is_same && known.is_as(Some(login))).then_some(known)
    }

    async fn ask(&self, mut target: Target) -> Result<(), Error> {
        target.must_prove = true;
        let _permit = self.proofs.acquire().await.map_err(|_| Error::Draining)?;
        // The connection has done what it was for.
        let proof = timeout(target.connect, target.dial(&[])).await;
        proof.map_err(|_| Error::Connect(std::io::ErrorKind::TimedOut.into()))?.map(drop)
    }
}

fn plain(login: &Login) -> &str {
    match &login.password {
        Some(Stored::Plain(password)) => password,
        Some(Stored::Md5(_) | Stored::Scram(_)) | None => "",
    }
}

/// Whether it is the password, the user or what he may, as opposed to a server that is away.
fn is_denial(error: &Error) -> bool {
    if let Error::Refused(body) = error {
        return error_field(body, b'C').is_some_and(|code| code.starts_with(b"28"));
    }
    matches!(error, Error::Denied { .. } | Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven)
}
