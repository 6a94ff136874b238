//! PostgreSQL's own regression tests, pg_regress, on a server itself or through a proxy.
//!
//! Each of its files is a session of psql's whose output is compared with what is expected, up to twenty side by side;
//! they cover nearly all that a session can do, so whatever differs through a proxy tells what the proxy changes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::process::run;
use crate::suites::{Comparison, Outcome, Outcomes, file_name};
use crate::{Postgres, paths};

/// pg_regress itself has these settings made for the database it creates; ours it finds.
const PREPARE: [&str; 7] = [
    "CREATE DATABASE regression TEMPLATE template0 LOCALE 'C'",
    "ALTER DATABASE regression SET lc_messages TO 'C'",
    "ALTER DATABASE regression SET lc_monetary TO 'C'",
    "ALTER DATABASE regression SET lc_numeric TO 'C'",
    "ALTER DATABASE regression SET lc_time TO 'C'",
    "ALTER DATABASE regression SET bytea_output TO 'hex'",
    "ALTER DATABASE regression SET timezone_abbreviations TO 'Default'",
];

/// Everybody may come in, as in a server that pg_regress starts itself.
const HBA: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";

/// A statement that waits longer than this waits for ever: for a lock that another connection of its own session has.
const STUCK: &str = "30s";

/// What came of the tests, and how each that failed differs from what is expected.
#[derive(Clone, Debug, Default)]
pub struct Regressions {
    /// The files by name, such as `regress/triggers.sql`.
    pub outcomes: Outcomes,
    /// The hunks of those that failed.
    pub differences: BTreeMap<String, String>,
}

/// A server with what the tests want.
///
/// # Errors
/// When it does not start.
pub fn server() -> Result<Postgres> {
    let builder = Postgres::builder().hba(HBA).set("statement_timeout", STUCK);
    let server = builder.set("max_prepared_transactions", "10").start()?;
    for statement in PREPARE {
        server.sql("postgres", statement)?;
    }
    Ok(server)
}

/// Runs all tests at an address of a [`server`]'s: its own or a proxy's.
///
/// # Errors
/// When they cannot be run; those that fail are outcomes.
pub fn at(address: SocketAddr) -> Result<Regressions> {
    let source = source()?;
    let tests = source.join("regress");
    let output = output_folder()?;
    let program = paths::program("pg_regress")?;
    let mut command = Command::new(program);
    command.arg("--use-existing").arg(format!("--host={}", address.ip()));
    command.arg(format!("--port={}", address.port())).args(["--user=postgres", "--dbname=regression"]);
    command.args(["--max-concurrent-tests=20", "--bindir=/usr/lib/postgresql/15/bin"]);
    command.arg(format!("--inputdir={}", tests.display()));
    command.arg(format!("--outputdir={}", output.path().display()));
    command.arg(format!("--dlpath={}", source.join("lib").display()));
    command.arg(format!("--schedule={}", tests.join("parallel_schedule").display()));
    let said = run(command.current_dir(output.path()))?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let outcomes = outcomes_of(&said);
    ensure!(outcomes.len() > 100, "pg_regress ran {} tests:\n{said}", outcomes.len());
    // There is none when all passed.
    let differences = std::fs::read_to_string(output.path().join("regression.diffs")).unwrap_or_default();
    Ok(Regressions { outcomes, differences: by_file(&differences) })
}

/// Compares two runs and keeps the hunks of what failed through the proxy in `target/suites/NAME/`.
///
/// # Errors
/// When they cannot be written.
pub fn compare(name: &str, direct: Regressions, through: Regressions) -> Result<Comparison> {
    let folder = paths::target()?.join("suites").join(file_name(name));
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    for (file, hunks) in &through.differences {
        let file = Path::new(file).with_extension("diff");
        std::fs::write(folder.join(file.file_name().context("a test without a name")?), hunks)?;
    }
    Ok(Comparison { name: name.to_owned(), direct: direct.outcomes, through: through.outcomes })
}

/// Where the tests and their libraries are, fetched when they are not there yet.
fn source() -> Result<PathBuf> {
    let home = paths::target()?.join("clients");
    std::fs::create_dir_all(&home)?;
    let lock = std::fs::File::create(home.join("postgresql-15.lock"))?;
    lock.lock()?;
    let folder = home.join("postgresql-15");
    let script = paths::repository().join("scripts/postgres-source.sh");
    let output = run(Command::new(script).arg(&folder))?;
    ensure!(output.status.success(), "fetching: {}", String::from_utf8_lossy(&output.stderr));
    Ok(folder)
}

/// Tests write there, as themselves and by the server's hand.
fn output_folder() -> Result<TempDir> {
    let folder = TempDir::with_prefix("groove-regress-")?;
    let results = folder.path().join("results");
    std::fs::create_dir(&results)?;
    for folder in [folder.path(), &results] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777))?;
    }
    Ok(folder)
}

fn named(test: &str) -> String {
    format!("regress/{test}.sql")
}

/// Reads what pg_regress prints: `test NAME ... ok 12 ms`, and the same indented for one of a group.
fn outcomes_of(said: &str) -> Outcomes {
    said.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(" ... ")?;
            let outcome = match rest.split_whitespace().next()? {
                "ok" => Outcome::Passed,
                "FAILED" => Outcome::Failed,
                _other => return None,
            };
            Some((named(name.trim_start_matches("test ").trim()), outcome))
        })
        .collect()
}

/// Splits `regression.diffs` by the test each part is of.
fn by_file(differences: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::<String, String>::new();
    let mut current = None;
    for line in differences.lines() {
        if let Some(files) = line.strip_prefix("diff ") {
            // The last of the two is the result, whose name is the test's; an expected one may be a variant.
            let result = Path::new(files.rsplit(' ').next().unwrap_or_default());
            current = result.file_stem().map(|stem| named(&stem.to_string_lossy()));
        }
        if let Some(test) = &current {
            let hunks = files.entry(test.clone()).or_default();
            hunks.push_str(line);
            hunks.push('\n');
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_of_pg_regress_are_read() {
        const SAID: &str = "============== running regression test queries        ==============
test test_setup                   ... ok          133 ms
parallel group (2 tests):  varchar char
     varchar                      ... FAILED       52 ms
     char                         ... ok           37 ms
 1 of 3 tests failed. ";
        let expected = [
            ("regress/char.sql", Outcome::Passed),
            ("regress/test_setup.sql", Outcome::Passed),
            ("regress/varchar.sql", Outcome::Failed),
        ];
        assert_eq!(outcomes_of(SAID), expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }

    #[test]
    fn hunks_are_kept_by_the_test_they_are_of() {
        const DIFFERENCES: &str = "diff -U3 /s/expected/char_1.out /t/results/char.out\n--- a\n+++ b\n@@ -1 +1 @@\n\
            -x\n+y\ndiff -U3 /s/expected/guc.out /t/results/guc.out\n-z\n";
        let files = by_file(DIFFERENCES);
        assert_eq!(files.keys().collect::<Vec<_>>(), ["regress/char.sql", "regress/guc.sql"]);
        assert!(files["regress/guc.sql"].ends_with("guc.out\n-z\n"));
    }
}
