//! How many connections each pool may have: its size, its reserve when clients wait for long, and its share of what
//! there may be in all.
//!
//! Shares follow demand, and none of this is on the way of a lease: a pool is told a number, and keeps to it by itself.
//! Somebody looks while clients wait; while nobody does, nothing changes.
//!
//! ```text
//! 10 in all     leased + waiting      share
//! shop.app             40               4     as much as anybody gets
//! shop.reports          2               2     all it wants
//! crm.app               9               4
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Directory;
use crate::config::Config;

/// How long until demand is looked at again while clients wait.
const ROUND: Duration = Duration::from_millis(20);

/// Wakes who divides.
#[derive(Default)]
pub(super) struct Shares {
    /// Whether the configuration has anything to divide or to add.
    wanted: AtomicBool,
    somebody_waits: Notify,
    /// Who gets what is left when not everybody can have one more.
    turn: AtomicUsize,
}

/// What a pool would make use of, in connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// At most, the reserve included while it is due.
    pub(super) size: usize,
    /// Those at work and those that clients wait for; at least those that are kept warm.
    pub(super) demand: usize,
    /// Those that are open or being opened.
    pub(super) open: usize,
}

impl Shares {
    /// A client waits for a connection.
    pub(super) fn nudge(&self) {
        if self.wanted.load(Ordering::Relaxed) {
            self.somebody_waits.notify_one();
        }
    }

    /// Looks at everything again, for what the configuration says.
    pub(super) fn configure(&self, config: &Config) {
        let wanted = config.limits.server_connections.is_some()
            || config.databases.values().any(|database| database.pool.reserve > 0);
        let was_wanted = self.wanted.swap(wanted, Ordering::Relaxed);
        if wanted || was_wanted {
            self.somebody_waits.notify_one();
        }
    }
}

impl Directory {
    /// Divides what there is among the pools. Whether to look again soon.
    fn share(&self) -> bool {
        let limit = self.config().limits.server_connections.map(|limit| limit as usize);
        let pools = self.pools();
        let now = Instant::now();
        let wants: Vec<Want> = pools.iter().map(|pool| pool.want(now)).collect();
        let Some(limit) = limit else {
            pools.iter().zip(&wants).for_each(|(pool, want)| pool.allow(want.size));
            return pools.iter().any(|pool| pool.is_crowded());
        };
        let turn = self.shares.turn.fetch_add(1, Ordering::Relaxed);
        let shares = divide(limit, &wants, turn);
        for (pool, share) in pools.iter().zip(&shares) {
            pool.allow(pool.allowed().min(*share));
        }
        // A pool that has more than its share now gives it up as its clients are done: nobody gets that before.
        let taken: usize = pools.iter().map(|pool| pool.allowed().max(pool.want(now).open)).sum();
        let mut free = limit.saturating_sub(taken);
        let mut is_settled = true;
        let first = turn.checked_rem(pools.len()).unwrap_or_default();
        let in_turn = pools.iter().zip(&shares).cycle().skip(first).take(pools.len());
        for (pool, share) in in_turn {
            let allowed = pool.allowed();
            let room = allowed.max(pool.want(now).open);
            let more = share.saturating_sub(room).min(free);
            free -= more;
            pool.allow(allowed.max((room + more).min(*share)));
            is_settled &= pool.allowed() == *share;
        }
        !is_settled || pools.iter().any(|pool| pool.is_crowded())
    }
}

impl Drop for Directory {
    /// Who waits to divide finds that it is gone.
    fn drop(&mut self) {
        self.shares.somebody_waits.notify_one();
    }
}

/// Looks while clients wait, until the directory is gone.
pub(super) async fn keep(directory: Weak<Directory>, shares: Arc<Shares>) {
    let mut again = false;
    loop {
        if again {
            sleep(ROUND).await;
        } else {
            shares.somebody_waits.notified().await;
        }
        let Some(directory) = directory.upgrade() else { return };
        again = directory.share() && shares.wanted.load(Ordering::Relaxed);
    }
}

