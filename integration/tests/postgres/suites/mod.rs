//! The own suites of client libraries, on the server itself and through the proxy: what ends otherwise, and why.
//!
//! The short one in session mode is a part of `make test`; `make regress` runs them all in transaction mode and on two
//! releases of PostgreSQL.

mod node;
mod python;
mod rust;

use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::{Kind, Postgres, PostgresBuilder, Proxy, Release, suites};

/// The suites want a superuser and to log in often, so without a password, and some make databases of their own.
const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases:
  postgres: {endpoints: [$SERVER], pool: &pool {mode: $MODE, size: 60}}
  testdb: {endpoints: [$SERVER], pool: *pool}
  asyncpg_intro_test: {endpoints: [$SERVER], pool: *pool}
  template1: {endpoints: [$SERVER], pool: *pool}
users: {postgres: {server_password: secret}}
";

/// Reasons that several suites meet.
const IN_USE: &str = "drops its database, in which the pool still has an idle connection";
const TERMINATED: &str = "ends a session by the process id it was told: that is the proxy's word for the session, and no server process";
const SENDER: &str = "compares a notification's process id with the one that the sender was told";
const SHARED: &str = "counts pg_prepared_statements, where a connection has those of all its sessions";

/// A server to compare with, and a proxy in this mode before another.
fn stage(release: Release, mode: &str) -> Result<(Postgres, Postgres, Proxy)> {
    stage_of(Postgres::builder().release(release), CONFIG, mode)
}

fn stage_of(server: PostgresBuilder, config: &str, mode: &str) -> Result<(Postgres, Postgres, Proxy)> {
    let (direct, behind) = (server.clone().start()?, server.start()?);
    let proxy =
        Proxy::of(Kind::Postgres).config(config).set("SERVER", behind.address()).set("MODE", mode).start()?;
    Ok((direct, behind, proxy))
}

/// What libpq and those who follow it read.
fn environment(port: u16) -> Vec<(&'static str, String)> {
    [("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGPASSWORD", "secret"), ("PGDATABASE", "postgres")]
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .chain([("PGPORT", port.to_string())])
        .collect()
}

/// A checkout of a library whose published package has no tests, named by an environment variable; `None` where that
/// says `none`, which the differences then tell. A suite that was merely forgotten may not pass for one that was run.
///
/// # Errors
/// When nothing is named.
fn checkout(variable: &str, library: &str) -> Result<Option<PathBuf>> {
    let named = std::env::var_os(variable).with_context(|| {
        format!("{library}'s packages have no tests: {variable} names a checkout of its source, or `none`")
    })?;
    if named != "none" {
        return Ok(Some(named.into()));
    }
    suites::left_out(library, "its packages have no tests, and no checkout was named")?;
    Ok(None)
}
