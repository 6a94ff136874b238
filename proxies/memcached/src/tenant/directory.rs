//! Who is who: the tenants of one configuration, and which of them a connection belongs to.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use groove_common::app::StartError;
use groove_common::telemetry::Registry;

use super::config::{self, Authentication, Sections, TenantLimits};
use super::counters::Counters;
use super::key::Head;
use super::limits::{Bound, Rates};
use super::vault::{Grant, Keeper, Tag, Vault};
use crate::metrics::usual_ms;

/// A tenant, as one configuration has it. What must outlive a reload is in `Core`.
#[derive(Debug)]
pub struct Tenant {
    core: Arc<Core>,
    section: config::Tenant,
    /// How fast it may ask.
    pub rates: Rates,
}

/// What of a tenant stays the same, whatever the configuration becomes.
#[derive(Debug)]
struct Core {
    name: String,
    number: usize,
    prefix: String,
    /// None while its generation is not known.
    head: ArcSwapOption<Head>,
    counters: Arc<Counters>,
    connections: AtomicU32,
}

impl Tenant {
    /// As configured.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its place in [`super::fair::Fair`]: the same for as long as the process lives.
    pub fn number(&self) -> usize {
        self.core.number
    }

    /// What its keys begin with.
    pub fn prefix(&self) -> &str {
        &self.core.prefix
    }

    /// What stands before its keys now; none while that is not known.
    pub fn head(&self) -> Guard<Option<Arc<Head>>> {
        self.core.head.load()
    }

    /// Its keys are of this generation from now on.
    pub fn set_generation(&self, generation: Option<u64>) {
        let head = generation.map(|generation| Head::new(self.prefix(), generation));
        if self.core.head.load().as_deref() != head.as_ref() {
            self.core.head.store(head.map(Arc::new));
        }
    }

    /// What is counted of it.
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// What it may use.
    pub fn limits(&self) -> &TenantLimits {
        &self.section.limits
    }
}

/// What makes a connection a tenant's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Where it came in (by this name), or nothing else said whose it is.
    Listener(String),
    /// A name in its certificate.
    Certificate(String),
    /// A user's password.
    Credential {
        /// The user.
        user: Bytes,
        /// Which of its passwords.
        entry: Tag,
    },
}

/// A connection's tenant, for as long as the connection lives.
#[derive(Debug)]
pub struct Member {
    /// Whose it is.
    pub tenant: Arc<Tenant>,
    proof: Proof,
}

impl Member {
    /// One more connection of this tenant.
    ///
    /// # Errors
    ///
    /// When it has as many as it may.
    pub fn enter(tenant: Arc<Tenant>, proof: Proof) -> Result<Self, Bound> {
        let most = tenant.limits().connections.unwrap_or(u32::MAX);
        let count = &tenant.core.connections;
        let entered = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
            (count < most).then_some(count.saturating_add(1))
        });
        if entered.is_err() {
            tenant.counters().count_refused(Bound::Connections);
            return Err(Bound::Connections);
        }
        tenant.counters().begin_session();
        Ok(Self { tenant, proof })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tenant.core.connections.fetch_sub(1, Ordering::Relaxed);
        self.tenant.counters().sessions.dec();
    }
}

/// What a connection that comes in is.
#[derive(Debug)]
pub enum Arrival {
    /// A tenant's, unless it logs in as another's.
    Known(Arc<Tenant>, Proof),
    /// Nobody's before it has logged in.
    MustLogIn,
    /// Nobody's at all.
    Nobody,
}

/// The tenants of one configuration.
#[derive(Debug)]
pub struct Directory {
    tenants: Vec<Arc<Tenant>>,
    /// By the listeners' names.
    listeners: HashMap<String, usize>,
    certificates: HashMap<String, usize>,
    default: Option<usize>,
    vault: Vault,
    authentication: Authentication,
    /// What it was made of.
    written: Written,
}

#[derive(Debug, Clone, PartialEq)]
struct Written {
    tenants: BTreeMap<String, config::Tenant>,
    listeners: HashMap<String, usize>,
    default: Option<usize>,
    authentication: Authentication,
}

/// What directories are made with.
#[derive(Debug, Clone)]
pub struct Makings {
    /// What stays the same over reloads.
    pub keeper: Arc<Keeper>,
    /// Where metrics are.
    pub registry: Arc<Registry>,
    /// How many worker threads there are.
    pub workers: usize,
    /// The next tenant's number.
    pub numbers: Arc<AtomicUsize>,
}

impl Makings {
    /// For a program that starts.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn new(registry: &Arc<Registry>, workers: usize) -> Result<Self, StartError> {
        Ok(Self { keeper: Keeper::new()?, registry: Arc::clone(registry), workers, numbers: Arc::default() })
    }
}

