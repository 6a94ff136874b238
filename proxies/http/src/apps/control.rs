//! Who may change the apps, and what wins: an app that was set over the admin API stands before one of the file with
//! its name; what an operator said of a name holds whatever stands behind it.

use super::directory::Directory;
use super::keeper::{Keeper, Kept, Note, Place};
use super::restarts::{Restarted, Restarts};
use super::roster::Roster;
use super::standing::Standing;
use crate::config::{self, Config};
use crate::table::App;
use crate::upstream::Ground;
use groove_common::app::StartError;
use groove_common::config::{Issues, check_entry};
use groove_common::ids::Address;
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::{error, info};

/// The longest name of an app that is set over the admin API.
const NAME_BYTES_MAX: usize = 128;

/// The apps, for whoever changes them.
#[derive(Debug)]
pub struct Control {
    /// Held for a change: one at a time.
    state: Mutex<State>,
    directory: Arc<Directory>,
    keeper: Option<Keeper>,
    /// Counts the restarts of apps.
    restarts: Arc<Restarts>,
}

#[derive(Debug)]
struct State {
    roster: Roster,
    file: Arc<Config>,
    /// Apps that were set over the admin API.
    given: BTreeMap<String, Arc<config::App>>,
}

/// Why a change was not made.
#[derive(Debug)]
pub struct Refused {
    /// For the answer.
    pub status: StatusCode,
    /// For whoever asked.
    pub why: String,
}

impl Refused {
    fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status, why: why.into() }
    }

    fn unknown(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("there is no app `{name}`"))
    }
}

impl State {
    fn change(&mut self, name: &str, app: Option<&Arc<config::App>>) -> Result<(), Refused> {
        let refused = |error: StartError| Refused::new(StatusCode::CONFLICT, error.to_string());
        let change = self.roster.prepare([(name, app)], &self.file.timeouts).map_err(refused)?;
        self.roster.apply(change);
        Ok(())
    }
}

impl Control {
    /// The apps of the file, and what the state file has kept of changes.
    pub fn start(
        config: &Arc<Config>,
        ground: Arc<Ground>,
        directory: Arc<Directory>,
        restarts: Arc<Restarts>,
    ) -> Result<Self, StartError> {
        let (keeper, kept) = match &config.state {
            Some(state) => {
                let (keeper, kept) = Keeper::start(&state.file, &ground.runtime)?;
                (Some(keeper), kept)
            }
            None => (None, Kept::default()),
        };
        let mut roster = Roster::new(ground, Arc::clone(&directory));
        for (name, standing) in kept.standings {
            roster.stand(&name, standing);
        }
        let apps = config.apps.iter().map(|(name, app)| (name.as_str(), Some(app)));
        let change = roster.prepare(apps, &config.timeouts)?;
        roster.apply(change);
        let state = State { roster, file: Arc::clone(config), given: BTreeMap::new() };
        let control = Self { state: Mutex::new(state), directory, keeper, restarts };
        for (name, text) in kept.apps {
            let set = control.checked(&name, &name, &text).and_then(|config| {
                let mut state = control.state.lock();
                state.change(&name, Some(&config))?;
                state.given.insert(name.clone(), config);
                Ok(())
            });
            if let Err(Refused { why, .. }) = set {
                error!("the app `{name}` of the state file is left out:\n{why}");
            }
        }
        Ok(control)
    }

    /// Takes a changed file on, as far as it differs. `swap` is what else changes with it.
    pub fn reload(&self, config: &Arc<Config>, swap: impl FnOnce()) -> Result<(), StartError> {
        let mut state = self.state.lock();
        let State { roster, given, .. } = &mut *state;
        let stays = |name: &str| given.contains_key(name) || config.apps.contains_key(name);
        let gone: Vec<Arc<str>> =
            roster.apps().map(|app| Arc::clone(&app.name)).filter(|name| !stays(name)).collect();
        let gone = gone.iter().map(|name| (&**name, None));
        let own = config.apps.iter().filter(|(name, _)| !given.contains_key(*name));
        let own = own.map(|(name, app)| (name.as_str(), Some(app)));
        let given = given.iter().map(|(name, app)| (name.as_str(), Some(app)));
        let change = roster.prepare(own.chain(given).chain(gone), &config.timeouts)?;
        swap();
        roster.apply(change);
        state.file = Arc::clone(config);
        Ok(())
    }

