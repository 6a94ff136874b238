//! Statements that write: made the same for all members, run on the leader, and kept for the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::link::{Call, effect, put_without_image};
use super::super::locks::Wants;
use super::super::log::Entry;
use super::super::rewrite::{self, Plan};
use super::super::schema::{Schema, Table};
use super::super::statement::{Modes, Name, Refusal, Write};
use super::super::trouble::Trouble;
use super::execute::entry;
use super::{Session, put_description};
use crate::session::settings::quote;

/// How often a statement is looked at anew because tables have changed while it waited.
const ATTEMPTS_MAX: usize = 5;

impl Session {
    /// The tables as this transaction sees them.
    pub(super) async fn schema(&mut self) -> Result<(u64, Arc<Schema>), Trouble> {
        if let Some(open) = self.connections.transaction.as_ref().filter(|open| open.has_defined) {
            let leader = open.leader;
            let schema = self
                .connections
                .on_leader(leader, |mut link| async move {
                    let done = Schema::load(&mut link).await;
                    (link, done)
                })
                .await?;
            return Ok((self.connections.group.known_schema().0, Arc::new(schema)));
        }
        self.connections.group.schema().await.map_err(|fault| {
            Trouble::own("57P03", format!("the tables are not known: {}", fault.text()), "Try again.")
        })
    }

