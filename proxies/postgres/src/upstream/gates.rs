//! What an operator does to databases: paused ones lend no connections, disabled ones take no new clients.
//!
//! It outlasts pools, which come and go with their clients: one that is made while its database is paused is paused.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::directory::{PoolKey, Pooled};
use super::{Directory, UserPool};

/// The databases that are not as usual.
#[derive(Default)]
pub(super) struct Gates {
    shut: Mutex<HashMap<String, Gate>>,
    /// A database was resumed.
    resumed: Notify,
}

/// What an operator has said of a database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gate {
    /// No connection is lent: clients wait.
    pub is_paused: bool,
    /// Nobody new is let in.
    pub is_disabled: bool,
    /// The same as a pause, while a migration changes the servers: no operator's word opens it.
    pub is_migrating: bool,
}

impl Gate {
    /// Whether clients wait.
    pub fn is_held(self) -> bool {
        self.is_paused || self.is_migrating
    }
}

impl Gates {
    pub(super) fn of(&self, database: &str) -> Gate {
        self.shut.lock().get(database).copied().unwrap_or_default()
    }

    fn set(&self, database: &str, change: impl FnOnce(&mut Gate)) {
        let mut shut = self.shut.lock();
        let mut gate = shut.get(database).copied().unwrap_or_default();
        change(&mut gate);
        // Names that are as usual are not kept: configurations come and go.
        if gate == Gate::default() {
            shut.remove(database);
        } else {
            shut.insert(database.to_owned(), gate);
        }
    }
}

impl Directory {
    /// What an operator has said of a database.
    pub fn gate(&self, database: &str) -> Gate {
        self.gates.of(database)
    }

    /// Holds new leases of a database back, at once. False if it was held already.
    pub fn hold(&self, database: &str) -> bool {
        let pools = self.pools.lock();
        if self.gates.of(database).is_paused {
            return false;
        }
        self.gates.set(database, |gate| gate.is_paused = true);
        hold(&pools, database);
        true
    }

    /// Holds new leases back while a migration is at its cutover. False if another one is.
    pub fn shut(&self, database: &str) -> bool {
        let pools = self.pools.lock();
        if self.gates.of(database).is_migrating {
            return false;
        }
        self.gates.set(database, |gate| gate.is_migrating = true);
        hold(&pools, database);
        true
    }

    /// Ends that. A pause goes on.
    pub fn reopen(&self, database: &str) {
        let pools = self.pools.lock();
        let gate = self.gates.of(database);
        self.gates.set(database, |gate| gate.is_migrating = false);
        if gate.is_migrating && !gate.is_paused {
            release(&pools, database);
        }
    }

    /// Lends connections of a database again. False if it did all the time.
    pub fn resume(&self, database: &str) -> bool {
        let pools = self.pools.lock();
        if !self.gates.of(database).is_paused {
            return false;
        }
        self.gates.set(database, |gate| gate.is_paused = false);
        if !self.gates.of(database).is_migrating {
            release(&pools, database);
        }
        self.gates.resumed.notify_waiters();
        true
    }

    /// Returns once a database is not held any more.
    pub async fn resumed(&self, database: &str) {
        loop {
            let mut resumed = std::pin::pin!(self.gates.resumed.notified());
            resumed.as_mut().enable();
            if !self.gates.of(database).is_paused {
                return;
            }
            resumed.await;
        }
    }

    /// Lets nobody new into a database, or everybody again.
    pub fn disable(&self, database: &str, is_disabled: bool) {
        self.gates.set(database, |gate| gate.is_disabled = is_disabled);
    }

    /// The pools of a database.
    pub fn pools_of(&self, database: &str) -> Vec<Arc<UserPool>> {
        self.pools().into_iter().filter(|pool| pool.database == database).collect()
    }
}

fn of<'a>(
    pools: &'a HashMap<PoolKey, Pooled>,
    database: &'a str,
) -> impl Iterator<Item = &'a Arc<UserPool>> + 'a {
    pools.values().map(|known| &known.pool).filter(move |pool| pool.database == database)
}

fn hold(pools: &HashMap<PoolKey, Pooled>, database: &str) {
    of(pools, database).for_each(|pool| pool.each(UserPool::hold));
}

fn release(pools: &HashMap<PoolKey, Pooled>, database: &str) {
    of(pools, database).for_each(|pool| pool.each(UserPool::resume));
}
