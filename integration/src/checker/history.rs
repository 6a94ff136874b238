//! What is written down of each operation: 32 bytes, so that twenty million of them fit.

use std::collections::BTreeMap;

use super::check::{Violation, What, check_key};

/// A content of a key: the write that began or last changed it, and how often it was counted since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The id of the write; ids begin at 1.
    pub write: u32,
    /// Increments (or decrements) since.
    pub step: u32,
}

/// What an operation turned out to be. Unknown outcomes of what changes nothing but loses are not recorded: loss
/// is always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// Saw the content `seen`.
    Read,
    /// Found nothing.
    Missed,
    /// Deleted something.
    Deleted,
    /// Found something, whatever it was.
    Found,
    /// Wrote `id` over whatever was there, or was not.
    Wrote,
    /// Wrote `id` over something.
    Replaced,
    /// Wrote `id` over exactly `seen`.
    Swapped,
    /// Appended or prepended `id` to something.
    Appended,
    /// Counted, and was told `seen`.
    Counted,
    /// As [`Did::Wrote`] or [`Did::Replaced`], if at all.
    MayHaveWritten,
    /// As [`Did::Swapped`], if at all.
    MayHaveSwapped,
    /// As [`Did::Appended`], if at all.
    MayHaveAppended,
    /// As [`Did::Counted`], if at all.
    MayHaveCounted,
}

impl Did {
    /// Whether there was nothing, at the end of it.
    pub(super) fn is_absence(self) -> bool {
        matches!(self, Self::Missed | Self::Deleted)
    }

    /// Whether nobody knows if it happened.
    fn is_unknown(self) -> bool {
        matches!(
            self,
            Self::MayHaveWritten | Self::MayHaveSwapped | Self::MayHaveAppended | Self::MayHaveCounted
        )
    }

    /// Whether it adds to a content that it needs.
    pub(super) fn appends(self) -> bool {
        matches!(self, Self::Appended | Self::MayHaveAppended)
    }

    /// Whether it may leave a content where there was none. Counting does not: it needs one.
    pub(super) fn writes_itself(self) -> bool {
        let is_write = matches!(
            self,
            Self::Wrote | Self::Replaced | Self::Swapped | Self::MayHaveWritten | Self::MayHaveSwapped
        );
        is_write || self.appends()
    }
}

/// What may be asked, as [`Record::asked`] numbers it.
pub(super) const VERBS: [&str; 13] = [
    "-", "get", "gat", "set", "add", "replace", "append", "prepend", "cas", "incr", "decr", "delete", "touch",
];

/// Nanoseconds that one unit of [`Record::took`] stands for.
const TOOK_NS: u64 = 16;

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    begun_ns: u64,
    /// Rounded up; `u32::MAX` has no end.
    took: u32,
    /// The key's number.
    pub key: u32,
    /// The operation's own id, if it writes.
    pub id: u32,
    /// What it saw, as [`Did`] says.
    pub seen: Version,
    /// Who asked.
    pub client: u16,
    /// Through which proxy, in the upper half, and what, in the lower one.
    how: u8,
    /// What it was.
    pub did: Did,
}

impl Record {
    /// An operation that was asked and answered at these times. What may or may not have happened has no end.
    #[must_use]
    pub fn new(key: u32, did: Did, begun_ns: u64, ended_ns: u64) -> Self {
        let took = match did.is_unknown() {
            true => u32::MAX,
            false => u32::try_from(ended_ns.saturating_sub(begun_ns).div_ceil(TOOK_NS)).unwrap_or(u32::MAX),
        };
        Self { begun_ns, took, key, id: 0, seen: Version::default(), client: 0, how: 0, did }
    }

    /// Notes for people through which sidecar what was asked: both below 16.
    pub(super) fn asked(&mut self, sidecar: usize, verb: usize) {
        self.how = u8::try_from((sidecar & 15) << 4 | (verb & 15)).unwrap_or_default();
    }

    /// When it was asked.
    #[must_use]
    pub fn begun_ns(&self) -> u64 {
        self.begun_ns
    }

    /// When it was answered, at the latest.
    #[must_use]
    pub fn ended_ns(&self) -> u64 {
        match self.took {
            u32::MAX => u64::MAX,
            took => self.begun_ns + u64::from(took) * TOOK_NS,
        }
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, id, seen, client, how, did, .. } = self;
        let (sidecar, verb) = (how >> 4, VERBS.get(usize::from(how & 15)).copied().unwrap_or("?"));
        let us = |ns: u64| ns / 1000;
        write!(f, "key {key}, client {client} by sidecar {sidecar}, {} us to ", us(self.begun_ns()))?;
        match self.ended_ns() {
            u64::MAX => write!(f, "?")?,
            ended => write!(f, "{} us", us(ended))?,
        }
        write!(f, ": {verb}: {did:?}")?;
        match did {
            Did::Missed | Did::Deleted | Did::Found | Did::MayHaveCounted => Ok(()),
            Did::Read | Did::Counted => write!(f, " {}+{}", seen.write, seen.step),
            Did::Wrote | Did::Replaced | Did::Appended | Did::MayHaveWritten | Did::MayHaveAppended => {
                write!(f, " {id}")
            }
            Did::Swapped | Did::MayHaveSwapped => write!(f, " {id} for {}+{}", seen.write, seen.step),
        }
    }
}

/// Seen in a content: `child` was appended to what ended with `parent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The key's number.
    pub key: u32,
    /// The id that was appended.
    pub child: u32,
    /// The id before it.
    pub parent: u32,
}

/// Everything that was recorded.
#[derive(Debug, Default)]
pub struct History {
    /// Operations in any order.
    pub records: Vec<Record>,
    /// Links, repeated or not.
    pub links: Vec<Link>,
}

/// What the check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Operations looked at.
    pub operations: usize,
    /// Keys looked at.
    pub keys: usize,
    /// Violations by kind.
    pub counts: BTreeMap<What, usize>,
    /// The first of each kind.
    pub examples: Vec<Violation>,
}

/// How many violations of a kind a report tells in full.
const EXAMPLES: usize = 3;

impl History {
    /// Checks key by key.
    #[must_use]
    pub fn check(mut self) -> Report {
        self.records.sort_unstable_by_key(|record| (record.key, record.begun_ns));
        self.links.sort_unstable();
        self.links.dedup();
        let mut report = Report { operations: self.records.len(), ..Report::default() };
        let mut links = self.links.as_slice();
        for records in self.records.chunk_by(|one, next| one.key == next.key) {
            let Some(key) = records.first().map(|record| record.key) else { continue };
            // Links of a key without operations cannot be: a link comes of a read.
            let (_, from) = links.split_at(links.partition_point(|link| link.key < key));
            let (mine, rest) = from.split_at(from.partition_point(|link| link.key == key));
            links = rest;
            report.keys += 1;
            for violation in check_key(records, mine) {
                let count = report.counts.entry(violation.what).or_default();
                *count += 1;
                if *count <= EXAMPLES {
                    report.examples.push(violation);
                }
            }
        }
        report
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} operations on {} keys", self.operations, self.keys)?;
        for (what, count) in &self.counts {
            writeln!(f, "  {count} of: {what}")?;
        }
        self.examples.iter().try_for_each(|violation| writeln!(f, "{violation}"))
    }
}