/// Shares of `limit`, of which nobody has more while another wants more; what nobody wants goes to those who have it
/// open, and then to those who may come to want it.
fn divide(limit: usize, wants: &[Want], turn: usize) -> Vec<usize> {
    let mut shares = vec![0; wants.len()];
    raise(&mut shares, limit, turn, wants.iter().map(|want| want.demand.min(want.size)));
    raise(&mut shares, limit, turn, wants.iter().map(|want| want.demand.max(want.open).min(want.size)));
    raise(&mut shares, limit, turn, wants.iter().map(|want| want.size));
    shares
}

/// Raises the smallest shares first, none over its bound.
fn raise(shares: &mut [usize], limit: usize, turn: usize, bounds: impl Iterator<Item = usize>) {
    let bounds: Vec<usize> = bounds.collect();
    let at = |level: usize, share: usize, bound: usize| share.max(level.min(bound));
    let total = |shares: &[usize], level| -> usize {
        shares.iter().zip(&bounds).map(|(share, bound)| at(level, *share, *bound)).sum()
    };
    let (mut level, mut over) = (0, limit + 1);
    while over - level > 1 {
        let middle = usize::midpoint(level, over);
        match total(shares, middle) <= limit {
            true => level = middle,
            false => over = middle,
        }
    }
    for (share, bound) in shares.iter_mut().zip(&bounds) {
        *share = at(level, *share, *bound);
    }
    let mut left = limit.saturating_sub(total(shares, 0));
    let first = turn.checked_rem(shares.len()).unwrap_or_default();
    let mut more: Vec<&mut usize> = shares
        .iter_mut()
        .zip(&bounds)
        .filter(|(share, bound)| **share < **bound)
        .map(|(share, _)| share)
        .collect();
    let count = more.len();
    more.rotate_left(first.checked_rem(count).unwrap_or_default());
    for share in more.into_iter().filter(|share| **share <= level) {
        if left > 0 {
            *share += 1;
            left -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(size: usize, demand: usize, open: usize) -> Want {
        Want { size, demand, open }
    }

    #[test]
    fn nobody_has_more_while_another_wants_more() {
        let wants = [want(20, 40, 10), want(20, 2, 0), want(20, 9, 0)];
        assert_eq!(divide(10, &wants, 0), [4, 2, 4]);
        assert_eq!(divide(60, &wants, 0), [20, 20, 20]);
        assert_eq!(divide(32, &wants, 0), [20, 3, 9], "what nobody wants raises the least");
    }

    #[test]
    fn what_nobody_wants_is_left_where_it_is() {
        assert_eq!(divide(10, &[want(20, 0, 8), want(20, 1, 1)], 0), [8, 2]);
        assert_eq!(divide(10, &[want(20, 0, 8), want(20, 5, 1)], 0), [5, 5]);
    }

    #[test]
    fn where_there_is_not_one_for_each_they_take_turns() {
        let wants = [want(5, 3, 0); 3];
        let mut had = [0; 3];
        for turn in 0..30 {
            let shares = divide(1, &wants, turn);
            assert_eq!(shares.iter().sum::<usize>(), 1);
            had.iter_mut().zip(shares).for_each(|(had, share)| *had += share);
        }
        assert_eq!(had, [10; 3]);
    }

    #[test]
    fn shares_are_within_every_bound() {
        let mut dice = 7_usize;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        for turn in 0..2000 {
            let wants: Vec<Want> = (0..roll(6)).map(|_| want(roll(9), roll(12), roll(9))).collect();
            let limit = roll(30);
            let shares = divide(limit, &wants, turn);
            let all: usize = wants.iter().map(|want| want.size).sum();
            assert_eq!(shares.iter().sum::<usize>(), limit.min(all), "{limit} of {wants:?}: {shares:?}");
            let wanted = |want: &Want| want.demand.min(want.size);
            for (share, want) in shares.iter().zip(&wants) {
                assert!(*share <= want.size, "{limit} of {wants:?}: {shares:?}");
                let most = shares.iter().zip(&wants).map(|(share, want)| (*share).min(wanted(want))).max();
                assert!(
                    *share >= wanted(want) || *share + 1 >= most.unwrap_or_default(),
                    "{limit} of {wants:?}: {shares:?}"
                );
            }
        }
    }
}
