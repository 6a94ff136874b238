//! The threads that serve connections, and which of them gets the next.
//!
//! ```text
//!                        ┌─► worker 0: acceptor, sessions, service  (PerCore: one thread each,
//!             least ─────┼─► worker 1: runtime, sessions, service    nothing shared)
//!             loaded     └─► worker 2: ...
//!
//!                        ┌─► worker 0: runtime, sessions ─┐
//!  acceptor ─ least ─────┤                    ▲ │         ├─ one service   (Shared: sessions are
//!             loaded of  │                    │ ▼         │                 kept together)
//!             the awake  └─► worker 1: runtime, sessions ─┘
//! ```
//!
//! Where workers share nothing, a listener is accepted for on one of them: a connection that stays there needs no other
//! thread to be woken.
//!
//! SO_REUSEPORT would save the hand-off, but the kernel spreads by a hash of the addresses: with few
//! connections some workers idle while others queue.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::runtime::{Builder, Handle, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tracing::error;

use super::downstream::{Handed, Open};
use super::gather::{self, Founding, Gathering};
use super::listener::Acceptor;
use super::service::{Flavour, LocalSink, Service, WorkerId};
use crate::telemetry;

/// Where accepted connections go.
pub(super) struct Workers {
    workers: Vec<Worker>,
    /// Where the search for the least loaded begins, so that ties go round.
    turn: AtomicUsize,
    /// Who of them has sessions, if those are kept together.
    pub(super) gathering: Option<Arc<Gathering>>,
}

/// What a worker's thread is asked to do.
enum Errand {
    Serve(Handed),
    Accept(Acceptor),
}

/// The worker whose thread this is.
pub(super) struct Here {
    index: usize,
    sink: Rc<LocalSink>,
}

struct Worker {
    open: Arc<Open>,
    /// Bounded by the process's descriptors, of which each connection holds one (a listener's cap is below that), and a
    /// worker empties it every turn.
    queue: UnboundedSender<Errand>,
    runtime: Handle,
    /// Its death has been logged.
    is_mourned: AtomicBool,
}

impl Workers {
    /// Starts `count` threads: for a service of its own each, or for one that they share. `runtime` is where their
    /// loads are looked at, and where a shared service runs that has no threads.
    pub(super) fn start(service: &Service, count: usize, runtime: &Handle) -> io::Result<Self> {
        if let (Flavour::Shared(service), 0) = (&service.flavour, count) {
            return Ok(Self::within(runtime, Arc::clone(service)));
        }
        let workers = Self::unwatched(service, count)?;
        if let Some(gathering) = &workers.gathering {
            runtime.spawn(gather::watch(Arc::downgrade(gathering)));
        }
        Ok(workers)
    }

    /// The same, with nobody who looks at their loads: all sessions are on the first.
    pub(super) fn unwatched(service: &Service, count: usize) -> io::Result<Self> {
        let count = count.max(1);
        let (workers, gathering) = match &service.flavour {
            Flavour::PerCore(make) => {
                let start = |index| Ok(Worker::start(WorkerId(index), Arc::clone(make))?.0);
                ((0..count).map(start).collect::<io::Result<_>>()?, None)
            }
            Flavour::Shared(service) => {
                let (workers, gathering) = start_shared(service, count)?;
                (workers, Some(gathering))
            }
        };
        Ok(Self { workers, turn: AtomicUsize::new(0), gathering })
    }

    /// One worker, which is a task of `runtime`.
    fn within(runtime: &Handle, service: Arc<dyn Fn(Handed) + Send + Sync>) -> Self {
        let (queue, mut handed) = unbounded_channel();
        runtime.spawn(async move {
            while let Some(errand) = handed.recv().await {
                match errand {
                    Errand::Serve(handed) => service(handed),
                    Errand::Accept(acceptor) => drop(tokio::spawn(acceptor.run(()))),
                }
            }
        });
        let worker = Worker {
            open: Arc::default(),
            queue,
            runtime: runtime.clone(),
            is_mourned: AtomicBool::new(false),
        };
        Self { workers: vec![worker], turn: AtomicUsize::new(0), gathering: None }
    }

    /// Has a listener accepted for: on one of the workers if they share nothing, or else on `runtime`.
    pub(super) fn accept(&self, acceptor: Acceptor, runtime: &Handle) {
        let hosts = if self.gathering.is_none() { &self.workers[..] } else { &[] };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(host) = hosts.get(turn % hosts.len().max(1)) else {
            drop(runtime.spawn(acceptor.run(())));
            return;
        };
        // One that is not taken is dropped, and sees to itself.
        drop(host.queue.send(Errand::Accept(acceptor)));
    }

    /// Gives the connection to the worker with the fewest; if that is the one which accepts, without a detour. `handed`
    /// gets that worker's count for its permit.
    pub(super) fn hand(&self, here: Option<&Here>, handed: impl FnOnce(&Arc<Open>) -> Handed) {
        let Some((index, worker)) = self.least_loaded(here.map(|here| here.index)) else { return };
        let handed = handed(&worker.open);
        match here.filter(|here| here.index == index) {
            Some(here) => (here.sink)(handed),
            // A thread that dies in this very moment takes no more: the connection closes with it.
            None => drop(worker.queue.send(Errand::Serve(handed))),
        }
    }

