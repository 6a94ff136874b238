//! What stands in a migration's way, and what is worth knowing before: all of it at once, each with what to do.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::phase::Side;

/// Of one kind, so many are named.
const NAMED_MAX: usize = 12;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    /// Nothing begins while it is so.
    Blocker,
    /// It will be so after the migration, or during it.
    Note,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How much it matters.
    pub(crate) weight: Weight,
    /// Its name.
    pub(crate) name: &'static str,
    /// What is so.
    pub(crate) what: String,
    /// What to do.
    pub(crate) help: &'static str,
}

impl Finding {
    /// Of a kind that has no question.
    pub(crate) fn blocker(name: &'static str, what: impl Into<String>, help: &'static str) -> Finding {
        Finding { weight: Weight::Blocker, name, what: what.into(), help }
    }

    /// The same that only has to be known.
    pub(crate) fn note(name: &'static str, what: impl Into<String>, help: &'static str) -> Finding {
        Finding { weight: Weight::Note, name, what: what.into(), help }
    }

    /// In two lines.
    pub(crate) fn told(&self) -> String {
        let weight = match self.weight {
            Weight::Blocker => "BLOCKER",
            Weight::Note => "note   ",
        };
        format!("{weight}  {}: {}\n         {}", self.name, self.what, self.help)
    }
}

/// A question to one server, in the database itself; each row of the answer names something that is found.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) weight: Weight,
    pub(crate) name: &'static str,
    /// Whom to ask.
    pub(crate) on: Side,
    pub(crate) sql: &'static str,
    pub(crate) help: &'static str,
}

impl Check {
    /// What the rows of the answer come to.
    pub(crate) fn finding(&self, rows: &[String]) -> Option<Finding> {
        if rows.is_empty() {
            return None;
        }
        let mut named: Vec<_> = rows.iter().take(NAMED_MAX).map(String::as_str).collect();
        let more = rows.len().saturating_sub(NAMED_MAX);
        let rest = format!("and {more} more");
        if more > 0 {
            named.push(&rest);
        }
        Some(Finding { weight: self.weight, name: self.name, what: named.join("; "), help: self.help })
    }
}

const fn blocker(name: &'static str, on: Side, sql: &'static str, help: &'static str) -> Check {
    Check { weight: Weight::Blocker, name, on, sql, help }
}

const fn note(name: &'static str, on: Side, sql: &'static str, help: &'static str) -> Check {
    Check { weight: Weight::Note, name, on, sql, help }
}

/// Ordinary tables of the database's own, and the name by which they are told.
macro_rules! tables {
    ($what:literal) => {
        concat!(
            "SELECT format('%I.%I', n.nspname, c.relname)",
            $what,
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind = 'r' AND c.oid >= 16384 AND n.nspname <> 'groove_migration' "
        )
    };
}

/// Of a table `c`: no key by which a row could be found.
macro_rules! keyless {
    () => {
        "AND c.relpersistence = 'p' AND (c.relreplident = 'f' OR c.relreplident IN ('d', 'n') AND NOT EXISTS \
         (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary AND i.indimmediate AND i.indisvalid \
         AND c.relreplident = 'd')) "
    };
}

/// Tables whose rows have to be told by all of their columns, and whose identity says otherwise yet.
pub(crate) const KEYLESS: &str = concat!(
    "SELECT format('%I.%I', n.nspname, c.relname), c.relreplident FROM pg_class c JOIN pg_namespace n \
     ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.oid >= 16384 AND n.nspname <> 'groove_migration' \
     AND c.relreplident <> 'f' ",
    keyless!()
);

/// Extensions and their versions.
pub(crate) const EXTENSIONS: &str = "SELECT extname, extversion FROM pg_extension";
/// Those that may be created.
pub(crate) const AVAILABLE: &str = "SELECT name, version FROM pg_available_extension_versions";
/// How texts are sorted in the database.
pub(crate) const LOCALES: &str = "SELECT datcollate FROM pg_database WHERE datname = current_database() \
    UNION SELECT datctype FROM pg_database WHERE datname = current_database()";
/// How they can be sorted.
pub(crate) const KNOWN_LOCALES: &str = "SELECT collcollate FROM pg_collation WHERE collcollate IS NOT NULL \
    UNION SELECT datcollate FROM pg_database UNION SELECT datctype FROM pg_database";
/// Which of these roles are superusers: a list is put in the place of `$1`.
pub(crate) const SUPERUSERS: &str = "SELECT rolname FROM pg_roles WHERE rolsuper AND rolname IN ($1)";

