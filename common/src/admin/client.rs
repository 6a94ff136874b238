//! Asking the admin server of a running proxy, for the verbs that do.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::task::AbortHandle;

use crate::ids::Address;
use crate::net;

/// Connect and answer each have this long.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Speaks to one admin server.
#[derive(Debug, Clone)]
pub struct Client {
    address: Address,
    token: Option<String>,
    /// Were answers asked for as JSON (`--json`)?
    pub json: bool,
}

/// Why there is no answer, in words for the terminal.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no proxy answers at {address} ({source}): is it running, and is --admin right?")]
    Unreachable {
        /// The admin address.
        address: Address,
        /// What the system said.
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("{address}: {reason}")]
    Broken {
        /// The admin address.
        address: Address,
        /// What went wrong.
        reason: String,
    },
    /// The proxy said no.
    #[error("{address}: {status}: {message}")]
    Refused {
        /// The admin address.
        address: Address,
        /// Its status code.
        status: StatusCode,
        /// What it said.
        message: String,
    },
}

impl Client {
    /// A client of the admin server at `address`.
    pub fn new(address: Address, token: Option<String>, json: bool) -> Self {
        Self { address, token, json }
    }

    /// The same for the admin server of another proxy, which has the same token.
    #[must_use]
    pub fn at(&self, address: Address) -> Self {
        Self { address, ..self.clone() }
    }

    /// Whom it asks.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// GET, the answer as JSON.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, path, Bytes::new()).await
    }

    /// POST of a JSON value, the answer as JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, Bytes::from(body.to_string())).await
    }

    /// PUT of a text, the answer as JSON.
    pub async fn put(&self, path: &str, body: String) -> Result<Value, ClientError> {
        self.json(Method::PUT, path, Bytes::from(body)).await
    }

    /// DELETE, the answer as JSON.
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::DELETE, path, Bytes::new()).await
    }

    async fn json(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ClientError> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.broken(error))
    }

    /// POST of a JSON value; the answer is lines that come as long as there are any.
    pub async fn follow(&self, path: &str, body: &Value) -> Result<Lines, ClientError> {
        let begun = self.begin(Method::POST, path, Bytes::from(body.to_string()));
        let begun = tokio::time::timeout(TIME_MAX, begun).await.map_err(|error| self.broken(error))?;
        let Begun { answer, driven } = begun?;
        if !answer.status().is_success() {
            let status = answer.status();
            let body = tokio::time::timeout(TIME_MAX, self.whole(answer));
            return Err(self.refused(status, &body.await.map_err(|error| self.broken(error))??));
        }
        Ok(Lines { client: self.clone(), body: answer.into_body(), read: BytesMut::new(), _driven: driven })
    }

    /// One exchange on a connection of its own.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let exchange = async {
            let Begun { answer, driven: _driven } = self.begin(method, path, body).await?;
            let status = answer.status();
            Ok((status, self.whole(answer).await?))
        };
        let (status, body) =
            tokio::time::timeout(TIME_MAX, exchange).await.map_err(|error| self.broken(error))??;
        if status.is_success() { Ok(body) } else { Err(self.refused(status, &body)) }
    }

    /// Connects, asks, and hears the head of the answer.
    async fn begin(&self, method: Method, path: &str, body: Bytes) -> Result<Begun, ClientError> {
        let stream = net::connect(&self.address, None, TIME_MAX)
            .await
            .map_err(|source| ClientError::Unreachable { address: self.address.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "groove")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| self.broken(error))?;
        // The connection must be driven while the answer comes; it ends with it.
        let driven = Driven(tokio::spawn(connection).abort_handle());
        let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
        Ok(Begun { answer, driven })
    }

    async fn whole(&self, answer: http::Response<Incoming>) -> Result<Bytes, ClientError> {
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        Ok(body.collect().await.map_err(|error| self.broken(error))?.to_bytes())
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let message = String::from_utf8_lossy(body).trim().to_owned();
        ClientError::Refused { address: self.address.clone(), status, message }
    }

    fn broken(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { address: self.address.clone(), reason: reason.to_string() }
    }
}

/// An answer whose head has come.
struct Begun {
    answer: http::Response<Incoming>,
    driven: Driven,
}

/// Drives a connection for as long as it is held.
#[derive(Debug)]
struct Driven(AbortHandle);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An answer that goes on, line by line.
#[derive(Debug)]
pub struct Lines {
    client: Client,
    body: Incoming,
    read: BytesMut,
    _driven: Driven,
}

/// The longest line that is read.
const LINE_BYTES_MAX: usize = 4 << 20;

impl Lines {
    /// The next line, without its end. None: the proxy has no more to tell.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.read) {
                let mut line = self.read.split_to(end + 1).freeze();
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(self.client.broken("a line without an end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                Some(Err(error)) => return Err(self.client.broken(error)),
                None => return Ok(None),
            }
        }
    }
}
