//! A client's transaction: on the leader first, and what it writes on every other member that is in.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::commit::{self, Job, Part};
use crate::error::Error;
use crate::replicate::group::{Group, Index};
use crate::replicate::link::{Answer, Call, Fault, Link};
use crate::replicate::locks::Wants;
use crate::replicate::log::{Commit, Entry};
use crate::replicate::statement::{Level, Modes};
use crate::replicate::trouble::Trouble;
use crate::replicate::waiting::{Denied, Held};
use crate::session::settings::quote;
use crate::upstream::Target;
use crate::wire::backend::Status;

/// Bytes of a transaction's statements in the log.
const ENTRIES_MAX: usize = 64 << 20;

/// A transaction that is open.
pub(super) struct Transaction {
    /// It ends with the client's message, as nobody has said BEGIN.
    pub is_implicit: bool,
    /// Nothing of it may write.
    pub is_read_only: bool,
    /// How it is isolated.
    pub level: Level,
    /// Where it runs first.
    pub leader: Index,
    /// An error was its last word: it waits for ROLLBACK.
    pub has_failed: bool,
    /// It is rolled back already, all of it.
    pub is_gone: bool,
    /// It has changed what there is.
    pub has_defined: bool,
    /// Settings that it has changed.
    pub settings: Vec<String>,
    entries: Vec<Entry>,
    bytes: usize,
    held: Option<Held>,
    writing: Option<Writing>,
}

struct Writing {
    number: u64,
    others: Vec<Index>,
}

/// The connections of one client, and its transaction.
pub(super) struct Connections {
    /// The group.
    pub group: Arc<Group>,
    /// Whom the client is logged in as.
    pub target: Target,
    /// What has to be set on each connection.
    pub settings: BTreeMap<String, String>,
    /// The transaction, if one is open.
    pub transaction: Option<Transaction>,
    links: BTreeMap<Index, (u64, Link)>,
}

impl Connections {
    /// None yet.
    pub(super) fn new(group: Arc<Group>, target: Target) -> Connections {
        Connections { group, target, settings: BTreeMap::new(), transaction: None, links: BTreeMap::new() }
    }

    /// The member that leads now.
    pub(super) fn leader(&self) -> Result<Index, Trouble> {
        let view = self.group.now();
        if let Some(why) = &view.closed {
            let message = format!("the group of database \"{}\" is not served: {why}", self.group.name);
            return Err(Trouble::own("57P03", message, "groove-postgres replicate status tells more."));
        }
        view.leader.ok_or_else(|| {
            Trouble::own(
                "57P03",
                "no member of this database's group is in",
                "Try again: members come in by themselves.",
            )
        })
    }

    /// The connection to a member; opened if there is none of its present round.
    pub(super) async fn link(&mut self, index: Index) -> Result<&mut Link, Fault> {
        let view = self.group.now();
        let gone = || Fault::Lost(Error::NoEndpoint);
        let member = view.members.get(index).ok_or_else(gone)?;
        if self.links.get(&index).is_none_or(|(round, _)| *round != member.round) {
            self.links.remove(&index);
            let extra = [("application_name".to_owned(), "groove".to_owned())];
            let time_max = self.group.connect_max();
            let mut link = Link::open(&self.target, &member.address, &extra, time_max).await?;
            let mut text = String::from("SET default_transaction_read_only = on");
            for (name, value) in &self.settings {
                text.push_str(&format!(
                    ";SELECT pg_catalog.set_config({},{},false)",
                    quote(name),
                    quote(value)
                ));
            }
            link.run_within(&text, time_max).await?;
            self.links.insert(index, (member.round, link));
        }
        self.links.get_mut(&index).map(|(_, link)| link).ok_or_else(gone)
    }

    /// The same for a transaction that begins: one that is in the midst of something is of no use.
    pub(super) async fn idle_link(&mut self, index: Index) -> Result<&mut Link, Fault> {
        if self.links.get(&index).is_some_and(|(_, link)| link.status != Status::Idle) {
            self.links.remove(&index);
        }
        self.link(index).await
    }

    /// Closes all connections but one: they are opened anew with the settings of then.
    pub(super) fn keep_only(&mut self, index: Index) {
        self.links.retain(|kept, _| *kept == index);
    }

    /// Closes a connection.
    pub(super) fn forget(&mut self, index: Index) {
        self.links.remove(&index);
    }

