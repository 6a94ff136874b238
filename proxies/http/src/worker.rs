//! What the sessions of one thread share. All of it is this thread's alone: cells, not locks.

use crate::balance::{Ask, Chooser, Plan};
use crate::http2;
use crate::metrics::Metrics;
use crate::queue::Grant;
use crate::session::driver;
use crate::table::Table;
use crate::upstream::{Idle, Lease, Upstream};
use crate::wire::Fields;
use arc_swap::ArcSwap;
use bytes::BytesMut;
use foldhash::fast::RandomState;
use groove_common::balance::Dice;
use groove_common::discovery::{Policy, Reader, fresh_dice};
use groove_common::ids::EndpointId;
use groove_common::net::{Downstream, LocalService, Stream};
use groove_common::telemetry::AccessLog;
use std::cell::{Cell, RefCell, RefMut};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, interval};

/// Buffers kept for the next exchanges; beyond this they go back to the allocator.
const BUFFERS_MAX: usize = 256;
/// How large a buffer begins: a head and a small body fit.
const BUFFER_BYTES: usize = 2 * 1024;
/// A buffer that has grown larger is not kept.
const BUFFER_BYTES_KEPT_MAX: usize = 16 * 1024;
/// How often idle connections are looked through for those that have been idle for too long.
const SWEEP: Duration = Duration::from_secs(1);

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    table: ArcSwap<Table>,
    /// Counts the tables, so that a worker sees with one load whether it has the latest.
    generation: AtomicU64,
    /// Counted for the whole proxy.
    pub metrics: Metrics,
    /// Where exchanges are logged.
    pub access: AccessLog,
}

impl Shared {
    /// Begins with a first table.
    pub fn new(table: Table, metrics: Metrics, access: AccessLog) -> Self {
        Self { table: ArcSwap::from_pointee(table), generation: AtomicU64::new(0), metrics, access }
    }

    /// The latest table.
    pub fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }

    /// Swaps the table; exchanges that have begun keep the one they began with.
    pub fn swap(&self, table: Table) {
        self.table.store(Arc::new(table));
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// A table as one worker sees it, with its readers of the clusters' snapshots.
pub struct View {
    /// The table.
    pub table: Arc<Table>,
    generation: u64,
    readers: RefCell<Vec<Reader>>,
    /// For clusters whose choice needs one, by their names.
    choosers: RefCell<HashMap<String, Chooser, RandomState>>,
    least_loaded: Arc<Plan>,
}

impl View {
    /// Whose turn it is goes on from the view `before`.
    fn new(table: Arc<Table>, generation: u64, before: Option<&Self>) -> Self {
        let mut upstreams: Vec<_> = table.upstreams.values().collect();
        upstreams.sort_unstable_by_key(|upstream| upstream.index);
        let readers = upstreams.into_iter().map(|upstream| upstream.cluster.reader()).collect();
        let mut choosers = before.map(|before| before.choosers.take()).unwrap_or_default();
        choosers.retain(|name, _| table.upstreams.contains_key(name));
        let (choosers, least_loaded) = (RefCell::new(choosers), Arc::default());
        Self { table, generation, readers: RefCell::new(readers), choosers, least_loaded }
    }

    /// An endpoint for a request, by its upstream's plan; not one of those that it was tried with. The exchange counts
    /// as begun. For upstreams without a queue.
    pub fn pick(&self, upstream: &Upstream, ask: &Ask<'_>, dice: &mut Dice) -> Option<Grant> {
        let mut readers = self.readers.borrow_mut();
        let snapshot = readers.get_mut(upstream.index)?.get();
        if upstream.plan.is_none() && ask.failed.is_empty() {
            let member = match snapshot.members.as_slice() {
                [only] => Some(only).filter(|only| !only.is_draining && only.admits()),
                _ => snapshot.pick(Policy::LeastLoaded, upstream.cluster.now(), dice),
            };
            return member.map(|member| Grant { exchange: member.endpoint.begin(), new_home: None });
        }
        let mut choosers = self.choosers.borrow_mut();
        let name = upstream.cluster.name();
        if !choosers.contains_key(name) {
            choosers.insert(name.to_owned(), Chooser::default());
        }
        let chooser = choosers.get_mut(name)?;
        let plan = upstream.plan.as_ref().unwrap_or(&self.least_loaded);
        chooser.choose(plan, snapshot, *ask, upstream.cluster.now(), dice).map(|choice| Grant::of(&choice))
    }
}

/// One thread's share of the proxy.
pub struct Worker {
    /// What all workers share.
    pub shared: Arc<Shared>,
    /// Connections to servers that carry many exchanges at once.
    pub(crate) http2: Rc<http2::Connections>,
    view: RefCell<Rc<View>>,
    idle: RefCell<Idle>,
    dice: RefCell<Dice>,
    fields: RefCell<Fields>,
    buffers: RefCell<Vec<BytesMut>>,
    sweeps: Cell<bool>,
}

impl Worker {
    /// A worker that has seen the table of this moment.
    pub fn new(shared: Arc<Shared>) -> Rc<Self> {
        let generation = shared.generation.load(Ordering::Acquire);
        let view = Rc::new(View::new(shared.table(), generation, None));
        Rc::new(Self {
            shared,
            http2: Rc::default(),
            view: RefCell::new(view),
            idle: RefCell::default(),
            dice: RefCell::new(fresh_dice()),
            fields: RefCell::default(),
            buffers: RefCell::default(),
            sweeps: Cell::new(false),
        })
    }

    /// The latest table.
    pub fn view(&self) -> Rc<View> {
        let latest = self.shared.generation.load(Ordering::Acquire);
        let mut view = self.view.borrow_mut();
        if view.generation != latest {
            *view = Rc::new(View::new(self.shared.table(), latest, Some(&view)));
        }
        Rc::clone(&view)
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

    /// An idle connection to an endpoint.
    pub fn take_idle(&self, endpoint: EndpointId, now: Instant, cx: &mut Context<'_>) -> Option<Stream> {
        self.idle.borrow_mut().take(endpoint, now, cx)
    }

    /// Keeps the connection of an exchange that is over.
    pub fn put_idle(self: &Rc<Self>, lease: Lease, now: Instant, table: &Table) {
        let endpoint = lease.exchange.endpoint().id;
        let (len_max, age_max) = (table.idle_per_endpoint, table.timeouts.server_keep_alive);
        self.idle.borrow_mut().put(endpoint, lease.stream, now, len_max, age_max);
        if !self.sweeps.replace(true) {
            tokio::task::spawn_local(sweep(Rc::clone(self)));
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

/// Closes idle connections when their time is over, for as long as there are any.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        let mut idle = worker.idle.borrow_mut();
        idle.expire(Instant::now());
        if idle.is_empty() {
            worker.sweeps.set(false);
            return;
        }
    }
}

impl LocalService for Worker {
    async fn serve(self: Rc<Self>, conn: Downstream) {
        driver::serve(self, conn).await;
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
