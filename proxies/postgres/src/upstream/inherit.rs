//! What a pool has to prove itself with that no configuration tells: for the next process, which has not seen the
//! client's login.
//!
//! It goes over a unix socket that only this user (or root) can open, to a process of the same user, which could as well
//! read it from our memory; it is in no log and no file.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::login::{Credentials, Login};
use super::pool::UserPool;
use crate::auth::Stored;
use crate::auth::scram::SaltedKeys;
use crate::config::Auth;
use crate::error::Error;

/// What was learnt at a client's login.
#[derive(Default, Serialize, Deserialize)]
pub struct Proofs {
    /// Of one who is not configured (`auth_query`, `auth: passthrough`).
    found: Option<Found>,
    /// What a SCRAM proof told, where the configuration has a verifier only.
    keys: Option<SaltedKeys>,
}

#[derive(Serialize, Deserialize)]
struct Found {
    server_user: String,
    password: Option<Stored>,
}

impl Directory {
    /// What to give along with a session of this pool; `None` if the pool is no longer one of ours.
    pub fn proofs(&self, pool: &Arc<UserPool>) -> Option<Proofs> {
        let pools = self.pools.lock();
        let pooled = pools.get(&(pool.database.clone(), pool.user.clone()))?;
        let found = pooled.login.as_ref().filter(|login| login.is_found).map(|login| Found {
            server_user: login.server_user.clone(),
            password: login.server_password.clone(),
        });
        Arc::ptr_eq(&pooled.pool, pool).then(|| Proofs { found, keys: pool.learnt() })
    }

    /// The pool of a session that has logged in before, in another process: where its user may come in here.
    pub fn inherit(&self, database: &str, user: &str, proofs: Proofs) -> Result<Arc<UserPool>, Error> {
        let Proofs { found, keys } = proofs;
        let config = self.config();
        let asks_servers = config.auth_query.is_some() || config.auth == Auth::Passthrough;
        let is_known = config.users.contains_key(user);
        if !is_known && config.auth != Auth::Trust && !(found.is_some() && asks_servers) {
            return Err(Error::Denied { user: user.to_owned() });
        }
        let found =
            found.map(|Found { server_user, password }| Arc::new(Login::inherited(&server_user, password)));
        let login = found.or_else(|| self.login(user));
        self.pool(database, user, Credentials { login, keys })
    }

    /// The next process has our listeners: idle server connections make room for its own, and no new ones are kept warm.
    pub fn hand_over(&self) {
        self.pools().iter().for_each(|pool| pool.hand_over());
    }
}
