//! The one sidecar that drives a cluster's changes: what [`decide`] says is done here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use groove_common::balance::Rule;
use groove_common::config::Endpoint;
use groove_common::ids::Address;
use groove_common::store::{Expect, Presence, Put, Revision};
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use super::line::Line;
use super::metrics::ResizeMetrics;
use super::mover::{self, End, Job, Kind, PlaceOf, Progress};
use super::phase::{Change, Decision, Facts, Reason, State, decide};
use super::plan;
use super::section::Section;
use super::shared::{Report, Shared, SharedError};
use super::standby::{self, Turn};
use super::view::Phase;
use super::watched::Watched;
use crate::config::{self, Standby};
use crate::upstream::connection::Settings;

/// Between two reports to the others.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Before work that could not be done is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How a driver does what it does; may change with the configuration.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) section: Section,
    /// Servers that may join by themselves.
    pub(super) standby: Option<Standby>,
    pub(super) metrics: ResizeMetrics,
    pub(super) settings: Arc<Settings>,
    pub(super) place_of: PlaceOf,
    /// How keys are spread.
    pub(super) rule: Rule,
}

impl Means {
    /// As a cluster is configured.
    pub(super) fn new(
        cluster: &config::Cluster,
        settings: Arc<Settings>,
        place_of: PlaceOf,
        metrics: ResizeMetrics,
    ) -> Self {
        let section = cluster.resize.clone().unwrap_or_default();
        let standby = cluster.standby.clone();
        Self { section, standby, metrics, settings, place_of, rule: cluster.hash.rule() }
    }
}

/// Drives as long as it lives.
pub(super) struct Driver {
    id: String,
    /// Others see by it that somebody drives.
    presence: Box<dyn Presence>,
    about: About,
    settled: Option<(u64, Instant)>,
    is_purged: bool,
    is_moved: bool,
    work: Option<Work>,
    rest_until: Option<Instant>,
    /// A server that lists nothing, in this stay in this phase.
    unlisted: Option<Address>,
    watched: Watched,
    progress: Arc<Progress>,
    total: Option<u64>,
    reported: Option<(Instant, Option<String>)>,
    rate: Rate,
    standbys: Option<standby::Watch>,
    metrics: ResizeMetrics,
}

/// What purging and moving are about: they begin anew with another one.
type About = (u64, Phase, bool);

struct Work {
    about: About,
    kind: Kind,
    stop: watch::Sender<bool>,
    end: oneshot::Receiver<End>,
}

/// When to look again.
pub(super) enum Next {
    /// At once: something has changed.
    Now,
    /// When something happens, or after so long.
    Later(Duration),
}

impl Driver {
    pub(super) fn new(id: &str, presence: Box<dyn Presence>, metrics: ResizeMetrics) -> Self {
        metrics.drives.set(1);
        Self {
            id: id.to_owned(),
            presence,
            about: (0, Phase::Plain, false),
            settled: None,
            is_purged: false,
            is_moved: false,
            work: None,
            rest_until: None,
            unlisted: None,
            watched: Watched::default(),
            progress: Arc::default(),
            total: None,
            reported: None,
            rate: Rate::default(),
            standbys: None,
            metrics,
        }
    }

    /// Resolves when others may drive.
    pub(super) async fn lost(&self) {
        self.presence.lost().await;
    }

    /// Does what is to be done now.
    pub(super) async fn drive(
        &mut self,
        shared: &Shared,
        state: &State,
        revision: Revision,
        means: &Means,
    ) -> Result<Next, SharedError> {
        let about = state.change.as_ref().map_or((0, Phase::Plain, false), about);
        self.watch_servers(state, means);
        self.look_at_work();
        if self.about != about {
            // What was begun for another stay must have ended before anything is decided.
            if let Some(work) = &self.work {
                work.stop.send_replace(true);
                return Ok(Next::Later(Duration::from_millis(50)));
            }
            self.enter(about, state, means).await;
        }
        let facts = self.facts(shared, state, means).await?;
        let decision = decide(state, &facts);
        let waits_for = match &decision {
            Decision::Wait(reason) => Some(reason.to_string()),
            Decision::Rest | Decision::Purge | Decision::Move | Decision::StopMover | Decision::Put(_) => {
                self.obstacle(means)
            }
        };
        self.report(shared, state, waits_for, facts.away.iter().cloned().collect()).await?;
        match decision {
            Decision::Rest => self.stand_by(shared, state, revision, means).await,
            Decision::Wait(Reason::Guard(left) | Reason::Stubs(left)) => {
                Ok(Next::Later(left.min(REPORT_EVERY).max(Duration::from_millis(20))))
            }
            Decision::Wait(_) => Ok(Next::Later(Duration::from_millis(500))),
            Decision::StopMover => {
                if let Some(work) = &self.work {
                    work.stop.send_replace(true);
                }
                Ok(Next::Later(Duration::from_millis(50)))
            }
            Decision::Purge => Ok(self.work(Kind::Purge, state, means)),
            Decision::Move => Ok(self.work(Kind::Move, state, means)),
            Decision::Put(next) => {
                if let Put::Done(_) = shared.put_state(&next, Expect::Revision(revision)).await? {
                    announce(state, &next);
                    self.metrics.stepped(state, &next);
                }
                Ok(Next::Now)
            }
        }
    }

