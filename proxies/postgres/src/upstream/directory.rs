//! The configuration, resolved: who may log in, which databases there are, and their pools.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use groove_common::app::{Context, StartError};
use groove_common::config::ClientTls;
use groove_common::discovery::{Cluster, Update};
use groove_common::net::Connector;
use groove_common::pool::PoolStatus;
use parking_lot::Mutex;
use serde_json::Value;

use super::auth_query::AuthQuery;
use super::dial::{KeyCache, Target};
use super::gates::Gates;
use super::login::{Credentials, Login};
use super::passthrough::{Claim, Passthrough};
use super::pool::UserPool;
use super::probe::SslRequestProber;
use super::random;
use super::shares::{self, Shares};
use super::split::judge;
use crate::auth::Stored;
use crate::auth::scram::Verifier;
use crate::config::{Auth, Config, Database};
use crate::error::Error;
use crate::live::Live;
use crate::metrics::PoolMetrics;
use crate::roles::{Roles, Wish};
use crate::split::Judge;

/// How often unused pools are looked for: often enough to overstay `pool.idle` by a quarter at most.
const ROUND_MIN: Duration = Duration::from_millis(100);
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Everybody and everything that clients may name.
pub struct Directory {
    pub(super) cx: Context,
    live: Arc<Live>,
    /// Taken within the lock of `pools`, so that no pool is made past it.
    pub(super) gates: Gates,
    current: ArcSwap<Known>,
    pub(super) pools: Mutex<HashMap<PoolKey, Pooled>>,
    pub(super) shares: Arc<Shares>,
    /// Makes verifiers for those who do not exist, and salts for those who do.
    secret: [u8; 32],
}

pub(super) type PoolKey = (String, String);

/// A pool, whom it logs in as, and since when no session has been seen to use it.
pub(super) struct Pooled {
    pub(super) pool: Arc<UserPool>,
    pub(super) login: Option<Arc<Login>>,
    unused_since: Option<Instant>,
}

impl Pooled {
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.pool) == 1
    }
}

/// One configuration, resolved.
pub(super) struct Known {
    pub(super) config: Arc<Config>,
    users: HashMap<String, Arc<Login>>,
    pub(super) databases: BTreeMap<String, Place>,
    auth_query: Option<Arc<AuthQuery>>,
    passthrough: Arc<Passthrough>,
}

/// A database's servers.
pub(super) struct Place {
    pub(super) cluster: Arc<Cluster>,
    tls: Option<Connector>,
    pub(super) roles: Option<Arc<Roles>>,
    /// Where reads and writes are split.
    pub(super) judge: Option<Arc<Judge>>,
}

impl Directory {
    /// Resolves a configuration and starts what it names.
    pub fn start(config: &Arc<Config>, cx: &Context, live: &Arc<Live>) -> Result<Arc<Directory>, StartError> {
        let known = resolve(config, None, (cx, live))?;
        let directory = Arc::new(Directory {
            cx: cx.clone(),
            live: Arc::clone(live),
            gates: Gates::default(),
            current: ArcSwap::from_pointee(known),
            pools: Mutex::default(),
            shares: Arc::default(),
            secret: random()?,
        });
        directory.shares.configure(config);
        cx.runtime.spawn(reap(Arc::downgrade(&directory)));
        cx.runtime.spawn(shares::keep(Arc::downgrade(&directory), Arc::clone(&directory.shares)));
        Ok(directory)
    }

