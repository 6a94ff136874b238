//! What outlives a table: key sets, connections and answers of those who are asked. A reload that does not change how
//! somebody is asked keeps what is known of it, so that no provider that is away at that moment takes an app away.

use super::forward::Forward;
use super::jwks::{self, Jwks};
use super::oidc::provider::Provider;
use super::outbound::{Client, IN_FLIGHT_MAX, TIME_MAX, Url};
use crate::config::auth as written;
use groove_common::app::StartError;
use groove_common::config::{CertificateFile, ClientTls, Duration};
use groove_common::net::Connector;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Passwords that are hashed at once, for all apps together. Each takes a processor for tens of milliseconds.
const HASHING_MAX: usize = 2;

/// What is known of those who are asked.
#[derive(Debug)]
pub struct Providers {
    runtime: Handle,
    hashing: Arc<Semaphore>,
    key_sets: BTreeMap<String, Arc<Jwks>>,
    forwards: Vec<(written::ForwardAuth, Arc<Forward>)>,
    issuers: BTreeMap<String, Arc<Provider>>,
    before: Option<Arc<Known>>,
    /// The system's authorities are many, and reading them takes long: once is enough.
    connectors: BTreeMap<String, Connector>,
}

/// What a table's providers leave for the next one's.
#[derive(Debug)]
pub struct Known {
    hashing: Arc<Semaphore>,
    key_sets: BTreeMap<String, Arc<Jwks>>,
    forwards: Vec<(written::ForwardAuth, Arc<Forward>)>,
    issuers: BTreeMap<String, Arc<Provider>>,
}

impl Providers {
    /// None yet; those of the table before live on where they are asked for again.
    pub fn new(runtime: &Handle, before: Option<Arc<Known>>) -> Self {
        let hashing = before.as_ref().map(|before| Arc::clone(&before.hashing));
        Self {
            runtime: runtime.clone(),
            hashing: hashing.unwrap_or_else(|| Arc::new(Semaphore::new(HASHING_MAX))),
            key_sets: BTreeMap::new(),
            forwards: Vec::new(),
            issuers: BTreeMap::new(),
            before,
            connectors: BTreeMap::new(),
        }
    }

    /// What is to be kept for the next table.
    pub fn finish(self) -> Arc<Known> {
        let Self { hashing, key_sets, forwards, issuers, .. } = self;
        Arc::new(Known { hashing, key_sets, forwards, issuers })
    }

    /// Turns to hash a password.
    pub fn hashing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.hashing)
    }

    /// Where questions and hashes run.
    pub fn runtime(&self) -> Handle {
        self.runtime.clone()
    }

    /// The set of a file or a URL.
    pub fn jwks(&mut self, jwks: &written::Jwks) -> Result<Arc<Jwks>, StartError> {
        let Some(text) = &jwks.url else {
            let file = jwks.file.as_ref().ok_or("a key set has a url or a file")?;
            return Ok(Jwks::of_file(file)?);
        };
        let key = serde_json::to_string(jwks)?;
        let before = self.before.as_ref().and_then(|before| before.key_sets.get(&key));
        let made = match self.key_sets.get(&key).or(before) {
            Some(made) => Arc::clone(made),
            None => {
                let client = self.client(jwks.ca.as_ref(), jwks.timeout)?;
                let refresh = jwks.refresh.map_or(jwks::REFRESH, Duration::get);
                Jwks::of_url(Url::parse(text)?, client, refresh, &self.runtime)
            }
        };
        self.key_sets.insert(key, Arc::clone(&made));
        Ok(made)
    }

    /// Somebody who is asked.
    pub fn forward(&mut self, written: &written::ForwardAuth) -> Result<Arc<Forward>, StartError> {
        let before = self.before.iter().flat_map(|before| &before.forwards);
        let found = self.forwards.iter().chain(before).find(|(other, _)| other == written);
        let made = match found {
            Some((_, made)) => Arc::clone(made),
            None => {
                let tls = Connector::new(&written.tls.clone().unwrap_or_default(), &[b"http/1.1"])?;
                let time_max = written.timeout.map_or(TIME_MAX, Duration::get);
                let in_flight_max = written.max_in_flight.unwrap_or(IN_FLIGHT_MAX);
                let client = Client::new(self.runtime.clone(), tls, time_max, in_flight_max);
                Arc::new(Forward::new(written, client)?)
            }
        };
        self.forwards.push((written.clone(), Arc::clone(&made)));
        Ok(made)
    }

    /// An OpenID provider.
    pub fn issuer(&mut self, oidc: &written::Oidc) -> Result<Arc<Provider>, StartError> {
        let key = serde_json::to_string(&(&oidc.issuer, &oidc.ca, &oidc.timeout))?;
        let before = self.before.as_ref().and_then(|before| before.issuers.get(&key));
        let made = match self.issuers.get(&key).or(before) {
            Some(made) => Arc::clone(made),
            None => {
                let client = self.client(oidc.ca.as_ref(), oidc.timeout)?;
                Provider::new(&oidc.issuer, client, &self.runtime)?
            }
        };
        self.issuers.insert(key, Arc::clone(&made));
        Ok(made)
    }

    fn client(
        &mut self,
        ca: Option<&CertificateFile>,
        time_max: Option<Duration>,
    ) -> Result<Arc<Client>, StartError> {
        let key = ca.map(|ca| Path::display(ca).to_string()).unwrap_or_default();
        let tls = match self.connectors.get(&key) {
            Some(tls) => tls.clone(),
            None => {
                let tls =
                    Connector::new(&ClientTls { ca: ca.cloned(), ..ClientTls::default() }, &[b"http/1.1"])?;
                self.connectors.insert(key, tls.clone());
                tls
            }
        };
        Ok(Client::new(self.runtime.clone(), tls, time_max.map_or(TIME_MAX, Duration::get), IN_FLIGHT_MAX))
    }
}
