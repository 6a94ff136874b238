//! Hand-made histories, and random ones beside a search through every order.

use super::*;

const KEY: u32 = 0;

fn record(did: Did, begun: u64, ended: u64, id: u32, seen: (u32, u32)) -> Record {
    // In units that the record's rounding leaves alone.
    let mut record = Record::new(KEY, did, begun * 16, ended * 16);
    record.id = id;
    record.seen = Version { write: seen.0, step: seen.1 };
    record
}

fn wrote(id: u32, begun: u64, ended: u64) -> Record {
    record(Did::Wrote, begun, ended, id, (0, 0))
}

fn read(id: u32, begun: u64, ended: u64) -> Record {
    record(Did::Read, begun, ended, 0, (id, 0))
}

fn only(did: Did, begun: u64, ended: u64) -> Record {
    record(did, begun, ended, 0, (0, 0))
}

fn kinds(records: &[Record], links: &[(u32, u32)]) -> Vec<What> {
    let mut records = records.to_vec();
    records.sort_by_key(Record::begun_ns);
    let links: Vec<Link> =
        links.iter().map(|(child, parent)| Link { key: KEY, child: *child, parent: *parent }).collect();
    let mut kinds: Vec<What> =
        check_key(&records, &links).into_iter().map(|violation| violation.what).collect();
    kinds.dedup();
    kinds
}

#[test]
fn what_a_cache_may_do() {
    // A value is written, read, lost, missed, and written again; a read overlaps the write it sees.
    let lost = [wrote(1, 0, 10), read(1, 5, 7), only(Did::Missed, 20, 21), wrote(2, 30, 40), read(2, 50, 51)];
    assert_eq!(kinds(&lost, &[]), []);
    // Two writes at once: either may be last, but all must agree.
    let both = [wrote(1, 0, 10), wrote(2, 0, 10), read(1, 2, 3), read(2, 20, 21)];
    assert_eq!(kinds(&both, &[]), []);
    // A write of unknown outcome comes late, or not at all.
    let late = [
        wrote(1, 0, 1),
        record(Did::MayHaveWritten, 2, 0, 2, (0, 0)),
        read(1, 10, 11),
        read(2, 20, 21),
        record(Did::MayHaveWritten, 22, 0, 3, (0, 0)),
    ];
    assert_eq!(kinds(&late, &[]), []);
    // A cas, a count and an append that follow what they saw.
    let swapped = [wrote(1, 0, 1), read(1, 2, 3), record(Did::Swapped, 4, 5, 2, (1, 0)), read(2, 6, 7)];
    assert_eq!(kinds(&swapped, &[]), []);
    let counted = [
        wrote(1, 0, 1),
        record(Did::Counted, 2, 9, 0, (1, 2)),
        record(Did::Counted, 2, 9, 0, (1, 1)),
        record(Did::Read, 10, 11, 0, (1, 2)),
    ];
    assert_eq!(kinds(&counted, &[]), []);
    let appended = [
        wrote(1, 0, 1),
        record(Did::Appended, 2, 9, 2, (0, 0)),
        record(Did::Appended, 2, 9, 3, (0, 0)),
        read(2, 20, 21),
    ];
    assert_eq!(kinds(&appended, &[(2, 3), (3, 1)]), []);
}

#[test]
fn stale_reads_are_caught() {
    assert_eq!(kinds(&[wrote(1, 0, 1), wrote(2, 2, 3), read(1, 4, 5)], &[]), [What::StaleRead]);
    // Two sidecars that see different values for ever.
    let split = [wrote(1, 0, 9), wrote(2, 0, 9), read(1, 10, 11), read(2, 12, 13), read(1, 14, 15)];
    assert_eq!(kinds(&split, &[]), [What::StaleRead]);
    assert_eq!(kinds(&[wrote(1, 0, 1), only(Did::Missed, 2, 3), read(1, 4, 5)], &[]), [What::Returned]);
    assert_eq!(kinds(&[read(1, 0, 1), wrote(1, 2, 3)], &[]), [What::Unwritten]);
    assert_eq!(kinds(&[read(1, 0, 1)], &[]), [What::Unwritten]);
}

