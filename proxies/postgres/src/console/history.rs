//! What the databases had counted a while ago, for averages.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::Shared;
use crate::metrics::Totals;

/// PgBouncer's `stats_period`.
const PERIOD: Duration = Duration::from_secs(60);

/// Totals of each database at the ends of the last two periods: an average is over one period at the least, once there
/// was one, and two at the most.
#[derive(Default)]
pub struct History(Mutex<[Taken; 2]>);

/// Totals at one time.
#[derive(Clone)]
struct Taken {
    at: Instant,
    totals: BTreeMap<String, Totals>,
}

impl Default for Taken {
    fn default() -> Taken {
        Taken { at: Instant::now(), totals: BTreeMap::new() }
    }
}

impl History {
    fn note(&self, totals: BTreeMap<String, Totals>) {
        let mut taken = self.0.lock();
        taken.reverse();
        let [_, newer] = &mut *taken;
        *newer = Taken { at: Instant::now(), totals };
    }

    /// What has come of a database since the older of the two, and in what time.
    pub(super) fn since(&self, database: &str, now: Totals) -> (Totals, Duration) {
        let [older, _] = &*self.0.lock();
        let before = older.totals.get(database).copied().unwrap_or_default();
        (now.since(before), older.at.elapsed())
    }
}

/// What a database's pools have counted, those that are gone included.
pub fn totals(shared: &Shared, database: &str) -> Totals {
    let mut sum = shared.live.retired(database);
    shared.directory.pools_of(database).iter().for_each(|pool| sum += pool.metrics.totals());
    sum
}

/// Notes the totals once a period, until the proxy is gone.
pub async fn keep_history(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let Some(shared) = shared.upgrade() else { return };
        note(&shared);
    }
}

fn note(shared: &Arc<Shared>) {
    let config = shared.directory.config();
    let names = config.databases.keys();
    shared.history.note(names.map(|name| (name.clone(), totals(shared, name))).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_begin_with_the_last_period_but_one() {
        let of = |transactions| Totals { transactions, ..Totals::default() };
        let note = |history: &History, n| history.note(BTreeMap::from([("shop".to_owned(), of(n))]));
        let history = History::default();
        let since = |now| history.since("shop", of(now)).0.transactions;
        assert_eq!(since(5), 5, "since the start");
        note(&history, 5);
        assert_eq!(since(9), 9, "the first period is not over by one");
        note(&history, 9);
        assert_eq!(since(12), 7);
        note(&history, 12);
        assert_eq!((since(12), since(11)), (3, 2));
        assert_eq!(history.since("none", of(1)).0.transactions, 1, "one that is new");
    }
}
