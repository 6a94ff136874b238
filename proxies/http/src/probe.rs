//! Active probes: a GET on a connection of its own.

use crate::config::{self, Protocol};
use crate::http2::{self, Bounds};
use crate::wire::scan::HeadScan;
use crate::wire::{Fields, Limits, ReplyHead};
use bytes::{Bytes, BytesMut};
use futures_util::future::{BoxFuture, Either, select};
use groove_common::discovery::{ProbeError, Prober};
use groove_common::ids::Address;
use groove_common::net::{Connector, Stream, connect_saying, header};
use std::pin::pin;
use std::time::Duration;

/// The cluster's own timeout is shorter; this only bounds a connect that would outlive it.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);

/// Of a connection for one question; its time is the cluster's affair, too.
const BOUNDS: Bounds = Bounds {
    streams: 1,
    head_bytes: 32 * 1024,
    buffer_bytes: 64 * 1024,
    head_time: CONNECT_TIME_MAX,
    keep_alive: CONNECT_TIME_MAX,
    server_keep_alive: CONNECT_TIME_MAX,
    ping: None,
    server_ping: None,
};

/// GETs a path; a status below 500 is healthy.
#[derive(Debug)]
pub(crate) struct HttpProber {
    path: String,
    tls: Option<Connector>,
    protocol: Protocol,
    /// A PROXY header of a connection that is our own.
    first: Vec<u8>,
}

impl HttpProber {
    pub(crate) fn new(path: &str, tls: Option<Connector>, servers: &config::Cluster) -> Self {
        let first = servers.proxy_protocol.map(|version| header(version.into(), None, None));
        Self { path: path.to_owned(), tls, protocol: servers.protocol, first: first.unwrap_or_default() }
    }

    async fn ask(&self, address: &Address) -> Result<(), ProbeError> {
        let stream = connect_saying(address, &self.first, self.tls.as_ref(), CONNECT_TIME_MAX)
            .await
            .map_err(ProbeError::new)?;
        if !self.protocol.is_http2(&stream) {
            return self.ask_over(stream, address).await;
        }
        let (carried, stream) = http2::ask(stream, BOUNDS).await.map_err(ProbeError::new)?;
        match select(pin!(self.ask_over(stream, address)), pin!(carried)).await {
            Either::Left((healthy, _)) => healthy,
            Either::Right(((), asked)) => asked.await,
        }
    }

    async fn ask_over(&self, mut stream: Stream, address: &Address) -> Result<(), ProbeError> {
        let host = match address {
            Address::Tcp { .. } => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: groove-http-probe\r\nConnection: close\r\n\r\n",
            self.path
        );
        stream.send(&mut Bytes::from(request)).await.map_err(ProbeError::new)?;
        let (limits, mut scan, mut read) = (Limits::default(), HeadScan::default(), BytesMut::new());
        let length = loop {
            if stream.fill(&mut read).await.map_err(ProbeError::new)? == 0 {
                return Err(ProbeError::new("closed without an answer"));
            }
            if let Some(length) = scan.advance(&read, &limits).map_err(ProbeError::new)? {
                break length;
            }
        };
        let mut fields = Fields::default();
        let head = ReplyHead::parse(read.get(..length).unwrap_or_default(), false, &limits, &mut fields)
            .map_err(ProbeError::new)?;
        match head.status {
            200..500 => Ok(()),
            status => Err(ProbeError::new(format!("{} answered {status}", self.path))),
        }
    }
}

impl Prober for HttpProber {
    fn probe<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(self.ask(address))
    }
}
