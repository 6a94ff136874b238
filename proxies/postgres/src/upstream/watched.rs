//! Which databases' servers are watched for their roles, and what is told of them.

use std::sync::Arc;

use groove_common::app::Context;
use groove_common::config::Duration;
use serde_json::{Value, json};

use super::Target;
use super::directory::{Known, Place};
use super::login::Login;
use crate::config::Role;
use crate::live::Live;
use crate::roles::{Roles, Wish};

impl Known {
    /// Begins to watch what servers are to each other, or goes on.
    pub(super) fn watch_roles(&mut self, before: Option<&Known>, (cx, live): (&Context, &Arc<Live>)) {
        let mut watched = Vec::new();
        for (name, place) in &self.databases {
            let Some(written) = self.config.databases.get(name).filter(|written| written.role != Role::Any)
            else {
                continue;
            };
            let asker = written.monitor.user.as_ref().and_then(|user| {
                let login = Login::monitoring(user, written.monitor.password.as_ref());
                let (target, _) = self.target(name, user, Some(&login))?;
                Some(Target { wish: Wish::Any, ..target })
            });
            let running = before.and_then(|before| {
                let as_before = before.config.databases.get(name).is_some_and(|before| {
                    (before.role, &before.monitor, &before.replicas, &before.tls, &before.dbname)
                        == (written.role, &written.monitor, &written.replicas, &written.tls, &written.dbname)
                });
                before.databases.get(name)?.roles.clone().filter(|_| as_before)
            });
            let start = || {
                let lag_max = written.replicas.max_lag.map(Duration::get);
                let asked = (written.monitor.clone(), asker);
                Roles::start(name, &place.cluster, written.wish(), lag_max, asked, (cx, live))
            };
            watched.push((name.clone(), running.unwrap_or_else(start)));
        }
        for (name, roles) in watched {
            if let Some(place) = self.databases.get_mut(&name) {
                place.roles = Some(roles);
            }
        }
    }
}

impl Place {
    pub(super) fn status(&self) -> Value {
        let status = self.cluster.status();
        let mut value = json!(status);
        if let Some(roles) = &self.roles
            && let Some(list) = value.get_mut("endpoints").and_then(Value::as_array_mut)
        {
            for (endpoint, value) in status.endpoints.iter().zip(list) {
                value.as_object_mut().into_iter().for_each(|object| roles.describe(endpoint.id, object));
            }
        }
        value
    }
}
