//! Python clients: a virtual environment made once under the target folder, and pytest suites run in it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use crate::paths;
use crate::process::run;

/// When set, a file that gets one line `NAME PASSED FAILED` for each suite, for the closing line of `make test`.
const TALLY: &str = "GROOVE_TALLY";

/// What a pytest run counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Passed, expected failures included.
    pub passed: u32,
    /// Failed, or broken outside a test.
    pub failed: u32,
    /// Skipped.
    pub skipped: u32,
}

/// The interpreter of the environment that has everything in `integration/python/requirements.txt`.
///
/// # Errors
/// When Python's venv module is missing or pip cannot install.
pub fn interpreter() -> Result<PathBuf> {
    let requirements = paths::repository().join("integration/python/requirements.txt");
    let wanted = std::fs::read_to_string(&requirements).context("reading requirements.txt")?;
    let target = paths::target()?;
    std::fs::create_dir_all(&target)?;
    let lock = std::fs::File::create(target.join("venv.lock"))?;
    lock.lock()?;
    let folder = target.join("venv");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    // Debian's own interpreter, so that its python3-venv fits.
    must(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    must(
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&requirements),
    )?;
    // Written last, so that an environment with a stamp is whole.
    std::fs::write(stamp, wanted)?;
    Ok(python)
}

/// Runs a Python program in the environment.
///
/// # Errors
/// When it cannot be started.
pub fn script<A: AsRef<OsStr>>(
    file: &Path,
    arguments: &[A],
    environment: &[(&str, String)],
) -> Result<Output> {
    let environment = environment.iter().map(|(name, value)| (*name, value.as_str()));
    run(Command::new(interpreter()?)
        .arg(file)
        .args(arguments)
        .envs(environment)
        .current_dir(paths::repository()))
}

/// Runs a pytest suite in `folder` and counts; `arguments` as on pytest's command line. The output goes to
/// standard error, and the counts to the tally of `make test` under `name`.
///
/// # Errors
/// When pytest cannot run or collected nothing. Failed tests are counted, not an error: compare the counts.
pub fn pytest<A: AsRef<OsStr>>(
    name: &str,
    folder: &Path,
    arguments: &[A],
    environment: &[(&str, String)],
) -> Result<Counts> {
    let counts = counts_of(&report(folder, arguments, environment)?).context("pytest left no report")?;
    ensure!(counts.passed + counts.failed > 0, "{name}: pytest ran no test");
    tally(name, usize::try_from(counts.passed)?, usize::try_from(counts.failed)?)?;
    Ok(counts)
}

/// Runs a pytest suite in `folder` and gives its JUnit report. The output goes to standard error.
pub(crate) fn report<A: AsRef<OsStr>>(
    folder: &Path,
    arguments: &[A],
    environment: &[(&str, String)],
) -> Result<String> {
    let report = tempfile::NamedTempFile::new()?;
    let mut command = Command::new(interpreter()?);
    let cache = tempfile::tempdir()?;
    command.args(["-m", "pytest", "-q", "--color=no", "-o"]);
    command.arg(format!("cache_dir={}", cache.path().display())).arg("--junit-xml");
    command.arg(report.path()).args(arguments).current_dir(folder);
    command.envs(environment.iter().map(|(name, value)| (*name, value.as_str())));
    let output = run(&mut command)?;
    eprintln!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok(std::fs::read_to_string(report.path())?)
}

/// Adds a suite's counts to those that the last line of `make test` shows.
pub(crate) fn tally(name: &str, passed: usize, failed: usize) -> Result<()> {
    if let Some(tally) = std::env::var_os(TALLY) {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(tally)?;
        writeln!(file, "{} {passed} {failed}", name.replace(' ', "-"))?;
    }
    Ok(())
}

/// Reads the totals of a JUnit report.
fn counts_of(report: &str) -> Option<Counts> {
    let suite = report.split_once("<testsuite ")?.1.split_once('>')?.0;
    let number = |key: &str| -> Option<u32> {
        suite.split_once(&format!(" {key}=\""))?.1.split_once('"')?.0.parse().ok()
    };
    let (failed, skipped) = (number("errors")? + number("failures")?, number("skipped")?);
    Some(Counts { passed: number("tests")?.saturating_sub(failed + skipped), failed, skipped })
}

fn must(command: &mut Command) -> Result<()> {
    let output = run(command)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed:\n{said}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_counted() {
        let report = r#"<testsuites name="x"><testsuite name="pytest" errors="1" failures="2" skipped="3" tests="10" time="1">"#;
        assert_eq!(counts_of(report), Some(Counts { passed: 4, failed: 3, skipped: 3 }));
        assert_eq!(counts_of("nothing"), None);
    }
}
