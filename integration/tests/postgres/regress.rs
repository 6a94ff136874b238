//! PostgreSQL 15's own regression tests through the proxy: what ends otherwise than on the server itself, and why.
//!
//! They take minutes, so `make regress` runs them and `make test` does not.

use anyhow::{Result, ensure};
use harness::{Kind, Proxy, regress};

/// Some tests open a connection a role, and others count on a session's end.
const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases:
  regression: {endpoints: [$SERVER], pool: {mode: $MODE, size: 60}}
";

/// More than these would not be transparent, whatever the reasons.
const DIFFERENCES_MAX: usize = 20;

/// What a session in transaction mode does see of others, or of the proxy; some of it depends on which connection is
/// free.
const SHARED: [(&str, &str); 10] = [
    ("regress/constraints.sql", CURRVAL),
    ("regress/sequence.sql", CURRVAL),
    ("regress/guc.sql", "an earlier session has loaded PL/pgSQL; pg_prepared_statements lists the pool's"),
    (
        "regress/plancache.sql",
        "a statement by SQL that cannot be prepared any more is told as one that is not there",
    ),
    ("regress/prepare.sql", LISTED),
    ("regress/sysviews.sql", LISTED),
    ("regress/partition_prune.sql", "a function runs EXECUTE of a name that is only in its argument"),
    (
        "regress/triggers.sql",
        "refint's functions keep plans in the server session, with the values of their first use",
    ),
    ("regress/temp.sql", "an earlier session had a temporary table, so that the schema for them is there"),
    (
        "regress/stats.sql",
        "a backend reports what it counts when it is idle, and this one need not be the next",
    ),
];

const LISTED: &str = "pg_prepared_statements lists the pool's";
const CURRVAL: &str = "currval and lastval are the server connection's";

fn passes(name: &str, mode: &str, explained: &[(&str, &str)]) -> Result<()> {
    let (itself, behind) = (regress::server()?, regress::server()?);
    let direct = regress::at(itself.address())?;
    let proxy =
        Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", behind.address()).set("MODE", mode).start()?;
    let through = regress::at(proxy.address())?;
    let comparison = regress::compare(&format!("pg_regress, {name}"), direct, through)?;
    let differences = comparison.differences().len();
    comparison.settle(explained)?;
    ensure!(differences < DIFFERENCES_MAX, "{differences} files end otherwise: too many to explain");
    Ok(())
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn pg_regress_in_session_mode() -> Result<()> {
    passes("session mode", "session, reuse: false", &[])
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn pg_regress_in_transaction_mode() -> Result<()> {
    passes("transaction mode", "transaction", &SHARED)
}
