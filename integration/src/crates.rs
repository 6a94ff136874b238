//! The own tests of crates: their sources, and `cargo test` as a suite.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::process::run;
use crate::suites::{Outcome, Outcomes};

/// A copy of a crate as it is published, under the target folder, where it may be changed.
///
/// # Errors
/// When cargo cannot fetch it.
pub fn source(name: &str, version: &str) -> Result<PathBuf> {
    let home = paths::target()?.join("clients");
    std::fs::create_dir_all(&home)?;
    let crate_folder = home.join(format!("{name}-{version}"));
    let lock = std::fs::File::create(home.join(format!("{name}.lock")))?;
    lock.lock()?;
    if crate_folder.is_dir() {
        return Ok(crate_folder);
    }
    let asking = tempfile::tempdir_in(&home)?;
    std::fs::create_dir(asking.path().join("src"))?;
    std::fs::write(asking.path().join("src/lib.rs"), "")?;
    std::fs::write(
        asking.path().join("Cargo.toml"),
        format!(
            "[package]\nname = \"asking\"\nedition = \"2024\"\n[dependencies]\n{name} = \"={version}\"\n[workspace]\n"
        ),
    )?;
    let metadata = run(cargo().args(["metadata", "--format-version", "1"]).current_dir(asking.path()))?;
    ensure!(metadata.status.success(), "{name}: {}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout)?;
    let text = |package: &serde_json::Value, key: &str| package.get(key)?.as_str().map(str::to_owned);
    let packages = metadata.get("packages").and_then(|packages| packages.as_array());
    let found = packages.into_iter().flatten().find(|package| text(package, "name").as_deref() == Some(name));
    let manifest = found.and_then(|package| text(package, "manifest_path"));
    let manifest = PathBuf::from(manifest.context("cargo does not say where the crate is")?);
    let fetched = manifest.parent().context("a manifest without a folder")?;
    let fresh = asking.path().join("copy");
    copy(fetched, &fresh)?;
    // Else cargo takes it for a member of the workspace whose target folder it is in.
    let manifest = fresh.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(&manifest, format!("{text}\n[workspace]\n"))?;
    std::fs::rename(fresh, &crate_folder)?;
    Ok(crate_folder)
}

/// A fresh copy of a crate's folder, for changes that are a run's own.
///
/// # Errors
/// When it cannot be written.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    let output = run(Command::new("cp").args(["-r", "--preserve=timestamps"]).arg(from).arg(to))?;
    ensure!(output.status.success(), "copying: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Replaces texts in every file of Rust under `folder`: addresses, which suites have written into their tests.
///
/// # Errors
/// When a file cannot be read or written.
pub fn replace(folder: &Path, texts: &[(&str, &str)]) -> Result<()> {
    let mut pending = vec![folder.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let before = std::fs::read_to_string(&path)?;
                let after = texts.iter().fold(before.clone(), |text, (from, to)| text.replace(from, to));
                if after != before {
                    std::fs::write(path, after)?;
                }
            }
        }
    }
    Ok(())
}

/// How long the tests of a crate may take: some wait for ever for what does not come.
const TESTS_S: &str = "300";

/// Runs `cargo test` in a crate's folder. All suites share a target folder of their own. A test that has not ended in
/// `TESTS_S` is not among the outcomes.
///
/// # Errors
/// When the tests do not build; those that fail are outcomes.
pub fn test(folder: &Path, arguments: &[&str], environment: &[(&str, String)]) -> Result<Outcomes> {
    let target = paths::target()?.join("clients/build");
    let environment = || environment.iter().map(|(name, value)| (*name, value.as_str()));
    let built = run(cargo()
        .args(["test", "--no-run", "--target-dir"])
        .arg(&target)
        .args(arguments)
        .envs(environment())
        .current_dir(folder))?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut command = Command::new("timeout");
    command.arg(TESTS_S).arg(cargo().get_program()).args(["test", "--target-dir"]).arg(&target);
    let output = run(command.args(arguments).envs(environment()).current_dir(folder))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let outcomes = outcomes_of(&said);
    eprintln!("{said}");
    ensure!(!outcomes.is_empty(), "cargo test {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(outcomes)
}

fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Reads `test NAME ... ok`.
fn outcomes_of(said: &str) -> Outcomes {
    said.lines()
        .filter_map(|line| {
            let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
            let outcome = match outcome.split([',', ' ']).next()? {
                "ok" => Outcome::Passed,
                "FAILED" => Outcome::Failed,
                "ignored" => Outcome::Skipped,
                _other => return None,
            };
            Some((name.trim_end_matches(" - should panic").to_owned(), outcome))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_of_cargo_test_are_read() {
        let said = "running 3 tests\ntest a::b ... ok\ntest c - should panic ... FAILED\ntest d ... ignored, slow\n\
            test result: FAILED. 1 passed; 1 failed\n";
        let expected = [("a::b", Outcome::Passed), ("c", Outcome::Failed), ("d", Outcome::Skipped)];
        assert_eq!(outcomes_of(said), expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }
}