    /// Sets an app, whether or not there was one of that name. `file` is what its errors call the text.
    pub async fn set(&self, name: &str, file: &str, text: &str) -> Result<Value, Refused> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(valid) {
            let why = format!("a name has 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`");
            return Err(Refused::new(StatusCode::UNPROCESSABLE_ENTITY, why));
        }
        let config = self.checked(name, file, text)?;
        let note = Note { app: name.to_owned(), set: Some(text.to_owned()), unset: false, standing: None };
        self.make(note, |state| {
            state.change(name, Some(&config))?;
            let before = state.given.insert(name.to_owned(), config);
            let in_file = state.file.apps.contains_key(name);
            Ok(json!({ "name": name, "created": before.is_none() && !in_file, "hides_file": in_file }))
        })
        .await
    }

    /// Takes an app back that was set. One of the file that has its name serves again.
    pub async fn unset(&self, name: &str) -> Result<Value, Refused> {
        // What was said of it is not for another of that name, some day.
        let standing = (!self.state.lock().file.apps.contains_key(name)).then(Standing::default);
        let note = Note { app: name.to_owned(), set: None, unset: true, standing: standing.clone() };
        self.make(note, |state| {
            let in_file = state.file.apps.get(name).cloned();
            if !state.given.contains_key(name) {
                return Err(match in_file {
                    Some(_) => Refused::new(
                        StatusCode::CONFLICT,
                        format!("`{name}` stands in the file: take it out there"),
                    ),
                    None => Refused::unknown(name),
                });
            }
            state.change(name, in_file.as_ref())?;
            state.given.remove(name);
            standing.into_iter().for_each(|standing| state.roster.stand(name, standing));
            Ok(json!({ "name": name, "serves_file": in_file.is_some() }))
        })
        .await
    }

    /// Lets clients be told that the app is being worked on, or no longer.
    pub async fn maintenance(&self, name: &str, on: bool) -> Result<Value, Refused> {
        self.stand(name, |standing, _| {
            standing.maintenance = on;
            Ok(())
        })
        .await
    }

    /// Lets no new exchange begin, with the whole app or with one of its endpoints; or lets them begin again.
    pub async fn drain(&self, name: &str, endpoint: Option<Address>, undo: bool) -> Result<Value, Refused> {
        self.stand(name, |standing, app| {
            let Some(endpoint) = endpoint else {
                standing.drained = !undo;
                return Ok(());
            };
            if undo {
                standing.drained_endpoints.remove(&endpoint);
                return Ok(());
            }
            let knows = |addresses: Vec<Address>| addresses.contains(&endpoint);
            if !app.upstreams.iter().any(|upstream| knows(upstream.addresses())) {
                return Err(Refused::new(
                    StatusCode::NOT_FOUND,
                    format!("`{name}` has no endpoint {endpoint}"),
                ));
            }
            standing.drained_endpoints.insert(endpoint);
            Ok(())
        })
        .await
    }

    /// Lets every connection of the app be a new one: each client's after its next exchange, each server's before. Those
    /// to servers that are idle are closed.
    pub fn restart(&self, name: &str) -> Result<Value, Refused> {
        let state = self.state.lock();
        let app = state.roster.get(name).ok_or_else(|| Refused::unknown(name))?;
        let number = self.restarts.begin();
        app.stand.restart(number);
        let begun = app.upstreams.iter().filter_map(|upstream| upstream.begun());
        let snapshots: Vec<_> = begun.map(|cluster| cluster.snapshot()).collect();
        let members = snapshots.iter().flat_map(|snapshot| &snapshot.members);
        let endpoints = members.map(|member| member.endpoint.id).collect();
        self.restarts.tell(Restarted { number, endpoints });
        info!(app = name, "starts anew");
        Ok(json!({ "name": name }))
    }

    /// One line an app.
    pub fn list(&self) -> Value {
        let state = self.state.lock();
        let row = |app: &Arc<App>| {
            let mut row = app.status();
            if let Value::Object(row) = &mut row {
                row.insert("hosts".to_owned(), json!(app.config.hosts));
                row.insert("from".to_owned(), json!(from(&state, &app.name)));
                row.insert("state".to_owned(), json!(state.roster.standing(&app.name).word()));
            }
            row
        };
        json!({ "apps": state.roster.apps().map(row).collect::<Vec<_>>() })
    }

    /// All of one app. What is secret in it is masked.
    pub fn get(&self, name: &str) -> Result<Value, Refused> {
        let state = self.state.lock();
        let app = state.roster.get(name).ok_or_else(|| Refused::unknown(name))?;
        let clusters: Vec<_> = app.upstreams.iter().map(|upstream| upstream.status()).collect();
        let hides_file = state.given.contains_key(name) && state.file.apps.contains_key(name);
        Ok(json!({
            "name": name,
            "from": from(&state, name),
            "hides_file": hides_file,
            "standing": state.roster.standing(name),
            "app": app.config,
            "clusters": clusters,
        }))
    }

    /// For the status page.
    pub fn status(&self) -> Value {
        let state = self.state.lock();
        let upstreams = state.roster.apps().flat_map(|app| &app.upstreams);
        let clusters: Vec<_> = upstreams.map(|upstream| upstream.status()).collect();
        let apps: Vec<_> = state.roster.apps().map(|app| app.status()).collect();
        json!({ "apps": apps, "clusters": clusters })
    }

    /// How many clusters there are, and the status of the first.
    pub fn clusters(&self, at_most: usize) -> (usize, Vec<Value>) {
        let state = self.state.lock();
        let all = || state.roster.apps().flat_map(|app| &app.upstreams);
        (all().count(), all().take(at_most).map(|upstream| upstream.status()).collect())
    }

    async fn stand(
        &self,
        name: &str,
        say: impl FnOnce(&mut Standing, &App) -> Result<(), Refused>,
    ) -> Result<Value, Refused> {
        let place = self.place().await?;
        let waiting = {
            let mut state = self.state.lock();
            let app = Arc::clone(state.roster.get(name).ok_or_else(|| Refused::unknown(name))?);
            let mut standing = state.roster.standing(name).clone();
            say(&mut standing, &app)?;
            state.roster.stand(name, standing.clone());
            info!(app = name, state = standing.word(), "an operator's word");
            let note = Note { app: name.to_owned(), set: None, unset: false, standing: Some(standing) };
            place.map(|place| place.put(&note))
        };
        kept(waiting).await?;
        let state = self.state.lock();
        Ok(json!({ "name": name, "standing": state.roster.standing(name) }))
    }

    /// Makes a change and waits until it is kept.
    async fn make(
        &self,
        note: Note,
        change: impl FnOnce(&mut State) -> Result<Value, Refused>,
    ) -> Result<Value, Refused> {
        let place = self.place().await?;
        let (answer, waiting) = {
            let mut state = self.state.lock();
            let answer = change(&mut state)?;
            (answer, place.map(|place| place.put(&note)))
        };
        kept(waiting).await?;
        Ok(answer)
    }

    async fn place(&self) -> Result<Option<Place>, Refused> {
        match &self.keeper {
            Some(keeper) => {
                let refused = |why| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
                keeper.place().await.map(Some).map_err(refused)
            }
            None => Ok(None),
        }
    }

    /// The errors of a text, each with its place.
    fn checked(&self, name: &str, file: &str, text: &str) -> Result<Arc<config::App>, Refused> {
        let validate = |app: &config::App, issues: &mut Issues| {
            config::check_app(name, app, issues);
            for (index, host) in app.hosts.iter().enumerate() {
                if let Some(owner) = self.directory.owner(host).filter(|owner| *owner.name != *name) {
                    let at = ["apps", name, "hosts", &index.to_string()];
                    let help = "a host belongs to one app: leave it out of one of the two";
                    issues.at(&at, format!("app `{}` has this host already", owner.name), Some(help));
                }
            }
        };
        check_entry::<Config, config::App>(file, text, &["apps", name], validate)
            .map(Arc::new)
            .map_err(|report| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, report.to_string()))
    }
}

/// Where an app comes from.
fn from(state: &State, name: &str) -> &'static str {
    if state.given.contains_key(name) { "api" } else { "file" }
}

/// Waits until a change is on disk. It is in effect already.
async fn kept(waiting: Option<tokio::sync::oneshot::Receiver<Result<(), String>>>) -> Result<(), Refused> {
    let Some(waiting) = waiting else { return Ok(()) };
    let failed = |why: String| {
        let why = format!("this is in effect, but will not outlive a restart: {why}");
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    };
    waiting.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
}
