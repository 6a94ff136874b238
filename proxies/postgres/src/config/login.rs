//! Who may log in, and how they prove who they are.

use groove_common::config::{ClientAuth, Duration, Issues, Listener, Secret};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Config;
use crate::auth::{CertificateName, Stored};

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Auth {
    /// By the password in `users`: SCRAM-SHA-256, or md5 where the password is stored so.
    #[default]
    Password,
    /// By the password that the servers know, which is asked for in the clear: only over TLS, on loopback and on unix
    /// sockets. Those who have a password in `users` prove that.
    Passthrough,
    /// Not at all. Only on loopback and unix sockets.
    Trust,
}

/// Where and how the servers are asked for a user's password, as they store it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuthQuery {
    /// One of `databases`: its servers are asked.
    pub database: String,
    /// The role to ask as; the default query needs one that may read `pg_authid`.
    #[schemars(length(min = 1))]
    pub user: String,
    /// What proves it.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Gives name and password for the name `$1`; no row or no password for those who may not log in.
    #[serde(default = "default_query")]
    #[schemars(length(min = 1))]
    pub query: String,
    /// How long an answer counts, and how long a changed password may go unnoticed.
    #[serde(default = "default_ttl")]
    pub ttl: Duration,
}

/// Honours VALID UNTIL (CVE-2025-2291).
fn default_query() -> String {
    "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END \
     FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
        .to_owned()
}

fn default_ttl() -> Duration {
    Duration::from_secs(10)
}

/// Someone who may log in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// What the client proves to know: plain, `md5…`, or a `SCRAM-SHA-256$…` verifier from `pg_authid`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Names in clients' certificates, any of which does instead of the password: subject alternative names (DNS or
    /// URI), or `CN=` and the subject's common name. One `*` stands for anything.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// The role on the servers; the same name if left out.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub server_user: Option<String>,
    /// What we prove to the servers; `password` if left out.
    #[serde(default)]
    pub server_password: Option<Secret>,
}

impl Config {
    pub(super) fn validate_auth(&self, issues: &mut Issues) {
        match self.auth {
            Auth::Password if self.users.is_empty() && self.auth_query.is_none() => {
                let help = "write `users: {app: {password: {env: NAME}}}`; for local use only, `auth: trust`";
                issues.at(&["users"], "nobody may log in", Some(help));
            }
            Auth::Password => {}
            Auth::Passthrough => {
                for (index, listener) in self.listeners.iter().enumerate() {
                    if listener.tls.is_none() && !listener.address.is_local() {
                        let help = "add `tls` to it, or listen on 127.0.0.1 or a unix socket";
                        issues.at(
                            &["listeners", &index.to_string(), "address"],
                            "with `auth: passthrough` passwords would cross the network in the clear",
                            Some(help),
                        );
                    }
                }
            }
            Auth::Trust => {
                for (index, listener) in self.listeners.iter().enumerate() {
                    if !listener.address.is_local() {
                        let help = "listen on 127.0.0.1 or a unix socket, or write `users` in place of `auth: trust`";
                        issues.at(
                            &["listeners", &index.to_string(), "address"],
                            "with `auth: trust` anyone who reaches this address may do anything",
                            Some(help),
                        );
                    }
                }
            }
        }
    }
}

impl AuthQuery {
    pub(super) fn validate(&self, config: &Config, issues: &mut Issues) {
        match config.auth {
            Auth::Password => {}
            Auth::Trust => {
                let help = Some("leave out one of the two");
                issues.at(&["auth_query"], "nobody has to prove anything with `auth: trust`", help);
            }
            Auth::Passthrough => {
                let help = Some("leave out one of the two");
                issues.at(&["auth_query"], "with `auth: passthrough` the servers know the passwords", help);
            }
        }
        if !config.databases.contains_key(&self.database) {
            let message = format!("there is no database `{}`", self.database);
            let help = Some("write one of `databases`");
            issues.at(&["auth_query", "database"], message, help);
        }
        if !self.query.contains("$1") {
            let help = Some("write `$1` where the user's name goes");
            issues.at(&["auth_query", "query"], "it finds the same for everybody", help);
        }
        if self.ttl.is_zero() || self.ttl.get() > std::time::Duration::from_secs(3600) {
            let help = Some("write `1s` to `1h`; a changed password may go unnoticed for so long");
            issues.at(&["auth_query", "ttl"], "outside of what makes sense", help);
        }
        if let Some(password) = &self.password {
            check_server_password(password, &["auth_query", "password"], issues);
        }
    }
}

/// What we have to prove to a server, we have to know.
fn check_server_password(password: &Secret, at: &[&str], issues: &mut Issues) {
    if let Ok(Stored::Scram(_)) | Err(_) = Stored::read(password.expose()) {
        let help = Some("write the password itself, or a server that trusts this host needs none");
        issues.at(at, "a SCRAM verifier proves nothing to a server", help);
    }
}

impl User {
    pub(super) fn validate(&self, name: &str, config: &Config, issues: &mut Issues) {
        for (index, certificate) in self.certificates.iter().enumerate() {
            if let Err(error) = CertificateName::read(certificate) {
                let help =
                    Some("write a subject alternative name, or `CN=NAME`; one `*` stands for anything");
                let at = ["users", name, "certificates", &index.to_string()];
                issues.at(&at, error.to_string(), help);
            }
        }
        if !self.certificates.is_empty() && !config.listeners.iter().any(asks_for_certificates) {
            let help = Some("add `tls: {client_ca: …}` to a listener");
            let message = "no listener asks clients for certificates";
            issues.at(&["users", name, "certificates"], message, help);
        }
        match &self.password {
            None if config.auth == Auth::Password && self.certificates.is_empty() => {
                let help = Some("add `password: {env: NAME}`, or `certificates`");
                let message = "without a password nobody can log in as this user";
                issues.at(&["users", name], message, help);
            }
            Some(password) if password.expose().is_empty() => {
                let help = Some("write a password; PostgreSQL accepts no empty one either");
                issues.at(&["users", name, "password"], "the password is empty", help);
            }
            Some(password) => {
                if let Err(error) = Stored::read(password.expose()) {
                    let help = Some("copy it whole from `SELECT rolpassword FROM pg_authid`");
                    issues.at(&["users", name, "password"], error.to_string(), help);
                }
            }
            None => {}
        }
        if let Some(password) = &self.server_password {
            check_server_password(password, &["users", name, "server_password"], issues);
        }
    }
}

fn asks_for_certificates(listener: &Listener) -> bool {
    listener.tls.as_ref().is_some_and(|tls| tls.client_auth() != ClientAuth::None)
}
