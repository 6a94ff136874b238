//! What comes most, counted in bounded memory, whatever clients ask.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in data
//! streams", 2005), with the least being thrown out many at a time: when twice as many are known as are to be kept,
//! the lesser half goes, and whoever is new afterwards begins with the weight of the greatest that went. A weight is
//! never too small, and too great by no more than that.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

/// What is counted of one of many.
pub trait Tally {
    /// Of what weighs so much at the most, and of which nothing else is known.
    fn new(weight: u64) -> Self;

    /// How heavy it is, at the most: how often it came, or what is to count instead.
    fn weight(&self) -> u64;
}

/// The heaviest of many.
#[derive(Debug)]
pub struct Heavy<K, T> {
    kept: usize,
    tallies: HashMap<K, T>,
    /// The greatest weight that was thrown out.
    floor: u64,
}

impl<K: Hash + Eq + Ord, T: Tally> Heavy<K, T> {
    /// None yet; `kept` are kept apart, at least, and at most twice as many are known at a time.
    pub fn new(kept: usize) -> Self {
        Self { kept, tallies: HashMap::new(), floor: 0 }
    }

    /// Counts this one.
    pub fn add<Q>(&mut self, key: &Q, count: impl FnOnce(&mut T))
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        if let Some(tally) = self.tallies.get_mut(key) {
            return count(tally);
        }
        if self.tallies.len() >= 2 * self.kept {
            self.thin();
        }
        let mut tally = T::new(self.floor);
        count(&mut tally);
        self.tallies.insert(key.to_owned(), tally);
    }

    fn thin(&mut self) {
        let mut weights: Vec<u64> = self.tallies.values().map(Tally::weight).collect();
        let (_, median, _) = weights.select_nth_unstable(self.kept);
        let least = *median;
        // More than half may have this very weight: all of them go.
        self.tallies.retain(|_, tally| tally.weight() > least);
        self.floor = self.floor.max(least);
    }

    /// The first so many, the greatest `weight` first.
    pub fn top<W: Ord>(&self, count: usize, weight: impl Fn(&T) -> W) -> Vec<(&K, &T)> {
        let mut all: Vec<_> = self.tallies.iter().collect();
        all.sort_unstable_by(|(a_key, a), (b_key, b)| {
            weight(b).cmp(&weight(a)).then_with(|| a_key.cmp(b_key))
        });
        all.truncate(count);
        all
    }
}
