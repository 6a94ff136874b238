//! What the proxy knows of the tables: which change together, what their columns make up, what cannot be replicated.
//!
//! Read from the leader, and read anew after each statement that changes it. Who changes tables past the proxy has to
//! restart it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::link::{Fault, Link};
use super::rewrite;
use super::statement::{Refusal, Seen, Verb, Write};

/// What looks like a call and is the grammar's own, or says who the session is, which is the same everywhere.
const GRAMMAR: [&str; 22] = [
    "array",
    "coalesce",
    "current_catalog",
    "current_role",
    "current_schema",
    "current_user",
    "exists",
    "greatest",
    "grouping",
    "least",
    "nullif",
    "position",
    "row",
    "session_user",
    "user",
    "json_array",
    "json_object",
    "any",
    "all",
    "overlay",
    "xmlelement",
    "xmlforest",
];

/// A column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: String,
    /// What gives its value where none is said.
    pub default: Option<String>,
    /// GENERATED AS IDENTITY.
    pub is_identity: bool,
    /// Whether that is the same everywhere.
    pub is_fixed: bool,
}

impl Column {
    /// Whether each server would make up a value of its own.
    pub fn is_made_up(&self) -> bool {
        self.default.is_some() && !self.is_fixed
    }
}

/// A table, or what is like one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// `schema.name`, quoted where it has to be.
    pub name: String,
    /// The least oid of those that change together: by foreign keys, as partitions or children.
    pub key: u32,
    /// In their order.
    pub columns: Vec<Column>,
    /// The columns of its primary key.
    pub primary: Vec<String>,
    /// A view, or anything else that is not rows of its own.
    pub is_derived: bool,
    /// A view that calls something nobody knows.
    pub is_odd: bool,
    /// Why it is not written to.
    pub refused: Option<&'static str>,
}

impl Table {
    /// A column by name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// All of it at one time.
#[derive(Debug, Default)]
pub struct Schema {
    /// By oid on the leader.
    pub tables: HashMap<u32, Table>,
    /// Whether one of them is a view that calls something nobody knows.
    pub has_odd_views: bool,
    /// Functions that do nothing but give a value, and whether that depends on their arguments alone.
    functions: HashMap<String, bool>,
}

const TABLES: &str = "SELECT c.oid::text, c.oid::pg_catalog.regclass::text, c.relkind::text, \
    CASE WHEN c.relkind = 'f' THEN 'foreign' WHEN c.relpersistence = 'u' THEN 'unlogged' \
      WHEN c.relkind IN ('r','p') AND EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid) THEN 'rule' \
      WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) THEN 'trigger' \
      WHEN EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.contype = 'f' AND k.confrelid = c.oid \
        AND (k.confdeltype = 'd' OR k.confupdtype = 'd')) THEN 'default' END, \
    (SELECT pg_catalog.string_agg(a.attname, chr(1) ORDER BY a.attnum) FROM pg_catalog.pg_index i \
      JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (i.indkey) \
      WHERE i.indrelid = c.oid AND i.indisprimary) \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r','p','f','v','m') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

const TIES: &str = "SELECT conrelid::text, confrelid::text FROM pg_catalog.pg_constraint WHERE contype = 'f' \
    UNION ALL SELECT inhrelid::text, inhparent::text FROM pg_catalog.pg_inherits";

const COLUMNS: &str = "SELECT a.attrelid::text, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), \
    CASE WHEN a.attidentity <> '' THEN 'nextval(' || pg_catalog.quote_literal( \
        pg_catalog.pg_get_serial_sequence(a.attrelid::pg_catalog.regclass::text, a.attname)) || ')' \
      WHEN a.attgenerated = '' THEN coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), t.typdefault) END, \
    a.attidentity <> '' \
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
    WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r','p') \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY a.attrelid, a.attnum";

const VIEWS: &str = "SELECT c.oid::text, pg_catalog.pg_get_viewdef(c.oid) FROM pg_catalog.pg_class c \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')";

const FUNCTIONS: &str = "SELECT p.proname, pg_catalog.bool_and(p.provolatile = 'i') FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace GROUP BY p.proname \
    HAVING pg_catalog.bool_and(p.provolatile = 'i' OR (p.provolatile = 's' AND n.nspname = 'pg_catalog'))";

impl Schema {
    /// Reads it. The connection's search path has to be empty but for the system's own.
    pub async fn load(link: &mut Link) -> Result<Schema, Fault> {
        let mut schema = Schema::default();
        for row in link.rows(FUNCTIONS).await? {
            if let [Some(name), Some(immutable)] = &row[..] {
                schema.functions.insert(name.clone(), immutable == "t");
            }
        }
        for row in link.rows(TABLES).await? {
            let [Some(oid), Some(name), Some(kind), refused, primary] = &row[..] else { continue };
            let Ok(oid) = oid.parse::<u32>() else { continue };
            let refused = match refused.as_deref() {
                Some("foreign") => Some("it is a foreign table"),
                Some("unlogged") => Some("it is unlogged: a member that crashes would have it empty"),
                Some("rule") => Some("it has rules"),
                Some("trigger") => Some("it has triggers, and what these do is not known"),
                Some(_) => Some("a foreign key sets it to defaults"),
                None => None,
            };
            let split = |text: &String| text.split('\u{1}').map(str::to_owned).collect();
            schema.tables.insert(
                oid,
                Table {
                    name: name.clone(),
                    key: oid,
                    columns: Vec::new(),
                    primary: primary.as_ref().map(split).unwrap_or_default(),
                    is_derived: matches!(kind.as_str(), "v" | "m"),
                    is_odd: false,
                    refused,
                },
            );
        }
        for row in link.rows(COLUMNS).await? {
            let [Some(oid), Some(name), Some(kind), default, identity] = &row[..] else { continue };
            let table = oid.parse().ok().and_then(|oid: u32| schema.tables.get_mut(&oid));
            let is_fixed = default.as_deref().is_none_or(is_fixed);
            table.into_iter().for_each(|table| {
                table.columns.push(Column {
                    name: name.clone(),
                    kind: kind.clone(),
                    default: default.clone(),
                    is_identity: identity.as_deref() == Some("t"),
                    is_fixed,
                })
            });
        }
        let ties = link.rows(TIES).await?;
        schema.tie(ties.iter().filter_map(|row| match &row[..] {
            [Some(a), Some(b)] => Some((a.parse().ok()?, b.parse().ok()?)),
            _ => None,
        }));
        schema.refuse_untold();
        for row in link.rows(VIEWS).await? {
            let [Some(oid), Some(definition)] = &row[..] else { continue };
            let is_known = match super::statement::understand(definition.trim_end_matches(';')) {
                Ok(super::statement::Statement::Read(read)) => !read.locks && schema.only_reads(&read.seen),
                Ok(_) | Err(_) => false,
            };
            let table = oid.parse().ok().and_then(|oid: u32| schema.tables.get_mut(&oid));
            if let (false, Some(table)) = (is_known, table) {
                table.is_odd = true;
                schema.has_odd_views = true;
            }
        }
        Ok(schema)
    }

