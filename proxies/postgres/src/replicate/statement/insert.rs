//! Where in an INSERT columns and values stand, so that what members would make up can be put in.

use std::ops::Range;

use crate::sql::{Span, spans};

/// An INSERT's places.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Insert {
    /// Behind the table's name and alias.
    pub after_table: usize,
    /// The columns that are named, and where their list's last parenthesis is.
    pub columns: Option<(Vec<String>, usize)>,
    /// The rows of VALUES.
    pub rows: Vec<Row>,
    /// `DEFAULT VALUES`.
    pub defaults: Option<Range<usize>>,
    /// Whether there is an OVERRIDING.
    pub overrides: bool,
    /// Where its source begins.
    pub source: usize,
}

/// A row of VALUES.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Where each value stands, and whether it is DEFAULT.
    pub values: Vec<(Range<usize>, bool)>,
    /// The parenthesis at its end.
    pub close: usize,
}

/// Reads `INSERT INTO name [AS alias] [(columns)] [OVERRIDING ...] source ...`.
pub(super) fn read(text: &str, spans: &[Span]) -> Option<Insert> {
    let mut at = 0;
    let is = |at: usize, word: &str| spans.get(at).is_some_and(|span| span.is_word(text, word));
    let is_mark = |at: usize, mark: u8| spans.get(at).is_some_and(|span| span.is(mark));
    (is(0, "insert") && is(1, "into")).then_some(())?;
    at += 2;
    spans.get(at)?.name(text)?;
    at += 1;
    while is_mark(at, b'.') {
        at += 2;
    }
    if is(at, "as") {
        at += 2;
    }
    let after_table = spans.get(at - 1)?.at.end;
    let mut insert = Insert { after_table, ..Insert::default() };
    if is_mark(at, b'(')
        && !is(at + 1, "select")
        && !is(at + 1, "with")
        && !is(at + 1, "values")
        && !is_mark(at + 1, b'(')
    {
        let mut columns = Vec::new();
        at += 1;
        loop {
            columns.push(spans.get(at)?.name(text)?);
            at += 1;
            match spans.get(at)? {
                span if span.is(b',') => at += 1,
                span if span.is(b')') => break,
                // A field of a composite, or an element of an array.
                _ => return None,
            }
        }
        insert.columns = Some((columns, spans.get(at)?.at.start));
        at += 1;
    }
    if is(at, "overriding") {
        insert.overrides = true;
        at += 3;
    }
    insert.source = spans.get(at)?.at.start;
    if is(at, "default") && is(at + 1, "values") {
        insert.defaults = Some(spans.get(at)?.at.start..spans.get(at + 1)?.at.end);
    } else if is(at, "values") {
        at += 1;
        loop {
            let (row, next) = row(text, spans, at)?;
            insert.rows.push(row);
            at = next;
            if !is_mark(at, b',') {
                break;
            }
            at += 1;
        }
    }
    Some(insert)
}

fn row(text: &str, spans: &[Span], open: usize) -> Option<(Row, usize)> {
    spans.get(open).filter(|span| span.is(b'('))?;
    let (mut depth, mut at, mut first, mut row) = (0, open + 1, open + 1, Row::default());
    loop {
        let span = spans.get(at)?;
        let is_end = depth == 0 && (span.is(b',') || span.is(b')'));
        if is_end {
            let (begin, end) = (spans.get(first)?, spans.get(at.checked_sub(1)?)?);
            (at > first).then_some(())?;
            let is_default = at == first + 1 && begin.is_word(text, "default");
            row.values.push((begin.at.start..end.at.end, is_default));
            first = at + 1;
            if span.is(b')') {
                row.close = span.at.start;
                return Some((row, at + 1));
            }
        }
        depth += i32::from(span.is(b'(') || span.is(b'['))
            - i32::from(!is_end && (span.is(b')') || span.is(b']')));
        at += 1;
    }
}

impl Insert {
    /// Where the rows of VALUES stand.
    pub fn values(&self) -> Range<usize> {
        match self.rows.last() {
            Some(last) => self.source..last.close,
            None => 0..0,
        }
    }

    /// Whether a row selects: it is not one value.
    pub fn selects(&self, text: &str) -> bool {
        let values = text.get(self.values()).unwrap_or_default();
        spans(values).is_none_or(|spans| spans.iter().any(|span| span.is_word(values, "select")))
    }
}
