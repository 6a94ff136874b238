//! A tenant's `flush_all`: another generation of its keys, which all sidecars go by before the client hears `OK`.
//!
//! ```text
//!   tenants/flushed/PREFIX   {"generation": 7, "then": {"generation": 8, "at_ms": …}}
//!   tenants/present/ID       {"PREFIX": revision, …}: what this sidecar goes by, gone with its process
//!
//!   flush_all ─► put the next generation ─► every sidecar present takes it on and says so ─► OK
//! ```
//!
//! Generations are seconds of the clock, or one more than the last: a store that was lost never brings back a
//! generation whose items are still somewhere. A sidecar that does not know a tenant's generation (its store does not
//! answer, or the others believe it gone) serves none of its requests.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use groove_common::app::StartError;
use groove_common::store::{Expect, Files, Presence, Put, Revision, SharedStore, StoreError, Watch};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::upstream::Topology;

const FLUSHED: &str = "tenants/flushed/";
const PRESENT: &str = "tenants/present/";

/// How long the others may take to go by a new generation.
const AGREED_WITHIN: Duration = Duration::from_secs(5);

/// Between two tries of a store that does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// The longest sleep before the clock is looked at again: it may be set.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the store knows of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flushed {
    generation: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    then: Option<Then>,
}

/// A generation that is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Then {
    generation: u64,
    at_ms: u64,
}

impl Flushed {
    /// The first of a tenant that the store does not know.
    fn first(now_ms: u64) -> Self {
        Self { generation: now_ms / 1000, then: None }
    }

    /// The generation at a moment.
    fn at(&self, now_ms: u64) -> u64 {
        self.then.filter(|then| then.at_ms <= now_ms).map_or(self.generation, |then| then.generation)
    }

    /// How long until it changes by itself.
    fn changes_in(&self, now_ms: u64) -> Option<Duration> {
        let at_ms = self.then?.at_ms;
        (at_ms > now_ms).then(|| Duration::from_millis(at_ms - now_ms))
    }

    /// After a `flush_all` that came now and is meant for `at_ms`. One at once takes back one that was to come.
    fn flush(&self, now_ms: u64, at_ms: u64) -> Self {
        let generation = self.at(now_ms);
        let next = |at_ms: u64| (at_ms / 1000).max(generation + 1);
        match at_ms <= now_ms {
            true => Self { generation: next(now_ms), then: None },
            false => Self { generation, then: Some(Then { generation: next(at_ms), at_ms }) },
        }
    }
}

/// Why a tenant was not flushed, in words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlushError {
    /// There is no store.
    #[error("flush_all of a tenant needs a folder that all proxies share, and `state` names none")]
    NoStore,
    /// It does not answer.
    #[error("flush_all failed: the folder that proxies share cannot be used")]
    Away,
    /// Not every sidecar has said that it goes by it. It will when it can.
    #[error("flush_all is not confirmed by {0} of the proxies yet, try again")]
    NotAgreed(usize),
}

/// Flushes tenants, and takes on what others flush.
#[derive(Debug)]
pub struct Generations {
    store: Option<SharedStore>,
    id: String,
    topology: Arc<ArcSwap<Topology>>,
    /// Turned by a reload: there may be tenants that are not known yet.
    reloaded: watch::Sender<()>,
    known: Mutex<BTreeMap<String, Flushed>>,
}

