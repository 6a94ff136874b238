//! The end of a transaction that has written: prepared on all, decided in the log, committed on all.
//!
//! Presumed abort: what is not in the log is rolled back, by whoever finds it prepared.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::group::{Group, Index};
use super::super::link::{Fault, Link};
use super::super::log::{Commit, Log, LogError, Record};
use super::super::trouble::Trouble;
use super::super::verify;
use super::super::waiting::Held;
use super::transaction::is_passing;

/// A member's connection, which is in the transaction.
pub(super) struct Part {
    /// The member.
    pub index: Index,
    /// How often it had come in when it was opened.
    pub round: u64,
    /// The connection.
    pub link: Link,
}

/// Everything a commit needs. It goes on to its end, whatever becomes of the client.
pub(super) struct Job {
    /// The group.
    pub group: Arc<Group>,
    /// Its log.
    pub log: Arc<Log>,
    /// The leader, where an error is the client's.
    pub leader: Part,
    /// All others that are in.
    pub others: Vec<Part>,
    /// What goes into the log.
    pub commit: Commit,
    /// What it has locked, to the end.
    pub held: Option<Held>,
}

/// Commits. Gives back the connections that are fit for more.
pub(super) async fn commit(job: Job) -> (Vec<Part>, Result<(), Trouble>) {
    let Job { group, log, leader, others, commit, held } = job;
    let number = commit.number;
    let gid = group.gid(&log, number);
    let in_flight = group.begin_commit(number);
    let wait = group.options.member_wait.get();
    let prepare =
        format!("SELECT groove_replicate.mark({number}, {}); PREPARE TRANSACTION '{gid}'", group.epoch());
    let (leader_index, leader_round) = (leader.index, leader.round);
    let all = join_all(std::iter::once(leader).chain(others).map(|part| ask(part, &prepare, wait))).await;
    let (mut parts, mut why) = (Vec::new(), None);
    for (part, done) in all {
        let is_leader = part.index == leader_index;
        match done {
            Ok(()) => parts.push(part),
            Err(Fault::Lost(error)) => {
                group.set_aside(part.index, part.round, &error.to_string());
                if is_leader {
                    why.get_or_insert(Trouble::leader_lost());
                }
            }
            Err(Fault::Said(body)) if is_leader => why = Some(Trouble::Said(body)),
            // No room, a shutdown: it says nothing of the transaction.
            Err(fault) if is_passing(&fault) => group.set_aside(part.index, part.round, &fault.text()),
            Err(fault) => {
                let name = group.now().members.get(part.index).map(|member| member.address.to_string());
                let name = name.unwrap_or_default();
                why.get_or_insert(mismatch(&group, &name, &fault.text()));
            }
        }
    }
    let view = group.now();
    let leads = view.leader == Some(leader_index)
        && view.members.get(leader_index).is_some_and(|member| member.round == leader_round);
    if !leads {
        why.get_or_insert(Trouble::leader_lost());
    }
    if why.is_none() {
        match log.append(Record::Commit(commit)).await {
            Ok(()) => {}
            Err(error @ LogError::TooLarge) => {
                why = Some(Trouble::own("54000", error.to_string(), "Write less in one transaction."));
            }
            // Nobody knows whether it is on the disk: what is prepared stays so until the log is read anew.
            Err(error) => {
                let message = format!("the replication log cannot be written: {error}");
                group.change(|view| view.closed = Some(message.clone()));
                std::mem::forget(in_flight);
                let hint = "Whether the transaction is committed is known when the proxy has been restarted.";
                return (Vec::new(), Err(Trouble::own("58030", message, hint)));
            }
        }
    }
    let verb = if why.is_some() { "ROLLBACK" } else { "COMMIT" };
    let end = format!("{verb} PREPARED '{gid}'");
    let mut kept = Vec::new();
    for (part, done) in join_all(parts.into_iter().map(|part| ask(part, &end, wait))).await {
        match done {
            Ok(()) => kept.push(part),
            Err(fault) => group.set_aside(part.index, part.round, &fault.text()),
        }
    }
    match &why {
        None => group.metrics.commits.inc(),
        Some(_) => group.metrics.aborts.inc(),
    }
    drop(in_flight);
    drop(held);
    (kept, why.map_or(Ok(()), Err))
}

async fn ask(mut part: Part, text: &str, wait: Duration) -> (Part, Result<(), Fault>) {
    let done = match timeout(wait, part.link.run(text)).await {
        Ok(done) => done,
        Err(_) => Err(Fault::Lost(crate::error::Error::Lost(std::io::ErrorKind::TimedOut.into()))),
    };
    (part, done)
}

/// A member did something else than the leader: nothing of it is committed, and all members are compared.
pub(super) fn mismatch(group: &Arc<Group>, member: &str, what: &str) -> Trouble {
    group.metrics.mismatches.inc();
    tracing::error!(
        group = group.name,
        member,
        what,
        "a statement did something else on a member than on the leader"
    );
    let group = Arc::clone(group);
    tokio::spawn(async move {
        if let Err(error) = verify::verify(&group).await {
            tracing::warn!(group = group.name, error, "the members could not be compared");
        }
    });
    Trouble::own(
        "0A000",
        format!(
            "the statement did something else on member {member} than on the leader ({what}): the transaction is rolled back"
        ),
        "Write it so that it does the same wherever it runs; the members are being compared.",
    )
}
