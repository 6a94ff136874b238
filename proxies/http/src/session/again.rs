//! A request's way to a server, and once more where that failed.

use super::begin::Begun;
use super::driver::Session;
use super::lease::{Dial, lease};
use super::state::Again;
use crate::error::Error;
use crate::retry::Retry as Rules;
use crate::upstream::Lease;
use crate::wire::Edits;
use crate::worker::View;
use groove_common::discovery::Outcome;
use groove_common::error::{Classified, Retry, Side};
use tokio::time::{Instant, sleep};
use tracing::debug;

impl Session {
    /// Attempts, as many as the rules want.
    pub(super) async fn attempts<'v>(
        &mut self,
        view: &View,
        begun: &mut Begun<'v>,
        retry: &'v Rules,
    ) -> Result<Lease, Error> {
        let cluster = &begun.target.upstream.cluster;
        // What a server may have acted on: a second time does no harm, or is wanted all the same.
        let may_replay = begun.is_whole && (begun.exchange.is_idempotent() || retry.non_idempotent);
        retry.begin();
        let mut now = begun.at;
        for attempt in 0..retry.attempts {
            begun.again = may_replay.then(|| Again { retry, now: cluster.now() });
            let error = match self.attempt(view, begun, now).await {
                Ok(lease) => return Ok(lease),
                Err(error) => error,
            };
            // What the client has of a reply cannot be taken back.
            let is_unanswered = begun.exchange.is_unanswered();
            if !is_unanswered || !retry.takes_error(&error, may_replay, cluster.now()) {
                return Err(error);
            }
            debug!(app = &*begun.app.name, %error, attempt, "a request is sent again");
            self.worker.shared.metrics.retries.inc();
            begun.exchange.restart();
            begun.outgoing.rewind();
            begun.incoming.clear();
            let wait = retry.backoff(attempt, &mut self.worker.dice());
            tokio::select! {
                biased;
                () = self.conn.stream.closed() => return Err(Error::ClientGone),
                () = sleep(wait) => now = Instant::now(),
            }
        }
        // The last one's answer is the client's, whatever it is.
        begun.again = None;
        self.attempt(view, begun, now).await
    }

    /// Leases and exchanges, once more on a fresh connection where an idle one turned out to be dead.
    pub(super) async fn attempt(
        &mut self,
        view: &View,
        begun: &mut Begun<'_>,
        now: Instant,
    ) -> Result<Lease, Error> {
        let mut held = None;
        let upstream = &*begun.target.upstream;
        loop {
            let dial = Dial {
                target: begun.target,
                seat: begun.seat,
                from: match upstream.proxy_protocol {
                    Some(_) => self.ends(begun.client),
                    None => (None, None),
                },
                now,
                since: begun.at,
                wants_fresh: held.is_some(),
                key: begun.key,
                client: &self.conn.stream,
                bytes: begun.outgoing.left() + self.inbox.len(),
                flow: begun.flow,
            };
            let mut lease = lease(&self.worker, view, &dial, &mut begun.failed, held.take()).await?;
            if let Some(identity) = &lease.new_home {
                begun.naming = naming(begun, identity, self.conn.tls.is_some());
            }
            let Err(error) = self.exchange(view, begun, &mut lease).await else {
                begun.ended = Instant::now();
                let latency = begun.ended.saturating_duration_since(lease.at);
                let status = begun.exchange.status().unwrap_or_default();
                upstream.answered(lease.exchange.endpoint(), status, latency);
                return Ok(lease);
            };
            if lease.is_reused && error.retry() == Retry::IfIdempotent {
                // The server closed an idle connection: that says nothing of its health.
                if begun.exchange.may_replay() {
                    begun.exchange.restart();
                    begun.outgoing.rewind();
                    begun.incoming.clear();
                    self.worker.shared.metrics.retries.inc();
                    held = Some(lease.into());
                    continue;
                }
            } else if let Error::Status(status) = error {
                upstream.answered(lease.exchange.endpoint(), status, lease.at.elapsed());
            } else if error.side() == Side::Upstream {
                upstream.cluster.report(lease.exchange.endpoint(), Outcome::Failure);
            }
            begun.failed.push(lease.exchange.endpoint().id);
            return Err(error);
        }
    }
}

/// What tells a client where its session lives.
pub(super) struct Naming {
    /// The edits of its reply.
    pub(super) edits: Edits,
    /// The cookie alone, for a 101, which has no edits.
    pub(super) cookie: Edits,
}

fn naming(begun: &Begun<'_>, identity: &str, is_secure: bool) -> Option<Box<Naming>> {
    let plan = begun.target.upstream.plan.as_ref()?;
    let edits = plan.naming(identity, &begun.edits, is_secure)?;
    let cookie = plan.naming(identity, &Edits::default(), is_secure)?;
    Some(Box::new(Naming { edits, cookie }))
}
