//! Whose a user and a password are.
//!
//! Passwords are compared by a keyed hash (HMAC-SHA256, under a key that is drawn at the start and never leaves the
//! process): a comparison tells nothing by its time, and nothing that is kept can be turned back. An argon2 hash is
//! worked through once for each credential that comes, by few threads at a time; what turned out right is remembered
//! for a while, so that a client that reconnects costs a look.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use groove_common::app::StartError;
use moka::sync::Cache;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::config::Tenant;
use super::guesses::{Guesser, Guesses};
use super::password::{self, Password};

/// Argon2 hashes that are worked through at once.
const VERIFICATIONS_MAX: usize = 2;

/// Credentials that are remembered.
const REMEMBERED_MAX: u64 = 10_000;

/// For how long.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);

/// The keyed hash of a credential.
pub type Tag = [u8; 32];

/// What stays the same over reloads: the key, and what guessers owe.
#[derive(Debug)]
pub struct Keeper {
    key: hmac::Key,
    guesses: Mutex<Guesses>,
    verifications: Arc<Semaphore>,
    started: Instant,
}

impl Keeper {
    /// A keeper with a key of its own.
    ///
    /// # Errors
    ///
    /// When the system has no randomness.
    pub fn new() -> Result<Arc<Self>, StartError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| StartError::from("the system gives no randomness"))?;
        Ok(Arc::new(Self {
            key,
            guesses: Mutex::default(),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            started: Instant::now(),
        }))
    }

    fn tag(&self, user: &[u8], password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&user.len().to_le_bytes());
        context.update(user);
        context.update(password);
        let mut tag = [0; 32];
        let signed = context.sign();
        tag.iter_mut().zip(signed.as_ref()).for_each(|(to, from)| *to = *from);
        tag
    }
}

/// A credential that was right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is: the tenant's place among the configured ones.
    pub tenant: usize,
    /// Which of the configured credentials it was, for [`Vault::still_grants`].
    pub entry: Tag,
}

/// The credentials of one configuration.
#[derive(Debug)]
pub struct Vault {
    keeper: Arc<Keeper>,
    users: HashMap<Box<[u8]>, User>,
    /// Those whose password is known itself.
    plain: HashMap<Tag, Grant>,
    /// Those whose hash was worked through.
    remembered: Cache<Tag, Grant>,
    /// What is worked through for a user that does not exist, so that time does not tell.
    decoy: Option<Arc<str>>,
}

#[derive(Debug)]
struct User {
    number: usize,
    hashes: Vec<(Arc<str>, Grant)>,
}

/// What a look at a credential gave.
enum Looked {
    Right(Grant),
    Wrong,
    /// A hash has to be worked through.
    Hashed,
    /// Not before so long.
    Wait(Duration),
}

