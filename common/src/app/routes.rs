//! What the admin server answers for every proxy.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;
use tokio::sync::{mpsc, oneshot};

use super::proxy::Proxy;
use super::running::State;
use crate::admin::{self, Reload, Routes, json, plain, respond};

/// The routes of all proxies, then the proxy's own.
pub(super) fn of<P: Proxy>(state: &Arc<State<P>>, reloads: mpsc::Sender<Reload>) -> Routes {
    let with = || Arc::clone(state);
    let (ready, metrics, config, status) = (with(), with(), with(), with());
    Routes::new()
        .probe("/healthz", "200 while the process lives", |_| async { plain(StatusCode::OK, "ok") })
        .probe("/readyz", "200 while new connections are taken, 503 in a drain", move |_| {
            let draining = ready.context.drain.is_draining();
            async move {
                match draining {
                    false => plain(StatusCode::OK, "ready"),
                    true => plain(StatusCode::SERVICE_UNAVAILABLE, "draining"),
                }
            }
        })
        .get("/metrics", "Prometheus metrics", move |_| {
            let text = metrics.context.registry.render();
            async move {
                match text {
                    Ok(text) => respond(StatusCode::OK, admin::OPEN_METRICS, text),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
                }
            }
        })
        .get("/api/v1/config", "the configuration in effect, secrets masked", move |_| {
            let answer = json(&**config.config.load());
            async move { answer }
        })
        .get("/api/v1/status", "listeners, clusters, endpoints, pools", move |_| {
            let answer = json(&status.status());
            async move { answer }
        })
        .post("/api/v1/reload", "reads the configuration again, as SIGHUP does", move |_| {
            let reloads = reloads.clone();
            async move { reload(&reloads).await }
        })
        .and(state.proxy.routes())
}

/// Asks for a reload and waits for what becomes of it.
async fn reload(reloads: &mpsc::Sender<Reload>) -> admin::Response {
    let (answer, outcome) = oneshot::channel();
    if reloads.send(Reload { answer }).await.is_err() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "nothing reloads here");
    }
    match outcome.await {
        Ok(Ok(changes)) => json(&json!({ "changes": changes })),
        Ok(Err(report)) => plain(StatusCode::UNPROCESSABLE_ENTITY, report),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the program is ending"),
    }
}
