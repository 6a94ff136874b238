//! A name and a password (RFC 7617).
//!
//! Hashes are made to be slow, so none is computed on a worker's thread, and of all apps together only a few at once. What
//! was found right is known for a while under a key that tells nothing of it, so that a client which sends its password
//! with every request costs a look-up. What was found wrong is never kept: a guess is to cost.

use super::digest::{Digest, FilingKey};
use super::password::{Hash, read_htpasswd};
use super::{Denial, Known, Outcome, Providers, Shown};
use crate::config::auth as written;
use crate::scene::Scene;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use groove_common::app::StartError;
use moka::sync::Cache;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How long a password that was right is known.
const CACHE: Duration = Duration::from_secs(300);
/// Passwords that are known; the ones used least go first.
const CACHE_LEN_MAX: u64 = 10_000;
/// How long a password waits for its turn to be hashed.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// The users of an app or a route.
#[derive(Debug)]
pub struct Basic {
    users: BTreeMap<String, Arc<Hash>>,
    /// Hashed in place of nobody's, so that the time tells nothing of who is there.
    nobody: Option<Arc<Hash>>,
    challenge: String,
    known: Cache<Digest, ()>,
    filing: FilingKey,
    turns: Arc<Semaphore>,
    runtime: tokio::runtime::Handle,
}

impl Basic {
    /// Reads the file, and the users beside it, whose word counts.
    pub fn new(app: &str, basic: &written::Basic, providers: &Providers) -> Result<Self, StartError> {
        let mut users = match &basic.file {
            Some(file) => read_htpasswd(file)?,
            None => BTreeMap::new(),
        };
        for (name, hash) in &basic.users {
            users.insert(name.clone(), Hash::read(hash.expose())?);
        }
        let users: BTreeMap<_, _> = users.into_iter().map(|(name, hash)| (name, Arc::new(hash))).collect();
        let realm = basic.realm.as_deref().unwrap_or(app).replace(['"', '\\'], "");
        let age_max = basic.cache.map_or(CACHE, groove_common::config::Duration::get);
        Ok(Self {
            nobody: users.values().next().cloned(),
            users,
            challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            known: Cache::builder().max_capacity(CACHE_LEN_MAX).time_to_live(age_max).build(),
            filing: FilingKey::new(),
            turns: providers.hashing(),
            runtime: providers.runtime(),
        })
    }

    /// Holds a request against them.
    pub async fn look(&self, scene: &Scene<'_>) -> Outcome {
        let challenge = || Some(self.challenge.clone());
        let Some((name, password)) = scene.list("authorization").and_then(|value| credentials(&value)) else {
            return Denial::absent(challenge());
        };
        let found = self.users.get(&name);
        if let Some(hash) = found.or(self.nobody.as_ref()) {
            let parts = [name.as_bytes(), &password, hash.text().as_bytes()];
            let filed = self.filing.file(&parts);
            let is_known = found.is_some() && self.known.get(&filed).is_some();
            if !is_known {
                match self.verify(Arc::clone(hash), password).await {
                    Some(true) if found.is_some() => self.known.insert(filed, ()),
                    Some(_) => return Denial::wrong("no such user with that password", challenge()),
                    None => return Denial::unreachable("too many passwords are being checked"),
                }
            }
            let shown = vec![Shown::Header("Authorization".to_owned())];
            return Outcome::Known(Box::new(Known { user: name, shown, ..Known::default() }));
        }
        Denial::wrong("no such user with that password", challenge())
    }

    /// Hashes, when it is its turn; `None` if that takes too long.
    async fn verify(&self, hash: Arc<Hash>, password: Vec<u8>) -> Option<bool> {
        let turn = timeout(WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()?;
        let hashed = self.runtime.spawn_blocking(move || {
            let _turn = turn;
            hash.verify(&password)
        });
        hashed.await.ok()
    }
}

/// Name and password of an Authorization header.
fn credentials(value: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = value.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let plain = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = memchr::memchr(b':', &plain)?;
    let name = String::from_utf8(plain.get(..colon)?.to_vec()).ok()?;
    Some((name, plain.get(colon + 1..)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_nothing_else() {
        let read = |value: &str| credentials(value.as_bytes());
        assert_eq!(read("Basic YW5uOnNlY3JldA=="), Some(("ann".into(), b"secret".to_vec())));
        assert_eq!(read("bAsIc  YW5uOmE6Yg=="), Some(("ann".into(), b"a:b".to_vec())));
        assert_eq!(read("Basic YTo="), Some(("a".into(), vec![])));
        for bad in ["", "Basic", "Basic ", "Basic YW5u", "Basic %%", "Bearer YW5uOmE=", "BasicYW5uOmE="] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
