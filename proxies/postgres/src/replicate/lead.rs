//! Leading a group: holding its log, founding it, and keeping the log short.
//!
//! Only one process leads. The log is locked (flock), members know their log by its number, and each member has an
//! advisory lock that the process which leads holds; a transaction of a process that leads no longer is refused by the
//! members, which know the number of the last that does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::group::{Group, State};
use super::keep::{self, FENCE};
use super::link::{Fault, Link};
use super::locks::Wants;
use super::log::{Log, LogError, Record};
use super::verify::{self, Sums};

/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(300);
/// Between two looks at the log's length.
const TIDY: Duration = Duration::from_secs(5);

/// What a member keeps of the group. The functions are for every role, as every role's transactions are marked.
const INSTALL: &str = "CREATE SCHEMA IF NOT EXISTS groove_replicate; \
    CREATE TABLE IF NOT EXISTS groove_replicate.state (log bigint NOT NULL, epoch bigint NOT NULL, base bigint NOT NULL); \
    CREATE TABLE IF NOT EXISTS groove_replicate.applied (number bigint PRIMARY KEY); \
    CREATE OR REPLACE FUNCTION groove_replicate.mark(bigint, bigint) RETURNS void LANGUAGE plpgsql \
      SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $f$ BEGIN \
      INSERT INTO groove_replicate.applied SELECT $1 FROM groove_replicate.state WHERE epoch = $2; \
      IF NOT FOUND THEN RAISE EXCEPTION 'another proxy leads this group' USING ERRCODE = '0A000'; END IF; \
      END $f$; \
    GRANT USAGE ON SCHEMA groove_replicate TO PUBLIC";

