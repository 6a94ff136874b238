//! What people hear of roles: the log, metrics, the status.

use groove_common::ids::EndpointId;
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::arbiter::{Lag, Split};
use super::cluster::Known;
use super::view::View;
use super::{Roles, Standing};
use crate::metrics::micros;

impl Roles {
    pub(super) fn tell(&self, known: &Known, before: &View, view: &View) {
        let database = &self.database;
        for (id, standing) in &view.standings {
            let Some(member) = known.members.get(id) else { continue };
            member.metrics.standing(*standing);
            let (endpoint, was) = (&member.address, before.of(*id));
            if was == *standing {
                continue;
            }
            let reason = member.silence.as_deref().unwrap_or_default();
            match standing {
                Standing::Primary => {
                    let timeline = known.arbiter.timeline_of(*id).unwrap_or_default();
                    info!(database, endpoint, timeline, "the primary");
                }
                Standing::Fenced => {
                    let timeline = known.arbiter.timeline_of(*id).unwrap_or_default();
                    warn!(
                        database,
                        endpoint, timeline, "takes writes and is not the primary: fenced, it gets nothing"
                    );
                }
                Standing::Lost => warn!(database, endpoint, was = was.label(), reason, "lost"),
                Standing::Lagging => warn!(database, endpoint, "too far behind the primary to be read from"),
                Standing::Replica => info!(database, endpoint, was = was.label(), "a replica"),
                Standing::Unknown => {}
            }
        }
        if view.primary() != before.primary() {
            match view.primary() {
                Some(_) => self.metrics.changes.inc(),
                None => warn!(database, "there is no primary: who wants one waits for it"),
            }
        }
    }

    pub(super) fn warn_of_split(&self, known: &mut Known) {
        let split = known.arbiter.split();
        if split == known.split {
            return;
        }
        known.split = split;
        let name = |id| known.members.get(&id).map(|member| member.address.clone()).unwrap_or_default();
        if let Some(Split { primary, other }) = split {
            let (database, primary, other) = (&self.database, name(primary), name(other));
            warn!(
                database,
                primary, other, "two servers of the same timeline take writes; the first is the primary"
            );
        }
    }

    /// Adds to a server's status what is known of its role.
    pub(crate) fn describe(&self, id: EndpointId, status: &mut Map<String, Value>) {
        let known = self.known.lock();
        let lag = known.arbiter.lag_of(id);
        let silence = known.members.get(&id).and_then(|member| member.silence.clone());
        status.insert("role".to_owned(), json!(self.view().of(id).label()));
        status.insert("timeline".to_owned(), json!(known.arbiter.timeline_of(id)));
        status.insert("lag_ms".to_owned(), json!(lag.map(|lag| micros(lag.time) / 1000)));
        status.insert("lag_bytes".to_owned(), json!(lag.map(|lag: Lag| lag.bytes)));
        status.insert("role_error".to_owned(), json!(silence));
    }
}
