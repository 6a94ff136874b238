//! How a pool makes connections: pick a server, connect, log in.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use groove_common::discovery::{Cluster, Endpoint, Outcome, Policy, fresh_dice};
use groove_common::net::Connector;
use groove_common::pool::Manager;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::welcome::Welcome;
use super::{Server, connect};
use crate::auth::Stored;
use crate::auth::scram::{Iterations, Keys, SaltedKeys};
use crate::config::ChannelBinding;
use crate::error::Error;
use crate::live::Live;
use crate::metrics::PoolMetrics;
use crate::roles::{Roles, Tie, Wish};
use crate::wire::backend::error_field;

/// Whom a pool logs in as, and where.
pub struct Target {
    /// The servers.
    pub cluster: Arc<Cluster>,
    /// What they are to each other, where that matters.
    pub roles: Option<Arc<Roles>>,
    /// What a connection is wanted to.
    pub wish: Wish,
    /// Whether its clients have the primary, too: then they are not told which of the two a server is.
    pub is_split: bool,
    /// TLS to them.
    pub tls: Option<Connector>,
    /// Whether a login is bound to the server's certificate.
    pub channel_binding: ChannelBinding,
    /// The database's name on the servers.
    pub dbname: String,
    /// The role on the servers.
    pub user: String,
    /// What proves it.
    pub password: Option<Stored>,
    /// Whether a server that asks for no proof is an error: the password is a client's, and nobody knows if it is right.
    pub must_prove: bool,
    /// For a connection, login included.
    pub connect: Duration,
    /// Prepared statements kept on a connection.
    pub statements_max: usize,
    /// Derived from the password, so that a new server with the same salt costs nothing; or by the client from its
    /// own, where we have a verifier only.
    pub keys: Arc<KeyCache>,
}

impl Target {
    /// Whether there is anything to prove ourselves with by SCRAM.
    pub fn check_scram(&self) -> Result<(), Error> {
        match &self.password {
            Some(Stored::Plain(_) | Stored::Scram(_)) => Ok(()),
            Some(Stored::Md5(_)) | None => self.plain_password().map(|_| ()),
        }
    }

    /// The password where only the password itself will do.
    pub fn plain_password(&self) -> Result<&str, Error> {
        match &self.password {
            Some(Stored::Plain(password)) => Ok(password),
            Some(Stored::Md5(_) | Stored::Scram(_)) => Err(Error::ServerAuth(
                "the server asks for the password itself, and only a hash of it is known",
            )),
            None => Err(Error::ServerAuth("the server asks for a password, and there is none")),
        }
    }

    /// Remembers what a client's proof told. Of use only where there is no password to derive it from.
    pub(super) fn learn(&self, keys: SaltedKeys) {
        if let Some(Stored::Scram(_)) = self.password {
            self.keys.put(keys);
        }
    }

    /// What was [learnt](Target::learn).
    pub(super) fn learnt(&self) -> Option<SaltedKeys> {
        match self.password {
            Some(Stored::Scram(_)) => self.keys.last(),
            Some(Stored::Plain(_) | Stored::Md5(_)) | None => None,
        }
    }

    /// What proves us to a server that keeps a verifier with this salt; `None` if we cannot.
    pub fn scram_keys(&self, salt: &[u8], iterations: Iterations) -> Option<Keys> {
        if let Some(keys) = self.keys.get(salt, iterations) {
            return Some(keys);
        }
        match &self.password {
            Some(Stored::Plain(password)) => {
                let keys = Keys::derive(password, salt, iterations);
                self.keys.put(SaltedKeys { salt: salt.to_vec(), iterations, keys: keys.clone() });
                Some(keys)
            }
            Some(Stored::Md5(_) | Stored::Scram(_)) | None => None,
        }
    }

    /// A connection to the server that has the fewest of ours, of those that are what is wanted.
    pub async fn dial(&self, extra: &[(String, String)]) -> Result<Server, Error> {
        let endpoint = match &self.roles {
            Some(roles) => roles.pick(self.wish).await.ok_or(Error::NoServerOfRole)?,
            None => self.pick()?,
        };
        let counted = endpoint.begin();
        let started = Instant::now();
        let connected = Box::pin(connect(self, &endpoint.address, extra, self.connect));
        let connected = match &self.roles {
            Some(roles) => roles.while_wanted(self.wish, endpoint.id, connected).await,
            None => Some(connected.await),
        };
        let connected = connected.ok_or(Error::NoServerOfRole)?;
        let failed = match &connected {
            Ok(_) => false,
            // A server that says no is well, unless it says that it is not.
            Err(Error::Refused(body)) => is_passing(body),
            Err(Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven) => false,
            Err(_) => true,
        };
        let outcome = if failed { Outcome::Failure } else { Outcome::Success { latency: started.elapsed() } };
        self.cluster.report(&endpoint, outcome);
        if let (true, Some(roles)) = (failed, &self.roles) {
            roles.nudge();
        }
        let mut server = connected?;
        server.counted = Some(counted);
        self.tie(&mut server, &endpoint)?;
        Ok(server)
    }

