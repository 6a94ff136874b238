//! Answers with rows.

use std::time::{Duration, SystemTime};

use bytes::BytesMut;

use crate::wire::backend::{put_data_row, put_row_description};

/// A column's type, as PgBouncer declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int4,
    Numeric,
}

/// A column's name and type.
pub(super) type Column = (&'static str, Kind);

/// One answer.
pub(super) struct Table {
    columns: &'static [Column],
    rows: Vec<Vec<Option<String>>>,
}

impl Table {
    pub(super) fn new(columns: &'static [Column]) -> Table {
        Table { columns, rows: Vec::new() }
    }

    /// Adds a row, one cell a column.
    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a row of another table");
        self.rows.push(cells.into_iter().map(|Cell(cell)| cell).collect());
    }

    pub(super) fn put(&self, out: &mut BytesMut) {
        let columns = self.columns.iter().map(|(name, kind)| {
            let (oid, size) = match kind {
                Kind::Text => (25, -1),
                Kind::Int4 => (23, 4),
                Kind::Numeric => (1700, -1),
            };
            (*name, oid, size)
        });
        put_row_description(out, columns);
        for row in &self.rows {
            put_data_row(out, row.iter().map(Option::as_deref));
        }
    }
}

/// A value as text, or NULL.
pub(super) struct Cell(Option<String>);

/// Nothing is known, or it does not apply.
pub(super) const NULL: Cell = Cell(None);

/// A number for a column of type int4, which ends at 2147483647.
pub(super) fn int(n: usize) -> Cell {
    Cell(Some(i32::try_from(n).unwrap_or(i32::MAX).to_string()))
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        Cell(Some(text.to_owned()))
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell(Some(text))
    }
}

impl From<u64> for Cell {
    fn from(n: u64) -> Cell {
        Cell(Some(n.to_string()))
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Cell {
        Cell(text)
    }
}

/// In UTC, by the second.
impl From<SystemTime> for Cell {
    fn from(at: SystemTime) -> Cell {
        let text = humantime::format_rfc3339_seconds(at).to_string();
        Cell(Some(text.replace('T', " ").replace('Z', " UTC")))
    }
}

/// Whole seconds, and the microseconds beyond them.
pub(super) fn seconds(time: Duration) -> [Cell; 2] {
    [int(usize::try_from(time.as_secs()).unwrap_or(usize::MAX)), int(time.subsec_micros() as usize)]
}

/// How PgBouncer writes a number for a client or a server connection: its address there, no more than a name here.
pub(super) fn pointer(number: u64) -> Cell {
    if number == 0 { "".into() } else { format!("{number:#014x}").into() }
}
