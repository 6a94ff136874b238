//! A sidecar's part in a cluster's changes: it joins, takes each step on, acknowledges it, and drives if nobody
//! else does.
//!
//! ```text
//!  present (acknowledged 0) ─► read the state ─► serve by it ─► acknowledge ─► { something changed ─► again }
//! ```
//!
//! It is present before it reads, so that whoever takes the next step has counted it: a sidecar that comes in
//! the middle starts in the current phase, and none serves by a list that is not the committed one.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use groove_common::balance::Rule;
use groove_common::config::{self, Endpoint};
use groove_common::discovery::{Cluster, Found, Source};
use groove_common::store::{Presence, Revision, SharedStore, Watch};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::agreement::Agreement;
use super::driver::{Driver, Means, Next};
use super::phase::{State, Wish};
use super::plan;
use super::section::Policy;
use super::shared::{Shared, SharedError, Sidecar, write};

/// After the store did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
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

/// Something has happened.
enum Event {
    /// Or may have: look again.
    Look,
    News(Option<News>),
    Found(Found),
    /// The others may believe that this sidecar is gone.
    Lost,
}

impl Task {
    async fn run(mut self) {
        self.own = self.origin.source.initial().map(|found| found.endpoints);
        loop {
            if let Err(error) = self.take_part().await {
                self.complain(&error);
            }
            // Nothing may be served by a sidecar that the others do not count.
            if self.adopted.take().is_some() {
                error!(cluster = self.name, "the others count this proxy no longer: nothing is served");
                self.cluster.set_endpoints(Vec::new());
            }
            self.driver = None;
            sleep(AGAIN_AFTER).await;
        }
    }

    /// From joining to being lost.
    async fn take_part(&mut self) -> Result<(), SharedError> {
        let mut changes = self.shared.store().watch(&self.shared.name("")).await?;
        let Some(presence) = self.shared.join(&self.id, &self.sidecar(0)).await? else {
            return Err(SharedError::Contended);
        };
        self.acknowledged = 0;
        let list = self.first_list().await?;
        let (state, _) = self.shared.state_or(&list).await?;
        self.compare(&state, &list);
        self.adopt(state);
        self.joined.send_replace(true);
        loop {
            if let Some(found) = self.unheard.take() {
                self.propose(found).await;
            }
            let next = match self.look(&*presence).await {
                Ok(next) => {
                    *self.trouble.lock() = None;
                    next
                }
                Err(error) => {
                    self.complain(&error);
                    Next::Later(AGAIN_AFTER)
                }
            };
            let wait = match next {
                Next::Now => continue,
                Next::Later(wait) if self.unheard.is_some() => wait.min(AGAIN_AFTER),
                Next::Later(wait) => wait,
            };
            match self.event(&mut *changes, &*presence, wait).await {
                Event::Look => {}
                Event::News(Some(News::Origin(mut origin))) => {
                    let found = origin.source.initial();
                    self.origin = origin;
                    if let Some(found) = found {
                        self.propose(found).await;
                    }
                }
                Event::News(None) => return Ok(()),
                Event::Found(found) => self.propose(found).await,
                Event::Lost => return Ok(()),
            }
        }
    }

    /// What the configuration says, to begin with if nothing is committed.
    async fn first_list(&mut self) -> Result<Vec<Endpoint>, SharedError> {
        if self.own.is_none() && self.shared.state().await?.is_none() {
            self.own = Some(self.origin.source.next().await.endpoints);
        }
        match &self.own {
            Some(list) => Ok(list.clone()),
            None => Ok(self.shared.state().await?.map(|(state, _)| state.listed()).unwrap_or_default()),
        }
    }

