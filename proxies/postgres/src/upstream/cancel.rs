//! Cancelling what a server connection runs.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use groove_common::ids::Address;
use groove_common::net::{Connector, Stream};
use tokio::time::timeout;

use super::connect::open;
use crate::wire::startup::{CancelKey, put_cancel};

/// How long a server may take to carry out a cancel request.
const TIME_MAX: Duration = Duration::from_secs(5);

/// Where to send the cancel request for one server connection, and what it has to say.
pub struct CancelTarget {
    /// The very server: another of the same name knows nothing of the key.
    pub address: Address,
    /// A request in the clear could be replayed by whoever sees it.
    pub tls: Option<Connector>,
    /// From the server's BackendKeyData.
    pub key: CancelKey,
}

impl CancelTarget {
    /// Sends the request, and returns once the server has acted on it: it closes the connection after the
    /// signal is sent, and a signal that arrives while its session is idle has no effect.
    pub async fn send(&self) -> io::Result<()> {
        timeout(TIME_MAX, self.send_now()).await?
    }

    async fn send_now(&self) -> io::Result<()> {
        let mut stream: Stream = open(&self.address, self.tls.as_ref(), TIME_MAX).await?;
        let mut request = BytesMut::new();
        put_cancel(&mut request, &self.key);
        stream.send(&mut request).await?;
        let mut rest = BytesMut::new();
        while stream.fill(&mut rest).await.unwrap_or(0) > 0 {
            rest.clear();
        }
        Ok(())
    }
}