impl Vault {
    /// The credentials of these tenants.
    pub fn new(tenants: &BTreeMap<String, Tenant>, keeper: &Arc<Keeper>) -> Self {
        let mut vault = Self {
            keeper: Arc::clone(keeper),
            users: HashMap::new(),
            plain: HashMap::new(),
            remembered: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_FOR).build(),
            decoy: None,
        };
        for (tenant, section) in tenants.values().enumerate() {
            for credential in &section.credentials {
                let (user, text) = (credential.user.as_bytes(), credential.password.expose());
                let entry = keeper.tag(user, text.as_bytes());
                let grant = Grant { tenant, entry };
                let number = vault.users.len();
                let known = vault.users.entry(user.into()).or_insert(User { number, hashes: Vec::new() });
                match Password::read(text) {
                    Ok(Password::Plain(_)) => _ = vault.plain.insert(entry, grant),
                    Ok(Password::Argon2(hash)) => {
                        let hash: Arc<str> = hash.into();
                        vault.decoy.get_or_insert_with(|| Arc::clone(&hash));
                        known.hashes.push((hash, grant));
                    }
                    // The check of the configuration has said so.
                    Err(_) => (),
                }
            }
        }
        vault
    }

    /// Is nobody asked for a password?
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// Is the credential that was right once still one of those that are?
    pub fn still_grants(&self, user: &[u8], entry: &Tag) -> Option<Grant> {
        let hashed = self.users.get(user).into_iter().flat_map(|user| &user.hashes);
        let mut hashed = hashed.map(|(_, grant)| *grant).filter(|grant| grant.entry == *entry);
        self.plain.get(entry).copied().or_else(|| hashed.next())
    }

    /// Whose credential this is, after whatever this guesser has to wait. None: nobody's.
    pub async fn verify(
        &self,
        address: Option<std::net::IpAddr>,
        user: &[u8],
        password: &[u8],
    ) -> Option<Grant> {
        let tag = self.keeper.tag(user, password);
        let known = self.users.get(user);
        let who = Guesser::new(address, known.map(|user| user.number));
        loop {
            match self.look(&tag, &who, known.is_some_and(|user| !user.hashes.is_empty())) {
                Looked::Right(grant) => return Some(grant),
                Looked::Wrong => return None,
                Looked::Wait(time) => sleep(time).await,
                Looked::Hashed => {
                    let Ok(permit) = Arc::clone(&self.keeper.verifications).acquire_owned().await else {
                        return None;
                    };
                    // Somebody with the same password may have been quicker, or a guesser's wait have grown.
                    match self.look(&tag, &who, true) {
                        Looked::Right(grant) => return Some(grant),
                        Looked::Wait(_) => continue,
                        Looked::Wrong | Looked::Hashed => (),
                    }
                    let right = self.work_through(known, password, permit).await;
                    return self.conclude(tag, who, right);
                }
            }
        }
    }

    /// Whose a credential is whose password is known itself, at once.
    #[cfg(test)]
    pub(super) fn verify_now(&self, user: &[u8], password: &[u8]) -> Option<Grant> {
        self.plain.get(&self.keeper.tag(user, password)).copied()
    }

    /// All that can be told without work.
    fn look(&self, tag: &Tag, who: &Guesser, is_hashed: bool) -> Looked {
        let now = self.keeper.started.elapsed();
        let mut guesses = self.keeper.guesses.lock();
        let wait = guesses.wait(who, now);
        if !wait.is_zero() {
            return Looked::Wait(wait);
        }
        let found = self.plain.get(tag).copied().or_else(|| self.remembered.get(tag));
        if let Some(grant) = found {
            guesses.succeeded(who);
            return Looked::Right(grant);
        }
        if is_hashed || self.decoy.is_some() {
            return Looked::Hashed;
        }
        guesses.failed(*who, now);
        Looked::Wrong
    }

    /// Works through the user's hashes, or through the decoy, on a thread of its own.
    async fn work_through(
        &self,
        known: Option<&User>,
        password: &[u8],
        permit: tokio::sync::OwnedSemaphorePermit,
    ) -> Option<Grant> {
        let hashes: Vec<(Arc<str>, Option<Grant>)> = match known.filter(|user| !user.hashes.is_empty()) {
            Some(user) => user.hashes.iter().map(|(hash, grant)| (Arc::clone(hash), Some(*grant))).collect(),
            None => self.decoy.iter().map(|hash| (Arc::clone(hash), None)).collect(),
        };
        let password = password.to_vec();
        let worked = spawn_blocking(move || {
            // Held for as long as the work takes, whoever still waits for it.
            let _permit = permit;
            hashes
                .into_iter()
                .find(|(hash, _)| password::verify(&password, hash))
                .and_then(|(_, grant)| grant)
        });
        worked.await.ok().flatten()
    }

    fn conclude(&self, tag: Tag, who: Guesser, right: Option<Grant>) -> Option<Grant> {
        let mut guesses = self.keeper.guesses.lock();
        match right {
            Some(grant) => {
                guesses.succeeded(&who);
                self.remembered.insert(tag, grant);
            }
            None => guesses.failed(who, self.keeper.started.elapsed()),
        }
        right
    }
}

#[cfg(test)]
#[path = "vault_tests.rs"]
mod tests;
