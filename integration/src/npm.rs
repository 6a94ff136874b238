//! Packages of npm's, installed once under the target folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::paths;
use crate::process::run;

/// A folder of this name with these packages in `node_modules`, made once; `prepare` is what must follow the
/// installation. No package's own scripts are run.
///
/// # Errors
/// When npm is missing or cannot install.
pub fn installed(
    name: &str,
    packages: &[&str],
    prepare: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let home = paths::target()?.join("clients");
    std::fs::create_dir_all(&home)?;
    let lock = std::fs::File::create(home.join(format!("{name}.lock")))?;
    lock.lock()?;
    let folder = home.join(name);
    let stamp = folder.join("installed");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("package.json"), "{}")?;
    let mut command = Command::new(paths::program("npm")?);
    command.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
    let output = run(command.args(packages).current_dir(&folder))?;
    ensure!(output.status.success(), "npm install {packages:?}: {}", String::from_utf8_lossy(&output.stderr));
    prepare(&folder)?;
    // Written last, so that a folder with a stamp is whole.
    std::fs::write(stamp, wanted)?;
    Ok(folder)
}
