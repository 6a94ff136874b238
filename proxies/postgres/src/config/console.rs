//! Who may use the console, and how long it may hold everybody up.

use groove_common::config::{Duration, Issues};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Auth, Config};

/// Who may use the console, the database `groove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Console {
    /// Users who may do everything there.
    pub admins: Vec<String>,
    /// Users who may look: SHOW.
    pub stats: Vec<String>,
    /// How long a PAUSE waits for transactions that are under way.
    pub pause_timeout: Duration,
}

impl Default for Console {
    fn default() -> Console {
        Console { admins: Vec::new(), stats: Vec::new(), pause_timeout: Duration::from_secs(30) }
    }
}

impl Console {
    pub(super) fn validate(&self, config: &Config, issues: &mut Issues) {
        for (key, names) in [("admins", &self.admins), ("stats", &self.stats)] {
            for (index, name) in names.iter().enumerate() {
                let at = ["console", key, &index.to_string()];
                let is_by_password_only = match config.users.get(name) {
                    Some(user) => {
                        config.auth == Auth::Passthrough
                            && user.password.is_none()
                            && user.certificates.is_empty()
                    }
                    None => {
                        let message = format!("there is no user `{name}`");
                        issues.at(&at, message, Some("write one of `users`"));
                        false
                    }
                };
                if is_by_password_only {
                    let help = Some("add `password` to this user");
                    let message =
                        "the console has no server that could say whether this user's password is right";
                    issues.at(&at, message, help);
                }
            }
        }
        if self.pause_timeout.is_zero() {
            let help = Some("write a length of time, like `30s`");
            issues.at(&["console", "pause_timeout"], "nothing is paused in no time", help);
        }
    }
}
