//! Which lists of servers there may be, and how one follows from another. Pure.

use std::collections::{BTreeMap, BTreeSet};

use groove_common::balance::Rule;
use groove_common::config::Endpoint;
use groove_common::ids::Address;

use super::view::{Phase, Place, View};

/// More servers than this are a mistake of a source rather than a cluster.
const SERVERS_MAX: usize = 1024;

/// Keys that are drawn to tell how much moves.
const SAMPLES: u64 = 10_000;

/// Why a list cannot be a cluster's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is none.
    #[error("the list has no server")]
    Empty,
    /// Too many.
    #[error("the list has more than {SERVERS_MAX} servers")]
    TooLong,
    /// One of them twice.
    #[error("{0} is in the list twice")]
    Twice(Address),
}

/// Whether a list can be a cluster's.
///
/// # Errors
///
/// Why not.
pub fn check(list: &[Endpoint]) -> Result<(), Unfit> {
    if list.is_empty() {
        return Err(Unfit::Empty);
    }
    if list.len() > SERVERS_MAX {
        return Err(Unfit::TooLong);
    }
    let mut seen = BTreeSet::new();
    match list.iter().find(|endpoint| !seen.insert(&endpoint.address)) {
        Some(twice) => Err(Unfit::Twice(twice.address.clone())),
        None => Ok(()),
    }
}

/// The list that comes of a set without an order (DNS): who stays keeps its slot, newcomers take the slots of
/// those that left and then new ones, and slots that are left over are filled from the end.
pub fn fit(committed: &[Endpoint], found: &[Endpoint]) -> Vec<Endpoint> {
    let known = |address: &Address| committed.iter().any(|endpoint| endpoint.address == *address);
    let mut newcomers = found.iter().filter(|endpoint| !known(&endpoint.address)).cloned();
    let slots = committed.iter().map(|slot| found.iter().find(|endpoint| endpoint.address == slot.address));
    let mut slots: Vec<Option<Endpoint>> =
        slots.map(|slot| slot.cloned().or_else(|| newcomers.next())).collect();
    slots.extend(newcomers.map(Some));
    while let Some(hole) = slots.iter().position(Option::is_none) {
        // The last one moves in; if the hole is the last itself, it goes.
        slots.swap_remove(hole);
    }
    slots.into_iter().flatten().collect()
}

/// The servers that are only in one of two lists: those that come, those that go.
pub fn difference<'l>(old: &'l [Endpoint], new: &'l [Endpoint]) -> (Vec<&'l Address>, Vec<&'l Address>) {
    let only = |these: &'l [Endpoint], those: &[Endpoint]| {
        let other = |address: &Address| those.iter().any(|endpoint| endpoint.address == *address);
        these.iter().map(|endpoint| &endpoint.address).filter(|address| !other(address)).collect()
    };
    (only(new, old), only(old, new))
}

/// The share of all keys that changes its server, from 0 to 1, of a sample.
pub fn moved_share(rule: Rule, old: &[Endpoint], new: &[Endpoint]) -> f64 {
    let view = View::changing(rule, 1, Phase::E, old, new, &BTreeMap::new());
    let moves = |number: &u64| {
        // Numbers in a row, spread over all hashes (Fibonacci hashing).
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        match view.place(number.to_string().as_bytes(), hash) {
            Place::Moving { .. } => true,
            Place::One(_) | Place::Nowhere => false,
        }
    };
    let moved = (1..=SAMPLES).filter(moves).count();
    moved as f64 / SAMPLES as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(ports: &[u16]) -> Vec<Endpoint> {
        ports.iter().map(|&port| Endpoint::from(Address::tcp("10.0.0.1", port))).collect()
    }

    #[test]
    fn a_list_has_servers_and_each_once() {
        assert_eq!(check(&list(&[1, 2])), Ok(()));
        assert_eq!(check(&[]), Err(Unfit::Empty));
        assert_eq!(check(&list(&[1, 2, 1])), Err(Unfit::Twice(Address::tcp("10.0.0.1", 1))));
        assert_eq!(check(&list(&(1..=1025).collect::<Vec<_>>())), Err(Unfit::TooLong));
    }

    #[test]
    fn a_set_keeps_the_slots_of_those_that_stay() {
        let fit = |found: &[u16]| fit(&list(&[1, 2, 3, 4]), &list(found));
        assert_eq!(fit(&[4, 3, 2, 1]), list(&[1, 2, 3, 4]));
        assert_eq!(fit(&[5, 4, 3, 2, 1]), list(&[1, 2, 3, 4, 5]));
        assert_eq!(fit(&[4, 9, 3, 1]), list(&[1, 9, 3, 4]));
        assert_eq!(fit(&[2, 3, 4]), list(&[4, 2, 3]));
        assert_eq!(fit(&[1]), list(&[1]));
        assert_eq!(fit(&[7, 8]), list(&[7, 8]));
    }

    proptest! {
        #[test]
        fn a_fitted_list_has_just_who_was_found(
            committed in proptest::collection::btree_set(1_u16..12, 1..8),
            found in proptest::collection::btree_set(1_u16..12, 1..8),
        ) {
            let (committed, found): (Vec<_>, Vec<_>) =
                (committed.into_iter().collect(), found.into_iter().collect());
            let fitted = fit(&list(&committed), &list(&found));
            let mut sorted = fitted.clone();
            sorted.sort_by(|a, b| a.address.cmp(&b.address));
            prop_assert_eq!(sorted, list(&found));
            if found.len() >= committed.len() {
                for (slot, endpoint) in list(&committed).iter().enumerate() {
                    prop_assert!(!list(&found).contains(endpoint) || fitted.get(slot) == Some(endpoint));
                }
            }
        }
    }

    #[test]
    fn one_server_more_moves_its_own_share() {
        let share = moved_share(Rule::default(), &list(&[1, 2, 3]), &list(&[1, 2, 3, 4]));
        assert!((0.23..0.27).contains(&share), "{share}");
        assert!(moved_share(Rule::default(), &list(&[1, 2]), &list(&[1, 2])) < 1e-9);
        let (old, new) = (list(&[1, 2, 3]), list(&[3, 4]));
        let (comes, goes) = difference(&old, &new);
        assert_eq!((comes, goes), (vec![&new[1].address], vec![&old[0].address, &old[1].address]));
    }
}