/// What every server is asked.
pub(crate) const OF_SERVER: &[(&str, &str, &str)] = &[
    (
        "superuser",
        "SELECT current_user || ' is none' FROM pg_roles WHERE rolname = current_user AND NOT rolsuper",
        "name a superuser as `migration: {user: …}` (`target_user` for the target)",
    ),
    ("primary", "SELECT 'it is a replica' WHERE pg_is_in_recovery()", "name the primary"),
    (
        "wal_level",
        "SELECT 'wal_level is ' || setting FROM pg_settings WHERE name = 'wal_level' AND setting <> 'logical'",
        "ALTER SYSTEM SET wal_level = logical, and restart the server (the target's is for the way back)",
    ),
    (
        "replication slots",
        "SELECT format('%s of max_replication_slots (%s) are free, 4 are needed', \
      s.setting::int - u.n, s.setting) FROM pg_settings s, (SELECT count(*)::int AS n FROM pg_replication_slots) u \
      WHERE s.name = 'max_replication_slots' AND s.setting::int - u.n < 4",
        "raise max_replication_slots and restart the server, or drop slots that nobody uses",
    ),
    (
        "walsenders",
        "SELECT format('%s of max_wal_senders (%s) are free, 4 are needed', s.setting::int - u.n, s.setting) \
      FROM pg_settings s, (SELECT count(*)::int AS n FROM pg_stat_replication) u \
      WHERE s.name = 'max_wal_senders' AND s.setting::int - u.n < 4",
        "raise max_wal_senders and restart the server",
    ),
    (
        "workers",
        "SELECT format('%s is %s', name, setting) FROM pg_settings \
      WHERE name IN ('max_logical_replication_workers', 'max_worker_processes') AND setting::int < 4",
        "raise it to 4 or more and restart the server",
    ),
];

