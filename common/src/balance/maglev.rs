//! Maglev hashing (Eisenbud et al., NSDI 2016, section 3.4): a look-up table in which each
//! node fills slots in its own order, by turns.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The paper's small table. A prime, and some hundred times the nodes it is meant for.
const TABLE_LEN: usize = 65_537;

/// A node's order of slots: `offset`, `offset + skip`, ... modulo the table's length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permutation {
    pub(super) offset: usize,
    pub(super) skip: usize,
    pub(super) weight: f64,
}

/// A table built once a set of nodes; a look-up is one remainder and one load.
///
/// Nearly even (within a per cent or two at a hundred slots a node), and when a node leaves
/// nearly all keys of the others stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maglev {
    table: Vec<u32>,
}

impl Maglev {
    /// From names and weights. Weight 0 gets nothing; nobody with a weight gives an empty table.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, f64)>) -> Self {
        let orders: Vec<_> = nodes.into_iter().map(|(name, weight)| order(name, weight)).collect();
        Self { table: populate(&orders, TABLE_LEN) }
    }

    /// The index, in the list given, of the node that owns a key with this hash.
    pub fn owner(&self, hash: u64) -> Option<usize> {
        let len = u64::try_from(self.table.len()).ok()?;
        let slot = usize::try_from(hash.checked_rem(len)?).ok()?;
        self.table.get(slot).and_then(|&index| usize::try_from(index).ok())
    }
}

fn order(name: &str, weight: f64) -> Permutation {
    let reduce = |hash: u64, len: usize| usize::try_from(hash % len as u64).unwrap_or_default();
    Permutation {
        offset: reduce(xxh3_64(name.as_bytes()), TABLE_LEN),
        skip: reduce(xxh3_64_with_seed(name.as_bytes(), 1), TABLE_LEN - 1) + 1,
        weight,
    }
}

/// The paper's algorithm 1, with turns in proportion to weight: a node takes a slot whenever
/// its credit, fed by its share of the heaviest weight each round, reaches one.
pub(super) fn populate(orders: &[Permutation], len: usize) -> Vec<u32> {
    const FREE: u32 = u32::MAX;
    let heaviest = orders.iter().map(|order| order.weight).fold(0.0, f64::max);
    if heaviest <= 0.0 {
        return Vec::new();
    }
    let mut table = vec![FREE; len];
    let mut next: Vec<usize> = orders.iter().map(|order| order.offset).collect();
    let mut credit = vec![0.0; orders.len()];
    let mut filled = 0;
    loop {
        for (node, (order, (next, credit))) in (0..).zip(orders.iter().zip(next.iter_mut().zip(&mut credit)))
        {
            *credit += order.weight / heaviest;
            if *credit < 1.0 {
                continue;
            }
            *credit -= 1.0;
            // Its skip is coprime to the prime length, so it comes past every slot.
            while let Some(slot) = table.get_mut(*next) {
                *next = (*next + order.skip) % len;
                if *slot == FREE {
                    *slot = node;
                    filled += 1;
                    break;
                }
            }
            if filled == len {
                return table;
            }
        }
    }
}
