//! The pool of one database and user.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use groove_common::admission::Refused;
use groove_common::health::Backoff;
use groove_common::net::Timer;
use groove_common::pool::{Lease, LeaseError, Pool, PoolConfig, PoolStatus, Waiter};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::dial::{Dial, Target};
use super::directory::PoolKey;
use super::shares::{Shares, Want};
use super::split::Split;
use super::welcome::{Asked, Welcome};
use super::{Heard, Server};
use crate::auth::scram::SaltedKeys;
use crate::config;
use crate::error::Error;
use crate::listen::Hub;
use crate::live::{Live, ServerSeat};
use crate::metrics::PoolMetrics;
use crate::session::prepared::Statements;
use crate::session::settings::{Settings, set_query};
use crate::session::state::Mode;
use crate::session::survey::{Found, Survey};
use crate::sql::Kinds;

/// A server connection for one session alone.
pub type Leased = Lease<Dial>;

/// How long our own queries on a connection may take: settings, clean-up.
const HOUSEKEEPING_MAX: Duration = Duration::from_secs(10);

/// Between failed dials where a monitor knows which servers are up.
const EAGER: Backoff = Backoff { base: Duration::from_millis(50), max: Duration::from_millis(250) };

/// The pool of one database and user, and what its sessions share.
pub struct UserPool {
    /// `database.user`, for logs and metrics.
    pub name: String,
    /// The database, as clients name it.
    pub database: String,
    /// The user, as clients name it.
    pub user: String,
    /// The database, as the console and metrics call it: that of replicas beside a primary has a name of its own.
    pub title: String,
    /// What happens in it.
    pub metrics: Arc<PoolMetrics>,
    /// Its sessions' prepared statements.
    pub statements: Arc<Statements>,
    connections: Pool<Dial>,
    dial: Dial,
    hub: Arc<Hub>,
    options: ArcSwap<config::Pool>,
    /// Connections it may have now.
    allowed: Mutex<usize>,
    /// Since when there has been a line, and the reserve has been in use after it.
    crowded_since: Mutex<Option<Instant>>,
    shares: Arc<Shares>,
    /// Where reads go, where they are split from writes.
    pub(super) split: ArcSwapOption<Split>,
}

impl UserPool {
    pub(super) fn start(
        ((database, user), title): (PoolKey, String),
        target: Target,
        (options, allowed): (config::Pool, usize),
        metrics: PoolMetrics,
        live: &Arc<Live>,
        shares: &Arc<Shares>,
        runtime: &Handle,
    ) -> UserPool {
        let metrics = Arc::new(metrics);
        let name = format!("{title}.{user}");
        let bounds = bounds(&options, &target, allowed);
        let dial = Dial {
            target: Arc::new(ArcSwap::from_pointee(target)),
            welcome: Arc::new(Welcome::default()),
            metrics: Arc::clone(&metrics),
            live: Arc::clone(live),
            names: (title.as_str().into(), user.as_str().into()),
        };
        UserPool {
            connections: Pool::start(name.clone(), dial.clone(), bounds, runtime),
            name,
            database,
            user,
            title,
            metrics: Arc::clone(&metrics),
            statements: Arc::default(),
            hub: Hub::new(dial.clone(), metrics),
            dial,
            options: ArcSwap::from_pointee(options),
            allowed: Mutex::new(allowed),
            crowded_since: Mutex::default(),
            shares: Arc::clone(shares),
            split: ArcSwapOption::empty(),
        }
    }

    /// Takes a changed configuration on. Connections to what is no longer the target are replaced.
    pub(super) fn update(&self, mut target: Target, options: config::Pool, replaced: bool) {
        let before = self.dial.target.load();
        if before.password == target.password {
            // What a client has told of them it tells again only with its next login.
            target.keys = Arc::clone(&before.keys);
        }
        let mut allowed = self.allowed.lock();
        if *allowed == self.options.load().size as usize {
            *allowed = options.size as usize;
        }
        self.connections.reconfigure(bounds(&options, &target, *allowed));
        drop(allowed);
        self.dial.target.store(Arc::new(target));
        self.options.store(Arc::new(options));
        if replaced {
            self.reconnect();
        }
    }

