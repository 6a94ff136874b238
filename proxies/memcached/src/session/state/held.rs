//! Answers that came before those of slots in front, and have to wait for their turn.

use super::{Answer, Gather};
use crate::wire::Epoch;
use crate::wire::meta::{Reply, Status};

/// Bytes of small replies that wait in one buffer; those beyond it have buffers of their own.
pub(super) const KEPT_LEN_MAX: usize = 32 << 10;

/// An answer that waits. Most are small replies: for their sake what is rare is in a box.
#[derive(Debug)]
pub(super) enum Held {
    Answer(Box<Answer>),
    Kept(Kept),
    /// Of several keys, complete or not.
    Gather(Box<Gather>),
}

impl Held {
    /// Bytes of its value.
    pub(super) fn value_len(&self) -> usize {
        match self {
            Self::Answer(answer) => answer.value_len(),
            Self::Kept(kept) => kept.value_len as usize,
            Self::Gather(gather) => gather.len(),
        }
    }
}

/// The place of a small reply in [`SmallReplies`]: its line, and its value behind it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    status: Status,
    epoch: Option<Epoch>,
    at: u32,
    line_len: u32,
    value_len: u32,
}

/// Small replies that wait, side by side: none of them costs an allocation. Cleared when there are none.
#[derive(Debug, Default)]
pub(super) struct SmallReplies {
    buffer: Vec<u8>,
    count: usize,
}

impl SmallReplies {
    /// Copies a reply that is only lent.
    pub(super) fn keep(&mut self, reply: &Reply<&[u8]>) -> Held {
        let (line, value) = (reply.line(), reply.value());
        let has_room = self.buffer.len() + line.len() + value.len() <= KEPT_LEN_MAX;
        let number = |len: usize| u32::try_from(len).ok().filter(|_| has_room);
        let (Some(at), Some(line_len), Some(value_len)) =
            (number(self.buffer.len()), number(line.len()), number(value.len()))
        else {
            return Held::Answer(Box::new(Answer::Reply(reply.to_owned())));
        };
        self.buffer.extend_from_slice(line);
        self.buffer.extend_from_slice(value);
        self.count += 1;
        Held::Kept(Kept { status: reply.status, epoch: reply.epoch, at, line_len, value_len })
    }

    /// A reply that is kept.
    pub(super) fn get(&self, kept: &Kept) -> Reply<&[u8]> {
        let (at, line_len, value_len) = (kept.at as usize, kept.line_len as usize, kept.value_len as usize);
        let bytes = self.buffer.get(at..at + line_len + value_len).unwrap_or_default();
        let (line, value) = bytes.split_at_checked(line_len).unwrap_or_default();
        Reply::new(kept.status, line, value).of(kept.epoch)
    }

    /// One of them has been told.
    pub(super) fn drop_one(&mut self) {
        self.count -= 1;
        if self.count == 0 {
            self.buffer.clear();
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of them, those included that have been told while others wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.buffer.len()
    }
}
