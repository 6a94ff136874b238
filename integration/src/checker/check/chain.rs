//! The chains that contents form, and whether they fit beside each other.

use super::super::history::{Did, Record};
use super::contents::Content;
use super::violation::{Violation, What, violation};

/// Contents that followed each other at once.
pub(super) struct Chain<'a> {
    pub(super) contents: Vec<Content<'a>>,
}

impl<'a> Chain<'a> {
    fn first_answered(&self) -> Option<&'a Record> {
        self.contents.iter().min_by_key(|content| content.f()).and_then(|content| content.first_answered)
    }

    fn last_asked(&self) -> Option<&'a Record> {
        self.contents.iter().max_by_key(|content| content.s()).and_then(|content| content.last_asked)
    }

    fn zone(&self) -> (u64, u64) {
        (
            self.first_answered().map_or(u64::MAX, Record::ended_ns),
            self.last_asked().map_or(0, Record::begun_ns),
        )
    }

    /// Nothing of a later content was answered before something of an earlier one was asked.
    pub(super) fn check(&self, found: &mut Vec<Violation>) {
        let mut asked: Option<&Record> = None;
        for content in &self.contents {
            let writer = content.writer.filter(|writer| content.f() < writer.begun_ns());
            if writer.is_some() {
                let text = "it was seen before it was written";
                found.push(violation(What::Unwritten, text, &[writer, content.first_answered]));
            }
            if let Some(before) = asked.filter(|before| content.f() < before.begun_ns()) {
                let text = "an older content was seen after a newer one";
                found.push(violation(stale(before), text, &[content.first_answered, Some(before)]));
            }
            if content.s() >= asked.map_or(0, Record::begun_ns) {
                asked = content.last_asked.or(asked);
            }
        }
    }

    /// Says which way the chain contradicts another that must lie within it.
    fn torn_by(&self, other: &Zone<'_>) -> Violation {
        let (f, s) = (other.f, other.s);
        let before = self.contents.iter().filter(|content| content.f() < s).min_by_key(|content| content.f());
        let after = self.contents.iter().find(|content| f < content.s());
        let (before, after) =
            (before.and_then(|content| content.first_answered), after.and_then(|c| c.last_asked));
        let what = match after.map(|record| record.did) {
            Some(Did::Swapped) => What::WrongSwap,
            Some(Did::Counted | Did::Appended) => What::LostStep,
            Some(_) | None => match other.first.map(|record| record.did) {
                Some(Did::Deleted) => What::LostDelete,
                Some(Did::Missed) => What::Returned,
                Some(Did::Counted | Did::Appended) => What::LostStep,
                Some(_) | None => What::StaleRead,
            },
        };
        let last = other.last.filter(|last| other.first.is_none_or(|first| !std::ptr::eq(*last, first)));
        violation(what, "what lies between the first and the last", &[before, other.first, last, after])
    }
}

/// A stale read, unless what is out of order is a cas.
fn stale(record: &Record) -> What {
    if record.did == Did::Swapped { What::WrongSwap } else { What::StaleRead }
}

/// From the earliest answer to the latest request of a chain.
#[derive(Clone, Copy)]
struct Zone<'a> {
    f: u64,
    s: u64,
    first: Option<&'a Record>,
    last: Option<&'a Record>,
    chain: Option<usize>,
}

/// Chains must not overlap in what is certain, and none may lie within another's.
pub(super) fn fit<'a>(
    chains: &[Chain<'a>],
    absences: impl Iterator<Item = &'a Record>,
    found: &mut Vec<Violation>,
) {
    let zones = chains.iter().enumerate().map(|(index, chain)| {
        let (f, s) = chain.zone();
        Zone { f, s, first: chain.first_answered(), last: chain.last_asked(), chain: Some(index) }
    });
    let absent = absences.map(|record| Zone {
        f: record.ended_ns(),
        s: record.begun_ns(),
        first: Some(record),
        last: None,
        chain: None,
    });
    let (mut certain, loose): (Vec<Zone<'_>>, Vec<Zone<'_>>) =
        zones.chain(absent).partition(|zone| zone.f < zone.s);
    certain.sort_unstable_by_key(|zone| zone.f);
    let chain_of = |zone: &Zone<'_>| zone.chain.and_then(|index| chains.get(index));
    for (one, next) in certain.iter().zip(certain.iter().skip(1)) {
        if next.f < one.s
            && let Some(chain) = chain_of(one)
        {
            found.push(chain.torn_by(next));
        }
    }
    for zone in &loose {
        let before = certain.partition_point(|other| other.f < zone.s);
        if let Some(other) = before.checked_sub(1).and_then(|index| certain.get(index))
            && zone.f < other.s
            && let Some(chain) = chain_of(other)
        {
            found.push(chain.torn_by(zone));
        }
    }
}