    fn pick(&self) -> Result<Arc<Endpoint>, Error> {
        let snapshot = self.cluster.snapshot();
        let picked = snapshot.pick(Policy::LeastLoaded, self.cluster.now(), &mut fresh_dice());
        Ok(Arc::clone(&picked.ok_or(Error::NoEndpoint)?.endpoint))
    }

    /// Ties a new connection to its server's role. An error if that is not what was wanted: it has changed meanwhile, or
    /// the server itself says otherwise (since PostgreSQL 14 at the login).
    fn tie(&self, server: &mut Server, endpoint: &Endpoint) -> Result<(), Error> {
        let Some(roles) = &self.roles else { return Ok(()) };
        let mut tie = Tie::new(Arc::clone(roles), self.wish, endpoint.id);
        let is_standby = server.backend.settings.get("in_hot_standby") == Some("on");
        if !tie.is_admitted() || (self.wish == Wish::Primary && is_standby) {
            roles.nudge();
            return Err(Error::NoServerOfRole);
        }
        if self.is_split && is_standby {
            Arc::make_mut(&mut server.backend.settings).report("in_hot_standby", "off");
            server.backend.initial = Arc::clone(&server.backend.settings);
        }
        server.tie = Some(tie);
        Ok(())
    }
}

/// The last keys derived from a password. A server's salt for a role changes only with the password.
#[derive(Default)]
pub struct KeyCache(Mutex<Option<SaltedKeys>>);

impl KeyCache {
    /// The keys for this salt, if they are known.
    pub fn get(&self, salt: &[u8], iterations: Iterations) -> Option<Keys> {
        let known = self.0.lock();
        let known = known.as_ref()?;
        (known.salt == salt && known.iterations == iterations).then(|| known.keys.clone())
    }

    /// Those known last.
    pub(super) fn last(&self) -> Option<SaltedKeys> {
        self.0.lock().clone()
    }

    /// Remembers keys in place of those before.
    pub fn put(&self, keys: SaltedKeys) {
        *self.0.lock() = Some(keys);
    }
}

/// A server's refusal that may be over soon: it starts, it stops, it is full.
fn is_passing(error: &[u8]) -> bool {
    let code = error_field(error, b'C').unwrap_or_default();
    code == b"53300" || code.starts_with(b"57P")
}

/// Whether dialling again may help.
pub(super) fn may_pass(error: &Error) -> bool {
    if let Error::Refused(body) = error {
        return is_passing(body);
    }
    !matches!(error, Error::ServerAuth(_) | Error::ServerScram(_) | Error::Unproven)
}

/// Makes the connections of one pool. Clones share it.
#[derive(Clone)]
pub struct Dial {
    /// Changed by a reload.
    pub(super) target: Arc<ArcSwap<Target>>,
    pub(super) welcome: Arc<Welcome>,
    pub(super) metrics: Arc<PoolMetrics>,
    pub(super) live: Arc<Live>,
    /// Database and user, as clients name them.
    pub(super) names: (Arc<str>, Arc<str>),
}

impl Dial {
    /// The pool's name, for logs.
    pub fn name(&self) -> String {
        format!("{}.{}", self.names.0, self.names.1)
    }

    /// Makes a new connection one of the pool's.
    pub(super) fn adopt(&self, mut server: Server) -> Server {
        self.metrics.connects.inc();
        self.welcome.learn(&server.backend.settings);
        server.seen = Some(self.live.server(&self.names.0, &self.names.1, &server.cancel));
        server
    }

    /// A connection that hears for the pool's sessions. It is none of those that are lent.
    pub async fn listener(&self) -> Result<Server, Error> {
        let target = self.target.load_full();
        let extra = [("application_name".to_owned(), "groove listener".to_owned())];
        let dialled = timeout(target.connect, target.dial(&extra)).await;
        let mut server = dialled.map_err(|_| Error::Connect(std::io::ErrorKind::TimedOut.into()))??;
        self.metrics.connects.inc();
        let seen = self.live.server(&self.names.0, &self.names.1, &server.cancel);
        seen.listens();
        server.seen = Some(seen);
        Ok(server)
    }
}

impl Manager for Dial {
    /// Boxed: it changes hands several times in each transaction.
    type Connection = Box<Server>;
    type Error = Error;

    async fn connect(&self) -> Result<Box<Server>, Error> {
        let target = self.target.load_full();
        let server = target.dial(&[]).await.inspect_err(|error| self.metrics.failed(error))?;
        Ok(Box::new(self.adopt(server)))
    }

    fn has_broken(&self, server: &mut Box<Server>) -> bool {
        !server.is_wanted() || (!server.take_voucher() && server.is_stale())
    }

    fn retry(&self, error: &Error) -> bool {
        may_pass(error)
    }
}
