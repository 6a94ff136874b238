//! Turns in proportion to weight, spread as evenly as they can be.

use std::time::Duration;

use super::Candidate;

/// Smooth weighted round robin, as nginx has it: weights 5, 1, 1 give `a a b a c a a`
/// and not `a a a a a b c`.
///
/// The credits belong to the positions of one set; start anew when the set changes.
#[derive(Debug, Clone, Default)]
pub struct WeightedRoundRobin {
    credits: Vec<f64>,
}

impl WeightedRoundRobin {
    /// For a set of `len` candidates.
    pub fn new(len: usize) -> Self {
        Self { credits: vec![0.0; len] }
    }

    /// Whose turn it is. Everybody earns its weight; the richest goes and pays for all.
    pub fn pick<C: Candidate>(&mut self, candidates: &[C], now: Duration) -> Option<usize> {
        let mut total = 0.0;
        let mut best: Option<(usize, f64)> = None;
        for (index, (candidate, credit)) in candidates.iter().zip(&mut self.credits).enumerate() {
            let weight = candidate.weight(now);
            if !candidate.is_usable() || weight <= 0.0 {
                continue;
            }
            *credit += weight;
            total += weight;
            if best.is_none_or(|(_, richest)| *credit > richest) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        *self.credits.get_mut(index)? -= total;
        Some(index)
    }
}