    /// Tables that change together have one key, and if one of them is refused all are.
    fn tie(&mut self, ties: impl Iterator<Item = (u32, u32)>) {
        let mut parents: BTreeMap<u32, u32> = self.tables.keys().map(|oid| (*oid, *oid)).collect();
        fn root(parents: &BTreeMap<u32, u32>, mut oid: u32) -> u32 {
            while let Some(parent) = parents.get(&oid).filter(|parent| **parent != oid) {
                oid = *parent;
            }
            oid
        }
        for (a, b) in ties {
            let (a, b) = (root(&parents, a), root(&parents, b));
            parents.insert(a.max(b), a.min(b));
        }
        let mut refused: HashMap<u32, &'static str> = HashMap::new();
        for (oid, table) in &mut self.tables {
            table.key = root(&parents, *oid);
            if let Some(why) = table.refused {
                refused.insert(table.key, why);
            }
        }
        for table in self.tables.values_mut() {
            table.refused = table.refused.or(refused.get(&table.key).copied());
        }
    }

    /// A default that calls what is not known may do anything, on the leader alone.
    fn refuse_untold(&mut self) {
        let mut untold = HashSet::new();
        for (oid, table) in &self.tables {
            let made_up = table.columns.iter().filter(|column| column.is_made_up());
            let is_told = |default: &str| self.is_told(default);
            if made_up.filter_map(|column| column.default.as_deref()).any(|default| !is_told(default)) {
                untold.insert(*oid);
            }
        }
        for oid in untold {
            if let Some(table) = self.tables.get_mut(&oid) {
                table.refused =
                    table.refused.or(Some("a column's default calls a function that is not known"));
            }
        }
    }

