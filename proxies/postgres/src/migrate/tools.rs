//! PostgreSQL's own programs, which know how to write a schema down: found by their release.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::fault::{Fault, Outcome};
use super::node::Login;
use super::policy::sql::{NAME, SCHEMA};

/// Where packages put them, beside the PATH: in a folder of each release.
const USUAL: [(&str, &str); 3] =
    [("/usr/lib/postgresql", "bin"), ("/usr", "bin"), ("/usr/local/pgsql", "bin")];
/// All of them are needed, of one release.
const PROGRAMS: [&str; 3] = ["pg_dump", "pg_dumpall", "pg_restore"];

/// The programs of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tools {
    folder: PathBuf,
    /// Their release.
    pub(super) major: i64,
}

impl Tools {
    /// Those of the oldest release that can read a server of release `major`; or what was found instead.
    pub(super) async fn find(configured: Option<&Path>, major: i64) -> Result<Tools, String> {
        let folders = configured.map_or_else(usual, |folder| vec![folder.to_owned()]);
        let mut found: Vec<Tools> = Vec::new();
        for folder in folders {
            if !PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
                continue;
            }
            if let Some(major) = release(&folder).await {
                found.push(Tools { folder, major });
            }
        }
        found.sort_by_key(|tools| tools.major);
        let seen: Vec<_> =
            found.iter().map(|tools| format!("{} in {}", tools.major, tools.folder.display())).collect();
        let fits = found.into_iter().find(|tools| tools.major >= major);
        fits.ok_or_else(|| match seen.is_empty() {
            true => format!("{} are not found", PROGRAMS.join(", ")),
            false => format!("they are of release {}, and {major} or newer is needed", seen.join(", ")),
        })
    }

    fn command(&self, program: &str, login: &Login) -> Command {
        let (host, port) = login.host_and_port();
        let mut command = Command::new(self.folder.join(program));
        command.args(["-w", "-h", &host, "-p", &port.to_string(), "-U", &login.user]).env("PGAPPNAME", NAME);
        if let Some(password) = &login.password {
            command.env("PGPASSWORD", password.expose());
        }
        command
    }

    /// Writes everything but rows into a file.
    pub(super) async fn dump(&self, login: &Login, dbname: &str, file: &Path) -> Outcome<()> {
        let mut command = self.command("pg_dump", login);
        command.args(["-Fc", "--section=pre-data", "--section=post-data", "--no-publications"]);
        command.args(["--no-subscriptions", "--no-tablespaces", "--exclude-schema", SCHEMA, "-f"]);
        command.arg(file).args(["-d", &conninfo_dbname(dbname)]);
        run("pg_dump", command).await.map(drop)
    }

    /// The roles of a server, as statements.
    pub(super) async fn roles(&self, login: &Login) -> Outcome<String> {
        let mut command = self.command("pg_dumpall", login);
        command.arg("--roles-only");
        run("pg_dumpall", command).await
    }

    /// What is in a dump.
    pub(super) async fn listing(&self, file: &Path) -> Outcome<String> {
        let mut command = Command::new(self.folder.join("pg_restore"));
        command.arg("--list").arg(file);
        run("pg_restore", command).await
    }

    /// A part of a dump, as statements.
    pub(super) async fn script(&self, file: &Path, list: &Path) -> Outcome<String> {
        let mut command = Command::new(self.folder.join("pg_restore"));
        command.args(["--no-tablespaces", "-f", "-", "-L"]).arg(list).arg(file);
        run("pg_restore", command).await
    }
}

/// `-d` takes connection strings as well: a name with `=` is none.
fn conninfo_dbname(dbname: &str) -> String {
    format!("dbname='{}'", dbname.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn usual() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for (root, below) in USUAL {
        folders.push(Path::new(root).join(below));
        let releases = std::fs::read_dir(root).into_iter().flatten().flatten();
        folders.extend(
            releases.map(|entry| entry.path()).filter(|path| is_release(path)).map(|path| path.join(below)),
        );
    }
    folders.dedup();
    folders
}

/// `15`, `pgsql-15`.
fn is_release(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("pgsql-").unwrap_or(name).chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// `pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
async fn release(folder: &Path) -> Option<i64> {
    let mut command = Command::new(folder.join("pg_dump"));
    command.arg("--version");
    let said = run("pg_dump", command).await.ok()?;
    let version = said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..end)?.parse().ok()
}

async fn run(program: &str, mut command: Command) -> Outcome<String> {
    let fault = |reason: String| Fault::Tool { program: program.to_owned(), reason };
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| fault(error.to_string()))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(fault(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}
