//! The cutover, the same in both directions: the gate is closed, the old side fenced, an exact marker awaited on the new
//! one, and clients go on there.
//!
//! Until the journal says [`Phase::Switched`] any trouble, and the end of the budget, undoes it all. From there on it is
//! only a matter of doing the rest, and whoever comes next may do it.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout, timeout_at};

use super::fault::{Fault, Outcome, refused};
use super::files::Kept;
use super::node::Node;
use super::plan;
use super::policy::phase::{Cut, Journal, Phase, Side};
use super::policy::sql::{self, literal};
use super::policy::verification::{Checksum, Checksums, Verification};
use super::recover::{self, now};
use super::work::{Terms, Work};

/// Beats in a row that have to be quick before the gate is closed.
const BEATS: u32 = 3;
/// So quick.
const BEAT_MAX: Duration = Duration::from_millis(50);
/// A replication that does not catch up within this is not cut over to.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
/// Between two looks for a marker.
const MARKER_EVERY: Duration = Duration::from_micros(300);
/// Between two looks for sessions that end.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// As much of the longest pause may go by until transactions have ended.
const DRAIN_SHARE: f64 = 0.8;
/// The gate opens by itself so long after the longest pause.
const LEASE_EXTRA: Duration = Duration::from_secs(2);

/// Connections to both sides: the one that serves, and the one that shall.
struct Pair {
    old: Node,
    new: Node,
    /// For comparing rows as of the moment of the switch.
    old_rows: Node,
    new_rows: Node,
}

/// How long each step took.
struct Laps {
    begun: Instant,
    last: Instant,
    steps: Vec<(String, f64)>,
}

impl Laps {
    fn begin() -> Laps {
        let now = Instant::now();
        Laps { begun: now, last: now, steps: Vec::new() }
    }

    fn lap(&mut self, name: &str) {
        let now = Instant::now();
        self.steps.push((name.to_owned(), ms(now - self.last)));
        self.last = now;
    }