#[test]
fn lost_deletes_are_caught() {
    assert_eq!(kinds(&[wrote(1, 0, 1), only(Did::Deleted, 2, 3), read(1, 4, 5)], &[]), [What::LostDelete]);
    // Not by its value, but something is there.
    let found = [wrote(1, 0, 1), only(Did::Deleted, 2, 3), only(Did::Found, 4, 5)];
    assert_eq!(kinds(&found, &[]), [What::FoundNothing]);
    let appended = [wrote(1, 0, 1), only(Did::Deleted, 2, 3), record(Did::Appended, 4, 5, 2, (0, 0))];
    assert_eq!(kinds(&appended, &[]), [What::FoundNothing]);
    let deleted = [wrote(1, 0, 1), only(Did::Missed, 2, 3), only(Did::Deleted, 4, 5)];
    assert_eq!(kinds(&deleted, &[]), [What::DeletedNothing]);
    // It may be that of a write that was under way.
    let under_way = [wrote(1, 0, 1), only(Did::Deleted, 2, 5), wrote(2, 4, 8), only(Did::Found, 6, 7)];
    assert_eq!(kinds(&under_way, &[]), []);
}

#[test]
fn wrong_swaps_are_caught() {
    let swap = record(Did::Swapped, 6, 7, 3, (1, 0));
    assert_eq!(kinds(&[wrote(1, 0, 1), read(1, 2, 3), wrote(2, 4, 5), swap], &[]), [What::WrongSwap]);
    let two = [wrote(1, 0, 1), record(Did::Swapped, 2, 9, 2, (1, 0)), record(Did::Swapped, 2, 9, 3, (1, 0))];
    assert_eq!(kinds(&two, &[]), [What::WrongSwap]);
    let deleted = [wrote(1, 0, 1), only(Did::Deleted, 2, 3), record(Did::Swapped, 4, 5, 2, (1, 0))];
    assert_eq!(kinds(&deleted, &[]).first(), Some(&What::WrongSwap));
    let counted =
        [wrote(1, 0, 1), record(Did::Counted, 2, 3, 0, (1, 1)), record(Did::Swapped, 4, 5, 2, (1, 0))];
    assert_eq!(kinds(&counted, &[]), [What::WrongSwap]);
}

#[test]
fn lost_steps_are_caught() {
    // Acknowledged, then overwritten by the append of somebody who had not seen it.
    let lost = [
        wrote(1, 0, 1),
        record(Did::Appended, 2, 3, 2, (0, 0)),
        record(Did::Appended, 4, 5, 3, (0, 0)),
        read(3, 6, 7),
    ];
    assert_eq!(kinds(&lost, &[(3, 1)]), [What::LostStep]);
    // To a placeholder in place of what it was meant for.
    let nothing = [wrote(1, 0, 9), record(Did::Appended, 2, 3, 2, (0, 0)), read(2, 4, 5)];
    assert_eq!(kinds(&nothing, &[(2, 1)]), []);
    assert_eq!(kinds(&nothing, &[]), [What::LostStep]);
    let never = [wrote(1, 0, 1), record(Did::Appended, 2, 3, 2, (0, 0)), read(1, 4, 5)];
    assert_eq!(kinds(&never, &[]), [What::LostStep]);
    assert_eq!(kinds(&lost, &[(3, 2), (2, 3)]).first(), Some(&What::LostStep));
    // Two increments that were told the same, and one that was done twice.
    let same = [wrote(1, 0, 1), record(Did::Counted, 2, 3, 0, (1, 1)), record(Did::Counted, 4, 5, 0, (1, 1))];
    assert_eq!(kinds(&same, &[]), [What::LostStep]);
    let twice = [wrote(1, 0, 1), record(Did::Counted, 2, 3, 0, (1, 2))];
    assert_eq!(kinds(&twice, &[]), [What::LostStep]);
    let perhaps = [twice[0], only(Did::MayHaveCounted, 0, 0), twice[1]];
    assert_eq!(kinds(&perhaps, &[]), []);
    let backwards =
        [wrote(1, 0, 1), record(Did::Counted, 2, 3, 0, (1, 1)), record(Did::Read, 4, 5, 0, (1, 0))];
    assert_eq!(kinds(&backwards, &[]), [What::StaleRead]);
}

#[test]
fn a_history_is_checked_key_by_key() {
    let mut history = History::default();
    for key in [3, 1, 2] {
        for (did, begun, id, seen) in [(Did::Wrote, 0, key, 0), (Did::Read, 5, 0, key)] {
            let mut record = record(did, begun, begun + 1, id, (seen, 0));
            record.key = key;
            history.records.push(record);
        }
        let mut missed = only(Did::Missed, 8, 9);
        missed.key = key;
        history.records.push(missed);
    }
    let mut back = read(2, 20, 21);
    back.key = 2;
    history.records.push(back);
    let report = history.check();
    assert_eq!((report.operations, report.keys), (10, 3));
    assert_eq!(report.counts, [(What::Returned, 1)].into());
    assert!(report.to_string().contains("key 2, client 0"), "{report}");
}

