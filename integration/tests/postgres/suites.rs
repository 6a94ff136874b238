//! The own suite of a client library in session mode: it must end as it does on the server itself. (psycopg's is in
//! no package.)

use anyhow::Result;
use harness::{Kind, Postgres, Proxy, suites};

/// The suite wants a superuser and to log in often, so without a password, and makes databases of its own.
const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases:
  postgres: {endpoints: [$SERVER], pool: &pool {mode: session, size: 60}}
  testdb: {endpoints: [$SERVER], pool: *pool}
  asyncpg_intro_test: {endpoints: [$SERVER], pool: *pool}
users: {postgres: {server_password: secret}}
";

/// What may end otherwise, and why that is not the proxy's fault.
const EXPLAINED: [(&str, &str); 3] = [
    (
        "test_executemany_server_failure_during_writes",
        "wants the server's error before 4 MiB are written: two sockets in a row hold as much as that",
    ),
    ("test_type_cache_invalidation_in_pool", IN_USE),
    // The last of its class, whose end it is.
    ("TestIntrospection::test_introspection_sticks_for_ps", IN_USE),
];

const IN_USE: &str = "drops its database, in which the pool still has an idle connection";

fn environment(port: u16) -> Vec<(&'static str, String)> {
    [("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("PGPASSWORD", "secret"), ("PGDATABASE", "postgres")]
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .chain([("PGPORT", port.to_string())])
        .collect()
}

#[test]
fn asyncpgs_own_suite() -> Result<()> {
    let source = suites::tests_of("asyncpg", "0.32.0")?;
    let direct = Postgres::start()?;
    let behind = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", behind.address()).start()?;
    // The one left out wants linters and looks at no server.
    let arguments = ["-p", "no:asyncio", "--ignore", "tests/test__sourcecode.py", "tests"];
    suites::compare(
        "asyncpg's suite",
        &source,
        &arguments,
        &environment(direct.address().port()),
        &environment(proxy.address().port()),
    )?
    .settle(&EXPLAINED)
}
