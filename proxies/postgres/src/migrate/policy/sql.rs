//! The texts that a migration says to its servers. What is not fixed is quoted here and nowhere else.

use super::phase::{Journal, Side};

/// What all connections of a migration call themselves: who is not called so is somebody else.
pub(crate) const NAME: &str = "groove migration";
/// The schema with what a migration needs in the database itself.
pub(crate) const SCHEMA: &str = "groove_migration";

/// A name.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    match quoted.contains('\\') {
        true => format!("E'{}'", quoted.replace('\\', "\\\\")),
        false => format!("'{quoted}'"),
    }
}

/// What makes a session of ours independent of defaults of the role and the database, and lets it change the schema.
pub(crate) const SESSION: &str = "\
    SET search_path = pg_catalog; SET groove.allow_ddl = 'on'; SET default_transaction_read_only = off; \
    SET statement_timeout = 0; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 0; \
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
    SET bytea_output = 'hex'; SET client_min_messages = warning; SET synchronous_commit = on";

/// The schema, with the row that carries the exact marker.
pub(crate) const MAKE_SCHEMA: &str = "\
    CREATE SCHEMA IF NOT EXISTS groove_migration; \
    CREATE TABLE IF NOT EXISTS groove_migration.beat (id int PRIMARY KEY, n bigint NOT NULL, at timestamptz NOT NULL)";

/// Its row. On the target it comes with the copy.
pub(crate) const MAKE_BEAT: &str =
    "INSERT INTO groove_migration.beat VALUES (1, 0, now()) ON CONFLICT DO NOTHING";

/// Everybody but us is refused to change the schema. Temporary objects and refreshes are let through. What is done
/// concurrently has begun by the time that it is seen at its end, so that it is refused at its beginning.
pub(crate) const FREEZE: &str = "\
    CREATE OR REPLACE FUNCTION groove_migration.freeze() RETURNS event_trigger LANGUAGE plpgsql AS $groove$ \
    DECLARE r record; \
    BEGIN \
      IF pg_catalog.current_setting('groove.allow_ddl', true) = 'on' THEN RETURN; END IF; \
      IF tg_event = 'ddl_command_start' THEN \
        IF pg_catalog.current_query() !~* 'concurrently' THEN RETURN; END IF; \
      ELSIF tg_event = 'sql_drop' THEN \
        PERFORM 1 FROM pg_catalog.pg_event_trigger_dropped_objects() WHERE NOT is_temporary AND original; \
        IF NOT FOUND THEN RETURN; END IF; \
      ELSE \
        IF tg_tag = 'REFRESH MATERIALIZED VIEW' THEN RETURN; END IF; \
        PERFORM 1 FROM pg_catalog.pg_event_trigger_ddl_commands() WHERE schema_name IS DISTINCT FROM 'pg_temp'; \
        IF NOT FOUND THEN RETURN; END IF; \
      END IF; \
      RAISE EXCEPTION 'the schema is frozen while the database moves to another server: %', tg_tag \
        USING ERRCODE = '55006', HINT = 'Wait for groove-postgres migrate finish.'; \
    END $groove$; \
    DROP EVENT TRIGGER IF EXISTS groove_freeze_start; DROP EVENT TRIGGER IF EXISTS groove_freeze_end; \
    DROP EVENT TRIGGER IF EXISTS groove_freeze_drop; \
    CREATE EVENT TRIGGER groove_freeze_start ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'DROP INDEX') \
      EXECUTE FUNCTION groove_migration.freeze(); \
    CREATE EVENT TRIGGER groove_freeze_end ON ddl_command_end EXECUTE FUNCTION groove_migration.freeze(); \
    CREATE EVENT TRIGGER groove_freeze_drop ON sql_drop EXECUTE FUNCTION groove_migration.freeze()";

/// Takes that back, and the schema away.
pub(crate) const UNFREEZE: &str = "\
    DROP EVENT TRIGGER IF EXISTS groove_freeze_start; DROP EVENT TRIGGER IF EXISTS groove_freeze_end; \
    DROP EVENT TRIGGER IF EXISTS groove_freeze_drop; DROP SCHEMA IF EXISTS groove_migration CASCADE";

