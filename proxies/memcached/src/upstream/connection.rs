//! One pipelined connection to one server, shared by the sessions of a worker.
//!
//! Sessions append requests during their turns; the connection's own task then writes all of them with one
//! call, reads what has come, and hands each reply to the session whose request was the oldest. Nothing is
//! locked: everybody lives on the worker's thread.
//!
//! ```text
//!          the first request              mn, stats ─► MN, …
//!   Idle ─────────────────────► Connecting ──────────────────► Up ─► Idle (hung up on while nobody waited)
//!                                 ▲    │ failed                ▲ │ broken, timed out, nonsense
//!                 a trial request │    ▼     mn, stats ─► MN, …│ ▼
//!                                 └────────── Resting ─────────┘
//!                                             (dials by itself, now and then)
//! ```
//!
//! While it rests requests fail at once, so that a dead server costs its clients no time.

mod ask;
mod exchange;
mod greeting;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use groove_common::balance::Dice;
use groove_common::discovery::{Cluster, Endpoint, Outcome};
use groove_common::health::Backoff;
use groove_common::net::{Connector, Stream};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::error::Failure;
use crate::metrics::{ServerMetrics, UpstreamMetrics};
use crate::program;
use crate::session::mailbox::Mailbox;
use crate::wire::meta::Request;
use crate::wire::{Limits, Output};
use exchange::{Ended, Exchange};

pub use ask::{Part, Question, Recipient};
pub use greeting::Identity;
pub(super) use greeting::greet;

/// Requests that may wait for their replies on one connection.
const IN_FLIGHT_MAX: usize = 4096;

/// Bytes that may wait to be written on one connection.
const OUT_LEN_MAX: usize = 4 << 20;

/// How long what a server usually takes is taken for granted.
const USUAL_FOR: Duration = Duration::from_secs(1);

/// From so many answers on something is usual.
const USUAL_COUNT_MIN: u64 = 100;

/// Between two attempts at a server that is away.
const REDIAL: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(2) };

/// What all connections of a cluster go by.
#[derive(Debug)]
pub struct Settings {
    /// For each request, from being sent to being answered.
    pub timeout: Duration,
    /// For a connection, TLS and greeting included.
    pub connect_timeout: Duration,
    /// TLS, if the servers want it.
    pub tls: Option<Connector>,
    /// What a server may make us hold.
    pub limits: Limits,
}

/// A connection, or the place of one.
pub struct Connection {
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    settings: Arc<Settings>,
    metrics: ServerMetrics,
    /// When it was looked at, for which percentile, and what came of it.
    usual: Cell<Option<(Instant, u8, Duration)>>,
    pipe: RefCell<Pipe>,
}

struct Pipe {
    stage: Stage,
    /// Who answers, while it is up.
    up: Option<Up>,
    out: Output,
    in_flight: VecDeque<Waiting>,
    /// Wakes the connection's task.
    task: Option<Waker>,
    is_woken: bool,
    /// Who found the connection full, or wants to know who answers.
    blocked: Vec<Waker>,
    /// Somebody wants it up, though there is no request yet.
    is_wanted: bool,
    /// No session will use it again.
    is_retired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Connecting,
    Up,
    Resting,
}

/// A TCP connection that is up.
#[derive(Debug, Clone, Copy)]
struct Up {
    link: program::Link,
    identity: Identity,
}

/// A request on its way.
struct Waiting {
    recipient: Recipient,
    sent: Instant,
    shape: Shape,
}

/// What belongs to one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One reply.
    One,
    /// One reply, and if it has a key then the one with this fingerprint: a server and a proxy that have lost count
    /// of each other's words must never give a client another's value.
    Item(u32),
    /// Lines, up to `END` or an error.
    UntilEnd,
}

impl Shape {
    /// Of the answer to a request for one key.
    pub fn of(request: &Request<'_>) -> Self {
        request.fingerprint().map_or(Self::One, Self::Item)
    }
}

impl Connection {
    /// A connection that will be opened by its first request. Its task is spawned on this thread.
    pub fn spawn(
        cluster: Arc<Cluster>,
        endpoint: Arc<Endpoint>,
        settings: Arc<Settings>,
        metrics: &UpstreamMetrics,
        dice: Dice,
    ) -> Rc<Self> {
        let pipe = Pipe {
            stage: Stage::Idle,
            up: None,
            out: Output::new(),
            in_flight: VecDeque::new(),
            task: None,
            is_woken: false,
            blocked: Vec::new(),
            is_wanted: false,
            is_retired: false,
        };
        let metrics = metrics.server(&endpoint.address);
        let connection = Rc::new(Self {
            cluster,
            endpoint,
            settings,
            metrics,
            usual: Cell::new(None),
            pipe: RefCell::new(pipe),
        });
        tokio::task::spawn_local(Rc::clone(&connection).run(dice));
        connection
    }

