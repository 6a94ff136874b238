//! Whether two servers have the same rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What became of a comparison.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verification {
    /// Nobody has compared.
    #[default]
    None,
    /// So many tables and rows were the same.
    Same {
        /// Tables.
        tables: usize,
        /// Their rows together.
        rows: u64,
    },
    /// Some were not.
    Different(Vec<String>),
}

/// A table's rows: how many, and the sum of their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    pub(crate) rows: u64,
    pub(crate) sum: String,
}

/// Checksums by table.
pub(crate) type Checksums = BTreeMap<String, Checksum>;

impl Verification {
    /// Of two servers as of the same moment.
    pub(crate) fn of(source: &Checksums, target: &Checksums) -> Verification {
        let mut different: Vec<_> = source
            .iter()
            .filter_map(|(table, one)| match target.get(table) {
                Some(other) if one == other => None,
                Some(other) if one.rows == other.rows => {
                    Some(format!("{table}: {} rows on both, not all the same", one.rows))
                }
                Some(other) => {
                    Some(format!("{table}: {} rows on one side, {} on the other", one.rows, other.rows))
                }
                None => Some(format!("{table}: on one side only")),
            })
            .collect();
        let only_there = target.keys().filter(|table| !source.contains_key(*table));
        different.extend(only_there.map(|table| format!("{table}: on one side only")));
        match different.is_empty() {
            true => {
                Verification::Same { tables: source.len(), rows: source.values().map(|one| one.rows).sum() }
            }
            false => Verification::Different(different),
        }
    }

    /// In a line.
    pub(crate) fn told(&self) -> String {
        match self {
            Verification::None => "not compared".to_owned(),
            Verification::Same { tables, rows } => {
                format!("{tables} tables with {rows} rows are the same on both")
            }
            Verification::Different(tables) => format!("DIFFERENT: {}", tables.join("; ")),
        }
    }
}
