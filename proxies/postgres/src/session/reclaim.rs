//! A server connection whose client left in the midst of something: what runs is cancelled, what is open is
//! rolled back, and the connection goes back to its pool. Only if that fails is it closed.

use std::time::Duration;

use bytes::BytesMut;
use tokio::time::timeout;

use super::Lease;
use super::cancel::Canceller;
use super::state::Machine;
use crate::error::Error;
use crate::upstream::{Server, UserPool};
use crate::wire::backend::Status;

/// How long the server may take to come to rest.
const TIME_MAX: Duration = Duration::from_secs(10);

/// What a session leaves behind.
pub struct Left {
    /// What its machine knows of the server connection.
    pub machine: Machine,
    /// Bytes that the server has sent and the machine has not seen whole.
    pub from_server: BytesMut,
    /// Bytes that the server has yet to get.
    pub to_server: BytesMut,
}

/// Brings a connection to rest and gives it back.
pub async fn reclaim(mut lease: Lease, left: Left, pool: &UserPool, canceller: &Canceller) {
    let Lease::Pooled(_) = lease else { return };
    let at_rest = timeout(TIME_MAX, settle(&mut lease, left)).await;
    // Nobody may cancel what the next session runs.
    if canceller.released() && !canceller.settled().await {
        return;
    }
    match at_rest {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(pool = pool.name, %error, "a server connection is closed with its client");
            return;
        }
        Err(_) => {
            tracing::info!(pool = pool.name, "a server connection did not come to rest and is closed");
            return;
        }
    }
    if let Lease::Pooled(lease) = lease {
        pool.reset(lease).await;
    }
}

async fn settle(server: &mut Server, mut left: Left) -> Result<(), Error> {
    if !left.machine.is_between_messages() {
        return Err(Error::Client(std::io::ErrorKind::UnexpectedEof.into()));
    }
    if left.machine.is_busy() {
        let cancel = std::sync::Arc::clone(&server.cancel);
        left.machine.abandon(&mut left.to_server);
        server.stream.send(&mut left.to_server).await.map_err(Error::Lost)?;
        if left.machine.is_busy() {
            // That it could not be cancelled only means that it takes its time.
            let _ = cancel.send().await;
        }
        let mut unheard = BytesMut::new();
        loop {
            left.machine.from_server(&mut left.from_server, &mut server.backend, &mut unheard)?;
            unheard.clear();
            if !left.machine.is_busy() {
                break;
            }
            let filled = server.stream.fill(&mut left.from_server).await.map_err(Error::Lost)?;
            if filled == 0 {
                return Err(Error::Lost(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
    if left.machine.status() != Status::Idle && server.run("ROLLBACK").await? != Status::Idle {
        return Err(Error::Setup);
    }
    Ok(())
}
