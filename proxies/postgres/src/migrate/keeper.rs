//! The running proxy's part: where its databases have moved to, and a gate that a migration closes for a moment.
//!
//! A closed gate is on a lease. Whoever closed it and is not heard of again, killed or cut off, has it opened: to the side
//! that the journal has decided on, after the servers were brought to that, as far as the proxy can reach both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use groove_common::app::StartError;
use groove_common::ids::Address;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::fault::{Fault, Outcome, refused};
use super::files::Folder;
use super::policy::phase::Phase;
use super::policy::route::{Route, Routes, Standing};
use super::recover;
use crate::Shared;
use crate::config::{Config, Migration};
use crate::live::State;
use crate::upstream::Ahead;

/// Clients that are named when they hold the gate up.
const NAMED_MAX: usize = 5;
/// Connections that were made ahead and not used are closed after so long.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// A proxy that finds the other server dead opens its gate all the same after so long.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// What the proxy knows of migrations.
pub struct Keeper(Mutex<Inner>);

struct Inner {
    /// The configuration as it is written.
    written: Arc<Config>,
    folder: Option<Folder>,
    routes: Routes,
    /// Gates that are closed, by database.
    closed: HashMap<String, Closed>,
    /// Connections to where databases are about to go, by who has asked for them.
    ahead: HashMap<String, Ready>,
    /// Counts what has closed a gate.
    closings: u64,
}

/// Connections that were made ahead.
struct Ready {
    to: Address,
    connections: Ahead,
    /// They are closed if nobody has wanted them by then.
    _until: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Closed {
    holder: String,
    closing: u64,
    until: Instant,
}

/// Which databases, on whose behalf.
#[derive(Debug, Clone)]
pub(super) struct Whose {
    /// The migration.
    pub(super) holder: String,
    /// The name that it goes by.
    pub(super) database: String,
    /// All names of the same place.
    pub(super) names: Vec<String>,
}

impl Keeper {
    /// Knows where databases have moved to; and the configuration as it is with that.
    pub(crate) fn start(written: &Arc<Config>) -> Result<(Keeper, Arc<Config>), StartError> {
        let (folder, routes) = open(written)?;
        let config = routes.apply(written);
        let inner = Inner {
            written: Arc::clone(written),
            folder,
            routes,
            closed: HashMap::new(),
            ahead: HashMap::new(),
            closings: 0,
        };
        inner.tell();
        Ok((Keeper(Mutex::new(inner)), config))
    }

    /// Takes a changed configuration on, if `take` does.
    pub(crate) fn reload(
        &self,
        written: &Arc<Config>,
        take: impl FnOnce(&Arc<Config>) -> Result<(), StartError>,
    ) -> Result<(), StartError> {
        let mut inner = self.0.lock();
        let folder_of = |config: &Config| config.migration.as_ref().map(|migration| migration.folder.clone());
        let (folder, routes) = match folder_of(&inner.written) == folder_of(written) {
            true => (inner.folder.clone(), inner.routes.clone()),
            false => open(written)?,
        };
        take(&routes.apply(written))?;
        (inner.folder, inner.routes, inner.written) = (folder, routes, Arc::clone(written));
        inner.tell();
        Ok(())
    }

    /// A row for each database that has moved or whose gate is closed.
    pub(crate) fn status(&self) -> Vec<serde_json::Value> {
        let inner = self.0.lock();
        let now = Instant::now();
        let names = inner
            .routes
            .0
            .keys()
            .chain(inner.closed.keys().filter(|name| !inner.routes.0.contains_key(*name)));
        names
            .map(|name| {
                let route = inner.routes.0.get(name);
                let written = inner.written.databases.get(name);
                let standing =
                    route.zip(written).map(|(route, written)| route.standing(&written.endpoints).name());
                let closed = inner.closed.get(name);
                serde_json::json!({
                    "name": name,
                    "address": route.map(|route| route.address().to_string()),
                    "source": route.map(|route| route.source.to_string()),
                    "target": route.map(|route| route.target.to_string()),
                    "route": standing,
                    "gate": if closed.is_some() { "closed" } else { "open" },
                    "lease_ms": closed.map(|closed| millis(closed.until.saturating_duration_since(now))),
                })
            })
            .collect()
    }

    /// Whether what has moved can be kept.
    pub(super) fn has_folder(&self) -> bool {
        self.0.lock().folder.is_some()
    }

    fn migration(&self) -> Option<(Folder, Migration)> {
        let inner = self.0.lock();
        Some((inner.folder.clone()?, inner.written.migration.clone()?))
    }