    /// The one with the fewest connections among the awake, if one of them lives: a dead one has none at all. Of several
    /// `first`, or else each in turn.
    fn least_loaded(&self, first: Option<usize>) -> Option<(usize, &Worker)> {
        let awake = self.gathering.as_ref().and_then(|gathering| self.workers.get(..gathering.awake()));
        let among = |workers| self.least_loaded_of(workers, first);
        awake.and_then(among).or_else(|| among(&self.workers))
    }

    fn least_loaded_of<'a>(
        &self,
        workers: &'a [Worker],
        first: Option<usize>,
    ) -> Option<(usize, &'a Worker)> {
        let start = first.unwrap_or_else(|| self.turn.fetch_add(1, Ordering::Relaxed));
        let indexed = workers.iter().enumerate();
        let (after, before) = (indexed.clone().skip(start % workers.len().max(1)), indexed);
        after.chain(before).filter(|(_, worker)| worker.lives()).min_by_key(|(_, worker)| worker.open.count())
    }

    /// Where a connection goes that comes from another process, and its count: only a shared service takes any.
    pub(super) fn for_resumed(&self) -> Option<(&Handle, Arc<Open>)> {
        self.gathering.as_ref()?;
        self.least_loaded(None).map(|(_, worker)| (&worker.runtime, Arc::clone(&worker.open)))
    }

    /// Open connections of each worker.
    pub(super) fn open(&self) -> Vec<usize> {
        self.workers.iter().map(|worker| worker.open.count()).collect()
    }
}

/// The workers of one service, and what keeps their sessions together.
fn start_shared(
    service: &Arc<dyn Fn(Handed) + Send + Sync>,
    count: usize,
) -> io::Result<(Vec<Worker>, Arc<Gathering>)> {
    let mut workers = Vec::new();
    let mut founding = Vec::new();
    for index in 0..count {
        let service = Arc::clone(service);
        let make = move |_| {
            let service = Arc::clone(&service);
            let sink: LocalSink = Box::new(move |handed| service(handed));
            sink
        };
        let (worker, thread) = Worker::start(WorkerId(index), Arc::new(make))?;
        founding.push(Founding { runtime: worker.runtime.clone(), thread, open: Arc::clone(&worker.open) });
        workers.push(worker);
    }
    let gathering = Arc::new(Gathering::new(founding));
    for (index, worker) in workers.iter().enumerate() {
        let gathering = Arc::clone(&gathering);
        worker.runtime.spawn(async move { gather::settle_here(WorkerId(index), gathering) });
    }
    Ok((workers, gathering))
}

impl Worker {
    /// A worker and its thread's id. Runtime and service are made on their own thread; whether that went well is the
    /// caller's to report.
    fn start(
        id: WorkerId,
        make: Arc<dyn Fn(WorkerId) -> LocalSink + Send + Sync>,
    ) -> io::Result<(Self, rustix::thread::Pid)> {
        let (queue, handed) = unbounded_channel();
        let (ready, started) = mpsc::channel();
        thread::Builder::new().name(format!("worker-{}", id.0)).spawn(move || {
            telemetry::become_worker(id.0);
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Ok(runtime) => {
                    let (handle, thread) = (runtime.handle().clone(), rustix::thread::gettid());
                    runtime.block_on(async {
                        // The service is made where it lives.
                        let sink = make(id);
                        drop(ready.send(Ok((handle, thread))));
                        take(handed, Here { index: id.0, sink: Rc::new(sink) }).await;
                    });
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        let (runtime, thread) = started.recv().map_err(io::Error::other)??;
        Ok((Self { open: Arc::default(), queue, runtime, is_mourned: AtomicBool::new(false) }, thread))
    }

    /// Whether its thread takes connections. That it does not is said once.
    fn lives(&self) -> bool {
        let lives = !self.queue.is_closed();
        if !lives && !self.is_mourned.swap(true, Ordering::Relaxed) {
            error!("a worker thread has died; the others take its share until a restart");
        }
        lives
    }
}

/// A worker's life: every connection becomes a task of this thread.
async fn take(mut queue: UnboundedReceiver<Errand>, here: Here) {
    let here = Rc::new(here);
    while let Some(errand) = queue.recv().await {
        match errand {
            Errand::Serve(handed) => (here.sink)(handed),
            Errand::Accept(acceptor) => drop(spawn_local(acceptor.run(Rc::clone(&here)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_worker_is_passed_over() -> io::Result<()> {
        let make = || Worker::start(WorkerId(0), Arc::new(|_| Box::new(drop::<Handed>)));
        let mut workers = (0..3).map(|_| Ok(make()?.0)).collect::<io::Result<Vec<_>>>()?;
        let kill = |workers: &mut Vec<Worker>, index: usize| {
            if let Some(worker) = workers.get_mut(index) {
                worker.queue = unbounded_channel().0;
            }
        };
        let chosen = |workers: Vec<Worker>| {
            let workers = Workers { workers, turn: AtomicUsize::new(0), gathering: None };
            let chosen = [(); 3].map(|()| workers.least_loaded(None).map(|(index, _)| index));
            (workers.workers, chosen)
        };
        kill(&mut workers, 1);
        let (mut workers, among_two) = chosen(workers);
        assert_eq!(among_two, [Some(0), Some(2), Some(2)]);
        (0..3).for_each(|index| kill(&mut workers, index));
        assert_eq!(chosen(workers).1, [None; 3]);
        Ok(())
    }
}
