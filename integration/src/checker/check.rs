//! One key's history: its contents, the chains they form, and whether the chains fit beside each other.

use std::collections::BTreeMap;
use std::fmt;

use super::history::{Did, Link, Record, Version};

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A content was seen although another had replaced it.
    StaleRead,
    /// A content was seen although it had been deleted.
    LostDelete,
    /// A content was seen although it had been missed before.
    Returned,
    /// A cas succeeded although something lay between what it had seen and itself.
    WrongSwap,
    /// An increment or an append is missing, or was done twice.
    LostStep,
    /// A content was seen that nobody had written, at least not yet.
    Unwritten,
    /// Something was found where nothing can have been.
    FoundNothing,
    /// A delete was told that there had been something, where nothing can have been.
    DeletedNothing,
}

impl What {
    /// Whether it may happen while keys move. A delete cannot tell a placeholder of the resize from an item: what
    /// was to be gone is gone. And a miss proves nothing: who asks between the two steps of somebody else's
    /// conditional write may meet neither the old value nor the new one, as the protocol's model allows. Nothing is
    /// seen in either case that should not be; how often it happens is what the hit ratio is measured for.
    #[must_use]
    pub fn is_a_resizes_right(self) -> bool {
        matches!(self, Self::DeletedNothing | Self::Returned)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StaleRead => "stale read",
            Self::LostDelete => "seen after an acknowledged delete",
            Self::Returned => "seen after a miss",
            Self::WrongSwap => "cas succeeded wrongly",
            Self::LostStep => "increment or append lost or repeated",
            Self::Unwritten => "content that nobody had written",
            Self::FoundNothing => "found where nothing was",
            Self::DeletedNothing => "deleted where nothing was",
        })
    }
}

/// What is wrong, and the operations that show it.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What is wrong.
    pub what: What,
    /// Which operations contradict each other.
    pub operations: Vec<Record>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.what, self.text)?;
        self.operations.iter().try_for_each(|operation| writeln!(f, "    {operation}"))
    }
}

fn violation(what: What, text: impl Into<String>, operations: &[Option<&Record>]) -> Violation {
    let operations = operations.iter().copied().flatten().copied().collect();
    Violation { what, operations, text: text.into() }
}

/// Checks one key: its operations and the links seen in its contents.
#[must_use]
pub fn check_key(records: &[Record], links: &[Link]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut contents = Contents::of(records, links, &mut found);
    contents.keep_what_happened(&mut found);
    let chains = contents.chains(&mut found);
    let absences = records.iter().filter(|record| matches!(record.did, Did::Missed | Did::Deleted));
    fit(&chains, absences, &mut found);
    certain_absence(records, &mut found);
    found
}

/// One content and the operations on it.
#[derive(Clone, Copy, Debug, Default)]
struct Content<'a> {
    /// What wrote it, if anybody is known to have.
    writer: Option<&'a Record>,
    /// The operation that was answered first, and the one that was asked last.
    first_answered: Option<&'a Record>,
    last_asked: Option<&'a Record>,
    /// The content it was made of.
    parent: Option<Version>,
    child: Option<Version>,
    /// Whether it is certain to have been there.
    happened: bool,
    /// Whether somebody has seen it, and with it what it was made of.
    is_seen: bool,
}

impl<'a> Content<'a> {
    fn takes(&mut self, record: &'a Record) {
        if self.first_answered.is_none_or(|first| record.ended_ns() < first.ended_ns()) {
            self.first_answered = Some(record);
        }
        if self.last_asked.is_none_or(|last| record.begun_ns() > last.begun_ns()) {
            self.last_asked = Some(record);
        }
    }

    fn f(&self) -> u64 {
        self.first_answered.map_or(u64::MAX, Record::ended_ns)
    }

    fn s(&self) -> u64 {
        self.last_asked.map_or(0, Record::begun_ns)
    }
}

struct Contents<'a> {
    all: BTreeMap<Version, Content<'a>>,
    /// Increments of which nobody knows whether they happened.
    unknown_counts: usize,
}