/// A content as it is: the writes in it, and how often it was counted.
type State = Option<(Vec<u32>, u32)>;

/// An operation, what it read in full, and whether anything was read.
#[derive(Clone, Debug)]
struct Step {
    record: Record,
    content: Vec<u32>,
}

/// What `step` makes of `state`, or `None` where it cannot have happened so.
fn apply(step: &Step, state: &State) -> Option<State> {
    let record = &step.record;
    let version = |state: &State| {
        state.as_ref().and_then(|(writes, step)| Some(Version { write: *writes.last()?, step: *step }))
    };
    let fresh = Some((vec![record.id], 0));
    match record.did {
        Did::Read => {
            let content = (step.content.clone(), record.seen.step);
            (state.as_ref() == Some(&content)).then(|| state.clone())
        }
        Did::Missed => Some(None),
        Did::Deleted => state.is_some().then_some(None),
        Did::Found => state.is_some().then(|| state.clone()),
        Did::Wrote | Did::MayHaveWritten => Some(fresh),
        Did::Replaced => state.is_some().then_some(fresh),
        Did::Swapped | Did::MayHaveSwapped => (version(state) == Some(record.seen)).then_some(fresh),
        Did::Appended | Did::MayHaveAppended => {
            let (mut writes, step) = state.clone()?;
            writes.push(record.id);
            Some(Some((writes, step)))
        }
        Did::Counted | Did::MayHaveCounted => {
            let (writes, step) = state.clone()?;
            let told = Version { write: *writes.last()?, step: step + 1 };
            (record.did == Did::MayHaveCounted || told == record.seen).then_some(Some((writes, step + 1)))
        }
    }
}

/// Whether any order of the operations explains them.
fn explained(steps: &[Step], done: u32, state: &State) -> bool {
    let open = |index: usize| done & (1 << index) == 0;
    let is_certain = |step: &Step| step.record.ended_ns() != u64::MAX;
    if (0..steps.len()).all(|index| !open(index) || !is_certain(&steps[index])) {
        return true;
    }
    let first_end =
        (0..steps.len()).filter(|index| open(*index)).map(|index| steps[index].record.ended_ns()).min();
    (0..steps.len()).filter(|index| open(*index)).any(|index| {
        // Whatever was answered before this was asked comes first.
        first_end.is_none_or(|end| steps[index].record.begun_ns() <= end)
            && apply(&steps[index], state).is_some_and(|state| explained(steps, done | 1 << index, &state))
    })
}

/// xorshift64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A history that happened: operations at moments, with spans around them. `kinds` of operations are drawn.
fn happened(dice: &mut Dice, kinds: &[Did]) -> Vec<Step> {
    let mut state: State = None;
    let mut known: Vec<Version> = Vec::new();
    let mut steps: Vec<Step> = Vec::new();
    let (count, span) = (2 + dice.below(6), 1 + dice.below(40));
    for number in 0..count {
        let did = kinds[usize::try_from(dice.below(kinds.len() as u64)).unwrap()];
        let moment = 20 * number + 20;
        let (begun, ended) = (moment - dice.below(span).min(moment), moment + dice.below(span));
        let mut step = Step { record: record(did, begun, ended, 0, (0, 0)), content: Vec::new() };
        step.record.id = u32::try_from(number + 1).unwrap();
        if let (Did::Swapped | Did::MayHaveSwapped, false) = (did, known.is_empty()) {
            step.record.seen = known[usize::try_from(dice.below(known.len() as u64)).unwrap()];
        }
        if let (Did::Read | Did::Counted, Some((writes, counted))) = (did, &state) {
            let more = u32::from(did == Did::Counted);
            step.record.seen = Version { write: *writes.last().unwrap(), step: counted + more };
            step.content.clone_from(writes);
        }
        let skipped = step.record.ended_ns() == u64::MAX && dice.below(2) == 0;
        match apply(&step, &state) {
            Some(after) if !skipped => state = after,
            None if step.record.ended_ns() != u64::MAX => step.record.did = Did::Missed,
            Some(_) | None => {}
        }
        if step.record.did == Did::Missed {
            state = None;
        }
        if let Some((writes, counted)) = &state {
            known.push(Version { write: *writes.last().unwrap(), step: *counted });
        }
        steps.push(step);
    }
    steps
}