    /// Takes over connections to its servers that were made ahead.
    pub(super) fn stock(&self, connections: Vec<Server>) {
        let connections = connections.into_iter().map(|server| Box::new(self.dial.adopt(server)));
        self.connections.stock(connections);
    }

    /// Remembers what a client's proof told.
    pub(super) fn learn(&self, keys: SaltedKeys) {
        self.dial.target.load().learn(keys);
    }

    /// What a client's proof told.
    pub(super) fn learnt(&self) -> Option<SaltedKeys> {
        self.dial.target.load().learnt()
    }

    /// Closes idle connections now and busy ones as they come back; none is opened before a session asks for it.
    pub(super) fn hand_over(&self) {
        let bounds = bounds(&self.options.load(), &self.dial.target.load(), self.allowed());
        self.connections.reconfigure(PoolConfig { warm: 0, ..bounds });
        self.connections.reconnect();
    }

    /// When a session of this pool gives its connection back.
    pub fn mode(&self) -> Mode {
        self.options.load().mode.into()
    }

    /// Whom it logs in as, and where.
    pub(crate) fn target(&self) -> Arc<Target> {
        self.dial.target.load_full()
    }

    /// Closes idle connections whose servers are not what was wanted any more, and the one that listens.
    pub(crate) fn tend(&self) {
        self.connections.tend();
        self.hub.look();
    }

    /// Counts at this instant.
    pub fn status(&self) -> PoolStatus {
        self.connections.status()
    }

    /// What it would make use of.
    pub(super) fn want(&self, now: Instant) -> Want {
        let options = self.options.load();
        let (size, status) = (options.size as usize, self.connections.status());
        // Who waits for the end of a pause has no use for one before.
        let waiting = if status.paused { 0 } else { status.waiting };
        let mut since = self.crowded_since.lock();
        if waiting > 0 {
            since.get_or_insert(now);
        } else if status.leased <= size {
            *since = None;
        }
        let is_due = since.is_some_and(|since| now.duration_since(since) >= options.reserve_after.get());
        let reserve = if is_due { options.reserve as usize } else { 0 };
        Want {
            size: size + reserve,
            demand: (status.leased + waiting).max(options.min as usize),
            open: status.leased + status.idle,
        }
    }

