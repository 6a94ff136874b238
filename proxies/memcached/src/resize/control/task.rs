//! What a sidecar does for its part: from joining to being lost, again and again.

use std::sync::Arc;
use std::time::Duration;

use groove_common::config::Endpoint;
use groove_common::discovery::Found;
use groove_common::store::{Presence, Revision, Watch};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::super::driver::{Driver, Next};
use super::super::phase::{State, Wish};
use super::super::plan;
use super::super::section::Policy;
use super::super::shared::{SharedError, Sidecar, write};
use super::{News, Task, host};

/// After the store did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

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
    pub(super) async fn run(mut self) {
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