    /// Makes connections to where the databases are about to go.
    pub(super) async fn prepare(shared: &Arc<Shared>, whose: &Whose, to: &Address) -> usize {
        let directory = &shared.directory;
        let mut connections = Ahead::default();
        for dialled in join_all(whose.names.iter().map(|name| directory.dial_ahead(name, to))).await {
            connections.join(dialled);
        }
        let count = connections.count();
        let (keeper, holder) = (Arc::downgrade(shared), whose.holder.clone());
        let until = tokio::spawn(async move {
            tokio::time::sleep(AHEAD_MAX).await;
            if let Some(shared) = keeper.upgrade() {
                let unused = shared.migrations.0.lock().ahead.remove(&holder);
                drop(unused);
            }
        });
        let ready = Ready { to: to.clone(), connections, _until: AbortOnDropHandle::new(until) };
        shared.migrations.0.lock().ahead.insert(whose.holder.clone(), ready);
        count
    }

    /// Closes the gate, and returns when no transaction is under way any more; after the budget it is open again.
    pub(super) async fn close(
        shared: &Arc<Shared>,
        whose: &Whose,
        (budget, lease): (Duration, Duration),
    ) -> Outcome<Duration> {
        let begun = Instant::now();
        let keeper = &shared.migrations;
        let directory = &shared.directory;
        let config = directory.config();
        if let Some(name) = whose.names.iter().find(|name| !config.databases.contains_key(*name)) {
            return refused(format!("there is no database `{name}` here"));
        }
        let closing = keeper.note(whose, begun + budget + lease)?;
        let mut shutting = Shutting { shared, whose, is_done: false };
        whose.names.iter().for_each(|name| _ = directory.shut(name));
        let pools: Vec<_> = whose.names.iter().flat_map(|name| directory.pools_of(name)).collect();
        if timeout(budget, join_all(pools.iter().map(|pool| pool.empty()))).await.is_err() {
            return Err(Fault::Budget(in_the_way(shared, whose)));
        }
        shutting.is_done = true;
        keeper.prolong(whose, closing, Instant::now() + lease);
        tokio::spawn(watch(Arc::clone(shared), whose.clone(), closing));
        Ok(begun.elapsed())
    }

    /// Notes who closes the gate; not if somebody else has.
    fn note(&self, whose: &Whose, until: Instant) -> Outcome<u64> {
        let mut inner = self.0.lock();
        let others = whose
            .names
            .iter()
            .find(|name| inner.closed.get(*name).is_some_and(|closed| closed.holder != whose.holder));
        if let Some(name) = others {
            return refused(format!("the gate of `{name}` is closed by another migration"));
        }
        inner.closings += 1;
        let closed = Closed { holder: whose.holder.clone(), closing: inner.closings, until };
        for name in &whose.names {
            inner.closed.insert(name.clone(), closed.clone());
        }
        Ok(inner.closings)
    }

    fn prolong(&self, whose: &Whose, closing: u64, until: Instant) {
        let mut inner = self.0.lock();
        for name in &whose.names {
            if let Some(closed) = inner.closed.get_mut(name).filter(|closed| closed.closing == closing) {
                closed.until = until;
            }
        }
    }

    /// Sends the databases' clients to another server, now and after a restart.
    pub(super) async fn switch(shared: &Shared, whose: &Whose, route: &Route) -> Outcome<()> {
        let keeper = &shared.migrations;
        let Some((folder, _)) = keeper.migration() else {
            return refused("there is no `migration: {folder: …}` in this proxy's configuration");
        };
        // A journal in the same folder says so already, and clients need not wait for a second word.
        let is_known = folder
            .journal(&whose.database)
            .await?
            .is_some_and(|kept| kept.journal.id == whose.holder && kept.journal.serving() == route.serving);
        let keep = keep(folder, whose.names.clone(), route.clone());
        if is_known {
            tokio::spawn(async {
                if let Err(fault) = keep.await {
                    warn!(%fault, "where a database has moved to is only in the migration's journal");
                }
            });
        } else {
            keep.await?;
        }
        let mut inner = keeper.0.lock();
        for name in &whose.names {
            inner.routes.0.insert(name.clone(), route.clone());
        }
        let config = inner.routes.apply(&inner.written);
        shared.directory.reload(&config).map_err(|error| Fault::Refused(error.to_string()))?;
        if let Some(ready) = inner.ahead.remove(&whose.holder)
            && ready.to == *route.address()
        {
            shared.directory.stock(ready.connections);
        }
        info!(database = whose.database, address = %route.address(), "moved to another server");
        Ok(())
    }

    /// Opens the gate.
    pub(super) fn open(shared: &Shared, whose: &Whose) {
        let mut inner = shared.migrations.0.lock();
        inner.ahead.remove(&whose.holder);
        for name in &whose.names {
            if inner.closed.get(name).is_none_or(|closed| closed.holder == whose.holder) {
                inner.closed.remove(name);
                shared.directory.reopen(name);
            }
        }
    }

