//! Verdicts that are given once for all texts that differ in their literals only.

use std::sync::Arc;

use moka::sync::Cache;

use super::verdict::{TEXT_MAX, judge};
use super::{Functions, Verdict};
use crate::session::prepared::Statement;
use crate::sql;
use crate::wire::cstr;

/// Of the texts of one database whose verdicts are remembered, in bytes.
const KNOWN_BYTES: u64 = 4 << 20;
/// What a text takes beside itself.
const OVERHEAD: usize = 64;

type Key = Arc<[u8]>;

/// Judges what the clients of one database send.
#[derive(Debug)]
pub struct Judge {
    functions: Functions,
    known: Cache<Key, Verdict>,
}

impl Judge {
    /// Where these functions only read, beside PostgreSQL's own.
    pub fn new(read_only_functions: &[String]) -> Judge {
        Judge {
            functions: Functions::new(read_only_functions),
            known: Cache::builder().weigher(weight).max_capacity(KNOWN_BYTES).build(),
        }
    }

    /// What a text does.
    pub fn judge(&self, text: &[u8]) -> Verdict {
        if text.len() > TEXT_MAX {
            return Verdict::Writes;
        }
        let key = key(text);
        if let Some(verdict) = self.known.get(&key) {
            return verdict;
        }
        // Where half a character may look like a quote, the text is no UTF-8.
        let verdict = std::str::from_utf8(text).map_or(Verdict::Writes, |text| judge(text, &self.functions));
        self.known.insert(key, verdict);
        verdict
    }

    /// What a prepared statement does. Its text is looked at once, unless it is of a transaction.
    pub fn judge_statement(&self, statement: &Statement) -> Verdict {
        match statement.only_reads() {
            Some(true) => return Verdict::Reads,
            Some(false) => return Verdict::Writes,
            None => {}
        }
        let text = cstr(&statement.content).filter(|_| statement.reading.is_none());
        let verdict = text.map_or(Verdict::Writes, |(text, _)| self.judge(text));
        match verdict {
            Verdict::Reads => statement.note_effect(true),
            Verdict::Writes => statement.note_effect(false),
            Verdict::Begins(_) | Verdict::Sets(_) => {}
        }
        verdict
    }

    /// A replica has refused what was taken for a read: it is no longer.
    pub fn misjudged(&self, text: &[u8]) {
        let query = sql::mask(text, false).text;
        tracing::info!(
            query,
            "a replica refused what was taken for a read: it goes to the primary from now on"
        );
        self.known.insert(key(text), Verdict::Writes);
    }
}

fn weight(text: &Key, _: &Verdict) -> u32 {
    u32::try_from(text.len() + OVERHEAD).unwrap_or(u32::MAX)
}

/// By what a text is known: what reads by its words, without literals, where these are not too many to be compared; all
/// else as it is written.
fn key(text: &[u8]) -> Key {
    let word = text.trim_ascii_start().split(|byte| !byte.is_ascii_alphabetic()).next().unwrap_or_default();
    if word.eq_ignore_ascii_case(b"select") || word.eq_ignore_ascii_case(b"with") {
        let masked = sql::mask(text, false);
        if masked.text.len() < sql::TEXT_MAX {
            return masked.text.as_bytes().into();
        }
    }
    text.into()
}
