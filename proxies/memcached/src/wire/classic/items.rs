//! `get` of several keys, spoken with a server: one line out, and what of them is there back.
//!
//! ```text
//!   get a b c      ─►
//!                  ◄─   VALUE a 0 1 / x / VALUE c 0 2 / yz / END
//!                    └────────────────┘ └────────────────┘     places
//! ```
//!
//! Half the bytes of as many `mg`, and one answer instead of as many. Servers answer in the order of asking; a key that
//! was not asked for, or not yet, is a sign of lost count.

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;

use super::DecodeError;
use super::reply::{Head, VALUE, head, head_of};
use crate::wire::Limits;
use crate::wire::output::{BY_REFERENCE_LEN_MIN, Output};
use crate::wire::words::{Span, bytes_of};

/// Keys that are more, and places that are more, have an allocation of their own.
const KEYS: usize = 24;
const PLACES: usize = 16;

/// Room for so many bytes of keys is made at once.
const KEYS_LEN: usize = 256;

/// The keys of one `get`, one space between them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Keys {
    text: Vec<u8>,
    /// How long each is.
    lens: SmallVec<[u8; KEYS]>,
}

impl Keys {
    /// Asks for another key, of no more than [`KEY_LEN_MAX`](crate::wire::KEY_LEN_MAX) bytes.
    pub fn push(&mut self, key: &[u8]) {
        if self.text.capacity() - self.text.len() <= key.len() {
            self.text.reserve(KEYS_LEN);
        }
        self.text.push(b' ');
        self.text.extend_from_slice(key);
        self.lens.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.lens.len()
    }

    /// The `number`th of them, which is behind those that end at `end`.
    fn get(&self, number: usize, end: usize) -> Option<&[u8]> {
        let len = usize::from(*self.lens.get(number)?);
        self.text.get(end + 1..end + 1 + len)
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Output) {
        out.extend_from_slice(b"get");
        out.extend_from_slice(&self.text);
        out.extend_from_slice(b"\r\n");
    }
}

/// Where items are in their text. Nowhere: not there.
type Places = SmallVec<[Place; PLACES]>;

/// From the first byte of the item's line to the last of the value's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    start: u32,
    end: u32,
}

impl Place {
    const NOWHERE: Self = Self { start: 0, end: 0 };

    fn new(start: usize, end: usize) -> Result<Self, DecodeError> {
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) => Ok(Self { start, end }),
            (_, _) => Err(DecodeError::BadValue),
        }
    }

    fn span(self) -> Option<Span> {
        (self != Self::NOWHERE).then_some(Span { start: self.start as usize, end: self.end as usize })
    }
}

/// What a server has of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Items {
    text: Bytes,
    /// By key, in the order of asking.
    places: Places,
    /// The longest value.
    pub value_len_max: usize,
    /// One was over the limit, and has been thrown away: it is not known which of those that are not there.
    pub is_short: bool,
}

impl Items {
    /// What is told of the key that was asked for as the `number`th.
    #[cfg(test)]
    fn of(&self, number: usize) -> Option<&[u8]> {
        self.place(number).map(|place| bytes_of(&self.text, place))
    }

    /// Where the item is of the key that was asked for as the `number`th; `None`: it is not there.
    pub fn place(&self, number: usize) -> Option<Span> {
        self.places.get(number)?.span()
    }

    /// Bytes that it holds.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Is nothing there?
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    fn push(&self, place: Span, out: &mut Output) {
        match place.len() {
            ..BY_REFERENCE_LEN_MIN => out.extend_from_slice(bytes_of(&self.text, place)),
            _ => out.push(&self.text.slice(place.start..place.end)),
        }
    }

    fn push_cut(&self, place: Span, cut_len: usize, out: &mut Output) {
        let rest = Span { start: place.start + VALUE.len() + cut_len, ..place };
        let tail = out.tail();
        if rest.len() < BY_REFERENCE_LEN_MIN {
            tail.reserve(VALUE.len() + rest.len());
        }
        tail.extend_from_slice(VALUE);
        self.push(rest, out);
    }
}

/// Tells a client items of several servers, in the client's order. What one server told in a row, and the client is told
/// in a row, is copied in one piece.
#[derive(Debug)]
pub struct Telling<'a> {
    /// So many bytes of each key are not the client's, who calls it by what is behind them.
    cut_len: usize,
    /// Not told yet.
    run: Option<(&'a Items, Span)>,
}

impl<'a> Telling<'a> {
    /// Of items whose keys have so many bytes before what the client calls them by.
    pub fn new(cut_len: usize) -> Self {
        Self { cut_len, run: None }
    }

    /// Tells the item at this place.
    pub fn tell(&mut self, items: &'a Items, place: Span, out: &mut Output) {
        match &mut self.run {
            _ if self.cut_len > 0 => items.push_cut(place, self.cut_len, out),
            Some((of, run)) if std::ptr::eq(*of, items) && run.end == place.start => {
                run.end = place.end;
            }
            run => {
                if let Some((of, run)) = run.replace((items, place)) {
                    of.push(run, out);
                }
            }
        }
    }

