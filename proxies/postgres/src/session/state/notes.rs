//! What a session's statements say and what comes of them, while somebody wants to know: the tap, the slow-query log.
//!
//! Beside the queue of what the server owes there is one of what was asked, an entry for each `Expect::Query` and
//! `Expect::Execute`. Nothing of it exists while nobody wants to know.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Expect, Machine, ParseRole};
use crate::wire::HEADER;
use crate::wire::backend::error_field;
use crate::wire::frontend::{self, Tag};

/// As much of a text as is looked at, in bytes.
pub(super) const TEXT_MAX: usize = 16 << 10;
/// Bytes of texts that one session's statements in flight may hold here.
const HELD_MAX: usize = 256 << 10;
/// Portals with a name, and statements of a session that is nobody else's, that are known by it.
const NAMED_MAX: usize = 64;

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// As much as was kept, and perhaps a terminator and what is behind it.
    Sql(Bytes),
    /// A function call: the server's own name for what to do is a number.
    Call,
    /// It came before anybody wanted to know, or there were too many.
    Unknown,
}

/// By which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A query, or a function call.
    Simple,
    /// An execution.
    Extended,
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// As it should; or a part of it, if its portal was suspended.
    Done,
    /// With this SQLSTATE.
    Failed([u8; 5]),
    /// Client or server went away before.
    Unfinished,
}

/// A statement of which nothing more is to come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// What was asked.
    pub text: Text,
    /// By which protocol.
    pub how: How,
    /// Rows, by the server's own count.
    pub rows: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// Statements of which nothing more is to come, and how long they took.
#[derive(Debug)]
pub struct Settled {
    /// In order. Their answers came in one piece: when which of them ended is not known.
    pub statements: Vec<Finished>,
    /// From when the first of them became what the server was at to when the last of them ended.
    pub took: Duration,
    /// How long the first of them had waited for a server connection.
    pub waited: Duration,
}

#[derive(Debug)]
struct Note {
    text: Text,
    how: How,
    rows: u64,
    /// What an Execute asks for at most; 0 is all.
    rows_max: u32,
    failed: Option<[u8; 5]>,
    /// Bytes that are held for this alone.
    held: usize,
}

/// What one session has under way.
#[derive(Debug, Default)]
pub struct Notes {
    owed: VecDeque<Note>,
    /// Before these, so many were owed already.
    before: usize,
    held: usize,
    portals: HashMap<Box<[u8]>, Text, foldhash::fast::RandomState>,
    /// What the unnamed portal runs.
    unnamed_portal: Option<Text>,
    /// Where nothing else keeps them: statements in session mode, and unnamed ones that are too long.
    texts: HashMap<Box<[u8]>, Bytes, foldhash::fast::RandomState>,
    finished: Vec<Finished>,
    /// When the server came to what is owed first.
    since: Option<Instant>,
    waited: Duration,
    /// The server has got on since.
    has_moved: bool,
}

impl Notes {
    fn ask(&mut self, mut text: Text, how: How, rows_max: u32, held: usize) {
        if self.held + held > HELD_MAX {
            text = Text::Unknown;
        }
        let held = if text == Text::Unknown { 0 } else { held };
        self.held += held;
        self.owed.push_back(Note { text, how, rows: 0, rows_max, failed: None, held });
    }

    /// The oldest, if anything is known of it.
    fn front(&mut self) -> Option<&mut Note> {
        if self.before > 0 { None } else { self.owed.front_mut() }
    }

    fn take(&mut self) -> Option<Note> {
        self.has_moved = true;
        if self.before > 0 {
            self.before -= 1;
            return None;
        }
        let note = self.owed.pop_front()?;
        self.held -= note.held;
        Some(note)
    }

    /// The oldest is done.
    fn end(&mut self) {
        if let Some(note) = self.take() {
            let Note { text, how, rows, failed, .. } = note;
            let outcome = failed.map_or(Outcome::Done, Outcome::Failed);
            self.finished.push(Finished { text, how, rows, outcome });
        }
    }

    /// The oldest, and those the server skips for its sake. `parsed` is what was to be parsed, if it failed there.
    fn fail(&mut self, code: [u8; 5], skipped: usize, parsed: Option<Text>) {
        let mut skipped = (0..skipped).map(|_| self.take()).collect::<Vec<_>>().into_iter();
        let first = skipped.next().flatten();
        let how = first.as_ref().map_or(How::Extended, |note| note.how);
        if let Some(text) = parsed.or(first.map(|note| note.text)) {
            self.finished.push(Finished { text, how, rows: 0, outcome: Outcome::Failed(code) });
        }
    }

