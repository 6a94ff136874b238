//! Carrying out one statement.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::link::{Answer, Call, Fault, Link, effect, put_without_image};
use super::super::locks::Wants;
use super::super::log::{Effect, Entry};
use super::super::rewrite::{self, Plan};
use super::super::schema::{Schema, Table};
use super::super::statement::{Level, Modes, Name, Read, Refusal, Statement, Write};
use super::super::trouble::Trouble;
use super::messages::Prepared;
use super::{Session, UNSENT_MAX, ends, put_description};
use crate::error::Error;
use crate::session::settings::quote;
use crate::wire::Frame;
use crate::wire::backend;

/// How often a statement is looked at anew because tables have changed while it waited.
const ATTEMPTS_MAX: usize = 5;

impl Session {
    /// Carries a statement out and answers.
    pub(super) async fn execute(
        &mut self,
        prepared: &Prepared,
        parameters: &[u8],
        formats: &[i16],
        rows_max: i32,
        describes: bool,
    ) -> Result<(), Trouble> {
        let Prepared { text, types, statement, .. } = prepared;
        self.check_failed(statement)?;
        let call = Call { text, types, parameters, formats, rows_max };
        let is_only_reading = self.connections.transaction.as_ref().is_some_and(|open| open.is_read_only);
        match statement {
            Statement::Empty => backend::put_empty_query(&mut self.out),
            Statement::Begin(modes) => self.begin(*modes).await?,
            Statement::Commit => self.commit().await?,
            Statement::Rollback => {
                self.connections.rollback().await;
                self.complete("ROLLBACK");
            }
            Statement::SetTransaction(modes) => self.set_transaction(*modes)?,
            Statement::Savepoint | Statement::RollbackTo | Statement::Constraints => self.pass(call).await?,
            Statement::Set { name, is_local } => self.set(call, name, *is_local).await?,
            Statement::ResetAll | Statement::DiscardAll => self.reset(call, statement).await?,
            Statement::Read(_) if is_only_reading => self.read_in(call, describes).await?,
            Statement::Read(read) => self.read_statement(call, read, describes).await?,
            _ if is_only_reading => {
                let answer = self.connections.call(call).await?;
                self.complete(&answer.tag);
            }
            Statement::Write(write) => Box::pin(self.write(call, write, describes)).await?,
            Statement::Definition => Box::pin(self.define(call, &[])).await?,
            Statement::Truncate(tables) => Box::pin(self.define(call, tables)).await?,
            Statement::Lock(tables) => self.lock_tables(call, tables).await?,
        }
        Ok(())
    }

    /// In a failed transaction only its end is carried out.
    pub(super) fn check_failed(&self, statement: &Statement) -> Result<(), Trouble> {
        let Some(open) = self.connections.transaction.as_ref().filter(|open| open.has_failed) else {
            return Ok(());
        };
        if ends(statement) && !(open.is_gone && *statement == Statement::RollbackTo) {
            return Ok(());
        }
        let message = "current transaction is aborted, commands ignored until end of transaction block";
        Err(Trouble::own("25P02", message, "ROLLBACK."))
    }

    /// Says that something is done, which may turn out to be untrue as long as it is not committed.
    fn complete(&mut self, tag: &str) {
        if self.connections.transaction.as_ref().is_some_and(|open| open.is_implicit) {
            self.doubtful.get_or_insert(self.out.len());
        }
        backend::put_command_complete(&mut self.out, tag);
    }

