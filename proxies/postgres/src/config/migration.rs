//! Moving a database to another server: where that is kept, and as whom the servers are spoken to.

use std::path::PathBuf;

use groove_common::config::{Issues, Secret};
use groove_common::ids::Address;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `groove-postgres migrate` needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// A folder for what has to outlive a crash: how far a migration is, and where databases have moved to. It is made if it
    /// is not there. Taken from the folder that the program runs in.
    pub folder: PathBuf,
    /// A superuser of the source.
    #[serde(default = "default_user")]
    pub user: String,
    /// Its password, if the servers ask for one.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A superuser of the target; the same as on the source if left out.
    #[serde(default)]
    pub target_user: Option<String>,
    /// Its password; the same as on the source if left out.
    #[serde(default)]
    pub target_password: Option<Secret>,
    /// What the target reaches the source by, if not by the address that the proxy has for it.
    #[serde(default)]
    pub source_seen_as: Option<Address>,
    /// What the source reaches the target by, if not by the address that the proxy has for it.
    #[serde(default)]
    pub target_seen_as: Option<Address>,
    /// The folder with `pg_dump`, `pg_dumpall` and `pg_restore`; looked for where they usually are if left out.
    #[serde(default)]
    pub tools: Option<PathBuf>,
}

fn default_user() -> String {
    "postgres".to_owned()
}

impl Migration {
    pub(super) fn validate(&self, issues: &mut Issues) {
        if self.folder.as_os_str().is_empty() {
            let help = Some("write a path, like `/var/lib/groove/migration`");
            issues.at(&["migration", "folder"], "it has no name", help);
        }
        for (key, name) in [("user", Some(&self.user)), ("target_user", self.target_user.as_ref())] {
            if name.is_some_and(String::is_empty) {
                issues.at(&["migration", key], "it has no name", Some("write a superuser's name"));
            }
        }
    }
}