    /// Is there room for another request? If not, `waker` is woken when there is.
    pub fn is_ready(&self, waker: &Waker) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        let is_ready = pipe.in_flight.len() < IN_FLIGHT_MAX && pipe.out.len() < OUT_LEN_MAX;
        if !is_ready {
            pipe.block(waker);
        }
        is_ready
    }

    /// Sends what `encode` writes, on behalf of `recipient`. With `is_trial` even a resting connection tries.
    ///
    /// # Errors
    ///
    /// [`Failure::Down`] while the server is known to be away. Nothing is sent then.
    pub fn send(
        &self,
        recipient: Recipient,
        shape: Shape,
        is_trial: bool,
        now: Instant,
        encode: impl FnOnce(&mut Output),
    ) -> Result<(), Failure> {
        self.push(is_trial, |out| {
            encode(out);
            Waiting { recipient, sent: now, shape }
        })
    }

    /// What `encode` writes goes out, and what it tells waits for the answer.
    fn push(&self, is_trial: bool, encode: impl FnOnce(&mut Output) -> Waiting) -> Result<(), Failure> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.stage == Stage::Resting {
            if !is_trial {
                return Err(Failure::Down);
            }
            pipe.stage = Stage::Connecting;
        }
        let waiting = encode(&mut pipe.out);
        pipe.in_flight.push_back(waiting);
        pipe.wake_task();
        Ok(())
    }

    /// No more requests will come: the connection ends when those in flight are answered.
    pub fn retire(&self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.is_retired = true;
        pipe.wake_task();
    }

    /// Who answers on it. Pending: it is being dialled (this very call may have been the reason), and `waker`
    /// is woken. With `is_trial` even a resting connection tries.
    ///
    /// # Errors
    ///
    /// [`Failure::Down`] while the server is known to be away.
    pub fn poll_up(&self, is_trial: bool, waker: &Waker) -> Poll<Result<(program::Link, Identity), Failure>> {
        let stage = self.pipe.borrow().stage;
        if stage == Stage::Resting {
            if !is_trial {
                return Poll::Ready(Err(Failure::Down));
            }
            // What comes of it is the trial's outcome; nobody listens to the answer.
            _ = self.question(is_trial);
        }
        let mut pipe = self.pipe.borrow_mut();
        if let Some(up) = pipe.up {
            return Poll::Ready(Ok((up.link, up.identity)));
        }
        pipe.is_wanted = true;
        pipe.block(waker);
        pipe.wake_task();
        Poll::Pending
    }

    /// The TCP connection that is up, if one is.
    pub fn link(&self) -> Option<program::Link> {
        self.pipe.borrow().up.map(|up| up.link)
    }

    /// In what time its server gives so many of a hundred answers, as of the last second or so. `None`: too few
    /// have been counted.
    pub fn usual_time(&self, percentile: u8, now: Instant) -> Option<Duration> {
        if let Some((at, of, known)) = self.usual.get()
            && of == percentile
            && now.saturating_duration_since(at) < USUAL_FOR
        {
            return Some(known);
        }
        let answers = self.metrics.latency.snapshot();
        if answers.count() < USUAL_COUNT_MIN {
            return None;
        }
        let known = answers.quantile(f64::from(percentile) / 100.0);
        self.usual.set(Some((now, percentile, known)));
        Some(known)
    }

    /// The server.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Has it been given up?
    pub fn is_retired(&self) -> bool {
        self.pipe.borrow().is_retired
    }

    /// A question whose answer comes after those of all requests that have been sent. `None`: nobody waits.
    pub fn fence(&self) -> Option<Rc<Question>> {
        if self.pipe.borrow().in_flight.is_empty() {
            return None;
        }
        self.question(false).ok()
    }

    /// Asks nothing in particular.
    fn question(&self, is_trial: bool) -> Result<Rc<Question>, Failure> {
        self.ask(is_trial, |out| out.extend_from_slice(greeting::GREETING))
    }

    async fn run(self: Rc<Self>, mut dice: Dice) {
        let mut failures = 0;
        while self.wanted(failures, dice.unit()).await {
            let failure = match self.connect().await {
                Ok((stream, identity)) => {
                    debug!(server = %self.endpoint.address, "connected");
                    failures = 0;
                    let up = Up { link: program::Link(dice.bits()), identity };
                    self.go_up(up);
                    self.metrics.connections.inc();
                    let ended = Exchange::new(&self, up, stream).run().await;
                    self.metrics.connections.dec();
                    match ended {
                        Ended::Retired => return,
                        Ended::Failed(Failure::Lost) if self.go_idle() => continue,
                        Ended::Failed(failure) => failure,
                    }
                }
                Err(error) => {
                    self.metrics.connect_failures.inc();
                    debug!(server = %self.endpoint.address, %error, "cannot connect");
                    Failure::Down
                }
            };
            self.fail_all(failure);
            failures += 1;
        }
    }

    /// Waits for a reason to connect: the first request, or after failures a while. False: there will be none.
    async fn wanted(&self, failures: u32, dice: f64) -> bool {
        match failures.checked_sub(1) {
            None => self.first_request().await,
            Some(attempt) => {
                self.rest(REDIAL.delay(attempt, dice)).await;
                !self.is_over()
            }
        }
    }

    async fn first_request(&self) -> bool {
        poll_fn(|cx| {
            let mut pipe = self.pipe.borrow_mut();
            pipe.begin_turn(cx.waker());
            if pipe.is_wanted || !pipe.in_flight.is_empty() {
                pipe.stage = Stage::Connecting;
                return Poll::Ready(true);
            }
            if pipe.is_retired { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    fn go_up(&self, up: Up) {
        let mut pipe = self.pipe.borrow_mut();
        (pipe.stage, pipe.up, pipe.is_wanted) = (Stage::Up, Some(up), false);
        pipe.blocked.drain(..).for_each(Waker::wake);
    }

    /// The server hung up. If nobody waits for anything that is no failure: servers close what is idle.
    fn go_idle(&self) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        let is_idle = pipe.in_flight.is_empty();
        if is_idle {
            (pipe.stage, pipe.up) = (Stage::Idle, None);
        }
        is_idle
    }

    /// Does nobody want anything of it any more?
    fn is_over(&self) -> bool {
        let pipe = self.pipe.borrow();
        pipe.is_retired && pipe.in_flight.is_empty()
    }

    async fn connect(&self) -> io::Result<(Stream, Identity)> {
        let Settings { connect_timeout, tls, .. } = &*self.settings;
        let greeted = async {
            let address = &self.endpoint.address;
            let mut stream = groove_common::net::connect(address, tls.as_ref(), *connect_timeout).await?;
            let identity = greeting::introduce(&mut stream, address).await?;
            Ok((stream, identity))
        };
        timeout(*connect_timeout, greeted).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Everybody who waits is told, and so is the breaker.
    fn fail_all(&self, failure: Failure) {
        let mut pipe = self.pipe.borrow_mut();
        (pipe.stage, pipe.up, pipe.is_wanted) = (Stage::Resting, None, false);
        pipe.out.clear();
        let waiting = std::mem::take(&mut pipe.in_flight);
        let blocked = std::mem::take(&mut pipe.blocked);
        drop(pipe);
        // A server that stops answering fails many requests at once, and each of them counts.
        let reports = if failure == Failure::TimedOut { waiting.len().max(1) } else { 1 };
        for _ in 0..reports.min(REPORTS_MAX) {
            self.cluster.report(&self.endpoint, Outcome::Failure);
        }
        if !waiting.is_empty() {
            info!(server = %self.endpoint.address, requests = waiting.len(), %failure, "requests failed");
        }
        let mut touched = Vec::new();
        for Waiting { recipient, .. } in waiting {
            recipient.deliver(Err(failure), &mut touched);
        }
        touched.into_iter().for_each(Mailbox::flush);
        blocked.into_iter().for_each(Waker::wake);
    }

    /// Lets the server be for a while, unless a trial comes. Afterwards it is dialled again unasked, so
    /// that no client has to find out that it is back; until it is, requests go on failing at once.
    async fn rest(&self, time: Duration) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(time));
        poll_fn(|cx| {
            let mut pipe = self.pipe.borrow_mut();
            pipe.begin_turn(cx.waker());
            if pipe.is_retired || pipe.stage == Stage::Connecting {
                Poll::Ready(())
            } else {
                sleep.as_mut().poll(cx)
            }
        })
        .await;
    }
}

/// Failures of one moment that the breaker hears of.
const REPORTS_MAX: usize = 16;

impl Pipe {
    fn block(&mut self, waker: &Waker) {
        if !self.blocked.iter().any(|blocked| blocked.will_wake(waker)) {
            self.blocked.push(waker.clone());
        }
    }

    fn wake_task(&mut self) {
        if !self.is_woken
            && let Some(task) = &self.task
        {
            self.is_woken = true;
            task.wake_by_ref();
        }
    }

    fn begin_turn(&mut self, waker: &Waker) {
        self.is_woken = false;
        match &mut self.task {
            Some(known) if known.will_wake(waker) => (),
            known => *known = Some(waker.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
