//! Named prepared statements where server connections are shared.
//!
//! A client's name means nothing to a server connection that another client parsed on. So each distinct
//! statement (text and parameter types) gets one name for the whole pool ([`Statements`]); a server connection
//! knows which of them it has parsed ([`Parsed`]); and a session maps its own names to them.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::sql::{self, Reading, Recent};

/// A statement's identity within its pool.
pub type StatementId = u64;

/// A time, as a pool counts it: by what its clients have asked to be parsed.
pub type Moment = u64;

/// One distinct statement.
#[derive(Debug)]
pub struct Statement {
    /// Never reused within a pool.
    pub id: StatementId,
    /// What servers call it.
    pub name: Box<str>,
    /// Text, terminator and parameter types, as in a Parse message.
    pub content: Bytes,
    /// What running it may leave on a server connection, if it may leave anything.
    pub reading: Option<Box<Reading>>,
    proven: AtomicBool,
    /// Asked only where reads and writes are split.
    effect: AtomicU8,
}

/// What is known of a statement's effect.
const UNKNOWN: u8 = 0;
const READS: u8 = 1;
const WRITES: u8 = 2;

impl Statement {
    /// Some server has parsed it without an error.
    pub fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }

    /// Whether it only reads, if that is known.
    pub fn only_reads(&self) -> Option<bool> {
        match self.effect.load(Ordering::Relaxed) {
            UNKNOWN => None,
            effect => Some(effect == READS),
        }
    }

    /// Notes whether it only reads.
    pub fn note_effect(&self, only_reads: bool) {
        self.effect.store(if only_reads { READS } else { WRITES }, Ordering::Relaxed);
    }

    /// Whether one has.
    pub fn is_proven(&self) -> bool {
        self.proven.load(Ordering::Relaxed)
    }
}

/// What the names begin with by which servers know the statements of a pool.
pub const SERVER_NAME_PREFIX: &str = "groove_";

/// What servers call a statement.
pub fn server_name(id: StatementId) -> String {
    format!("{SERVER_NAME_PREFIX}{id}")
}

/// By content, so that the set below finds a statement by the bytes of a Parse message.
#[derive(Debug)]
struct ByContent(Arc<Statement>);

impl Borrow<[u8]> for ByContent {
    fn borrow(&self) -> &[u8] {
        &self.0.content
    }
}

impl Hash for ByContent {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<[u8]>::borrow(self).hash(state);
    }
}

impl PartialEq for ByContent {
    fn eq(&self, other: &ByContent) -> bool {
        self.0.content == other.0.content
    }
}

impl Eq for ByContent {}

/// Every statement that some session of a pool has a name for.
#[derive(Debug, Default)]
pub struct Statements {
    named: Mutex<Interned>,
    parses: AtomicU64,
    /// Unnamed ones.
    pub unnamed: Recent,
}

#[derive(Debug, Default)]
struct Interned {
    known: HashSet<ByContent, foldhash::fast::RandomState>,
    last: StatementId,
    bytes: usize,
    /// How many, or how many bytes of them, may be known before those that nobody uses are looked for.
    sweep_at: usize,
    sweep_at_bytes: usize,
}

impl Statements {
    /// The statement with this content.
    pub fn intern(&self, content: &[u8]) -> Arc<Statement> {
        let mut interned = self.named.lock();
        if let Some(ByContent(statement)) = interned.known.get(content) {
            return Arc::clone(statement);
        }
        if interned.known.len() >= interned.sweep_at || interned.bytes >= interned.sweep_at_bytes {
            interned.sweep();
        }
        let statement = interned.make(content);
        if statement.reading.iter().any(|reading| reading.uses().next().is_some()) {
            // What it gives depends on what its session has under that name.
            return statement;
        }
        interned.bytes += content.len();
        interned.known.insert(ByContent(Arc::clone(&statement)));
        statement
    }

    /// A statement with this content that nobody else gets: what it means depends on a session's temporary tables.
    pub fn private(&self, content: &[u8]) -> Arc<Statement> {
        self.named.lock().make(content)
    }

    /// From here on each content is a new statement, which servers parse anew: what the known ones are made of may
    /// have changed. Those who have them keep them, and hear of it from the server as they would without a pool.
    pub fn renew(&self) {
        let mut interned = self.named.lock();
        interned.known.clear();
        interned.bytes = 0;
    }