impl<'a> Contents<'a> {
    fn of(records: &'a [Record], links: &[Link], found: &mut Vec<Violation>) -> Self {
        let mut all: BTreeMap<Version, Content<'a>> = BTreeMap::new();
        let mut unknown_counts = 0;
        for record in records {
            let own = Version { write: record.id, step: 0 };
            match record.did {
                Did::Missed | Did::Deleted | Did::Found => {}
                Did::Read => {
                    let content = all.entry(record.seen).or_default();
                    content.takes(record);
                    content.happened = true;
                    content.is_seen = true;
                }
                Did::Wrote | Did::Replaced | Did::Appended | Did::Swapped => {
                    let content = all.entry(own).or_default();
                    content.takes(record);
                    content.happened = true;
                    content.writer = Some(record);
                    content.parent = (record.did == Did::Swapped).then_some(record.seen).or(content.parent);
                }
                Did::MayHaveWritten | Did::MayHaveAppended | Did::MayHaveSwapped => {
                    let content = all.entry(own).or_default();
                    content.takes(record);
                    content.writer = Some(record);
                    let is_swap = record.did == Did::MayHaveSwapped;
                    content.parent = is_swap.then_some(record.seen).or(content.parent);
                }
                Did::Counted => {
                    let content = all.entry(record.seen).or_default();
                    if let Some(other) = content.writer {
                        let text = "two increments were told the same number";
                        found.push(violation(What::LostStep, text, &[Some(other), Some(record)]));
                        continue;
                    }
                    content.takes(record);
                    content.happened = true;
                    content.writer = Some(record);
                }
                Did::MayHaveCounted => unknown_counts += 1,
            }
        }
        for link in links {
            let parent = Version { write: link.parent, step: 0 };
            let content = all.entry(Version { write: link.child, step: 0 }).or_default();
            if content.parent.is_some_and(|other| other != parent) {
                let text = format!("{} stands behind two others, or twice", link.child);
                found.push(violation(What::LostStep, text, &[content.writer]));
            }
            content.parent = Some(parent);
            content.happened = true;
        }
        Self { all, unknown_counts }
    }

    /// Leaves out writes of unknown outcome that nobody saw, joins numbers to what they were counted from, and
    /// finds contents that nobody wrote.
    fn keep_what_happened(&mut self, found: &mut Vec<Violation>) {
        let happened: Vec<Version> =
            self.all.iter().filter(|(_, content)| content.happened).map(|(version, _)| *version).collect();
        for version in happened {
            self.ancestors_happened(version);
        }
        self.all.retain(|_, content| content.happened);

        let mut orphans = 0;
        let mut before: Option<Version> = None;
        for (version, content) in &mut self.all {
            if version.step == 0 {
                match content.writer {
                    None => {
                        let text = format!("nobody wrote {}", version.write);
                        found.push(violation(What::Unwritten, text, &[content.first_answered]));
                    }
                    Some(writer) if content.is_seen && content.parent.is_none() && appends(writer.did) => {
                        let text = format!("{} was appended to nothing", version.write);
                        found.push(violation(What::LostStep, text, &[Some(writer), content.first_answered]));
                    }
                    Some(_) => {}
                }
            } else if let Some(before) = before.filter(|before| before.write == version.write) {
                content.parent = Some(before);
                let between = version.step - before.step - 1;
                orphans += between + u32::from(content.writer.is_none());
            } else {
                let text = format!("nobody wrote {}, which was counted", version.write);
                found.push(violation(What::Unwritten, text, &[content.first_answered]));
            }
            before = Some(*version);
        }
        if usize::try_from(orphans).is_ok_and(|orphans| orphans > self.unknown_counts) {
            let text = format!("{orphans} increments came from nowhere, {} may have", self.unknown_counts);
            found.push(violation(What::LostStep, text, &[]));
        }
    }

    /// What a content was made of was there too.
    fn ancestors_happened(&mut self, version: Version) {
        let mut next = Some(version);
        while let Some(version) = next {
            let base = Version { write: version.write, step: 0 };
            if version.step > 0 {
                self.all.entry(base).or_default().happened = true;
            }
            // A number's own steps are joined later; a text's parent, or what a cas replaced, is known.
            next = self.all.get(&base).and_then(|content| content.parent);
            match next.and_then(|parent| self.all.get(&parent)).map(|parent| parent.happened) {
                Some(false) => {}
                Some(true) => break,
                None => {}
            }
            if let Some(parent) = next {
                self.all.entry(parent).or_default().happened = true;
            }
        }
    }

