//! Asking a PostgreSQL server whether it is well, without logging in.

use std::io;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use groove_common::discovery::{ProbeError, Prober};
use groove_common::ids::Address;
use groove_common::net;

use super::server::fill;
use crate::wire::startup::put_ssl_request;

/// Longer than any probe may take: the cluster's own deadline comes first.
const TIME_MAX: std::time::Duration = std::time::Duration::from_secs(60);

/// Asks for TLS and leaves: a server that works answers with one byte, even when it is full.
pub(super) struct SslRequestProber;

impl Prober for SslRequestProber {
    fn probe<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>> {
        probe(address).map(|result| result.map_err(ProbeError::new)).boxed()
    }
}

async fn probe(address: &Address) -> io::Result<()> {
    let mut stream = net::connect(address, None, TIME_MAX).await?;
    let mut bytes = BytesMut::new();
    put_ssl_request(&mut bytes);
    stream.send(&mut bytes).await?;
    let mut answer = BytesMut::new();
    fill(&mut stream, &mut answer).await?;
    match answer.first() {
        Some(b'S' | b'N') => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "not a PostgreSQL server")),
    }
}
