//! `client_tls`: whose certificates the clients of one app show, as written.

use groove_common::config::{CertificateFile, Issues, Listener};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Clients that ask for one of the app's hosts (SNI) show certificates of these authorities, whatever the listener says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientTls {
    /// PEM file with the authorities that sign clients' certificates.
    pub ca: CertificateFile,
    /// Whether a client must show one.
    #[serde(default)]
    pub auth: Demand,
}

/// Whether clients show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// They must show a good one.
    #[default]
    Required,
    /// They are asked; one that is shown must be good.
    Optional,
}

/// Checks that there is a listener that could ask.
pub(super) fn check(path: &[&str], listeners: &[Listener], issues: &mut Issues) {
    if listeners.iter().all(|listener| listener.tls.is_none()) {
        let help = "give a listener `tls`, or leave this out";
        issues.at_key(&[path, &["client_tls"]].concat(), "no listener speaks TLS", Some(help));
    }
}
