//! Sends copies of requests, each in a task of its own: nobody waits for it.

use super::begin::Begun;
use super::driver::Session;
use super::lease::make;
use super::state::{Asked, Exchange, Rules};
use crate::balance::{Ask, Chooser};
use crate::mirror::{Copy, Dropped, Ready};
use crate::queue::{Entry, Grant};
use crate::table::App;
use crate::upstream::{Lease, Upstream};
use crate::wire::{Edits, Framing, Outlet, Version};
use crate::worker::Worker;
use bytes::BytesMut;
use groove_common::balance::Dice;
use groove_common::discovery::{Outcome, Policy};
use groove_common::net::Stream;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::{Instant, timeout};
use tracing::debug;

impl Session {
    /// Begins the copy of a request, where its route wants one; a request that is whole is copied at once.
    pub(super) fn mirror(&self, begun: &mut Begun<'_>) {
        let Some(action) = &begun.target.action else { return };
        // What follows an upgrade is nothing that could be copied.
        let Some(mirror) = action.mirror.as_ref().filter(|_| !begun.exchange.may_switch()) else { return };
        let dice = self.worker.dice().unit();
        begun.copy = mirror.copy(&begun.outgoing.head, dice).map(Box::new);
        if begun.is_whole {
            finish(&self.worker, &begun.seat.app, begun.copy.take());
        }
    }
}

/// Sends the copy of a request all of which is there, if it is to be.
pub(super) fn finish(worker: &Rc<Worker>, app: &Arc<App>, copy: Option<Box<Copy>>) {
    if let Some(ready) = copy.and_then(|copy| copy.finish()) {
        tokio::task::spawn_local(send(Rc::clone(worker), Arc::clone(app), ready));
    }
}

/// Sends a copy, and reads what it is answered to the end.
async fn send(worker: Rc<Worker>, app: Arc<App>, ready: Ready) {
    let mirror = Arc::clone(ready.mirror());
    // Who holds `ready` counts among the copies under way.
    let sent = timeout(mirror.time_max, attempt(&worker, &app, &mirror.upstream, &ready)).await;
    match sent.unwrap_or(Err(Dropped::Timeout)) {
        Ok(()) => mirror.answered(),
        Err(why) => {
            debug!(cluster = &*mirror.upstream.name, reason = why.label(), "a copy of a request was dropped");
            mirror.dropped(why);
        }
    }
}

async fn attempt(worker: &Rc<Worker>, app: &App, upstream: &Upstream, ready: &Ready) -> Result<(), Dropped> {
    let grant = choose(upstream, ready.bytes.len(), &mut worker.dice()).ok_or(Dropped::NoEndpoint)?;
    let mut held = Some(grant.exchange);
    let mut wants_fresh = false;
    while let Some(exchange) = held.take() {
        let mut lease = lease(worker, app, upstream, exchange, wants_fresh).await?;
        let mut exchange = Exchange::new(asked(&ready.bytes), Framing::None);
        let mut bytes = ready.bytes.clone();
        let mut incoming = BytesMut::new();
        let done =
            poll_fn(|cx| poll(worker, &mut exchange, &mut lease.stream, &mut bytes, &mut incoming, cx));
        if done.await.is_err() {
            // What was idle may have been closed in the very moment it was used.
            if lease.is_reused && exchange.is_unanswered() {
                wants_fresh = true;
                held = Some(lease.exchange);
                continue;
            }
            upstream.cluster.report(lease.exchange.endpoint(), Outcome::Failure);
            return Err(Dropped::Failed);
        }
        let status = exchange.status().unwrap_or_default();
        upstream.answered(lease.exchange.endpoint(), status, lease.at.elapsed());
        if exchange.keeps_server() && bytes.is_empty() && !lease.is_private {
            worker.put_idle(lease, Instant::now(), &worker.view().table);
        }
    }
    Ok(())
}

