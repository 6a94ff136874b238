//! Where a database has moved to, for as long as the operator's file says otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use groove_common::config::{Endpoint, Endpoints};
use groove_common::ids::Address;
use serde::{Deserialize, Serialize};

use super::phase::Side;
use crate::config::Config;

/// A database's place, as a migration has decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    /// Where it was.
    pub(crate) source: Address,
    /// Where it goes.
    pub(crate) target: Address,
    /// Which of them serves.
    pub(crate) serving: Side,
}

/// What a route means beside what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The file names the other server: it is to be edited, and the route counts until it is.
    InEffect,
    /// The file names the same server.
    Agrees,
    /// The file names a third server, or several: it has the last word.
    Overruled,
}

impl Standing {
    /// For the admin API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Standing::InEffect => "in effect",
            Standing::Agrees => "as written",
            Standing::Overruled => "overruled by the file",
        }
    }
}

impl Route {
    /// Where clients are sent.
    pub(crate) fn address(&self) -> &Address {
        match self.serving {
            Side::Source => &self.source,
            Side::Target => &self.target,
        }
    }

    /// What it means beside these endpoints.
    pub(crate) fn standing(&self, written: &Endpoints) -> Standing {
        match single(written) {
            Some(written) if written.address == *self.address() => Standing::Agrees,
            Some(written) if [&self.source, &self.target].contains(&&written.address) => Standing::InEffect,
            Some(_) | None => Standing::Overruled,
        }
    }
}

/// The one server that is written, if it is one.
pub(crate) fn single(endpoints: &Endpoints) -> Option<&Endpoint> {
    match endpoints {
        Endpoints::Static(list) => match list.as_slice() {
            [only] => Some(only),
            _ => None,
        },
        Endpoints::Dns(_) | Endpoints::Elasticache(_) | Endpoints::File(_) | Endpoints::Embedded(_) => None,
    }
}

/// All routes, by database as clients name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Routes(pub(crate) BTreeMap<String, Route>);

impl Routes {
    /// The configuration with the servers that databases have moved to.
    pub(crate) fn apply(&self, written: &Arc<Config>) -> Arc<Config> {
        let mut config = Arc::clone(written);
        for (name, route) in &self.0 {
            let database = written.databases.get(name);
            if database.is_some_and(|database| route.standing(&database.endpoints) == Standing::InEffect)
                && let Some(database) = Arc::make_mut(&mut config).databases.get_mut(name)
                && let Endpoints::Static(list) = &mut database.endpoints
            {
                list.iter_mut().for_each(|endpoint| endpoint.address = route.address().clone());
            }
        }
        config
    }
}
