//! The second pool of a database and user, where reads are split from writes: connections to replicas.
//!
//! It is the first one's, made and dropped with it, and shares its prepared statements, so that a session's names mean the
//! same on both.

use std::sync::Arc;
use std::time::Instant;

use super::directory::{Directory, Known};
use super::login::Login;
use super::{Target, UserPool};
use crate::config::{Database, Role};
use crate::metrics::SplitMetrics;
use crate::roles::{Roles, Wish};
use crate::split::{Judge, Wrote};

/// Where reads go, and how they are told.
pub struct Split {
    /// Connections to replicas.
    pub replicas: Arc<UserPool>,
    /// What only reads.
    pub judge: Arc<Judge>,
    /// Whether sessions have to read what they have written, unless they say otherwise.
    pub read_your_writes: bool,
    /// What went where.
    pub metrics: Arc<SplitMetrics>,
    roles: Arc<Roles>,
}

impl Split {
    /// What is known by now of where a session has written: its position, if that is there; and whether there is a replica
    /// that has replayed it.
    pub fn look_up(&self, wrote: Wrote<Instant>) -> (Wrote<Instant>, bool) {
        let position = match wrote {
            Wrote::Before(time) => self.roles.position_after(time),
            Wrote::Upto(position) => Some(position),
        };
        match position {
            Some(position) => (Wrote::Upto(position), self.roles.has_replica_at(position)),
            None => (wrote, false),
        }
    }

    /// A session has written what it will have to read: where that is is asked soon.
    pub fn has_written(&self) {
        self.roles.nudge();
    }
}

impl UserPool {
    /// Where its sessions' reads go, where they are split from writes.
    pub fn split(&self) -> Option<Arc<Split>> {
        self.split.load_full()
    }

    /// Whether they are.
    pub fn is_split(&self) -> bool {
        self.split.load().is_some()
    }

    /// It and the one for its replicas.
    pub(super) fn with_replicas(self: &Arc<UserPool>) -> impl Iterator<Item = Arc<UserPool>> {
        let replicas = self.split().map(|split| Arc::clone(&split.replicas));
        [Arc::clone(self)].into_iter().chain(replicas)
    }

    /// Does the same to it and to the one for its replicas.
    pub(super) fn each(&self, act: impl Fn(&UserPool)) {
        act(self);
        self.split().iter().for_each(|split| act(&split.replicas));
    }
}

impl Directory {
    /// Gives a pool the one for its replicas that the configuration wants beside it, or takes it away.
    pub(super) fn split(&self, known: &Known, pool: &Arc<UserPool>, login: Option<&Login>, replaced: bool) {
        let wanted = known.split_of(pool, login);
        let Some((target, judge, read_your_writes)) = wanted else {
            return pool.split.store(None);
        };
        let Some(roles) = target.roles.clone() else { return };
        let options = config_of(pool);
        let (replicas, metrics) = match pool.split() {
            Some(before) => {
                before.replicas.update(target, options, replaced);
                (Arc::clone(&before.replicas), Arc::clone(&before.metrics))
            }
            None => {
                let title = replicas_title(&pool.database);
                let key = (pool.database.clone(), pool.user.clone());
                let mut replicas = self.start_pool(known, (key, title), target, options);
                replicas.statements = Arc::clone(&pool.statements);
                let metrics = SplitMetrics::new(&self.cx.registry, &pool.database, &pool.user);
                (Arc::new(replicas), Arc::new(metrics))
            }
        };
        roles.enroll(&replicas);
        pool.split.store(Some(Arc::new(Split { replicas, judge, read_your_writes, metrics, roles })));
    }
}

/// What the console and metrics call the part of a database that is read from replicas.
pub fn replicas_title(database: &str) -> String {
    format!("{database}/replicas")
}

fn config_of(pool: &UserPool) -> crate::config::Pool {
    crate::config::Pool::clone(&pool.options())
}

impl Known {
    fn split_of(&self, pool: &UserPool, login: Option<&Login>) -> Option<(Target, Arc<Judge>, bool)> {
        let written = self.config.databases.get(&pool.database)?;
        let judge = self.databases.get(&pool.database)?.judge.clone()?;
        let (target, _) = self.target(&pool.database, &pool.user, login)?;
        let wish = Wish::Replica { or_primary: written.replicas.or_primary };
        // What was learnt of one is good for the other.
        let keys = Arc::clone(&pool.target().keys);
        Some((Target { wish, is_split: true, keys, ..target }, judge, written.split.read_your_writes))
    }
}

/// What judges a database's statements: the one of before if it would say the same.
pub(super) fn judge(name: &str, database: &Database, before: Option<&Known>) -> Option<Arc<Judge>> {
    if database.role != Role::Split {
        return None;
    }
    let functions = &database.split.read_only_functions;
    let running = before.and_then(|before| {
        let was = before.config.databases.get(name)?;
        let judge = before.databases.get(name)?.judge.clone()?;
        (was.split.read_only_functions == *functions).then_some(judge)
    });
    Some(running.unwrap_or_else(|| Arc::new(Judge::new(functions))))
}
