//! Statement-level replication: a group of servers that each carry out every write.
//!
//! ```text
//! client ─► session ─► statement (understood, or refused) ─► locks on the tables it touches
//!              │           └► rewrite: what members would make up is drawn on the leader, and written into the text
//!              ├► leader: carries it out; the rows' images are summed
//!              ├► all others that are in: the same text, the same sum, or nothing of it is committed
//!              └► COMMIT: prepared on all ─► decided in the log (fsync) ─► committed on all ─► acknowledged
//! keep (one task a member): fence ─► what is left prepared is ended by the log ─► fed from the log ─► compared ─► in
//! ```
//!
//! `statement`, `rewrite`, `locks` and `log/format` are pure; docs/replication.md says what is guaranteed.

pub mod api;
pub mod group;
mod keep;
mod lead;
pub mod link;
pub mod locks;
pub mod log;
pub mod metrics;
pub mod rewrite;
pub mod schema;
pub mod session;
pub mod statement;
pub mod trouble;
pub mod verb;
pub mod verify;
pub mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use groove_common::app::{Context, StartError};
use groove_common::config::Endpoints;

use crate::config::Config;
use crate::upstream::Directory;
use group::Group;
use metrics::GroupMetrics;

/// Every group there is.
#[derive(Default)]
pub struct Groups {
    groups: BTreeMap<String, Arc<Group>>,
}

impl Groups {
    /// Starts the groups of a configuration.
    pub fn start(config: &Config, directory: &Directory, cx: &Context) -> Groups {
        let mut groups = BTreeMap::new();
        for (name, database) in &config.databases {
            let (Some(options), Endpoints::Static(members)) = (&database.replicate, &database.endpoints)
            else {
                continue;
            };
            let options = (**options).clone();
            let Some(control) = directory.control_target(name, &options.user, options.password.as_ref())
            else {
                continue;
            };
            let addresses = members.iter().map(|member| member.address.clone()).collect();
            let metrics = GroupMetrics::new(&cx.registry, name);
            let group = Arc::new(Group::new(name.clone(), options, addresses, control, metrics));
            cx.runtime.spawn(lead::lead(Arc::clone(&group)));
            groups.insert(name.clone(), group);
        }
        Groups { groups }
    }

    /// The group of a database, if it is one.
    pub fn get(&self, database: &str) -> Option<&Arc<Group>> {
        self.groups.get(database)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// A group stays as it is while the process runs: what it has promised was promised with these members.
    pub fn check(&self, before: &Config, after: &Config) -> Result<(), StartError> {
        let group = |config: &Config, name: &String| {
            let database = config.databases.get(name)?;
            let options = database.replicate.clone()?;
            Some((options, database.endpoints.clone(), database.dbname.clone(), database.tls.clone()))
        };
        let names = before.databases.keys().chain(after.databases.keys());
        match names.into_iter().find(|name| group(before, name) != group(after, name)) {
            Some(name) => {
                Err(format!("databases.{name}: a replicated group changes with a restart only").into())
            }
            None => Ok(()),
        }
    }
}
