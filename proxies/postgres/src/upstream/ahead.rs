//! Connections to servers that a database is about to have, made before it has them: nobody waits for a login then.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use groove_common::config::{Endpoints, Health};
use groove_common::discovery::Cluster;
use groove_common::ids::Address;
use tokio::time::timeout;

use super::directory::PoolKey;
use super::probe::SslRequestProber;
use super::{Directory, Server, Target};
use crate::error::Error;

/// A pool makes so many at once.
const AT_ONCE: usize = 8;

/// Connections that lie ready, by pool.
#[derive(Default)]
pub struct Ahead(HashMap<PoolKey, Vec<Server>>);

impl Ahead {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Takes the others in.
    pub fn join(&mut self, others: Ahead) {
        self.0.extend(others.0);
    }
}

impl Directory {
    /// As many connections to the server at `to` as each pool of the database has open. Those that fail are none.
    pub async fn dial_ahead(&self, database: &str, to: &Address) -> Ahead {
        let endpoints = Endpoints::Static(vec![to.clone().into()]);
        let health = Health { probe: None, ..Health::default() };
        let prober = Arc::new(SslRequestProber);
        let cluster = Cluster::of_list(database, &endpoints, &health, prober, &self.cx.runtime);
        let wanted = self.targets(database, &cluster);
        let dialled = wanted.into_iter().map(|(key, target, count)| async move {
            let dials = (0..count).map(|_| dial(&target));
            let servers: Vec<_> = stream::iter(dials).buffer_unordered(AT_ONCE).collect().await;
            (key, servers.into_iter().flatten().collect())
        });
        Ahead(join_all(dialled).await.into_iter().collect())
    }

    /// Gives the pools what was made for them. Their servers have to be those by now.
    pub fn stock(&self, ahead: Ahead) {
        let pools = self.pools.lock();
        for (key, mut servers) in ahead.0 {
            servers.retain_mut(|server| !server.is_stale());
            if let Some(pooled) = pools.get(&key) {
                pooled.pool.stock(servers);
            }
        }
    }
}

/// A new session of a server's knows no table, and looks everything up at its first statement: with all of a pool's at once
/// that takes longer than the login. So each looks at the tables that are written to most, as far as its role may; nothing
/// is read or changed.
const WARM: &str = "DO $groove$ DECLARE t record; BEGIN \
    FOR t IN SELECT s.relid::regclass AS name, a.attname AS field, has_table_privilege(s.relid, 'SELECT') AS may_read, \
      has_table_privilege(s.relid, 'UPDATE') AND has_table_privilege(s.relid, 'SELECT') AS may_write \
      FROM pg_stat_user_tables s JOIN pg_attribute a ON a.attrelid = s.relid AND a.attnum = (SELECT min(attnum) \
      FROM pg_attribute b WHERE b.attrelid = s.relid AND b.attnum > 0 AND NOT b.attisdropped AND b.attgenerated = '' \
      AND b.attidentity = '') ORDER BY s.n_tup_ins + s.n_tup_upd + s.n_tup_del DESC LIMIT 100 LOOP \
    BEGIN \
      IF t.may_read THEN EXECUTE format('SELECT * FROM %s LIMIT 0', t.name); END IF; \
      IF t.may_write THEN EXECUTE format('EXPLAIN UPDATE %s SET %I = %I', t.name, t.field, t.field); END IF; \
    EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $groove$";
/// It has so long for that.
const WARM_MAX: Duration = Duration::from_secs(5);

async fn dial(target: &Target) -> Option<Server> {
    let dialled = timeout(target.connect, target.dial(&[])).await.ok()?;
    let mut server = dialled.ok()?;
    match timeout(WARM_MAX, server.run(WARM)).await {
        // It may have no language for it: then the first statements are slower.
        Ok(Ok(_) | Err(Error::Refused(_))) => {}
        Ok(Err(_)) | Err(_) => return None,
    }
    // It counts among the connections of an endpoint that is gone once it is used.
    server.counted = None;
    Some(server)
}
