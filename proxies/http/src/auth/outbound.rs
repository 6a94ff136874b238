//! Questions to others over HTTP/1.1: key sets, OpenID providers, who is asked in our place.
//!
//! They run on the control runtime, so that a connection outlives the worker's turn that opened it and serves all workers.
//! Everything has a bound: how many are under way, how long one takes, how much of an answer is read, how many connections
//! rest and for how long.

use bytes::Bytes;
use groove_common::ids::Address;
use groove_common::net::{Connector, connect};
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// How long a question may take, waiting for its turn included.
pub const TIME_MAX: Duration = Duration::from_secs(5);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Connections at rest.
const IDLE_MAX: usize = 64;
/// How long a connection may rest. Shorter than what servers usually allow.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);
/// Questions under way at once.
pub const IN_FLIGHT_MAX: usize = 256;

/// Where something is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Over TLS.
    pub is_https: bool,
    /// The host with its port, if that is written.
    pub authority: String,
    /// What to connect to.
    pub address: Address,
    /// Path and query.
    pub path: String,
}

impl Url {
    /// Reads `http://...` or `https://...`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("this is no URL: {error}"))?;
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("a URL begins with `https://` or `http://`".to_owned()),
        };
        let authority = uri.authority().ok_or_else(|| "there is no host in this URL".to_owned())?;
        if authority.as_str().contains('@') {
            return Err("a URL has no user and no password in it".to_owned());
        }
        if text.contains('#') {
            return Err("a URL has no fragment".to_owned());
        }
        let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            is_https,
            authority: authority.to_string(),
            address: Address::tcp(host, port),
            path: path.to_owned(),
        })
    }
}

/// Why there is no answer, in words for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NoAnswer {
    /// Too many questions are under way.
    #[error("too many questions are under way")]
    Busy,
    /// It took too long.
    #[error("no answer in time")]
    Late,
    /// Nobody could be connected to.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The exchange broke.
    #[error("the answer is broken: {0}")]
    Broken(String),
}

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub struct Heard {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

type Sender = SendRequest<Full<Bytes>>;

/// Asks one server.
#[derive(Debug)]
pub struct Client {
    runtime: Handle,
    tls: Connector,
    time_max: Duration,
    turns: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    sender: Sender,
    to: (bool, String),
    since: Instant,
}

impl Client {
    /// A client whose questions run on `runtime`.
    pub fn new(runtime: Handle, tls: Connector, time_max: Duration, in_flight_max: usize) -> Arc<Self> {
        let turns = Arc::new(Semaphore::new(in_flight_max));
        Arc::new(Self { runtime, tls, time_max, turns, idle: Mutex::default() })
    }

    /// How long a question may take.
    pub fn time_max(&self) -> Duration {
        self.time_max
    }

    /// Asks. What changes something is asked on a connection of its own, so that it is never sent twice.
    pub async fn ask(self: &Arc<Self>, url: &Url, request: Request<Bytes>) -> Result<Heard, NoAnswer> {
        let (client, url) = (Arc::clone(self), url.clone());
        let asked = async move {
            let whole = async {
                let _turn = client.turns.acquire().await.map_err(|_| NoAnswer::Busy)?;
                client.exchange(&url, request).await
            };
            timeout(client.time_max, whole).await.unwrap_or(Err(NoAnswer::Late))
        };
        self.runtime.spawn(asked).await.unwrap_or_else(|error| Err(NoAnswer::Broken(error.to_string())))
    }

    /// GET.
    pub async fn get(self: &Arc<Self>, url: &Url) -> Result<Heard, NoAnswer> {
        let request = Request::get(&url.path).header(header::ACCEPT, "application/json").body(Bytes::new());
        self.ask(url, request.map_err(|error| NoAnswer::Broken(error.to_string()))?).await
    }

    async fn exchange(&self, url: &Url, mut request: Request<Bytes>) -> Result<Heard, NoAnswer> {
        let host = url.authority.parse().map_err(|_| NoAnswer::Broken("the host is none".to_owned()))?;
        request.headers_mut().insert(header::HOST, host);
        let may_repeat = request.method() != http::Method::POST;
        if may_repeat {
            while let Some(mut sender) = self.take_idle(url) {
                if sender.ready().await.is_err() {
                    continue;
                }
                if let Ok(heard) = self.send(url, &mut sender, request.clone()).await {
                    self.put_idle(url, sender);
                    return Ok(heard);
                }
                // It may have been closed in that very moment: once more on a fresh one.
                break;
            }
        }
        let mut sender = self.connect(url).await?;
        let heard = self.send(url, &mut sender, request).await?;
        self.put_idle(url, sender);
        Ok(heard)
    }

    async fn connect(&self, url: &Url) -> Result<Sender, NoAnswer> {
        let tls = url.is_https.then_some(&self.tls);
        let stream = connect(&url.address, tls, self.time_max)
            .await
            .map_err(|error| NoAnswer::Unreachable(format!("{}: {error}", url.address)))?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| NoAnswer::Broken(error.to_string()))?;
        self.runtime.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of ours ended");
            }
        });
        Ok(sender)
    }

    async fn send(&self, url: &Url, sender: &mut Sender, request: Request<Bytes>) -> Result<Heard, NoAnswer> {
        let broken = |error: &dyn std::fmt::Display| NoAnswer::Broken(format!("{}: {error}", url.address));
        let answer = sender.send_request(request.map(Full::new)).await.map_err(|error| broken(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| broken(&error))?;
        Ok(Heard { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }

    fn take_idle(&self, url: &Url) -> Option<Sender> {
        let mut idle = self.idle.lock();
        idle.retain(|one| !one.sender.is_closed() && one.since.elapsed() < IDLE_TIME_MAX);
        let at = idle.iter().rposition(|one| one.to.0 == url.is_https && one.to.1 == url.authority)?;
        Some(idle.swap_remove(at).sender)
    }

    fn put_idle(&self, url: &Url, sender: Sender) {
        let mut idle = self.idle.lock();
        if idle.len() < IDLE_MAX && !sender.is_closed() {
            let to = (url.is_https, url.authority.clone());
            idle.push(Idle { sender, to, since: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let read = |text: &str| Url::parse(text).map(|url| (url.is_https, url.address.to_string(), url.path));
        assert_eq!(read("https://a.test"), Ok((true, "a.test:443".into(), "/".into())));
        assert_eq!(read("http://a.test:81/x?y=1"), Ok((false, "a.test:81".into(), "/x?y=1".into())));
        assert_eq!(read("http://[::1]:81/"), Ok((false, "[::1]:81".into(), "/".into())));
        for bad in
            ["", "a.test", "/x", "ftp://a.test/", "http://u:p@a.test/", "http://a.test/#x", "http:///x"]
        {
            assert!(Url::parse(bad).is_err(), "{bad}");
        }
    }
}
