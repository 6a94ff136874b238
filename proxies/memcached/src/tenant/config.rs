//! Tenants, as written.

use std::collections::{BTreeMap, HashMap};

use groove_common::config::{ClientAuth, Duration, Issues, Listener, Secret, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::{PREFIX_LEN_MAX, is_prefix};
use super::password::{self, Password};

/// More would make metrics that nobody can store.
pub const TENANTS_MAX: usize = 1000;

/// One tenant: who it is, and what it may do.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tenant {
    /// Names and passwords, any of which makes a client this tenant's.
    pub credentials: Vec<Credential>,
    /// Names in clients' certificates (subject alternative names, DNS or URI), any of which does.
    pub certificates: Vec<String>,
    /// Listeners, by name or address, whose clients are all this tenant's without being asked.
    pub listeners: Vec<String>,
    /// What its keys begin with on the servers; its name if left out. Who changes it loses the cache.
    #[schemars(length(min = 1, max = 64))]
    pub prefix: Option<String>,
    /// How much it may use.
    pub limits: TenantLimits,
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The name.
    #[schemars(length(min = 1, max = 250))]
    pub user: String,
    /// The password, or its argon2 hash (a text that begins with `$argon2`).
    pub password: Secret,
}

/// How much a tenant may use of one proxy. What is left out has no bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TenantLimits {
    /// Requests a second; each key of a retrieval is one.
    #[schemars(range(min = 1))]
    pub requests_per_second: Option<u64>,
    /// Bytes a second of keys and values, in both directions.
    pub bytes_per_second: Option<Size>,
    /// How long a request that is over a rate is held back before it is refused.
    pub patience: Duration,
    /// Connections at once.
    #[schemars(range(min = 1))]
    pub connections: Option<u32>,
    /// The longest value.
    pub item: Option<Size>,
    /// Requests on their way to servers, of all its connections; the workers share them evenly.
    #[schemars(range(min = 1))]
    pub in_flight: Option<u32>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            requests_per_second: None,
            bytes_per_second: None,
            patience: Duration::from_millis(100),
            connections: None,
            item: None,
            in_flight: None,
        }
    }
}

/// Clients that have not said yet who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Authentication {
    /// How long one may take.
    pub timeout: Duration,
    /// How many there may be at once; the oldest gives way to the next.
    #[schemars(range(min = 1))]
    pub pending: usize,
}

impl Default for Authentication {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), pending: 1000 }
    }
}

/// How tenants share a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Fairness {
    /// Requests that a worker has on their way to servers while more than one tenant has some. They share it
    /// evenly; a tenant that is alone may have as many as it likes.
    #[schemars(range(min = 1, max = 65536))]
    pub window: u32,
}

impl Default for Fairness {
    fn default() -> Self {
        Self { window: 16 }
    }
}

/// Everything about tenants, borrowed from the document.
#[derive(Debug, Clone, Copy)]
pub struct Sections<'a> {
    /// By name.
    pub tenants: &'a BTreeMap<String, Tenant>,
    /// Whose clients are those that cannot be told.
    pub default_tenant: Option<&'a str>,
    /// Clients that have not said yet who they are.
    pub authentication: &'a Authentication,
    /// Where clients connect.
    pub listeners: &'a [Listener],
}

impl Tenant {
    /// What its keys begin with.
    pub fn prefix<'a>(&'a self, name: &'a str) -> &'a str {
        self.prefix.as_deref().unwrap_or(name)
    }
}

