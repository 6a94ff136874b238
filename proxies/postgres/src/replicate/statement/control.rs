//! Statements that are about the transaction or the session, by their words: their grammar is small, and known.

use super::{Refusal, Statement};
use crate::sql::{Part, Span};

/// What a transaction is said to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// READ ONLY, or READ WRITE.
    pub is_read_only: Option<bool>,
    /// REPEATABLE READ or SERIALIZABLE: it sees what there was when it began.
    pub level: Option<Level>,
}

/// Isolation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// READ COMMITTED, and READ UNCOMMITTED, which is the same.
    Committed,
    /// REPEATABLE READ.
    Repeatable,
    /// SERIALIZABLE.
    Serializable,
}

/// Settings that would have a member do something else than the proxy thinks.
const KEPT: [&str; 11] = [
    "client_encoding",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "role",
    "session_authorization",
    "session_replication_role",
    "standard_conforming_strings",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
];

/// Whether a client may give this setting a value.
pub fn is_kept(name: &str) -> bool {
    KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))
}

/// Reads one; `None` if it is none.
pub(super) fn read(text: &str, spans: &[Span]) -> Result<Option<Statement>, Refusal> {
    let spans: Vec<&Span> = spans.iter().filter(|span| !span.is(b';')).collect();
    let word = |index: usize| match spans.get(index) {
        Some(span) if span.part == Part::Word => span.of(text).to_ascii_lowercase(),
        Some(_) | None => String::new(),
    };
    let rest = |from: usize| (from..spans.len()).map(word).collect::<Vec<_>>();
    let optional = |index: usize| match word(index).as_str() {
        "work" | "transaction" => index + 1,
        _ => index,
    };
    let refuse = |what: &str| Err(Refusal::new(format!("{what} cannot be replicated"), "Do without it."));
    let statement = match word(0).as_str() {
        "begin" => Statement::Begin(modes(&rest(optional(1)))?),
        "start" if word(1) == "transaction" => Statement::Begin(modes(&rest(2))?),
        "commit" | "end" if spans.len() == optional(1) => Statement::Commit,
        "rollback" | "abort" if spans.len() == optional(1) => Statement::Rollback,
        "rollback" if word(optional(1)) == "to" => Statement::RollbackTo,
        "commit" | "end" | "rollback" | "abort" => return refuse("AND CHAIN, or a prepared transaction"),
        "savepoint" | "release" => Statement::Savepoint,
        "prepare" | "execute" | "deallocate" => {
            return Err(Refusal::new(
                format!("{} is not replicated", word(0).to_uppercase()),
                "Prepare statements by the protocol, as drivers do.",
            ));
        }
        "listen" | "notify" | "unlisten" | "declare" | "fetch" | "move" | "close" | "call" | "do"
        | "merge" | "vacuum" | "analyze" | "checkpoint" | "cluster" | "reindex" | "load" | "refresh"
        | "import" => {
            return refuse(&word(0).to_uppercase());
        }
        "lock" => return lock(text, &spans).map(Some),
        "discard" if word(1) == "all" => Statement::DiscardAll,
        "discard" => return refuse("DISCARD of less than ALL"),
        "reset" if word(1) == "all" => Statement::ResetAll,
        "reset" => setting(text, &spans, 1, false)?,
        "set" => match word(1).as_str() {
            "transaction" => Statement::SetTransaction(modes(&rest(2))?),
            "constraints" => Statement::Constraints,
            "local" => setting(text, &spans, 2, true)?,
            "session" if word(2) == "characteristics" => return refuse("SET SESSION CHARACTERISTICS"),
            "session" => setting(text, &spans, 2, false)?,
            _ => setting(text, &spans, 1, false)?,
        },
        _ => return Ok(None),
    };
    Ok(Some(statement))
}

fn setting(text: &str, spans: &[&Span], at: usize, is_local: bool) -> Result<Statement, Refusal> {
    let name = |index: usize| spans.get(index).and_then(|span| span.name(text)).unwrap_or_default();
    let first = name(at);
    let name = match first.as_str() {
        "time" if name(at + 1) == "zone" => "timezone".to_owned(),
        "names" => "client_encoding".to_owned(),
        "authorization" => "session_authorization".to_owned(),
        _ if spans.get(at + 1).is_some_and(|span| span.is(b'.')) => format!("{first}.{}", name(at + 2)),
        _ => first,
    };
    if name.is_empty() || is_kept(&name) {
        let message = format!("the setting \"{name}\" is the proxy's where a database is replicated");
        return Err(Refusal::new(message, "Leave it as it is."));
    }
    Ok(Statement::Set { name, is_local })
}

fn modes(words: &[String]) -> Result<Modes, Refusal> {
    let mut modes = Modes::default();
    let mut words = words.iter().map(String::as_str).filter(|word| !word.is_empty());
    let odd = || Refusal::new("this mode of a transaction is not known", "Leave it out.");
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("read", Some("only")) => modes.is_read_only = Some(true),
            ("read", Some("write")) => modes.is_read_only = Some(false),
            ("not", Some("deferrable")) => {}
            ("isolation", Some("level")) => {
                modes.level = Some(match (words.next(), words.clone().next()) {
                    (Some("serializable"), _) => Level::Serializable,
                    (Some("repeatable"), Some("read")) => {
                        words.next();
                        Level::Repeatable
                    }
                    (Some("read"), Some("committed" | "uncommitted")) => {
                        words.next();
                        Level::Committed
                    }
                    (_, _) => return Err(odd()),
                });
            }
            (_, _) => return Err(odd()),
        }
    }
    Ok(modes)
}

/// `LOCK [TABLE] [ONLY] name, ... [IN ... MODE] [NOWAIT]`
fn lock(text: &str, spans: &[&Span]) -> Result<Statement, Refusal> {
    let (mut tables, mut name, mut index) = (Vec::new(), Vec::new(), 1);
    while let Some(span) = spans.get(index) {
        let word = span.name(text);
        match word.as_deref() {
            Some("table" | "only") if span.part == Part::Word && name.is_empty() => {}
            Some("in" | "nowait") if span.part == Part::Word => break,
            Some(part) => name.push(part.to_owned()),
            None if span.is(b'.') => {}
            None if span.is(b',') => tables.push(std::mem::take(&mut name)),
            None => return Err(Refusal::new("this LOCK is not understood", "Name tables only.")),
        }
        index += 1;
    }
    tables.push(name);
    Ok(Statement::Lock(tables))
}
