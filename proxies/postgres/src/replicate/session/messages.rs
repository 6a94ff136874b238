//! The extended protocol: Parse, Bind, Describe, Execute, Close.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::super::statement::{self, Statement};
use super::super::trouble::Trouble;
use super::{Session, put_description};
use crate::error::Error;
use crate::wire::backend;
use crate::wire::frontend::{self, Parse};
use crate::wire::{DecodeError, Frame, HEADER, cstr, put};

/// Types of higher numbers are a database's own, and another member has another number for them.
const OWN_TYPES: u32 = 16_384;

/// A prepared statement.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Its text.
    pub text: String,
    /// What it is.
    pub statement: Statement,
    /// Types of its parameters as members are told.
    pub types: Vec<u32>,
    has_own_types: bool,
    parameters: Option<Frame>,
    rows: Option<Frame>,
}

impl Prepared {
    /// One without parameters.
    pub(super) fn plain(text: &str, statement: Statement) -> Prepared {
        let text = text.to_owned();
        Prepared { text, statement, types: Vec::new(), has_own_types: false, parameters: None, rows: None }
    }
}

/// A statement with its parameters.
#[derive(Debug, Clone)]
pub(super) struct Portal {
    prepared: Arc<Prepared>,
    /// Formats and values, as in a Bind.
    parameters: Bytes,
    /// Formats of what it gives.
    formats: Vec<i16>,
    is_done: bool,
}

fn broken() -> Trouble {
    Trouble::Fatal(DecodeError::Format.into())
}

