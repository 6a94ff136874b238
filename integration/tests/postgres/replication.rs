//! Connections for replication: COPY in both directions, on a server connection of their own.

use std::process::Command;

use anyhow::{Result, ensure};
use harness::{Kind, Postgres, Proxy, paths};

use super::TRUSTING;

const HBA: &str = "local all all trust
host all all 127.0.0.1/32 trust
host replication all 127.0.0.1/32 trust
";

/// Runs one of PostgreSQL's tools at the proxy.
fn tool(proxy: &Proxy, name: &str, arguments: &[&str]) -> Result<()> {
    let address = proxy.address();
    let mut command = Command::new(paths::program(name)?);
    command.args([format!("--host={}", address.ip()), format!("--port={}", address.port())]);
    let output = harness::run(command.args(["--username=app", "--no-password"]).args(arguments))?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn a_server_is_copied_and_its_wal_received() -> Result<()> {
    let server = Postgres::builder().hba(HBA).start()?;
    server
        .sql("shop", "ALTER ROLE app REPLICATION; CREATE TABLE kept AS SELECT generate_series(1, 10000)")?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    let folder = tempfile::tempdir()?;
    let (copy, wal) = (folder.path().join("copy"), folder.path().join("wal"));

    // Two connections: the one streams what is written while the other copies.
    let into = format!("--pgdata={}", copy.display());
    tool(&proxy, "pg_basebackup", &[&into, "--wal-method=stream", "--no-sync", "--checkpoint=fast"])?;
    assert_eq!(std::fs::read_to_string(copy.join("PG_VERSION"))?.trim(), "15");

    std::fs::create_dir(&wal)?;
    tool(&proxy, "pg_receivewal", &["--slot=kept", "--create-slot"])?;
    let end = server.sql("shop", "INSERT INTO kept VALUES (0); SELECT pg_current_wal_insert_lsn()")?;
    let end = end.lines().last().unwrap_or_default().trim().to_owned();
    let into = format!("--directory={}", wal.display());
    tool(
        &proxy,
        "pg_receivewal",
        &[&into, "--slot=kept", &format!("--endpos={end}"), "--no-loop", "--no-sync"],
    )?;
    assert!(std::fs::read_dir(&wal)?.count() > 0, "up to {end}");
    Ok(())
}
