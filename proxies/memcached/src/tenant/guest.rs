//! What a session does with its tenant: its keys are renamed, its requests admitted, its answers counted.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use super::directory::{Directory, Member};
use super::fair::{Ask, Fair};
use super::key::{Back, Head, Room};
use crate::error::Failure;
use crate::session::state::{Answer, Finished};
use crate::wire::Limits;
use crate::wire::meta::{Op, Request};

/// Whether a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// It may.
    Go,
    /// Not yet: the session is woken.
    Wait,
    /// It may not at all.
    Refused(Failure),
}

/// Answers that have come.
#[derive(Debug, Clone, Copy, Default)]
struct Due {
    /// What they were sent as.
    requests: usize,
    /// Bytes of value in all of them.
    len: usize,
}

/// A session's tenant.
#[derive(Debug)]
pub struct Guest {
    member: RefCell<Member>,
    /// The session's number on its worker.
    session: usize,
    /// Of how many workers this is one.
    workers: usize,
    /// The directory that `member` was last found in.
    seen: RefCell<Option<Arc<Directory>>>,
    /// The request at hand has its tokens, which are there from this time on.
    paid: Cell<Option<Duration>>,
    alarm: RefCell<Option<Pin<Box<Sleep>>>>,
    /// It may be in line for its part of the window.
    is_in_line: Cell<bool>,
    /// What is answered and not settled.
    due: Cell<Due>,
    /// Nothing is sent before the `flush_all` that runs has been answered.
    is_flushing: Cell<bool>,
}

impl Guest {
    /// A session that is this member's.
    pub fn new(member: Member, session: usize, workers: usize) -> Self {
        Self {
            member: RefCell::new(member),
            session,
            workers,
            seen: RefCell::default(),
            paid: Cell::new(None),
            alarm: RefCell::default(),
            is_in_line: Cell::new(false),
            due: Cell::default(),
            is_flushing: Cell::new(false),
        }
    }

    /// The session's number on its worker.
    pub fn session(&self) -> usize {
        self.session
    }