    /// Forgets where databases have moved to whose place is written by now; the names of the others.
    pub(super) async fn forget(&self, names: &[String]) -> Outcome<Vec<String>> {
        let Some((folder, _)) = self.migration() else { return Ok(Vec::new()) };
        let mut kept = Vec::new();
        for name in names {
            let needed = {
                let inner = self.0.lock();
                let written = inner.written.databases.get(name);
                let route = inner.routes.0.get(name).cloned();
                let is_needed = |route: &Route| {
                    written.is_some_and(|written| route.standing(&written.endpoints) == Standing::InEffect)
                };
                route.filter(is_needed)
            };
            // The journal goes: from here on it is known by this alone.
            folder.set_route(name, needed.as_ref()).await?;
            if needed.is_some() {
                kept.push(name.clone());
            } else {
                self.0.lock().routes.0.remove(name);
            }
        }
        Ok(kept)
    }

    fn holds(&self, whose: &Whose, closing: u64) -> Option<Instant> {
        let inner = self.0.lock();
        let of = whose.names.iter().filter_map(|name| inner.closed.get(name));
        of.filter(|closed| closed.closing == closing).map(|closed| closed.until).max()
    }
}

impl Inner {
    /// Says at the start, and whenever the file changes, what is not as it is written.
    fn tell(&self) {
        for (name, route) in &self.routes.0 {
            let Some(written) = self.written.databases.get(name) else { continue };
            let address = route.address();
            match route.standing(&written.endpoints) {
                Standing::InEffect => warn!(
                    database = name,
                    %address,
                    "it has moved: write `endpoints: [{address}]`"
                ),
                Standing::Overruled => warn!(
                    database = name,
                    %address,
                    "it has moved there, but the configuration names other servers and counts"
                ),
                Standing::Agrees => {}
            }
        }
    }
}

fn open(config: &Config) -> Result<(Option<Folder>, Routes), StartError> {
    let Some(migration) = &config.migration else { return Ok((None, Routes::default())) };
    let folder = Folder::open(&migration.folder)?;
    let routes = folder.routes()?;
    Ok((Some(folder), routes))
}

async fn keep(folder: Folder, names: Vec<String>, route: Route) -> Outcome<()> {
    for name in &names {
        folder.set_route(name, Some(&route)).await?;
    }
    Ok(())
}

/// A gate that is being closed, and opened again unless all goes well.
struct Shutting<'a> {
    shared: &'a Shared,
    whose: &'a Whose,
    is_done: bool,
}

impl Drop for Shutting<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            Keeper::open(self.shared, self.whose);
        }
    }
}

/// Who still has a server connection.
fn in_the_way(shared: &Shared, whose: &Whose) -> String {
    let clients = shared.live.clients();
    let busy: Vec<_> = clients
        .iter()
        .filter(|client| whose.names.contains(&client.pool.database) && client.state() == State::Active)
        .collect();
    let named: Vec<_> = busy
        .iter()
        .take(NAMED_MAX)
        .map(|client| format!("{} ({}, {})", client.peer, client.pool.user, client.application_name))
        .collect();
    format!(
        "{} clients are in a transaction or keep their server connection: {}",
        busy.len(),
        named.join(", ")
    )
}

/// Opens a gate whose holder is not heard of again.
async fn watch(shared: Arc<Shared>, whose: Whose, closing: u64) {
    while let Some(until) = shared.migrations.holds(&whose, closing) {
        if Instant::now() < until {
            sleep_until(until).await;
            continue;
        }
        warn!(database = whose.database, "the migration that closed the gate is not heard of: it opens");
        match timeout(SETTLE_MAX, settle(&shared, &whose)).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                warn!(database = whose.database, %fault, "the servers are as the migration left them")
            }
            Err(_) => warn!(database = whose.database, "the servers of the migration do not answer"),
        }
        // Its holder may be there again: then the gate is another closing's.
        if shared.migrations.holds(&whose, closing).is_some() {
            Keeper::open(&shared, &whose);
        }
        return;
    }
}

/// Brings servers and route to what the journal says; the gate is open after it if that was decided.
async fn settle(shared: &Shared, whose: &Whose) -> Outcome<()> {
    let Some((folder, migration)) = shared.migrations.migration() else { return Ok(()) };
    let Some(mut kept) =
        folder.journal(&whose.database).await?.filter(|kept| kept.journal.id == whose.holder)
    else {
        return Ok(());
    };
    recover::settle(&mut kept, &migration).await?;
    let journal = &kept.journal;
    // What was undone has never been another way.
    if let Phase::Switched { to, .. } = journal.phase {
        let route = Route { source: journal.source.clone(), target: journal.target.clone(), serving: to };
        Keeper::switch(shared, whose, &route).await?;
        Keeper::open(shared, whose);
        recover::complete(&mut kept, &migration, None).await?;
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
