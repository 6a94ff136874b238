//! pg_dump and psql through the proxy: what they write and show is what the server itself gives.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, Postgres, Proxy, paths, regress};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
databases:
  shop: {endpoints: [$SERVER], pool: &pool {mode: $MODE, size: 3}}
  copy: {endpoints: [$SERVER], pool: *pool}
  regression: {endpoints: [$SERVER], pool: *pool}
users: {postgres: {server_password: secret}}
";

/// One of nearly every kind of object.
const SCHEMA: &str = include_str!("dump/schema.sql");

/// What psql does by itself: it asks the catalogues, sets savepoints, cursors and variables.
const COMMANDS: &str = include_str!("dump/commands.psql");

fn before(server: &Postgres, mode: &str) -> Result<Proxy> {
    Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address()).set("MODE", mode).start()
}

/// One of PostgreSQL's clients as the superuser at a port, and all it printed.
fn client(program: &str, port: u16, arguments: &[&str], folder: &Path) -> Result<String> {
    let mut command = Command::new(paths::program(program)?);
    command.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]).args(arguments);
    command.env("PGPASSWORD", "secret").env("PGAPPNAME", "client").current_dir(folder);
    let output = harness::run(&mut command)?;
    let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    ensure!(output.status.success(), "{program} {arguments:?}: {complained}");
    Ok(format!("{said}{complained}"))
}

/// Dumps both ways, restores both ways, and dumps what came of it. (The order of inherited columns need not survive a
/// restoration, so only two of them can be compared.)
fn survives(server: &Postgres, database: &str, mode: &str) -> Result<()> {
    let (proxy, folder) = (before(server, mode)?, tempfile::tempdir()?);
    let dump = |port: u16, database: &str| {
        // Without a key each dump has a random one in it.
        client("pg_dump", port, &["--restrict-key=groove", "-d", database], folder.path())
    };
    let (itself, through) = (server.address().port(), proxy.address().port());
    let original = dump(itself, database)?;
    ensure!(original.contains("CREATE TRIGGER"), "hardly a schema:\n{original}");
    same(&original, &dump(through, database)?)?;
    std::fs::write(folder.path().join("dump.sql"), &original)?;
    let restored = |port: u16| -> Result<String> {
        server.sql("postgres", "DROP DATABASE IF EXISTS copy WITH (FORCE)")?;
        server.sql("postgres", "CREATE DATABASE copy TEMPLATE template0")?;
        client(
            "psql",
            port,
            &["-Xq", "-v", "ON_ERROR_STOP=1", "-d", "copy", "-f", "dump.sql"],
            folder.path(),
        )?;
        dump(itself, "copy")
    };
    same(&restored(itself)?, &restored(through)?)
}

/// Names the first line that is not the same: dumps are long.
fn same(expected: &str, found: &str) -> Result<()> {
    let differing = expected.lines().zip(found.lines()).enumerate().find(|(_, (left, right))| left != right);
    if let Some((line, (left, right))) = differing {
        anyhow::bail!("line {}:\n  {left}\n  {right}", line + 1);
    }
    let [expected, found] = [expected, found].map(|text| text.lines().count());
    ensure!(expected == found, "{expected} lines, and {found} through the proxy");
    Ok(())
}

fn dumped(mode: &str) -> Result<()> {
    let server = Postgres::start()?;
    server.sql("shop", SCHEMA)?;
    survives(&server, "shop", mode)
}

#[test]
fn a_database_is_dumped_and_restored_in_session_mode() -> Result<()> {
    dumped("session")
}

#[test]
fn a_database_is_dumped_and_restored_in_transaction_mode() -> Result<()> {
    dumped("transaction")
}

#[test]
#[ignore = "a minute; make regress runs it"]
fn the_database_of_pg_regress_is_dumped_and_restored() -> Result<()> {
    let server = regress::server()?;
    regress::at(server.address())?;
    for mode in ["session", "transaction"] {
        survives(&server, "regression", mode).with_context(|| mode)?;
    }
    Ok(())
}

/// Runs [`COMMANDS`] on a server itself and on another through the proxy.
fn shows_the_same(mode: &str) -> Result<()> {
    let shown = |server: &Postgres, port: u16| -> Result<String> {
        server.sql("shop", SCHEMA)?;
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("commands.psql"), COMMANDS)?;
        let said = client("psql", port, &["-Xa", "-d", "shop", "-f", "commands.psql"], folder.path())?;
        // The title of what \watch shows is the time.
        Ok(said.lines().filter(|line| !line.ends_with("(every 0.01s)")).collect::<Vec<_>>().join("\n"))
    };
    let (itself, behind) = (Postgres::start()?, Postgres::start()?);
    let proxy = before(&behind, mode)?;
    let direct = shown(&itself, itself.address().port())?;
    ensure!(direct.contains("Access privileges") && direct.contains("division by zero"), "{direct}");
    same(&direct, &shown(&behind, proxy.address().port())?)
}

#[test]
fn psql_commands_show_the_same_in_session_mode() -> Result<()> {
    shows_the_same("session")
}

#[test]
fn psql_commands_show_the_same_in_transaction_mode() -> Result<()> {
    shows_the_same("transaction")
}
