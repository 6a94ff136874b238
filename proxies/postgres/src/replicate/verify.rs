//! Comparing members: by a sum over all rows of each table, in a snapshot taken while nothing is under way.

use std::collections::BTreeMap;
use std::sync::Arc;

use groove_common::ids::Address;
use serde::Serialize;

use super::group::{Group, State};
use super::link::{Fault, Link};
use super::locks::Wants;
use crate::session::settings::quote;

/// What is in a table: rows, and two sums of their hashes.
pub type Sums = [String; 3];

const TABLES: &str = "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'groove_replicate')";

const SEQUENCES: &str = "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c \
    WHERE c.relkind = 'S' AND c.relpersistence = 'p'";

/// A connection that sees what there is now, and nothing that comes.
pub async fn snapshot(group: &Group, address: &Address) -> Result<Link, Fault> {
    let mut link = group.control_link(address).await?;
    link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT count(*) FROM pg_catalog.pg_class")
        .await?;
    Ok(link)
}

/// The sums of all tables.
pub async fn sums(link: &mut Link) -> Result<BTreeMap<String, Sums>, Fault> {
    let mut sums = BTreeMap::new();
    for row in link.rows(TABLES).await? {
        let Some(table) = row.into_iter().next().flatten() else { continue };
        let hash = |seed: u8| {
            format!("coalesce(sum(hashtextextended(ROW(groove_row.*)::text, {seed})::numeric), 0)")
        };
        let question = format!("SELECT count(*), {}, {} FROM ONLY {table} AS groove_row", hash(0), hash(1));
        let rows = link.rows(&question).await?;
        let mut values =
            rows.into_iter().next().unwrap_or_default().into_iter().map(Option::unwrap_or_default);
        let mut next = || values.next().unwrap_or_default();
        sums.insert(table, [next(), next(), next()]);
    }
    Ok(sums)
}

/// What is not the same; `None` if all is.
pub fn difference(reference: &BTreeMap<String, Sums>, other: &BTreeMap<String, Sums>) -> Option<String> {
    let missing = reference.keys().find(|table| !other.contains_key(*table));
    if let Some(table) = missing {
        return Some(format!("table {table} is missing"));
    }
    if let Some(table) = other.keys().find(|table| !reference.contains_key(*table)) {
        return Some(format!("table {table} is one too many"));
    }
    let differs = |(table, sums): &(&String, &Sums)| other.get(*table) != Some(*sums);
    let (table, [rows, ..]) = reference.iter().find(differs)?;
    let [others, ..] = other.get(table)?;
    Some(match rows == others {
        true => format!("table {table} has other rows, of the same number"),
        false => format!("table {table} has {others} rows, not {rows}"),
    })
}

/// Sets a member's sequences to where the leader's are. Nothing may be under way.
pub async fn copy_sequences(leader: &mut Link, member: &mut Link) -> Result<(), Fault> {
    let sequences: Vec<String> =
        leader.rows(SEQUENCES).await?.into_iter().filter_map(|row| row.into_iter().next()?).collect();
    if sequences.is_empty() {
        return Ok(());
    }
    let question: Vec<String> = sequences
        .iter()
        .map(|name| format!("SELECT {}, last_value::text, is_called FROM {name}", quote(name)))
        .collect();
    let mut statements = String::new();
    for row in leader.rows(&question.join(" UNION ALL ")).await? {
        if let [Some(name), Some(value), Some(called)] = &row[..] {
            statements.push_str(&format!("SELECT setval({}::regclass, {value}, '{called}');", quote(name)));
        }
    }
    member.run(&statements).await
}

/// What a comparison has found of a member.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// Where it answers.
    pub member: String,
    /// Whether it has the same in it as most have.
    pub is_equal: bool,
    /// What is not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

/// Where what most have in them is; where no more agree on something else, that is the leader.
fn reference<T: PartialEq>(all: &[T], leader: usize) -> usize {
    let agree = |at: usize| all.iter().filter(|other| all.get(at) == Some(*other)).count();
    (0..all.len()).rev().fold(leader, |best, at| if agree(at) > agree(best) { at } else { best })
}

/// Compares all members that are in. One that differs from most of them, or else from the leader, is let out.
pub async fn verify(group: &Arc<Group>) -> Result<Vec<Finding>, String> {
    let barrier = group.locks.owner();
    let taken = barrier.take(Wants::everything(), group.options.lock_wait.get()).await;
    taken.map_err(|_| "transactions under way do not end".to_owned())?;
    let view = group.now();
    let leader = view.leader.ok_or_else(|| "no member is in".to_owned())?;
    let mut snapshots = Vec::new();
    for index in view.ins() {
        let Some(member) = view.members.get(index) else { continue };
        let taken = snapshot(group, &member.address).await;
        let failed = |fault: Fault| format!("member {}: {}", member.address, fault.text());
        snapshots.push((index, member, taken.map_err(failed)?));
    }
    drop(barrier);
    let mut all = Vec::new();
    for (index, member, mut link) in snapshots {
        let failed = |fault: Fault| format!("member {}: {}", member.address, fault.text());
        all.push((index, member.address.to_string(), sums(&mut link).await.map_err(failed)?));
    }
    let Some(leads) = all.iter().position(|(index, ..)| *index == leader) else {
        return Err("the leader has changed meanwhile".to_owned());
    };
    let held: Vec<&BTreeMap<String, Sums>> = all.iter().map(|(_, _, sums)| sums).collect();
    let Some(reference) = held.get(reference(&held, leads)).map(|sums| BTreeMap::clone(sums)) else {
        return Err("nobody is there to be compared with".to_owned());
    };
    let mut findings = Vec::new();
    for (index, member, sums) in all {
        let difference = difference(&reference, &sums);
        if let Some(what) = &difference {
            tracing::error!(group = group.name, member, difference = what, "a member has diverged");
            group.set_state(index, State::Diverged(what.clone()));
            group.nudge.notify_waiters();
        }
        findings.push(Finding { member, is_equal: difference.is_none(), difference });
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_are_right_and_of_as_many_the_leader() {
        for (held, leader, right) in [
            (&[1, 1, 2][..], 0, 1),
            (&[1, 1, 2], 2, 1),
            (&[2, 1, 1], 0, 1),
            (&[1, 2], 1, 2),
            (&[1, 2, 3], 1, 2),
            (&[1, 1, 2, 2], 3, 2),
            (&[7], 0, 7),
        ] {
            assert_eq!(held[reference(held, leader)], right, "{held:?}, {leader} leads");
        }
    }
}
