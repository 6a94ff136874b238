//! A retrieval of several keys that is asked for with one question a server: put together when all have answered.

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::Machine;
use crate::error::Failure;
use crate::wire::classic::items::{Answer, Items};
use crate::wire::words::Span;

/// Keys that are asked for with one question at most: their values are held until all have come.
pub(super) const KEYS_MAX: usize = 32;

/// Values of several keys, from several servers.
#[derive(Debug)]
pub struct Gather {
    /// In the client's order.
    keys: Vec<Key>,
    parts: SmallVec<[Part; 2]>,
    missing: usize,
}

/// A key: where it is in the client's line, and the number of the part that it is in.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its place.
    pub span: Span,
    /// Its part.
    pub owner: u8,
}

#[derive(Debug)]
enum Part {
    Awaited,
    Came(Items),
    Refused(Bytes),
    Failed(Failure),
}

impl Gather {
    /// Keys that are in so many parts.
    pub fn new(keys: Vec<Key>, parts: usize) -> Self {
        Self { keys, parts: (0..parts).map(|_| Part::Awaited).collect(), missing: parts }
    }

    /// How many keys.
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// From the first of the keys to the last.
    pub(super) fn span(&self) -> Option<Span> {
        let (first, last) = (self.keys.first()?, self.keys.last()?);
        Some(Span { start: first.span.start, end: last.span.end })
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
    pub(super) fn emit_gathered(&mut self, gather: &Gather, words_len: usize) {
        let words = self.words.get(self.words_at..self.words_at + words_len).unwrap_or_default();
        let mut asked: SmallVec<[usize; 8]> = smallvec![0; gather.parts.len()];
        let from = gather.span().unwrap_or_default().start;
        for Key { span, owner } in &gather.keys {
            let key = words.get(span.start - from..span.end - from).unwrap_or_default();
            let owner = usize::from(*owner);
            let (Some(part), Some(asked)) = (gather.parts.get(owner), asked.get_mut(owner)) else { continue };
            match part {
                Part::Came(items) => match items.push_to(*asked, key, &mut self.output) {
                    true => self.gathered.hits += 1,
                    false if items.is_short => self.gathered.failure = Some(Failure::TooLarge),
                    false => self.gathered.misses += 1,
                },
                Part::Refused(words) => self.gathered.words = Some(words.clone()),
                Part::Failed(failure) => self.gathered.failure = Some(*failure),
                Part::Awaited => (),
            }
            *asked += 1;
        }
    }
}
