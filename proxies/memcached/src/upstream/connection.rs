//! One pipelined connection to one server, shared by the sessions of a worker.
//!
//! Sessions append requests during their turns; the connection's own task then writes all of them with one
//! call, reads what has come, and hands each reply to the session whose request was the oldest. Nothing is
//! locked: everybody lives on the worker's thread.
//!
//! ```text
//!          the first request                mn ─► MN
//!   Idle ─────────────────────► Connecting ──────────► Up
//!                                 ▲    │ failed        ▲ │ broken, timed out, nonsense
//!                 a trial request │    ▼        mn─►MN │ ▼
//!                                 └────────── Resting ──┘
//!                                             (dials by itself, now and then)
//! ```
//!
//! While it rests requests fail at once, so that a dead server costs its clients no time.

mod exchange;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use groove_common::balance::Dice;
use groove_common::discovery::{Cluster, Endpoint, Outcome};
use groove_common::health::Backoff;
use groove_common::net::{Connector, Stream};
use tokio::time::timeout;
use tracing::{debug, info};

use crate::error::Failure;
use crate::metrics::UpstreamMetrics;
use crate::session::mailbox::Mailbox;
use crate::session::state::{Answer, Ticket};
use crate::wire::{Limits, Output};
use exchange::{Ended, Exchange};

/// Requests that may wait for their replies on one connection.
const IN_FLIGHT_MAX: usize = 4096;

/// Bytes that may wait to be written on one connection.
const OUT_LEN_MAX: usize = 4 << 20;

/// Between two attempts at a server that is away.
const REDIAL: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_secs(2) };

/// The first word on a connection, and its answer: the server is awake and speaks meta.
const GREETING: &[u8] = b"mn\r\n";
const GREETING_REPLY: &[u8] = b"MN\r\n";

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
    metrics: UpstreamMetrics,
    pipe: RefCell<Pipe>,
}

struct Pipe {
    link: Link,
    out: Output,
    in_flight: VecDeque<Waiting>,
    /// Wakes the connection's task.
    task: Option<Waker>,
    is_woken: bool,
    /// Sessions that found the connection full.
    blocked: Vec<Waker>,
    /// No session will use it again.
    is_retired: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Idle,
    Connecting,
    Up,
    Resting,
}

/// A request on its way.
struct Waiting {
    mailbox: Rc<Mailbox>,
    ticket: Ticket,
    sent: Instant,
    shape: Shape,
}

/// What belongs to one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One reply.
    One,
    /// Lines, up to `END` or anything that is no statistic.
    UntilEnd,
}

impl Connection {
    /// A connection that will be opened by its first request. Its task is spawned on this thread.
    pub fn spawn(
        cluster: Arc<Cluster>,
        endpoint: Arc<Endpoint>,
        settings: Arc<Settings>,
        metrics: UpstreamMetrics,
        dice: Dice,
    ) -> Rc<Self> {
        let pipe = Pipe {
            link: Link::Idle,
            out: Output::new(),
            in_flight: VecDeque::new(),
            task: None,
            is_woken: false,
            blocked: Vec::new(),
            is_retired: false,
        };
        let connection = Rc::new(Self { cluster, endpoint, settings, metrics, pipe: RefCell::new(pipe) });
        tokio::task::spawn_local(Rc::clone(&connection).run(dice));
        connection
    }

    /// Is there room for another request? If not, `waker` is woken when there is.
    pub fn is_ready(&self, waker: &Waker) -> bool {
        let mut pipe = self.pipe.borrow_mut();
        let is_ready = pipe.in_flight.len() < IN_FLIGHT_MAX && pipe.out.len() < OUT_LEN_MAX;
        if !is_ready && !pipe.blocked.iter().any(|blocked| blocked.will_wake(waker)) {
            pipe.blocked.push(waker.clone());
        }
        is_ready
    }