    /// Everything is told.
    pub fn end(self, out: &mut Output) {
        if let Some((of, run)) = self.run {
            of.push(run, out);
        }
    }
}

/// A server's answer to a `get` of several keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What is there.
    Items(Items),
    /// An error, in the server's words.
    Refused(Bytes),
}

/// Reads the answer to one `get` at a time. Remembers what it has seen of it.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes of the input that have been looked at.
    at: usize,
    places: Places,
    /// Where the keys that have been found, or are not there, end in what was asked: as many as there are places.
    asked_at: usize,
    value_len_max: usize,
    /// Items that came before one over the limit, which is not kept.
    before: BytesMut,
    is_short: bool,
    /// Bytes of such a one still to be thrown away.
    swallow_len: usize,
}

impl Decoder {
    /// Takes the answer for `keys` off the front of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// See [`DecodeError`]; none of them can be recovered from.
    pub fn decode(
        &mut self,
        input: &mut BytesMut,
        keys: &Keys,
        limits: &Limits,
    ) -> Result<Option<Answer>, DecodeError> {
        loop {
            if self.swallow_len > 0 {
                let taken = self.swallow_len.min(input.len());
                input.advance(taken);
                self.swallow_len -= taken;
            }
            let rest = input.get(self.at..).unwrap_or_default();
            // Most keys are there.
            let next = keys.get(self.places.len(), self.asked_at);
            let expected = next.and_then(|key| Some((key, head_of(rest, key)?)));
            let (head_len, key_len, value_len) = match expected {
                Some((key, (len, value_len))) => (len, key.len(), value_len),
                None => match head(rest)? {
                    Head::Partial => return Ok(None),
                    Head::Last { line_len, len } => {
                        let is_end = rest.get(..line_len) == Some(b"END");
                        return Ok(Some(self.end(input, is_end, line_len, len)));
                    }
                    Head::Item { len, key_len, value_len } => (len, key_len, value_len),
                },
            };
            if value_len > limits.value_len_max {
                self.pass_over(input, head_len, value_len);
                continue;
            }
            let end = head_len + value_len + 2;
            match rest.get(end - 2..end) {
                None => {
                    input.reserve(self.at + end - input.len());
                    return Ok(None);
                }
                Some(b"\r\n") => (),
                Some(_) => return Err(DecodeError::BadValue),
            }
            let from = self.before.len() + self.at;
            let place = Place::new(from, from + end)?;
            if expected.is_some() {
                self.asked_at += 1 + key_len;
                self.places.push(place);
            } else {
                let key = rest.get(VALUE.len()..VALUE.len() + key_len).unwrap_or_default();
                self.found(key, keys, place)?;
            }
            self.value_len_max = self.value_len_max.max(value_len);
            self.at += end;
        }
    }

    /// Notes where an item is, and that those that were asked for between it and the one before are not there.
    fn found(&mut self, key: &[u8], keys: &Keys, place: Place) -> Result<(), DecodeError> {
        while let Some(asked) = keys.get(self.places.len(), self.asked_at) {
            self.asked_at += 1 + asked.len();
            if asked == key {
                self.places.push(place);
                return Ok(());
            }
            self.places.push(Place::NOWHERE);
        }
        Err(DecodeError::OtherKey)
    }

    /// What came before is kept; the item at hand is not.
    fn pass_over(&mut self, input: &mut BytesMut, line_len: usize, value_len: usize) {
        self.before.extend_from_slice(input.get(..self.at).unwrap_or_default());
        input.advance(self.at + line_len);
        self.at = 0;
        self.swallow_len = value_len + 2;
        self.is_short = true;
    }

    /// The last line has come.
    fn end(&mut self, input: &mut BytesMut, is_end: bool, line_len: usize, taken_len: usize) -> Answer {
        let Self { at, places, value_len_max, mut before, is_short, .. } = std::mem::take(self);
        if !is_end {
            input.advance(at);
            let mut line = input.split_to(taken_len).freeze();
            line.truncate(line_len);
            return Answer::Refused(line);
        }
        let text = if !before.is_empty() {
            before.extend_from_slice(input.get(..at).unwrap_or_default());
            input.advance(at);
            before.freeze()
        } else if at < BY_REFERENCE_LEN_MIN {
            // Little never keeps a large buffer alive.
            let text = Bytes::copy_from_slice(input.get(..at).unwrap_or_default());
            input.advance(at);
            text
        } else {
            input.split_to(at).freeze()
        };
        input.advance(taken_len);
        Answer::Items(Items { text, places, value_len_max, is_short })
    }
}

#[cfg(test)]
#[path = "items_tests.rs"]
mod tests;
