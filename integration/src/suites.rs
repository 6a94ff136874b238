//! The own test suites of client libraries: where they come from, what each test did, and what a proxy changes.
//!
//! A suite is run against the server itself and through the proxy. Whatever differs is the proxy's doing, so a
//! suite need not pass as a whole to prove something; but a comparison in which nothing passed proves nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::run;
use crate::{paths, python};

/// What became of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It did not apply here, or failed as its authors expect.
    Skipped,
    /// It failed, or what surrounds it did.
    Failed,
}

/// The tests of one run by their names.
pub type Outcomes = BTreeMap<String, Outcome>;

/// One suite run against the server itself and through the proxy.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The suite.
    pub name: String,
    /// Against the server itself.
    pub direct: Outcomes,
    /// Through the proxy.
    pub through: Outcomes,
}

impl Comparison {
    /// Every test that did not end alike, with both outcomes; `None` where it was not run.
    #[must_use]
    pub fn differences(&self) -> Vec<(&str, Option<Outcome>, Option<Outcome>)> {
        let mut names: Vec<&String> = self.direct.keys().chain(self.through.keys()).collect();
        names.sort_unstable();
        names.dedup();
        names
            .into_iter()
            .map(|name| (name.as_str(), self.direct.get(name).copied(), self.through.get(name).copied()))
            .filter(|(_, direct, through)| direct != through)
            .collect()
    }

    /// Writes `target/suites/NAME.md`: the counts and each difference; counts in `make test`'s last line. A test
    /// that differs fails this, unless its name contains one of `explained`.
    ///
    /// # Errors
    /// When there are differences, or hardly a test passed.
    pub fn settle(&self, explained: &[(&str, &str)]) -> Result<()> {
        let passed = count(&self.direct, Outcome::Passed);
        let is_explained = |name: &str| explained.iter().any(|(part, _)| name.contains(part));
        let differences = self.differences();
        let page = self.page(explained, &differences)?;
        let folder = paths::target()?.join("suites");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{}.md", file_name(&self.name))), &page)?;
        eprintln!("{page}");
        let unexplained = differences.iter().filter(|(name, _, _)| !is_explained(name)).count();
        python::tally(&self.name, count(&self.through, Outcome::Passed), unexplained)?;
        ensure!(passed > 0, "{}: no test passed on the server itself", self.name);
        ensure!(
            unexplained == 0,
            "{}: {unexplained} tests end otherwise through the proxy\n{page}",
            self.name
        );
        Ok(())
    }

    fn page(&self, explained: &[(&str, &str)], differences: &[Difference<'_>]) -> Result<String> {
        let mut page = format!("# {}\n\n| | passed | skipped | failed |\n|---|---|---|---|\n", self.name);
        for (name, outcomes) in [("the server itself", &self.direct), ("through the proxy", &self.through)] {
            let [passed, skipped, failed] =
                [Outcome::Passed, Outcome::Skipped, Outcome::Failed].map(|which| count(outcomes, which));
            writeln!(page, "| {name} | {passed} | {skipped} | {failed} |")?;
        }
        if !differences.is_empty() {
            page.push_str("\n| differs | the server itself | through the proxy | why |\n|---|---|---|---|\n");
        }
        for (name, direct, through) in differences {
            let why = explained.iter().find(|(part, _)| name.contains(part)).map_or("**?**", |(_, why)| why);
            writeln!(page, "| `{name}` | {} | {} | {why} |", told(*direct), told(*through))?;
        }
        for (name, _) in self.direct.iter().filter(|(_, outcome)| **outcome == Outcome::Failed) {
            writeln!(page, "\n- `{name}` fails on the server itself")?;
        }
        Ok(page)
    }
}

type Difference<'a> = (&'a str, Option<Outcome>, Option<Outcome>);

/// Says among the pages of the others that a suite was not run.
///
/// # Errors
/// When the page cannot be written.
pub fn left_out(name: &str, why: &str) -> Result<()> {
    let folder = paths::target()?.join("suites");
    std::fs::create_dir_all(&folder)?;
    let page = format!("# {name}\n\n**Not run**: {why}.\n");
    eprintln!("{page}");
    Ok(std::fs::write(folder.join(format!("{}-not-run.md", file_name(name))), page)?)
}

