//! Where things are: the repository, the build's target folder, and tools that Debian keeps off the PATH.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The folder of the profile this program was built in, such as `target/debug`.
///
/// # Errors
/// When the program does not know its own path.
pub fn profile() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("asking for the path of this program")?;
    let folder = exe.parent().context("this program has no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_path_buf())
}

/// The build's target folder, for things made once: the Python environment, the PostgreSQL template.
///
/// # Errors
/// As [`profile`].
pub fn target() -> Result<PathBuf> {
    let profile = profile()?;
    Ok(profile.parent().context("the profile folder has no parent")?.to_path_buf())
}

/// Finds an installed program on the PATH or where Debian keeps servers.
///
/// # Errors
/// When it is not installed; the message says how to get it.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    const USUAL: [&str; 5] = [
        "/usr/sbin",
        "/usr/bin",
        "/usr/local/bin",
        "/usr/lib/postgresql/15/bin",
        "/usr/lib/postgresql/15/lib/pgxs/src/test/regress",
    ];
    let found = std::env::split_paths(&path)
        .chain(USUAL.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    match found {
        Some(file) => Ok(file),
        None => bail!("{name} is not installed: `make tools` installs what the tests need"),
    }
}