    fn told(&self) -> String {
        let steps: Vec<_> = self.steps.iter().map(|(name, ms)| format!("{name} {ms:.1}")).collect();
        steps.join(", ")
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Lets the other side serve.
pub(super) async fn cut(work: &Work<'_>, kept: &mut Kept, to: Side, terms: Terms) -> Outcome<()> {
    let journal = kept.journal.clone();
    let pair = Pair {
        old: work.connect(&journal, to.other()).await?,
        new: work.connect(&journal, to).await?,
        old_rows: work.connect(&journal, to.other()).await?,
        new_rows: work.connect(&journal, to).await?,
    };
    let sequences = make_ready(work, &journal, &pair, to, terms).await?;
    kept.change(|journal| journal.phase = Phase::Gate { to }).await?;
    let mut laps = Laps::begin();
    let decided = decide(work, kept, &pair, (to, terms), &sequences, &mut laps).await;
    if let Err(fault) = decided {
        return Err(give_up(work, kept, (to, &laps), fault).await);
    }
    // Decided. Nothing that comes from the old side is to follow what clients do from now on.
    let journal = &kept.journal;
    let disable = recover::disable(journal, to);
    let (disabled, switched) = tokio::join!(pair.new.run(&disable), work.proxies.switch(journal, to));
    disabled.and(switched)?;
    laps.lap("switch");
    work.proxies.open(journal).await?;
    laps.lap("open");
    let gate_ms = ms(laps.last - laps.begun);
    work.say(format_args!(
        "{} serves: gate closed for {gate_ms:.1} ms ({})",
        journal.address(to),
        laps.told()
    ));
    let cut =
        Cut { at: now(), to, gate_ms: Some(gate_ms), steps: laps.steps, verification: Verification::None };
    recover::complete(kept, work.migration, Some(cut)).await?;
    let back = beat(&pair.new, &pair.old, CATCH_UP_MAX).await?;
    work.say(format_args!("{} follows: a beat takes {:.1} ms", kept.journal.address(to.other()), ms(back)));
    if terms.verifies {
        verify(work, kept, &pair).await?;
    }
    Ok(())
}

/// What may take its time, before anybody waits: gives the sequences' names.
async fn make_ready(
    work: &Work<'_>,
    journal: &Journal,
    pair: &Pair,
    to: Side,
    terms: Terms,
) -> Outcome<Vec<String>> {
    let fence = sql::limit(&journal.dbname, 0);
    pair.new.run(&fence).await?;
    let prepared = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()";
    if let Some(gid) = pair.old.value(prepared).await? {
        return refused(format!(
            "transaction {gid} is prepared: COMMIT PREPARED or ROLLBACK PREPARED it first"
        ));
    }
    let seen = work.proxies.seen().await?;
    let others = plan::others(&pair.old, &work.proxies).await?;
    if !others.is_empty() && !terms.ends_others {
        let others = others.join("; ");
        return refused(format!(
            "sessions come past the proxy ({others}): end them, or say --terminate-others"
        ));
    }
    // The slot of the other direction has stood still, and kept WAL for it.
    let slot = literal(&journal.subscription(to.other()));
    pair.new
        .run(&format!(
            "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) FROM pg_replication_slots \
             WHERE slot_name = {slot} AND NOT active AND confirmed_flush_lsn < pg_current_wal_flush_lsn()"
        ))
        .await?;
    // As many as there may be, and then nobody any more: who got in is ours.
    let wanted = seen.iter().map(|seen| seen.processes.len()).sum::<usize>();
    // Superusers are let in whatever the bound, but count.
    let there = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
    let bound = pair.new.number(there).await? + i64::try_from(wanted).unwrap_or(i64::MAX);
    pair.new.run(&sql::limit(&journal.dbname, bound)).await?;
    let ahead = work.proxies.prepare(journal, to).await;
    pair.new.run(&fence).await?;
    let ahead = ahead?;
    let there = pair.new.rows(sql::OTHERS).await?.len();
    if u64::try_from(there).unwrap_or(u64::MAX) != ahead {
        pair.new.run(sql::END_OTHERS).await?;
        work.say("somebody else got into the new server's database and was ended");
    }
    let sequences = pair.old.column(sql::SEQUENCES).await?;
    catch_up(journal, pair, to).await?;
    work.say(format_args!(
        "{ahead} connections and {} sequences are ready, replication is close",
        sequences.len()
    ));
    Ok(sequences)
}

/// Waits until what is written on the old side is on the new one in no time.
async fn catch_up(journal: &Journal, pair: &Pair, to: Side) -> Outcome<()> {
    let name = journal.subscription(to);
    let enabled = format!("SELECT 1 FROM pg_subscription WHERE subenabled AND subname = {}", literal(&name));
    if !pair.new.has(&enabled).await? {
        return refused(format!(
            "the subscription {name} on the {} has disabled itself: its server's log says why",
            to.name()
        ));
    }
    let deadline = Instant::now() + CATCH_UP_MAX;
    let mut quick = 0;
    while quick < BEATS {
        let left = deadline.saturating_duration_since(Instant::now());
        let took = beat(&pair.old, &pair.new, left).await?;
        quick = if took < BEAT_MAX { quick + 1 } else { 0 };
    }
    Ok(())
}

/// Writes on one side what the other one has to be seen to have; how long that took.
async fn beat(from: &Node, to: &Node, patience: Duration) -> Outcome<Duration> {
    let begun = Instant::now();
    let n = mark(from).await?;
    let seen = timeout(patience, awaited(to, n)).await;
    seen.map_err(|_| Fault::Refused(format!("replication is more than {patience:?} behind")))??;
    Ok(begun.elapsed())
}

async fn mark(node: &Node) -> Outcome<i64> {
    node.number("UPDATE groove_migration.beat SET n = n + 1, at = clock_timestamp() WHERE id = 1 RETURNING n")
        .await
}

async fn awaited(node: &Node, n: i64) -> Outcome<()> {
    while node.number("SELECT n FROM groove_migration.beat WHERE id = 1").await? != n {
        sleep(MARKER_EVERY).await;
    }
    Ok(())
}

/// Everything up to the decision, within the budget.
async fn decide(
    work: &Work<'_>,
    kept: &mut Kept,
    pair: &Pair,
    (to, terms): (Side, Terms),
    sequences: &[String],
    laps: &mut Laps,
) -> Outcome<()> {
    let deadline = tokio::time::Instant::from_std(laps.begun) + terms.max_pause;
    let moving = move_over(work, &kept.journal, pair, (terms, deadline), sequences, laps);
    let moved = timeout_at(deadline, moving).await;
    let lsn = match moved {
        Ok(lsn) => lsn?,
        Err(_) => {
            let after = laps.steps.last().map_or("the beginning", |(name, _)| name.as_str());
            return Err(Fault::Budget(format!("{:?} were over after {after}", terms.max_pause)));
        }
    };
    // Should the proxy have opened the gate meanwhile, it has changed the journal.
    kept.change(|journal| journal.phase = Phase::Switched { to, lsn }).await?;
    laps.lap("journal");
    Ok(())
}

/// With the gate closed and the old side fenced, the new one has everything: where its WAL is then.
async fn move_over(
    work: &Work<'_>,
    journal: &Journal,
    pair: &Pair,
    (terms, deadline): (Terms, tokio::time::Instant),
    sequences: &[String],
    laps: &mut Laps,
) -> Outcome<String> {
    // A command that stood still itself must not touch what a proxy has brought back since.
    let in_time = || match tokio::time::Instant::now() < deadline {
        true => Ok(()),
        false => Err(Fault::Budget("the command itself stood still".to_owned())),
    };
    // The rest is for what comes after.
    let budget = terms.max_pause.mul_f64(DRAIN_SHARE);
    work.proxies.close(journal, budget, terms.max_pause + LEASE_EXTRA).await?;
    laps.lap("drain");
    in_time()?;
    pair.old.run(&sql::limit(&journal.dbname, 0)).await?;
    pair.old.run(sql::END_OTHERS).await?;
    loop {
        let left = pair.old.pairs(sql::LEFT).await?;
        let Some((sessions, prepared)) = left.first() else {
            return refused("the server does not say who is there");
        };
        if prepared != "0" {
            return refused("a transaction was prepared meanwhile: COMMIT PREPARED or ROLLBACK PREPARED it");
        }
        if sessions == "0" {
            break;
        }
        sleep(LOOK_EVERY).await;
        pair.old.run(sql::END_OTHERS).await?;
    }
    laps.lap("fence");
    let n = mark(&pair.old).await?;
    let values = read_sequences(&pair.old, sequences).await?;
    laps.lap("beat and sequences");
    awaited(&pair.new, n).await?;
    laps.lap("marker");
    if terms.verifies {
        let snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT n FROM groove_migration.beat";
        let (old, new) = tokio::join!(pair.old_rows.run(snapshot), pair.new_rows.run(snapshot));
        old.and(new)?;
        laps.lap("snapshots");
    }
    in_time()?;
    let set = sql::set_sequences(&values).map(|set| set + "; ").unwrap_or_default();
    pair.new.run(&format!("{set}{}", sql::limit(&journal.dbname, journal.connection_limit))).await?;
    let lsn = pair.new.value("SELECT pg_current_wal_flush_lsn()").await?.unwrap_or_default();
    laps.lap("sequences set");
    Ok(lsn)
}

async fn read_sequences(node: &Node, names: &[String]) -> Outcome<Vec<(String, String, bool)>> {
    let Some(query) = sql::read_sequences(names) else { return Ok(Vec::new()) };
    let rows = node.rows(&query).await?.into_iter();
    let values = rows.filter_map(|row| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next()??, row.next()?? == "t"))
    });
    Ok(values.collect())
}