/// A suite's name as a file's.
pub(crate) fn file_name(name: &str) -> String {
    name.replace(", ", "-").replace(' ', "-")
}

fn told(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        Some(Outcome::Passed) => "passed",
        Some(Outcome::Skipped) => "skipped",
        Some(Outcome::Failed) => "failed",
        None => "not run",
    }
}

fn count(outcomes: &Outcomes, which: Outcome) -> usize {
    outcomes.values().filter(|outcome| **outcome == which).count()
}

/// How often a test that ended otherwise is run again, both ways: suites have tests that race with the clock.
const AGAIN: usize = 2;

/// Runs a pytest suite in `folder` twice, with the environment of the server itself and with that of the proxy;
/// then what differs again, by itself, and the last outcomes stand.
///
/// # Errors
/// When pytest cannot run; failed tests are outcomes.
pub fn compare(
    name: &str,
    folder: &Path,
    arguments: &[&str],
    direct: &[(&str, String)],
    through: &[(&str, String)],
) -> Result<Comparison> {
    let run = |environment, arguments: &[&str]| -> Result<Outcomes> {
        Ok(outcomes_of(&python::report(folder, arguments, environment).context(name.to_owned())?))
    };
    let mut comparison = Comparison {
        name: name.to_owned(),
        direct: run(direct, arguments)?,
        through: run(through, arguments)?,
    };
    for _ in 0..AGAIN {
        let differing: Vec<&str> =
            comparison.differences().into_iter().map(|(name, _, _)| function(name)).collect();
        if differing.is_empty() {
            break;
        }
        let only = differing.join(" or ");
        let arguments: Vec<&str> = arguments.iter().copied().chain(["-k", only.as_str()]).collect();
        comparison.direct.extend(run(direct, &arguments)?);
        comparison.through.extend(run(through, &arguments)?);
    }
    Ok(comparison)
}

/// Runs a program twice that prints a line a step, its name, a tab, and what came back; `with` gives its command
/// for an address. A step passes if it told the same through the proxy.
///
/// # Errors
/// When the program cannot be started or took no step.
pub fn compare_steps(
    name: &str,
    with: impl Fn(SocketAddr) -> Result<Command>,
    direct: SocketAddr,
    through: SocketAddr,
) -> Result<Comparison> {
    let steps = |address| -> Result<BTreeMap<String, String>> {
        let output = run(&mut with(address)?)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let steps: BTreeMap<String, String> = said
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(step, told)| (step.to_owned(), told.to_owned()))
            .collect();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} at {address}:\n{said}{errors}");
        Ok(steps)
    };
    let (direct, told) = (steps(direct)?, steps(through)?);
    for (step, expected) in &direct {
        let told = told.get(step);
        if told != Some(expected) {
            eprintln!("{name}: {step}: {expected:.200} of the server itself, {told:.200?} through the proxy");
        }
    }
    let outcome = |same| if same { Outcome::Passed } else { Outcome::Failed };
    let through = told
        .into_iter()
        .map(|(step, told)| {
            let same = direct.get(&step) == Some(&told);
            (step, outcome(same))
        })
        .collect();
    let direct = direct.into_keys().map(|step| (step, Outcome::Passed)).collect();
    Ok(Comparison { name: name.to_owned(), direct, through })
}

/// A test's own name, which `-k` finds: without its class and its parameters.
fn function(name: &str) -> &str {
    let function = name.rsplit_once("::").map_or(name, |(_, function)| function);
    function.split_once('[').map_or(function, |(function, _)| function)
}

