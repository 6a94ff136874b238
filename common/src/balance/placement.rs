//! Which server of a cluster owns a key, whatever the cluster's distribution.
//!
//! A [`Placement`] is built when the set of servers changes, and then only looked at. Servers are told by their
//! slots; a slot whose server has left stays vacant where order matters (`jump`, `modula`, `ch3`), and simply
//! is not there where names matter (rings, rendezvous).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::hash::mix;
use super::ketama::{Dialect, Ring, RingServer};
use super::rendezvous::{draws, rendezvous};
use super::{Function, furc, hashkit, jump};
use crate::ids::Address;

/// Hashes tried, or points of a ring passed, in search of an heir to a key before any server will do.
const TRIES_MAX: u32 = 32;
const POINTS_PASSED_MAX: usize = 4096;

/// How keys are spread over servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Jump hash over the order of servers. All get the same share.
    #[default]
    Jump,
    /// The remainder of the hash by the number of servers, each counted as often as its weight says.
    Modula,
    /// `modula` as twemproxy counts: in the order of the servers' names, the shorter first.
    ModulaByName,
    /// A ring of MD5 points by weight: libmemcached's weighted ketama, and twemproxy's.
    Ketama,
    /// libmemcached's ring without weights: a hundred points a server by the key's own function.
    KetamaUnweighted,
    /// `ketama` with spymemcached's labels.
    KetamaSpymemcached,
    /// `ketama` with EVCache's labels.
    KetamaEvcache,
    /// The highest draw wins: pymemcache's with `murmur3_32`, weighted with `xxh3`.
    Rendezvous,
    /// mcrouter's `Ch3`, and `WeightedCh3` when weights differ.
    Ch3,
    /// Dalli's ring of SHA-1 points by weight.
    Dalli,
}

impl Distribution {
    /// Whether servers may have different weights.
    pub fn takes_weights(self, function: Function) -> bool {
        match self {
            Self::Jump | Self::KetamaUnweighted => false,
            Self::Modula
            | Self::ModulaByName
            | Self::Ketama
            | Self::KetamaSpymemcached
            | Self::KetamaEvcache => true,
            Self::Ch3 | Self::Dalli => true,
            Self::Rendezvous => function == Function::Xxh3,
        }
    }

    /// The functions it can be used with; empty if all.
    pub fn functions(self) -> &'static [Function] {
        match self {
            Self::Rendezvous => &[Function::Xxh3, Function::Murmur3],
            Self::Ch3 => &[Function::Furc],
            Self::Jump
            | Self::Modula
            | Self::ModulaByName
            | Self::Ketama
            | Self::KetamaUnweighted
            | Self::KetamaSpymemcached
            | Self::KetamaEvcache
            | Self::Dalli => &[],
        }
    }
}

/// A server as distributions know it.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its position.
    pub slot: usize,
    /// Where it answers.
    pub address: &'a Address,
    /// What rings call it, if not by its address.
    pub name: Option<&'a str>,
    /// Its share beside the others'.
    pub weight: u32,
}

/// Everything a cluster's configuration says about where keys live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rule {
    /// How keys are hashed.
    pub function: Function,
    /// How hashes are spread.
    pub distribution: Distribution,
    /// The weight that counts as 1.0 in `ch3`; the greatest there is if left out.
    pub full_weight: Option<u32>,
}

/// Where each key lives. See the top of the file.
#[derive(Debug, Clone)]
pub struct Placement {
    table: Table,
    slots: usize,
}

#[derive(Debug, Clone)]
enum Table {
    Jump,
    /// Slots in order, each with the sum of the weights up to and with it.
    Modula(Box<[(u64, usize)]>),
    Ring(Ring),
    /// By slot: seed and weight.
    Rendezvous(Box<[(u64, f64)]>),
    /// By slot: the label with its dash, if there is a server.
    Pymemcache(Box<[Option<Box<[u8]>>]>),
    Ch3,
    /// By slot: the dice below which a server keeps a key.
    WeightedCh3(Box<[u64]>),
}

impl Default for Placement {
    fn default() -> Self {
        Self::new(Rule::default(), &[])
    }
}