    /// Whether clients wait, or the reserve is in use.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded_since.lock().is_some()
    }

    /// How many connections it may have now.
    pub(super) fn allowed(&self) -> usize {
        *self.allowed.lock()
    }

    /// Changes that.
    pub(super) fn allow(&self, connections: usize) {
        let mut allowed = self.allowed.lock();
        if *allowed != connections {
            *allowed = connections;
            let target = self.dial.target.load();
            self.connections.reconfigure(bounds(&self.options.load(), &target, connections));
        }
    }

    /// A client of its has to wait.
    pub fn is_waited_for(&self) {
        self.shares.nudge();
    }

    /// Holds new leases back, at once.
    pub(super) fn hold(&self) {
        self.connections.hold();
    }

    /// Returns once the pool is held, no lease is out, and every connection is closed.
    pub async fn empty(&self) {
        self.connections.empty().await;
    }

    /// Ends a pause.
    pub(super) fn resume(&self) {
        self.connections.resume();
    }

    /// Replaces every connection: idle ones now, busy ones as they come back. Who listens through the pool is ended.
    pub fn reconnect(&self) {
        self.connections.reconnect();
        self.hub.replace();
    }

    /// The bounds in force.
    pub fn options(&self) -> Arc<config::Pool> {
        self.options.load_full()
    }

    /// Until when a session waits for a connection that begins to wait `now`.
    pub fn deadline(&self, now: Instant) -> Instant {
        now + self.options.load().max_wait.get()
    }

    /// A connection for one session, in turn. The session's `timer` is set to the deadline.
    pub fn lease(
        &self,
        deadline: Instant,
        timer: &mut Timer,
    ) -> impl Future<Output = Result<Leased, LeaseError<Error>>> {
        timer.set(deadline);
        let waiter = Waiter { deadline: Some(deadline), ..Waiter::default() };
        self.connections.lease_timed(waiter, poll_fn(|cx| timer.poll(cx)))
    }

    /// As [`UserPool::lease`], beginning now.
    pub async fn lease_now(&self) -> Result<Leased, Error> {
        let deadline = Some(self.deadline(Instant::now()));
        self.is_waited_for();
        self.connections.lease(Waiter { deadline, ..Waiter::default() }).await.map_err(refused)
    }

    /// A connection outside of the pool, for one session to its end (replication).
    pub async fn dial(&self, extra: &[(String, String)]) -> Result<Server, Error> {
        let target = self.dial.target.load_full();
        timeout(target.connect, target.dial(extra))
            .await
            .map_err(|_| Error::Connect(std::io::ErrorKind::TimedOut.into()))?
    }

    /// The settings that a session begins with whose client asked for `asked`, in their order. A server has the
    /// last word on what is a setting and how its value is spelt.
    pub async fn settings(&self, mut asked: Asked) -> Result<Arc<Settings>, Error> {
        let application_name = take_plain_name(&mut asked);
        let settings = match self.dial.welcome.get(&asked) {
            Some(known) => known,
            None => self.ask_server(asked).await?,
        };
        let settings = self.with_truth(settings);
        match application_name {
            Some(name) if settings.get("application_name") != Some(&name) => {
                let mut settings = Settings::clone(&settings);
                settings.report("application_name", &name);
                Ok(Arc::new(settings))
            }
            Some(_) | None => Ok(settings),
        }
    }

    /// What is known of servers may be of one that has been replaced since: libpq chooses by it
    /// (`target_session_attrs`) where it logs in, and where not.
    fn with_truth(&self, settings: Arc<Settings>) -> Arc<Settings> {
        let target = self.dial.target.load();
        let is_standby = target.roles.as_ref().and_then(|roles| roles.gives_replica(target.wish));
        let truth = is_standby.map(|is_standby| if is_standby { "on" } else { "off" });
        match (settings.get("in_hot_standby"), truth) {
            (Some(told), Some(truth)) if told != truth => {
                let mut settings = Settings::clone(&settings);
                settings.report("in_hot_standby", truth);
                Arc::new(settings)
            }
            (Some(_) | None, _) => settings,
        }
    }

    async fn ask_server(&self, asked: Asked) -> Result<Arc<Settings>, Error> {
        let mut lease = self.lease_now().await?;
        let defaults = self.dial.welcome.defaults().ok_or(Error::NoEndpoint)?;
        let Some(query) = set_query(asked.iter().map(|(name, value)| (name.as_str(), value.as_str()))) else {
            return Ok(defaults);
        };
        lease.condemn();
        lease.seen.iter().for_each(ServerSeat::ours);
        let server = &mut *lease;
        let ask = async {
            if let Some(query) = server.backend.settings.query_to(&defaults) {
                server.run(&query).await?;
                Arc::make_mut(&mut server.backend.settings).take_asked(&defaults);
            }
            let outcome = server.run(&query).await;
            if outcome.is_ok() {
                let settings = Arc::make_mut(&mut server.backend.settings);
                asked.iter().for_each(|(name, value)| settings.ask(name, value));
            }
            outcome
        };
        let outcome = timeout(HOUSEKEEPING_MAX, ask).await;
        let outcome = outcome.map_err(|_| Error::Lost(std::io::ErrorKind::TimedOut.into()))?;
        if matches!(outcome, Ok(_) | Err(Error::Refused(_))) {
            // A refused setting leaves the connection as it was.
            lease.seen.iter().for_each(ServerSeat::idle);
            lease.redeem();
        }
        outcome?;
        let settings = Arc::clone(&lease.backend.settings);
        self.dial.welcome.put(asked, Arc::clone(&settings));
        Ok(settings)
    }

    /// Cleans a connection after a session that kept it to its end, and gives it back.
    pub async fn reset(&self, mut lease: Leased) {
        lease.condemn();
        lease.seen.iter().for_each(ServerSeat::ours);
        let options = self.options.load_full();
        if !options.reuse {
            return;
        }
        let reset = async {
            lease.reset(&options.reset_query).await?;
            // What the query leaves, it leaves to the next session on purpose; but not where sessions share.
            match Mode::from(options.mode) {
                Mode::Session => lease.backend.dirt &= Kinds::LIBRARIES,
                Mode::Transaction | Mode::Statement => lease.wash().await?,
            }
            Ok::<_, Error>(())
        };
        // What was loaded stays as long as the connection.
        if let Ok(Ok(())) = timeout(HOUSEKEEPING_MAX, reset).await
            && lease.backend.dirt.is_empty()
        {
            lease.seen.iter().for_each(ServerSeat::idle);
            lease.redeem();
        }
    }

    /// Washes off what a transaction left behind, and gives the connection back.
    pub async fn wash(&self, mut lease: Leased) {
        lease.condemn();
        lease.seen.iter().for_each(ServerSeat::ours);
        if let Ok(Ok(())) = timeout(HOUSEKEEPING_MAX, lease.wash()).await
            && lease.backend.dirt.is_empty()
        {
            lease.seen.iter().for_each(ServerSeat::idle);
            lease.redeem();
        }
    }

    /// Asks what a session has left on a connection; `None` if the server does not say.
    pub async fn survey(
        &self,
        server: &mut Server,
        survey: &Survey,
        heard: &mut Heard<'_>,
    ) -> Result<Option<Found>, Error> {
        self.metrics.surveys.inc();
        let found = timeout(HOUSEKEEPING_MAX, server.survey(survey, heard)).await;
        found.map_err(|_| Error::Lost(std::io::ErrorKind::TimedOut.into()))?
    }

    /// What hears for the sessions of this pool.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Has a session's connection listen to something else; false if the server does not want to.
    pub async fn hear(&self, server: &mut Server, query: &str, heard: &mut Heard<'_>) -> Result<bool, Error> {
        match timeout(HOUSEKEEPING_MAX, server.hear(query, heard)).await {
            Ok(Ok(_)) => Ok(true),
            Ok(Err(Error::Refused(_))) => Ok(false),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Error::Lost(std::io::ErrorKind::TimedOut.into())),
        }
    }
}

