//! Key sets (RFC 7517) of a file or a URL.
//!
//! A set is fetched before anybody asks, again every few minutes, and at once when a token names a key that is not in it,
//! but at most every two seconds: a flood of forged names is not to become a flood of fetches. What was
//! fetched stays good while the provider is away.

use super::outbound::{Client, Url};
use arc_swap::ArcSwap;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

/// How often a set is fetched again.
pub const REFRESH: Duration = Duration::from_secs(300);
/// How long after a fetch a name that is not known may cause another.
const REFETCH_AFTER: Duration = Duration::from_secs(2);
/// How long after a fetch that failed the next one follows, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Keys of a set that are looked at.
const KEYS_MAX: usize = 100;

/// One key.
#[derive(Debug)]
pub struct Key {
    id: Option<String>,
    /// It has no name, and a token may call it by any.
    is_anybodys: bool,
    algorithms: Vec<Algorithm>,
    /// The key itself.
    pub key: DecodingKey,
}

/// Keys at one moment.
#[derive(Debug, Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// Those keys of a set that can check signatures here. Keys that are secrets are left out: who can read a public set
    /// could sign with them.
    pub fn of(set: &JwkSet) -> Self {
        Self(set.keys.iter().take(KEYS_MAX).filter_map(Key::of).collect())
    }

    /// Reads a set.
    pub fn read(json: &[u8]) -> Result<Self, String> {
        let set: JwkSet =
            serde_json::from_slice(json).map_err(|error| format!("this is no key set: {error}"))?;
        let keys = Self::of(&set);
        if keys.0.is_empty() {
            Err("there is no key in it that could check a signature".to_owned())
        } else {
            Ok(keys)
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that a token's header may mean.
    pub fn find(&self, id: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(move |key| {
            let is_meant = id.is_none() || key.is_anybodys || key.id.as_deref() == id;
            is_meant && key.algorithms.contains(&algorithm)
        })
    }
}

impl Key {
    fn of(jwk: &Jwk) -> Option<Self> {
        if jwk.common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
            return None;
        }
        use Algorithm as A;
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512],
            AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P256 => vec![A::ES256],
            AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P384 => vec![A::ES384],
            AlgorithmParameters::OctetKeyPair(it) if it.curve == EllipticCurve::Ed25519 => vec![A::EdDSA],
            AlgorithmParameters::EllipticCurve(_)
            | AlgorithmParameters::OctetKeyPair(_)
            | AlgorithmParameters::OctetKey(_)
            | AlgorithmParameters::Other(_)
            | _ => return None,
        };
        if let Some(only) = jwk.common.key_algorithm {
            algorithms.retain(|algorithm| KeyAlgorithm::from(*algorithm) == only);
        }
        let key = DecodingKey::from_jwk(jwk).ok()?;
        let id = jwk.common.key_id.clone();
        (!algorithms.is_empty()).then(|| Self { id, is_anybodys: false, algorithms, key })
    }

    /// One that has no name.
    pub fn of_anybody(algorithms: Vec<Algorithm>, key: DecodingKey) -> Self {
        Self { id: None, is_anybodys: true, algorithms, key }
    }
}

impl From<Vec<Key>> for Keys {
    fn from(keys: Vec<Key>) -> Self {
        Self(keys)
    }
}

/// Reads the set of a file.
pub fn read_file(path: &Path) -> Result<Keys, String> {
    let json = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Keys::read(&json).map_err(|problem| format!("{}: {problem}", path.display()))
}

/// How a set's fetches have gone.
#[derive(Debug, Clone, Copy)]
struct Fetched {
    count: u64,
    last: Option<Instant>,
    is_good: bool,
}

/// A set, and whoever keeps it fresh, who goes with it.
#[derive(Debug)]
pub struct Jwks {
    state: Arc<State>,
    patience: Duration,
    fetcher: Option<AbortOnDropHandle<()>>,
}

/// What is known, shared with the task that fetches.
#[derive(Debug)]
struct State {
    keys: ArcSwap<Keys>,
    fetched: watch::Sender<Fetched>,
    wanted: Notify,
}

