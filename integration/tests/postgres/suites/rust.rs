//! tokio-postgres and sqlx, whose crates have their tests.

use std::path::Path;

use anyhow::Result;
use harness::suites::{Comparison, Outcomes};
use harness::{Kind, Postgres, Proxy, Release, crates, paths};

use super::{SHARED, stage};

/// Every way to log in is tested, with these passwords.
const CONFIG: &str = "
listeners: [{address: '$AT'}]
admin: {address: $ADMIN}
databases: {postgres: {endpoints: [$SERVER], pool: {size: 40}}}
users:
  postgres: {password: secret}
  pass_user: {password: password}
  md5_user: {password: $MD5, server_password: password}
  scram_user: {password: password}
";

const ROLES: &str = "
    CREATE ROLE pass_user LOGIN PASSWORD 'password';
    SET password_encryption = 'md5';
    CREATE ROLE md5_user LOGIN PASSWORD 'password';
    SET password_encryption = 'scram-sha-256';
    CREATE ROLE scram_user LOGIN PASSWORD 'password';
    CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;";

const HBA: &str = "local all all trust
host all pass_user 127.0.0.1/32 password
host all md5_user 127.0.0.1/32 md5
host all all 127.0.0.1/32 scram-sha-256
";

/// `md5_user`'s password as the server stores it.
const MD5: &str = "md57cd2b9a92689eab2e58caf2da80afa15";

/// All conversions that do not exclude each other.
const FEATURES: &str = "array-impls,with-bit-vec-0_9,with-chrono-0_4,with-eui48-1,with-geo-types-0_7,\
    with-serde_json-1,with-uuid-1,with-time-0_3";

fn tokio_postgres(release: Release) -> Result<()> {
    let start = || -> Result<Postgres> {
        let server = Postgres::builder().release(release).hba(HBA).start()?;
        server.sql("postgres", ROLES)?;
        Ok(server)
    };
    let (direct, behind) = (start()?, start()?);
    let (address, source) = (direct.address(), crates::source("tokio-postgres", "0.7.18")?);
    let folder = source.with_file_name("tokio-postgres");
    crates::copy(&source, &folder)?;
    // The address is compiled in, so that the server itself and the proxy take turns at it.
    let port = address.port().to_string();
    crates::replace(
        &folder.join("tests"),
        &[("5433", port.as_str()), ("user=postgres", "user=postgres password=secret")],
    )?;
    let run =
        || crates::test(&folder, &["--test", "test", "--features", FEATURES, "--", "--test-threads=4"], &[]);
    let itself = run()?;
    drop(direct);
    let proxy = Proxy::of(Kind::Postgres).config(CONFIG).set("AT", address).set("MD5", MD5);
    let _proxy = proxy.set("SERVER", behind.address()).start()?;
    Comparison {
        name: format!("tokio-postgres, transaction mode, PostgreSQL {release}"),
        direct: itself,
        through: run()?,
    }
    .settle(&[("notices", "a notice about the startup packet: who logs into the server is the pool")])
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn tokio_postgres_in_transaction_mode() -> Result<()> {
    tokio_postgres(Release::V15)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn tokio_postgres_in_transaction_mode_on_18() -> Result<()> {
    tokio_postgres(Release::V18)
}

/// What is tested of sqlx: all that does not make up names of databases, which the proxy would have to know.
const SQLX: [&str; 6] = [
    "postgres",
    "postgres-types",
    "postgres-describe",
    "postgres-derives",
    "postgres-error",
    "postgres-query-builder",
];

const SQLX_FEATURES: &str = "postgres,runtime-tokio,macros,migrate,json,uuid,chrono,time,bigdecimal,rust_decimal,\
    ipnet,ipnetwork,mac_address,bit-vec";

fn sqlx(release: Release) -> Result<()> {
    let (direct, behind, proxy) = stage(release, "transaction")?;
    let source = crates::source("sqlx", "0.8.6")?;
    let folder = source.with_file_name("sqlx");
    crates::copy(&source, &folder)?;
    crates::copy(
        &paths::repository().join("integration/clients/sqlx-test"),
        &folder.with_file_name("sqlx-test"),
    )?;
    with_its_test_crate(&folder.join("Cargo.toml"))?;
    let setup = std::fs::read_to_string(folder.join("tests/postgres/setup.sql"))?;
    for server in [&direct, &behind] {
        server.sql("postgres", &setup)?;
    }
    // One by one: a program that hangs keeps no other from running.
    let run = |port: u16| -> Result<Outcomes> {
        let url = format!("postgres://postgres:secret@127.0.0.1:{port}/postgres");
        let mut outcomes = Outcomes::new();
        for program in SQLX {
            let arguments = ["--test", program, "--features", SQLX_FEATURES];
            let of_program = crates::test(&folder, &arguments, &[("DATABASE_URL", url.clone())])?;
            outcomes.extend(
                of_program.into_iter().map(|(test, outcome)| (format!("{program}::{test}"), outcome)),
            );
        }
        Ok(outcomes)
    };
    Comparison {
        name: format!("sqlx, transaction mode, PostgreSQL {release}"),
        direct: run(direct.address().port())?,
        through: run(proxy.address().port())?,
    }
    .settle(&[
        ("it_closes_statements_when_not_persistent", SHARED),
        ("test_pg_listener_implements_acquire", "pg_listening_channels() lists none of what the pool hears"),
    ])
}

/// A published manifest has lost the crate that was never published; ours takes its place. One that other databases'
/// tests need wants a library of C, and goes.
fn with_its_test_crate(manifest: &Path) -> Result<()> {
    let text = std::fs::read_to_string(manifest)?;
    let text = text.replace("[dev-dependencies.libsqlite3-sys]\nversion = \"0.30.1\"\n", "");
    std::fs::write(manifest, format!("{text}\n[dev-dependencies.sqlx-test]\npath = \"../sqlx-test\"\n"))?;
    Ok(())
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn sqlx_in_transaction_mode() -> Result<()> {
    sqlx(Release::V15)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn sqlx_in_transaction_mode_on_18() -> Result<()> {
    sqlx(Release::V18)
}