    /// The oids on the leader of what is named.
    pub(super) async fn resolve(&mut self, names: &[Name]) -> Result<Vec<Option<u32>>, Trouble> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let quoted = |part: &String| format!("\"{}\"", part.replace('"', "\"\""));
        let one = |name: &Name| {
            let name: Vec<String> = name.iter().map(quoted).collect();
            format!("pg_catalog.to_regclass({})::pg_catalog.oid::text", quote(&name.join(".")))
        };
        let all: Vec<String> = names.iter().map(one).collect();
        let rows = self.connections.ask(&format!("SELECT {}", all.join(","))).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        Ok(row.into_iter().map(|oid| oid.and_then(|oid| oid.parse().ok())).collect())
    }

    pub(super) async fn write(
        &mut self,
        call: Call<'_>,
        write: &Write,
        describes: bool,
    ) -> Result<(), Trouble> {
        if self.connections.transaction.is_none() {
            self.connections.begin(Modes::default(), true).await?;
        }
        let (plan, rewritten) = self.make_same(call.text, write).await?;
        let texts = rewrite::with_image(&rewritten, write, &plan);
        let formats = with_text(call.formats, write.returning);
        let answer =
            self.connections.call(Call { text: &texts, formats: &formats, rows_max: 0, ..call }).await?;
        let effect = effect(&answer, true);
        self.copy_numbers(&plan.sequences).await?;
        self.connections.spread(entry(Call { text: &texts, ..call }, Some(effect))).await?;
        if write.returning {
            if let (true, Some(rows)) = (describes, &answer.description) {
                put_description(&mut self.out, rows, call.formats, true);
            }
            let kept = &mut self.out;
            let mark = kept.len();
            answer.rows.iter().for_each(|row| put_without_image(kept, row));
            if self.connections.transaction.as_ref().is_some_and(|open| open.is_implicit) {
                self.doubtful.get_or_insert(mark);
            }
        }
        self.complete(&answer.tag);
        Ok(())
    }

    /// Locks what a write touches, has all members begin, and writes into the text what each would make up.
    async fn make_same(&mut self, text: &str, write: &Write) -> Result<(Plan, String), Trouble> {
        for _ in 0..ATTEMPTS_MAX {
            let (generation, schema) = self.schema().await?;
            let (oid, relations) = self.names(write).await?;
            let table = table(&schema, oid, write)?;
            if let Some(refusal) = schema.refuse(write, table) {
                return Err(refusal.into());
            }
            let is_odd = |oid: &Option<u32>| {
                oid.and_then(|oid| schema.tables.get(&oid)).is_some_and(|table| table.is_odd)
            };
            if relations.iter().any(is_odd) {
                let message = "a view that calls what is not known is not read by a write";
                return Err(Refusal::new(message, "SELECT first, and write the values.").into());
            }
            let plan = rewrite::plan(text, write, table)?;
            let sequences: Vec<u32> = self.sequences(&plan.sequences).await?;
            let mut wants = match schema.keys(relations.into_iter().flatten()) {
                Some(keys) => Wants { reads: keys.into_iter().collect(), ..Wants::default() },
                None => Wants::everything(),
            };
            wants.writes = std::iter::once(table.key).chain(sequences).collect::<BTreeSet<_>>();
            self.connections.lock(wants).await?;
            let is_own = self.connections.transaction.as_ref().is_some_and(|open| open.has_defined);
            if !is_own && self.connections.group.known_schema().0 != generation {
                continue;
            }
            self.connections.join().await?;
            let values = self.drawn(&plan).await?;
            let rewritten = rewrite::edit(text, &plan, &values);
            return Ok((plan, rewritten));
        }
        Err(Trouble::own("40001", "the tables change all the time", "Run the transaction again."))
    }

    /// The oid of the table that is written to, and of what else is named.
    async fn names(&mut self, write: &Write) -> Result<(u32, Vec<Option<u32>>), Trouble> {
        let names: Vec<Name> =
            std::iter::once(write.table.clone()).chain(write.seen.relations.iter().cloned()).collect();
        let mut oids = self.resolve(&names).await?.into_iter();
        match oids.next().flatten() {
            Some(oid) => Ok((oid, oids.collect())),
            None => {
                let message = format!("relation \"{}\" does not exist", write.table.join("."));
                Err(Trouble::own("42P01", message, "It has to be there on the leader."))
            }
        }
    }

    async fn sequences(&mut self, names: &[String]) -> Result<Vec<u32>, Trouble> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let one = |name: &String| format!("pg_catalog.to_regclass({})::pg_catalog.oid::text", quote(name));
        let all: Vec<String> = names.iter().map(one).collect();
        let rows = self.connections.ask(&format!("SELECT {}", all.join(","))).await?;
        let row = rows.into_iter().next().unwrap_or_default();
        Ok(row.into_iter().flatten().filter_map(|oid| oid.parse().ok()).collect())
    }

    /// Asks the leader for what each member would make up.
    async fn drawn(&mut self, plan: &Plan) -> Result<Vec<Option<String>>, Trouble> {
        if plan.draws.is_empty() {
            return Ok(Vec::new());
        }
        let all: Vec<String> =
            plan.draws.iter().map(|draw| rewrite::as_text(&draw.expression, &draw.kind)).collect();
        let rows = self.connections.ask(&format!("SELECT {}", all.join(","))).await?;
        rows.into_iter().next().ok_or_else(Trouble::leader_lost)
    }

    /// Sets the others' sequences to where the leader's are.
    pub(super) async fn copy_numbers(&mut self, names: &[String]) -> Result<(), Trouble> {
        let names: BTreeSet<&String> = names.iter().collect();
        for name in names {
            let place = format!("SELECT {}::pg_catalog.regclass::text", quote(name));
            let written = first(self.connections.ask(&place).await?);
            let Some(written) = written else { continue };
            let value =
                first(self.connections.ask(&format!("SELECT last_value::text FROM {written}")).await?);
            let Some(value) = value else { continue };
            let text = format!("SELECT pg_catalog.setval({}::pg_catalog.regclass, {value})", quote(&written));
            self.connections.spread(Entry { text, ..Entry::default() }).await?;
        }
        Ok(())
    }

    /// A SELECT that draws from sequences.
    pub(super) async fn draw_numbers(&mut self, call: Call<'_>, describes: bool) -> Result<(), Trouble> {
        let calls = rewrite::calls(call.text).unwrap_or_default();
        let names: Option<Vec<String>> =
            calls.into_iter().filter(|call| call.name == "nextval").map(|call| call.text).collect();
        let names = names.filter(|names| !names.is_empty()).ok_or_else(|| {
            Refusal::new(
                "nextval() of what is not a sequence's plain name cannot be replicated",
                "Write the name as a string.",
            )
        })?;
        let sequences = self.sequences(&names).await?;
        self.connections.lock(Wants { writes: sequences.into_iter().collect(), ..Wants::default() }).await?;
        self.connections.join().await?;
        let answer = self.connections.call(Call { rows_max: 0, ..call }).await?;
        self.copy_numbers(&names).await?;
        if let (true, Some(rows)) = (describes, &answer.description) {
            put_description(&mut self.out, rows, call.formats, false);
        }
        answer.rows.iter().for_each(|row| self.out.extend_from_slice(&row.raw));
        self.complete(&answer.tag);
        Ok(())
    }

    pub(super) async fn define(&mut self, call: Call<'_>, emptied: &[Name]) -> Result<(), Trouble> {
        if self.connections.transaction.is_none() {
            self.connections.begin(Modes::default(), true).await?;
        }
        self.connections.lock(Wants::everything()).await?;
        if !emptied.is_empty() {
            let (_, schema) = self.schema().await?;
            for oid in self.resolve(emptied).await?.into_iter().flatten() {
                if let Some(why) = schema.tables.get(&oid).and_then(|table| table.refused) {
                    let message = format!("the table is not replicated: {why}");
                    return Err(Refusal::new(
                        message,
                        "Have the application do what the table does by itself.",
                    )
                    .into());
                }
            }
        }
        self.connections.join().await?;
        if let Some(open) = &mut self.connections.transaction {
            open.has_defined = true;
        }
        let answer = self.connections.call(call).await?;
        let effect = effect(&answer, false);
        self.connections.spread(entry(call, Some(effect))).await?;
        self.complete(&answer.tag);
        Ok(())
    }

    pub(super) async fn lock_tables(&mut self, call: Call<'_>, tables: &[Name]) -> Result<(), Trouble> {
        if self.connections.transaction.as_ref().is_none_or(|open| open.is_implicit) {
            return Err(Trouble::own(
                "25P01",
                "LOCK TABLE can only be used in transaction blocks",
                "BEGIN first.",
            ));
        }
        let (_, schema) = self.schema().await?;
        let oids = self.resolve(tables).await?;
        let wants = match schema.keys(oids.into_iter().flatten()) {
            Some(keys) => Wants { writes: keys.into_iter().collect(), ..Wants::default() },
            None => Wants::everything(),
        };
        self.connections.lock(wants).await?;
        let answer = self.connections.call(call).await?;
        self.complete(&answer.tag);
        Ok(())
    }
}

fn table<'a>(schema: &'a Schema, oid: u32, write: &Write) -> Result<&'a Table, Refusal> {
    schema.tables.get(&oid).ok_or_else(|| {
        Refusal::new(
            format!("{} is none of the tables that are replicated", write.table.join(".")),
            "Tables that were made past the proxy are known after a restart.",
        )
    })
}

fn first(rows: Vec<Vec<Option<String>>>) -> Option<String> {
    rows.into_iter().next()?.into_iter().next()?
}

/// Formats for the client's columns and ours, which is text whatever theirs are.
fn with_text(formats: &[i16], returning: bool) -> Vec<i16> {
    match formats {
        _ if !returning => Vec::new(),
        // One for all: the image is the same in either.
        [] | [_] => formats.to_vec(),
        all => all.iter().copied().chain([0]).collect(),
    }
}