    /// A member's connection has failed.
    pub(super) fn lost(&mut self, index: Index, why: &str) {
        let round = self.links.remove(&index).map(|(round, _)| round);
        let round = round.or_else(|| self.group.now().members.get(index).map(|member| member.round));
        self.group.set_aside(index, round.unwrap_or_default(), why);
    }

    /// Has the transaction's leader do something. If it fails, or leads no longer, the transaction is gone.
    pub(super) async fn on_leader<T, F>(
        &mut self,
        index: Index,
        work: impl FnOnce(Link) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = (Link, Result<T, Fault>)>,
    {
        let mut view = self.group.view.subscribe();
        let is_read_only = self.transaction.as_ref().is_some_and(|open| open.is_read_only);
        let in_transaction = self.transaction.is_some();
        let known = self.links.get(&index).map(|(round, _)| *round);
        let known = known.or_else(|| self.group.now().members.get(index).map(|member| member.round));
        let done = async {
            let link = self.link(index).await?;
            // A connection that was opened anew knows nothing of the transaction.
            if in_transaction && link.status == Status::Idle {
                return Err(Fault::Lost(Error::NoEndpoint));
            }
            let Some((round, link)) = self.links.remove(&index) else {
                return Err(Fault::Lost(Error::NoEndpoint));
            };
            let (link, done) = work(link).await;
            if !matches!(done, Err(Fault::Lost(_))) {
                self.links.insert(index, (round, link));
            }
            done
        };
        let has_changed = async {
            let _changed = view
                .wait_for(|view| match is_read_only {
                    true => !view.is_in(index),
                    false => view.leader != Some(index),
                })
                .await;
        };
        let done = tokio::select! {
            done = done => done,
            () = has_changed => Err(Fault::Lost(Error::NoServerOfRole)),
        };
        match done {
            Ok(done) => Ok(done),
            Err(Fault::Said(body)) => Err(Trouble::Said(body)),
            Err(Fault::Lost(error)) => {
                self.links.remove(&index);
                // What has changed is known.
                if !matches!(error, Error::NoServerOfRole) {
                    self.group.set_aside(index, known.unwrap_or_default(), &error.to_string());
                }
                self.gone();
                Err(Trouble::leader_lost())
            }
        }
    }

    /// Nothing of the transaction is left anywhere, or will be when the connections are closed.
    fn gone(&mut self) {
        if let Some(open) = &mut self.transaction {
            (open.has_failed, open.is_gone, open.held) = (true, true, None);
            let leader = open.leader;
            let others = open.writing.take().map(|writing| writing.others).unwrap_or_default();
            self.links.retain(|index, _| *index != leader && !others.contains(index));
        }
    }

    /// BEGIN, said by the client or not.
    pub(super) async fn begin(&mut self, modes: Modes, is_implicit: bool) -> Result<(), Trouble> {
        let is_read_only = modes.is_read_only.unwrap_or(false);
        let mut leader = self.leader()?;
        if is_read_only {
            let view = self.group.now();
            leader = self.group.reader(&view).unwrap_or(leader);
        }
        // One that is in the midst of something is opened anew.
        self.links.retain(|_, (_, link)| link.status == Status::Idle);
        let level = modes.level.unwrap_or(Level::Committed);
        let text = begin_text(level, is_read_only);
        self.on_leader(leader, |link| run(link, &text)).await?;
        self.transaction = Some(Transaction {
            is_implicit,
            is_read_only,
            level,
            leader,
            has_failed: false,
            is_gone: false,
            has_defined: false,
            settings: Vec::new(),
            entries: Vec::new(),
            bytes: 0,
            held: None,
            writing: None,
        });
        Ok(())
    }

    /// Locks more for the open transaction.
    pub(super) async fn lock(&mut self, wants: Wants) -> Result<(), Trouble> {
        let Some(open) = &mut self.transaction else { return Ok(()) };
        let held = open.held.get_or_insert_with(|| self.group.locks.owner());
        let wants = if open.level == Level::Committed { wants } else { Wants::everything() };
        let began = Instant::now();
        let taken = held.take(wants, self.group.options.lock_wait.get()).await;
        self.group.metrics.lock_seconds.record(began.elapsed());
        taken.map_err(|denied| {
            open.has_failed = true;
            match denied {
                Denied::Deadlock => Trouble::own(
                    "40P01",
                    "deadlock detected: transactions of this group wait for each other's tables",
                    "Write tables in the same order everywhere, or run the transaction again.",
                ),
                Denied::Late => Trouble::own(
                    "55P03",
                    "the tables were not free in time: other transactions of this group write them",
                    "Keep transactions short, or raise replicate.lock_wait.",
                ),
            }
        })
    }

    /// From here on the transaction is on every member that is in. What it wants has to be locked.
    pub(super) async fn join(&mut self) -> Result<(), Trouble> {
        let Some(open) = &self.transaction else { return Ok(()) };
        if open.writing.is_some() {
            return Ok(());
        }
        let (leader, text, entries) = (open.leader, begin_text(open.level, false), open.entries.clone());
        let view = self.group.now();
        if view.leader != Some(leader) {
            self.gone();
            return Err(Trouble::leader_lost());
        }
        let mut others = Vec::new();
        for index in view.ins().filter(|index| *index != leader) {
            let wait = self.group.options.member_wait.get();
            let joined = timeout(wait, async {
                let link = self.idle_link(index).await?;
                link.run(&text).await?;
                for entry in &entries {
                    link.apply(entry).await?;
                }
                Ok(())
            });
            match joined.await {
                Ok(Ok(())) => others.push(index),
                Ok(Err(fault)) => self.lost(index, &Fault::text(&fault)),
                Err(_) => self.lost(index, "it does not begin a transaction in time"),
            }
        }
        let number = self.group.number();
        if let Some(open) = &mut self.transaction {
            open.writing = Some(Writing { number, others });
        }
        Ok(())
    }

    /// Runs on the leader.
    pub(super) async fn call(&mut self, call: Call<'_>) -> Result<Answer, Trouble> {
        let Some(leader) = self.transaction.as_ref().map(|open| open.leader) else {
            return Err(Trouble::leader_lost());
        };
        self.on_leader(leader, |mut link| async move {
            let done = link.call(call).await;
            (link, done)
        })
        .await
    }

    /// Asks the leader something of ours.
    pub(super) async fn ask(&mut self, text: &str) -> Result<Vec<Vec<Option<String>>>, Trouble> {
        let leader = match &self.transaction {
            Some(open) => open.leader,
            None => self.leader()?,
        };
        self.on_leader(leader, |mut link| async move {
            let done = link.rows(text).await;
            (link, done)
        })
        .await
    }

    /// Notes what the leader has done, and has the others do it.
    pub(super) async fn spread(&mut self, entry: Entry) -> Result<(), Trouble> {
        let Some(open) = &mut self.transaction else { return Ok(()) };
        open.bytes += entry.text.len() + entry.parameters.len() + 64;
        if open.bytes > ENTRIES_MAX {
            self.undo().await;
            return Err(Trouble::own(
                "54000",
                "the transaction writes more than is kept",
                "Write less in one transaction.",
            ));
        }
        let others = open.writing.as_ref().map(|writing| writing.others.clone()).unwrap_or_default();
        let wait = self.group.options.member_wait.get();
        let view = self.group.now();
        let taken: Vec<_> =
            others.iter().filter_map(|index| Some((*index, self.links.remove(index)?))).collect();
        let applied = taken.into_iter().map(|(index, (round, mut link))| {
            let entry = &entry;
            async move {
                let done = timeout(wait, link.apply(entry)).await;
                (index, round, link, done)
            }
        });
        let mut differs = None;
        let mut kept = Vec::new();
        for (index, round, link, done) in join_all(applied).await {
            let fault = match done {
                Ok(Ok(effect)) => {
                    if let Some(expected) = entry.effect.as_ref().filter(|expected| **expected != effect) {
                        differs =
                            Some((index, format!("{} with other rows, not {}", effect.tag, expected.tag)));
                    }
                    kept.push(index);
                    self.links.insert(index, (round, link));
                    continue;
                }
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Lost(Error::Lost(std::io::ErrorKind::TimedOut.into())),
            };
            match &fault {
                Fault::Said(_) if !is_passing(&fault) => {
                    differs = Some((index, fault.text()));
                    self.links.insert(index, (round, link));
                    kept.push(index);
                }
                Fault::Said(_) | Fault::Lost(_) => {
                    drop(link);
                    self.group.set_aside(index, round, &fault.text());
                }
            }
        }
        if let Some(open) = &mut self.transaction {
            open.entries.push(entry);
            if let Some(writing) = &mut open.writing {
                writing.others = kept;
            }
        }
        if let Some((index, what)) = differs {
            let name = view.members.get(index).map(|member| member.address.to_string()).unwrap_or_default();
            self.undo().await;
            return Err(commit::mismatch(&self.group, &name, &what));
        }
        Ok(())
    }

    /// Rolls everything back now; the client still has to say so.
    pub(super) async fn undo(&mut self) {
        let Some(open) = &mut self.transaction else { return };
        if open.is_gone {
            return;
        }
        (open.has_failed, open.is_gone) = (true, true);
        let others = open.writing.take().map(|writing| writing.others).unwrap_or_default();
        let members: Vec<Index> = std::iter::once(open.leader).chain(others).collect();
        let held = open.held.take();
        let wait = self.group.options.member_wait.get();
        let mut taken = Vec::new();
        for index in members {
            taken.extend(self.links.remove(&index).map(|(round, link)| (index, round, link)));
        }
        let rolled = taken.into_iter().map(|(index, round, mut link)| async move {
            let done = link.run_within("ROLLBACK", wait).await;
            (index, round, link, done)
        });
        // A connection that fails now is closed, and rolled back by its server.
        for (index, round, link, done) in join_all(rolled).await {
            if done.is_ok() {
                self.links.insert(index, (round, link));
            }
        }
        drop(held);
    }

    /// ROLLBACK.
    pub(super) async fn rollback(&mut self) {
        self.undo().await;
        let defined = self.transaction.take().is_some_and(|open| open.has_defined);
        if defined {
            self.group.forget_schema();
        }
    }

    /// COMMIT; true if it was one, false if there was nothing left to commit.
    pub(super) async fn commit(&mut self) -> Result<bool, Trouble> {
        let Some(open) = &self.transaction else { return Ok(true) };
        if open.has_failed {
            self.rollback().await;
            return Ok(false);
        }
        let (leader, wrote) = (open.leader, open.writing.is_some());
        if !wrote {
            let done = self.on_leader(leader, |link| run(link, "COMMIT")).await;
            self.transaction = None;
            return done.map(|()| true);
        }
        let began = Instant::now();
        let done = self.commit_written().await;
        self.group.metrics.commit_seconds.record(began.elapsed());
        done.map(|()| true)
    }

    async fn commit_written(&mut self) -> Result<(), Trouble> {
        let Some(mut open) = self.transaction.take() else { return Ok(()) };
        let Some(writing) = open.writing.take() else { return Ok(()) };
        let part = |links: &mut BTreeMap<Index, (u64, Link)>, index: Index| {
            links.remove(&index).map(|(round, link)| Part { index, round, link })
        };
        let Some(leader) = part(&mut self.links, open.leader) else {
            self.links.clear();
            return Err(Trouble::leader_lost());
        };
        let mut others = Vec::new();
        for index in &writing.others {
            match part(&mut self.links, *index) {
                Some(part) => others.push(part),
                None => self.lost(*index, "its connection has gone in the midst of a transaction"),
            }
        }
        let log = self.group.log().ok_or_else(Trouble::leader_lost)?;
        let commit = Commit {
            number: writing.number,
            user: self.target.user.clone(),
            settings: self.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            entries: std::mem::take(&mut open.entries),
        };
        let group = Arc::clone(&self.group);
        let job = Job { group, log, leader, others, commit, held: open.held.take() };
        // A task of its own: once something is prepared it goes on, whatever becomes of the client.
        let (parts, done) = match tokio::spawn(Box::pin(commit::commit(job))).await {
            Ok(done) => done,
            Err(_) => return Err(Trouble::Fatal(Error::Draining)),
        };
        for Part { index, round, link } in parts {
            self.links.insert(index, (round, link));
        }
        if open.has_defined {
            self.group.forget_schema();
        }
        done
    }
}

async fn run(mut link: Link, text: &str) -> (Link, Result<(), Fault>) {
    let done = link.run(text).await;
    (link, done)
}

fn begin_text(level: Level, is_read_only: bool) -> String {
    let level = match level {
        Level::Committed => "READ COMMITTED",
        Level::Repeatable => "REPEATABLE READ",
        Level::Serializable => "SERIALIZABLE",
    };
    format!("BEGIN ISOLATION LEVEL {level} READ {}", if is_read_only { "ONLY" } else { "WRITE" })
}

/// Whether what a member says is about the member and not about the statement.
pub(super) fn is_passing(fault: &Fault) -> bool {
    fault.code().is_some_and(|code| {
        code.starts_with(b"57") || code.starts_with(b"53") || code == b"55P03" || code == b"40P01"
    })
}

/// How long a client may take to hear why its session ends.
pub(super) const GOODBYE_MAX: Duration = Duration::from_secs(1);
