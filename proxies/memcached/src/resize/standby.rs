//! Standby servers, as the one who drives watches over them: asks the servers how they stand, and puts into the shared
//! state what [`Pressure`] says. The rest is a resize like any other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use groove_common::config::{self, Endpoint, Size};
use groove_common::ids::Address;
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::driver::Means;
use super::line::Line;
use super::metrics::now_s;
use super::phase::State;
use super::pressure::{Last, Load, Loads, Pressure, Rules, Verdict};
use super::shared::{Shared, SharedError};
use super::wishes::Joined;
use crate::config::Standby;
use crate::error::Failure;
use crate::upstream::connection::Settings;

/// Looks in the shorter of the times that something must last.
const LOOKS: u32 = 4;
const LOOK_EVERY_MIN: Duration = Duration::from_secs(1);
const LOOK_EVERY_MAX: Duration = Duration::from_secs(30);
/// While servers are being asked.
const ANSWERED_WITHIN: Duration = Duration::from_millis(50);
/// Where nothing is watched.
const REST: Duration = Duration::from_secs(60);

/// What was seen lately, for the others.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// By all servers in service.
    pub(super) evictions_per_second: f64,
    /// Bytes of items in them.
    pub(super) stored: u64,
    /// Bytes that they may take.
    pub(super) room: u64,
    /// What it may lead to.
    pub(super) note: Option<String>,
    /// Servers, standby servers among them, that do not answer.
    pub(super) silent: Vec<Address>,
}

/// What is to be done.
pub(super) enum Turn {
    /// Look again then.
    Wait(Duration),
    /// Put this state.
    Put(State),
}

/// Watches while nothing else is under way.
pub(super) struct Watch {
    /// The step that all of this is about.
    step: u64,
    began: Instant,
    pressure: Pressure,
    next_at: Duration,
    /// Servers that are being asked.
    asked: Option<AbortOnDropHandle<Loads>>,
    /// Those that did not answer at the last look.
    silent: Vec<Address>,
    /// No standby server is left to join.
    is_exhausted: bool,
}

impl Watch {
    fn new(state: &State, rules: &Rules) -> Self {
        Self {
            step: state.step,
            began: Instant::now(),
            pressure: Pressure::new(Duration::ZERO, rules),
            next_at: Duration::ZERO,
            asked: None,
            silent: Vec::new(),
            is_exhausted: false,
        }
    }

    /// Goes on watching, from the beginning if something has changed. Never waits for a server.
    pub(super) async fn look(
        watch: &mut Option<Self>,
        shared: &Shared,
        state: &State,
        means: &Means,
    ) -> Result<Turn, SharedError> {
        count(state, means);
        if let Some(left) = taken_back(state, means.standby.as_ref()) {
            return Ok(Turn::Put(left));
        }
        let Some(section) = &means.standby else { return Ok(Turn::Wait(REST)) };
        let rules = rules(section);
        let fresh = || Self::new(state, &rules);
        let watch = match watch {
            Some(watch) if watch.step == state.step => watch,
            Some(_) | None => watch.insert(fresh()),
        };
        let now = watch.began.elapsed();
        if let Some(asked) = watch.asked.take_if(|asked| asked.is_finished()) {
            // A task that was cut has heard nothing.
            let loads = asked.await.unwrap_or_default();
            let next = watch.judge(now, loads, state, section, means);
            shared.put_seen(&watch.seen(now, state, section)).await?;
            return Ok(next.map_or(Turn::Wait(Duration::ZERO), Turn::Put));
        }
        if watch.asked.is_some() {
            return Ok(Turn::Wait(ANSWERED_WITHIN));
        }
        if let Some(left) = watch.next_at.checked_sub(now).filter(|left| !left.is_zero()) {
            return Ok(Turn::Wait(left));
        }
        watch.next_at = now + look_every(&rules);
        let waiting = waiting(state, section).map(|server| server.address.clone());
        let servers = state.slots.iter().map(|server| server.address.clone()).chain(waiting).collect();
        let asked = tokio::spawn(ask(servers, Arc::clone(&means.settings)));
        watch.asked = Some(AbortOnDropHandle::new(asked));
        Ok(Turn::Wait(ANSWERED_WITHIN))
    }

