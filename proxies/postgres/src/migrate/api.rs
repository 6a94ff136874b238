//! `/api/v1/migrate…`: what `groove-postgres migrate` asks of a running proxy.

use std::sync::Arc;
use std::time::Duration;

use groove_common::admin::{Request, Response, Routes, json, plain};
use groove_common::ids::Address;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::fault::{Fault, Outcome};
use super::keeper::{Keeper, Whose};
use super::policy::phase::Side;
use super::policy::route::Route;
use crate::Shared;
use crate::session::state::Mode;

/// The longest time that is taken from a request.
const TIME_MAX: Duration = Duration::from_secs(3600);

/// Which databases, for which migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Of {
    /// The migration.
    pub(crate) holder: String,
    /// The name that it goes by.
    pub(crate) database: String,
    /// All names of the same place.
    pub(crate) names: Vec<String>,
}

/// `POST /api/v1/migrate/prepare`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prepare {
    pub(crate) of: Of,
    /// Where connections are made to.
    pub(crate) to: Address,
}

/// `POST /api/v1/migrate/close`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Close {
    pub(crate) of: Of,
    /// How long transactions may take to end.
    pub(crate) budget_ms: u64,
    /// After this it opens by itself.
    pub(crate) lease_ms: u64,
}

/// `POST /api/v1/migrate/switch`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Switch {
    pub(crate) of: Of,
    pub(crate) source: Address,
    pub(crate) target: Address,
    pub(crate) serving: Side,
}

/// A pool, as `GET /api/v1/migrate` tells of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PoolSeen {
    pub(crate) database: String,
    /// The role on the servers.
    pub(crate) server_user: String,
    /// When its sessions give their connections back.
    pub(crate) mode: String,
}

/// What a proxy tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Databases that have moved, or whose gate is closed.
    pub(crate) migrations: Vec<serde_json::Value>,
    /// Databases and where their clients are sent.
    pub(crate) databases: std::collections::BTreeMap<String, Vec<String>>,
    /// Its pools.
    pub(crate) pools: Vec<PoolSeen>,
    /// Processes of servers that its connections lead to.
    pub(crate) processes: Vec<i32>,
    /// Whether it has a folder for routes.
    pub(crate) has_folder: bool,
}

/// The routes.
pub(crate) fn routes(shared: &Arc<Shared>) -> Routes {
    let routes = Routes::new().get("/api/v1/migrate", "databases that have moved, and their gates", {
        let shared = Arc::clone(shared);
        move |_| {
            let answer = json(&seen(&shared));
            async move { answer }
        }
    });
    let routes = routes.post("/api/v1/migrate/prepare", "connects to a server ahead: `{of, to}`", {
        let shared = Arc::clone(shared);
        move |request| {
            let shared = Arc::clone(&shared);
            answer(request, async move |Prepare { of, to }| {
                let ahead = Keeper::prepare(&shared, &of.into(), &to).await;
                Ok(serde_json::json!({ "connections": ahead }))
            })
        }
    });
    let routes = routes.post("/api/v1/migrate/close", "closes a gate: `{of, budget_ms, lease_ms}`", {
        let shared = Arc::clone(shared);
        move |request| {
            let shared = Arc::clone(&shared);
            answer(request, async move |Close { of, budget_ms, lease_ms }| {
                let time = |ms| Duration::from_millis(ms).min(TIME_MAX);
                let took = Keeper::close(&shared, &of.into(), (time(budget_ms), time(lease_ms))).await?;
                Ok(serde_json::json!({ "took_ms": took.as_secs_f64() * 1000.0 }))
            })
        }
    });
    let routes = routes.post("/api/v1/migrate/switch", "moves clients: `{of, source, target, serving}`", {
        let shared = Arc::clone(shared);
        move |request| {
            let shared = Arc::clone(&shared);
            answer(request, async move |Switch { of, source, target, serving }| {
                Keeper::switch(&shared, &of.into(), &Route { source, target, serving }).await?;
                Ok(serde_json::json!({}))
            })
        }
    });
    let routes = routes.post("/api/v1/migrate/open", "opens a gate: `{holder, database, names}`", {
        let shared = Arc::clone(shared);
        move |request| {
            let shared = Arc::clone(&shared);
            answer(request, async move |of: Of| {
                Keeper::open(&shared, &of.into());
                Ok(serde_json::json!({}))
            })
        }
    });
    routes.post(
        "/api/v1/migrate/forget",
        "forgets moves that are written by now: `{holder, database, names}`",
        {
            let shared = Arc::clone(shared);
            move |request| {
                let shared = Arc::clone(&shared);
                answer(request, async move |of: Of| {
                    let kept = shared.migrations.forget(&of.names).await?;
                    Ok(serde_json::json!({ "kept": kept }))
                })
            }
        },
    )
}

impl From<Of> for Whose {
    fn from(Of { holder, database, names }: Of) -> Whose {
        Whose { holder, database, names }
    }
}

/// Reads what is asked, and answers it.
async fn answer<A: for<'a> Deserialize<'a>>(
    request: Request,
    act: impl AsyncFnOnce(A) -> Outcome<serde_json::Value>,
) -> Response {
    let asked = match serde_json::from_slice(request.body()) {
        Ok(asked) => asked,
        Err(error) => return plain(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match act(asked).await {
        Ok(value) => json(&value),
        Err(Fault::Budget(why)) => plain(StatusCode::REQUEST_TIMEOUT, why),
        Err(fault @ Fault::Refused(_)) => plain(StatusCode::CONFLICT, fault.to_string()),
        Err(fault) => plain(StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()),
    }
}

fn seen(shared: &Shared) -> Seen {
    let pools = shared.directory.pools();
    let clusters = shared.directory.clusters();
    let databases = clusters.iter().map(|cluster| {
        let status = cluster.status();
        (status.name, status.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect())
    });
    let mode = |mode: Mode| match mode {
        Mode::Session => "session",
        Mode::Transaction => "transaction",
        Mode::Statement => "statement",
    };
    Seen {
        migrations: shared.migrations.status(),
        databases: databases.collect(),
        pools: pools
            .iter()
            .map(|pool| PoolSeen {
                database: pool.database.clone(),
                server_user: pool.target().user.clone(),
                mode: mode(pool.mode()).to_owned(),
            })
            .collect(),
        processes: shared.live.servers().iter().map(|server| server.target.key.pid).collect(),
        has_folder: shared.migrations.has_folder(),
    }
}