    /// Nothing is under way: is there too much in the servers, or too little?
    async fn stand_by(
        &mut self,
        shared: &Shared,
        state: &State,
        revision: Revision,
        means: &Means,
    ) -> Result<Next, SharedError> {
        match standby::Watch::look(&mut self.standbys, shared, state, means).await? {
            Turn::Wait(wait) if wait.is_zero() => Ok(Next::Now),
            Turn::Wait(wait) => Ok(Next::Later(wait)),
            Turn::Put(next) => {
                // If others were faster, it is looked at anew.
                shared.put_state(&next, Expect::Revision(revision)).await?;
                Ok(Next::Now)
            }
        }
    }

    /// A new stay in a phase.
    async fn enter(&mut self, about: About, state: &State, means: &Means) {
        (self.about, self.is_purged, self.is_moved, self.unlisted) = (about, false, false, None);
        self.rest_until = None;
        let Some(change) = &state.change else { return };
        if change.phase == Phase::B && !change.is_aborting {
            self.progress = Arc::default();
        }
        if change.phase == Phase::E && !change.is_aborting {
            self.total = estimate(&state.slots, &change.to, means).await;
        }
    }

    async fn facts(&mut self, shared: &Shared, state: &State, means: &Means) -> Result<Facts, SharedError> {
        let sidecars = shared.sidecars().await?;
        let sidecars: BTreeMap<_, _> =
            sidecars.into_iter().map(|(id, sidecar)| (id, sidecar.acknowledged)).collect();
        let behind = sidecars.values().filter(|acknowledged| **acknowledged < state.step).count();
        self.metrics.behind.set(i64::try_from(behind).unwrap_or(i64::MAX));
        let now = Instant::now();
        let all_in = sidecars.values().all(|acknowledged| *acknowledged >= state.step);
        self.settled = match self.settled {
            _ if !all_in => None,
            Some((step, since)) if step == state.step => Some((step, since)),
            Some(_) | None => Some((state.step, now)),
        };
        let settled = self.settled.map_or(Duration::ZERO, |(_, since)| now - since);
        if self.unlisted.is_some() && settled >= means.section.unlisted.get() {
            self.is_moved = true;
        }
        Ok(Facts {
            sidecars,
            settled,
            guard: means.section.guard.get(),
            is_purged: self.is_purged,
            is_moved: self.is_moved,
            is_mover_idle: self.work.is_none(),
            away: self.watched.away(means.section.away_after.get()),
        })
    }

    /// Begins work, unless it is under way.
    fn work(&mut self, kind: Kind, state: &State, means: &Means) -> Next {
        let is_resting = self.rest_until.is_some_and(|until| until > Instant::now());
        if self.work.is_none() && !is_resting && !(kind == Kind::Move && self.unlisted.is_some()) {
            let job = Job {
                kind,
                view: Arc::new(state.view(means.rule)),
                place_of: Arc::clone(&means.place_of),
                settings: Arc::clone(&means.settings),
                keys_per_second: f64::from(means.section.keys_per_second),
                bytes_per_second: means.section.bytes_per_second.0 as f64,
                metrics: self.metrics.clone(),
                progress: match kind {
                    Kind::Purge => Arc::default(),
                    Kind::Move => Arc::clone(&self.progress),
                },
            };
            let (stop, stopped) = watch::channel(false);
            let end = mover::start(job, stopped);
            self.work = Some(Work { about: self.about, kind, stop, end });
        }
        Next::Later(Duration::from_millis(100))
    }