/// Makes something of it that perhaps cannot have happened.
fn spoil(dice: &mut Dice, steps: &mut [Step]) {
    let pick = |dice: &mut Dice| usize::try_from(dice.below(steps.len() as u64)).unwrap();
    let (one, other) = (pick(dice), pick(dice));
    match dice.below(3) {
        0 => {
            // Another time.
            let moved = steps[other].record;
            let (mut record, kept) = (
                Record::new(KEY, steps[one].record.did, moved.begun_ns(), moved.ended_ns().min(9999)),
                steps[one].record,
            );
            (record.id, record.seen) = (kept.id, kept.seen);
            steps[one].record = record;
        }
        1 => {
            // Another's eyes.
            if steps[one].record.did == steps[other].record.did {
                steps[one].record.seen = steps[other].record.seen;
                steps[one].content = steps[other].content.clone();
            }
        }
        _ => {
            let (begun, ended) = (steps[one].record.begun_ns(), steps[one].record.ended_ns());
            let gone = Record::new(KEY, Did::Missed, begun, ended.min(9999));
            steps[one] = Step { record: gone, content: Vec::new() };
        }
    }
}

fn complaints(steps: &[Step]) -> Vec<Violation> {
    let mut records: Vec<Record> = steps.iter().map(|step| step.record).collect();
    records.sort_by_key(Record::begun_ns);
    let mut links: Vec<Link> = Vec::new();
    for step in steps {
        for pair in step.content.windows(2) {
            links.push(Link { key: KEY, child: pair[1], parent: pair[0] });
        }
    }
    links.sort_unstable();
    links.dedup();
    check_key(&records, &links)
}

/// Texts and numbers, as a key is one of them.
const ALL: [&[Did]; 2] = [
    &[
        Did::Read,
        Did::Read,
        Did::Missed,
        Did::Deleted,
        Did::Found,
        Did::Wrote,
        Did::Replaced,
        Did::Swapped,
        Did::Appended,
        Did::Appended,
        Did::MayHaveWritten,
        Did::MayHaveSwapped,
        Did::MayHaveAppended,
    ],
    &[
        Did::Read,
        Did::Read,
        Did::Missed,
        Did::Deleted,
        Did::Found,
        Did::Wrote,
        Did::Replaced,
        Did::Swapped,
        Did::Counted,
        Did::Counted,
        Did::MayHaveWritten,
        Did::MayHaveSwapped,
        Did::MayHaveCounted,
    ],
];

/// Those for which the check is exact.
const EXACT: [&[Did]; 2] = [
    &[Did::Read, Did::Read, Did::Missed, Did::Wrote, Did::Swapped, Did::MayHaveWritten, Did::MayHaveSwapped],
    &[Did::Read, Did::Read, Did::Missed, Did::Wrote, Did::Swapped, Did::Counted, Did::Counted],
];

#[test]
fn the_check_agrees_with_a_search_through_every_order() {
    let (mut fine, mut wrong, mut missed) = (0, 0, 0);
    for seed in 1..=30_000_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let exact = seed % 2 == 0;
        let [texts, numbers] = if exact { EXACT } else { ALL };
        let kinds = if dice.below(2) == 0 { texts } else { numbers };
        let mut steps = happened(&mut dice, kinds);
        assert!(explained(&steps, 0, &None), "seed {seed} did not happen: {steps:?}");
        let spoils = dice.below(6);
        for _ in 0..spoils {
            spoil(&mut dice, &mut steps);
        }
        let (right, found) = (explained(&steps, 0, &None), complaints(&steps));
        if right {
            fine += 1;
            assert!(found.is_empty(), "seed {seed}: {steps:?}\nis fine, but {found:?}");
        } else {
            wrong += 1;
            missed += usize::from(found.is_empty());
            assert!(!exact || !found.is_empty(), "seed {seed}: {steps:?}\nhas no explanation");
        }
    }
    assert!(fine > 5_000 && wrong > 2_000, "{fine} fine, {wrong} wrong: the dice prove little");
    // What is not exact is still mostly caught.
    assert!(missed * 5 < wrong, "{missed} of {wrong} wrong ones were missed");
    eprintln!("{fine} fine, {wrong} wrong of which {missed} were missed");
}