impl Generations {
    /// Generations of the tenants in `topology`, agreed on in this folder. Without one each tenant has one for ever.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written, or the system gives no randomness for a name.
    pub fn new(folder: Option<&Path>, topology: Arc<ArcSwap<Topology>>) -> Result<Arc<Self>, StartError> {
        let store = match folder {
            Some(folder) => Some(Arc::new(Files::open(folder)?) as SharedStore),
            None => None,
        };
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| "the system gives no randomness")?;
        let id = format!("{:016x}", u64::from_ne_bytes(id));
        let reloaded = watch::Sender::new(());
        let generations = Arc::new(Self { store, id, topology, reloaded, known: Mutex::default() });
        generations.apply();
        Ok(generations)
    }

    /// The configuration has changed.
    pub fn reload(&self) {
        self.apply();
        self.reloaded.send_replace(());
    }

    /// Follows the store for as long as the program runs.
    pub async fn run(self: Arc<Self>) {
        let Some(store) = self.store.clone() else { return };
        loop {
            if let Err(error) = self.follow(&store).await {
                warn!(%error, "tenants' generations cannot be followed");
            }
            sleep(RETRY).await;
        }
    }

    /// Present from before the first look: whoever flushes from then on waits for us.
    async fn follow(&self, store: &SharedStore) -> Result<(), StoreError> {
        let name = format!("{PRESENT}{}", self.id);
        let Some(presence) = store.present(&name, Bytes::from_static(b"{}")).await? else { return Ok(()) };
        let followed = async {
            let mut changes = store.watch(FLUSHED).await?;
            let mut reloads = self.reloaded.subscribe();
            loop {
                self.look(store, &*presence).await?;
                self.until_change(&mut *changes, &mut reloads).await;
            }
        };
        tokio::select! {
            ended = followed => ended,
            () = presence.lost() => {
                // The others no longer wait for us: what we know may be old.
                self.known.lock().clear();
                self.apply();
                Ok(())
            }
        }
    }

    async fn until_change(&self, changes: &mut dyn Watch, reloads: &mut watch::Receiver<()>) {
        loop {
            let now_ms = unix_ms();
            let next = self.known.lock().values().filter_map(|flushed| flushed.changes_in(now_ms)).min();
            let clock = async {
                match next {
                    Some(time) => sleep(time.min(LOOK_EVERY)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changes.changed() => return,
                _ = reloads.changed() => return,
                () = clock => self.apply(),
            }
        }
    }

    /// Takes on what the store has, and says so. Tenants it does not know begin with the clock.
    async fn look(&self, store: &SharedStore, presence: &dyn Presence) -> Result<(), StoreError> {
        let (mut known, mut seen) = read(store).await?;
        let topology = self.topology.load_full();
        let missing =
            topology.directory.tenants().iter().filter(|tenant| !known.contains_key(tenant.prefix()));
        let missing: Vec<_> = missing.map(|tenant| tenant.prefix().to_owned()).collect();
        if !missing.is_empty() {
            for prefix in missing {
                let first = Flushed::first(unix_ms());
                store.put(&format!("{FLUSHED}{prefix}"), encode(&first), Expect::Absent).await?;
            }
            (known, seen) = read(store).await?;
        }
        *self.known.lock() = known;
        self.apply();
        let seen: BTreeMap<_, _> = seen.into_iter().map(|(prefix, revision)| (prefix, revision.0)).collect();
        presence.update(Bytes::from(serde_json::to_vec(&seen).unwrap_or_default())).await
    }

    /// Gives the tenants their generations of this moment.
    fn apply(&self) {
        let (known, now_ms) = (self.known.lock(), unix_ms());
        for tenant in self.topology.load().directory.tenants() {
            let generation = match self.store {
                Some(_) => known.get(tenant.prefix()).map(|flushed| flushed.at(now_ms)),
                None => Some(0),
            };
            tenant.set_generation(generation);
        }
    }

    /// Makes everything that the tenant with this prefix has stored invisible at `at` (a Unix time; at once if it is
    /// past), on every sidecar.
    ///
    /// # Errors
    ///
    /// See [`FlushError`]: it may still come to pass, but nobody may count on it.
    pub async fn flush(&self, prefix: &str, at: Duration) -> Result<(), FlushError> {
        let store = self.store.as_ref().ok_or(FlushError::NoStore)?;
        let put = self.put_next(store, prefix, millis(at)).await.map_err(|error| {
            warn!(%error, prefix, "a tenant is not flushed");
            FlushError::Away
        })?;
        info!(prefix, "a tenant is flushed");
        self.agreed(store, prefix, put).await
    }

    async fn put_next(&self, store: &SharedStore, prefix: &str, at_ms: u64) -> Result<Revision, StoreError> {
        let name = format!("{FLUSHED}{prefix}");
        loop {
            let now_ms = unix_ms();
            let (next, expect) = match store.get(&name).await? {
                None => (Flushed::first(now_ms).flush(now_ms, at_ms), Expect::Absent),
                Some(entry) => {
                    (decode(&name, &entry.value)?.flush(now_ms, at_ms), Expect::Revision(entry.revision))
                }
            };
            match store.put(&name, encode(&next), expect).await? {
                Put::Done(revision) => return Ok(revision),
                Put::Conflict => (),
            }
        }
    }

    /// Waits until every sidecar that is present goes by this revision of the tenant, ours included.
    async fn agreed(&self, store: &SharedStore, prefix: &str, put: Revision) -> Result<(), FlushError> {
        let mut missing = 1;
        let wait = async {
            let mut changes = store.watch(PRESENT).await?;
            loop {
                missing = self.behind(store, prefix, put).await?;
                if missing == 0 {
                    return Ok::<_, StoreError>(());
                }
                changes.changed().await;
            }
        };
        match timeout(AGREED_WITHIN, wait).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                warn!(%error, prefix, "whether all proxies go by a flush cannot be known");
                Err(FlushError::Away)
            }
            Err(_) => Err(FlushError::NotAgreed(missing)),
        }
    }

    /// How many sidecars do not go by it yet.
    async fn behind(&self, store: &SharedStore, prefix: &str, put: Revision) -> Result<usize, StoreError> {
        let present = store.list(PRESENT).await?;
        let own = format!("{PRESENT}{}", self.id);
        let is_missing = usize::from(!present.iter().any(|(name, _)| *name == own));
        let is_behind = |value: &Bytes| {
            let seen: BTreeMap<String, u64> = serde_json::from_slice(value).unwrap_or_default();
            seen.get(prefix).is_none_or(|seen| *seen < put.0)
        };
        Ok(is_missing + present.iter().filter(|(_, entry)| is_behind(&entry.value)).count())
    }
}

type Known = (BTreeMap<String, Flushed>, BTreeMap<String, Revision>);

async fn read(store: &SharedStore) -> Result<Known, StoreError> {
    let mut known = Known::default();
    for (name, entry) in store.list(FLUSHED).await? {
        let Some(prefix) = name.strip_prefix(FLUSHED) else { continue };
        known.0.insert(prefix.to_owned(), decode(&name, &entry.value)?);
        known.1.insert(prefix.to_owned(), entry.revision);
    }
    Ok(known)
}

fn decode(name: &str, value: &[u8]) -> Result<Flushed, StoreError> {
    let damaged = |_| StoreError::Damaged { place: name.to_owned(), reason: "not a tenant's generation" };
    serde_json::from_slice(value).map_err(damaged)
}

fn encode(flushed: &Flushed) -> Bytes {
    Bytes::from(serde_json::to_vec(flushed).unwrap_or_default())
}

fn unix_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// When a `flush_all` with this argument is meant: 0 is now, up to 30 days are a delay, more is a Unix time.
pub fn flush_at(delay: i32) -> Duration {
    const RELATIVE_MAX: u64 = 60 * 60 * 24 * 30;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match u64::try_from(delay).unwrap_or_default() {
        0 => Duration::ZERO,
        secs @ 1..=RELATIVE_MAX => now + Duration::from_secs(secs),
        secs => Duration::from_secs(secs),
    }
}

#[cfg(test)]
#[path = "generations_tests.rs"]
mod tests;
