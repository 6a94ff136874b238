//! What the sessions of one thread share. All of it is this thread's alone: cells, not locks.

use crate::apps::{Directory, Restarted, Restarts, Seat, Seats};
use crate::http2;
use crate::metrics::Metrics;
use crate::session::driver;
use crate::table::Table;
use crate::upstream::{Idle, Lease};
use crate::wire::Fields;
use arc_swap::ArcSwap;
use bytes::BytesMut;
use groove_common::balance::Dice;
use groove_common::discovery::fresh_dice;
use groove_common::ids::EndpointId;
use groove_common::net::{Downstream, FILL_BYTES_MAX, LocalService, Stream};
use groove_common::telemetry::AccessLog;
use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{Instant, interval};

/// Buffers kept for the next exchanges; beyond this they go back to the allocator.
const BUFFERS_MAX: usize = 256;
/// How large a buffer begins: a head and a small body fit.
const BUFFER_BYTES: usize = 2 * 1024;
/// A buffer that has grown larger is not kept.
const BUFFER_BYTES_KEPT_MAX: usize = 16 * 1024;
/// What a server says is read into one of these, so that a body goes on from where it was read. A few are kept: it is
/// lent for as long as there are bytes in it, which is mostly within a turn.
const LARGE_BYTES: usize = FILL_BYTES_MAX + 2 * BUFFER_BYTES;
const LARGE_MAX: usize = 8;
/// How often idle connections are looked through for those that have been idle for too long.
const SWEEP: Duration = Duration::from_secs(1);
/// So many of these looks for one at the apps: those that nobody asked for since the last are forgotten.
const SEATS_SWEPT_EVERY: u64 = 8;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    table: ArcSwap<Table>,
    /// Counts the tables, so that a worker sees with one load whether it has the latest.
    generation: AtomicU64,
    /// The apps by their hosts.
    pub directory: Arc<Directory>,
    /// Restarts of apps, by which it can be told which connections are older.
    pub restarts: Arc<Restarts>,
    /// Counted for the whole proxy.
    pub metrics: Metrics,
    /// Where exchanges are logged.
    pub access: AccessLog,
}

impl Shared {
    /// Begins with a first table.
    pub fn new(table: Table, directory: Arc<Directory>, metrics: Metrics, access: AccessLog) -> Self {
        Self {
            table: ArcSwap::from_pointee(table),
            generation: AtomicU64::new(0),
            directory,
            restarts: Arc::default(),
            metrics,
            access,
        }
    }

    /// The latest table.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Swaps the table; exchanges that have begun keep the one they began with.
    pub fn swap(&self, table: Table) {
        table.take_effect(&self.table());
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// A table as one worker sees it.
pub struct View {
    /// The table.
    pub table: Arc<Table>,
    generation: u64,
}

/// One thread's share of the proxy.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Connections to servers that carry many exchanges at once.
    pub(crate) http2: Rc<http2::Connections>,
    view: RefCell<Rc<View>>,
    seats: RefCell<Seats>,
    idle: RefCell<Idle>,
    dice: RefCell<Dice>,
    fields: RefCell<Fields>,
    buffers: RefCell<Vec<BytesMut>>,
    large: RefCell<Vec<BytesMut>>,
    sweeps: Cell<bool>,
}

impl Worker {
    /// A worker that has seen the table of this moment.
    pub fn new(shared: Arc<Shared>) -> Rc<Self> {
        let generation = shared.generation.load(Ordering::Acquire);
        let view = Rc::new(View { table: shared.table(), generation });
        Rc::new(Self {
            shared,
            http2: Rc::default(),
            view: RefCell::new(view),
            seats: RefCell::default(),
            idle: RefCell::default(),
            dice: RefCell::new(fresh_dice()),
            fields: RefCell::default(),
            buffers: RefCell::default(),
            large: RefCell::default(),
            sweeps: Cell::new(false),
        })
    }

    /// The latest table.
    pub fn view(&self) -> Rc<View> {
        let latest = self.shared.generation.load(Ordering::Acquire);
        let mut view = self.view.borrow_mut();
        if view.generation != latest {
            *view = Rc::new(View { table: self.shared.table(), generation: latest });
        }
        Rc::clone(&view)
    }

    /// The app that answers for a host, as of this moment.
    pub fn seat(self: &Rc<Self>, host: &[u8]) -> Option<Rc<Seat>> {
        let seat = self.seats.borrow_mut().find(host, &self.shared.directory);
        self.tend();
        seat
    }

    /// This thread's dice.
    pub fn dice(&self) -> RefMut<'_, Dice> {
        self.dice.borrow_mut()
    }

    /// A name for a request that brought none: 32 hexadecimal digits.
    pub fn request_id(&self) -> [u8; 32] {
        let mut dice = self.dice.borrow_mut();
        let mut id = [0; 32];
        for half in id.chunks_exact_mut(16) {
            let bits = dice.bits();
            let (low, high) = half.split_at_mut(8);
            low.copy_from_slice(&digits(bits));
            high.copy_from_slice(&digits(bits >> 32));
        }
        id
    }

