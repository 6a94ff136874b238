//! `/api/v1/apps…`: the apps, and changes of one of them.

use super::control::{Control, Refused};
use groove_common::admin::{Request, Response, Routes, json, plain, query, segment};
use groove_common::ids::Address;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::sync::Arc;

/// `{on}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Maintenance {
    on: bool,
}

/// `{endpoint, undo}`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Drain {
    endpoint: Option<Address>,
    undo: bool,
}

/// The routes.
pub fn routes(control: &Arc<Control>) -> Routes {
    let with = || Arc::clone(control);
    let (list, get, set, unset) = (with(), with(), with(), with());
    let (maintenance, drain, restart) = (with(), with(), with());
    Routes::new()
        .get("/api/v1/apps", "the apps: hosts, where they come from, how they stand", move |_| {
            let list = Arc::clone(&list);
            async move { json(&list.list()) }
        })
        .get(
            "/api/v1/apps/{name}",
            "one app as configured, secrets masked, and its clusters",
            move |request| {
                let get = Arc::clone(&get);
                async move { answer(get.get(&name(&request))) }
            },
        )
        .put(
            "/api/v1/apps/{name}",
            "sets an app: the body is its YAML or JSON; `?file=` names it in errors",
            move |request| {
                let set = Arc::clone(&set);
                async move {
                    match std::str::from_utf8(request.body()) {
                        Ok(text) => {
                            let (name, file) = (name(&request), query(&request, "file"));
                            answer(set.set(&name, file.as_deref().unwrap_or(&name), text).await)
                        }
                        Err(error) => {
                            plain(StatusCode::UNPROCESSABLE_ENTITY, format!("this is not text: {error}"))
                        }
                    }
                }
            },
        )
        .delete(
            "/api/v1/apps/{name}",
            "takes an app back that was set; the file's serves again",
            move |request| {
                let unset = Arc::clone(&unset);
                async move { answer(unset.unset(&name(&request)).await) }
            },
        )
        .post("/api/v1/apps/{name}/maintenance", "503 for all its clients: `{on}`", move |request| {
            let maintenance = Arc::clone(&maintenance);
            async move {
                answer(match body(&request) {
                    Ok(Maintenance { on }) => maintenance.maintenance(&name(&request), on).await,
                    Err(refused) => Err(refused),
                })
            }
        })
        .post(
            "/api/v1/apps/{name}/drain",
            "no new exchanges: `{endpoint, undo}`, both may be left out",
            move |request| {
                let drain = Arc::clone(&drain);
                async move {
                    answer(match body(&request) {
                        Ok(Drain { endpoint, undo }) => drain.drain(&name(&request), endpoint, undo).await,
                        Err(refused) => Err(refused),
                    })
                }
            },
        )
        .post(
            "/api/v1/apps/{name}/restart",
            "makes all its connections new, each after its exchange",
            move |request| {
                let restart = Arc::clone(&restart);
                async move { answer(restart.restart(&name(&request))) }
            },
        )
}

fn name(request: &Request) -> String {
    segment(request, 3).unwrap_or_default()
}

fn answer(done: Result<Value, Refused>) -> Response {
    match done {
        Ok(value) => json(&value),
        Err(Refused { status, why }) => plain(status, why),
    }
}

/// A body that was left out asks for nothing in particular.
fn body<T: DeserializeOwned>(request: &Request) -> Result<T, Refused> {
    let body = if request.body().is_empty() { b"{}" } else { &**request.body() };
    serde_json::from_slice(body)
        .map_err(|error| Refused { status: StatusCode::UNPROCESSABLE_ENTITY, why: error.to_string() })
}