/// Reads a JUnit report. A test that stands there twice (its teardown failed) has the worse outcome.
#[must_use]
pub fn outcomes_of(report: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for case in report.split("<testcase ").skip(1) {
        // Quotes and angle brackets inside attributes and texts are escaped.
        let (head, body) = case.split_once('>').unwrap_or((case, ""));
        let attribute = |key: &str| -> Option<&str> {
            head.split_once(&format!("{key}=\""))?.1.split_once('"').map(|(value, _)| value)
        };
        let name = format!(
            "{}::{}",
            attribute("classname").unwrap_or_default(),
            attribute(" name").unwrap_or_default()
        );
        let outcome = if head.ends_with('/') {
            Outcome::Passed
        } else if body.contains("<failure") || body.contains("<error") {
            Outcome::Failed
        } else if body.contains("<skipped") {
            Outcome::Skipped
        } else {
            Outcome::Passed
        };
        let known = outcomes.entry(name).or_insert(outcome);
        *known = outcome.max(*known);
    }
    outcomes
}

/// The source distribution of a Python package, unpacked once under the target folder.
///
/// # Errors
/// When it cannot be downloaded or unpacked.
pub fn source(package: &str, version: &str) -> Result<PathBuf> {
    let name = format!("{package}-{version}");
    let folder = paths::target()?.join("clients");
    let source = folder.join(&name);
    if source.is_dir() {
        return Ok(source);
    }
    std::fs::create_dir_all(&folder)?;
    let fresh = tempfile::tempdir_in(&folder)?;
    must(
        Command::new(python::interpreter()?)
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", package, "--dest"])
            .arg(fresh.path())
            .arg(format!("{package}=={version}")),
    )?;
    let archive = fresh.path().join(format!("{name}.tar.gz"));
    must(Command::new("tar").arg("-C").arg(fresh.path()).arg("-xzf").arg(archive))?;
    // Another test may have been faster; either is whole.
    std::fs::rename(fresh.path().join(name), &source).or_else(|error| match source.is_dir() {
        true => Ok(()),
        false => Err(error),
    })?;
    Ok(source)
}

/// The folder `tests` of a package's source distribution, by itself: the suite then runs on the installed package,
/// which has its compiled parts, not on the source beside it.
///
/// # Errors
/// As [`source`].
pub fn tests_of(package: &str, version: &str) -> Result<PathBuf> {
    let source = source(package, version)?;
    let alone = source.with_file_name(format!("{package}-{version}-tests"));
    if !alone.is_dir() {
        let parent = source.parent().context("a source without a folder")?;
        let fresh = tempfile::tempdir_in(parent)?;
        must(Command::new("cp").arg("-a").arg(source.join("tests")).arg(fresh.path()))?;
        // Another test may have been faster; either is whole.
        std::fs::rename(fresh.path(), &alone).or_else(|error| match alone.is_dir() {
            true => Ok(()),
            false => Err(error),
        })?;
    }
    Ok(alone)
}

fn must(command: &mut Command) -> Result<()> {
    let output = run(command)?;
    ensure!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<testsuite name="pytest"><testcase classname="t.A" name="one" time="0.1" />
        <testcase classname="t.A" name="two[&gt;]" time="0.1"><failure message="x &gt; y">text</failure></testcase>
        <testcase classname="t" name="three" time="0"><skipped type="pytest.skip" message="no" /></testcase>
        <testcase classname="t" name="four" time="0"><system-out>hello</system-out></testcase>
        <testcase classname="t" name="four" time="0"><error message="teardown">text</error></testcase></testsuite>"#;

    #[test]
    fn a_report_is_read_test_by_test() {
        let outcomes = outcomes_of(REPORT);
        let expected = [
            ("t.A::one", Outcome::Passed),
            ("t.A::two[&gt;]", Outcome::Failed),
            ("t::four", Outcome::Failed),
            ("t::three", Outcome::Skipped),
        ];
        assert_eq!(outcomes, expected.map(|(name, outcome)| (name.to_owned(), outcome)).into());
    }

    #[test]
    fn what_differs_is_told_and_what_is_missing_too() {
        let direct = outcomes_of(REPORT);
        let mut through = direct.clone();
        through.insert("t.A::one".to_owned(), Outcome::Failed);
        through.remove("t::three");
        let comparison = Comparison { name: "x".to_owned(), direct, through };
        assert_eq!(function("t.A::two[&gt;]"), "two");
        let expected = [
            ("t.A::one", Some(Outcome::Passed), Some(Outcome::Failed)),
            ("t::three", Some(Outcome::Skipped), None),
        ];
        assert_eq!(comparison.differences(), expected);
    }
}