    /// Takes a new configuration, all of it or nothing. Pools that stay keep their connections.
    pub fn reload(&self, config: &Arc<Config>) -> Result<(), StartError> {
        let before = self.current.load_full();
        let known = Arc::new(resolve(config, Some(&before), (&self.cx, &self.live))?);
        let mut pools = self.pools.lock();
        pools.retain(|(database, _), _| known.databases.contains_key(database));
        for ((database, user), Pooled { pool, login, .. }) in pools.iter_mut() {
            *login = known.settled(user, login.take());
            if let Some((target, options)) = known.target(database, user, login.as_deref()) {
                let replaced = before.leads_elsewhere(&known, database, user);
                let roles = target.roles.clone();
                pool.update(target, options, replaced);
                roles.iter().for_each(|roles| roles.enroll(pool));
                self.split(&known, pool, login.as_deref(), replaced);
            }
        }
        let config = Arc::clone(&known.config);
        self.current.store(known);
        self.shares.configure(&config);
        Ok(())
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.current.load().config)
    }

    /// The one of this name, if there is one.
    pub fn login(&self, user: &str) -> Option<Arc<Login>> {
        self.current.load().users.get(user).cloned()
    }

    /// The one of this name, if there is one; the servers are asked about those whom the configuration does not name.
    pub async fn find(&self, user: &str) -> Result<Option<Arc<Login>>, Error> {
        let auth_query = match self.login(user) {
            Some(login) => return Ok(Some(login)),
            None => self.auth_query(),
        };
        match auth_query {
            Some(auth_query) => Box::pin(auth_query.find(user)).await,
            None => Ok(None),
        }
    }

    /// The same once more after a proof has failed: another one than `login`, if the servers say so by now.
    pub async fn find_again(&self, user: &str, login: Option<&Login>) -> Result<Option<Arc<Login>>, Error> {
        if !self.doubt(user).await {
            return Ok(None);
        }
        Ok(self.find(user).await?.filter(|found| !found.is_as(login)))
    }

    /// Takes note of a proof that has failed: the next one to log in is looked up anew, but nobody is each time.
    /// Whether that is so.
    pub async fn doubt(&self, user: &str) -> bool {
        // Who is configured is known.
        let auth_query = if self.login(user).is_some() { None } else { self.auth_query() };
        match auth_query {
            Some(auth_query) => auth_query.doubt(user).await,
            None => false,
        }
    }

    /// The login of a client that gives this password, if the servers of the database take it.
    pub async fn prove_to_server(&self, claim: Claim, password: String) -> Result<Arc<Login>, Error> {
        let known = self.current.load_full();
        let server_user = known.users.get(&claim.user).map_or(&claim.user, |login| &login.server_user);
        let login = Login::found(server_user, Stored::Plain(password));
        // Whoever is asked knows the password, and nobody may know yet which one is the primary.
        let target = known.target(&claim.database, &claim.user, Some(&login));
        let target = target.map(|(target, _)| Target { wish: Wish::Any, ..target });
        Box::pin(known.passthrough.prove(claim, login, target)).await
    }

    /// The configuration in force, resolved.
    pub(super) fn known(&self) -> Arc<Known> {
        self.current.load_full()
    }

    fn auth_query(&self) -> Option<Arc<AuthQuery>> {
        self.current.load().auth_query.clone()
    }

    /// The SCRAM verifier for a login; one is invented for those who do not exist, or have no password.
    pub fn verifier(&self, user: &str, login: Option<&Login>) -> Verifier {
        let invent = || Verifier::invent(&self.secret, user);
        login.and_then(|login| login.verifier(|| invent().salt)).unwrap_or_else(invent)
    }

    /// The pool of a database for a user that has proven who it is; it is made if it is not there yet.
    pub fn pool(&self, database: &str, user: &str, credentials: Credentials) -> Result<Arc<UserPool>, Error> {
        let key = (database.to_owned(), user.to_owned());
        let mut pools = self.pools.lock();
        let gate = self.gates.of(database);
        if gate.is_disabled {
            return Err(Error::Disabled(database.to_owned()));
        }
        let known = self.current.load();
        let Credentials { login, keys } = credentials;
        let login = known.settled(user, login);
        if let Some(pooled) = pools.get_mut(&key) {
            pooled.unused_since = None;
            // Who is configured is taken on with the configuration, who is not with its next login.
            if let Some(login) = login.filter(|login| login.is_found && !login.is_as(pooled.login.as_deref()))
            {
                if let Some((target, options)) = known.target(database, user, Some(&login)) {
                    pooled.pool.update(target, options, true);
                    self.split(&known, &pooled.pool, Some(&login), true);
                }
                pooled.login = Some(login);
            }
            keys.into_iter().for_each(|keys| pooled.pool.learn(keys));
            return Ok(Arc::clone(&pooled.pool));
        }
        let target = known.target(database, user, login.as_deref());
        let (target, options) = target.ok_or_else(|| Error::NoDatabase(database.to_owned()))?;
        if pools.len() >= known.config.limits.pools as usize {
            let unused = pools.iter().filter(|(_, pooled)| pooled.is_unused());
            let longest =
                unused.min_by_key(|(_, pooled)| (pooled.unused_since.is_none(), pooled.unused_since));
            let longest = longest.map(|(key, _)| key.clone()).ok_or(Error::TooManyClients)?;
            pools.remove(&longest);
        }
        keys.into_iter().for_each(|keys| target.learn(keys));
        let roles = target.roles.clone();
        let pool = Arc::new(self.start_pool(&known, (key.clone(), key.0.clone()), target, options));
        roles.iter().for_each(|roles| roles.enroll(&pool));
        self.split(&known, &pool, login.as_deref(), false);
        if gate.is_held() {
            pool.each(UserPool::hold);
        }
        pools.insert(key, Pooled { pool: Arc::clone(&pool), login, unused_since: None });
        self.shares.nudge();
        Ok(pool)
    }

    /// A new pool of this key, which the console and metrics call by the title.
    pub(super) fn start_pool(
        &self,
        known: &Known,
        (key, title): (PoolKey, String),
        target: Target,
        options: crate::config::Pool,
    ) -> UserPool {
        let metrics = PoolMetrics::new(&self.cx.registry, &title, &key.1);
        // Where there is a limit, a new pool gets its share as soon as it is looked at.
        let allowed = known.config.limits.server_connections.map_or(options.size as usize, |_| 0);
        let (live, shares, runtime) = (&self.live, &self.shares, &self.cx.runtime);
        UserPool::start((key, title), target, (options, allowed), metrics, live, shares, runtime)
    }

    /// The connections on which users are looked up, if that is configured.
    pub fn auth_query_status(&self) -> Option<PoolStatus> {
        self.auth_query().map(|auth_query| auth_query.status())
    }

    /// Every pool there is, by name.
    pub fn pools(&self) -> Vec<Arc<UserPool>> {
        let mut pools: Vec<_> =
            self.pools.lock().values().flat_map(|known| known.pool.with_replicas()).collect();
        pools.sort_by(|a, b| a.name.cmp(&b.name));
        pools
    }

    /// Drops the pools that nobody has used for `pool.idle`, and those of users that are gone as soon as nobody
    /// uses them: their connections end, and so do their metrics.
    fn drop_unused(&self, now: Instant) {
        let known = self.current.load();
        self.pools.lock().retain(|(database, user), pooled| {
            if !pooled.is_unused() {
                pooled.unused_since = None;
                return true;
            }
            let since = *pooled.unused_since.get_or_insert(now);
            let Some(written) = known.config.databases.get(database) else { return false };
            let is_named = known.users.contains_key(user);
            let may_come_back = is_named
                || match known.config.auth {
                    Auth::Trust | Auth::Passthrough => true,
                    Auth::Password => known.config.auth_query.is_some(),
                };
            let is_kept_warm = is_named && written.pool.min > 0;
            is_kept_warm || (may_come_back && now.duration_since(since) < written.pool.idle.get())
        });
    }

    /// How long until unused pools are looked for again.
    fn round(&self) -> Duration {
        let known = self.current.load();
        let shortest = known.config.databases.values().map(|database| database.pool.idle.get()).min();
        (shortest.unwrap_or(ROUND_MAX) / 4).clamp(ROUND_MIN, ROUND_MAX)
    }

    /// For each pool of a database whom it logs in as on these servers, and how many connections it has open.
    pub(super) fn targets(&self, database: &str, cluster: &Arc<Cluster>) -> Vec<(PoolKey, Target, usize)> {
        let (known, pools) = (self.current.load(), self.pools.lock());
        let of_database = pools.iter().filter(|((name, _), _)| name == database);
        let targets = of_database.filter_map(|(key, Pooled { pool, login, .. })| {
            let (target, _) = known.target(&key.0, &key.1, login.as_deref())?;
            let status = pool.status();
            // What a client's proof has told is of use where the servers keep the same verifier.
            pool.learnt().into_iter().for_each(|keys| target.learn(keys));
            Some((
                key.clone(),
                Target { cluster: Arc::clone(cluster), ..target },
                status.leased + status.idle,
            ))
        });
        targets.collect()
    }

    /// A database's servers.
    pub fn cluster(&self, database: &str) -> Option<Arc<Cluster>> {
        self.current.load().databases.get(database).map(|place| Arc::clone(&place.cluster))
    }

    /// Every database's servers.
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        self.current.load().databases.values().map(|place| Arc::clone(&place.cluster)).collect()
    }

    /// The same from outside, with what is known of their roles.
    pub fn cluster_status(&self) -> Vec<Value> {
        self.current.load().databases.values().map(Place::status).collect()
    }
}