/// What the source is asked in the database.
pub(crate) const CHECKS: &[Check] = &[
    blocker(
        "prepared transactions",
        Side::Source,
        "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()",
        "COMMIT PREPARED or ROLLBACK PREPARED each: a prepared transaction cannot move",
    ),
    blocker(
        "large objects",
        Side::Source,
        "SELECT count(*) || ' of them' FROM pg_largeobject_metadata HAVING count(*) > 0",
        "they are not replicated: move them into bytea columns, or remove those that nobody uses (vacuumlo)",
    ),
    blocker(
        "unlogged tables",
        Side::Source,
        concat!(tables!(""), "AND c.relpersistence = 'u'"),
        "they would arrive empty: ALTER TABLE … SET LOGGED, or drop them",
    ),
    blocker(
        "temporary tables",
        Side::Source,
        "SELECT format('%I of a session of %s', c.relname, pg_get_userbyid(c.relowner)) FROM pg_class c \
         WHERE c.relkind = 'r' AND c.relpersistence = 't'",
        "a session that has one keeps its server connection, and the gate cannot close: end it, or drop the table",
    ),
    blocker(
        "old transactions",
        Side::Source,
        "SELECT format('process %s (%s, %s) since %s', pid, usename, state, date_trunc('second', xact_start)) \
         FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() \
         AND backend_type = 'client backend' AND xact_start < clock_timestamp() - interval '1 minute'",
        "the copy waits for transactions that are under way: let them end, or pg_terminate_backend(pid)",
    ),
    blocker(
        "triggers that fire on replicas",
        Side::Source,
        "SELECT format('%I on %s', t.tgname, t.tgrelid::regclass) FROM pg_trigger t \
         WHERE NOT t.tgisinternal AND t.tgenabled IN ('A', 'R')",
        "they would fire a second time for rows that are replicated: ALTER TABLE … ENABLE TRIGGER (without ALWAYS or REPLICA)",
    ),
    blocker(
        "rules that apply on replicas",
        Side::Source,
        "SELECT format('%I on %s', r.rulename, r.ev_class::regclass) FROM pg_rewrite r \
         WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('A', 'R')",
        "they would apply a second time: ALTER TABLE … ENABLE RULE (without ALWAYS or REPLICA)",
    ),
    blocker(
        "no key, and a column that cannot be compared",
        Side::Source,
        concat!(
            "SELECT format('%I.%I (%I %s)', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod)) \
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
         JOIN pg_type y ON y.oid = a.atttypid LEFT JOIN pg_type e ON e.oid = y.typelem AND y.typlen = -1 AND y.typsubscript = \
         'array_subscript_handler'::regproc, \
         LATERAL (SELECT coalesce(nullif(e.typbasetype, 0), e.oid, nullif(y.typbasetype, 0), y.oid) AS base, \
         coalesce(e.typtype, y.typtype) AS kind) b \
         WHERE c.relkind = 'r' AND c.oid >= 16384 AND n.nspname <> 'groove_migration' AND a.attnum > 0 AND NOT a.attisdropped \
         AND b.kind NOT IN ('e', 'r', 'm', 'c') AND NOT EXISTS (SELECT FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod \
         WHERE o.opcdefault AND m.amname IN ('btree', 'hash') AND (o.opcintype = b.base OR EXISTS (SELECT FROM pg_cast k \
         WHERE k.castsource = b.base AND k.casttarget = o.opcintype AND k.castmethod = 'b'))) ",
            keyless!()
        ),
        "updates and deletes could not find their rows: add a primary key",
    ),
    blocker(
        "no key, and a generated column",
        Side::Source,
        concat!(
            "SELECT DISTINCT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n \
         ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid \
         WHERE c.relkind = 'r' AND c.oid >= 16384 AND n.nspname <> 'groove_migration' AND a.attgenerated <> '' \
         AND NOT a.attisdropped ",
            keyless!()
        ),
        "since PostgreSQL 18 updates of such a table that is published fail: add a primary key",
    ),
    blocker(
        "subscriptions",
        Side::Source,
        "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid WHERE d.datname = current_database()",
        "what this database gets from elsewhere would stop: move the subscription first, or drop it",
    ),
    blocker(
        "logical slots",
        Side::Source,
        "SELECT format('%s (%s)', slot_name, plugin) FROM pg_replication_slots WHERE database = current_database()",
        "who follows this database would stay with the old server: end that, or drop the slot",
    ),
    blocker(
        "left behind",
        Side::Source,
        "SELECT 'schema groove_migration' FROM pg_namespace WHERE nspname = 'groove_migration'",
        "a migration that this folder knows nothing of: finish it from where it was begun, or DROP SCHEMA groove_migration CASCADE",
    ),
    note(
        "no key",
        Side::Source,
        concat!(tables!(""), keyless!()),
        "REPLICA IDENTITY FULL is set while the migration lasts: updates and deletes are slow to replicate, a primary key helps",
    ),
    note(
        "materialized views",
        Side::Source,
        "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind = 'm' AND c.oid >= 16384",
        "they are refreshed once, when the rows are there; what is refreshed on one side is not on the other",
    ),
    note(
        "publications",
        Side::Source,
        "SELECT pubname FROM pg_publication",
        "they are not taken along: create them on the target",
    ),
    note(
        "tablespaces",
        Side::Source,
        "SELECT format('%s in %I', c.oid::regclass, t.spcname) FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace \
         WHERE c.oid >= 16384 AND c.relkind IN ('r', 'i', 'p', 'm')",
        "everything arrives in the target's default tablespace",
    ),
    note(
        "kept WAL",
        Side::Source,
        "SELECT format('max_slot_wal_keep_size is %s%s', setting, unit) FROM pg_settings \
         WHERE name = 'max_slot_wal_keep_size' AND setting <> '-1'",
        "a copy that takes long may lose its slot, and then has to begin anew",
    ),
    note(
        "size",
        Side::Source,
        "SELECT pg_size_pretty(pg_database_size(current_database()))",
        "the target needs as much room, and the source some for the WAL of what changes meanwhile",
    ),
];

/// Extensions that the target lacks, or has in other versions only.
pub(crate) fn extensions(wanted: &[(String, String)], available: &[(String, String)]) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, version) in available {
        versions.entry(name).or_default().insert(version);
    }
    wanted
        .iter()
        .filter_map(|(name, version)| match versions.get(name.as_str()) {
            None => Some(Finding::blocker(
                "extensions",
                format!("{name} {version} is not available on the target"),
                "install it there, or drop it on the source",
            )),
            Some(versions) if !versions.contains(version.as_str()) => Some(Finding::note(
                "extensions",
                format!("{name} is {version} on the source and will be another version on the target"),
                "the target's default version is created",
            )),
            Some(_) => None,
        })
        .collect()
}

/// Locales that the target does not know.
pub(crate) fn locales(wanted: &[String], known: &[String]) -> Option<Finding> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['-', '_'], "");
    let known: BTreeSet<_> = known.iter().map(|name| plain(name)).collect();
    let always = ["C", "POSIX"];
    let missing: Vec<_> = wanted
        .iter()
        .filter(|name| !always.contains(&name.as_str()) && !known.contains(&plain(name)))
        .map(String::as_str)
        .collect();
    (!missing.is_empty()).then(|| {
        Finding::blocker(
            "locales",
            format!("the target does not know {}", missing.join(", ")),
            "install the locale on the target's machine and run pg_import_system_collations, then restart it",
        )
    })
}
