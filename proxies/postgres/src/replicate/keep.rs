//! One task a member: fences it, resolves what is left prepared on it, feeds it from the log, compares it with the
//! leader, lets it in, and looks after it while it is in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::group::{Group, Index, State};
use super::link::{Fault, Link};
use super::locks::Wants;
use super::log::{Commit, Log};
use super::verify;
use super::waiting::Held;
use crate::session::settings::quote;

/// Held on each member by the process that leads.
pub(super) const FENCE: &str = "pg_catalog.pg_try_advisory_lock(7381238263497)";
/// How long a barrier waits for transactions to end before it lets others go on.
const BARRIER_MAX: Duration = Duration::from_secs(5);
const AGAIN_MIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// Keeps a member to the end of the process.
pub(super) async fn keep(group: Arc<Group>, log: Arc<Log>, index: Index) {
    let (mut again, mut is_first) = (AGAIN_MIN, true);
    loop {
        let mut keeper = Keeper { group: &group, log: &log, index, is_new: is_first, fed: 0 };
        let state = keeper.attend(&mut is_first).await;
        if is_first {
            again = (again * 2).min(AGAIN_MAX);
        } else {
            again = AGAIN_MIN;
        }
        note(&group, index, state);
        let mut view = group.view.subscribe();
        let is_diverged = |state: Option<&State>| matches!(state, Some(State::Diverged(_)));
        let pause = tokio::time::sleep(again);
        tokio::pin!(pause);
        loop {
            let now = view.borrow_and_update().clone();
            let stays_out = is_diverged(now.members.get(index).map(|member| &member.state));
            tokio::select! {
                () = &mut pause, if !stays_out => break,
                changed = view.changed() => if changed.is_err() { return },
            }
        }
    }
}

fn note(group: &Group, index: Index, state: State) {
    let now = group.now();
    let Some(member) = now.members.get(index) else { return };
    // What was found to be diverged stays so, whatever its connection has come to.
    if matches!(member.state, State::Diverged(_)) || member.state == state {
        return;
    }
    if member.state == State::In {
        group.metrics.set_aside.inc();
    }
    tracing::warn!(
        group = group.name,
        member = %member.address,
        state = state.word(),
        why = state.why().unwrap_or_default(),
        "a member is not in"
    );
    group.set_state(index, state);
}

struct Keeper<'a> {
    group: &'a Arc<Group>,
    log: &'a Arc<Log>,
    index: Index,
    /// Nothing has been sent to it by this process.
    is_new: bool,
    fed: usize,
}

