//! What went through: totals since the start, and averages.

use std::time::Duration;

use crate::Shared;
use crate::console::history::totals;
use crate::console::table::{Column, Kind::*, Table};
use crate::metrics::Totals;

const STATS: &[Column] = &[
    ("database", Text),
    ("total_xact_count", Numeric),
    ("total_query_count", Numeric),
    ("total_received", Numeric),
    ("total_sent", Numeric),
    ("total_xact_time", Numeric),
    ("total_query_time", Numeric),
    ("total_wait_time", Numeric),
    ("avg_xact_count", Numeric),
    ("avg_query_count", Numeric),
    ("avg_recv", Numeric),
    ("avg_sent", Numeric),
    ("avg_xact_time", Numeric),
    ("avg_query_time", Numeric),
    ("avg_wait_time", Numeric),
];

const EACH: &[Column] = &[
    ("database", Text),
    ("xact_count", Numeric),
    ("query_count", Numeric),
    ("bytes_received", Numeric),
    ("bytes_sent", Numeric),
    ("xact_time", Numeric),
    ("query_time", Numeric),
    ("wait_time", Numeric),
];

const ALL: &[Column] = &[("name", Text), ("value", Numeric)];

/// Totals of a database, and its averages.
struct Traffic {
    database: String,
    total: Totals,
    average: Totals,
}

fn traffic(shared: &Shared) -> Vec<Traffic> {
    let config = shared.directory.config();
    let of = |database: &String| {
        let total = totals(shared, database);
        let (since, time) = shared.history.since(database, total);
        Traffic { database: database.clone(), total, average: average(since, time) }
    };
    config.databases.keys().map(of).collect()
}

/// PgBouncer's averages: counts, bytes and waiting by the second, times by what took them.
fn average(since: Totals, time: Duration) -> Totals {
    let time_us = time.as_micros().max(1);
    let a_second = |n: u64| {
        let n = u128::from(n) * 1_000_000 / time_us;
        u64::try_from(n).unwrap_or(u64::MAX)
    };
    Totals {
        transactions: a_second(since.transactions),
        queries: a_second(since.queries),
        received: a_second(since.received),
        sent: a_second(since.sent),
        transaction_us: since.transaction_us.checked_div(since.transactions).unwrap_or(0),
        query_us: since.query_us.checked_div(since.queries).unwrap_or(0),
        wait_us: a_second(since.wait_us),
    }
}

pub(super) fn stats(shared: &Shared) -> Table {
    let mut table = Table::new(STATS);
    for Traffic { database, total, average } in traffic(shared) {
        table.row([
            database.into(),
            total.transactions.into(),
            total.queries.into(),
            total.received.into(),
            total.sent.into(),
            total.transaction_us.into(),
            total.query_us.into(),
            total.wait_us.into(),
            average.transactions.into(),
            average.queries.into(),
            average.received.into(),
            average.sent.into(),
            average.transaction_us.into(),
            average.query_us.into(),
            average.wait_us.into(),
        ]);
    }
    table
}

pub(super) fn totals_of_each(shared: &Shared) -> Table {
    each(traffic(shared).into_iter().map(|traffic| (traffic.database, traffic.total)))
}

pub(super) fn averages_of_each(shared: &Shared) -> Table {
    each(traffic(shared).into_iter().map(|traffic| (traffic.database, traffic.average)))
}

fn each(rows: impl Iterator<Item = (String, Totals)>) -> Table {
    let mut table = Table::new(EACH);
    for (database, numbers) in rows {
        table.row([
            database.into(),
            numbers.transactions.into(),
            numbers.queries.into(),
            numbers.received.into(),
            numbers.sent.into(),
            numbers.transaction_us.into(),
            numbers.query_us.into(),
            numbers.wait_us.into(),
        ]);
    }
    table
}

pub(super) fn totals_of_all(shared: &Shared) -> Table {
    let (mut total, mut since, mut time) = (Totals::default(), Totals::default(), Duration::ZERO);
    for database in shared.directory.config().databases.keys() {
        let of_one = totals(shared, database);
        let (of_late, period) = shared.history.since(database, of_one);
        total += of_one;
        since += of_late;
        time = time.max(period);
    }
    let mut table = Table::new(ALL);
    for (prefix, numbers) in [("total", total), ("avg", average(since, time))] {
        for (name, value) in [
            ("xact_count", numbers.transactions),
            ("query_count", numbers.queries),
            ("client_bytes", numbers.received),
            ("server_bytes", numbers.sent),
            ("xact_time", numbers.transaction_us),
            ("query_time", numbers.query_us),
            ("wait_time", numbers.wait_us),
        ] {
            table.row([format!("{prefix}_{name}").into(), value.into()]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_are_by_the_second_and_times_by_what_took_them() {
        let since = Totals {
            transactions: 20,
            queries: 60,
            received: 1_000,
            sent: 5_000,
            transaction_us: 4_000,
            query_us: 3_000,
            wait_us: 500,
        };
        let expected = Totals {
            transactions: 2,
            queries: 6,
            received: 100,
            sent: 500,
            transaction_us: 200,
            query_us: 50,
            wait_us: 50,
        };
        assert_eq!(average(since, Duration::from_secs(10)), expected);
        assert_eq!(
            average(Totals::default(), Duration::ZERO),
            Totals::default(),
            "nothing happened in no time"
        );
    }
}