    async fn begin(&mut self, modes: Modes) -> Result<(), Trouble> {
        match &mut self.connections.transaction {
            Some(open) if open.is_implicit => open.is_implicit = false,
            // PostgreSQL warns, and goes on.
            Some(_) => {}
            None => self.connections.begin(modes, false).await?,
        }
        self.complete("BEGIN");
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Trouble> {
        let open = self.connections.transaction.as_ref();
        let (settings, leader) = open.map(|open| (open.settings.clone(), open.leader)).unwrap_or_default();
        let done = self.connections.commit().await?;
        if done && !settings.is_empty() {
            for name in &settings {
                self.learn(name).await?;
            }
            self.connections.keep_only(leader);
        }
        self.complete(if done { "COMMIT" } else { "ROLLBACK" });
        self.doubtful = None;
        Ok(())
    }

    fn set_transaction(&mut self, modes: Modes) -> Result<(), Trouble> {
        let fits = self.connections.transaction.as_ref().is_none_or(|open| {
            modes.level.is_none_or(|level| level == open.level)
                && modes.is_read_only.is_none_or(|only| only == open.is_read_only)
        });
        if !fits {
            let message = "SET TRANSACTION cannot change a replicated transaction";
            return Err(Trouble::own("0A000", message, "Say it with BEGIN."));
        }
        self.complete("SET");
        Ok(())
    }

    /// What every member in the transaction is told as it is.
    async fn pass(&mut self, call: Call<'_>) -> Result<(), Trouble> {
        if self.connections.transaction.as_ref().is_none_or(|open| open.is_implicit) {
            let message = "this can only be used in transaction blocks";
            return Err(Trouble::own("25P01", message, "BEGIN first."));
        }
        let answer = self.connections.call(call).await?;
        if let Some(open) = &mut self.connections.transaction {
            open.has_failed = false;
        }
        self.connections.spread(entry(call, &answer, None)).await?;
        self.complete(&answer.tag);
        Ok(())
    }

    async fn set(&mut self, call: Call<'_>, name: &str, is_local: bool) -> Result<(), Trouble> {
        if let Some(open) = &mut self.connections.transaction {
            if !is_local {
                open.settings.push(name.to_owned());
            }
            let answer = self.connections.call(call).await?;
            self.connections.spread(entry(call, &answer, None)).await?;
            // The session's value is what it is after the transaction: connections that were not in it begin anew.
            self.complete(&answer.tag);
            return Ok(());
        }
        let leader = self.connections.leader()?;
        let answer = self
            .connections
            .on_leader(leader, |mut link| async move {
                let done = link.call(call).await;
                (link, done)
            })
            .await?;
        self.learn(name).await?;
        self.connections.keep_only(leader);
        self.complete(&answer.tag);
        Ok(())
    }

    /// Takes over what a setting is on the leader now.
    async fn learn(&mut self, name: &str) -> Result<(), Trouble> {
        let question = format!("SELECT pg_catalog.current_setting({}, true)", quote(name));
        let rows = self.connections.ask(&question).await?;
        self.connections.settings.retain(|known, _| !known.eq_ignore_ascii_case(name));
        if let Some(Some(value)) = rows.into_iter().next().and_then(|row| row.into_iter().next()) {
            self.connections.settings.insert(name.to_owned(), value);
        }
        Ok(())
    }

    async fn reset(&mut self, call: Call<'_>, statement: &Statement) -> Result<(), Trouble> {
        if self.connections.transaction.is_some() {
            let message = "this cannot run inside a transaction block where a database is replicated";
            return Err(Trouble::own("25001", message, "COMMIT first."));
        }
        let leader = self.connections.leader()?;
        let again = "SET default_transaction_read_only = on";
        let answer = self
            .connections
            .on_leader(leader, |mut link| async move {
                let mut done = link.call(call).await;
                if done.is_ok()
                    && let Err(fault) = link.run(again).await
                {
                    done = Err(fault);
                }
                (link, done)
            })
            .await?;
        let names: Vec<String> = self.connections.settings.keys().cloned().collect();
        for name in names {
            self.learn(&name).await?;
        }
        self.connections.keep_only(leader);
        if *statement == Statement::DiscardAll {
            self.statements.clear();
            self.portals.clear();
        }
        self.complete(&answer.tag);
        Ok(())
    }

    async fn read_statement(&mut self, call: Call<'_>, read: &Read, describes: bool) -> Result<(), Trouble> {
        let draws = read.seen.has_call("nextval");
        if self.connections.transaction.is_none() {
            if !draws && !read.locks {
                if self.reads_only(read).await? {
                    return self.read_anywhere(call, describes).await;
                }
                // The server sees to it that what nobody knows does not write.
                let modes = Modes { is_read_only: Some(true), level: None };
                self.connections.begin(modes, true).await?;
                return self.read_in(call, describes).await;
            }
            self.connections.begin(Modes::default(), true).await?;
        }
        let (_, schema) = self.schema().await?;
        let is_pure = |(_, name): &(Option<String>, String)| schema.is_pure(name) || rewrite::is_drawn(name);
        if let Some((_, name)) = read.seen.calls.iter().find(|call| !is_pure(call)) {
            return Err(Refusal::new(
                format!("what the function {name}() does is not known, so that it is not called in a transaction that may write"),
                "Call it outside of a transaction, or in one that is READ ONLY.",
            )
            .into());
        }
        if schema.has_odd_views
            && let Some(refusal) = self.odd_view(&schema, &read.seen.relations).await?
        {
            return Err(refusal.into());
        }
        if draws {
            return self.draw_numbers(call, describes).await;
        }
        if read.locks {
            let oids = self.resolve(&read.seen.relations).await?;
            let keys = schema.keys(oids.into_iter().flatten());
            let wants = match keys {
                Some(keys) => Wants { writes: keys.into_iter().collect(), ..Wants::default() },
                None => Wants::everything(),
            };
            self.connections.lock(wants).await?;
        } else if self.connections.transaction.as_ref().is_some_and(|open| open.level != Level::Committed) {
            // Its snapshot has to be the same on every member that it comes to write to.
            self.connections.lock(Wants::everything()).await?;
        }
        self.read_in(call, describes).await
    }

    /// Whether a read calls nothing that could write.
    async fn reads_only(&mut self, read: &Read) -> Result<bool, Trouble> {
        if read.seen.is_quiet() && read.seen.relations.is_empty() {
            return Ok(true);
        }
        let (_, schema) = self.schema().await?;
        // What a view calls is not looked up here.
        let knows_views = !schema.has_odd_views || read.seen.relations.is_empty();
        Ok(schema.only_reads(&read.seen) && knows_views)
    }

    /// Why a view is not read where something may be written.
    async fn odd_view(&mut self, schema: &Schema, names: &[Name]) -> Result<Option<Refusal>, Trouble> {
        let oids = self.resolve(names).await?;
        let odd =
            oids.into_iter().flatten().filter_map(|oid| schema.tables.get(&oid)).find(|table| table.is_odd);
        Ok(odd.map(|table| {
            Refusal::new(
                format!("the view {} calls what is not known, so that it is not read in a transaction that may write", table.name),
                "Read it outside of a transaction, or in one that is READ ONLY.",
            )
        }))
    }

    /// Reads within the transaction, where it runs.
    async fn read_in(&mut self, call: Call<'_>, describes: bool) -> Result<(), Trouble> {
        let Some(index) = self.connections.transaction.as_ref().map(|open| open.leader) else {
            return Ok(());
        };
        let Session { connections, conn, out, doubtful, .. } = self;
        let flushes = doubtful.is_none();
        let work = |mut link: Link| async move {
            let done = async {
                let mut failure = None;
                link.start(call).await?;
                while let Some(frame) = link.step(&mut failure).await? {
                    put_read(out, &frame, call.formats, describes);
                    if flushes
                        && out.len() > UNSENT_MAX
                        && let Err(error) = conn.stream.send(out).await
                    {
                        return Ok(Some(error));
                    }
                }
                failure.map_or(Ok(None), |body| Err(Fault::Said(body)))
            };
            let done = done.await;
            (link, done)
        };
        match connections.on_leader(index, work).await? {
            None => Ok(()),
            Some(error) => Err(Trouble::Fatal(Error::Client(error))),
        }
    }

    /// Reads on a member whose turn it is; on another if it fails before it has said anything.
    async fn read_anywhere(&mut self, call: Call<'_>, describes: bool) -> Result<(), Trouble> {
        loop {
            self.connections.leader()?;
            let view = self.connections.group.now();
            let Some(index) = self.connections.group.reader(&view) else {
                return Err(Trouble::leader_lost());
            };
            let Session { connections, conn, out, doubtful, registered, .. } = self;
            let mut sent = 0;
            let flushes = doubtful.is_none();
            let link = match connections.idle_link(index).await {
                Ok(link) => link,
                Err(Fault::Said(body)) if !is_about_member(&body) => return Err(Trouble::Said(body)),
                Err(fault) => {
                    connections.lost(index, &fault.text());
                    continue;
                }
            };
            registered.leased(&link.server().cancel);
            let done = async {
                let mut failure = None;
                link.start(call).await?;
                while let Some(frame) = link.step(&mut failure).await? {
                    sent += usize::from(frame.tag != b'N');
                    put_read(out, &frame, call.formats, describes);
                    if flushes
                        && out.len() > UNSENT_MAX
                        && let Err(error) = conn.stream.send(out).await
                    {
                        return Ok(Err(Trouble::Fatal(Error::Client(error))));
                    }
                }
                Ok::<_, Fault>(failure.map_or(Ok(()), |body| Err(Trouble::Said(body))))
            };
            let done = done.await;
            if registered.canceller.released() && !registered.canceller.settled().await {
                connections.forget(index);
            }
            match done {
                Ok(done) => return done,
                Err(fault) => {
                    connections.lost(index, &fault.text());
                    if sent > 0 {
                        return Err(Trouble::own(
                            "40001",
                            "the member that was read from is lost",
                            "Read again.",
                        ));
                    }
                }
            }
        }
    }

    /// The tables as this transaction sees them.
    async fn schema(&mut self) -> Result<(u64, Arc<Schema>), Trouble> {
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
    async fn resolve(&mut self, names: &[Name]) -> Result<Vec<Option<u32>>, Trouble> {
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

    async fn write(&mut self, call: Call<'_>, write: &Write, describes: bool) -> Result<(), Trouble> {
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
        self.connections.spread(entry(Call { text: &texts, ..call }, &answer, Some(effect))).await?;
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
    async fn copy_numbers(&mut self, names: &[String]) -> Result<(), Trouble> {
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
    async fn draw_numbers(&mut self, call: Call<'_>, describes: bool) -> Result<(), Trouble> {
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

    async fn define(&mut self, call: Call<'_>, emptied: &[Name]) -> Result<(), Trouble> {
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
        self.connections.spread(entry(call, &answer, Some(effect))).await?;
        self.complete(&answer.tag);
        Ok(())
    }

    async fn lock_tables(&mut self, call: Call<'_>, tables: &[Name]) -> Result<(), Trouble> {
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

fn entry(call: Call<'_>, _answer: &Answer, effect: Option<Effect>) -> Entry {
    Entry {
        text: call.text.to_owned(),
        types: call.types.to_vec(),
        parameters: call.parameters.to_vec(),
        effect,
    }
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

/// What a read gives, as the client gets it.
fn put_read(out: &mut bytes::BytesMut, frame: &Frame, formats: &[i16], describes: bool) {
    match frame.tag {
        b'T' if describes => put_description(out, frame, formats, false),
        // Described before, or not wanted.
        b'T' | b'n' => {}
        _ => out.extend_from_slice(&frame.raw),
    }
}

fn is_about_member(body: &[u8]) -> bool {
    let code = backend::error_field(body, b'C').unwrap_or_default();
    code.starts_with(b"57") || code.starts_with(b"53")
}
