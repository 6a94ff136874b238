//! Which apps there are, by name, and how they change: one or many at once, all of a change or nothing of it.

use super::directory::Directory;
use super::standing::Standing;
use crate::config;
use crate::table::App;
use crate::upstream::{Changes, Ground};
use groove_common::app::StartError;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Apps by name. Who changes them holds a lock around it.
#[derive(Debug)]
pub struct Roster {
    ground: Arc<Ground>,
    directory: Arc<Directory>,
    /// What holds for apps that do not say otherwise.
    timeouts: config::Timeouts,
    apps: BTreeMap<Arc<str>, Arc<App>>,
    /// What operators said, of names that there are or not. Most names have nothing said of them.
    standings: BTreeMap<String, Standing>,
}

/// A change that cannot fail any more.
#[derive(Debug)]
#[must_use = "nothing changes before it is applied"]
pub struct Change {
    timeouts: config::Timeouts,
    /// By name; `None` goes.
    apps: Vec<(Arc<str>, Option<Arc<App>>)>,
    hosts: HashMap<String, Option<Arc<App>>>,
    clusters: Vec<Changes>,
}

impl Roster {
    /// No apps yet.
    pub fn new(ground: Arc<Ground>, directory: Arc<Directory>) -> Self {
        Self {
            ground,
            directory,
            timeouts: config::Timeouts::default(),
            apps: BTreeMap::new(),
            standings: BTreeMap::new(),
        }
    }

    /// All apps.
    pub fn apps(&self) -> impl Iterator<Item = &Arc<App>> {
        self.apps.values()
    }

    /// The app of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<App>> {
        self.apps.get(name)
    }

    /// What an operator said of that name.
    pub fn standing(&self, name: &str) -> &Standing {
        static USUAL: Standing =
            Standing { maintenance: false, drained: false, drained_endpoints: BTreeSet::new() };
        self.standings.get(name).unwrap_or(&USUAL)
    }

    /// An operator says something of a name. It holds at once.
    pub fn stand(&mut self, name: &str, standing: Standing) {
        if let Some(app) = self.apps.get(name) {
            tell(app, &standing, true);
        }
        match standing.is_usual() {
            true => drop(self.standings.remove(name)),
            false => drop(self.standings.insert(name.to_owned(), standing)),
        }
    }

    /// Does all of a change that may fail. `wanted` has each app that may have changed, `None` for one that goes.
    pub fn prepare<'c>(
        &self,
        wanted: impl IntoIterator<Item = (&'c str, Option<&'c Arc<config::App>>)>,
        timeouts: &config::Timeouts,
    ) -> Result<Change, StartError> {
        let mut change = Change {
            timeouts: timeouts.clone(),
            apps: Vec::new(),
            hosts: HashMap::new(),
            clusters: Vec::new(),
        };
        for (name, app) in wanted {
            let before = self.apps.get_key_value(name);
            if let (Some((_, before)), Some(app)) = (before, app)
                && self.timeouts == *timeouts
                && is_same(&before.config, app)
            {
                continue;
            }
            let name = before.map_or_else(|| name.into(), |(name, _)| Arc::clone(name));
            let before = before.map(|(_, app)| app);
            let built = match app {
                Some(app) => {
                    let (app, clusters) =
                        App::build(&name, app, timeouts, before.map(|app| &**app), &self.ground)?;
                    change.clusters.push(clusters);
                    app.stand.restart(before.map_or(0, |before| before.stand.restarted()));
                    Some(Arc::new(app))
                }
                None => None,
            };
            change.apps.push((name, built));
        }
        change.hosts = self.hosts(&change.apps)?;
        Ok(change)
    }

    /// Where each host leads that a change is about. A host belongs to one app.
    fn hosts(
        &self,
        apps: &[(Arc<str>, Option<Arc<App>>)],
    ) -> Result<HashMap<String, Option<Arc<App>>>, StartError> {
        let mut hosts: HashMap<String, Option<Arc<App>>> = HashMap::new();
        for before in apps.iter().filter_map(|(name, _)| self.apps.get(name)) {
            hosts.extend(before.config.hosts.iter().map(|host| (host.to_ascii_lowercase(), None)));
        }
        for app in apps.iter().filter_map(|(_, app)| app.as_ref()) {
            for host in &app.config.hosts {
                let key = host.to_ascii_lowercase();
                let owner = match hosts.get(&key) {
                    Some(owner) => owner.clone(),
                    None => self.directory.owner(host),
                };
                if let Some(owner) = owner.filter(|owner| !Arc::ptr_eq(owner, app)) {
                    return Err(
                        format!("the host `{host}` of app `{}` is app `{}`'s", app.name, owner.name).into()
                    );
                }
                hosts.insert(key, Some(Arc::clone(app)));
            }
        }
        Ok(hosts)
    }

    /// Makes a change that was prepared on what is still there.
    pub fn apply(&mut self, change: Change) {
        let Change { timeouts, apps, hosts, clusters } = change;
        self.timeouts = timeouts;
        clusters.into_iter().for_each(Changes::apply);
        for app in apps.iter().filter_map(|(_, app)| app.as_ref()) {
            if let Some(standing) = self.standings.get(&*app.name) {
                tell(app, standing, false);
            }
        }
        self.directory.apply(hosts);
        for (name, app) in apps {
            let before = match app {
                Some(app) => self.apps.insert(name, app),
                None => self.apps.remove(&name),
            };
            // Only now, when whoever looks again finds the new one.
            if let Some(before) = before {
                before.retire();
            }
        }
    }
}

/// Lets an app and its clusters know what an operator said. Clusters at rest are begun only if there is something to
/// say to them; those that are not may have been told something else `before`.
fn tell(app: &App, standing: &Standing, before: bool) {
    app.stand.set(standing);
    let drained = &standing.drained_endpoints;
    for upstream in &app.upstreams {
        if !drained.is_empty() || (before && upstream.begun().is_some()) {
            upstream.cluster.set_drained(drained.clone());
        }
    }
}

/// Whether there is nothing to do. The files of certificates may have changed although the configuration did not.
fn is_same(before: &Arc<config::App>, after: &Arc<config::App>) -> bool {
    // Files may have changed although the configuration did not.
    let reads_files = after.tls.is_some()
        || after.client_tls.is_some()
        || after.clusters.values().any(|cluster| cluster.tls.is_some())
        || !after.pages.is_empty()
        || after.maintenance.as_ref().is_some_and(|it| it.page.is_some())
        || after.auth.as_ref().is_some_and(|it| it.reads_files())
        || after.routes.iter().any(|route| {
            route.maintenance.as_ref().is_some_and(|it| it.page.is_some())
                || route.auth.as_ref().is_some_and(|it| it.reads_files())
        });
    !reads_files && (Arc::ptr_eq(before, after) || before == after)
}
