//! Who hears what: a pool's sessions and their channels, and what the connection that hears for them has yet to be told.
//! No IO: statements come out, notifications go in.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::mailbox::{Ended, Mailbox};

/// A channel's name, in the server's bytes.
pub type Channel = Arc<[u8]>;
/// A session's number; no other's for as long as the board lives.
pub type SeatId = u64;

/// A pool's sessions and their channels.
#[derive(Debug, Default)]
pub struct Board {
    seats: HashMap<SeatId, Seat>,
    lines: HashMap<Channel, Line>,
    /// Those who wait for a mark, by it.
    marks: HashMap<u64, (SeatId, Vec<Channel>)>,
    /// Channels of which the connection may believe what is no longer so.
    stale: VecDeque<Channel>,
    last: u64,
}

#[derive(Debug)]
struct Seat {
    mailbox: Arc<Mailbox>,
    channels: BTreeSet<Channel>,
}

/// One channel.
#[derive(Debug, Default)]
struct Line {
    seats: Vec<Place>,
    /// The connection listens, or has been told to.
    is_there: bool,
}

#[derive(Debug)]
struct Place {
    seat: SeatId,
    /// It hears elsewhere what comes before its mark.
    is_deaf: bool,
}

impl Board {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A place for a session, without channels yet.
    pub fn sit(&mut self, mailbox: Arc<Mailbox>) -> SeatId {
        let seat = self.number();
        self.seats.insert(seat, Seat { mailbox, channels: BTreeSet::new() });
        seat
    }

    /// Adds a session to channels that it is not at yet. It hears nothing there before the mark that is given here; `None`
    /// if it has no place any more.
    pub fn join(&mut self, seat: SeatId, channels: &[Channel]) -> Option<u64> {
        let mark = self.number();
        let at = self.seats.get_mut(&seat)?;
        let mut joined = Vec::new();
        for channel in channels.iter().map(Arc::clone) {
            if !at.channels.insert(Arc::clone(&channel)) {
                continue;
            }
            let line = self.lines.entry(Arc::clone(&channel)).or_default();
            line.seats.push(Place { seat, is_deaf: true });
            if !line.is_there {
                self.stale.push_back(Arc::clone(&channel));
            }
            joined.push(channel);
        }
        self.marks.insert(mark, (seat, joined));
        self.check_invariants(seat);
        Some(mark)
    }

    /// The connection has come to a mark in what it hears: false if it is nobody's.
    pub fn marked(&mut self, mark: u64) -> bool {
        let Some((seat, channels)) = self.marks.remove(&mark) else { return false };
        for channel in channels {
            let line = self.lines.get_mut(&channel);
            let place = line.and_then(|line| line.seats.iter_mut().find(|place| place.seat == seat));
            place.into_iter().for_each(|place| place.is_deaf = false);
        }
        true
    }

    /// Takes a session away from channels.
    pub fn leave(&mut self, seat: SeatId, channels: &[Channel]) {
        for channel in channels {
            if self.seats.get_mut(&seat).is_some_and(|at| at.channels.remove(channel)) {
                self.remove(seat, channel);
            }
        }
        self.check_invariants(seat);
    }

    /// Takes a session away.
    pub fn part(&mut self, seat: SeatId) {
        let Some(Seat { channels, .. }) = self.seats.remove(&seat) else { return };
        self.marks.retain(|_, (waiting, _)| *waiting != seat);
        for channel in &channels {
            self.remove(seat, channel);
        }
        self.check_invariants(seat);
    }

    fn remove(&mut self, seat: SeatId, channel: &Channel) {
        let Some(line) = self.lines.get_mut(channel) else { return };
        line.seats.retain(|place| place.seat != seat);
        if line.seats.is_empty() {
            self.stale.push_back(Arc::clone(channel));
        }
    }

    /// Whether a session has a place.
    pub fn has(&self, seat: SeatId) -> bool {
        self.seats.contains_key(&seat)
    }

    /// Whether nobody has a place.
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Channels that somebody is at.
    pub fn channels(&self) -> usize {
        self.lines.values().filter(|line| !line.seats.is_empty()).count()
    }

    /// What to tell the connection, in one text, which it has to carry out before it is told more. Empty if there is nothing.
    pub fn take_orders(&mut self) -> BytesMut {
        let mut text = BytesMut::new();
        while let Some(channel) = self.stale.pop_front() {
            let Some(line) = self.lines.get_mut(&channel) else { continue };
            match (line.seats.is_empty(), line.is_there) {
                (false, false) => {
                    line.is_there = true;
                    put_order(&mut text, "LISTEN", &channel);
                }
                (true, is_there) => {
                    self.lines.remove(&channel);
                    if is_there {
                        put_order(&mut text, "UNLISTEN", &channel);
                    }
                }
                (false, true) => {}
            }
        }
        text
    }

    /// Hands a notification out; how many got it.
    pub fn dispatch(&self, channel: &[u8], frame: &[u8]) -> usize {
        let Some(line) = self.lines.get(channel) else { return 0 };
        let hearing = line.seats.iter().filter(|place| !place.is_deaf);
        let mailboxes = hearing.filter_map(|place| self.seats.get(&place.seat)).map(|seat| &seat.mailbox);
        mailboxes.filter(|mailbox| mailbox.push(frame)).count()
    }

    /// The connection is gone, and with it everybody's place.
    pub fn end(&mut self, why: Ended) {
        self.seats.drain().for_each(|(_, seat)| seat.mailbox.end(why));
        // Numbers go on: a session of before may still give its place up.
        *self = Board { last: self.last, ..Board::default() };
    }

    /// Holds after each entry, or the board is wrong.
    fn check_invariants(&self, seat: SeatId) {
        let channels = self.seats.get(&seat).map(|at| &at.channels);
        let places = |channel| {
            let line: Option<&Line> = self.lines.get(channel);
            line.map_or(0, |line| line.seats.iter().filter(|place| place.seat == seat).count())
        };
        debug_assert!(
            channels.into_iter().flatten().all(|channel| places(channel) == 1),
            "one place on each channel"
        );
    }
}

/// Writes a command about a channel.
fn put_order(out: &mut BytesMut, command: &str, channel: &[u8]) {
    out.put_slice(command.as_bytes());
    out.put_slice(b" \"");
    for byte in channel {
        if *byte == b'"' {
            out.put_u8(b'"');
        }
        out.put_u8(*byte);
    }
    out.put_slice(b"\";");
}
