//! A switch that was begun and whose end nobody saw: undone if it was not decided, else done again to its end.
//!
//! Both the command and the proxy come here, perhaps at the same time: each statement may be said twice, and of two that
//! decide differently one finds the journal changed.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::warn;

use super::fault::{Fault, Outcome};
use super::files::Kept;
use super::node::{Login, Node};
use super::policy::phase::{CUTS_MAX, Cut, Journal, Phase, Side};
use super::policy::sql::{self, ident, literal};
use super::policy::verification::Verification;
use crate::config::Migration;

/// Between two looks at what another process is about to do.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A worker of a subscription that is disabled has ended by then, or its server is not well.
const WORKER_MAX: Duration = Duration::from_secs(30);
/// A server that is to be fenced and does not answer for so long is left.
const FENCE_MAX: Duration = Duration::from_secs(5);

/// As whom a side is spoken to, and in which database.
pub(super) async fn connect(journal: &Journal, config: &Migration, side: Side) -> Outcome<Node> {
    Login::of(config, side, journal.address(side)).connect(&journal.dbname).await
}

/// Brings both servers to what is decided, before anybody is let in. Afterwards the journal is [`Phase::Ready`] for what
/// was undone, and still [`Phase::Switched`] for what has to be completed.
pub(super) async fn settle(kept: &mut Kept, config: &Migration) -> Outcome<()> {
    match kept.journal.phase.clone() {
        Phase::Gate { to } => {
            // From here on nobody else decides that it shall be.
            kept.change(|journal| journal.phase = Phase::Undoing { to }).await?;
            undo(kept, config, to).await
        }
        Phase::Undoing { to } => undo(kept, config, to).await,
        Phase::Switched { to, .. } => {
            let journal = &kept.journal;
            let node = connect(journal, config, to).await?;
            node.run(&sql::limit(&journal.dbname, journal.connection_limit)).await?;
            node.run(&disable(journal, to)).await
        }
        Phase::Preparing | Phase::Copying | Phase::Synced | Phase::Ready { .. } | Phase::Finishing { .. } => {
            Ok(())
        }
    }
}

async fn undo(kept: &mut Kept, config: &Migration, to: Side) -> Outcome<()> {
    let journal = &kept.journal;
    let fence = async {
        let node = connect(journal, config, to).await?;
        node.run(&sql::limit(&journal.dbname, 0)).await
    };
    // It may be for its failure that all is undone. No proxy leads there, and it is fenced again before the next try.
    match timeout(FENCE_MAX, fence).await {
        Ok(Ok(())) => {}
        Ok(Err(fault)) => warn!(side = to.name(), %fault, "not fenced"),
        Err(_) => warn!(side = to.name(), "not fenced: it does not answer"),
    }
    let node = connect(journal, config, to.other()).await?;
    node.run(&sql::limit(&journal.dbname, journal.connection_limit)).await?;
    kept.change(|journal| journal.phase = Phase::Ready { serving: to.other() }).await
}

/// Ends what follows on a side.
pub(super) fn disable(journal: &Journal, on: Side) -> String {
    format!("ALTER SUBSCRIPTION {} DISABLE", ident(&journal.subscription(on)))
}

/// The rest of a switch, with the gate open: the side that served before follows from where the switch was.
pub(super) async fn complete(kept: &mut Kept, config: &Migration, cut: Option<Cut>) -> Outcome<()> {
    let journal = &kept.journal;
    let Phase::Switched { to, lsn } = journal.phase.clone() else { return Ok(()) };
    let (new, old) = (connect(journal, config, to).await?, connect(journal, config, to.other()).await?);
    follow(journal, (&new, &old), to, &lsn).await?;
    let cut = cut.unwrap_or_else(|| Cut {
        at: now(),
        to,
        gate_ms: None,
        steps: Vec::new(),
        verification: Verification::None,
    });
    kept.change(|journal| {
        journal.phase = Phase::Ready { serving: to };
        if journal.cuts.len() >= CUTS_MAX {
            journal.cuts.remove(0);
        }
        journal.cuts.push(cut);
    })
    .await
}

/// One direction ends, and then the other one begins where the switch was: both at once would go round in circles, as
/// servers before PostgreSQL 16 do not tell their own rows from those that they were given.
async fn follow(journal: &Journal, (new, old): (&Node, &Node), to: Side, lsn: &str) -> Outcome<()> {
    new.run(&disable(journal, to)).await?;
    let slot = journal.subscription(to);
    let works =
        format!("SELECT 1 FROM pg_stat_subscription WHERE subname = {} AND pid IS NOT NULL", literal(&slot));
    let sends = format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = {} AND active", literal(&slot));
    let ended = async {
        while new.has(&works).await? || old.has(&sends).await? {
            sleep(LOOK_EVERY).await;
        }
        Ok::<_, Fault>(())
    };
    timeout(WORKER_MAX, ended).await.map_err(|_| {
        Fault::Refused(format!("the worker of subscription {slot} does not end: look into that server's log"))
    })??;
    let from = to.other();
    old.run(&journal.advance(from, lsn)).await?;
    old.run(&format!("ALTER SUBSCRIPTION {} ENABLE", ident(&journal.subscription(from)))).await
}

/// Now, as in RFC 3339.
pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(std::time::SystemTime::now()).to_string()
}