    /// The chains, each checked within itself.
    fn chains(&mut self, found: &mut Vec<Violation>) -> Vec<Chain<'a>> {
        let edges: Vec<(Version, Version)> = self
            .all
            .iter()
            .filter_map(|(child, content)| content.parent.map(|parent| (parent, *child)))
            .collect();
        let mut headless = Vec::new();
        for (parent, child) in edges {
            let writer = self.all.get(&child).and_then(|content| content.writer);
            let Some(content) = self.all.get_mut(&parent) else { continue };
            if let Some(other) = content.child.replace(child) {
                let other = self.all.get(&other).and_then(|content| content.writer);
                let is_swap = [writer, other].iter().flatten().any(|record| record.did == Did::Swapped);
                let what = if is_swap { What::WrongSwap } else { What::LostStep };
                let text = format!("{}+{} was followed by two", parent.write, parent.step);
                found.push(violation(what, text, &[other, writer]));
                // The one that lost its place heads a chain of its own.
                headless.push(child);
            }
        }
        let roots: Vec<Version> = self
            .all
            .iter()
            .filter(|(_, content)| content.parent.is_none_or(|parent| !self.all.contains_key(&parent)))
            .map(|(version, _)| *version)
            .collect();
        let mut seen = 0;
        let mut chains = Vec::with_capacity(roots.len());
        for root in roots {
            let mut links = Vec::new();
            let mut next = Some(root);
            while let Some(content) = next.and_then(|version| self.all.get(&version)) {
                links.push(*content);
                next = content.child;
            }
            seen += links.len();
            let chain = Chain { contents: links };
            chain.check(found);
            chains.push(chain);
        }
        if headless.is_empty() && seen < self.all.len() {
            found.push(violation(What::LostStep, "contents stand behind each other in a circle", &[]));
        }
        chains
    }
}

/// Contents that followed each other at once.
struct Chain<'a> {
    contents: Vec<Content<'a>>,
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
    fn check(&self, found: &mut Vec<Violation>) {
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
fn fit<'a>(chains: &[Chain<'a>], absences: impl Iterator<Item = &'a Record>, found: &mut Vec<Violation>) {
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

/// Something was found although an absence was certain and no write can lie between it and the finding.
fn certain_absence(records: &[Record], found: &mut Vec<Violation>) {
    let mut absences: Vec<&Record> =
        records.iter().filter(|record| matches!(record.did, Did::Missed | Did::Deleted)).collect();
    absences.sort_unstable_by_key(|record| record.ended_ns());
    // By the end of each: the absence that was asked last of those that ended by then.
    let mut latest: Option<&Record> = None;
    for absence in &mut absences {
        if latest.is_none_or(|latest| absence.begun_ns() >= latest.begun_ns()) {
            latest = Some(absence);
        }
        *absence = latest.unwrap_or(absence);
    }
    let ends: Vec<u64> = {
        let mut ends: Vec<u64> = records
            .iter()
            .filter(|record| matches!(record.did, Did::Missed | Did::Deleted))
            .map(Record::ended_ns)
            .collect();
        ends.sort_unstable();
        ends
    };
    // Writes in the order in which they were asked, with the two that end last up to each.
    let mut writes: Vec<(u64, [(u64, u32); 2])> = Vec::new();
    let mut ending_last = [(0, 0); 2];
    for record in records.iter().filter(|record| writes_itself(record.did)) {
        let this = (record.ended_ns(), record.id);
        let [one, two] = ending_last;
        ending_last = if this.0 > one.0 {
            [this, one]
        } else if this.0 > two.0 {
            [one, this]
        } else {
            [one, two]
        };
        writes.push((record.begun_ns(), ending_last));
    }
    for record in records {
        if !matches!(record.did, Did::Deleted | Did::Found | Did::Replaced | Did::Appended) {
            continue;
        }
        let absent = ends.partition_point(|end| *end < record.begun_ns()).checked_sub(1);
        let Some(absent) = absent.and_then(|index| absences.get(index)) else { continue };
        let by_then = writes.partition_point(|(begun, _)| *begun <= record.ended_ns()).checked_sub(1);
        let pair = by_then.and_then(|index| writes.get(index)).map_or([(0, 0); 2], |(_, pair)| *pair);
        let others = pair.iter().find(|(_, id)| *id != record.id || record.id == 0);
        if others.is_none_or(|(ended, _)| *ended < absent.begun_ns()) {
            let text = "nothing was written between the absence and what was found";
            let is_delete = record.did == Did::Deleted;
            let what = if is_delete { What::DeletedNothing } else { What::FoundNothing };
            found.push(violation(what, text, &[Some(absent), Some(record)]));
        }
    }
}

/// Whether an operation adds to a content that it needs.
fn appends(did: Did) -> bool {
    match did {
        Did::Appended | Did::MayHaveAppended => true,
        Did::Read
        | Did::Missed
        | Did::Deleted
        | Did::Found
        | Did::Wrote
        | Did::Replaced
        | Did::Swapped
        | Did::Counted
        | Did::MayHaveWritten
        | Did::MayHaveSwapped
        | Did::MayHaveCounted => false,
    }
}

/// Whether an operation may leave a content where there was none. Counting does not: it needs one.
fn writes_itself(did: Did) -> bool {
    match did {
        Did::Wrote
        | Did::Replaced
        | Did::Swapped
        | Did::Appended
        | Did::MayHaveWritten
        | Did::MayHaveSwapped
        | Did::MayHaveAppended => true,
        Did::Read | Did::Missed | Did::Deleted | Did::Found | Did::Counted | Did::MayHaveCounted => false,
    }
}