impl Placement {
    /// Where keys live among these servers.
    pub fn new(rule: Rule, places: &[Place<'_>]) -> Self {
        let slots = places.iter().map(|place| place.slot + 1).max().unwrap_or_default();
        let ring = |dialect| Table::Ring(Ring::new(dialect, rule.function, &ring_servers(dialect, places)));
        let table = match rule.distribution {
            Distribution::Jump => Table::Jump,
            Distribution::Modula => Table::Modula(modula(slots, places)),
            Distribution::ModulaByName => Table::Modula(modula_by_name(places)),
            Distribution::Ketama => ring(Dialect::Libmemcached),
            Distribution::KetamaUnweighted => ring(Dialect::Unweighted),
            Distribution::KetamaSpymemcached => ring(Dialect::Spymemcached),
            Distribution::KetamaEvcache => ring(Dialect::Evcache),
            Distribution::Dalli => ring(Dialect::Dalli),
            Distribution::Rendezvous if rule.function == Function::Murmur3 => {
                Table::Pymemcache(by_slot(slots, places, |place| {
                    Some(
                        format!("{}-", label(place, place.address.to_string()))
                            .into_bytes()
                            .into_boxed_slice(),
                    )
                }))
            }
            Distribution::Rendezvous => Table::Rendezvous(by_slot(slots, places, |place| {
                let label = label(place, place.address.to_string());
                (xxh3_64(label.as_bytes()), f64::from(place.weight))
            })),
            Distribution::Ch3 => ch3(rule, slots, places),
        };
        Self { table, slots }
    }

    /// Slots, vacant ones included.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The slot that owns a key: the part of it that counts, and its hash.
    pub fn owner(&self, key: &[u8], hash: u64) -> Option<usize> {
        match &self.table {
            Table::Jump => jump(hash, self.slots),
            Table::Ring(ring) => ring.owner(low(hash)),
            Table::Modula(sums) => remainder(hash, sums),
            Table::Ch3 => (self.slots > 0).then(|| furc::furc(hash, self.slots)),
            Table::WeightedCh3(thresholds) => {
                (!thresholds.is_empty()).then(|| furc::weighted_furc(key, thresholds))
            }
            Table::Rendezvous(nodes) => rendezvous(key, nodes.iter().copied()),
            Table::Pymemcache(labels) => scores(labels, key).max().map(|(_, _, slot)| slot),
        }
    }

    /// The owner of a key if `admits` says yes to it, else its first heir that is admitted: every sidecar that
    /// knows the same servers and the same of their health finds the same one. Ends after a bounded search.
    ///
    /// Heirs are those that the clients themselves would find where they drop a dead server from a ring or a
    /// rendezvous; elsewhere the hash is salted and looked up again.
    pub fn pick(&self, key: &[u8], hash: u64, mut admits: impl FnMut(usize) -> bool) -> Option<usize> {
        let owner = self.owner(key, hash)?;
        if admits(owner) {
            return Some(owner);
        }
        let heir = match &self.table {
            Table::Ring(ring) => {
                let mut asked = owner;
                // Many points in a row may be one server's, which is asked once.
                ring.owners(low(hash)).take(POINTS_PASSED_MAX).find(|&slot| {
                    let is_new = std::mem::replace(&mut asked, slot) != slot;
                    is_new && admits(slot)
                })
            }
            Table::Rendezvous(nodes) => {
                let mut drawn: Vec<_> = draws(key, nodes.iter().copied()).collect();
                drawn.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
                drawn.into_iter().map(|(_, slot)| slot).find(|&slot| slot != owner && admits(slot))
            }
            Table::Pymemcache(labels) => {
                let mut drawn: Vec<_> = scores(labels, key).collect();
                drawn.sort_unstable_by(|one, other| other.cmp(one));
                drawn.into_iter().map(|(_, _, slot)| slot).find(|&slot| slot != owner && admits(slot))
            }
            Table::Jump | Table::Modula(_) | Table::Ch3 | Table::WeightedCh3(_) => {
                (1..TRIES_MAX).filter_map(|salt| self.salted(mix(hash, salt))).find(|&slot| admits(slot))
            }
        };
        heir.or_else(|| (0..self.slots).find(|&slot| admits(slot)))
    }

    fn salted(&self, hash: u64) -> Option<usize> {
        match &self.table {
            Table::Modula(sums) => remainder(hash, sums),
            Table::Ch3 => Some(furc::furc(hash, self.slots)),
            Table::WeightedCh3(thresholds) => Some(furc::weighted_furc(&hash.to_le_bytes(), thresholds)),
            Table::Jump | Table::Ring(_) | Table::Rendezvous(_) | Table::Pymemcache(_) => {
                jump(hash, self.slots)
            }
        }
    }
}

/// What each of pymemcache's nodes draws for a key; of equal ones the greater name wins.
fn scores<'a>(
    labels: &'a [Option<Box<[u8]>>],
    key: &'a [u8],
) -> impl Iterator<Item = (u32, &'a [u8], usize)> {
    labels.iter().enumerate().filter_map(move |(slot, label)| {
        let label = label.as_deref()?;
        Some((hashkit::murmur3_32(&[label, key]), label, slot))
    })
}