impl Directory {
    /// The tenants of a configuration. Those that were there before keep their numbers and what they have used;
    /// if nothing has changed, credentials that were right stay known.
    pub fn build(sections: Sections<'_>, before: Option<&Arc<Self>>, makings: &Makings) -> Arc<Self> {
        let place = |name: &str| sections.tenants.keys().position(|known| known == name);
        let listeners: HashMap<String, usize> = sections
            .listeners
            .iter()
            .filter_map(|listener| Some((listener.label(), place(sections.of_listener(listener)?)?)))
            .collect();
        let written = Written {
            tenants: sections.tenants.clone(),
            listeners: listeners.clone(),
            default: sections.default_tenant.and_then(place),
            authentication: sections.authentication.clone(),
        };
        if let Some(before) = before.filter(|before| before.written == written) {
            return Arc::clone(before);
        }
        let tenants =
            sections.tenants.iter().map(|(name, section)| tenant(name, section, before, makings)).collect();
        let certificates = sections.tenants.values().enumerate();
        let certificates = certificates
            .flat_map(|(place, tenant)| tenant.certificates.iter().map(move |name| (name.clone(), place)));
        Arc::new(Self {
            tenants,
            listeners,
            certificates: certificates.collect(),
            default: written.default,
            vault: Vault::new(sections.tenants, &makings.keeper),
            authentication: written.authentication.clone(),
            written,
        })
    }

    /// All of them, in the order of their names.
    pub fn tenants(&self) -> &[Arc<Tenant>] {
        &self.tenants
    }

    /// Are there no tenants, and every connection is served as it comes?
    pub fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    /// Whose credentials are whose.
    pub fn vault(&self) -> &Vault {
        &self.vault
    }

    /// What clients are allowed before they have logged in.
    pub fn authentication(&self) -> &Authentication {
        &self.authentication
    }

    /// What a connection is that came in at this listener, with these names in its certificate: the listener
    /// decides, then the certificate, then the password if there are any, then the default.
    pub fn arrive(&self, listener: &str, certificate: &[String]) -> Arrival {
        let known = |place: &usize, proof| {
            self.tenants.get(*place).map(|tenant| Arrival::Known(Arc::clone(tenant), proof))
        };
        if let Some(place) = self.listeners.get(listener) {
            return known(place, Proof::Listener(listener.to_owned())).unwrap_or(Arrival::Nobody);
        }
        let named = certificate.iter().find_map(|name| Some((name, self.certificates.get(name)?)));
        if let Some((name, place)) = named {
            return known(place, Proof::Certificate(name.clone())).unwrap_or(Arrival::Nobody);
        }
        match &self.default {
            Some(place) => known(place, Proof::Listener(listener.to_owned())).unwrap_or(Arrival::Nobody),
            None if self.vault.is_empty() => Arrival::Nobody,
            None => Arrival::MustLogIn,
        }
    }

    /// May a client that need not log in do so nevertheless? Not where a listener or a certificate has said whose
    /// it is.
    pub fn may_log_in(&self, listener: &str, proof: &Proof) -> bool {
        !self.vault.is_empty()
            && !self.listeners.contains_key(listener)
            && matches!(proof, Proof::Listener(_))
    }

    /// The tenant of a credential that was right.
    pub fn granted(&self, grant: &Grant) -> Option<&Arc<Tenant>> {
        self.tenants.get(grant.tenant)
    }

    /// The tenant of a connection that came before this configuration, if what proved it still does. A connection
    /// never changes from one tenant to another.
    pub fn renew(&self, member: &Member) -> Option<&Arc<Tenant>> {
        let place = match &member.proof {
            Proof::Listener(name) => self.listeners.get(name).copied().or(self.default),
            Proof::Certificate(name) => self.certificates.get(name).copied(),
            Proof::Credential { user, entry } => {
                self.vault.still_grants(user, entry).map(|grant| grant.tenant)
            }
        };
        let tenant = place.and_then(|place| self.tenants.get(place));
        tenant.filter(|tenant| Arc::ptr_eq(&tenant.core, &member.tenant.core))
    }

    /// For the admin API: a row a tenant.
    pub fn status(&self) -> serde_json::Value {
        self.tenants.iter().map(|tenant| tenant.status()).collect()
    }
}

impl Tenant {
    fn status(&self) -> serde_json::Value {
        let head = self.head();
        let head = head.as_ref().map(|head| String::from_utf8_lossy(head.bytes()).into_owned());
        let [(half, half_ms), (most, most_ms)] = usual_ms(self.counters().latency());
        serde_json::json!({
            "name": self.name(),
            "keys": head.unwrap_or_else(|| "not known yet".to_owned()),
            "connections": self.core.connections.load(Ordering::Relaxed),
            half: half_ms,
            most: most_ms,
        })
    }
}

fn tenant(
    name: &str,
    section: &config::Tenant,
    before: Option<&Arc<Directory>>,
    makings: &Makings,
) -> Arc<Tenant> {
    let old = before.and_then(|before| before.tenants.iter().find(|old| old.name() == name));
    let old = old.filter(|old| old.prefix() == section.prefix(name));
    if let Some(old) = old.filter(|old| old.section == *section) {
        return Arc::clone(old);
    }
    let core = old.map_or_else(
        || {
            Arc::new(Core {
                name: name.to_owned(),
                number: makings.numbers.fetch_add(1, Ordering::Relaxed),
                prefix: section.prefix(name).to_owned(),
                head: ArcSwapOption::empty(),
                counters: Counters::new(&makings.registry, makings.workers, name),
                connections: AtomicU32::new(0),
            })
        },
        |old| Arc::clone(&old.core),
    );
    Arc::new(Tenant { core, section: section.clone(), rates: Rates::new(&section.limits) })
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
