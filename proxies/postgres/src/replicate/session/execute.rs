//! Carrying out one statement.

use super::super::link::Call;
use super::super::log::{Effect, Entry};
use super::super::statement::{Modes, Statement};
use super::super::trouble::Trouble;
use super::messages::Prepared;
use super::{Session, ends};
use crate::session::settings::quote;
use crate::wire::backend;

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
    pub(super) fn complete(&mut self, tag: &str) {
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
        self.connections.spread(entry(call, None)).await?;
        self.complete(&answer.tag);
        Ok(())
    }

    async fn set(&mut self, call: Call<'_>, name: &str, is_local: bool) -> Result<(), Trouble> {
        if let Some(open) = &mut self.connections.transaction {
            if !is_local {
                open.settings.push(name.to_owned());
            }
            let answer = self.connections.call(call).await?;
            self.connections.spread(entry(call, None)).await?;
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
}

/// A statement as it is kept for the members.
pub(super) fn entry(call: Call<'_>, effect: Option<Effect>) -> Entry {
    Entry {
        text: call.text.to_owned(),
        types: call.types.to_vec(),
        parameters: call.parameters.to_vec(),
        effect,
    }
}