/// Leads a group to the end of the process.
pub(super) async fn lead(group: Arc<Group>) {
    let close = |why: String| {
        if group.now().closed.as_deref() != Some(&why) {
            tracing::warn!(group = group.name, why, "a group is not served");
            group.change(|view| view.closed = Some(why));
        }
    };
    let log = loop {
        let folder = group.options.log.clone();
        match tokio::task::spawn_blocking(move || Log::open(&folder)).await {
            Ok(Ok(log)) => break log,
            Ok(Err(LogError::Held)) => close("another process holds the group's log".to_owned()),
            Ok(Err(error)) => close(format!("the log {}: {error}", group.options.log.display())),
            Err(error) => close(format!("the log: {error}")),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let epoch = log.epoch() + 1;
    while let Err(error) = log.append(Record::Epoch(epoch)).await {
        close(format!("the log {}: {error}", group.options.log.display()));
        tokio::time::sleep(AGAIN).await;
    }
    group.lead(Arc::clone(&log), epoch);
    while !log.is_founded() {
        match found(&group, &log).await {
            Ok(()) => {}
            Err(why) => close(why),
        }
        if !log.is_founded() {
            tokio::time::sleep(AGAIN).await;
        }
    }
    tracing::info!(group = group.name, epoch, transactions = log.len(), "this process leads the group");
    for index in 0..group.now().members.len() {
        tokio::spawn(keep::keep(Arc::clone(&group), Arc::clone(&log), index));
    }
    group.change(|view| view.closed = None);
    let (mut ticks, mut views) = (interval_at(Instant::now() + TIDY, TIDY), group.view.subscribe());
    loop {
        // All may be in for a moment only, where members come and go.
        let is_tick = tokio::select! {
            _ = ticks.tick() => true,
            changed = views.changed() => changed.is_err(),
        };
        let all_in = group.now().members.iter().all(|member| member.state == State::In);
        let max = group.options.log_max.bytes() as u64;
        let is_too_long = is_tick && log.bytes() > max;
        if (is_too_long || (all_in && log.bytes() > max / 16))
            && let Err(error) = tidy(&group, &log, is_too_long).await
        {
            tracing::warn!(group = group.name, error, "the replication log is not begun anew");
        }
    }
}

/// The first time: all members are there, belong to nobody, and have the same in them.
async fn found(group: &Arc<Group>, log: &Log) -> Result<(), String> {
    let mut links: Vec<(String, Link)> = Vec::new();
    for member in &group.now().members {
        let name = member.address.to_string();
        let failed =
            |fault: Fault| format!("member {name} is not there to found the group: {}", fault.text());
        let mut link = group.control_link(&member.address).await.map_err(failed)?;
        check(&mut link, log).await.map_err(|why| format!("member {name}: {why}"))?;
        links.push((name, link));
    }
    let mut first: Option<(String, BTreeMap<String, Sums>)> = None;
    for (name, link) in &mut links {
        let sums = verify::sums(link).await.map_err(|fault| format!("member {name}: {}", fault.text()))?;
        match &first {
            None => first = Some((name.clone(), sums)),
            Some((other, reference)) => {
                if let Some(what) = verify::difference(reference, &sums) {
                    return Err(format!(
                        "members {other} and {name} differ: {what}; copy one to the other first"
                    ));
                }
            }
        }
    }
    let state = format!(
        "BEGIN; {INSTALL}; DELETE FROM groove_replicate.state; DELETE FROM groove_replicate.applied; \
         INSERT INTO groove_replicate.state VALUES ({}, {}, 0); COMMIT",
        log.id,
        group.epoch()
    );
    for (name, link) in &mut links {
        link.run(&state).await.map_err(|fault| format!("member {name}: {}", fault.text()))?;
    }
    log.append(Record::Founded).await.map_err(|error| error.to_string())
}

/// Whether a server can belong to a group, with every reason that it cannot.
async fn check(link: &mut Link, log: &Log) -> Result<(), String> {
    let said = |fault: Fault| fault.text();
    let rows = link.rows(&format!("SELECT {FENCE}")).await.map_err(said)?;
    if rows != [[Some("t".to_owned())]] {
        return Err("another proxy leads a group with it".to_owned());
    }
    let question = "SELECT current_setting('max_prepared_transactions')::int, \
        (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), pg_is_in_recovery(), \
        pg_encoding_to_char(encoding), (SELECT count(*) FROM pg_prepared_xacts), \
        (SELECT count(*) FROM pg_largeobject_metadata), to_regclass('groove_replicate.state') IS NOT NULL \
        FROM pg_database WHERE datname = current_database()";
    let rows = link.rows(question).await.map_err(said)?;
    let Some([prepared, superuser, recovery, encoding, left, large, known]) =
        rows.first().map(|row| &row[..])
    else {
        return Err("it does not say what it is".to_owned());
    };
    let is = |value: &Option<String>, text: &str| value.as_deref() == Some(text);
    let mut reasons = Vec::new();
    if is(prepared, "0") {
        reasons.push("max_prepared_transactions is 0: set it to the number of client sessions or more");
    }
    if !is(superuser, "t") {
        reasons.push("`replicate.user` is no superuser");
    }
    if is(recovery, "t") {
        reasons.push("it is a standby");
    }
    if !is(encoding, "UTF8") {
        reasons.push("the database's encoding is not UTF8");
    }
    if !is(left, "0") {
        reasons.push("transactions are prepared on it: end them");
    }
    if !is(large, "0") {
        reasons.push("it has large objects, which are not replicated");
    }
    if is(known, "t") {
        let rows = link.rows("SELECT log FROM groove_replicate.state").await.map_err(said)?;
        if rows.first().is_some_and(|row| row.first().is_some_and(|id| !is(id, &log.id.to_string()))) {
            reasons.push(
                "it belongs to a group with another log: use that log, or drop its schema groove_replicate",
            );
        }
    }
    if reasons.is_empty() { Ok(()) } else { Err(reasons.join("; ")) }
}

/// Begins the log anew, at a moment when nothing is under way. Who has not caught up by then is left behind: only where
/// the log is too long.
async fn tidy(group: &Arc<Group>, log: &Log, is_too_long: bool) -> Result<(), String> {
    let barrier = group.locks.owner();
    let taken = barrier.take(Wants::everything(), group.options.lock_wait.get()).await;
    taken.map_err(|_| "transactions do not end".to_owned())?;
    let (view, base) = (group.now(), group.next_number());
    let mut links = Vec::new();
    for index in view.ins() {
        let Some(member) = view.members.get(index) else { continue };
        let wait = group.options.member_wait.get();
        let noted = async {
            let mut link = group.control_link(&member.address).await?;
            link.run_within(&format!("UPDATE groove_replicate.state SET base = {base}"), wait).await?;
            Ok::<_, Fault>(link)
        };
        match noted.await {
            Ok(link) => links.push(link),
            Err(fault) => group.set_aside(index, member.round, &fault.text()),
        }
    }
    if links.is_empty() {
        return Err("no member is in".to_owned());
    }
    if links.len() < view.members.len() && !is_too_long {
        // One has gone since: the log is what brings it back. That others note a later base takes nothing from them.
        return Ok(());
    }
    log.begin_anew(base).map_err(|error| error.to_string())?;
    drop(barrier);
    for link in &mut links {
        let clean = format!("DELETE FROM groove_replicate.applied WHERE number < {base}");
        if let Err(fault) = link.run(&clean).await {
            tracing::debug!(group = group.name, error = fault.text(), "old marks stay on a member");
        }
    }
    Ok(())
}