/// An endpoint that has room now: a copy waits in no queue.
fn choose(upstream: &Upstream, bytes: usize, dice: &mut Dice) -> Option<Grant> {
    if let Some(queue) = &upstream.queue {
        return match queue.enter(&Ask::default(), bytes, None) {
            Ok(Entry::Granted(grant)) => Some(grant),
            Ok(Entry::Waiting(_)) | Err(_) => None,
        };
    }
    let (snapshot, now) = (upstream.cluster.snapshot(), upstream.cluster.now());
    match &upstream.plan {
        Some(plan) => {
            let mut chooser = Chooser::default();
            chooser.choose(plan, &snapshot, Ask::default(), now, dice).map(|choice| Grant::of(&choice))
        }
        None => {
            let member = snapshot.pick(Policy::LeastLoaded, now, dice)?;
            Some(Grant { exchange: member.endpoint.begin(), new_home: None })
        }
    }
}

async fn lease(
    worker: &Rc<Worker>,
    app: &App,
    upstream: &Upstream,
    exchange: groove_common::discovery::Exchange,
    wants_fresh: bool,
) -> Result<Lease, Dropped> {
    let (at, is_private) = (Instant::now(), upstream.proxy_protocol.is_some());
    let (endpoint, restarted) = (exchange.endpoint().id, app.stand.restarted());
    let idle = poll_fn(|cx| {
        let idle = worker.take_idle(endpoint, restarted, at, cx);
        Poll::Ready(idle.or_else(|| worker.http2.open(endpoint, restarted, cx)))
    });
    let idle = if wants_fresh || is_private { None } else { idle.await };
    let is_reused = idle.is_some();
    let (stream, restarts) = match idle {
        Some(idle) => {
            upstream.metrics.reused.inc();
            idle
        }
        None => {
            let restarts = worker.shared.restarts.count();
            let made = make(worker, upstream, app.connect, (None, None), &exchange, restarts).await;
            let counter =
                if made.is_ok() { &upstream.metrics.connects } else { &upstream.metrics.connect_failures };
            counter.inc();
            if made.is_err() {
                upstream.cluster.report(exchange.endpoint(), Outcome::Failure);
            }
            (made.map_err(|_| Dropped::Failed)?, restarts)
        }
    };
    Ok(Lease { stream, exchange, is_private, is_reused, restarts, permit: None, at, new_home: None })
}

fn asked(request: &[u8]) -> Asked {
    Asked {
        version: Version::Http11,
        is_head: request.starts_with(b"HEAD "),
        keeps_alive: true,
        may_replay: false,
        is_idempotent: false,
        offered: None,
    }
}

/// Sends what can be sent and reads what is there, until the reply is complete. Nothing of it is kept.
fn poll(
    worker: &Worker,
    exchange: &mut Exchange,
    server: &mut Stream,
    bytes: &mut BytesMut,
    incoming: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ()>> {
    if let Poll::Ready(Err(_)) = server.poll_send(cx, bytes) {
        // It may have said why before it hung up; what it said is not waited for.
        bytes.clear();
    }
    let mut forgotten = Outlet::default();
    loop {
        let view = worker.view();
        let (edits, limits) = (Edits::default(), &view.table.limits);
        let rules = Rules::plain(limits, &edits);
        let taken = match server.poll_fill(cx, incoming) {
            Poll::Ready(Ok(0)) => exchange.server_closed(incoming, &mut forgotten),
            Poll::Ready(Ok(_)) => exchange.download(incoming, &mut forgotten, &rules, &mut worker.fields()),
            Poll::Ready(Err(_)) => return Poll::Ready(Err(())),
            Poll::Pending => return Poll::Pending,
        };
        forgotten = Outlet::default();
        match taken {
            Ok(()) if exchange.is_answered() => return Poll::Ready(Ok(())),
            Ok(()) => {}
            Err(_) => return Poll::Ready(Err(())),
        }
    }
}