    /// The latest so many were not asked after all.
    pub(super) fn unask(&mut self, count: usize) {
        for _ in 0..count {
            match self.owed.pop_back() {
                Some(note) => self.held -= note.held,
                None => self.before = self.before.saturating_sub(1),
            }
        }
    }

    /// The session got a server connection at `now`, after this long.
    pub fn leased(&mut self, now: Instant, waited: Duration) {
        self.since = Some(now);
        self.waited = waited;
    }

    /// Statements may have been sent. The clock is asked only if the server was at none.
    pub fn sent(&mut self, now: impl FnOnce() -> Instant) {
        if self.since.is_none() && !self.owed.is_empty() {
            self.since = Some(now());
        }
    }

    /// What has ended since the last time. The clock is asked only if something has.
    pub fn settle(&mut self, now: impl FnOnce() -> Instant) -> Option<Settled> {
        if !std::mem::take(&mut self.has_moved) {
            return None;
        }
        let now = now();
        let took = self.since.map(|since| now.saturating_duration_since(since)).unwrap_or_default();
        self.since = (!self.owed.is_empty()).then_some(now);
        let statements = std::mem::take(&mut self.finished);
        if statements.is_empty() {
            return None;
        }
        Some(Settled { statements, took, waited: std::mem::take(&mut self.waited) })
    }

    /// The session has ended: what the server was at.
    pub fn leave(mut self, now: impl FnOnce() -> Instant) -> Option<Settled> {
        let Note { text, how, rows, .. } = self.take().filter(|_| self.since.is_some())?;
        self.finished.push(Finished { text, how, rows, outcome: Outcome::Unfinished });
        self.settle(now)
    }
}

impl Machine {
    /// Begins to note what is asked from here on, or ceases to.
    pub fn set_noting(&mut self, noting: bool) {
        self.notes = noting.then(|| {
            let before = self.expected.iter().filter(|expect| is_noted(expect)).count();
            Box::new(Notes { before, ..Notes::default() })
        });
    }

    /// Whether what is asked is noted.
    #[inline]
    pub fn is_noting(&self) -> bool {
        self.notes.is_some()
    }

    /// What is noted.
    #[inline]
    pub fn notes(&mut self) -> Option<&mut Notes> {
        self.notes.as_deref_mut()
    }

    /// The session has given its server connection back: an idle one keeps what it cannot do without.
    #[inline]
    pub fn rest_notes(&mut self) {
        if self.notes.as_ref().is_some_and(|notes| notes.texts.is_empty()) {
            self.notes = None;
        }
    }

    /// What was noted; nothing is any more.
    pub fn take_notes(&mut self) -> Option<Box<Notes>> {
        self.notes.take()
    }

    /// Looks at a message from the client that has not been taken in yet; false if more of it has to be there first.
    #[cold]
    pub(super) fn note_message(&mut self, tag: Tag, total: usize, rest: &[u8]) -> bool {
        if self.skipping || !matches!(tag, Tag::Query | Tag::Parse | Tag::Bind | Tag::Execute) {
            return true;
        }
        let Some(start) = rest.get(..total.min(TEXT_MAX)) else { return false };
        let body = start.get(HEADER..).unwrap_or_default();
        if tag == Tag::Parse {
            self.note_parse(body, total);
        } else if tag == Tag::Bind {
            self.note_bind(start);
        }
        true
    }

    fn note_parse(&mut self, body: &[u8], total: usize) {
        let is_kept = self.is_shared() && (body.first() != Some(&0) || total <= TEXT_MAX);
        let (Some(notes), Some((name, content))) = (&mut self.notes, crate::wire::cstr(body)) else { return };
        if is_kept {
            if name.is_empty() {
                notes.texts.remove(name);
            }
        } else if name.is_empty() || notes.texts.len() < NAMED_MAX {
            notes.texts.insert(name.into(), Bytes::copy_from_slice(content));
        }
    }

    fn note_bind(&mut self, start: &[u8]) {
        let Some((portal, name)) = frontend::bind_names(start) else { return };
        let text = self.text_of(name);
        let Some(notes) = &mut self.notes else { return };
        if portal.is_empty() {
            notes.unnamed_portal = Some(text);
        } else if notes.portals.len() < NAMED_MAX || notes.portals.contains_key(portal) {
            notes.portals.insert(portal.into(), text);
        }
    }

    /// What a prepared statement says.
    fn text_of(&self, name: &[u8]) -> Text {
        let kept = match name.is_empty() {
            true => self.unnamed.content.clone(),
            false => self.names.get(name).map(|statement| statement.content.clone()),
        };
        let noted = || self.notes.as_ref().and_then(|notes| notes.texts.get(name)).cloned();
        kept.or_else(noted).map_or(Text::Unknown, Text::Sql)
    }

