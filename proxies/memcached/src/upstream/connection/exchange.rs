//! An established connection at work: requests out, replies in, and an eye on the time.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use groove_common::discovery::Outcome;
use groove_common::net::Stream;
use tokio::time::Sleep;

use super::{Connection, IN_FLIGHT_MAX, OUT_LEN_MAX, Pipe, Recipient, Shape, Up, Waiting};
use crate::error::Failure;
use crate::session::mailbox::Mailbox;
use crate::wire::classic::items;
use crate::wire::meta::{self, Frame, Reply, Status};

/// Statistics of one server, about at most.
const STATS_LEN_MAX: usize = 4 << 20;

/// What is read with one call, at most. The connections of a worker to its servers are few: each has its buffer.
const READ_LEN_MAX: usize = 64 << 10;

/// Why an established connection is over.
pub(super) enum Ended {
    Retired,
    Failed(Failure),
}

/// An established connection at work.
pub(super) struct Exchange<'a> {
    connection: &'a Connection,
    up: Up,
    stream: Stream,
    input: BytesMut,
    decoder: meta::Decoder,
    items: items::Decoder,
    /// Lines of an answer that has more than one.
    lines: BytesMut,
    /// Sessions that were given answers in this turn.
    touched: Vec<Rc<Mailbox>>,
    alarm: Pin<Box<Sleep>>,
    /// The alarm is set, for this time.
    alarm_at: Option<Instant>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(connection: &'a Connection, up: Up, stream: Stream) -> Self {
        Self {
            connection,
            up,
            stream,
            input: BytesMut::with_capacity(READ_LEN_MAX),
            decoder: meta::Decoder::default(),
            items: items::Decoder::default(),
            lines: BytesMut::new(),
            touched: Vec::new(),
            alarm: Box::pin(tokio::time::sleep(Duration::ZERO)),
            alarm_at: None,
        }
    }

    pub(super) async fn run(mut self) -> Ended {
        poll_fn(|cx| self.turn(cx)).await
    }

    /// One turn: everything written that sessions have asked for, everything delivered that has come.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.connection.pipe.borrow_mut().begin_turn(cx.waker());
        if self.write(cx).is_err() {
            return Poll::Ready(Ended::Failed(Failure::Lost));
        }
        let mut now = None;
        loop {
            match self.stream.poll_fill(cx, &mut self.input) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ended::Failed(Failure::Lost)),
                Poll::Ready(Ok(_)) => {
                    let now = *now.get_or_insert_with(Instant::now);
                    let delivered = self.deliver(now);
                    // What came before a failure is written too.
                    self.touched.drain(..).for_each(Mailbox::flush);
                    if let Err(failure) = delivered {
                        return Poll::Ready(Ended::Failed(failure));
                    }
                }
            }
        }
        self.watch(cx)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut pipe = self.connection.pipe.borrow_mut();
        let was_full = pipe.out.len() >= OUT_LEN_MAX;
        let result = pipe.out.poll_write(&mut self.stream, cx);
        if was_full && pipe.out.len() < OUT_LEN_MAX {
            pipe.blocked.drain(..).for_each(Waker::wake);
        }
        match result {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Hands out the replies that are complete.
    fn deliver(&mut self, now: Instant) -> Result<(), Failure> {
        let connection = self.connection;
        let mut latest = None;
        loop {
            let mut pipe = connection.pipe.borrow_mut();
            if let Some(Waiting { recipient: Recipient::Part(part), .. }) = pipe.in_flight.front() {
                // Nobody else's value is read as this one's items.
                self.decoder.swallow(&mut self.input);
                let told = self.items.decode(&mut self.input, &part.keys, &connection.settings.limits);
                let Some(told) = told.map_err(|_| Failure::Nonsense)? else { break };
                let (waiting, latency) = self.take(&mut pipe, now);
                drop(pipe);
                latest = latency;
                if let Some(Recipient::Part(part)) = waiting.map(|waiting| waiting.recipient) {
                    part.deliver(Ok(told), &mut self.touched);
                }
                continue;
            }
            let frame = self.decoder.find(&mut self.input, &connection.settings.limits);
            let Some(frame) = frame.map_err(|_| Failure::Nonsense)? else { break };
            let Some(shape) = pipe.in_flight.front().map(|waiting| waiting.shape) else {
                return Err(Failure::Nonsense);
            };
            let lent = frame.of(&self.input);
            if let Shape::Item(fingerprint) = shape
                && !lent.is_of(fingerprint)
            {
                return Err(Failure::Nonsense);
            }
            if shape == Shape::UntilEnd && lent.status == Status::Stat {
                self.keep_line(frame);
                continue;
            }
            let (waiting, latency) = self.take(&mut pipe, now);
            drop(pipe);
            latest = latency;
            let Some(waiting) = waiting else { continue };
            let epoch = Some(self.up.identity.epoch);
            let may_lend = shape != Shape::UntilEnd && !frame.is_large();
            if let Some((mailbox, ticket)) = waiting.recipient.takes_lent().filter(|_| may_lend) {
                if mailbox.hear(ticket, &lent.of(epoch)) {
                    self.touched.push(Rc::clone(mailbox));
                }
                frame.skip(&mut self.input);
            } else {
                let reply = frame.take(&mut self.input);
                let reply = if shape == Shape::UntilEnd { self.gather(reply) } else { reply };
                waiting.recipient.deliver(Ok((reply.of(epoch), self.up.link)), &mut self.touched);
            }
        }
        if self.input.is_empty()
            && (!self.input.try_reclaim(READ_LEN_MAX) || self.input.capacity() > 2 * READ_LEN_MAX)
        {
            // A client has yet to take a value that is in it, or a large one has made it grow.
            self.input = BytesMut::with_capacity(READ_LEN_MAX);
        }
        if let Some(latency) = latest {
            connection.cluster.report(&connection.endpoint, Outcome::Success { latency });
        }
        Ok(())
    }

    /// The oldest request is answered. When it was sent counts.
    fn take(&self, pipe: &mut Pipe, now: Instant) -> (Option<Waiting>, Option<Duration>) {
        if pipe.in_flight.len() >= IN_FLIGHT_MAX {
            pipe.blocked.drain(..).for_each(Waker::wake);
        }
        let waiting = pipe.in_flight.pop_front();
        let latency = waiting.as_ref().map(|waiting| now.saturating_duration_since(waiting.sent));
        if let Some(latency) = latency {
            self.connection.metrics.latency.record(latency);
        }
        (waiting, latency)
    }

    /// Keeps a line of an answer that has more of them.
    fn keep_line(&mut self, frame: Frame) {
        // What is too much is left out: other clients' requests are on this connection too.
        if self.lines.len() <= STATS_LEN_MAX {
            self.lines.extend_from_slice(frame.of(&self.input).line());
            self.lines.extend_from_slice(b"\r\n");
        }
        frame.skip(&mut self.input);
    }

    /// Makes one reply of the lines that were kept, unless the last is an error.
    fn gather(&mut self, last: Reply) -> Reply {
        let text = std::mem::take(&mut self.lines).freeze();
        if last.status == Status::End { Reply::new(Status::End, Bytes::new(), text) } else { last }
    }

    /// Looks after the time of the oldest request. The alarm is set once and looked at when it rings:
    /// by then the oldest request is mostly another, and the alarm is set anew.
    fn watch(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let pipe = self.connection.pipe.borrow();
        let Some(oldest) = pipe.in_flight.front().map(|waiting| waiting.sent) else {
            return if pipe.is_retired { Poll::Ready(Ended::Retired) } else { Poll::Pending };
        };
        drop(pipe);
        let timeout = self.connection.settings.timeout;
        if self.alarm_at.is_none() {
            self.set_alarm(oldest + timeout);
        } else if !self.alarm.is_elapsed() {
            return Poll::Pending;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if oldest.elapsed() >= timeout {
                return Poll::Ready(Ended::Failed(Failure::TimedOut));
            }
            self.set_alarm(oldest + timeout);
        }
        Poll::Pending
    }

    fn set_alarm(&mut self, at: Instant) {
        self.alarm_at = Some(at);
        self.alarm.as_mut().reset(at.into());
    }
}
