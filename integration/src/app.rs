//! A small HTTP application whose answers a test decides, and which remembers what it was asked.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::ports::Port;

/// A request as the application received it, body and all.
pub type Received = http::Request<Bytes>;

type Answer = Pin<Box<dyn Future<Output = http::Response<Bytes>> + Send>>;
type Handler = Arc<dyn Fn(Received) -> Answer + Send + Sync>;

/// A running application on a free loopback port, on a thread of its own; gone when dropped.
#[derive(Debug)]
pub struct App {
    port: Port,
    state: Arc<State>,
    thread: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    connections: AtomicUsize,
    handler: Mutex<Option<Handler>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl App {
    /// Starts an application that answers each request with what `handler` makes of it.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start<H, F>(handler: H) -> Result<Self>
    where
        H: Fn(Received) -> F + Send + Sync + 'static,
        F: Future<Output = http::Response<Bytes>> + Send + 'static,
    {
        let state = Arc::new(State::default());
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        *state.handler.lock().unwrap_or_else(PoisonError::into_inner) = Some(handler);
        let mut app = Self { port: Port::reserve()?, state, thread: None };
        app.resume()?;
        Ok(app)
    }

    /// An application that answers everything with `text` and status 200.
    ///
    /// # Errors
    /// As [`App::start`].
    pub fn saying(text: &'static str) -> Result<Self> {
        Self::start(move |_| async move { http::Response::new(Bytes::from_static(text.as_bytes())) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many connections it has accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Stops listening and drops every connection, as a crash would.
    pub fn crash(&mut self) {
        if let Some(running) = self.thread.take() {
            running.stop.cancel();
            let _panicked = running.thread.join();
        }
    }

    /// Listens again on the same port after [`App::crash`].
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn resume(&mut self) -> Result<()> {
        self.crash();
        let listener = std::net::TcpListener::bind(self.port.address())?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let (state, token) = (Arc::clone(&self.state), stop.clone());
        let thread = std::thread::spawn(move || {
            // Dropping the runtime drops every connection with it.
            runtime.block_on(async { token.run_until_cancelled(accept(listener, state)).await });
        });
        self.thread = Some(Running { stop, thread });
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.crash();
    }
}

async fn accept(listener: std::net::TcpListener, state: Arc<State>) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    while let Ok((stream, _)) = listener.accept().await {
        state.connections.fetch_add(1, Ordering::Relaxed);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&state), request));
            // A client that hangs up is its own business.
            let _hung_up = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .with_upgrades()
                .await;
        });
    }
}

async fn answer(
    state: Arc<State>,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let refused = |status| {
        let mut response = http::Response::new(Full::default());
        *response.status_mut() = status;
        Ok(response)
    };
    let Ok(body) = body.collect().await else { return refused(http::StatusCode::BAD_REQUEST) };
    let request = http::Request::from_parts(head, body.to_bytes());
    state.received.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let handler = state.handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match handler {
        Some(handler) => Ok(handler(request).await.map(Full::new)),
        None => refused(http::StatusCode::SERVICE_UNAVAILABLE),
    }
}