impl Session {
    pub(super) async fn parse(&mut self, frame: &Frame) -> Result<(), Trouble> {
        let parse = Parse::read(&frame.raw).map_err(|error| Trouble::Fatal(error.into()))?;
        if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
            let message =
                format!("prepared statement \"{}\" already exists", String::from_utf8_lossy(parse.name));
            return Err(Trouble::own("42P05", message, "Close it first."));
        }
        if self.statements.len() >= self.statements_max {
            let message = Error::TooManyStatements { max: self.statements_max }.to_string();
            return Err(Trouble::own("54000", message, "Close statements, or raise \"limits.statements\"."));
        }
        let text = std::str::from_utf8(parse.text).map_err(|_| {
            Trouble::own("22021", "invalid byte sequence for encoding \"UTF8\"", "Send UTF-8.")
        })?;
        let mut given = parse.content.get(parse.text.len() + 3..).unwrap_or_default();
        let mut types = Vec::new();
        while given.len() >= 4 {
            types.push(given.get_u32());
        }
        let statement = statement::understand(text)?;
        self.check_failed(&statement)?;
        let mut prepared = Prepared::plain(text, statement);
        if matches!(prepared.statement, Statement::Read(_) | Statement::Write(_)) {
            let leader = match &self.connections.transaction {
                Some(open) => open.leader,
                None => self.connections.leader()?,
            };
            let types = &types;
            let described = self
                .connections
                .on_leader(leader, |mut link| async move {
                    let done = link.describe(text, types).await;
                    (link, done)
                })
                .await;
            let (parameters, rows) = described?;
            let mut kinds = parameters.raw.slice(HEADER + 2..);
            while kinds.len() >= 4 {
                let kind = kinds.get_u32();
                prepared.has_own_types |= kind >= OWN_TYPES;
                prepared.types.push(if kind >= OWN_TYPES { 0 } else { kind });
            }
            (prepared.parameters, prepared.rows) = (Some(parameters), rows);
        }
        self.statements.insert(Bytes::copy_from_slice(parse.name), Arc::new(prepared));
        backend::put_parse_complete(&mut self.out);
        Ok(())
    }

    pub(super) fn bind(&mut self, frame: &Frame) -> Result<(), Trouble> {
        let body = frame.raw.slice(HEADER..);
        let (portal, rest) = cstr(&body).ok_or_else(broken)?;
        let (name, rest) = cstr(rest).ok_or_else(broken)?;
        let prepared = self.statements.get(name).cloned().ok_or_else(|| {
            let message = format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
            Trouble::own("26000", message, "Parse it first.")
        })?;
        let start = body.len() - rest.len();
        let mut reading = body.slice(start..);
        let take = |reading: &mut Bytes, length: usize| match reading.len() >= length {
            true => Ok(reading.split_to(length)),
            false => Err(broken()),
        };
        let formats = take(&mut reading, 2)?.get_u16();
        let mut has_binary = false;
        for _ in 0..formats {
            has_binary |= take(&mut reading, 2)?.get_u16() == 1;
        }
        let values = take(&mut reading, 2)?.get_u16();
        for _ in 0..values {
            let length = take(&mut reading, 4)?.get_i32();
            take(&mut reading, usize::try_from(length).unwrap_or(0))?;
        }
        let end = body.len() - reading.len();
        let count = take(&mut reading, 2)?.get_u16();
        let mut results = Vec::new();
        for _ in 0..count {
            results.push(take(&mut reading, 2)?.get_i16());
        }
        if usize::from(values) != prepared.types.len() {
            let message = format!(
                "bind message supplies {values} parameters, but prepared statement \"{}\" requires {}",
                String::from_utf8_lossy(name),
                prepared.types.len()
            );
            return Err(Trouble::own("08P01", message, "Bind as many as the statement has."));
        }
        if has_binary && prepared.has_own_types && matches!(prepared.statement, Statement::Write(_)) {
            return Err(Trouble::own(
                "0A000",
                "a parameter in binary of a type of the database's own cannot be replicated",
                "Send it as text: its number differs from member to member.",
            ));
        }
        let parameters = body.slice(start..end);
        let made = Portal { prepared, parameters, formats: results, is_done: false };
        self.portals.insert(Bytes::copy_from_slice(portal), made);
        crate::wire::put(&mut self.out, b'2', |_| {});
        Ok(())
    }

    fn portal(&self, name: &[u8]) -> Result<Portal, Trouble> {
        self.portals.get(name).cloned().ok_or_else(|| {
            let message = format!("portal \"{}\" does not exist", String::from_utf8_lossy(name));
            Trouble::own("34000", message, "Bind it first; it ends with its transaction.")
        })
    }

    pub(super) fn describe(&mut self, frame: &Frame) -> Result<(), Trouble> {
        let target = frontend::Target::read(&frame.raw).map_err(|error| Trouble::Fatal(error.into()))?;
        let (prepared, formats) = match target {
            frontend::Target::Portal(name) => {
                let portal = self.portal(name)?;
                (portal.prepared, portal.formats)
            }
            frontend::Target::Statement(name) => {
                let found = self.statements.get(name).cloned();
                let prepared = found.ok_or_else(|| {
                    let message =
                        format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
                    Trouble::own("26000", message, "Parse it first.")
                })?;
                match &prepared.parameters {
                    Some(frame) => self.out.extend_from_slice(&frame.raw),
                    None => put(&mut self.out, b't', |out| out.extend_from_slice(&[0, 0])),
                }
                (prepared, Vec::new())
            }
        };
        match &prepared.rows {
            Some(rows) => put_description(&mut self.out, rows, &formats, false),
            None => put(&mut self.out, b'n', |_| {}),
        }
        Ok(())
    }

    pub(super) async fn execute_portal(&mut self, frame: &Frame) -> Result<(), Trouble> {
        let (name, rows_max) = frontend::execution(&frame.raw).ok_or_else(broken)?;
        let portal = self.portal(name)?;
        if portal.is_done {
            return Err(Trouble::own(
                "0A000",
                "a portal is executed once where a database is replicated",
                "Fetch all rows at once, or use LIMIT and OFFSET.",
            ));
        }
        if let Some(portal) = self.portals.get_mut(name) {
            portal.is_done = true;
        }
        let Portal { prepared, parameters, formats, .. } = portal;
        let rows_max = i32::try_from(rows_max).unwrap_or(0);
        Box::pin(self.execute(&prepared, &parameters, &formats, rows_max, false)).await
    }

    pub(super) fn close(&mut self, frame: &Frame) -> Result<(), Trouble> {
        match frontend::Target::read(&frame.raw).map_err(|error| Trouble::Fatal(error.into()))? {
            frontend::Target::Statement(name) => {
                self.statements.remove(name);
            }
            frontend::Target::Portal(name) => {
                self.portals.remove(name);
            }
        }
        backend::put_close_complete(&mut self.out);
        Ok(())
    }
}
