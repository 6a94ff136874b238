//! A sidecar's part in a cluster's changes: it joins, takes each step on, acknowledges it, and drives if nobody
//! else does.
//!
//! ```text
//!  present (acknowledged 0) ─► read the state ─► serve by it ─► acknowledge ─► { something changed ─► again }
//! ```
//!
//! It is present before it reads, so that whoever takes the next step has counted it: a sidecar that comes in
//! the middle starts in the current phase, and none serves by a list that is not the committed one.

mod task;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use groove_common::balance::Rule;
use groove_common::config::{self, Endpoint};
use groove_common::discovery::{Cluster, Found, Source};
use groove_common::store::SharedStore;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use super::agreement::Agreement;
use super::driver::{Driver, Means};
use super::phase::State;
use super::shared::Shared;

/// News that may wait for the control task.
const NEWS_MAX: usize = 16;
/// A start waits so long for the committed list: its store may be busy with others, and its disk with other work.
const JOIN_WAIT_MAX: Duration = Duration::from_secs(30);
/// The same when the store is of no use.
const JOIN_WAIT_TROUBLED_MAX: Duration = Duration::from_secs(10);

/// A running part in a cluster's changes; it ends when this is dropped.
pub struct Control {
    id: String,
    agreement: Arc<Agreement>,
    shared: Shared,
    means: watch::Sender<Arc<Means>>,
    news: mpsc::Sender<News>,
    trouble: Arc<Mutex<Option<String>>>,
    joined: watch::Receiver<bool>,
    begun: Instant,
    _task: AbortOnDropHandle<()>,
}

/// What a cluster's configuration says of where its servers are.
pub struct Origin {
    /// What knows the list.
    pub source: Box<dyn Source>,
    /// Its order means something: it is not DNS.
    pub is_ordered: bool,
}

impl Origin {
    /// As configured.
    ///
    /// # Errors
    ///
    /// When the source cannot be had.
    pub fn new(endpoints: &config::Endpoints) -> Result<Self, groove_common::discovery::SourceError> {
        let is_ordered = !matches!(endpoints, config::Endpoints::Dns(_));
        Ok(Self { source: groove_common::discovery::from_config(endpoints)?, is_ordered })
    }
}

/// What the configuration has to say while it runs.
enum News {
    Origin(Origin),
}

/// What a control begins with.
pub(super) struct Beginning {
    /// The cluster's name.
    pub name: String,
    /// Where the sidecars agree.
    pub store: SharedStore,
    /// Its servers and their health, to be told which they are.
    pub cluster: Arc<Cluster>,
    /// Where the configuration says they are.
    pub origin: Origin,
    /// How things are done.
    pub(super) means: Means,
}

impl Control {
    /// Begins. Nothing is served until it has [joined](Self::joined).
    pub(super) fn start(beginning: Beginning, runtime: &tokio::runtime::Handle) -> Arc<Self> {
        let Beginning { name, store, cluster, origin, means } = beginning;
        let agreement = Arc::new(Agreement::counting(means.metrics.programs.clone()));
        let shared = Shared::new(store, &name);
        let (news, hears) = mpsc::channel(NEWS_MAX);
        let (means, by) = watch::channel(Arc::new(means));
        let (tell_joined, joined) = watch::channel(false);
        let trouble = Arc::default();
        let id = id();
        let task = Task {
            name,
            id: id.clone(),
            agreement: Arc::clone(&agreement),
            shared: shared.clone(),
            cluster,
            origin,
            own: None,
            news: hears,
            means: by,
            joined: tell_joined,
            trouble: Arc::clone(&trouble),
            adopted: None,
            rule: Rule::default(),
            unheard: None,
            acknowledged: 0,
            has_left_servers: false,
            driver: None,
        };
        let task = AbortOnDropHandle::new(runtime.spawn(task.run()));
        let begun = Instant::now();
        Arc::new(Self { id, agreement, shared, means, news, trouble, joined, begun, _task: task })
    }

    /// What workers go by.
    pub fn agreement(&self) -> &Arc<Agreement> {
        &self.agreement
    }

    /// Its name among the sidecars.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Resolves when the committed list is known, or after `time_max`.
    pub async fn joined(&self, time_max: Duration) -> bool {
        let mut joined = self.joined.clone();
        let known = async { joined.wait_for(|joined| *joined).await.is_ok() };
        timeout(time_max, known).await.unwrap_or(false)
    }

    /// Resolves when the committed list is known, or when it is too long ago that this began.
    pub(super) async fn joined_in_time(&self) -> bool {
        for time_max in [JOIN_WAIT_TROUBLED_MAX, JOIN_WAIT_MAX] {
            if self.joined(time_max.saturating_sub(self.begun.elapsed())).await {
                return true;
            }
            if self.trouble().is_some() {
                return false;
            }
        }
        false
    }

    /// A changed configuration: other means, and another origin if that is what changed.
    pub(super) fn reconfigure(&self, means: Means, origin: Option<Origin>) {
        self.means.send_replace(Arc::new(means));
        if let Some(origin) = origin
            && self.news.try_send(News::Origin(origin)).is_err()
        {
            warn!("a changed list of servers was not heard: change it again");
        }
    }

    /// How things are done at present.
    pub(super) fn means(&self) -> Arc<Means> {
        Arc::clone(&self.means.borrow())
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Why the store is of no use just now.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What runs; `control/task.rs` is what it does.
struct Task {
    name: String,
    id: String,
    agreement: Arc<Agreement>,
    shared: Shared,
    cluster: Arc<Cluster>,
    origin: Origin,
    /// What the own configuration says, as last heard.
    own: Option<Vec<Endpoint>>,
    news: mpsc::Receiver<News>,
    means: watch::Receiver<Arc<Means>>,
    joined: watch::Sender<bool>,
    trouble: Arc<Mutex<Option<String>>>,
    /// The state that the workers have been given.
    adopted: Option<State>,
    /// How keys are spread over its servers.
    rule: Rule,
    /// A list that could not be proposed yet.
    unheard: Option<Found>,
    /// What the others have been told.
    acknowledged: u64,
    /// Servers of the step before are still connected.
    has_left_servers: bool,
    driver: Option<Driver>,
}

/// A name among the sidecars: the machine, the process, and a number, as a process number comes again.
fn id() -> String {
    let mut dice = groove_common::discovery::fresh_dice();
    let host: String = host().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect();
    format!("{host}:{}:{:06x}", std::process::id(), dice.bits() & 0xff_ffff)
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
