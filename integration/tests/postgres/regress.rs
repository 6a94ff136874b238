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

/// A connection that an earlier session has used is not quite a new one, `DISCARD ALL` or not.
const USED: [(&str, &str); 3] = [
    ("regress/guc.sql", "an earlier session has loaded PL/pgSQL, and a library is never unloaded"),
    ("regress/temp.sql", "an earlier session had a temporary table, so that the schema for them is there"),
    ("regress/stats.sql", "counts sessions, and the server's outlive ours"),
];

fn passes(mode: &str, explained: &[(&str, &str)]) -> Result<()> {
    let (itself, behind) = (regress::server()?, regress::server()?);
    let direct = regress::at(itself.address())?;
    let proxy =
        Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", behind.address()).set("MODE", mode).start()?;
    let through = regress::at(proxy.address())?;
    let comparison = regress::compare(&format!("pg_regress, {mode} mode"), direct, through)?;
    let differences = comparison.differences().len();
    comparison.settle(explained)?;
    ensure!(differences < DIFFERENCES_MAX, "{differences} files end otherwise: too many to explain");
    Ok(())
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn pg_regress_in_session_mode() -> Result<()> {
    passes("session", &USED)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn pg_regress_in_transaction_mode() -> Result<()> {
    passes("transaction", &USED)
}