    /// What follows from what servers said.
    fn judge(
        &mut self,
        now: Duration,
        mut loads: Loads,
        state: &State,
        section: &Standby,
        means: &Means,
    ) -> Option<State> {
        let silent = loads.iter().filter(|(_, load)| load.is_none());
        self.silent = silent.map(|(address, _)| address.clone()).collect();
        loads.retain(|address, _| state.slots.iter().any(|server| server.address == *address));
        let last = state.standbys.last();
        let leaves = last.map(|last| Last { address: &last.address, full_percent: last.full_percent });
        let verdict = self.pressure.look(now, &rules(section), loads, leaves);
        let seen = self.pressure.seen();
        means.metrics.evictions.add(seen.evictions);
        self.is_exhausted &= verdict == Verdict::Join;
        match verdict {
            Verdict::Stay => None,
            Verdict::Leave => {
                let left = last.and_then(|last| state.leave(&last.address));
                info!(
                    server = last.map(|last| last.address.to_string()),
                    "the others would hold all: it leaves"
                );
                left
            }
            Verdict::Join => {
                let next = waiting(state, section).find(|server| !self.silent.contains(&server.address));
                let Some(server) = next else {
                    if !std::mem::replace(&mut self.is_exhausted, true) {
                        warn!("servers evict, and there is no standby server left to join");
                    }
                    return None;
                };
                let full_percent = seen.full_percent();
                let why = format!(
                    "{:.1} evictions a second for {}, {full_percent} % of {} used",
                    seen.evictions_per_second,
                    section.join.lasting,
                    Size(seen.room_len),
                );
                info!(server = %server.address, why, "a standby server joins");
                let address = server.address.clone();
                state.join(server, Joined { address, since_s: now_s(), why, full_percent })
            }
        }
    }

    fn seen(&self, now: Duration, state: &State, section: &Standby) -> Seen {
        let seen = self.pressure.seen();
        let time = |time: Duration| config::Duration::from_secs(time.as_secs());
        let note = match self.pressure.since(now) {
            (Some(_), _) if self.is_exhausted => Some("evicting, and no standby server is left".to_owned()),
            (Some(since), _) => Some(format!("evicting for {} of {}", time(since), section.join.lasting)),
            (None, Some(since)) if !state.standbys.is_empty() => {
                Some(format!("the others would hold all for {} of {}", time(since), section.leave.after))
            }
            (None, _) => None,
        };
        Seen {
            evictions_per_second: seen.evictions_per_second,
            stored: seen.stored_len,
            room: seen.room_len,
            note,
            silent: self.silent.clone(),
        }
    }
}

/// Those that are not in service, in the order in which they would join.
fn waiting<'s>(state: &'s State, section: &'s Standby) -> impl Iterator<Item = &'s Endpoint> {
    let serves = |server: &Endpoint| state.slots.iter().any(|it| it.address == server.address);
    section.endpoints.iter().filter(move |server| !serves(server))
}

/// Without the last one that the operator no longer gives.
fn taken_back(state: &State, section: Option<&Standby>) -> Option<State> {
    let given = |address: &Address| {
        section.is_some_and(|section| section.endpoints.iter().any(|server| server.address == *address))
    };
    let joined = state.standbys.iter().rev().find(|joined| !given(&joined.address))?;
    let left = state.leave(&joined.address)?;
    info!(server = %joined.address, "it is no longer listed as a standby server: it leaves");
    Some(left)
}

fn count(state: &State, means: &Means) {
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let waiting = means.standby.as_ref().map_or(0, |section| waiting(state, section).count());
    means.metrics.standbys_joined.set(number(state.standbys.len()));
    means.metrics.standbys_waiting.set(number(waiting));
}

fn rules(section: &Standby) -> Rules {
    Rules {
        evictions_per_second: f64::from(section.join.evictions_per_second),
        join_after: section.join.lasting.get(),
        leave_below: f64::from(section.leave.below_percent) / 100.0,
        leave_after: section.leave.after.get(),
        settle: section.settle.get(),
    }
}

fn look_every(rules: &Rules) -> Duration {
    (rules.join_after.min(rules.leave_after) / LOOKS).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
}

/// How servers stand, all asked at once.
async fn ask(servers: Vec<Address>, settings: Arc<Settings>) -> Loads {
    let ask = |address: Address| async {
        let load = load(&address, &settings).await.ok().flatten();
        (address, load)
    };
    join_all(servers.into_iter().map(ask)).await.into_iter().collect()
}

async fn load(address: &Address, settings: &Settings) -> Result<Option<Load>, Failure> {
    let mut line = Line::open(address, settings).await?;
    let (mut evictions, mut stored, mut room) = (None, None, None);
    line.statistics(settings, |name, value| match name {
        "evictions" => evictions = value.parse().ok(),
        "bytes" => stored = value.parse().ok(),
        "limit_maxbytes" => room = value.parse().ok(),
        _ => (),
    })
    .await?;
    let load = |(evictions, stored_len, room_len)| Load { evictions, stored_len, room_len };
    Ok(evictions.zip(stored).zip(room).map(|((evictions, stored), room)| load((evictions, stored, room))))
}