impl Known {
    /// As whom a user is let in that was known as `login` until now: the configuration has the last word.
    pub(super) fn settled(&self, user: &str, login: Option<Arc<Login>>) -> Option<Arc<Login>> {
        let found = login.filter(|login| login.is_found);
        match (self.users.get(user), self.config.auth) {
            (Some(login), Auth::Passthrough) if login.password.is_none() => {
                Some(found.unwrap_or_else(|| Arc::clone(login)))
            }
            (Some(login), Auth::Password | Auth::Passthrough | Auth::Trust) => Some(Arc::clone(login)),
            (None, Auth::Password | Auth::Passthrough | Auth::Trust) => found,
        }
    }

    /// Whom a pool logs in as, and how large it is.
    pub(super) fn target(
        &self,
        database: &str,
        user: &str,
        login: Option<&Login>,
    ) -> Option<(Target, crate::config::Pool)> {
        let (place, written) = (self.databases.get(database)?, self.config.databases.get(database)?);
        let target = Target {
            cluster: Arc::clone(&place.cluster),
            roles: place.roles.clone(),
            wish: written.wish(),
            is_split: false,
            tls: place.tls.clone(),
            channel_binding: written.channel_binding,
            dbname: written.dbname.clone().unwrap_or_else(|| database.to_owned()),
            user: login.map_or_else(|| user.to_owned(), |login| login.server_user.clone()),
            password: login.and_then(|login| login.server_password.clone()),
            must_prove: false,
            connect: written.connect.get(),
            statements_max: written.pool.statements as usize,
            keys: Arc::new(KeyCache::default()),
        };
        Some((target, written.pool.clone()))
    }

