//! The server itself: hyper on listeners like any other, with bounds on everything a client may take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tracing::debug;

use super::documents::{front_page, open_api};
use super::routes::{Body, Response, Route, Routes, json, plain, respond};
use crate::config;
use crate::ids::Address;
use crate::net::{self, Downstream, ListenError, Listeners, Service, SharedService};
use crate::telemetry::Registry;

/// Connections at once: people, a scraper, a prober.
const CONNECTIONS_MAX: u32 = 64;
/// For the head of a request.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// For a request, its body and the answer's making; a reload may read files and resolve names.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(60);
/// For a connection, before it is told to end; whoever has more to ask connects again.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(60);
/// For the last request of a connection, and until its answer has been read.
const LAST_TIME_MAX: Duration = Duration::from_secs(70);
const HEAD_BYTES_MAX: usize = 16 * 1024;
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Answers [`Routes`] wherever the configuration says, which may be nowhere.
pub struct Server {
    listeners: Listeners,
    site: Arc<Site>,
}

/// Listeners and token of a new configuration, ready to be taken.
#[must_use = "nothing changes before it is applied"]
pub struct Change {
    listeners: net::Change,
    token: Option<Arc<config::Secret>>,
}

/// What is answered, and to whom.
struct Site {
    name: &'static str,
    routes: Routes,
    token: ArcSwapOption<config::Secret>,
}

impl Server {
    /// A server without an address.
    pub fn new(
        name: &'static str,
        routes: Routes,
        runtime: Handle,
        registry: Arc<Registry>,
    ) -> std::io::Result<Self> {
        let site = Arc::new(Site { name, routes, token: ArcSwapOption::empty() });
        let service = Service::shared(Arc::clone(&site));
        Ok(Self { listeners: Listeners::new(service, 0, runtime, registry)?, site })
    }

    /// Binds what is new. On an error nothing has changed.
    pub fn prepare(&self, config: Option<&config::Admin>) -> Result<Change, Vec<ListenError>> {
        let listener = config.map(|admin| config::Listener {
            name: Some("admin".to_owned()),
            max_connections: Some(CONNECTIONS_MAX),
            ..config::Listener::new(admin.address.clone())
        });
        let token = config.and_then(|admin| admin.token.clone()).map(Arc::new);
        Ok(Change { listeners: self.listeners.prepare(listener.as_slice())?, token })
    }

    /// Answers at the address that was prepared.
    pub fn apply(&self, change: Change) {
        self.site.token.store(change.token);
        self.listeners.apply(change.listeners, REQUEST_TIME_MAX);
    }

    /// Sockets to use, with the next [`Self::prepare`], in place of binding the same addresses.
    pub fn inherit(&self, sockets: Vec<net::Inherited>) {
        self.listeners.inherit(sockets);
    }

    /// The sockets it listens on, for the next process.
    pub fn share(&self) -> std::io::Result<Vec<net::Inherited>> {
        self.listeners.share()
    }

    /// The next process answers from here on.
    pub fn hand_over(&self) {
        self.listeners.hand_over();
        self.listeners.drain();
    }

    /// Where it listens.
    pub fn address(&self) -> Option<Address> {
        self.listeners
            .status()
            .into_iter()
            .find(|listener| !listener.leaving)
            .map(|listener| listener.address)
    }
}

impl SharedService for Site {
    async fn serve(self: Arc<Self>, conn: Downstream) {
        let drain = conn.drain.clone();
        let end_is_due = async {
            tokio::select! {
                () = drain.draining() => {}
                () = sleep(CONNECTION_TIME_MAX) => {}
            }
        };
        let site = Arc::clone(&self);
        let is_streaming = Arc::new(AtomicBool::new(false));
        let streams = Arc::clone(&is_streaming);
        let answer = service_fn(move |request| {
            let (site, streams) = (Arc::clone(&site), Arc::clone(&streams));
            async move {
                let answer = site.answer(request).await;
                streams.store(matches!(answer.body(), Body::Stream(_)), Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(answer)
            }
        });
        let mut connection = std::pin::pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(conn.stream), answer)
        );
        let ended = tokio::select! {
            ended = &mut connection => Ok(ended),
            () = end_is_due => {
                connection.as_mut().graceful_shutdown();
                // Who does not read must not keep others out for ever. A stream's sender sees to that itself, and
                // the stream is this connection's last answer.
                let cut = async {
                    if is_streaming.load(Ordering::Relaxed) {
                        drain.draining().await;
                    }
                    sleep(LAST_TIME_MAX).await;
                };
                tokio::select! {
                    ended = connection => Ok(ended),
                    () = cut => Err(()),
                }
            }
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "an admin connection broke"),
            Err(()) => debug!("an admin connection was cut: its answer is not read"),
        }
    }
}

impl Site {
    async fn answer(&self, request: http::Request<Incoming>) -> Response {
        if let Some(refusal) = self.refusal(&request) {
            return refusal;
        }
        timeout(REQUEST_TIME_MAX, self.route(request))
            .await
            .unwrap_or_else(|_| plain(StatusCode::GATEWAY_TIMEOUT, "that took too long"))
    }

    /// With a token, whoever has it. Without one only this machine can connect, but a browser on it may
    /// run anybody's page: such a page's name for us is refused (DNS rebinding).
    fn refusal<B>(&self, request: &http::Request<B>) -> Option<Response> {
        if self.find(request.method(), request.uri().path()).is_ok_and(|route| route.is_open) {
            return None;
        }
        let text =
            |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if let Some(token) = self.token.load_full() {
            let given = text(header::AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
            if same(given.as_bytes(), token.expose().as_bytes()) {
                return None;
            }
            let mut refusal =
                plain(StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN");
            refusal
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            return Some(refusal);
        }
        let host = text(header::HOST);
        let foreign_page = request.method() != Method::GET && request.headers().contains_key(header::ORIGIN);
        if foreign_page || !is_ours(host) {
            return Some(plain(
                StatusCode::FORBIDDEN,
                "use an IP address or localhost, and no other site's page",
            ));
        }
        None
    }

    async fn route(&self, request: http::Request<Incoming>) -> Response {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        match (&head.method, path) {
            (&Method::GET, "/") => {
                return respond(
                    StatusCode::OK,
                    "text/html; charset=utf-8",
                    front_page(self.name, &self.routes),
                );
            }
            (&Method::GET, "/api/v1/openapi.json") => return json(&open_api(self.name, &self.routes)),
            _ => {}
        }
        let route = match self.find(&head.method, path) {
            Ok(route) => route,
            Err(status) => return plain(status, "nothing answers this here; GET / lists what does"),
        };
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is over 1 MiB, or broke off");
        };
        (route.handler)(http::Request::from_parts(head, body.to_bytes())).await
    }

    fn find(&self, method: &Method, path: &str) -> Result<&Route, StatusCode> {
        let mut missing = StatusCode::NOT_FOUND;
        for route in self.routes.routes.iter().filter(|route| route.takes(path)) {
            if route.method == *method {
                return Ok(route);
            }
            missing = StatusCode::METHOD_NOT_ALLOWED;
        }
        Err(missing)
    }
}

/// Is this how one speaks to this machine itself? `groove` is what our own client says.
fn is_ours(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let ip = name.trim_start_matches('[').trim_end_matches(']');
    matches!(name, "" | "localhost" | "groove") || ip.parse::<std::net::IpAddr>().is_ok()
}

/// Compares without telling by its time where the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
