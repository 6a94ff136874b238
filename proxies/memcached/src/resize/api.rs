//! `/api/v1/resize…`: how resizes stand, and what operators want of them. Any sidecar of a cluster will do.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use groove_common::admin::{Request, Response, Routes, json, plain};
use groove_common::config::Endpoint;
use groove_common::ids::Address;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::phase::{State, Wish};
use super::shared::{Report, SharedError, Sidecar};
use super::standby::Seen;
use super::view::{Gone, Phase};
use super::wishes::{Joined, Refused};
use crate::upstream::Topology;

/// How a cluster's resize stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: String,
    /// How far it is.
    pub phase: Phase,
    /// It goes back to the old list.
    pub aborting: bool,
    /// An operator has stopped it.
    pub paused: bool,
    /// The committed list; during a resize the old one.
    pub servers: Vec<Endpoint>,
    /// The list that it leads to.
    pub to: Option<Vec<Endpoint>>,
    /// The list that is wanted after it.
    pub next: Option<Vec<Endpoint>>,
    /// Why it does not go on.
    pub waits_for: Option<String>,
    /// Keys moved.
    pub keys_moved: u64,
    /// Keys to move, as far as can be told.
    pub keys_total: Option<u64>,
    /// Keys moved a second, lately.
    pub keys_per_second: f64,
    /// Bytes of values moved.
    pub bytes_moved: u64,
    /// Tries to move a key that failed; they are repeated.
    pub tries_failed: u64,
    /// Keys that a new server did not take: they are lost.
    pub keys_refused: u64,
    /// Until the keys have been moved.
    pub seconds_left: Option<u64>,
    /// Servers that were given up during it.
    pub gone: BTreeMap<Address, Gone>,
    /// Servers that do not answer.
    pub away: Vec<Address>,
    /// Counts what all sidecars must acknowledge.
    pub step: u64,
    /// Who drives it.
    pub leader: Option<String>,
    /// The sidecar that was asked.
    pub asked: String,
    /// Every sidecar that is present.
    pub sidecars: Vec<Present>,
    /// The standby servers, if there are any.
    pub standby: Option<Standing>,
}

/// How the standby servers of a cluster stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Those in service in the order in which they joined, then the others.
    pub servers: Vec<StandbyServer>,
    /// By all servers in service, lately.
    pub evictions_per_second: f64,
    /// Bytes of items in them.
    pub bytes_stored: u64,
    /// Bytes that they may take.
    pub bytes_max: u64,
    /// What that may lead to.
    pub note: Option<String>,
}

/// A standby server in a [`Standing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyServer {
    /// Where it answers.
    pub address: Address,
    /// What it does.
    pub part: StandbyPart,
    /// Since when it has been joining or in service, in Unix seconds.
    pub since: Option<u64>,
    /// Why it joined.
    pub why: Option<String>,
    /// It does not answer.
    pub silent: bool,
}

/// What a standby server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StandbyPart {
    /// It may join.
    Waiting,
    /// It is about to serve.
    Joining,
    /// It serves.
    Joined,
    /// It is about to serve no longer.
    Leaving,
}

impl Standing {
    fn new(state: &State, given: &[Endpoint], seen: Seen) -> Option<Self> {
        let is_in = |list: &[Endpoint], address: &Address| list.iter().any(|it| it.address == *address);
        let server = |address: &Address, joined: Option<&Joined>| StandbyServer {
            address: address.clone(),
            part: match (is_in(&state.slots, address), is_in(state.target(), address)) {
                _ if joined.is_none() => StandbyPart::Waiting,
                (true, true) => StandbyPart::Joined,
                (false, true) => StandbyPart::Joining,
                (_, false) => StandbyPart::Leaving,
            },
            since: joined.map(|joined| joined.since_s),
            why: joined.map(|joined| joined.why.clone()),
            silent: seen.silent.contains(address),
        };
        let joined = state.standbys.iter().map(|joined| server(&joined.address, Some(joined)));
        let waiting = given.iter().filter(|it| !state.is_standby(&it.address));
        let waiting = waiting.filter(|it| !is_in(&state.slots, &it.address));
        let servers: Vec<_> = joined.chain(waiting.map(|it| server(&it.address, None))).collect();
        let Seen { evictions_per_second, stored: bytes_stored, room: bytes_max, note, silent: _ } = seen;
        let standing = Self { servers, evictions_per_second, bytes_stored, bytes_max, note };
        (!standing.servers.is_empty()).then_some(standing)
    }
}

/// A sidecar in a [`Status`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Present {
    /// Its name.
    pub name: String,
    /// The step that it has acknowledged.
    pub acknowledged: u64,
    /// It has not acknowledged the latest.
    pub behind: bool,
    /// Its machine.
    pub host: String,
    /// Its process.
    pub pid: u32,
}

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    cluster: Option<String>,
    to: Option<Vec<Endpoint>>,
    immediate: bool,
}