    /// Whether connections made for `self` are of no use for `next`.
    fn leads_elsewhere(&self, next: &Known, database: &str, user: &str) -> bool {
        let role = |known: &Known| {
            let login = known.users.get(user)?;
            Some((login.server_user.clone(), login.server_password.clone()))
        };
        let place = |known: &Known| {
            let Database { endpoints, role, monitor, replicas, dbname, tls, channel_binding, .. } =
                known.config.databases.get(database)?.clone();
            Some(((endpoints, role, monitor, replicas), (dbname, tls, channel_binding)))
        };
        place(self) != place(next) || role(self) != role(next)
    }

    /// What looks users up: the one of before if it would ask the same of the same.
    fn start_auth_query(&self, before: Option<&Known>, cx: &Context) -> Option<Arc<AuthQuery>> {
        let options = self.config.auth_query.as_ref()?;
        if let Some(before) = before
            && before.config.auth_query.as_ref() == Some(options)
            && before.config.databases.get(&options.database) == self.config.databases.get(&options.database)
            && let Some(running) = &before.auth_query
        {
            running.forget();
            return Some(Arc::clone(running));
        }
        let login = Login::asking(options);
        let (target, _) = self.target(&options.database, &options.user, Some(&login))?;
        // A replica knows them as well.
        let target = Target { wish: Wish::Any, ..target };
        Some(Arc::new(AuthQuery::start(options, target, cx)))
    }
}

/// Looks for unused pools until the directory is gone.
async fn reap(directory: Weak<Directory>) {
    while let Some(round) = directory.upgrade().map(|directory| directory.round()) {
        tokio::time::sleep(round).await;
        if let Some(directory) = directory.upgrade() {
            directory.drop_unused(Instant::now());
        }
    }
}

fn resolve(
    config: &Arc<Config>,
    before: Option<&Known>,
    (cx, live): (&Context, &Arc<Live>),
) -> Result<Known, StartError> {
    let users =
        config.users.iter().map(|(name, user)| (name.clone(), Arc::new(Login::new(name, user)))).collect();
    // Whatever can fail comes first: a configuration is taken whole or not at all.
    let (mut databases, mut updates) = (BTreeMap::new(), Vec::new());
    for (name, database) in &config.databases {
        let tls = database.tls.as_ref().map(connector).transpose()?;
        let running = before.and_then(|before| before.databases.get(name));
        let (cluster, update) = cluster(name, database, running, cx)?;
        let judge = judge(name, database, before);
        databases.insert(name.clone(), Place { cluster, tls, roles: None, judge });
        updates.extend(update);
    }
    updates.into_iter().for_each(Update::apply);
    let (auth_query, passthrough) = (None, Arc::default());
    let mut known = Known { config: Arc::clone(config), users, databases, auth_query, passthrough };
    known.watch_roles(before, (cx, live));
    known.auth_query = known.start_auth_query(before, cx);
    Ok(known)
}

fn connector(tls: &ClientTls) -> Result<Connector, StartError> {
    Ok(Connector::new(tls, &[b"postgresql"])?)
}

/// A database's servers, and what of its configuration they still have to take on.
fn cluster(
    name: &str,
    database: &Database,
    running: Option<&Place>,
    cx: &Context,
) -> Result<(Arc<Cluster>, Option<Update>), StartError> {
    let (endpoints, health) = (&database.endpoints, &database.health);
    if let Some(Place { cluster, .. }) = running {
        return Ok((Arc::clone(cluster), Some(cluster.prepare(endpoints, health)?)));
    }
    let prober = Arc::new(SslRequestProber);
    Ok((Cluster::start(name, endpoints, health, prober, &cx.runtime)?, None))
}