    /// Room for the fields of the head that is being read.
    pub fn fields(&self) -> RefMut<'_, Fields> {
        self.fields.borrow_mut()
    }

    /// An empty buffer, perhaps one that was used before.
    pub fn take_buffer(&self) -> BytesMut {
        self.buffers.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(BUFFER_BYTES))
    }

    /// Takes a buffer back; what is in it is lost.
    pub fn put_buffer(&self, mut buffer: BytesMut) {
        let mut buffers = self.buffers.borrow_mut();
        buffer.clear();
        // Bytes that were taken from its front are room again.
        let has_room = buffer.capacity() >= BUFFER_BYTES / 2 || buffer.try_reclaim(BUFFER_BYTES);
        if has_room && buffer.capacity() <= BUFFER_BYTES_KEPT_MAX && buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    }

    /// An empty buffer that takes whatever one reading brings.
    pub fn take_large(&self) -> BytesMut {
        self.large.borrow_mut().pop().unwrap_or_else(|| BytesMut::with_capacity(LARGE_BYTES))
    }

    /// Takes a large buffer back, or one that is none; what is in it is lost.
    pub fn put_large(&self, mut buffer: BytesMut) {
        if buffer.capacity() == 0 {
            return;
        }
        buffer.clear();
        if buffer.capacity() < LARGE_BYTES && !buffer.try_reclaim(LARGE_BYTES) {
            return self.put_buffer(buffer);
        }
        let mut large = self.large.borrow_mut();
        if buffer.capacity() <= 2 * LARGE_BYTES && large.len() < LARGE_MAX {
            large.push(buffer);
        }
    }

    /// An idle connection to an endpoint, for an app that was last restarted with that number.
    pub fn take_idle(
        &self,
        endpoint: EndpointId,
        restarted: u32,
        now: Instant,
        cx: &mut Context<'_>,
    ) -> Option<(Stream, u32)> {
        self.idle.borrow_mut().take(endpoint, restarted, now, cx)
    }

    /// Keeps the connection of an exchange that is over.
    pub fn put_idle(self: &Rc<Self>, lease: Lease, now: Instant, table: &Table) {
        let endpoint = lease.exchange.endpoint().id;
        let (len_max, age_max) = (table.idle_per_endpoint, table.timeouts.server_keep_alive);
        self.idle.borrow_mut().put(endpoint, (lease.stream, lease.restarts), now, len_max, age_max);
        self.tend();
    }

    /// Closes the idle connections of an app that starts anew.
    fn close_idle(&self, restarted: &Restarted) {
        let mut idle = self.idle.borrow_mut();
        for endpoint in &*restarted.endpoints {
            idle.close(*endpoint);
            self.http2.close(*endpoint, restarted.number);
        }
    }

    /// Sees to it that what is no longer wanted goes.
    fn tend(self: &Rc<Self>) {
        if !self.sweeps.replace(true) {
            // Here, so that no restart is missed.
            let restarts = self.shared.restarts.listen();
            tokio::task::spawn_local(sweep(Rc::clone(self), restarts));
        }
    }
}

/// Eight hexadecimal digits of the lower 32 bits, all at once; which of them comes first is nobody's business.
fn digits(bits: u64) -> [u8; 8] {
    let bits = bits & 0xffff_ffff;
    let bits = (bits | bits << 16) & 0x0000_ffff_0000_ffff;
    let bits = (bits | bits << 8) & 0x00ff_00ff_00ff_00ff;
    // A digit of four bits in each byte; six more and it has a fifth bit if it is a letter.
    let digits = (bits | bits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((digits + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (digits + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'9' - 1)).to_le_bytes()
}

/// Closes idle connections when their time is over or their app starts anew, and forgets apps that nobody asks for, for
/// as long as there are any.
async fn sweep(worker: Rc<Worker>, mut restarts: broadcast::Receiver<Restarted>) {
    let mut ticks = interval(SWEEP);
    for round in 0_u64.. {
        loop {
            tokio::select! {
                _ = ticks.tick() => break,
                // It ends with the proxy alone; who falls behind has missed some.
                Ok(restarted) = restarts.recv() => worker.close_idle(&restarted),
            }
        }
        let mut idle = worker.idle.borrow_mut();
        idle.expire(Instant::now());
        let mut seats = worker.seats.borrow_mut();
        if round % SEATS_SWEPT_EVERY == SEATS_SWEPT_EVERY - 1 {
            seats.sweep(&worker.shared.directory);
        }
        if idle.is_empty() && seats.is_empty() && worker.http2.is_empty() {
            worker.sweeps.set(false);
            return;
        }
    }
}

impl LocalService for Worker {
    // No `async fn`, which would keep room for its arguments.
    fn serve(self: Rc<Self>, conn: Downstream) -> impl Future<Output = ()> {
        driver::serve(self, conn)
    }

    async fn refuse(self: Rc<Self>, conn: Downstream) {
        driver::refuse(&self, conn).await;
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("idle", &self.idle.borrow().len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_digit_is_hexadecimal_and_none_is_lost() {
        assert_eq!(&digits(0), b"00000000");
        let mut all = [digits(0x0123_4567), digits(0x89ab_cdef)].concat();
        all.sort_unstable();
        assert_eq!(all, b"0123456789abcdef");
    }
}