    /// Takes note of work that has ended.
    fn look_at_work(&mut self) {
        let Some(work) = &mut self.work else { return };
        let end = match work.end.try_recv() {
            Ok(end) => end,
            Err(oneshot::error::TryRecvError::Empty) => return,
            Err(oneshot::error::TryRecvError::Closed) => End::Stopped,
        };
        let Some(Work { about, kind, .. }) = self.work.take() else { return };
        self.rest_until = Some(Instant::now() + AGAIN_AFTER);
        match (end, kind) {
            (_, _) if about != self.about => {}
            (End::Done, Kind::Purge) => self.is_purged = true,
            (End::Done, Kind::Move) => self.is_moved = true,
            (End::Unlisted(address), _) => {
                warn!(server = %address, "lists no keys: its crawler is off");
                self.unlisted = Some(address);
            }
            (End::Stopped, _) => self.rest_until = None,
        }
    }

    /// What stands in the way of the work under way.
    fn obstacle(&self, means: &Means) -> Option<String> {
        match (&self.unlisted, self.about.1) {
            (Some(address), Phase::E) => Some(format!(
                "{address} lists no keys (its lru_crawler is off): they find their own way for {}",
                means.section.unlisted
            )),
            (Some(address), _) => Some(format!(
                "{address} lists no keys (its lru_crawler is off) and holds items: enable it, or flush the server"
            )),
            (None, _) => self.progress.note.lock().clone(),
        }
    }

    async fn report(
        &mut self,
        shared: &Shared,
        state: &State,
        waits_for: Option<String>,
        away: Vec<Address>,
    ) -> Result<(), SharedError> {
        // "So many seconds left" is no news.
        let is_timed = self.about.1 == Phase::F || waits_for.as_ref().is_some_and(|it| it.ends_with("left"));
        let is_news = |(at, known): &(Instant, Option<String>)| {
            at.elapsed() >= REPORT_EVERY || (!is_timed && *known != waits_for)
        };
        if state.change.is_none() || !self.reported.as_ref().is_none_or(is_news) {
            return Ok(());
        }
        self.reported = Some((Instant::now(), waits_for.clone()));
        let progress = &self.progress;
        let moved = progress.done.load(Ordering::Relaxed);
        let left = self.total.filter(|_| self.about.1 == Phase::E).map_or(0, |it| it.saturating_sub(moved));
        self.metrics.keys_left.set(i64::try_from(left).unwrap_or(i64::MAX));
        let report = Report {
            step: state.step,
            leader: self.id.clone(),
            waits_for,
            moved,
            total: self.total.map(|total| total.max(moved)),
            bytes: progress.bytes.load(Ordering::Relaxed),
            failed: progress.failed.load(Ordering::Relaxed),
            refused: progress.refused.load(Ordering::Relaxed),
            keys_per_second: self.rate.of(moved),
            away,
        };
        shared.put_report(&report).await
    }

    /// Asks the servers of a change whether they answer, as long as it lasts.
    fn watch_servers(&mut self, state: &State, means: &Means) {
        let wanted: BTreeSet<&Address> = match &state.change {
            None => BTreeSet::new(),
            Some(change) => state.slots.iter().chain(&change.to).map(|server| &server.address).collect(),
        };
        self.watched.follow(&wanted, &means.settings);
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.metrics.deposed();
    }
}

fn about(change: &Change) -> About {
    (change.id, change.phase, change.is_aborting)
}

fn announce(before: &State, after: &State) {
    let phase =
        |state: &State| state.change.as_ref().map_or("none".to_owned(), |it| format!("{:?}", it.phase));
    info!(step = after.step, from = phase(before), to = phase(after), "the resize goes a step");
}

/// Keys that will move, as far as can be told.
async fn estimate(old: &[Endpoint], new: &[Endpoint], means: &Means) -> Option<u64> {
    let mut items = 0;
    for server in old {
        let mut line = Line::open(&server.address, &means.settings).await.ok()?;
        items += line.statistic("curr_items", &means.settings).await.ok()??;
    }
    let share = plan::moved_share(means.rule, old, new);
    // A share of a number of keys is a number of keys.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let moved = (items as f64 * share) as u64;
    Some(moved)
}

/// Keys in the last seconds.
#[derive(Default)]
struct Rate {
    samples: std::collections::VecDeque<(Instant, u64)>,
}

impl Rate {
    const SAMPLES: usize = 5;

    fn of(&mut self, count: u64) -> f64 {
        let now = Instant::now();
        if self.samples.len() >= Self::SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, count));
        match self.samples.front() {
            Some((since, before)) if *since < now => {
                count.saturating_sub(*before) as f64 / (now - *since).as_secs_f64()
            }
            Some(_) | None => 0.0,
        }
    }
}
