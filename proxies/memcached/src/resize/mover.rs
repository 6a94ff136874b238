//! Work on keys, on a thread of its own: the mover of phase E, and the purge before C.
//!
//! Both list what a server has, pick the keys that move, and run a program for each, within a rate. Both can be
//! stopped between any two keys and begun anew: what is done already is found done. Keys that a pass has no
//! memory for are found by the next one.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::stream::{self, StreamExt};
use groove_common::admission::TokenBucket;
use groove_common::config::Endpoint;
use groove_common::ids::Address;
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tracing::debug;

use super::crawl::{Crawled, crawl};
use super::lanes::{Lane, Pair};
use super::line::Line;
use super::metrics::ResizeMetrics;
use super::view::{Place, Server, View};
use crate::error::Failure;
use crate::program::resize::{Key, Moved, copy, purge};
use crate::upstream::connection::Settings;

/// Keys under way at once. Each has a question or two open at a time, which is little for a server.
const LANES: usize = 16;
/// What a pass remembers of keys, in bytes.
const KEYS_LEN_MAX: usize = 64 << 20;
/// Before a busy crawler is asked again, and between two passes.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// After a key that failed, on its lane.
const FAILED_REST: Duration = Duration::from_millis(100);

/// Where a key, as servers know it, lives in a view; `None` if it is not this cluster's.
pub type PlaceOf = Arc<dyn Fn(&View, &[u8]) -> Option<Place> + Send + Sync>;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Delete the moved keys at their new servers.
    Purge,
    /// Move them there.
    Move,
}

/// Work to do.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) view: Arc<View>,
    pub(super) place_of: PlaceOf,
    pub(super) settings: Arc<Settings>,
    pub(super) keys_per_second: f64,
    pub(super) bytes_per_second: f64,
    pub(super) metrics: ResizeMetrics,
    pub(super) progress: Arc<Progress>,
}

/// What was done so far, over all passes.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Keys that were looked at and needed no more.
    pub(super) done: AtomicU64,
    /// Keys that were copied, of these.
    pub(super) copied: AtomicU64,
    /// Bytes that were read and written for it.
    pub(super) bytes: AtomicU64,
    /// Tries that failed.
    pub(super) failed: AtomicU64,
    /// Keys that a new server did not take.
    pub(super) refused: AtomicU64,
    /// What stands in the way.
    pub(super) note: Mutex<Option<String>>,
}

/// How work ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// All is done.
    Done,
    /// This server lists no keys.
    Unlisted(Address),
    /// It was stopped, or its thread could not be had.
    Stopped,
}

/// Begins work. It ends by itself, or soon after `stop` has become true.
pub(super) fn start(job: Job, stop: watch::Receiver<bool>) -> oneshot::Receiver<End> {
    let (tell, told) = oneshot::channel();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        let worker = Worker::new(job, stop);
        let end = runtime.block_on(worker.run());
        // Whoever began it may be gone.
        _ = tell.send(end);
    };
    if let Err(error) = std::thread::Builder::new().name("mover".to_owned()).spawn(run) {
        tracing::warn!(%error, "no thread for moving keys");
    }
    told
}

struct Worker {
    job: Job,
    stop: watch::Receiver<bool>,
    began: Instant,
    keys: RefCell<TokenBucket>,
    bytes: RefCell<TokenBucket>,
}

/// Work that is over before it is done.
type Flow<T> = ControlFlow<End, T>;

/// What became of a key.
enum Done {
    /// There was nothing to do.
    Idle,
    /// It was changed.
    Stirred,
    /// It must be looked at again.
    Again,
}

/// What one pass over the servers found to do.
#[derive(Debug, Default, Clone, Copy)]
struct Pass {
    /// Keys that were changed, or must be looked at again.
    stirred: u64,
    /// Not all keys were looked at.
    partial: bool,
}

impl Worker {
    fn new(job: Job, stop: watch::Receiver<bool>) -> Self {
        let bucket = |rate: f64| RefCell::new(TokenBucket::new(rate, rate / 10.0));
        let (keys, bytes) = (bucket(job.keys_per_second), bucket(job.bytes_per_second));
        Self { job, stop, began: Instant::now(), keys, bytes }
    }

