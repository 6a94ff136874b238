//! How often a key is asked, about: counters that many keys share (Cormode, Muthukrishnan, "An improved data stream
//! summary: the count-min sketch and its applications", 2005), for this second and the one before.

use std::time::{Duration, Instant};

/// Counters of a row. A key is taken for another only if it shares counters with it in both rows.
const WIDTH: usize = 1 << 14;

/// What is counted together.
const WINDOW: Duration = Duration::from_secs(1);

/// Two rows of counters.
type Rows = [Box<[u16]>; 2];

/// Counts keys by their hashes. Never too little, up to its greatest number.
#[derive(Debug)]
pub(super) struct Sketch {
    now: Rows,
    before: Rows,
    /// When `now` began.
    began: Option<Instant>,
}

impl Sketch {
    pub(super) fn new() -> Self {
        let rows = || [0, 1].map(|_| vec![0; WIDTH].into_boxed_slice());
        Self { now: rows(), before: rows(), began: None }
    }

    /// Counts a key, and tells how often it was asked in this window or the one before, whichever is more.
    pub(super) fn count(&mut self, hash: u64, now: Instant) -> u16 {
        self.turn(now);
        let mut least = [u16::MAX; 2];
        for (row, place) in places(hash).into_iter().enumerate() {
            let of = |rows: &Rows| rows.get(row).and_then(|row| row.get(place)).copied().unwrap_or(0);
            let (count, before) = (of(&self.now).saturating_add(1), of(&self.before));
            if let Some(counter) = self.now.get_mut(row).and_then(|row| row.get_mut(place)) {
                *counter = count;
            }
            least = [least[0].min(count), least[1].min(before)];
        }
        least[0].max(least[1])
    }

    /// Begins another window when it is time.
    fn turn(&mut self, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed < WINDOW {
            return;
        }
        std::mem::swap(&mut self.now, &mut self.before);
        self.now.iter_mut().for_each(|row| row.fill(0));
        if passed >= 2 * WINDOW {
            self.before.iter_mut().for_each(|row| row.fill(0));
        }
        self.began = Some(now);
    }
}

/// A key's counter in each row: other bits of its hash.
fn places(hash: u64) -> [usize; 2] {
    [hash, hash >> 32].map(|bits| usize::try_from(bits % WIDTH as u64).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use groove_common::testing::Dice;

    use super::*;

    #[test]
    fn what_is_asked_often_is_told_from_what_is_not() {
        let (mut sketch, start, mut dice) = (Sketch::new(), Instant::now(), Dice::new(1));
        for _ in 0..99 {
            sketch.count(7, start);
        }
        let mut most = 0;
        for _ in 0..50_000 {
            most = most.max(sketch.count(dice.roll(), start));
        }
        assert_eq!(sketch.count(7, start).max(100), sketch.count(7, start) - 1, "no less than it was");
        assert!(most < 30, "a key that was asked once: {most}");
    }

    #[test]
    fn a_key_is_hot_for_a_second_more_and_no_longer() {
        let (mut sketch, start) = (Sketch::new(), Instant::now());
        for _ in 0..50 {
            sketch.count(7, start);
        }
        assert_eq!(sketch.count(7, start + WINDOW), 51 - 1);
        assert_eq!(sketch.count(7, start + 2 * WINDOW), 1);
        for _ in 0..50 {
            sketch.count(7, start + 2 * WINDOW);
        }
        assert_eq!(sketch.count(7, start + 9 * WINDOW), 1);
        let most = (0..70_000).map(|_| sketch.count(8, start + 9 * WINDOW)).max();
        assert_eq!(most, Some(u16::MAX));
    }
}