/// Leaves everything as it was, and says why.
async fn give_up(work: &Work<'_>, kept: &mut Kept, (to, laps): (Side, &Laps), fault: Fault) -> Fault {
    work.say(format_args!("not cut over ({}): {fault}", laps.told()));
    match undo(work, kept, to).await {
        // It was written after all, before what failed.
        Ok(false) => Fault::Refused(format!("{fault}; the switch is decided all the same: say it again")),
        Ok(true) => {
            work.say(format_args!("{} serves as before", kept.journal.address(to.other())));
            fault
        }
        // The proxy opens the gate by itself, and tries the same.
        Err(more) => Fault::Refused(format!("{fault}; and undoing it: {more}: say any verb again to go on")),
    }
}

/// Brings both servers back to where they were, and opens the gate; not if it is decided. A proxy may have done the same
/// meanwhile, and before the last of what was said here.
async fn undo(work: &Work<'_>, kept: &mut Kept, to: Side) -> Outcome<bool> {
    *kept = work.again(kept).await?.ok_or(Fault::Overtaken)?;
    if let Phase::Switched { .. } = kept.journal.phase {
        return Ok(false);
    }
    kept.change(|journal| journal.phase = Phase::Undoing { to }).await?;
    recover::settle(kept, work.migration).await?;
    work.proxies.open(&kept.journal).await?;
    Ok(true)
}

/// Compares all rows as of the moment of the switch.
async fn verify(work: &Work<'_>, kept: &mut Kept, pair: &Pair) -> Outcome<()> {
    let (old, new) = tokio::join!(checksums(&pair.old_rows), checksums(&pair.new_rows));
    let verification = Verification::of(&old?, &new?);
    work.say(format_args!("compared as of the switch: {}", verification.told()));
    let is_different = matches!(verification, Verification::Different(_));
    kept.change(|journal| {
        if let Some(cut) = journal.cuts.last_mut() {
            cut.verification = verification;
        }
    })
    .await?;
    match is_different {
        true => refused(
            "the two servers had different rows: the old one still follows, and `rollback` goes back to it",
        ),
        false => Ok(()),
    }
}

async fn checksums(node: &Node) -> Outcome<Checksums> {
    let mut sums = Checksums::new();
    for table in node.column(sql::TABLES).await? {
        let mut rows = node.pairs(&sql::checksum(&table)).await?;
        if let Some((count, sum)) = rows.pop() {
            sums.insert(table, Checksum { rows: count.parse().unwrap_or_default(), sum });
        }
    }
    node.run("COMMIT").await?;
    Ok(sums)
}