    fn is_told(&self, expression: &str) -> bool {
        let text = format!("SELECT {expression}");
        match super::statement::understand(&text) {
            Ok(super::statement::Statement::Read(read)) => {
                read.seen.relations.is_empty()
                    && read.seen.calls.iter().all(|(_, name)| rewrite::is_drawn(name) || self.is_pure(name))
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Whether a function does nothing but give a value.
    pub fn is_pure(&self, name: &str) -> bool {
        GRAMMAR.contains(&name) || self.functions.contains_key(name)
    }

    /// Whether what reads calls nothing but such functions.
    pub fn only_reads(&self, seen: &Seen) -> bool {
        seen.calls
            .iter()
            .all(|(_, name)| self.is_pure(name) || (rewrite::is_drawn(name) && name != "nextval"))
    }

    /// Why a write is not carried out, before anything is asked of anybody.
    pub fn refuse(&self, write: &Write, table: &Table) -> Option<Refusal> {
        if let Some(why) = table.refused {
            let message = format!("table {} is not replicated: {why}", table.name);
            return Some(Refusal::new(message, "Have the application do what the table does by itself."));
        }
        if table.is_derived {
            return Some(Refusal::new(
                "a view is not written to where it is replicated",
                "Write to its table.",
            ));
        }
        if let Some(refusal) = write.seen.not_written() {
            return Some(refusal);
        }
        let unknown = |(_, name): &&(Option<String>, String)| !self.is_pure(name) && !rewrite::is_drawn(name);
        if let Some((_, name)) = write.seen.calls.iter().find(unknown) {
            return Some(Refusal::new(
                format!(
                    "what the function {name}() does is not known, so that the write cannot be replicated"
                ),
                "Declare it IMMUTABLE if it is, or call it in a SELECT of its own, and use the value.",
            ));
        }
        // What an UPDATE gives does not tell which row it was before, if its key is not in it.
        let keyless =
            table.primary.is_empty() || write.assigned.iter().any(|name| table.primary.contains(name));
        let changes = write.verb == Verb::Update || !write.assigned.is_empty();
        let depends = |(_, name): &(Option<String>, String)| {
            !rewrite::is_drawn(name)
                && !GRAMMAR.contains(&name.as_str())
                && self.functions.get(name) != Some(&true)
        };
        if changes && keyless && (write.seen.is_loose || write.seen.calls.iter().any(depends)) {
            return Some(Refusal::new(
                "which rows this changes may depend on the server, and the table has no primary key that stays",
                "Give the table a primary key, or name the rows.",
            ));
        }
        None
    }

    /// Keys of tables, for locks; `None` if something is not an ordinary table.
    pub fn keys(&self, oids: impl Iterator<Item = u32>) -> Option<Vec<u32>> {
        oids.map(|oid| self.tables.get(&oid).filter(|table| !table.is_derived).map(|table| table.key))
            .collect()
    }
}

/// Whether a default is the same everywhere: it calls nothing.
fn is_fixed(default: &str) -> bool {
    let Some(spans) = crate::sql::spans(default) else { return false };
    let calls = spans.windows(2).any(|pair| match pair {
        [name, open] => {
            name.name(default).is_some() && open.is(b'(') && !is_type(&name.name(default).unwrap_or_default())
        }
        _ => false,
    });
    let words = spans.iter().filter_map(|span| span.name(default));
    !calls && !words.into_iter().any(|word| rewrite::is_drawn(&word))
}

/// Types that are written with parentheses.
fn is_type(name: &str) -> bool {
    matches!(
        name,
        "varying"
            | "character"
            | "numeric"
            | "bit"
            | "timestamp"
            | "time"
            | "interval"
            | "varchar"
            | "bpchar"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_say_the_same_everywhere() {
        for fixed in [
            "0",
            "'a'::text",
            "'now(), later'::text",
            "ARRAY[]::text[]",
            "'1.5'::numeric(5,2)",
            "'x'::character varying(20)",
        ] {
            assert!(is_fixed(fixed), "{fixed}");
        }
        for made_up in [
            "now()",
            "CURRENT_TIMESTAMP",
            "nextval('s'::regclass)",
            "gen_random_uuid()",
            "public.f(1)",
            "(random() * 5)",
        ] {
            assert!(!is_fixed(made_up), "{made_up}");
        }
    }

    #[test]
    fn tables_that_change_together_have_one_key() {
        let mut schema = Schema::default();
        for oid in [10, 20, 30, 40] {
            schema.tables.insert(oid, Table { key: oid, ..Table::default() });
        }
        schema.tables.get_mut(&40).unwrap().refused = Some("it has triggers");
        schema.tie([(20, 40), (40, 30)].into_iter());
        let key = |oid| schema.tables[&oid].key;
        assert_eq!([key(10), key(20), key(30), key(40)], [10, 20, 20, 20]);
        assert!(schema.tables[&30].refused.is_some() && schema.tables[&10].refused.is_none());
    }
}
