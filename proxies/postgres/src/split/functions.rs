//! Functions that only read.
//!
//! Of PostgreSQL's own these are all those of which every form is declared immutable or stable, in each release that has
//! them (15 to 18), but for what allots transaction numbers (`txid_current`), what tells of the server itself or of a
//! session of it (`pg_stat_…`, `current_setting`), and what is never called by name (operators, input and output, support).
//! A test compares the list with a server's catalogue. Those below are volatile only in that they give another value each
//! time.

use std::collections::HashSet;

const HARMLESS: &str = include_str!("harmless.txt");

const VOLATILE: [&str; 15] = [
    "clock_timestamp",
    "gen_random_uuid",
    "pg_database_size",
    "pg_indexes_size",
    "pg_relation_size",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "random",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// What looks like a call and is the grammar's own.
const GRAMMAR: [&str; 32] = [
    "array",
    "coalesce",
    "current_catalog",
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "exists",
    "greatest",
    "grouping",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_value",
    "least",
    "localtime",
    "localtimestamp",
    "nullif",
    "row",
    "session_user",
    "system_user",
    "user",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
    "xmlroot",
];

/// Functions that only read, as one database's configuration has it.
#[derive(Debug)]
pub struct Functions {
    own: HashSet<&'static str, foldhash::fast::RandomState>,
    configured: HashSet<Box<str>>,
}

impl Functions {
    /// PostgreSQL's own, and those of `configured`, which are names or `schema.name`.
    pub fn new(configured: &[String]) -> Functions {
        let own = HARMLESS.split_ascii_whitespace().chain(VOLATILE).chain(GRAMMAR).collect();
        Functions { own, configured: configured.iter().map(|name| name.as_str().into()).collect() }
    }

    /// Whether a call of this one only reads. Names as the server knows them.
    pub(super) fn contains(&self, schema: Option<&str>, name: &str) -> bool {
        let is_own = matches!(schema, None | Some("pg_catalog")) && self.own.contains(name);
        let is_qualified = |schema: &str| self.configured.contains(format!("{schema}.{name}").as_str());
        is_own || self.configured.contains(name) || schema.is_some_and(is_qualified)
    }

    /// PostgreSQL's own that are volatile, and not for what they do.
    #[cfg(test)]
    pub(super) fn volatile() -> &'static [&'static str] {
        &VOLATILE
    }
}