impl Keeper<'_> {
    /// Brings it in and looks after it; how it is when that has ended.
    async fn attend(&mut self, is_first: &mut bool) -> State {
        let aside = |fault: Fault| State::Aside(fault.text());
        let now = self.group.now();
        let Some(member) = now.members.get(self.index) else { return State::Aside(String::new()) };
        let mut link = match self.group.control_link(&member.address).await {
            Ok(link) => link,
            Err(fault) => return aside(fault),
        };
        let base = self.log.base();
        let applied = match self.claim(&mut link, base).await {
            Ok(applied) => applied,
            Err(state) => return state,
        };
        self.group.set_state(self.index, State::CatchingUp);
        match self.enter(&mut link, base, &applied).await {
            Ok(()) => {}
            Err(state) => return state,
        }
        *is_first = false;
        loop {
            let looked = self.resolve(&mut link).await;
            if let Err(fault) = looked {
                return aside(fault);
            }
            let pause = self.group.options.interval.get();
            let _ = tokio::time::timeout(pause, self.group.nudge.notified()).await;
            match self.group.now().members.get(self.index).map(|member| member.state.clone()) {
                Some(State::In) => {}
                Some(state) => return state,
                None => return State::Aside(String::new()),
            }
        }
    }

    /// Fences it, and tells which transactions it has.
    async fn claim(&self, link: &mut Link, base: u64) -> Result<HashSet<u64>, State> {
        let aside = |fault: Fault| State::Aside(fault.text());
        let rows = link.rows(&format!("SELECT {FENCE}")).await.map_err(aside)?;
        if rows != [[Some("t".to_owned())]] {
            return Err(State::Refused("another proxy leads a group with it".to_owned()));
        }
        let known =
            link.rows("SELECT to_regclass('groove_replicate.state') IS NOT NULL").await.map_err(aside)?;
        let unknown = "it does not belong to the group: copy a member's data to it (pg_basebackup)";
        if known != [[Some("t".to_owned())]] {
            return Err(State::Refused(unknown.to_owned()));
        }
        let rows = link.rows("SELECT log, base FROM groove_replicate.state").await.map_err(aside)?;
        let number = |value: Option<&Option<String>>| value.and_then(|v| v.as_ref()?.parse::<u64>().ok());
        let row = rows.first().map(|row| (number(row.first()), number(row.get(1))));
        let Some((Some(id), Some(its_base))) = row else { return Err(State::Refused(unknown.to_owned())) };
        if id != self.log.id {
            return Err(State::Refused("it belongs to a group with another log".to_owned()));
        }
        if its_base < base {
            let why = "the log has begun anew since it was in: copy a member's data to it (pg_basebackup)";
            return Err(State::Refused(why.to_owned()));
        }
        let epoch = format!("UPDATE groove_replicate.state SET epoch = {}", self.group.epoch());
        link.run(&epoch).await.map_err(aside)?;
        self.resolve(link).await.map_err(aside)?;
        let rows = link.rows("SELECT number FROM groove_replicate.applied").await.map_err(aside)?;
        let applied: HashSet<u64> = rows.iter().filter_map(|row| number(row.first())).collect();
        if applied.iter().any(|number| *number >= base && !self.log.has(*number)) {
            let why =
                "it has transactions that are not in the log: the log is not the one it was written with";
            return Err(State::Refused(why.to_owned()));
        }
        Ok(applied)
    }

    /// Ends what is prepared on it and nobody here is at: committed if the log says so, else rolled back.
    async fn resolve(&self, link: &mut Link) -> Result<(), Fault> {
        let wait = self.group.options.member_wait.get();
        let prefix = format!("groove_{:016x}_", self.log.id);
        let question = format!(
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND starts_with(gid, '{prefix}')"
        );
        for row in link.rows_within(&question, wait).await? {
            let gid = row.into_iter().next().flatten().unwrap_or_default();
            let Some(number) = gid.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok()) else {
                continue;
            };
            // In this order: one that ends between the two looks has its decision in the log by then.
            if self.group.is_in_flight(number) {
                continue;
            }
            let verb = if self.log.has(number) { "COMMIT" } else { "ROLLBACK" };
            tracing::info!(
                group = self.group.name,
                gid,
                verb,
                "a transaction that was left prepared is ended"
            );
            match link.run_within(&format!("{verb} PREPARED '{gid}'"), wait).await {
                Ok(()) => {}
                // Ended by another meanwhile.
                Err(fault) if fault.code() == Some(b"42704") => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    async fn barrier(&self) -> Result<Held, State> {
        let held = self.group.locks.owner();
        match held.take(Wants::everything(), BARRIER_MAX).await {
            Ok(()) => Ok(held),
            Err(_) => {
                Err(State::Aside("transactions under way do not end, so that it cannot come in".to_owned()))
            }
        }
    }

    /// Feeds it, compares it, and lets it in at a moment when nothing is under way.
    async fn enter(&mut self, link: &mut Link, base: u64, applied: &HashSet<u64>) -> Result<(), State> {
        let mut position = 0;
        self.feed(link, base, &mut position, applied).await?;
        let barrier = self.barrier().await?;
        self.resolve(link).await.map_err(|fault| State::Aside(fault.text()))?;
        self.feed(link, base, &mut position, applied).await?;
        let view = self.group.now();
        let leader = view.leader.and_then(|leader| view.members.get(leader)).map(|member| &member.address);
        let Some(leader) = leader else {
            self.let_in(position);
            return Ok(());
        };
        let mut barrier = Some(barrier);
        let failed = |fault: Fault| State::Aside(format!("the comparison has failed: {}", fault.text()));
        if self.fed > 0 || !self.is_new {
            let address = view.members.get(self.index).map(|member| member.address.clone());
            let Some(address) = address else { return Err(State::Aside(String::new())) };
            let snapshots = async {
                Ok((
                    verify::snapshot(self.group, leader).await?,
                    verify::snapshot(self.group, &address).await?,
                ))
            };
            let (mut reference, mut own) = snapshots.await.map_err(failed)?;
            drop(barrier.take());
            self.group.set_state(self.index, State::Verifying);
            let sums = async { Ok((verify::sums(&mut reference).await?, verify::sums(&mut own).await?)) };
            let (reference, own) = sums.await.map_err(failed)?;
            if let Some(what) = verify::difference(&reference, &own) {
                return Err(State::Diverged(what));
            }
            self.group.set_state(self.index, State::CatchingUp);
            self.feed(link, base, &mut position, applied).await?;
            barrier = Some(self.barrier().await?);
            self.feed(link, base, &mut position, applied).await?;
        }
        let mut reference = self.group.control_link(leader).await.map_err(failed)?;
        verify::copy_sequences(&mut reference, link).await.map_err(failed)?;
        self.let_in(position);
        drop(barrier);
        Ok(())
    }

    fn let_in(&self, position: usize) {
        self.group.change(|view| {
            if let Some(member) = view.members.get_mut(self.index) {
                member.state = State::In;
                member.round += 1;
                member.position = position;
            }
        });
        let now = self.group.now();
        if let Some(member) = now.members.get(self.index) {
            tracing::info!(group = self.group.name, member = %member.address, fed = self.fed, "a member is in");
        }
    }

    /// Carries out what it lacks of the log, from a place on.
    async fn feed(
        &mut self,
        link: &mut Link,
        base: u64,
        position: &mut usize,
        applied: &HashSet<u64>,
    ) -> Result<(), State> {
        let mut own = None;
        loop {
            if self.log.base() != base {
                return Err(State::Aside("the log has begun anew".to_owned()));
            }
            let Some(number) = self.log.number_at(*position) else { return Ok(()) };
            if !applied.contains(&number) {
                let commit =
                    self.log.commit_at(*position).map_err(|error| State::Aside(error.to_string()))?;
                let Some(commit) = commit else { return Ok(()) };
                if own.is_none() {
                    let address =
                        self.group.now().members.get(self.index).map(|member| member.address.clone());
                    let Some(address) = address else { return Ok(()) };
                    let opened = self.group.feeder_link(&address).await;
                    own = Some(opened.map_err(|fault| State::Aside(fault.text()))?);
                }
                if let Some(own) = &mut own {
                    self.feed_one(link, own, &commit).await?;
                }
            }
            *position += 1;
            let at = *position;
            self.group.change(|view| {
                if let Some(member) = view.members.get_mut(self.index) {
                    member.position = at;
                }
            });
        }
    }

    async fn feed_one(&mut self, link: &mut Link, own: &mut Link, commit: &Commit) -> Result<(), State> {
        let aside = |fault: Fault| State::Aside(fault.text());
        let number = commit.number;
        let gid = self.group.gid(self.log, number);
        let state = format!(
            "SELECT EXISTS (SELECT FROM groove_replicate.applied WHERE number = {number}), \
             EXISTS (SELECT FROM pg_prepared_xacts WHERE gid = '{gid}')"
        );
        let rows = link.rows(&state).await.map_err(aside)?;
        let is = |at: usize| {
            rows.first().and_then(|row| row.get(at)).is_some_and(|value| value.as_deref() == Some("t"))
        };
        if is(0) {
            return Ok(());
        }
        if is(1) {
            return match link.run(&format!("COMMIT PREPARED '{gid}'")).await {
                Err(fault) if fault.code() != Some(b"42704") => Err(aside(fault)),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        match replay(own, commit, self.group.epoch()).await {
            Ok(()) => {
                self.fed += 1;
                self.group.metrics.fed.inc();
                Ok(())
            }
            // Its session has committed it just now.
            Err(Replay::Fault(fault)) if fault.code() == Some(b"23505") => {
                let rows = link.rows(&state).await.map_err(aside)?;
                let has_it = rows.first().and_then(|row| row.first()) == Some(&Some("t".to_owned()));
                if has_it { Ok(()) } else { Err(State::Diverged(fault.text())) }
            }
            Err(Replay::Fault(fault)) => match fault.code() {
                // A lock that somebody has still, a shutdown, no room: it may pass.
                None | Some(b"55P03" | b"40P01" | b"40001") => Err(aside(fault)),
                Some(code)
                    if code.starts_with(b"57") || code.starts_with(b"53") || code.starts_with(b"0A") =>
                {
                    Err(aside(fault))
                }
                Some(_) => Err(State::Diverged(format!("a statement of the log fails: {}", fault.text()))),
            },
            Err(Replay::Differs(what)) => Err(State::Diverged(what)),
        }
    }
}

enum Replay {
    Fault(Fault),
    Differs(String),
}

impl From<Fault> for Replay {
    fn from(fault: Fault) -> Replay {
        Replay::Fault(fault)
    }
}

/// Carries out a transaction of the log, and marks it in the same transaction.
async fn replay(link: &mut Link, commit: &Commit, epoch: u64) -> Result<(), Replay> {
    let mut begin = String::from("RESET ALL; BEGIN; SET LOCAL lock_timeout = '5s'");
    for (name, value) in &commit.settings {
        begin.push_str(&format!("; SELECT pg_catalog.set_config({},{},true)", quote(name), quote(value)));
    }
    let user = commit.user.replace('"', "\"\"");
    begin.push_str(&format!("; SET LOCAL SESSION AUTHORIZATION \"{user}\""));
    let done = async {
        link.run(&begin).await?;
        for entry in &commit.entries {
            let effect = link.apply(entry).await?;
            if let Some(expected) = &entry.effect
                && *expected != effect
            {
                let what = format!(
                    "a statement of the log does something else here: {} with {} rows, not {} with {}",
                    effect.tag, effect.rows, expected.tag, expected.rows
                );
                return Err(Replay::Differs(what));
            }
        }
        link.run(&format!("SELECT groove_replicate.mark({}, {epoch}); COMMIT", commit.number)).await?;
        Ok(())
    };
    let outcome = done.await;
    if outcome.is_err() {
        // If that fails as well the connection is of no use, which its next use shows.
        let _ = link.run("ROLLBACK").await;
    }
    outcome
}