    async fn run(self) -> End {
        loop {
            let pass = match self.pass().await {
                ControlFlow::Continue(pass) => pass,
                ControlFlow::Break(end) => return end,
            };
            // A crawl misses nothing that is there all the time. Moving is done when one finds nothing more to do.
            let is_done = match self.job.kind {
                Kind::Purge => self.job.progress.note.lock().is_none(),
                Kind::Move => pass.stirred == 0,
            };
            if is_done && !pass.partial {
                return End::Done;
            }
            if self.rest(AGAIN_AFTER).await.is_break() {
                return End::Stopped;
            }
        }
    }

    async fn pass(&self) -> Flow<Pass> {
        *self.job.progress.note.lock() = None;
        let view = &self.job.view;
        let servers = match self.job.kind {
            Kind::Purge => &view.new,
            Kind::Move => &view.old,
        };
        let mut pass = Pass::default();
        for server in servers.iter() {
            let Some(endpoint) = view.server(server).filter(|_| !view.gone.contains_key(&server.0)) else {
                continue;
            };
            match self.server(server, endpoint).await? {
                Ok(part) => {
                    pass.stirred += part.stirred;
                    pass.partial |= part.partial;
                }
                Err(failure) => {
                    self.note(format!("{}: {failure}", endpoint.address));
                    pass.partial = true;
                }
            }
        }
        ControlFlow::Continue(pass)
    }

    /// All keys of one server.
    async fn server(&self, server: Server, endpoint: &Endpoint) -> Flow<Result<Pass, Failure>> {
        let (address, settings) = (&endpoint.address, &self.job.settings);
        if self.job.kind == Kind::Purge {
            match is_empty(address, settings).await {
                Ok(true) => return ControlFlow::Continue(Ok(Pass::default())),
                Ok(false) => {}
                Err(failure) => return ControlFlow::Continue(Err(failure)),
            }
        }
        let mut found = Found::default();
        match self.list(server, address, &mut found).await? {
            Ok(()) => {}
            Err(failure) => return ControlFlow::Continue(Err(failure)),
        }
        debug!(server = %address, keys = found.keys.len(), "keys to look at");
        let stirred = self.work(&found.keys).await?;
        ControlFlow::Continue(Ok(Pass { stirred, partial: found.is_partial }))
    }

    /// The keys of a server that move from it or to it.
    async fn list(&self, server: Server, address: &Address, found: &mut Found) -> Flow<Result<(), Failure>> {
        let Job { kind, view, place_of, settings, .. } = &self.job;
        loop {
            let mut each = |key: &[u8]| {
                let Some(Place::Moving { old, new, .. }) = place_of(view, key) else { return };
                let mine = match kind {
                    Kind::Purge => new,
                    Kind::Move => old,
                };
                if mine == server {
                    found.add(key, old, new);
                }
            };
            let crawled = tokio::select! {
                crawled = crawl(address, settings, &mut each) => crawled,
                () = self.stopped() => return ControlFlow::Break(End::Stopped),
            };
            match crawled {
                Ok(Crawled::Done) => return ControlFlow::Continue(Ok(())),
                Ok(Crawled::Busy) => {
                    self.note(format!("{address} is being crawled by somebody else"));
                    self.rest(AGAIN_AFTER).await?;
                }
                Ok(Crawled::Off) => return ControlFlow::Break(End::Unlisted(address.clone())),
                Err(failure) => return ControlFlow::Continue(Err(failure)),
            }
        }
    }

    /// Runs the program for each key. Returns how many of them were changed or failed.
    async fn work(&self, keys: &[(Box<[u8]>, Server, Server)]) -> Flow<u64> {
        let lanes: Vec<Lane> = (0..LANES).map(|_| Lane::new(Arc::clone(&self.job.settings))).collect();
        let share = keys.len().div_ceil(LANES).max(1);
        let (lanes, keys) = (lanes.iter(), keys.chunks(share));
        let mut runs: stream::FuturesUnordered<_> =
            lanes.zip(keys).map(|(lane, keys)| self.lane(lane, keys)).collect();
        let mut stirred = 0;
        while let Some(part) = runs.next().await {
            stirred += part?;
        }
        ControlFlow::Continue(stirred)
    }

