//! asyncpg and psycopg 3.

use std::process::Command;

use anyhow::{Result, ensure};
use harness::{Postgres, Release, paths, run, suites};

use super::{IN_USE, SENDER, SHARED, TERMINATED, checkout, environment, stage, stage_of};

/// psycopg's asks whether it was asked for its password.
const WITH_PASSWORD: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
databases: {postgres: {endpoints: [$SERVER], pool: {mode: $MODE, size: 60}}}
users: {postgres: {password: secret}}
";

/// What may end otherwise in session mode, and why that is not the proxy's fault.
const SESSION: [(&str, &str); 4] = [
    (
        "test_executemany_server_failure_during_writes",
        "wants the server's error before 4 MiB are written: two sockets in a row hold as much as that",
    ),
    ("test_type_cache_invalidation_in_pool", IN_USE),
    // The last of its class, whose end it is.
    ("TestIntrospection::test_introspection_sticks_for_ps", IN_USE),
    ("test_pool_config_persistence", "fails on the server itself as well, in most runs on PostgreSQL 18"),
];

const TRANSACTION: [(&str, &str); 7] = [
    SESSION[0],
    SESSION[1],
    SESSION[2],
    SESSION[3],
    ("test_listeners", SENDER),
    ("test_pool_remote_close", TERMINATED),
    ("test_pool_min_size_restored_after_idle_connection_loss", TERMINATED),
];

fn asyncpg(release: Release, mode: &str, explained: &[(&str, &str)]) -> Result<()> {
    let source = suites::tests_of("asyncpg", "0.32.0")?;
    let (direct, _behind, proxy) = stage(release, mode)?;
    // The one left out wants linters and looks at no server.
    let arguments = ["-p", "no:asyncio", "--timeout", "60", "--ignore", "tests/test__sourcecode.py", "tests"];
    suites::compare(
        &format!("asyncpg, {mode} mode, PostgreSQL {release}"),
        &source,
        &arguments,
        &environment(direct.address().port()),
        &environment(proxy.address().port()),
    )?
    .settle(explained)
}

#[test]
fn asyncpgs_own_suite() -> Result<()> {
    asyncpg(Release::V15, "session", &SESSION)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn asyncpg_in_transaction_mode() -> Result<()> {
    asyncpg(Release::V15, "transaction", &TRANSACTION)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn asyncpg_in_transaction_mode_on_18() -> Result<()> {
    asyncpg(Release::V18, "transaction", &TRANSACTION)
}

/// What ends otherwise in psycopg's, by a part of the test's name.
const PSYCOPG: [(&str, &str); 16] = [
    ("test_pgconn::test_notify", SENDER),
    ("test_notify::test_notify_handlers", SENDER),
    ("test_notify_async::test_notify_handlers", SENDER),
    (
        "test_change_password",
        "logs in as a role that it has just made, which the proxy's configuration does not have",
    ),
    ("test_connect_check", TERMINATED),
    ("test_connect_no_check", TERMINATED),
    ("test_getconn_check", TERMINATED),
    ("test_stats_check", TERMINATED),
    ("test_check_connection", TERMINATED),
    ("::test_broken", TERMINATED),
    ("test_right_exception_on_server_disconnect", TERMINATED),
    ("test_context_inerror_rollback_no_clobber", TERMINATED),
    ("test_auto_prepare", SHARED),
    ("test_pipeline::test_prepared", SHARED),
    ("test_pipeline_async::test_prepared", SHARED),
    ("test_evict_lru_deallocate", SHARED),
];

fn psycopg(release: Release) -> Result<()> {
    let Some(checkout) = checkout("GROOVE_PSYCOPG", "psycopg")? else { return Ok(()) };
    // By themselves, so that the installed package is tested, which has its compiled parts. Whatever a test starts out
    // of the checkout must come along: where it lacks, the test fails on the server itself and compares nothing.
    let alone = tempfile::tempdir_in(paths::target()?)?;
    for part in ["tests", "tools", "pyproject.toml"] {
        let mut command = Command::new("cp");
        let output = run(command.arg("-a").arg(checkout.join(part)).arg(alone.path()))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let server = Postgres::builder().release(release);
    let (direct, _behind, proxy) = stage_of(server, WITH_PASSWORD, "transaction")?;
    let environment = |port: u16| {
        [(
            "PSYCOPG_TEST_DSN",
            format!("host=127.0.0.1 port={port} user=postgres password=secret dbname=postgres"),
        )]
    };
    // Those that are left out wait for clocks, run a type checker, or ask a name server.
    let arguments =
        ["-p", "no:asyncio", "--timeout", "30", "-m", "not slow and not mypy and not dns", "tests"];
    suites::compare(
        &format!("psycopg 3, transaction mode, PostgreSQL {release}"),
        alone.path(),
        &arguments,
        &environment(direct.address().port()),
        &environment(proxy.address().port()),
    )?
    .settle(&PSYCOPG)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn psycopg_in_transaction_mode() -> Result<()> {
    psycopg(Release::V15)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn psycopg_in_transaction_mode_on_18() -> Result<()> {
    psycopg(Release::V18)
}