    /// Sends what `encode` writes, on behalf of a session. With `is_trial` even a resting connection tries.
    ///
    /// # Errors
    ///
    /// [`Failure::Down`] while the server is known to be away. Nothing is sent then.
    pub fn send(
        &self,
        mailbox: &Rc<Mailbox>,
        ticket: Ticket,
        shape: Shape,
        is_trial: bool,
        now: Instant,
        encode: impl FnOnce(&mut Output),
    ) -> Result<(), Failure> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.link == Link::Resting {
            if !is_trial {
                return Err(Failure::Down);
            }
            pipe.link = Link::Connecting;
        }
        encode(&mut pipe.out);
        pipe.in_flight.push_back(Waiting { mailbox: Rc::clone(mailbox), ticket, sent: now, shape });
        pipe.wake_task();
        Ok(())
    }

    /// No more requests will come: the connection ends when those in flight are answered.
    pub fn retire(&self) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.is_retired = true;
        pipe.wake_task();
    }

    async fn run(self: Rc<Self>, mut dice: Dice) {
        if !self.first_request().await {
            return;
        }
        let mut failures = 0;
        while !self.is_over() {
            let failure = match self.connect().await {
                Ok(stream) => {
                    debug!(server = %self.endpoint.address, "connected");
                    failures = 0;
                    self.pipe.borrow_mut().link = Link::Up;
                    self.metrics.connections.inc();
                    let ended = Exchange::new(&self, stream).run().await;
                    self.metrics.connections.dec();
                    match ended {
                        Ended::Retired => return,
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
            self.rest(REDIAL.delay(failures, dice.unit())).await;
            failures += 1;
        }
    }

    /// Waits for a reason to connect. False: there will be none.
    async fn first_request(&self) -> bool {
        poll_fn(|cx| {
            let mut pipe = self.pipe.borrow_mut();
            pipe.begin_turn(cx.waker());
            if !pipe.in_flight.is_empty() {
                pipe.link = Link::Connecting;
                return Poll::Ready(true);
            }
            if pipe.is_retired { Poll::Ready(false) } else { Poll::Pending }
        })
        .await
    }

    /// Does nobody want anything of it any more?
    fn is_over(&self) -> bool {
        let pipe = self.pipe.borrow();
        pipe.is_retired && pipe.in_flight.is_empty()
    }

    async fn connect(&self) -> io::Result<Stream> {
        let Settings { connect_timeout, tls, .. } = &*self.settings;
        let greeted = async {
            let address = &self.endpoint.address;
            let mut stream = groove_common::net::connect(address, tls.as_ref(), *connect_timeout).await?;
            greet(&mut stream).await?;
            Ok(stream)
        };
        timeout(*connect_timeout, greeted).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Everybody who waits is told, and so is the breaker.
    fn fail_all(&self, failure: Failure) {
        let mut pipe = self.pipe.borrow_mut();
        pipe.link = Link::Resting;
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
        for Waiting { mailbox, ticket, .. } in waiting {
            if mailbox.deliver(ticket, Answer::Failed(failure)) {
                touched.push(mailbox);
            }
        }
        touched.iter().for_each(|mailbox| mailbox.flush());
        blocked.into_iter().for_each(Waker::wake);
    }

    /// Lets the server be for a while, unless a trial comes. Afterwards it is dialled again unasked, so
    /// that no client has to find out that it is back; meanwhile requests go on failing at once.
    async fn rest(&self, time: Duration) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(time));
        poll_fn(|cx| {
            let mut pipe = self.pipe.borrow_mut();
            pipe.begin_turn(cx.waker());
            if pipe.is_retired || pipe.link == Link::Connecting || sleep.as_mut().poll(cx).is_ready() {
                pipe.link = Link::Connecting;
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Failures of one moment that the breaker hears of.
const REPORTS_MAX: usize = 16;

impl Pipe {
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

/// Sends the greeting and waits for the answer that only a memcached with the meta protocol gives.
pub(super) async fn greet(stream: &mut Stream) -> io::Result<()> {
    stream.send(&mut &*GREETING).await?;
    let mut answer = BytesMut::new();
    while answer.len() < GREETING_REPLY.len() {
        if stream.fill(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    match answer == GREETING_REPLY {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "not a memcached with the meta protocol")),
    }
}
