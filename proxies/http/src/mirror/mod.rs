//! Copies of requests for another cluster. What is copied, and what is not, is decided here; `session/mirroring.rs` sends.
//!
//! ```text
//!  request ── whole at once ──────────────────────────► ready ──► sent, its reply read and forgotten
//!          └─ body to come ──► take, take ... finish ──►
//!                               └─ too long, too many, its client left ──► dropped, counted by reason
//! ```
//!
//! The request itself never waits for its copy, and nothing that becomes of the copy becomes of the request.

mod head;

use crate::config;
use crate::metrics::MirrorMetrics;
use crate::upstream::{Make, Upstream};
use bytes::BytesMut;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tracing::warn;

/// That copies are dropped is said this often at the most.
const SAID_EVERY_S: u64 = 10;

/// A route's rule.
pub struct Mirror {
    /// Who gets the copies.
    pub upstream: Arc<Upstream>,
    /// From a copy's beginning to the end of its reply.
    pub time_max: Duration,
    /// What share of the requests.
    share: f64,
    marks_host: bool,
    body_bytes_max: usize,
    count_max: usize,
    bytes_max: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    metrics: LazyLock<MirrorMetrics, Make<MirrorMetrics>>,
    /// When it was said last that copies are dropped, in seconds of the cluster's time, one more than that.
    said_s: AtomicU64,
}

/// Why a request has no copy that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// As many copies are under way as may be.
    InFlight,
    /// As many bytes are held for copies as may be.
    Bytes,
    /// The request's body is too long.
    Body,
    /// The request ended before all of its body was there.
    Incomplete,
    /// No endpoint of the cluster takes it now.
    NoEndpoint,
    /// It took too long.
    Timeout,
    /// The endpoint could not be connected to, hung up, or answered what is not HTTP.
    Failed,
}

impl Dropped {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::InFlight,
        Self::Bytes,
        Self::Body,
        Self::Incomplete,
        Self::NoEndpoint,
        Self::Timeout,
        Self::Failed,
    ];

    /// As a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Bytes => "bytes",
            Self::Body => "body",
            Self::Incomplete => "incomplete",
            Self::NoEndpoint => "no_endpoint",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

impl Mirror {
    /// As configured.
    pub fn new(
        mirror: &config::Mirror,
        upstream: Arc<Upstream>,
        metrics: impl FnOnce() -> MirrorMetrics + Send + 'static,
    ) -> Self {
        Self {
            upstream,
            time_max: mirror.timeout.get(),
            share: mirror.percent / 100.0,
            marks_host: mirror.shadow_host,
            body_bytes_max: mirror.body.bytes(),
            count_max: mirror.in_flight,
            bytes_max: mirror.bytes.bytes(),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            metrics: LazyLock::new(Box::new(metrics) as Make<_>),
            said_s: AtomicU64::new(0),
        }
    }

    /// Begins a copy of a request of which `head`, and what of the body came with it, is ready for its own server; if
    /// the dice are for it.
    pub fn copy(self: &Arc<Self>, head: &[u8], dice: f64) -> Option<Copy> {
        if dice >= self.share {
            return None;
        }
        let place = Place { mirror: Arc::clone(self), bytes: 0 };
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.count_max {
            self.dropped(Dropped::InFlight);
            return None;
        }
        let mut copy = Copy { place: Some(place), held: BytesMut::new(), head_bytes: 0 };
        let end = memchr::memmem::find(head, b"\r\n\r\n").map_or(head.len(), |end| end + 4);
        let (fields, body) = head.split_at_checked(end).unwrap_or((head, &[]));
        head::put(fields, self.marks_host, &mut copy.held);
        copy.head_bytes = copy.held.len();
        copy.reserve(copy.head_bytes);
        copy.take(body);
        Some(copy)
    }

    /// A copy was answered.
    pub fn answered(&self) {
        self.metrics.sent.inc();
    }

    /// A request has no copy, or none that was answered.
    pub fn dropped(&self, why: Dropped) {
        self.metrics.dropped(why);
        let now_s = self.upstream.cluster.now().as_secs() + 1;
        let said_s = self.said_s.load(Ordering::Relaxed);
        let is_due = said_s == 0 || now_s >= said_s + SAID_EVERY_S;
        let is_ours = |_| self.said_s.compare_exchange(said_s, now_s, Ordering::Relaxed, Ordering::Relaxed);
        if is_due && is_ours(()).is_ok() {
            let dropped = self.metrics.dropped_ever();
            warn!(
                cluster = &*self.upstream.name,
                reason = why.label(),
                dropped,
                "copies of requests are dropped"
            );
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("cluster", &self.upstream.name).finish_non_exhaustive()
    }
}

/// One of the copies that there may be, and what it holds of the bytes that all may hold.
struct Place {
    mirror: Arc<Mirror>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.mirror.count.fetch_sub(1, Ordering::Relaxed);
        self.mirror.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A copy in the making. One that is dropped before it is finished was of a request that came to nothing.
pub struct Copy {
    /// None once it is given up.
    place: Option<Place>,
    held: BytesMut,
    head_bytes: usize,
}

impl Copy {
    /// Takes more of the body.
    pub fn take(&mut self, body: &[u8]) {
        let Some(place) = &self.place else { return };
        let body_bytes = self.held.len() - self.head_bytes + body.len();
        if body_bytes > place.mirror.body_bytes_max {
            return self.give_up(Dropped::Body);
        }
        if self.reserve(body.len()) {
            self.held.extend_from_slice(body);
        }
    }

    /// All of the request is there: what is to be sent, if it is.
    pub fn finish(mut self) -> Option<Ready> {
        let place = self.place.take()?;
        Some(Ready { place, bytes: std::mem::take(&mut self.held) })
    }

    fn reserve(&mut self, more: usize) -> bool {
        let Some(place) = &mut self.place else { return false };
        place.bytes += more;
        let held = place.mirror.bytes.fetch_add(more, Ordering::Relaxed) + more;
        if held > place.mirror.bytes_max {
            self.give_up(Dropped::Bytes);
            return false;
        }
        true
    }

    fn give_up(&mut self, why: Dropped) {
        self.held = BytesMut::new();
        if let Some(place) = self.place.take() {
            place.mirror.dropped(why);
        }
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        self.give_up(Dropped::Incomplete);
    }
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy").field("bytes", &self.held.len()).finish_non_exhaustive()
    }
}

/// A whole copy.
pub struct Ready {
    place: Place,
    /// Head and body.
    pub bytes: BytesMut,
}

impl Ready {
    /// The rule.
    pub fn mirror(&self) -> &Arc<Mirror> {
        &self.place.mirror
    }
}

#[cfg(test)]
mod tests;
