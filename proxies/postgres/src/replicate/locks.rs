//! Which transactions may run at the same time: locks on sets of tables, held to the end of a transaction.
//!
//! Strict two-phase locking: two transactions of which one writes what the other reads or writes have the same order
//! on every member, and it is the order of the log. Pure; [`super::waiting`] waits.

use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Who holds or wants locks.
pub type Owner = u64;

/// What a statement touches. Keys are the oids of tables (the least of those that change together) and of sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wants {
    /// Everything: what it touches is not known, or it may not run beside others.
    pub all: bool,
    /// What it writes.
    pub writes: BTreeSet<u32>,
    /// What it reads.
    pub reads: BTreeSet<u32>,
}

impl Wants {
    /// Everything there is.
    pub fn everything() -> Wants {
        Wants { all: true, ..Wants::default() }
    }

    /// Whether two may not be held at the same time.
    pub fn conflicts(&self, other: &Wants) -> bool {
        let meets = |a: &BTreeSet<u32>, b: &BTreeSet<u32>| a.intersection(b).next().is_some();
        self.all
            || other.all
            || meets(&self.writes, &other.writes)
            || meets(&self.writes, &other.reads)
            || meets(&self.reads, &other.writes)
    }

    fn covers(&self, other: &Wants) -> bool {
        let reads = |key: &u32| self.reads.contains(key) || self.writes.contains(key);
        self.all || (!other.all && other.writes.is_subset(&self.writes) && other.reads.iter().all(reads))
    }

    fn add(&mut self, other: Wants) {
        self.all |= other.all;
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
    }
}

/// What becomes of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// They are held.
    Granted,
    /// Others have to end first.
    Waits,
    /// Others wait for this one, and would for ever.
    Deadlock,
}

/// All locks of a group.
#[derive(Debug, Default)]
pub struct Table {
    held: BTreeMap<Owner, Wants>,
    /// In the order they came.
    waiting: Vec<(Owner, Wants)>,
}

impl Table {
    /// Asks for more locks. Who waits asks for nothing else until it is granted or has given up.
    pub fn ask(&mut self, owner: Owner, wants: Wants) -> Asked {
        if self.held.get(&owner).is_some_and(|held| held.covers(&wants)) {
            return Asked::Granted;
        }
        self.waiting.push((owner, wants));
        if self.blockers(owner).is_empty() {
            self.grant(owner);
            return Asked::Granted;
        }
        if self.waits_for_itself(owner) {
            self.waiting.retain(|(waiting, _)| *waiting != owner);
            return Asked::Deadlock;
        }
        Asked::Waits
    }

    /// Gives up waiting; what is held stays. Gives those who are granted theirs now.
    pub fn give_up(&mut self, owner: Owner) -> Vec<Owner> {
        self.waiting.retain(|(waiting, _)| *waiting != owner);
        self.grant_all()
    }

    /// Ends a transaction. Gives those who are granted theirs now.
    pub fn release(&mut self, owner: Owner) -> Vec<Owner> {
        self.held.remove(&owner);
        self.waiting.retain(|(waiting, _)| *waiting != owner);
        self.grant_all()
    }

    /// How many hold something, and how many wait.
    pub fn counts(&self) -> (usize, usize) {
        (self.held.len(), self.waiting.len())
    }

    fn grant_all(&mut self) -> Vec<Owner> {
        let mut granted = Vec::new();
        let waiting: Vec<Owner> = self.waiting.iter().map(|(owner, _)| *owner).collect();
        for owner in waiting {
            if self.blockers(owner).is_empty() {
                self.grant(owner);
                granted.push(owner);
            }
        }
        granted
    }

