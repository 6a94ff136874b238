//! Flushing a server that was away, before it serves again: what it still has may be stale.

use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use groove_common::discovery::{ProbeError, Welcome};
use groove_common::ids::Address;
use groove_common::net::{Connector, connect};
use tokio::time::sleep;

use super::connection::greet;

/// Longer than a welcome may take: the cluster drops it at its own timeout.
const TIME_MAX: Duration = Duration::from_secs(60);

/// A server that was stopped finds in its sockets what was sent to it before it was given up. It has this long to
/// work that off before it is flushed: a write among it would otherwise outlive the flush.
const SETTLE: Duration = Duration::from_millis(250);

const FLUSHED: &[u8] = b"OK\r\n";

/// Sends `flush_all` on a connection of its own.
pub(super) struct Flush {
    tls: Option<Connector>,
}

impl Flush {
    pub(super) fn new(tls: Option<Connector>) -> Self {
        Self { tls }
    }
}

impl Welcome for Flush {
    fn welcome<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>> {
        Box::pin(async move {
            let mut stream = connect(address, self.tls.as_ref(), TIME_MAX).await.map_err(ProbeError::new)?;
            greet(&mut stream).await.map_err(ProbeError::new)?;
            sleep(SETTLE).await;
            stream.send(&mut &b"flush_all\r\n"[..]).await.map_err(ProbeError::new)?;
            let mut answer = BytesMut::new();
            while !answer.ends_with(b"\n") {
                if stream.fill(&mut answer).await.map_err(ProbeError::new)? == 0 {
                    return Err(ProbeError::new("hung up on while it was flushed"));
                }
                if answer.len() > 1024 {
                    break;
                }
            }
            match &*answer {
                FLUSHED => Ok(()),
                other => {
                    let said = String::from_utf8_lossy(other);
                    Err(ProbeError(format!("it was to be flushed and said `{}`", said.trim_end())))
                }
            }
        })
    }
}
