//! Asking the admin server of a running proxy, for the verbs that do.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;

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

    /// GET, the answer as JSON.
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.json(Method::GET, path, Bytes::new()).await
    }

    /// POST of a JSON value, the answer as JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, path, Bytes::from(body.to_string())).await
    }

    async fn json(&self, method: Method, path: &str, body: Bytes) -> Result<Value, ClientError> {
        let answer = self.send(method, path, body).await?;
        serde_json::from_slice(&answer).map_err(|error| self.broken(error))
    }

    /// One exchange on a connection of its own.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let stream = net::connect(&self.address, None, TIME_MAX)
            .await
            .map_err(|source| ClientError::Unreachable { address: self.address.clone(), source })?;
        let exchange = async {
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
            let driven = tokio::spawn(connection);
            let answer = sender.send_request(request).await.map_err(|error| self.broken(error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.map_err(|error| self.broken(error))?.to_bytes();
            driven.abort();
            Ok((status, body))
        };
        let (status, body) =
            tokio::time::timeout(TIME_MAX, exchange).await.map_err(|error| self.broken(error))??;
        if status.is_success() {
            return Ok(body);
        }
        let message = String::from_utf8_lossy(&body).trim().to_owned();
        Err(ClientError::Refused { address: self.address.clone(), status, message })
    }

    fn broken(&self, reason: impl std::fmt::Display) -> ClientError {
        ClientError::Broken { address: self.address.clone(), reason: reason.to_string() }
    }
}