impl<'a> Sections<'a> {
    /// The tenant whose listener this is.
    pub fn of_listener(&self, listener: &Listener) -> Option<&'a str> {
        let is_named = |text: &String| *text == listener.label() || *text == listener.address.to_string();
        self.tenants
            .iter()
            .find(|(_, tenant)| tenant.listeners.iter().any(is_named))
            .map(|(name, _)| name.as_str())
    }

    fn has_credentials(&self) -> bool {
        self.tenants.values().any(|tenant| !tenant.credentials.is_empty())
    }

    /// What the types cannot say.
    pub fn check(&self, issues: &mut Issues) {
        if self.authentication.timeout.is_zero() {
            issues.at(&["authentication", "timeout"], "nobody logs in in no time", Some("write `10s`"));
        }
        if let Some(name) = self.default_tenant
            && !self.tenants.contains_key(name)
        {
            let help = "write one of those in `tenants`";
            issues.at(&["default_tenant"], format!("there is no tenant `{name}`"), Some(help));
        }
        if self.tenants.len() > TENANTS_MAX {
            let message = format!("at most {TENANTS_MAX} tenants can be told apart in metrics");
            issues.at_key(&["tenants"], message, Some("run another proxy for the rest"));
        }
        for (name, tenant) in self.tenants {
            self.check_tenant(name, tenant, issues);
        }
        self.check_names(issues);
        self.check_listeners(issues);
    }

    fn check_tenant(&self, name: &str, tenant: &Tenant, issues: &mut Issues) {
        if !is_prefix(tenant.prefix(name)) {
            let help = format!("write up to {PREFIX_LEN_MAX} letters, digits and `-_.` as `prefix`");
            let message = "no key can begin like this";
            match tenant.prefix {
                Some(_) => issues.at(&["tenants", name, "prefix"], message, Some(&help)),
                None => issues.at_key(&["tenants", name], message, Some(&help)),
            }
        }
        for (index, credential) in tenant.credentials.iter().enumerate() {
            let number = index.to_string();
            if credential.user.bytes().any(|byte| byte <= b' ') {
                let path = ["tenants", name, "credentials", &number, "user"];
                let help = "write it without spaces and control characters";
                issues.at(&path, "no client could say this name", Some(help));
            }
            if let Err(error) = Password::read(credential.password.expose()) {
                let path = ["tenants", name, "credentials", &number, "password"];
                issues.at(&path, error.to_string(), Some(password::HELP));
            }
        }
        let limits = &tenant.limits;
        for (key, size) in [("bytes_per_second", limits.bytes_per_second), ("item", limits.item)] {
            if size == Some(Size(0)) {
                let path = ["tenants", name, "limits", key];
                issues.at(&path, "nothing could be stored", Some("leave it out for no bound"));
            }
        }
        let is_reached = !(tenant.credentials.is_empty()
            && tenant.certificates.is_empty()
            && tenant.listeners.is_empty()
            && self.default_tenant != Some(name));
        if !is_reached {
            let help = "add `credentials`, `certificates` or `listeners`, or name it as `default_tenant`";
            issues.at_key(&["tenants", name], "no client can be this tenant's", Some(help));
        }
    }

    /// Nothing may name two tenants.
    fn check_names(&self, issues: &mut Issues) {
        let mut prefixes: HashMap<&str, &str> = HashMap::new();
        let mut users: HashMap<&str, &str> = HashMap::new();
        let mut certificates: HashMap<&str, &str> = HashMap::new();
        for (name, tenant) in self.tenants {
            if let Some(other) = prefixes.insert(tenant.prefix(name), name) {
                let message = format!("the keys of `{other}` begin like this already");
                issues.at_key(&["tenants", name], message, Some("give each tenant a `prefix` of its own"));
            }
            for (index, credential) in tenant.credentials.iter().enumerate() {
                if let Some(other) = users.insert(&credential.user, name).filter(|other| other != name) {
                    let path = ["tenants", name, "credentials", &index.to_string(), "user"];
                    let message = format!("this user is the tenant `{other}`'s");
                    issues.at(&path, message, Some("a user belongs to one tenant"));
                }
            }
            for (index, san) in tenant.certificates.iter().enumerate() {
                if let Some(other) = certificates.insert(san, name).filter(|other| other != name) {
                    let path = ["tenants", name, "certificates", &index.to_string()];
                    let message = format!("this certificate is the tenant `{other}`'s");
                    issues.at(&path, message, Some("a name belongs to one tenant"));
                }
            }
        }
    }

    fn check_listeners(&self, issues: &mut Issues) {
        let mut taken: HashMap<usize, &str> = HashMap::new();
        for (name, tenant) in self.tenants {
            for (index, text) in tenant.listeners.iter().enumerate() {
                let path = ["tenants", name, "listeners", &index.to_string()];
                let is_it =
                    |listener: &Listener| listener.label() == *text || listener.address.to_string() == *text;
                match self.listeners.iter().position(is_it) {
                    None => {
                        let help = "write a listener's `name`, or its `address` if it has none";
                        issues.at(&path, format!("there is no listener `{text}`"), Some(help));
                    }
                    Some(number) => {
                        if let Some(other) = taken.insert(number, name).filter(|other| other != name) {
                            let message = format!("this listener is the tenant `{other}`'s");
                            issues.at(&path, message, Some("a listener belongs to one tenant"));
                        }
                    }
                }
            }
        }
        if self.tenants.is_empty() || self.default_tenant.is_some() || self.has_credentials() {
            return;
        }
        let has_certificates = self.tenants.values().any(|tenant| !tenant.certificates.is_empty());
        for (index, listener) in self.listeners.iter().enumerate() {
            let asks = listener.tls.as_ref().is_some_and(|tls| tls.client_auth() != ClientAuth::None);
            let is_open = taken.contains_key(&index) || (asks && has_certificates);
            if !is_open {
                let number = index.to_string();
                let help = "add it to a tenant's `listeners`, or name a `default_tenant`";
                issues.at_key(&["listeners", &number], "no tenant's clients can come in here", Some(help));
            }
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
