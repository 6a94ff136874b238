//! A request that failed is sent again.

use super::driver::{Begun, Session};
use super::state::Again;
use crate::error::Error;
use crate::retry::Retry;
use crate::upstream::Lease;
use crate::worker::View;
use tokio::time::sleep;
use tracing::debug;

impl Session {
    /// Attempts, as many as the rules want.
    pub(super) async fn attempts<'v>(
        &mut self,
        view: &View,
        begun: &mut Begun<'v>,
        retry: &'v Retry,
    ) -> Result<Lease, Error> {
        let cluster = &begun.target.upstream.cluster;
        // What a server may have acted on: a second time does no harm, or is wanted all the same.
        let may_replay = begun.is_whole && (begun.exchange.is_idempotent() || retry.non_idempotent);
        retry.begin();
        for attempt in 0..retry.attempts {
            begun.again = may_replay.then(|| Again { retry, now: cluster.now() });
            let error = match self.attempt(view, begun).await {
                Ok(lease) => return Ok(lease),
                Err(error) => error,
            };
            // What the client has of a reply cannot be taken back.
            let is_unanswered = begun.exchange.is_unanswered();
            if !is_unanswered || !retry.takes_error(&error, may_replay, cluster.now()) {
                return Err(error);
            }
            debug!(app = begun.app.name, %error, attempt, "a request is sent again");
            self.worker.shared.metrics.retries.inc();
            begun.exchange.restart();
            begun.outgoing.rewind();
            begun.incoming.clear();
            let wait = retry.backoff(attempt, &mut self.worker.dice());
            tokio::select! {
                biased;
                () = self.conn.stream.closed() => return Err(Error::ClientGone),
                () = sleep(wait) => {}
            }
        }
        // The last one's answer is the client's, whatever it is.
        begun.again = None;
        self.attempt(view, begun).await
    }
}
