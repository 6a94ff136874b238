//! Removes what a migration has made, by name and as often as it takes; one side goes on serving.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::fault::{Outcome, refused};
use super::files::Kept;
use super::node::Node;
use super::policy::phase::{Journal, Phase, Side};
use super::policy::sql::{self, ident, literal};
use super::start::RETRY;
use super::work::Work;

/// A slot that is still used so long after its user was ended is somebody else's matter.
const SLOT_MAX: Duration = Duration::from_secs(30);
/// Between two tries.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Removes everything.
pub(super) async fn clear(work: &Work<'_>, mut kept: Kept, serving: Side) -> Outcome<()> {
    kept.change(|journal| journal.phase = Phase::Finishing { serving }).await?;
    let journal = &kept.journal;
    let (mine, other) = (serving, serving.other());
    let serves = work.connect(journal, mine).await?;
    // The other server may have been switched off already, and its database may never have been made.
    let server = work.login(journal, other).connect("postgres").await;
    let server = server.inspect_err(|fault| work.say(format_args!("left as it is: {fault}"))).ok();
    let has_database = match &server {
        Some(server) => server.has_database(&journal.dbname).await?,
        None => false,
    };
    let leaves = if has_database { Some(work.connect(journal, other).await?) } else { None };
    if let Some(leaves) = &leaves {
        unsubscribe(journal, leaves, other).await?;
    }
    unsubscribe(journal, &serves, mine).await?;
    drop_slots(journal, &serves).await?;
    if let Some(leaves) = &leaves {
        drop_slots(journal, leaves).await?;
    }
    strip(journal, &serves, mine).await?;
    serves.run(&sql::limit(&journal.dbname, journal.connection_limit)).await?;
    restore_setting(journal, &serves, mine).await?;
    if let Some(leaves) = leaves {
        strip(journal, &leaves, other).await?;
    }
    if let Some(server) = &server {
        restore_setting(journal, server, other).await?;
        if other == Side::Target && journal.made_database {
            server.run(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(&journal.dbname))).await?;
        }
    }
    let unwritten = work.proxies.forget(journal).await?;
    for kind in ["dump", "list", "after"] {
        // What is not there need not be removed.
        drop(std::fs::remove_file(work.file(journal, kind)));
    }
    tell(work, journal, serving, &unwritten);
    kept.remove().await
}

fn tell(work: &Work<'_>, journal: &Journal, serving: Side, unwritten: &[String]) {
    let address = journal.address(serving);
    work.say(format_args!("{address} serves; nothing of the migration is left there"));
    if serving == Side::Target {
        work.say(format_args!(
            "the database on {} lets nobody in but superusers (CONNECTION LIMIT 0); drop it when you like",
            journal.source
        ));
    }
    for name in unwritten {
        work.say(format_args!(
            "write `endpoints: [{address}]` for `{name}` in the proxy's configuration: until then the folder remembers it"
        ));
    }
}

/// Ends what follows here. Its slot on the other side is dropped by itself afterwards, if that can be reached.
async fn unsubscribe(journal: &Journal, node: &Node, side: Side) -> Outcome<()> {
    let name = journal.subscription(side);
    if !node.has(&format!("SELECT 1 FROM pg_subscription WHERE subname = {}", literal(&name))).await? {
        return Ok(());
    }
    let name = ident(&name);
    node.run(&format!("ALTER SUBSCRIPTION {name} DISABLE")).await?;
    // With its own slot it takes those along that tables were copied by.
    if node.run(&format!("DROP SUBSCRIPTION {name}")).await.is_ok() {
        return Ok(());
    }
    node.run(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)")).await?;
    node.run(&format!("DROP SUBSCRIPTION {name}")).await
}

/// The migration's slots on this server, and those of its copy.
async fn drop_slots(journal: &Journal, node: &Node) -> Outcome<()> {
    let names = [Side::Source, Side::Target].map(|side| literal(&journal.subscription(side)));
    let ours = format!(
        "database = current_database() AND (slot_name IN ({}) OR slot_name ~ '^pg_\\d+_sync_\\d+_\\d+$')",
        names.join(", ")
    );
    let deadline = Instant::now() + SLOT_MAX;
    loop {
        node.run(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE {ours} AND active"
        ))
        .await?;
        // Another one may have taken it up in between.
        let dropped = node
            .run(&format!(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE {ours} AND NOT active"
            ))
            .await;
        if dropped.is_ok() && !node.has(&format!("SELECT 1 FROM pg_replication_slots WHERE {ours}")).await? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return dropped.and_then(|()| refused("a replication slot is still in use"));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Publications, the freeze, identities.
async fn strip(journal: &Journal, node: &Node, side: Side) -> Outcome<()> {
    node.run(&format!("DROP PUBLICATION IF EXISTS {}", ident(&journal.publication(side)))).await?;
    node.run(sql::UNFREEZE).await?;
    for (table, identity) in &journal.identities {
        let identity = if identity == "n" { "NOTHING" } else { "DEFAULT" };
        if node.has(&format!("SELECT 1 WHERE to_regclass({}) IS NOT NULL", literal(table))).await? {
            node.run(&format!("ALTER TABLE ONLY {table} REPLICA IDENTITY {identity}")).await?;
        }
    }
    Ok(())
}

async fn restore_setting(journal: &Journal, node: &Node, side: Side) -> Outcome<()> {
    let [source, target] = &journal.retry_interval;
    let before = match side {
        Side::Source => source,
        Side::Target => target,
    };
    let set = match before {
        Some(value) => format!("ALTER SYSTEM SET {RETRY} = {}", literal(value)),
        None => format!("ALTER SYSTEM RESET {RETRY}"),
    };
    node.run(&set).await?;
    node.run("SELECT pg_reload_conf()").await
}