    fn grant(&mut self, owner: Owner) {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == owner) {
            let (_, wants) = self.waiting.remove(at);
            self.held.entry(owner).or_default().add(wants);
        }
    }

    /// Whom one that waits waits for: who holds what it wants, and who came before it and wants it, too; the latter only
    /// as long as it holds nothing, as others may wait for that.
    fn blockers(&self, owner: Owner) -> BTreeSet<Owner> {
        let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == owner) else {
            return BTreeSet::new();
        };
        let Some((_, wants)) = self.waiting.get(at) else { return BTreeSet::new() };
        let holders = self.held.iter().filter(|(other, held)| **other != owner && held.conflicts(wants));
        let before = if self.held.contains_key(&owner) { 0 } else { at };
        let earlier = self.waiting.iter().take(before).filter(|(_, other)| other.conflicts(wants));
        holders.map(|(other, _)| *other).chain(earlier.map(|(other, _)| *other)).collect()
    }

    fn waits_for_itself(&self, owner: Owner) -> bool {
        let mut seen = HashSet::new();
        let mut next: Vec<Owner> = self.blockers(owner).into_iter().collect();
        while let Some(other) = next.pop() {
            if other == owner {
                return true;
            }
            if seen.insert(other) {
                next.extend(self.blockers(other));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wants(all: bool, writes: &[u32], reads: &[u32]) -> Wants {
        Wants { all, writes: writes.iter().copied().collect(), reads: reads.iter().copied().collect() }
    }

    #[test]
    fn who_came_first_goes_first_and_a_barrier_is_not_overtaken() {
        let mut table = Table::default();
        assert_eq!(table.ask(1, wants(false, &[1], &[])), Asked::Granted);
        assert_eq!(table.ask(2, Wants::everything()), Asked::Waits);
        assert_eq!(table.ask(3, wants(false, &[2], &[])), Asked::Waits, "it would keep the barrier waiting");
        assert_eq!(table.ask(1, wants(false, &[2], &[])), Asked::Granted, "who holds something goes on");
        assert_eq!(table.release(1), [2]);
        assert_eq!(table.release(2), [3]);
        assert_eq!(table.release(3), Vec::<Owner>::new());
        assert_eq!(table.counts(), (0, 0));
    }

    #[test]
    fn a_circle_is_refused_to_whom_closes_it() {
        let mut table = Table::default();
        assert_eq!(table.ask(1, wants(false, &[1], &[])), Asked::Granted);
        assert_eq!(table.ask(2, wants(false, &[2], &[])), Asked::Granted);
        assert_eq!(table.ask(1, wants(false, &[], &[2])), Asked::Waits);
        assert_eq!(table.ask(2, wants(false, &[1], &[])), Asked::Deadlock);
        assert_eq!(table.release(2), [1]);
        // Two that read and both want to write.
        let mut table = Table::default();
        assert_eq!(table.ask(1, wants(false, &[], &[1])), Asked::Granted);
        assert_eq!(table.ask(2, wants(false, &[], &[1])), Asked::Granted);
        assert_eq!(table.ask(1, wants(false, &[1], &[])), Asked::Waits);
        assert_eq!(table.ask(2, wants(false, &[1], &[])), Asked::Deadlock);
    }

    fn any_wants() -> impl Strategy<Value = Wants> {
        let keys = || proptest::collection::btree_set(0u32..4, 0..3);
        (proptest::bool::weighted(0.1), keys(), keys()).prop_map(|(all, writes, reads)| Wants {
            all,
            writes,
            reads,
        })
    }

    proptest! {
        /// Nobody holds what conflicts, nobody is forgotten, and once nobody asks any more all get theirs.
        #[test]
        fn no_two_hold_what_conflicts_and_nobody_waits_for_ever(
            steps in proptest::collection::vec((0u64..5, any_wants(), proptest::bool::weighted(0.3)), 1..60)
        ) {
            let mut table = Table::default();
            let waits = |table: &Table, owner| table.waiting.iter().any(|(waiting, _)| *waiting == owner);
            for (owner, wants, ends) in steps {
                if ends {
                    table.release(owner);
                } else if !waits(&table, owner) {
                    table.ask(owner, wants);
                }
                let held: Vec<_> = table.held.iter().collect();
                for (index, (_, one)) in held.iter().enumerate() {
                    for (_, other) in held.iter().skip(index + 1) {
                        prop_assert!(!one.conflicts(other) || (**one == Wants::default() || **other == Wants::default()));
                    }
                }
                for (waiting, _) in &table.waiting {
                    prop_assert!(!table.waits_for_itself(*waiting));
                    prop_assert!(!table.blockers(*waiting).is_empty());
                }
            }
            while let Some(owner) = table.held.keys().copied().find(|owner| !waits(&table, *owner)) {
                table.release(owner);
            }
            prop_assert_eq!(table.counts(), (0, 0));
        }
    }
}
