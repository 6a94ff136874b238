//! What an operator may look at. Columns, their order and their types are those of PgBouncer 1.18.
//!
//! What is not measured here, or does not exist, is 0, empty or NULL.

mod people;
mod program;
mod traffic;

use bytes::BytesMut;

use super::command::Show;
use crate::Shared;
use crate::config::PoolMode;
use crate::wire::backend::{ErrorFields, put_notice};

/// Writes the rows, or for HELP the notice.
pub(super) fn put(shared: &Shared, what: Show, out: &mut BytesMut) {
    let table = match what {
        Show::Help => return put_help(out),
        Show::Version => program::version(),
        Show::Pools => people::pools(shared),
        Show::Clients => people::clients(shared),
        Show::Servers => people::servers(shared),
        Show::Databases => people::databases(shared),
        Show::Stats => traffic::stats(shared),
        Show::StatsTotals => traffic::totals_of_each(shared),
        Show::StatsAverages => traffic::averages_of_each(shared),
        Show::Totals => traffic::totals_of_all(shared),
        Show::Lists => program::lists(shared),
        Show::Config => program::config(shared),
        Show::Mem => program::mem(shared),
        Show::Users => program::users(shared),
        Show::State => program::state(shared),
    };
    table.put(out);
}

const HELP: &str = "
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION
\tSHOW LISTS|MEM|STATE
\tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tRELOAD
\tPAUSE [<db>] [TIMEOUT '<time>']
\tRESUME [<db>]
\tDISABLE <db>
\tENABLE <db>
\tRECONNECT [<db>]
\tKILL <db>
\tSHUTDOWN";

fn put_help(out: &mut BytesMut) {
    let message = "Console usage";
    put_notice(
        out,
        &ErrorFields { severity: "NOTICE", code: "00000", message, detail: Some(HELP), hint: None },
    );
}

fn mode(mode: PoolMode) -> &'static str {
    match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    }
}