    /// A client wants something parsed: the time of that, which is later than any [`Self::now`] before.
    pub fn tick(&self) -> Moment {
        self.parses.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The time.
    pub fn now(&self) -> Moment {
        self.parses.load(Ordering::Relaxed)
    }

    /// The statement with this content, if a server has parsed it before.
    pub fn proven(&self, content: &[u8]) -> Option<Arc<Statement>> {
        let interned = self.named.lock();
        let ByContent(statement) = interned.known.get(content)?;
        statement.is_proven().then(|| Arc::clone(statement))
    }
}

impl Interned {
    fn make(&mut self, content: &[u8]) -> Arc<Statement> {
        self.last += 1;
        let id = self.last;
        let content = Bytes::copy_from_slice(content);
        let reading = crate::wire::cstr(&content).map(|(text, _)| sql::read(text));
        Arc::new(Statement {
            id,
            name: server_name(id).into(),
            content,
            reading: reading.filter(|reading| !reading.is_nothing()).map(Box::new),
            proven: AtomicBool::new(false),
            effect: AtomicU8::new(UNKNOWN),
        })
    }

    /// Amortised: each sweep is paid for by as many additions, or bytes of them, as it leaves.
    fn sweep(&mut self) {
        self.known.retain(|ByContent(statement)| Arc::strong_count(statement) > 1);
        self.bytes = self.known.iter().map(|ByContent(statement)| statement.content.len()).sum();
        self.sweep_at = (self.known.len() * 2).max(64);
        self.sweep_at_bytes = (self.bytes * 2).max(64 << 10);
    }
}

/// The statements that one server connection has parsed, the least recently used of which leave first.
#[derive(Debug)]
pub struct Parsed {
    used: HashMap<StatementId, Use, foldhash::fast::RandomState>,
    uses: u64,
    max: usize,
}

/// A statement that a connection has parsed.
#[derive(Debug, Clone, Copy)]
struct Use {
    /// The use before the last is lower.
    last: u64,
    /// Its plan was good at this time, or later.
    good_at: Moment,
}

impl Parsed {
    /// None yet, and at most `max` (at least one).
    pub fn new(max: usize) -> Parsed {
        Parsed { used: HashMap::default(), uses: 0, max: max.max(1) }
    }

    /// How many there may be.
    pub fn max(&self) -> usize {
        self.max
    }

    /// When the plan of a statement was good last, if it is there; then it counts as used.
    pub fn touch(&mut self, id: StatementId) -> Option<Moment> {
        self.uses += 1;
        let used = self.used.get_mut(&id)?;
        used.last = self.uses;
        Some(used.good_at)
    }

    /// The plan of a statement is good, at this time or later.
    pub fn vouch(&mut self, id: StatementId, good_at: Moment) {
        if let Some(used) = self.used.get_mut(&id) {
            used.good_at = used.good_at.max(good_at);
        }
    }

    /// Adds a statement that is parsed now. Gives the one that has to leave for it, if any.
    pub fn insert(&mut self, id: StatementId, now: Moment) -> Option<StatementId> {
        let full = self.used.len() >= self.max && !self.used.contains_key(&id);
        // Linear, but only when something new comes to a full connection, which costs a Parse anyway.
        let oldest =
            full.then(|| self.used.iter().min_by_key(|(_, used)| used.last).map(|(id, _)| *id)).flatten();
        if let Some(oldest) = oldest {
            self.used.remove(&oldest);
        }
        self.put(id, now);
        oldest
    }

    /// Puts back what was believed gone and is not. How old it is is forgotten.
    pub fn restore(&mut self, id: StatementId) {
        self.put(id, 0);
    }

    fn put(&mut self, id: StatementId, good_at: Moment) {
        self.uses += 1;
        self.used.insert(id, Use { last: self.uses, good_at });
    }

    /// Forgets a statement.
    pub fn remove(&mut self, id: StatementId) {
        self.used.remove(&id);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.used.clear();
    }
}

/// A SQL command that names prepared statements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deallocate {
    /// `DEALLOCATE ALL`
    All,
    /// `DEALLOCATE [PREPARE] name`
    One(Vec<u8>),
}

