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
        Traffic { database: database.clone(), total, average: since.average(time) }
    };
    config.databases.keys().map(of).collect()
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
    for (prefix, numbers) in [("total", total), ("avg", since.average(time))] {
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