    /// Takes a new configuration on. False: this session is nobody's any more.
    pub fn renew(&self, directory: &Arc<Directory>) -> bool {
        let mut seen = self.seen.borrow_mut();
        if seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, directory)) {
            return true;
        }
        let mut member = self.member.borrow_mut();
        let Some(tenant) = directory.renew(&member) else { return false };
        member.tenant = Arc::clone(tenant);
        *seen = Some(Arc::clone(directory));
        true
    }

    /// Its tenant's name.
    pub fn name(&self) -> String {
        self.member.borrow().tenant.name().to_owned()
    }

    /// What its tenant's keys begin with, without the generation.
    pub fn prefix(&self) -> String {
        self.member.borrow().tenant.prefix().to_owned()
    }

    /// The codecs' limits for this session.
    pub fn limits(&self, limits: Limits) -> Limits {
        let item_len_max = self.member.borrow().tenant.limits().item.map_or(usize::MAX, |item| item.bytes());
        Limits { value_len_max: limits.value_len_max.min(item_len_max), ..limits }
    }

    /// Is a `flush_all` of this session running?
    pub fn is_flushing(&self) -> bool {
        self.is_flushing.get()
    }

    /// A `flush_all` of this session begins or has ended.
    pub fn set_flushing(&self, is_flushing: bool) {
        self.is_flushing.set(is_flushing);
    }

    /// May this request go now? `now` is told twice: for the clock that sleeps, and since the worker's origin.
    pub fn admit(
        &self,
        request: &Request<'_>,
        fair: &RefCell<Fair<Waker>>,
        now: (Instant, Duration),
        cx: &mut Context<'_>,
    ) -> Admit {
        let member = self.member.borrow();
        let (tenant, (instant, at)) = (&member.tenant, now);
        if !tenant.rates.is_unbounded() {
            match self.pay(&member, request, at) {
                Ok(due) if due > at && self.sleeps(instant + (due - at), cx) => return Admit::Wait,
                Ok(_) => (),
                Err(failure) => return Admit::Refused(failure),
            }
        }
        drop(member);
        if self.may_send(1, fair, at, cx) { Admit::Go } else { Admit::Wait }
    }

    /// Has its tenant room for what counts as so many requests of this session? If not, the session is in line, and
    /// woken when it may.
    pub fn may_send(
        &self,
        requests: usize,
        fair: &RefCell<Fair<Waker>>,
        at: Duration,
        cx: &mut Context<'_>,
    ) -> bool {
        let member = self.member.borrow();
        let share =
            |in_flight: u32| usize::try_from(in_flight).unwrap_or(usize::MAX).div_ceil(self.workers.max(1));
        let in_flight_max = member.tenant.limits().in_flight.map_or(usize::MAX, share);
        let tenant = member.tenant.number();
        let ask = Ask { tenant, session: self.session, in_flight_max, requests, now: at };
        let may_send = fair.borrow_mut().may_send(ask, || cx.waker().clone());
        self.is_in_line.set(self.is_in_line.get() || !may_send);
        may_send
    }

    /// Is each of its requests to be looked at for itself? They cost tokens, which may not be there.
    pub fn pays(&self) -> bool {
        !self.member.borrow().tenant.rates.is_unbounded()
    }

    /// Takes the tokens of the request at hand, once, and tells from when on they are there.
    fn pay(&self, member: &Member, request: &Request<'_>, at: Duration) -> Result<Duration, Failure> {
        if let Some(due) = self.paid.get() {
            return Ok(due);
        }
        let bytes_len = request.key.len() + value_len(request);
        let wait = member.tenant.rates.admit(at, bytes_len).map_err(|refused| {
            member.tenant.counters().count_refused(refused.bound);
            Failure::OverLimit(refused)
        })?;
        self.paid.set(Some(at + wait));
        Ok(at + wait)
    }

    /// Is it still to come?
    fn sleeps(&self, due: Instant, cx: &mut Context<'_>) -> bool {
        let mut alarm = self.alarm.borrow_mut();
        let sleep = alarm.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        let is_pending = sleep.as_mut().poll(cx).is_pending();
        if !is_pending {
            *alarm = None;
        }
        is_pending
    }

    /// The request as servers know it, its key in `room`.
    ///
    /// # Errors
    ///
    /// While the tenant's generation is not known.
    pub fn rename<'a>(&self, request: &Request<'a>, room: &'a mut Room) -> Result<Request<'a>, Failure> {
        let member = self.member.borrow();
        let head = member.tenant.head();
        let head = head.as_ref().ok_or(Failure::NotReady)?;
        let mapped = head.map(request.key, room);
        let is_coded = request.is_coded && mapped.back != Back::Keep;
        Ok(Request { key: mapped.key, is_coded, op: request.op })
    }

    /// What its keys begin with. `None` while the tenant's generation is not known.
    pub fn head(&self) -> Option<Arc<Head>> {
        self.member.borrow().tenant.head().clone()
    }

    /// What counts as so many requests has been sent: the answer will come to [`Self::heard`].
    pub fn sent(&self, requests: usize, value_len: usize, fair: &RefCell<Fair<Waker>>) {
        self.paid.set(None);
        let number = self.member.borrow().tenant.number();
        fair.borrow_mut().sent(number, self.session, requests, value_len);
    }

    /// The request at hand needs nothing more.
    pub fn done(&self) {
        self.paid.set(None);
    }

    /// The request at hand was answered on the spot.
    pub fn done_with(&self, answer: &Answer, at: Duration) {
        self.done();
        self.member.borrow().tenant.rates.charge(at, answer.value_len());
    }

    /// The session sends nothing more in this turn, or ever.
    pub fn leave(&self, fair: &RefCell<Fair<Waker>>) {
        if self.is_in_line.replace(false) {
            let number = self.member.borrow().tenant.number();
            fair.borrow_mut().leave(number, self.session, Waker::wake);
        }
    }

    /// An answer, with so many bytes of value in all, to what was sent as so many requests. They count as on their way
    /// until [`Self::settle`].
    pub fn heard(&self, requests: usize, len: usize) {
        let due = self.due.get();
        self.due.set(Due { requests: due.requests + requests, len: due.len + len });
    }

    /// What was answered is about to be written. `at` tells the time since the worker's origin.
    pub fn settle(&self, fair: &RefCell<Fair<Waker>>, at: impl FnOnce() -> Duration) {
        let Due { requests, len } = self.due.take();
        if requests == 0 {
            return;
        }
        let member = self.member.borrow();
        fair.borrow_mut().answered(member.tenant.number(), requests, len / requests, Waker::wake);
        if member.tenant.rates.counts_bytes() {
            member.tenant.rates.charge(at(), len);
        }
    }

    /// Is its tenant held back for the sake of one that wants less than its part?
    pub fn is_over(&self, fair: &RefCell<Fair<Waker>>) -> bool {
        fair.borrow().is_over(self.member.borrow().tenant.number())
    }

    /// Counts an exchange.
    pub fn count(&self, finished: &Finished, took: Duration) {
        self.member.borrow().tenant.counters().count(finished, took);
    }

    /// Counts bytes from the client.
    pub fn count_read(&self, len: usize) {
        self.member.borrow().tenant.counters().read.add(len as u64);
    }

    /// Counts bytes to the client.
    pub fn count_written(&self, len: usize) {
        self.member.borrow().tenant.counters().written.add(len as u64);
    }

    /// The tenant's own statistics.
    pub fn stats(&self, uptime: Duration, time: Duration) -> bytes::Bytes {
        self.member.borrow().tenant.counters().stats(uptime, time)
    }
}

/// How many bytes of value a request carries.
pub fn value_len(request: &Request<'_>) -> usize {
    match &request.op {
        Op::Store(store) => store.value.len(),
        Op::Get(_) | Op::Delete(_) | Op::Arith(_) | Op::Debug => 0,
    }
}
