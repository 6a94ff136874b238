//! The contents of a key, and what each was made of.

use std::collections::BTreeMap;

use super::super::history::{Did, Link, Record, Version};
use super::chain::Chain;
use super::violation::{Violation, What, violation};

/// One content and the operations on it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Content<'a> {
    /// What wrote it, if anybody is known to have.
    pub(super) writer: Option<&'a Record>,
    /// The operation that was answered first, and the one that was asked last.
    pub(super) first_answered: Option<&'a Record>,
    pub(super) last_asked: Option<&'a Record>,
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

    pub(super) fn f(&self) -> u64 {
        self.first_answered.map_or(u64::MAX, Record::ended_ns)
    }

    pub(super) fn s(&self) -> u64 {
        self.last_asked.map_or(0, Record::begun_ns)
    }
}

pub(super) struct Contents<'a> {
    all: BTreeMap<Version, Content<'a>>,
    /// Increments of which nobody knows whether they happened.
    unknown_counts: usize,
}

impl<'a> Contents<'a> {
    pub(super) fn of(records: &'a [Record], links: &[Link], found: &mut Vec<Violation>) -> Self {
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
    pub(super) fn keep_what_happened(&mut self, found: &mut Vec<Violation>) {
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
                    Some(writer) if content.is_seen && content.parent.is_none() && writer.did.appends() => {
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
    pub(super) fn chains(&mut self, found: &mut Vec<Violation>) -> Vec<Chain<'a>> {
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
