//! `migrate status`: how it stands, how far the one that follows is behind, and what is left to do by hand.

use serde_json::{Value, json};

use super::fault::Outcome;
use super::node::Node;
use super::policy::phase::{Journal, Phase, Side};
use super::policy::progress::mebibytes;
use super::policy::sql::literal;
use super::start::Look;
use super::work::Work;

/// Shows it.
pub(super) async fn show(work: &Work<'_>, database: &str, is_json: bool) -> Outcome<()> {
    let kept = work.folder.journal(database).await?;
    let (proxies, trouble) = match work.proxies.seen().await {
        Ok(seen) => (seen.into_iter().flat_map(|seen| seen.migrations).collect(), None),
        Err(fault) => (Vec::new(), Some(fault.to_string())),
    };
    let Some(kept) = kept else {
        match is_json {
            true => super::print(json!({ "migration": Value::Null, "proxies": proxies })),
            false => {
                super::print(format_args!("no migration of {database} is under way"));
                tell_proxies(database, &proxies);
            }
        }
        return Ok(());
    };
    let journal = &kept.journal;
    let (source, target) =
        (work.connect(journal, Side::Source).await, work.connect(journal, Side::Target).await);
    let mut facts = Vec::new();
    for (side, node) in [(Side::Source, &source), (Side::Target, &target)] {
        match node {
            Ok(node) => facts.extend(of_server(journal, node, side).await?),
            Err(fault) => facts.push((side.name().to_owned(), fault.to_string())),
        }
    }
    if let (Phase::Copying, Ok(source), Ok(target)) = (&journal.phase, &source, &target) {
        let look = Look::take(source, target, &journal.subscription(Side::Target)).await?;
        let tables = look.tables - look.left;
        let told = format!(
            "{} of {}, {tables} of {} tables",
            mebibytes(look.done),
            mebibytes(look.total),
            look.tables
        );
        facts.push(("copied".to_owned(), told));
    }
    facts.extend(trouble.map(|trouble| ("proxy".to_owned(), trouble)));
    if is_json {
        let facts: serde_json::Map<_, _> =
            facts.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
        super::print(json!({ "migration": journal, "facts": facts, "proxies": proxies }));
        return Ok(());
    }
    super::print(format_args!("{}: {} (since {})", journal.database, journal.told(), journal.begun));
    for (name, value) in facts {
        super::print(format_args!("  {name}: {value}"));
    }
    for cut in &journal.cuts {
        let gate = cut.gate_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms:.1} ms"));
        super::print(format_args!(
            "  {} to the {}: gate closed for {gate}; {}",
            cut.at,
            cut.to.name(),
            cut.verification.told()
        ));
    }
    tell_proxies(database, &proxies);
    Ok(())
}

fn tell_proxies(database: &str, proxies: &[Value]) {
    let text =
        |proxy: &Value, name: &str| proxy.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    for proxy in proxies.iter().filter(|proxy| text(proxy, "name") == database) {
        let address = text(proxy, "address");
        super::print(format_args!("  clients go to {address}; the gate is {}", text(proxy, "gate")));
        if text(proxy, "route") == "in effect" {
            super::print(format_args!(
                "  write `endpoints: [{address}]` for it in the proxy's configuration"
            ));
        }
    }
}

/// What one server tells of the migration.
async fn of_server(journal: &Journal, node: &Node, side: Side) -> Outcome<Vec<(String, String)>> {
    let mut facts = Vec::new();
    let name = journal.subscription(side);
    let sql = format!(
        "SELECT subenabled, (SELECT pid FROM pg_stat_subscription t WHERE t.subid = s.oid AND t.relid IS NULL LIMIT 1) \
         FROM pg_subscription s WHERE subname = {}",
        literal(&name)
    );
    if let Some(row) = node.rows(&sql).await?.first() {
        let mut row = row.iter();
        let is_enabled = row.next().and_then(Option::as_deref) == Some("t");
        let works = row.next().is_some_and(Option::is_some);
        let told = match (is_enabled, works) {
            (true, true) => "follows",
            (true, false) => {
                "is enabled, and does not run at this moment: see its server's log if that lasts"
            }
            (false, _) => "is disabled",
        };
        facts.push((format!("{} subscription {name}", side.name()), told.to_owned()));
    }
    let slot = format!(
        "SELECT format('%s behind, %s of WAL kept', \
         pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), \
         pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))) \
         FROM pg_replication_slots WHERE slot_name = {}",
        literal(&journal.subscription(side.other()))
    );
    let slot = node.value(&slot).await?;
    facts.extend(
        slot.map(|told| (format!("{} slot {}", side.name(), journal.subscription(side.other())), told)),
    );
    Ok(facts)
}