    async fn lane(&self, lane: &Lane, keys: &[(Box<[u8]>, Server, Server)]) -> Flow<u64> {
        let view = &self.job.view;
        let mut stirred = 0;
        for (key, old, new) in keys {
            let (Some(from), Some(to)) = (view.server(*old), view.server(*new)) else { continue };
            self.admit(&self.keys, 1.0).await?;
            let pair = Pair { lane, old: &from.address, new: &to.address };
            let done = self.key(&pair, key).await;
            let bytes = lane.take_bytes();
            let has_failed = done.is_err();
            let is_done = self.count(&pair, done, bytes);
            stirred += u64::from(!matches!(is_done, Done::Idle));
            if has_failed {
                self.rest(FAILED_REST).await?;
            }
            if !matches!(is_done, Done::Again) {
                // They are paid for afterwards, when it is known how many they were.
                self.admit(&self.bytes, bytes as f64).await?;
            }
        }
        ControlFlow::Continue(stirred)
    }

    /// Counts what became of a key.
    fn count(&self, pair: &Pair<'_>, done: Result<Moved, Failure>, bytes: u64) -> Done {
        let (progress, metrics) = (&self.job.progress, &self.job.metrics);
        let is_move = self.job.kind == Kind::Move;
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        if is_move {
            metrics.bytes_moved.add(bytes);
        }
        let done = match done {
            Ok(Moved::Nothing) => Done::Idle,
            Ok(Moved::Busy) => return Done::Again,
            Ok(Moved::Copied) => {
                progress.copied.fetch_add(1, Ordering::Relaxed);
                metrics.keys_moved.inc();
                Done::Stirred
            }
            Ok(Moved::Cleared) => Done::Stirred,
            // Another try would not help: it stays where it is, and is missing once old is not read.
            Ok(Moved::Refused) => {
                progress.refused.fetch_add(1, Ordering::Relaxed);
                metrics.keys_refused.inc();
                self.note(format!("{} does not take a key of {}", pair.new, pair.old));
                Done::Idle
            }
            Err(failure) => {
                progress.failed.fetch_add(1, Ordering::Relaxed);
                metrics.tries_failed.inc();
                self.note(format!("a key from {} to {}: {failure}", pair.old, pair.new));
                return Done::Again;
            }
        };
        progress.done.fetch_add(1, Ordering::Relaxed);
        done
    }

    async fn key(&self, pair: &Pair<'_>, key: &[u8]) -> Result<Moved, Failure> {
        let key = Key { bytes: key, is_coded: is_coded(key) };
        match self.job.kind {
            Kind::Purge => purge(pair, key).await.map(|()| Moved::Cleared),
            Kind::Move => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                copy(pair, now.as_secs(), key).await
            }
        }
    }

    async fn admit(&self, bucket: &RefCell<TokenBucket>, tokens: f64) -> Flow<()> {
        loop {
            let taken = bucket.borrow_mut().take(self.began.elapsed(), tokens);
            match taken {
                Ok(()) if *self.stop.borrow() => return ControlFlow::Break(End::Stopped),
                Ok(()) => return ControlFlow::Continue(()),
                Err(wait) => self.rest(wait).await?,
            }
        }
    }

    async fn rest(&self, time: Duration) -> Flow<()> {
        tokio::select! {
            () = sleep(time) => ControlFlow::Continue(()),
            () = self.stopped() => ControlFlow::Break(End::Stopped),
        }
    }

    /// Resolves when it is to stop, or nobody is left who could say so.
    async fn stopped(&self) {
        let mut stop = self.stop.clone();
        _ = stop.wait_for(|stop| *stop).await;
    }

    fn note(&self, text: String) {
        *self.job.progress.note.lock() = Some(text);
    }
}

/// Keys to look at, with where they come from and go to.
#[derive(Default)]
struct Found {
    keys: Vec<(Box<[u8]>, Server, Server)>,
    len: usize,
    is_partial: bool,
}

impl Found {
    fn add(&mut self, key: &[u8], old: Server, new: Server) {
        if self.len >= KEYS_LEN_MAX {
            self.is_partial = true;
            return;
        }
        self.len += key.len() + size_of::<(Box<[u8]>, Server, Server)>();
        self.keys.push((key.into(), old, new));
    }
}

/// Has a server nothing at all?
async fn is_empty(address: &Address, settings: &Settings) -> Result<bool, Failure> {
    let items = Line::open(address, settings).await?.statistic("curr_items", settings).await?;
    Ok(items == Some(0))
}

/// Must a key travel in base64?
fn is_coded(key: &[u8]) -> bool {
    key.iter().any(|&byte| byte <= b' ' || byte == 0x7f)
}