/// Why no key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// The set has none for this token.
    Unknown,
    /// The set cannot be had at the moment.
    Unreachable,
}

impl Jwks {
    /// The set of a file; a reload reads it again.
    pub fn of_file(path: &Path) -> Result<Arc<Self>, String> {
        let state = State::new(read_file(path)?);
        Ok(Arc::new(Self { state, patience: Duration::ZERO, fetcher: None }))
    }

    /// The set at a URL.
    pub fn of_url(url: Url, client: Arc<Client>, refresh: Duration, runtime: &Handle) -> Arc<Self> {
        Self::fetching(client.time_max(), refresh, runtime, move || {
            let (client, url) = (Arc::clone(&client), url.clone());
            async move { fetch(&client, &url).await }
        })
    }

    /// A set that `fetch` gets.
    pub fn fetching<F, T>(patience: Duration, refresh: Duration, runtime: &Handle, fetch: F) -> Arc<Self>
    where
        F: Fn() -> T + Send + 'static,
        T: Future<Output = Result<Keys, String>> + Send + 'static,
    {
        let state = State::new(Keys::default());
        let task = keep_fresh(Arc::clone(&state), refresh, fetch);
        let fetcher = Some(AbortOnDropHandle::new(runtime.spawn(task)));
        Arc::new(Self { state, patience, fetcher })
    }

    /// The set as it is, once there is one that `fits`: a set that does not is fetched again, unless that was just done.
    pub async fn keys(&self, fits: impl Fn(&Keys) -> bool) -> Result<Arc<Keys>, NoKey> {
        let keys = self.state.keys.load_full();
        if fits(&keys) {
            return Ok(keys);
        }
        if self.fetcher.is_none() {
            return Err(NoKey::Unknown);
        }
        let mut fetched = self.state.fetched.subscribe();
        let seen = *fetched.borrow_and_update();
        // Before the first fetch has ended there is nothing to ask for: it is under way.
        let is_first = seen.last.is_none();
        if is_first || is_due(seen.last) {
            if !is_first {
                self.state.wanted.notify_one();
            }
            let next = fetched.wait_for(|it| it.count > seen.count);
            if timeout(self.patience, next).await.is_err() {
                return Err(NoKey::Unreachable);
            }
        }
        let keys = self.state.keys.load_full();
        if fits(&keys) {
            return Ok(keys);
        }
        let is_good = self.state.fetched.borrow().is_good;
        Err(if is_good { NoKey::Unknown } else { NoKey::Unreachable })
    }
}

impl State {
    fn new(keys: Keys) -> Arc<Self> {
        let fetched = watch::Sender::new(Fetched { count: 0, last: None, is_good: true });
        Arc::new(Self { keys: ArcSwap::from_pointee(keys), fetched, wanted: Notify::new() })
    }

    fn take(&self, result: Result<Keys, String>) {
        let is_good = result.is_ok();
        match result {
            Ok(keys) => {
                info!(keys = keys.0.len(), "a key set was fetched");
                self.keys.store(Arc::new(keys));
            }
            Err(problem) => warn!(problem, "a key set cannot be fetched; the one before stays"),
        }
        self.fetched.send_modify(|it| {
            *it = Fetched { count: it.count + 1, last: Some(Instant::now()), is_good };
        });
    }
}

fn is_due(last: Option<Instant>) -> bool {
    last.is_none_or(|last| last.elapsed() >= REFETCH_AFTER)
}

/// Fetches again and again.
async fn keep_fresh<F, T>(state: Arc<State>, refresh: Duration, fetch: F)
where
    F: Fn() -> T,
    T: Future<Output = Result<Keys, String>>,
{
    let mut retry = RETRY.0;
    loop {
        let result = fetch().await;
        let pause = if result.is_ok() { refresh } else { retry };
        retry = if result.is_ok() { RETRY.0 } else { (retry * 2).min(RETRY.1) };
        state.take(result);
        let asked = async {
            loop {
                state.wanted.notified().await;
                // By the same clock as those who ask, or one of them would wait for a fetch that does not come.
                if is_due(state.fetched.borrow().last) {
                    return;
                }
            }
        };
        let _either = timeout(pause, asked).await;
    }
}