    async fn event(&mut self, changes: &mut dyn Watch, presence: &dyn Presence, wait: Duration) -> Event {
        let leading = self.driver.as_ref();
        let lost = async {
            match leading {
                Some(driver) => driver.lost().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.changed() => Event::Look,
            () = self.agreement.stirred() => Event::Look,
            news = self.news.recv() => Event::News(news),
            found = self.origin.source.next() => Event::Found(found),
            _ = self.means.changed() => Event::Look,
            () = presence.lost() => Event::Lost,
            () = lost => Event::Lost,
            () = sleep(wait) => Event::Look,
        }
    }

    /// Takes on what is new, acknowledges what is done, and drives.
    async fn look(&mut self, presence: &dyn Presence) -> Result<Next, SharedError> {
        let Some((state, revision)) = self.shared.state().await? else {
            return Err(SharedError::Strange("it is gone".to_owned()));
        };
        let is_spread_otherwise = self.rule != self.means.borrow().rule;
        if is_spread_otherwise || self.adopted.as_ref().is_none_or(|adopted| adopted.step < state.step) {
            #[cfg(feature = "mutants")]
            crate::program::lag::step().await;
            self.adopt(state.clone());
        }
        self.acknowledge(presence).await?;
        self.drive(&state, revision).await
    }

    async fn drive(&mut self, state: &State, revision: Revision) -> Result<Next, SharedError> {
        let means = Arc::clone(&self.means.borrow_and_update());
        if self.driver.is_none()
            && let Some(presence) = self.shared.lead(&self.id).await?
        {
            info!(cluster = self.name, "drives the changes of this cluster");
            self.driver = Some(Driver::new(&self.id, presence, means.metrics.clone()));
        }
        match &mut self.driver {
            Some(driver) => driver.drive(&self.shared, state, revision, &means).await,
            None => Ok(Next::Later(Duration::from_secs(60))),
        }
    }

    /// Gives the workers a state. Their servers are there before they are sent to them.
    fn adopt(&mut self, state: State) {
        let rule = self.means.borrow().rule;
        self.means.borrow().metrics.adopted(self.adopted.as_ref(), &state);
        let view = state.view(rule);
        let mut servers = view.servers.to_vec();
        let before = self.agreement.view();
        let left = before.servers.iter().filter(|old| servers.iter().all(|new| new.address != old.address));
        let left: Vec<_> = left.cloned().collect();
        self.has_left_servers = !left.is_empty();
        servers.extend(left);
        self.cluster.set_endpoints(servers);
        self.agreement.publish(view);
        self.adopted = Some(state);
        self.rule = rule;
    }

    async fn acknowledge(&mut self, presence: &dyn Presence) -> Result<(), SharedError> {
        let done = self.agreement.acknowledged();
        if done > self.acknowledged {
            presence.update(write(&self.sidecar(done))?).await?;
            self.acknowledged = done;
            self.means.borrow().metrics.acknowledged.set(done.cast_signed());
        }
        let view = self.agreement.view();
        if self.has_left_servers && done >= view.step {
            self.cluster.set_endpoints(view.servers.to_vec());
            self.has_left_servers = false;
        }
        Ok(())
    }

    /// Says so when the own list is not the one in effect.
    fn compare(&self, state: &State, list: &[Endpoint]) {
        if wanted(self.origin.is_ordered, state, list) != state.listed() {
            let message = "the configured list of servers is not the committed one, which is in effect: \
                           change it while the proxy runs, or use `resize --to`, if it is meant";
            warn!(cluster = self.name, "{message}");
        }
    }

    /// The own configuration has a list. It is proposed if it is another than before: what it was at the start
    /// is no news, since others may know better by now.
    async fn propose(&mut self, found: Found) {
        self.unheard = None;
        let list = found.endpoints;
        if list.is_empty() || self.own.as_ref() == Some(&list) {
            return;
        }
        if self.own.is_none() {
            if let Some(state) = &self.adopted {
                self.compare(state, &list);
            }
            self.own = Some(list);
            return;
        }
        let is_immediate = self.means.borrow().section.policy == Policy::Immediate;
        let is_ordered = self.origin.is_ordered;
        let wish = |state: &State| Wish { to: wanted(is_ordered, state, &list), is_immediate };
        match self.shared.change(|state| Ok(state.follow(wish(state)))).await {
            Ok(wished) => {
                if wished.is_some() {
                    info!(cluster = self.name, servers = list.len(), "another list of servers is proposed");
                }
                self.own = Some(list);
            }
            Err(error) => {
                self.complain(&error);
                self.unheard = Some(Found { endpoints: list, may_be_empty: false });
            }
        }
    }

    fn sidecar(&self, acknowledged: u64) -> Sidecar {
        Sidecar { acknowledged, pid: std::process::id(), host: host() }
    }

    fn complain(&self, error: &SharedError) {
        let text = error.to_string();
        let mut trouble = self.trouble.lock();
        if trouble.as_ref() != Some(&text) {
            warn!(cluster = self.name, error = text, "the sidecars' store is of no use just now");
            *trouble = Some(text);
        }
    }
}

/// What a list of the own source asks for.
fn wanted(is_ordered: bool, state: &State, list: &[Endpoint]) -> Vec<Endpoint> {
    match is_ordered {
        true => list.to_vec(),
        false => plan::fit(&state.listed(), list),
    }
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
