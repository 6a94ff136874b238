//! How much went through, once a period.

use std::sync::Weak;
use std::time::Instant;

use crate::Shared;
use crate::console::totals;
use crate::metrics::Totals;

/// Tells the log, until the proxy is gone.
pub async fn tell_stats(shared: Weak<Shared>) {
    let (mut before, mut at) = (Totals::default(), Instant::now());
    loop {
        let Some(period) = shared.upgrade().map(|shared| shared.pgbadger.open.load().stats) else { return };
        tokio::time::sleep(period).await;
        let Some(shared) = shared.upgrade() else { return };
        let (now, since) = (of_all(&shared), at.elapsed());
        shared.pgbadger.stats(now.since(before).average(since));
        (before, at) = (now, Instant::now());
    }
}

/// What all databases have counted.
fn of_all(shared: &Shared) -> Totals {
    let mut sum = Totals::default();
    shared.directory.config().databases.keys().for_each(|database| sum += totals(shared, database));
    sum
}
