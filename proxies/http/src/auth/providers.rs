//! What outlives an app that is changed: key sets, connections and answers of those who are asked. A reload that does not change how
//! somebody is asked keeps what is known of it, so that no provider that is away at that moment takes an app away.

use super::forward::Forward;
use super::jwks::{self, Jwks};
use super::oidc::provider::Provider;
use super::outbound::{Client, IN_FLIGHT_MAX, TIME_MAX, Url};
use crate::config::auth as written;
use groove_common::app::StartError;
use groove_common::config::{CertificateFile, ClientTls, Duration};
use groove_common::net::Connector;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Passwords that are hashed at once, for all apps together. Each takes a processor for tens of milliseconds.
const HASHING_MAX: usize = 2;

/// What is known of those who are asked, for all apps. It holds nobody itself: who is asked by no app any more goes with
/// the last app that asked.
#[derive(Debug)]
pub struct Known {
    hashing: Arc<Semaphore>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    key_sets: BTreeMap<String, Weak<Jwks>>,
    forwards: Vec<(written::ForwardAuth, Weak<Forward>)>,
    issuers: BTreeMap<String, Weak<Provider>>,
    /// The system's authorities are many, and reading them takes long: once is enough.
    system: Option<Connector>,
}

impl Default for Known {
    fn default() -> Self {
        Self { hashing: Arc::new(Semaphore::new(HASHING_MAX)), held: Mutex::default() }
    }
}

impl Held {
    /// Forgets who is gone.
    fn sweep(&mut self) {
        self.key_sets.retain(|_, it| it.strong_count() > 0);
        self.forwards.retain(|(_, it)| it.strong_count() > 0);
        self.issuers.retain(|_, it| it.strong_count() > 0);
    }
}

/// Those who are asked, for an app in the making.
#[derive(Debug)]
pub struct Providers {
    runtime: Handle,
    known: Arc<Known>,
    connectors: BTreeMap<String, Connector>,
}

impl Providers {
    /// Those that are known live on where they are asked for again.
    pub fn new(runtime: &Handle, known: &Arc<Known>) -> Self {
        Self { runtime: runtime.clone(), known: Arc::clone(known), connectors: BTreeMap::new() }
    }

    /// Turns to hash a password.
    pub fn hashing(&self) -> Arc<Semaphore> {
        Arc::clone(&self.known.hashing)
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
        if let Some(made) = self.known.held.lock().key_sets.get(&key).and_then(Weak::upgrade) {
            return Ok(made);
        }
        let client = self.client(jwks.ca.as_ref(), jwks.timeout)?;
        let refresh = jwks.refresh.map_or(jwks::REFRESH, Duration::get);
        let made = Jwks::of_url(Url::parse(text)?, client, refresh, &self.runtime);
        let mut held = self.known.held.lock();
        held.sweep();
        held.key_sets.insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    /// Somebody who is asked.
    pub fn forward(&mut self, written: &written::ForwardAuth) -> Result<Arc<Forward>, StartError> {
        let known = |held: &Held| {
            let (_, made) = held.forwards.iter().find(|(other, _)| other == written)?;
            made.upgrade()
        };
        if let Some(made) = known(&self.known.held.lock()) {
            return Ok(made);
        }
        let tls = Connector::new(&written.tls.clone().unwrap_or_default(), &[b"http/1.1"])?;
        let time_max = written.timeout.map_or(TIME_MAX, Duration::get);
        let in_flight_max = written.max_in_flight.unwrap_or(IN_FLIGHT_MAX);
        let client = Client::new(self.runtime.clone(), tls, time_max, in_flight_max);
        let made = Arc::new(Forward::new(written, client)?);
        let mut held = self.known.held.lock();
        held.sweep();
        held.forwards.push((written.clone(), Arc::downgrade(&made)));
        Ok(made)
    }

    /// An OpenID provider.
    pub fn issuer(&mut self, oidc: &written::Oidc) -> Result<Arc<Provider>, StartError> {
        let key = serde_json::to_string(&(&oidc.issuer, &oidc.ca, &oidc.timeout))?;
        if let Some(made) = self.known.held.lock().issuers.get(&key).and_then(Weak::upgrade) {
            return Ok(made);
        }
        let client = self.client(oidc.ca.as_ref(), oidc.timeout)?;
        let made = Provider::new(&oidc.issuer, client, &self.runtime)?;
        let mut held = self.known.held.lock();
        held.sweep();
        held.issuers.insert(key, Arc::downgrade(&made));
        Ok(made)
    }

    fn client(
        &mut self,
        ca: Option<&CertificateFile>,
        time_max: Option<Duration>,
    ) -> Result<Arc<Client>, StartError> {
        let tls = match ca {
            Some(ca) => {
                let key = Path::display(ca).to_string();
                match self.connectors.get(&key) {
                    Some(tls) => tls.clone(),
                    None => {
                        let tls = Connector::new(
                            &ClientTls { ca: Some(ca.clone()), ..ClientTls::default() },
                            &[b"http/1.1"],
                        )?;
                        self.connectors.insert(key, tls.clone());
                        tls
                    }
                }
            }
            None => self.system()?,
        };
        Ok(Client::new(self.runtime.clone(), tls, time_max.map_or(TIME_MAX, Duration::get), IN_FLIGHT_MAX))
    }

    fn system(&self) -> Result<Connector, StartError> {
        let mut held = self.known.held.lock();
        if let Some(tls) = &held.system {
            return Ok(tls.clone());
        }
        let tls = Connector::new(&ClientTls::default(), &[b"http/1.1"])?;
        held.system = Some(tls.clone());
        Ok(tls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_asked_is_known_for_as_long_as_an_app_asks() {
        let known: Arc<Known> = Arc::default();
        let ask = |path: &str| {
            let url = Some(format!("http://127.0.0.1:9{path}"));
            let written = written::Jwks { url, ..written::Jwks::default() };
            Providers::new(&Handle::current(), &known).jwks(&written).expect("a key set")
        };
        let (first, again) = (ask("/a"), ask("/a"));
        assert!(Arc::ptr_eq(&first, &again), "one set for all who ask for it");
        let kept = ask("/kept");
        drop((first, again));
        let other = ask("/b");
        assert_eq!(known.held.lock().key_sets.len(), 2, "that of nobody is gone");
        assert!(Arc::ptr_eq(&kept, &ask("/kept")));
        drop(other);
    }
}