impl Deallocate {
    /// Reads a text that is this one command and nothing else.
    pub fn read(text: &[u8]) -> Option<Deallocate> {
        let rest = word(text.trim_ascii(), b"deallocate")?;
        let rest = word(rest, b"prepare").unwrap_or(rest);
        let rest = rest.strip_suffix(b";").unwrap_or(rest).trim_ascii();
        if let Some(quoted) = rest.strip_prefix(b"\"") {
            let name = quoted.strip_suffix(b"\"")?;
            return (!name.is_empty() && !name.contains(&b'"')).then(|| Deallocate::One(name.to_vec()));
        }
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || !b.is_ascii();
        match rest {
            [] => None,
            _ if !rest.iter().all(plain) => None,
            _ if rest.eq_ignore_ascii_case(b"all") => Some(Deallocate::All),
            _ => Some(Deallocate::One(rest.to_ascii_lowercase())),
        }
    }
}

/// What follows a keyword and the space after it.
fn word<'a>(text: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(keyword.len())?;
    let ends = rest.first().is_none_or(|b| b.is_ascii_whitespace() || *b == b'"');
    (start.eq_ignore_ascii_case(keyword) && ends).then(|| rest.trim_ascii_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_a_content() {
        let statements = Statements::default();
        let one = statements.intern(b"select 1\0\0\0");
        assert_eq!(one.id, statements.intern(b"select 1\0\0\0").id);
        assert_ne!(one.id, statements.intern(b"select 1\0\0\x01\0\0\0\x17").id);
        assert_eq!(one.name.as_ref(), server_name(one.id));
    }

    #[test]
    fn what_was_altered_is_parsed_anew() {
        let statements = Statements::default();
        let before = statements.intern(b"select * from t\0\0\0");
        before.prove();
        statements.renew();
        assert!(statements.proven(b"select * from t\0\0\0").is_none());
        assert_ne!(statements.intern(b"select * from t\0\0\0").id, before.id);
        let own = statements.private(b"select * from t\0\0\0");
        assert_ne!(statements.intern(b"select * from t\0\0\0").id, own.id);
    }

    #[test]
    fn what_nobody_uses_is_swept() {
        let statements = Statements::default();
        let kept = statements.intern(b"kept");
        for n in 0..10_000u32 {
            statements.intern(&n.to_be_bytes());
        }
        assert!(statements.named.lock().known.len() <= 200);
        for n in 0..100u8 {
            statements.intern(&[n; 32 << 10]);
        }
        assert!(statements.named.lock().known.len() <= 10, "large ones are swept by their size");
        assert_eq!(statements.intern(b"kept").id, kept.id);
    }

    #[test]
    fn the_least_recently_used_leaves() {
        let mut parsed = Parsed::new(2);
        assert_eq!(parsed.insert(1, 7), None);
        assert_eq!(parsed.insert(2, 7), None);
        assert_eq!(parsed.touch(1), Some(7));
        assert_eq!(parsed.insert(3, 8), Some(2));
        assert_eq!(parsed.insert(3, 8), None);
        assert_eq!(parsed.touch(2), None);
        parsed.vouch(3, 9);
        parsed.vouch(3, 8);
        assert_eq!(parsed.touch(3), Some(9), "what was good later was good before");
        assert_eq!(parsed.used.len(), 2);
    }

    #[test]
    fn deallocate_is_read_exactly() {
        let one = |name: &str| Some(Deallocate::One(name.as_bytes().to_vec()));
        assert_eq!(Deallocate::read(b"DEALLOCATE _pg3_0"), one("_pg3_0"));
        assert_eq!(Deallocate::read(b" deallocate prepare Foo ; "), one("foo"));
        assert_eq!(Deallocate::read(b"DEALLOCATE \"Foo\""), one("Foo"));
        assert_eq!(Deallocate::read(b"DEALLOCATE\"Foo\";"), one("Foo"));
        assert_eq!(Deallocate::read(b"deallocate all"), Some(Deallocate::All));
        for other in
            ["deallocate", "deallocate a; select 1", "deallocated x", "select 1", "deallocate \"a\"\"b\""]
        {
            assert_eq!(Deallocate::read(other.as_bytes()), None, "{other}");
        }
    }
}