    /// A query goes to the server; `start` is as much of it as is there.
    #[cold]
    pub(super) fn note_query(&mut self, start: &[u8]) {
        let Some(notes) = &mut self.notes else { return };
        let text = frontend::query_text(start.get(..start.len().min(TEXT_MAX)).unwrap_or_default());
        notes.ask(Text::Sql(Bytes::copy_from_slice(text)), How::Simple, 0, text.len());
    }

    /// A function call goes to the server.
    #[cold]
    pub(super) fn note_call(&mut self) {
        if let Some(notes) = &mut self.notes {
            notes.ask(Text::Call, How::Simple, 0, 0);
        }
    }

    /// An execution goes to the server.
    #[cold]
    pub(super) fn note_execute(&mut self, start: &[u8]) {
        let Some(notes) = &mut self.notes else { return };
        let (portal, rows_max) = frontend::execution(start).unwrap_or_default();
        let text = match portal.is_empty() {
            true => notes.unnamed_portal.clone(),
            false => notes.portals.get(portal).cloned(),
        };
        // What a statement holds is not held by its executions.
        notes.ask(text.unwrap_or(Text::Unknown), How::Extended, rows_max, 0);
    }

    /// A command is complete. An execution ends with it, a query may have more.
    #[cold]
    pub(super) fn note_complete(&mut self, tag: &[u8]) {
        let is_execution = matches!(self.expected.front(), Some(Expect::Execute));
        let Some(notes) = &mut self.notes else { return };
        if let Some(note) = notes.front() {
            note.rows += rows(tag);
        }
        if is_execution {
            notes.end();
        }
    }

    /// An execution has ended without a command: there was none, or its portal has more.
    #[cold]
    pub(super) fn note_stopped(&mut self, suspended: bool) {
        if let Some(notes) =
            self.notes.as_mut().filter(|_| matches!(self.expected.front(), Some(Expect::Execute)))
        {
            if let Some(note) = notes.front().filter(|_| suspended) {
                note.rows = u64::from(note.rows_max);
            }
            notes.end();
        }
    }

    /// A ReadyForQuery ends what is in front.
    #[cold]
    pub(super) fn note_ready(&mut self, is_idle: bool) {
        let Some(notes) = &mut self.notes else { return };
        match self.expected.front() {
            Some(Expect::Query { .. }) => notes.end(),
            Some(Expect::Sync) => notes.has_moved = true,
            _ => {}
        }
        // Portals end with their transaction.
        if is_idle {
            notes.portals.clear();
        }
    }

    /// What is in front has failed, and a batch with it.
    #[cold]
    pub(super) fn note_error(&mut self, body: Option<&[u8]>) {
        let code = body.and_then(|body| error_field(body, b'C')).and_then(|code| code.try_into().ok());
        let code = code.unwrap_or(*b"-----");
        let skipped = self.expected.iter().take_while(|expect| !matches!(expect, Expect::Sync));
        let skipped = skipped.filter(|expect| is_noted(expect)).count();
        let parsed = match self.expected.front() {
            Some(Expect::Query { .. }) => {
                if let Some(note) = self.notes.as_mut().and_then(|notes| notes.front()) {
                    note.failed.get_or_insert(code);
                }
                return;
            }
            // What fails here has ended before.
            Some(Expect::Sync | Expect::Setup | Expect::Aside { .. }) | None => return,
            Some(Expect::Parse(ParseRole::Named { statement, .. })) => {
                Some(Text::Sql(statement.content.clone()))
            }
            Some(Expect::Parse(ParseRole::Unnamed { .. })) if skipped == 0 => Some(self.text_of(b"")),
            Some(_) => None,
        };
        if let Some(notes) = &mut self.notes {
            notes.fail(code, skipped, parsed);
        }
    }

    /// Holds after each entry, or what is noted is taken for something else.
    pub(super) fn check_notes(&self) {
        if let Some(notes) = &self.notes {
            let owed = notes.before + notes.owed.len();
            debug_assert_eq!(owed, self.expected.iter().filter(|expect| is_noted(expect)).count());
            debug_assert_eq!(notes.held, notes.owed.iter().map(|note| note.held).sum::<usize>());
            debug_assert!(notes.held <= HELD_MAX, "bounded");
        }
    }
}

pub(super) fn is_noted(expect: &Expect) -> bool {
    matches!(expect, Expect::Query { .. } | Expect::Execute)
}

/// `INSERT 0 5`, `SELECT 5`, but not `CREATE TABLE`.
fn rows(tag: &[u8]) -> u64 {
    let number = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
#[path = "notes_tests.rs"]
mod tests;
