//! node-postgres. What npm has of it are its parts without their tests, so a checkout is needed for these.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::suites::{Comparison, Outcome, Outcomes};
use harness::{Release, npm, paths, run};

use super::{TERMINATED, checkout, environment, stage};

/// The library, and what its tests use.
const PACKAGES: [&str; 5] =
    ["pg@8.23.0", "async@2.6.4", "bluebird@3.7.2", "co@4.6.0", "pg-copy-streams@0.3.0"];

/// How long a file of tests may take, which the suite itself leaves open; several wait for seconds by design.
const FILE_S: &str = "40";

const EXPLAINED: [(&str, &str); 2] =
    [("connection-pool/error-tests.js", TERMINATED), ("gh-issues/130-tests.js", TERMINATED)];

fn node_postgres(release: Release) -> Result<()> {
    let Some(checkout) = checkout("GROOVE_NODE_POSTGRES", "node-postgres")? else { return Ok(()) };
    let folder = npm::installed("node-postgres", &PACKAGES, |folder| {
        let tests = checkout.join("packages/pg/test");
        // Beside the library's own folder lib, where they look for it.
        let output = run(Command::new("cp").arg("-a").arg(tests).arg(folder.join("node_modules/pg")))?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    })?;
    let tests = folder.join("node_modules/pg/test");
    let (direct, _behind, proxy) = stage(release, "transaction")?;
    let mut comparison = Comparison {
        name: format!("node-postgres, transaction mode, PostgreSQL {release}"),
        direct: outcomes(&tests, direct.address().port())?,
        through: outcomes(&tests, proxy.address().port())?,
    };
    // What stands behind the first failure of a file was not reached: the file is the difference.
    let Comparison { direct, through, .. } = &mut comparison;
    let file = |name: &str| name.split("::").next().unwrap_or_default().to_owned();
    direct.retain(|name, _| through.contains_key(name) || through.get(&file(name)) != Some(&Outcome::Failed));
    comparison.settle(&EXPLAINED)
}

/// Each file is a program that prints its tests with a tick; at the first that fails it ends.
fn outcomes(tests: &Path, port: u16) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    for file in files(&tests.join("integration"))? {
        let name = file.strip_prefix(tests)?.display().to_string();
        let mut command = Command::new("timeout");
        command.arg(FILE_S).arg(paths::program("node")?).arg(&file);
        let output = run(command.envs(environment(port)).current_dir(tests))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let passed = said.lines().filter_map(|line| line.strip_suffix('✔'));
        outcomes.extend(passed.map(|test| (format!("{name}::{}", test.trim()), Outcome::Passed)));
        let outcome = if output.status.success() { Outcome::Passed } else { Outcome::Failed };
        if outcome == Outcome::Failed {
            eprintln!("{name} at {port}: {said}{}", String::from_utf8_lossy(&output.stderr));
        }
        outcomes.insert(name, outcome);
    }
    Ok(outcomes)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_string_lossy().ends_with("-tests.js") {
                files.push(path);
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn node_postgres_in_transaction_mode() -> Result<()> {
    node_postgres(Release::V15)
}

#[test]
#[ignore = "minutes; make regress runs it"]
fn node_postgres_in_transaction_mode_on_18() -> Result<()> {
    node_postgres(Release::V18)
}