/// Whoever is in this database and is neither us nor replication nor the server itself.
macro_rules! others {
    () => {
        "datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'groove migration' \
         AND backend_type NOT IN ('autovacuum worker', 'parallel worker', 'walsender') \
         AND backend_type NOT LIKE 'logical replication%'"
    };
}

/// Who they are.
pub(crate) const OTHERS: &str = concat!(
    "SELECT pid, format('%s (%s, %s)', usename, nullif(application_name, ''), \
     coalesce(host(client_addr), backend_type)) FROM pg_stat_activity WHERE ",
    others!()
);

/// Ends them.
pub(crate) const END_OTHERS: &str =
    concat!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ", others!());

/// How many of them may still do something, and transactions that are prepared. Asked once they were told to end: who is
/// idle then is as good as gone, as it looks for that before it runs anything. Who is about to get in, past the bound on
/// connections before it was lowered, is not among the sessions yet, but holds the lock of a login.
pub(crate) const LEFT: &str = concat!(
    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE state IS DISTINCT FROM 'idle' AND ",
    others!(),
    ") + (SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_database'::regclass \
     AND objid = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()), \
     (SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database())"
);

/// How many may connect; 0 is a fence that only superusers get past, and -1 none.
pub(crate) fn limit(dbname: &str, connections: i64) -> String {
    format!("ALTER DATABASE {} CONNECTION LIMIT {connections}", ident(dbname))
}

/// Every sequence, whatever it belongs to: its name quoted, and as text.
pub(crate) const SEQUENCES: &str = "\
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'S' AND c.relpersistence <> 't' ORDER BY 1";

/// Where all of them are, in one query.
pub(crate) fn read_sequences(names: &[String]) -> Option<String> {
    let parts: Vec<_> = names
        .iter()
        .map(|name| format!("SELECT {}, last_value, is_called FROM {name}", literal(name)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(" UNION ALL "))
}

/// Puts all of them there.
pub(crate) fn set_sequences(values: &[(String, String, bool)]) -> Option<String> {
    let parts: Vec<_> = values
        .iter()
        .map(|(name, value, is_called)| format!("setval({}, {value}, {is_called})", literal(name)))
        .collect();
    // An expression list has a bound (1664 columns).
    let queries: Vec<_> = parts.chunks(1000).map(|parts| format!("SELECT {}", parts.join(", "))).collect();
    (!queries.is_empty()).then(|| queries.join("; "))
}

/// Tables with rows of their own, by name.
pub(crate) const TABLES: &str = "\
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname <> 'groove_migration' ORDER BY 1";

/// How many rows a table has, and the sum of their hashes.
pub(crate) fn checksum(table: &str) -> String {
    format!(
        "SELECT count(*), coalesce(sum(hashtextextended(t::text COLLATE \"C\", 0)::numeric), 0) FROM ONLY {table} t"
    )
}

impl Journal {
    /// Publishes everything on a side.
    pub(crate) fn publish(&self, on: Side) -> String {
        format!("CREATE PUBLICATION {} FOR ALL TABLES", ident(&self.publication(on)))
    }

    /// The subscription that copies.
    pub(crate) fn subscribe(&self, connection: &str) -> String {
        format!(
            "CREATE SUBSCRIPTION {name} CONNECTION {} PUBLICATION {name} \
             WITH (copy_data = true, disable_on_error = true)",
            literal(connection),
            name = ident(&self.subscription(Side::Target)),
        )
    }

    /// The subscription of the way back, which begins when it is told where.
    pub(crate) fn subscribe_back(&self, connection: &str) -> String {
        let name = self.subscription(Side::Source);
        format!(
            "CREATE SUBSCRIPTION {ident} CONNECTION {} PUBLICATION {ident} WITH (create_slot = false, slot_name = {}, \
             copy_data = false, enabled = false, disable_on_error = true)",
            literal(connection),
            literal(&name),
            ident = ident(&name),
        )
    }

    /// Where a side's subscription goes on, if it does not run yet.
    pub(crate) fn advance(&self, on: Side, lsn: &str) -> String {
        format!(
            "SELECT pg_replication_origin_advance('pg_' || oid::text, {}::pg_lsn) FROM pg_subscription \
             WHERE subname = {} AND NOT subenabled",
            literal(lsn),
            literal(&self.subscription(on))
        )
    }
}