async fn fetch(client: &Arc<Client>, url: &Url) -> Result<Keys, String> {
    let heard = client.get(url).await.map_err(|error| error.to_string())?;
    if heard.status != 200 {
        return Err(format!("{} answered {}", url.address, heard.status));
    }
    Keys::read(&heard.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const EC: &str = r#"{"kty":"EC","crv":"P-256","kid":"KID","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    fn set(ids: &[&str]) -> String {
        let keys: Vec<_> = ids.iter().map(|id| EC.replace("KID", id)).collect();
        format!("{{\"keys\":[{}]}}", keys.join(","))
    }

    #[test]
    fn secrets_and_keys_for_other_ends_are_no_keys() {
        let secret = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}"#;
        assert!(Keys::read(secret.as_bytes()).is_err());
        let encrypts = set(&["a"]).replace("\"kid\"", "\"use\":\"enc\",\"kid\"");
        assert!(Keys::read(encrypts.as_bytes()).is_err());
        let other = set(&["a"]).replace("\"kid\"", "\"alg\":\"ES384\",\"kid\"");
        assert!(Keys::read(other.as_bytes()).is_err());
        assert!(Keys::read(b"{}").is_err());
        let keys = Keys::read(set(&["a", "b"]).as_bytes()).unwrap();
        assert_eq!(keys.find(Some("a"), Algorithm::ES256).count(), 1);
        assert_eq!(keys.find(None, Algorithm::ES256).count(), 2);
        // A public key is never the secret of an HMAC.
        for algorithm in [Algorithm::HS256, Algorithm::RS256, Algorithm::ES384] {
            assert_eq!(keys.find(Some("a"), algorithm).count(), 0, "{algorithm:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unknown_key_fetches_again_and_a_flood_of_them_does_not() {
        let count = Arc::new(AtomicUsize::new(0));
        let fetches = Arc::clone(&count);
        let jwks = Jwks::fetching(Duration::from_secs(5), REFRESH, &Handle::current(), move || {
            let number = fetches.fetch_add(1, Ordering::SeqCst);
            async move {
                if number == 2 {
                    Err("away".into())
                } else {
                    Keys::read(set(&[&number.to_string()]).as_bytes())
                }
            }
        });
        let find = async |id: &str| {
            let fits = |keys: &Keys| keys.find(Some(id), Algorithm::ES256).next().is_some();
            jwks.keys(fits).await.map(|_| ())
        };
        assert_eq!(find("0").await, Ok(()));
        for _ in 0..100 {
            assert_eq!(find("none").await, Err(NoKey::Unknown));
        }
        assert_eq!(count.load(Ordering::SeqCst), 1);
        tokio::time::advance(REFETCH_AFTER).await;
        assert_eq!(find("1").await, Ok(()));
        assert_eq!(count.load(Ordering::SeqCst), 2);
        // The provider is away: what is known stays good, what is not cannot be judged.
        tokio::time::advance(REFETCH_AFTER).await;
        assert_eq!(find("3").await, Err(NoKey::Unreachable));
        assert_eq!(find("1").await, Ok(()));
        // It is back after a while, without anybody asking.
        tokio::time::sleep(RETRY.0 + Duration::from_millis(1)).await;
        assert_eq!(find("3").await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_left_of_a_set_that_nobody_has() {
        let jwks = Jwks::fetching(Duration::from_secs(5), REFRESH, &Handle::current(), || async {
            Keys::read(set(&["a"]).as_bytes())
        });
        assert!(jwks.keys(|keys| !keys.0.is_empty()).await.is_ok());
        let state = Arc::downgrade(&jwks.state);
        drop(jwks);
        tokio::task::yield_now().await;
        assert!(state.upgrade().is_none(), "its task goes on");
    }
}