impl Drop for UserPool {
    fn drop(&mut self) {
        self.dial.live.retire(&self.database, self.metrics.totals());
    }
}

/// Why there is no connection, in our own words.
pub fn refused(error: LeaseError<Error>) -> Error {
    match error {
        LeaseError::Refused(Refused::QueueFull) => Error::QueueFull,
        LeaseError::Refused(Refused::TimedOut) => Error::QueueTimeout,
        LeaseError::Refused(Refused::Closed) => Error::Draining,
        LeaseError::Connect(error) => error,
        LeaseError::Unreachable { reason } => Error::Connect(std::io::Error::other(reason)),
    }
}

/// Takes the application's name out, whose spelling needs no server: it is the one setting that differs from
/// client to client.
fn take_plain_name(asked: &mut Asked) -> Option<String> {
    let last = asked.iter().rposition(|(name, _)| name == "application_name")?;
    let is_plain = |name: &str| name.len() < 64 && name.bytes().all(|b| (b' '..=b'~').contains(&b));
    let name = asked.get(last).map(|(_, value)| value.clone()).filter(|name| is_plain(name))?;
    asked.retain(|(name, _)| name != "application_name");
    Some(name)
}

fn bounds(options: &config::Pool, target: &Target, allowed: usize) -> PoolConfig {
    PoolConfig {
        size: allowed,
        waiting_max: options.max_waiters as usize,
        warm: options.min as usize,
        idle_timeout: Some(options.idle.get()),
        max_lifetime: Some(options.lifetime.get()),
        connect_timeout: target.connect,
        // Where roles are known, only servers that are up are dialled, and clients wait for the next primary.
        backoff: if target.roles.is_some() { EAGER } else { Backoff::default() },
    }
}
