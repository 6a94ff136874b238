//! A retrieval of several keys that is asked for with one question a server: put together when all have answered.

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::Machine;
use crate::error::Failure;
use crate::wire::classic::items::{Answer, Items, Telling};
use crate::wire::words::Span;

/// Keys that are asked for with one question at most: their values are held until all have come.
pub(super) const KEYS_MAX: usize = 32;

/// Values of several keys, from several servers.
#[derive(Debug)]
pub struct Gather {
    /// From the first of the keys to the last, in the client's line.
    span: Span,
    /// By key, in the client's order: the number of the part that it is in.
    owners: Owners,
    /// So many bytes of the servers' names come before the client's.
    cut_len: usize,
    parts: SmallVec<[Part; 2]>,
    missing: usize,
}

/// Which part each of several keys is in.
pub type Owners = SmallVec<[u8; KEYS_MAX]>;

#[derive(Debug)]
enum Part {
    Awaited,
    Came(Items),
    Refused(Bytes),
    Failed(Failure),
}

impl Gather {
    /// All keys of a part of the client's line, that are in so many parts, and that servers know by names of which the
    /// client's is what is behind `cut_len` bytes.
    pub fn new(span: Span, owners: Owners, parts: usize, cut_len: usize) -> Self {
        Self { span, owners, cut_len, parts: (0..parts).map(|_| Part::Awaited).collect(), missing: parts }
    }

    /// How many keys.
    pub fn keys(&self) -> usize {
        self.owners.len()
    }

    /// From the first of the keys to the last.
    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Has everything come?
    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Bytes that have come.
    pub(super) fn len(&self) -> usize {
        let len = |part: &Part| match part {
            Part::Came(items) => items.len(),
            Part::Awaited | Part::Refused(_) | Part::Failed(_) => 0,
        };
        self.parts.iter().map(len).sum()
    }

    /// What came of a part.
    pub fn set(&mut self, number: u8, told: Result<Answer, Failure>) {
        let Some(part @ Part::Awaited) = self.parts.get_mut(usize::from(number)) else { return };
        *part = match told {
            Ok(Answer::Items(items)) => Part::Came(items),
            Ok(Answer::Refused(words)) => Part::Refused(words),
            Err(failure) => Part::Failed(failure),
        };
        self.missing -= 1;
    }
}

impl Machine {
    /// Tells the values that are there, in the client's order.
    pub(super) fn emit_gathered(&mut self, gather: &Gather) {
        let mut asked: SmallVec<[usize; 8]> = smallvec![0; gather.parts.len()];
        let mut telling = Telling::new(gather.cut_len);
        for owner in &gather.owners {
            let owner = usize::from(*owner);
            let (Some(part), Some(asked)) = (gather.parts.get(owner), asked.get_mut(owner)) else { continue };
            match part {
                Part::Came(items) => match items.place(*asked) {
                    Some(place) => {
                        self.gathered.hits += 1;
                        telling.tell(items, place, &mut self.output);
                    }
                    None if items.is_short => self.gathered.failure = Some(Failure::TooLarge),
                    None => self.gathered.misses += 1,
                },
                Part::Refused(words) => self.gathered.words = Some(words.clone()),
                Part::Failed(failure) => self.gathered.failure = Some(*failure),
                Part::Awaited => (),
            }
            *asked += 1;
        }
        telling.end(&mut self.output);
    }
}
