//! Those who may log in: what they have to prove, and as whom they are let in.

use std::sync::{Arc, OnceLock};

use groove_common::config::Secret;
use groove_common::net::ClientCertificate;

use crate::auth::scram::{ITERATIONS, SaltedKeys, Verifier};
use crate::auth::{CertificateName, Stored};
use crate::config::{AuthQuery, User};

/// One who may log in.
pub struct Login {
    /// What the client has to prove; `None` only where nobody has to.
    pub password: Option<Stored>,
    /// What a certificate has to be called that does instead of the password.
    certificates: Vec<CertificateName>,
    pub(super) server_user: String,
    pub(super) server_password: Option<Stored>,
    /// Not configured, but found out when it logged in.
    pub(super) is_found: bool,
    verifier: OnceLock<Verifier>,
}

/// A client that has proven who it is, or did not have to.
#[derive(Clone, Default)]
pub struct Credentials {
    /// As whom; `None` where anybody may come in.
    pub login: Option<Arc<Login>>,
    /// What its proof told: enough to prove the same to a server that keeps the same verifier.
    pub keys: Option<SaltedKeys>,
}

impl Login {
    /// As configured.
    pub(super) fn new(name: &str, user: &User) -> Login {
        // What does not read as one of the kinds was refused with the configuration.
        let stored = |text: &str| Stored::read(text).ok();
        let password = user.password.as_ref().and_then(|password| stored(password.expose()));
        let server_password = match &user.server_password {
            Some(password) => stored(password.expose()),
            None => password.clone(),
        };
        Login {
            password,
            certificates: user
                .certificates
                .iter()
                .filter_map(|name| CertificateName::read(name).ok())
                .collect(),
            server_user: user.server_user.clone().unwrap_or_else(|| name.to_owned()),
            server_password,
            is_found: false,
            verifier: OnceLock::new(),
        }
    }

    /// The one who looks up the others.
    pub(super) fn asking(options: &AuthQuery) -> Login {
        let password = options.password.as_ref().and_then(|password| Stored::read(password.expose()).ok());
        Login {
            password: None,
            certificates: Vec::new(),
            server_user: options.user.clone(),
            server_password: password,
            is_found: false,
            verifier: OnceLock::new(),
        }
    }

    /// The one who asks servers what they are.
    pub(super) fn monitoring(user: &str, password: Option<&Secret>) -> Login {
        Login {
            password: None,
            certificates: Vec::new(),
            server_user: user.to_owned(),
            server_password: password.and_then(|password| Stored::read(password.expose()).ok()),
            is_found: false,
            verifier: OnceLock::new(),
        }
    }

    /// As another process has found out at a login.
    pub(super) fn inherited(server_user: &str, password: Option<Stored>) -> Login {
        Login {
            password: password.clone(),
            certificates: Vec::new(),
            server_user: server_user.to_owned(),
            server_password: password,
            is_found: true,
            verifier: OnceLock::new(),
        }
    }

    /// As found out at a login: whose password proves the same to us and to the servers.
    pub(super) fn found(server_user: &str, password: Stored) -> Login {
        Login::inherited(server_user, Some(password))
    }

    /// Whether a certificate is enough to log in. That it is good, the handshake has seen to.
    pub fn is_named_by(&self, certificate: &ClientCertificate) -> bool {
        let ClientCertificate { names, common_name, .. } = certificate;
        self.certificates.iter().any(|name| name.is_among(names, common_name.as_deref()))
    }

    /// Whether only a certificate will do.
    pub fn is_by_certificate_only(&self) -> bool {
        self.password.is_none() && !self.certificates.is_empty()
    }

    /// Whether a server connection of `other` is as good as one of ours.
    pub(super) fn is_as(&self, other: Option<&Login>) -> bool {
        other.is_some_and(|other| {
            (&self.server_user, &self.server_password) == (&other.server_user, &other.server_password)
        })
    }

    /// The SCRAM verifier, derived once from a plain password; `None` where there is no password for SCRAM.
    pub(super) fn verifier(&self, salt: impl FnOnce() -> Vec<u8>) -> Option<Verifier> {
        match &self.password {
            Some(Stored::Scram(verifier)) => Some(verifier.clone()),
            Some(Stored::Plain(password)) => {
                let derive = || Verifier::derive(password, &salt(), ITERATIONS);
                Some(self.verifier.get_or_init(derive).clone())
            }
            Some(Stored::Md5(_)) | None => None,
        }
    }
}
