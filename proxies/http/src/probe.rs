//! Active probes: a GET on a connection of its own.

use crate::wire::scan::HeadScan;
use crate::wire::{Fields, Limits, ReplyHead};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use groove_common::discovery::{ProbeError, Prober};
use groove_common::ids::Address;
use groove_common::net::{Connector, ProxyVersion, connect_saying, header};
use std::time::Duration;

/// The cluster's own timeout is shorter; this only bounds a connect that would outlive it.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);

/// GETs a path; a status below 500 is healthy.
#[derive(Debug)]
pub(crate) struct HttpProber {
    path: String,
    tls: Option<Connector>,
    /// A PROXY header of a connection that is our own.
    first: Vec<u8>,
}

impl HttpProber {
    pub(crate) fn new(path: &str, tls: Option<Connector>, proxy: Option<ProxyVersion>) -> Self {
        let first = proxy.map(|version| header(version, None, None)).unwrap_or_default();
        Self { path: path.to_owned(), tls, first }
    }

    async fn ask(&self, address: &Address) -> Result<(), ProbeError> {
        let mut stream = connect_saying(address, &self.first, self.tls.as_ref(), CONNECT_TIME_MAX)
            .await
            .map_err(ProbeError::new)?;
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