/// Rings look at 32 bits.
fn low(hash: u64) -> u32 {
    (hash & 0xffff_ffff) as u32
}

/// The slot in whose part of all weights the remainder falls.
fn remainder(hash: u64, sums: &[(u64, usize)]) -> Option<usize> {
    let bucket = hash.checked_rem(sums.last()?.0)?;
    sums.get(sums.partition_point(|&(sum, _)| sum <= bucket)).map(|&(_, slot)| slot)
}

/// What rings and rendezvous call a server.
fn label(place: &Place<'_>, address: String) -> String {
    place.name.map_or(address, str::to_owned)
}

fn by_slot<T: Default>(slots: usize, places: &[Place<'_>], make: impl Fn(&Place<'_>) -> T) -> Box<[T]> {
    let mut made: Vec<T> = Vec::new();
    made.resize_with(slots, T::default);
    for place in places {
        if let Some(slot) = made.get_mut(place.slot) {
            *slot = make(place);
        }
    }
    made.into_boxed_slice()
}

/// A vacant slot counts as one: without it every key would move.
fn modula(slots: usize, places: &[Place<'_>]) -> Box<[(u64, usize)]> {
    let weights = by_slot(slots, places, |place| Some(place.weight));
    sums(weights.iter().enumerate().map(|(slot, weight)| (weight.unwrap_or(1), slot)))
}

/// twemproxy sorts a pool's servers to find names given twice, and leaves them so.
fn modula_by_name(places: &[Place<'_>]) -> Box<[(u64, usize)]> {
    let mut named = ring_servers(Dialect::Libmemcached, places);
    named.sort_by(|one, other| {
        one.label.len().cmp(&other.label.len()).then_with(|| one.label.cmp(&other.label))
    });
    sums(named.iter().map(|server| (server.weight, server.slot)))
}

fn sums(weights: impl Iterator<Item = (u32, usize)>) -> Box<[(u64, usize)]> {
    let mut sum = 0;
    weights
        .map(|(weight, slot)| {
            sum += u64::from(weight);
            (sum, slot)
        })
        .collect()
}

fn ch3(rule: Rule, slots: usize, places: &[Place<'_>]) -> Table {
    let full = rule.full_weight.or_else(|| places.iter().map(|place| place.weight).max()).unwrap_or(1).max(1);
    if places.iter().all(|place| place.weight == full) {
        return Table::Ch3;
    }
    let share = |weight: u32| furc::threshold((f64::from(weight) / f64::from(full)).min(1.0));
    // A vacant slot's keys are not spread over the others: its server may come back.
    let weights = by_slot(slots, places, |place| Some(place.weight));
    Table::WeightedCh3(weights.iter().map(|weight| share(weight.unwrap_or(full))).collect())
}

fn ring_servers(dialect: Dialect, places: &[Place<'_>]) -> Vec<RingServer> {
    let server = |place: &Place<'_>| RingServer {
        slot: place.slot,
        label: label(place, dialect.label(place.address)),
        weight: place.weight,
    };
    places.iter().map(server).collect()
}
