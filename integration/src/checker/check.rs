//! One key's history: its contents, the chains they form, and whether the chains fit beside each other.

mod chain;
mod contents;
mod violation;

use self::chain::fit;
use self::contents::Contents;
use self::violation::violation;
pub use self::violation::{Violation, What};
use super::history::{Did, Link, Record};

/// Checks one key: its operations and the links seen in its contents.
#[must_use]
pub fn check_key(records: &[Record], links: &[Link]) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut contents = Contents::of(records, links, &mut found);
    contents.keep_what_happened(&mut found);
    let chains = contents.chains(&mut found);
    let absences = records.iter().filter(|record| record.did.is_absence());
    fit(&chains, absences, &mut found);
    certain_absence(records, &mut found);
    found
}

/// Something was found although an absence was certain and no write can lie between it and the finding.
fn certain_absence(records: &[Record], found: &mut Vec<Violation>) {
    let mut absences: Vec<&Record> = records.iter().filter(|record| record.did.is_absence()).collect();
    absences.sort_unstable_by_key(|record| record.ended_ns());
    let ends: Vec<u64> = absences.iter().map(|record| record.ended_ns()).collect();
    // By the end of each: the absence that was asked last of those that ended by then.
    let mut latest: Option<&Record> = None;
    for absence in &mut absences {
        if latest.is_none_or(|latest| absence.begun_ns() >= latest.begun_ns()) {
            latest = Some(absence);
        }
        *absence = latest.unwrap_or(absence);
    }
    // Writes in the order in which they were asked, with the two that end last up to each.
    let mut writes: Vec<(u64, [(u64, u32); 2])> = Vec::new();
    let mut ending_last = [(0, 0); 2];
    for record in records.iter().filter(|record| record.did.writes_itself()) {
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