impl Status {
    /// Nothing is under way, and everybody knows it.
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Plain
            && self.next.is_none()
            && self.sidecars.iter().all(|sidecar| !sidecar.behind)
    }

    /// The listed servers: all but the standby servers.
    pub fn listed(&self) -> Vec<Endpoint> {
        let standbys = || self.standby.iter().flat_map(|standing| &standing.servers);
        let is_standby = |server: &Endpoint| standbys().any(|standby| standby.address == server.address);
        self.servers.iter().filter(|server| !is_standby(server)).cloned().collect()
    }

    fn new(
        cluster: &str,
        asked: &str,
        state: State,
        sidecars: BTreeMap<String, Sidecar>,
        report: Option<Report>,
        standby: Option<Standing>,
    ) -> Self {
        let (phase, step) = (state.phase(), state.step);
        // What was told of an earlier change is no news.
        let report = report.filter(|_| phase != Phase::Plain).unwrap_or_default();
        let left =
            report.total.map(|total| total.saturating_sub(report.moved) as f64 / report.keys_per_second);
        let left = left.filter(|left| phase == Phase::E && left.is_finite());
        // Seconds, a few.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let seconds_left = left.map(|left| left.ceil() as u64);
        let present = |(name, sidecar): (String, Sidecar)| Present {
            name,
            acknowledged: sidecar.acknowledged,
            behind: sidecar.acknowledged < step,
            host: sidecar.host,
            pid: sidecar.pid,
        };
        let sidecars: Vec<Present> = sidecars.into_iter().map(present).collect();
        let (aborting, to, gone) = match state.change {
            Some(change) => (change.is_aborting, Some(change.to), change.gone),
            None => (false, None, BTreeMap::new()),
        };
        Self {
            cluster: cluster.to_owned(),
            phase,
            aborting,
            paused: state.paused,
            servers: state.slots,
            to,
            next: state.next.map(|wish| wish.to),
            waits_for: report.waits_for,
            keys_moved: report.moved,
            keys_total: report.total,
            keys_per_second: report.keys_per_second,
            bytes_moved: report.bytes,
            tries_failed: report.failed,
            keys_refused: report.refused,
            seconds_left,
            gone,
            away: report.away,
            step,
            leader: (!report.leader.is_empty()).then_some(report.leader),
            asked: asked.to_owned(),
            sidecars,
            standby,
        }
    }
}

/// The routes.
pub fn routes(topology: &Arc<ArcSwap<Topology>>) -> Routes {
    let with = || Arc::clone(topology);
    let (status, to, pause, resume, abort) = (with(), with(), with(), with(), with());
    Routes::new()
        .get("/api/v1/resize", "how the resizes of all clusters stand", move |_| all(status.load_full()))
        .post("/api/v1/resize", "begins a resize: `{cluster, to: [servers], immediate}`", move |request| {
            change(to.load_full(), request, |state, wanted| {
                let list = wanted.to.clone().unwrap_or_default();
                state.propose(Wish { to: list, is_immediate: wanted.immediate })
            })
        })
        .post("/api/v1/resize/pause", "stops a resize where it is: `{cluster}`", move |request| {
            change(pause.load_full(), request, |state, _| state.pause(true))
        })
        .post("/api/v1/resize/resume", "lets it go on: `{cluster}`", move |request| {
            change(resume.load_full(), request, |state, _| state.pause(false))
        })
        .post("/api/v1/resize/abort", "goes back to the old servers: `{cluster}`", move |request| {
            change(abort.load_full(), request, |state, _| state.abort())
        })
}

async fn all(topology: Arc<Topology>) -> Response {
    let mut found = Vec::new();
    for (name, control) in topology.controls() {
        match status(name, control).await {
            Ok(status) => found.push(status),
            Err(error) => return refuse(&error),
        }
    }
    json(&found)
}

async fn status(name: &str, control: &Control) -> Result<Status, SharedError> {
    let shared = control.shared();
    let Some((state, _)) = shared.state().await? else {
        return Err(SharedError::Strange("nothing is there yet".to_owned()));
    };
    let (sidecars, report) = (shared.sidecars().await?, shared.report().await?);
    let means = control.means();
    let given = means.standby.as_ref().map_or(&[][..], |standby| &standby.endpoints);
    let standing = Standing::new(&state, given, shared.seen().await?.unwrap_or_default());
    let mut status = Status::new(name, control.id(), state, sidecars, report, standing);
    if let Some(trouble) = control.trouble() {
        status.waits_for = Some(trouble);
    }
    Ok(status)
}

async fn change(
    topology: Arc<Topology>,
    request: Request,
    change: impl Fn(&State, &Wanted) -> Result<State, Refused>,
) -> Response {
    let body: &[u8] = match request.body().is_empty() {
        true => b"{}",
        false => request.body(),
    };
    let wanted: Wanted = match serde_json::from_slice(body) {
        Ok(wanted) => wanted,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let (name, control) = match choose(&topology, wanted.cluster.as_deref()) {
        Ok(chosen) => chosen,
        Err(message) => return plain(StatusCode::NOT_FOUND, message),
    };
    match control.shared().change(|state| change(state, &wanted).map(Some)).await {
        Ok(_) => match status(name, control).await {
            Ok(status) => json(&status),
            Err(error) => refuse(&error),
        },
        Err(error) => refuse(&error),
    }
}

/// The cluster that is meant; without a name the only one there is.
fn choose<'t>(topology: &'t Topology, name: Option<&str>) -> Result<(&'t str, &'t Arc<Control>), String> {
    let controls: Vec<_> = topology.controls().collect();
    let names = || controls.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("`, `");
    match (name, controls.as_slice()) {
        (_, []) => Err("no cluster has a `resize` section with a `state` folder".to_owned()),
        (None, [only]) => Ok(*only),
        (None, [..]) => Err(format!("which cluster is meant? There are `{}`", names())),
        (Some(name), [..]) => {
            let found = controls.iter().find(|(known, _)| *known == name);
            found
                .copied()
                .ok_or_else(|| format!("no cluster `{name}` can be resized; there are `{}`", names()))
        }
    }
}

fn refuse(error: &SharedError) -> Response {
    let status = match error {
        SharedError::Refused(Refused::Unfit(_)) => StatusCode::UNPROCESSABLE_ENTITY,
        SharedError::Refused(
            Refused::Same | Refused::UnderWay | Refused::Nothing | Refused::TooLate | Refused::Gone(_),
        )
        | SharedError::Contended => StatusCode::CONFLICT,
        SharedError::Store(_) | SharedError::Strange(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    plain(status, error.to_string())
}
