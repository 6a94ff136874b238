//! groove-http between real clients and real servers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in helpers of tests too, a panic is the report"
)]

mod apps;
mod auth;
mod balancing;
mod browser;
mod client_tls;
mod clients;
mod compression;
mod conformance;
mod cors;
mod edits;
mod fairness;
mod faults;
mod fleet;
mod http2;
mod identity;
mod lines;
mod many;
mod matching;
mod mirroring;
mod moving;
mod outliers;
mod peers;
mod pings;
mod queueing;
mod refusals;
mod restarts;
mod retries;
mod routing;
mod sessions;
mod signify;
mod slow;
mod tokens;
mod traffic;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result};
use bytes::Bytes;
use harness::{Kind, PATIENCE, Proxy};

const ONE_APP: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
";

fn proxy_to(app: SocketAddr) -> Result<Proxy> {
    Proxy::of(Kind::Http).config(ONE_APP).set("APP", app).start()
}

/// Sends bytes, keeps the connection open, and reads until `end` stands at the end or the proxy closes.
fn talk(address: SocketAddr, bytes: &[u8], end: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    read_until(&mut stream, end)
}

fn read_until(stream: &mut TcpStream, end: &str) -> Result<String> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error).context(String::from_utf8_lossy(&answer).into_owned()),
        }
        if !end.is_empty() && answer.ends_with(end.as_bytes()) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

fn request(host: &str, path: &str) -> ::http::Request<Bytes> {
    ::http::Request::get(path).header("host", host).body(Bytes::new()).unwrap()
}
