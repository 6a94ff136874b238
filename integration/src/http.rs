//! A blocking HTTP client for admin pages and simple requests, and a raw one for what no client would send.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::wait::PATIENCE;

/// A response with its whole body.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status.
    pub status: http::StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body, dechunked.
    pub body: Bytes,
}

impl Response {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// A header as text, empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// GET on a connection of its own.
///
/// # Errors
/// When the server cannot be reached, does not answer in time, or answers what is not HTTP.
pub fn get(address: SocketAddr, target: &str) -> Result<Response> {
    send(address, http::Request::get(target).header("host", address.to_string()).body(Bytes::new())?)
}

/// Sends one request on a connection of its own. A Host header must be in it.
///
/// # Errors
/// As [`get`].
pub fn send(address: SocketAddr, request: http::Request<Bytes>) -> Result<Response> {
    // A thread of its own, so that it also works when called inside a runtime.
    std::thread::scope(|scope| scope.spawn(|| send_here(address, request)).join())
        .unwrap_or_else(|_| anyhow::bail!("the HTTP client panicked"))
}

fn send_here(address: SocketAddr, request: http::Request<Bytes>) -> Result<Response> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, exchange(address, request));
        answer.await.with_context(|| format!("no answer from {address} within {PATIENCE:?}"))?
    })
}

async fn exchange(address: SocketAddr, request: http::Request<Bytes>) -> Result<Response> {
    let stream =
        tokio::net::TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request.map(Full::new)).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    driver.abort();
    Ok(Response { status: head.status, headers: head.headers, body })
}

/// Writes `bytes` as they are, closes the sending side, and gives everything the server says until it closes.
///
/// # Errors
/// When the server cannot be reached or neither answers nor closes in time.
pub fn raw(address: SocketAddr, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    // The server may have refused and closed already.
    let _closed = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        // A reset after the answer is how a server ends a connection with unread bytes.
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(answer),
    }
}

/// An answer that says what was asked, `METHOD TARGET BODYLENGTH`, for an [`App`](crate::App).
#[must_use]
pub fn echo(request: &http::Request<Bytes>) -> http::Response<Bytes> {
    let text = format!("{} {} {}", request.method(), request.uri(), request.body().len());
    http::Response::new(Bytes::from(text))
}
