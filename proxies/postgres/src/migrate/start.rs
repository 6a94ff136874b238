//! From nothing to a copy that follows, under load: schema and keys, then the rows, then the rest and the way back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;
use xxhash_rust::xxh3::xxh3_64;

use super::fault::{Outcome, refused};
use super::files::Kept;
use super::node::Node;
use super::plan::Ground;
use super::policy::phase::{Journal, Phase, Side, VERSION};
use super::policy::progress::Progress;
use super::policy::sql::{self, SCHEMA, ident, literal};
use super::policy::{findings, listing, roles};
use super::recover::now;
use super::tools::Tools;
use super::work::Work;

/// Between two looks at a copy.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two lines about it.
const TELL_EVERY: Duration = Duration::from_secs(2);
/// As long may a table be waited for whose identity is changed: whoever wants it after us waits, too.
const LOCK_MAX: &str = "2s";
/// The setting that says how soon a subscription that is enabled begins. PostgreSQL's own 5 s would be seen.
pub(super) const RETRY: &str = "wal_retrieve_retry_interval";

/// Notes what is about to be changed, before anything is.
pub(super) async fn begin(work: &Work<'_>, ground: &Ground<'_>) -> Outcome<Kept> {
    let source = ground.login(Side::Source).connect(&ground.dbname).await?;
    let target = ground.login(Side::Target).connect("postgres").await?;
    let limit = "SELECT datconnlimit FROM pg_database WHERE datname = current_database()";
    let begun = now();
    let unlike = format!("{} {} {} {begun}", ground.database, ground.source, ground.target);
    let journal = Journal {
        version: VERSION,
        id: format!("{:08x}", xxh3_64(unlike.as_bytes()) >> 32),
        database: ground.database.clone(),
        names: ground.names.clone(),
        dbname: ground.dbname.clone(),
        source: ground.source.clone(),
        target: ground.target.clone(),
        begun,
        phase: Phase::Preparing,
        connection_limit: source.number(limit).await?,
        retry_interval: [written_retry(&source).await?, written_retry(&target).await?],
        identities: source.pairs(findings::KEYLESS).await?,
        made_database: true,
        cuts: Vec::new(),
    };
    work.folder.begin(journal).await
}

async fn written_retry(node: &Node) -> Outcome<Option<String>> {
    let sql = format!(
        "SELECT setting FROM pg_file_settings WHERE name = '{RETRY}' AND sourcefile LIKE '%postgresql.auto.conf'"
    );
    node.value(&sql).await
}

/// Makes everything that has to be there before the rows, and begins to copy them.
pub(super) async fn prepare(work: &Work<'_>, kept: &mut Kept, tools: &Tools) -> Outcome<()> {
    let journal = &kept.journal;
    let source = work.connect(journal, Side::Source).await?;
    let server = work.login(journal, Side::Target).connect("postgres").await?;
    for node in [&source, &server] {
        node.run(&format!("ALTER SYSTEM SET {RETRY} = '100ms'")).await?;
        node.run("SELECT pg_reload_conf()").await?;
    }
    source.run(&format!("SET lock_timeout = '{LOCK_MAX}'")).await?;
    for (table, _) in &journal.identities {
        source.run(&format!("ALTER TABLE ONLY {table} REPLICA IDENTITY FULL")).await?;
    }
    source.run("SET lock_timeout = 0").await?;
    source.run(sql::MAKE_SCHEMA).await?;
    source.run(sql::MAKE_BEAT).await?;
    source.run(sql::FREEZE).await?;
    work.say("the schema is frozen");
    let made = make_roles(work, journal, tools, &server).await?;
    work.say(format_args!("{made} statements for roles that the target lacked"));
    make_database(journal, &source, &server).await?;
    drop(server);
    let keys = restore_before(work, journal, tools, &source).await?;
    work.say(format_args!("tables and {keys} keys are there"));
    source.run(&journal.publish(Side::Source)).await?;
    let target = work.connect(journal, Side::Target).await?;
    let seen_as = work.migration.source_seen_as.as_ref();
    let conninfo = work.login(journal, Side::Source).conninfo(seen_as, &journal.dbname);
    target.run(&journal.subscribe(&conninfo)).await?;
    work.say("rows are copied");
    kept.change(|journal| journal.phase = Phase::Copying).await
}

async fn make_roles(work: &Work<'_>, journal: &Journal, tools: &Tools, server: &Node) -> Outcome<usize> {
    let dump = tools.roles(&work.login(journal, Side::Source)).await?;
    let there: BTreeSet<String> = server.column("SELECT rolname FROM pg_roles").await?.into_iter().collect();
    let statements = roles::missing(&dump, &there);
    for statement in &statements {
        server.run(statement).await?;
    }
    Ok(statements.len())
}

/// A database like the source's, which nobody but superusers gets into.
async fn make_database(journal: &Journal, source: &Node, server: &Node) -> Outcome<()> {
    let name = ident(&journal.dbname);
    let create = source
        .value(
            "SELECT format('OWNER %I TEMPLATE template0 ENCODING %L LC_COLLATE %L LC_CTYPE %L', \
             pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype) \
             FROM pg_database WHERE datname = current_database()",
        )
        .await?
        .unwrap_or_default();
    // The locale's column has another name since PostgreSQL 17.
    let icu = source
        .value(
            "SELECT coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale') FROM pg_database d \
             WHERE datname = current_database() AND datlocprovider = 'i'",
        )
        .await?;
    let icu =
        icu.map(|locale| format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(&locale))).unwrap_or_default();
    server.run(&format!("CREATE DATABASE {name} {create}{icu} CONNECTION LIMIT 0")).await?;
    // A list of names is written as it stands, anything else is a text.
    let settings = source
        .column(
            "SELECT format('ALTER %s SET %s TO %s', CASE WHEN setrole = 0 THEN format('DATABASE %I', current_database()) \
             ELSE format('ROLE %I IN DATABASE %I', pg_get_userbyid(setrole), current_database()) END, \
             split_part(c, '=', 1), CASE WHEN split_part(c, '=', 1) IN ('search_path', 'temp_tablespaces', \
             'local_preload_libraries', 'session_preload_libraries') THEN substr(c, strpos(c, '=') + 1) \
             ELSE quote_literal(substr(c, strpos(c, '=') + 1)) END) \
             FROM pg_db_role_setting s, unnest(setconfig) c \
             WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .await?;
    let rights = source
        .column(
            "SELECT format('GRANT %s ON DATABASE %I TO %s%s', privilege_type, datname, \
             CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END, \
             CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) \
             FROM pg_database, aclexplode(datacl) WHERE datname = current_database()",
        )
        .await?;
    let revoke = (!rights.is_empty()).then(|| format!("REVOKE ALL ON DATABASE {name} FROM PUBLIC"));
    for statement in settings.into_iter().chain(revoke).chain(rights) {
        server.run(&statement).await?;
    }
    Ok(())
}

/// Tables without rows, and primary keys: without these each change would look through all rows.
async fn restore_before(work: &Work<'_>, journal: &Journal, tools: &Tools, source: &Node) -> Outcome<usize> {
    let dump = work.file(journal, "dump");
    tools.dump(&work.login(journal, Side::Source), &journal.dbname, &dump).await?;
    let keys = source
        .pairs(
            "SELECT n.nspname, c.conname FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid \
             JOIN pg_namespace n ON n.oid = r.relnamespace WHERE c.contype = 'p'",
        )
        .await?;
    let parts = listing::divide(&tools.listing(&dump).await?, &keys);
    let list = work.file(journal, "list");
    for part in [&parts.before, &parts.keys] {
        run_part(work, journal, tools, (&list, part), "").await?;
    }
    std::fs::write(work.file(journal, "after"), &parts.after).or_else(|error| refused(error.to_string()))?;
    let target = work.connect(journal, Side::Target).await?;
    target.run(sql::MAKE_SCHEMA).await?;
    // What an extension has put into its tables comes with the copy.
    let own = target
        .column(
            "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' \
             WHERE c.relkind = 'r' AND c.oid >= 16384",
        )
        .await?;
    if !own.is_empty() {
        target.run(&format!("TRUNCATE {} CASCADE", own.join(", "))).await?;
    }
    Ok(keys.len())
}

/// Runs a part of the dump on the target, as one transaction with `also`.
async fn run_part(
    work: &Work<'_>,
    journal: &Journal,
    tools: &Tools,
    (list, entries): (&std::path::Path, &str),
    also: &str,
) -> Outcome<()> {
    std::fs::write(list, entries).or_else(|error| refused(format!("{}: {error}", list.display())))?;
    let script = tools.script(&work.file(journal, "dump"), list).await?;
    // It leaves its own settings behind.
    let target = work.connect(journal, Side::Target).await?;
    target.run(&format!("{}{also}", listing::without_psql(&script))).await
}

/// Waits until all rows are there, and tells how it goes.
pub(super) async fn copy(work: &Work<'_>, kept: &mut Kept) -> Outcome<()> {
    let journal = &kept.journal;
    let source = work.connect(journal, Side::Source).await?;
    let target = work.connect(journal, Side::Target).await?;
    let name = journal.subscription(Side::Target);
    let (mut progress, begun, mut told) = (Progress::default(), std::time::Instant::now(), None);
    loop {
        let look = Look::take(&source, &target, &name).await?;
        progress.note(begun.elapsed(), look.done, look.total);
        if !look.is_enabled {
            return refused(format!(
                "the subscription {name} has disabled itself: the target's log says why. Mend it, \
                 `ALTER SUBSCRIPTION {name} ENABLE` there, and `start` again; or `rollback` removes everything"
            ));
        }
        let is_due = told.is_none_or(|told: std::time::Instant| told.elapsed() >= TELL_EVERY);
        if is_due || look.left == 0 {
            work.say(format_args!(
                "{}; {} of {} tables",
                progress.told(),
                look.tables - look.left,
                look.tables
            ));
            told = Some(std::time::Instant::now());
        }
        if look.left == 0 {
            break;
        }
        sleep(LOOK_EVERY).await;
    }
    kept.change(|journal| journal.phase = Phase::Synced).await
}

/// A copy at one moment.
pub(super) struct Look {
    pub(super) tables: usize,
    /// Tables that do not follow yet.
    pub(super) left: usize,
    pub(super) is_enabled: bool,
    /// Bytes.
    pub(super) done: u64,
    pub(super) total: u64,
}

impl Look {
    pub(super) async fn take(source: &Node, target: &Node, subscription: &str) -> Outcome<Look> {
        let sizes = format!("SELECT t, pg_table_size(t::regclass) FROM ({}) x(t)", sql::TABLES);
        let sizes: BTreeMap<String, u64> = source
            .pairs(&sizes)
            .await?
            .into_iter()
            .filter_map(|(table, size)| Some((table, size.parse().ok()?)))
            .collect();
        let states = format!(
            "SELECT format('%I.%I', n.nspname, c.relname), r.srsubstate, coalesce(p.bytes_processed, 0) \
             FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid JOIN pg_class c ON c.oid = r.srrelid \
             JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_stat_progress_copy p ON p.relid = c.oid \
             WHERE s.subname = {}",
            literal(subscription)
        );
        let (mut done, mut left, mut tables) = (0, 0, 0);
        for row in target.rows(&states).await? {
            let mut row = row.into_iter().flatten();
            let (Some(table), Some(state), Some(bytes)) = (row.next(), row.next(), row.next()) else {
                continue;
            };
            let size = sizes.get(&table).copied().unwrap_or_default();
            tables += 1;
            done += match state.as_str() {
                "r" | "s" => size,
                _ => size.min(bytes.parse().unwrap_or_default()),
            };
            left += usize::from(state != "r");
        }
        let enabled =
            format!("SELECT 1 FROM pg_subscription WHERE subenabled AND subname = {}", literal(subscription));
        let is_enabled = target.has(&enabled).await?;
        Ok(Look { tables, left, is_enabled, done, total: sizes.values().sum() })
    }
}

/// Makes what comes after the rows, and the way back, before anybody may need it.
pub(super) async fn complete(work: &Work<'_>, kept: &mut Kept, tools: &Tools) -> Outcome<()> {
    let journal = &kept.journal;
    let target = work.connect(journal, Side::Target).await?;
    // Done in one transaction, so that it is there or not.
    let marked =
        format!("SELECT 1 WHERE obj_description('{SCHEMA}'::regnamespace, 'pg_namespace') = 'complete'");
    if !target.has(&marked).await? {
        let file = work.file(journal, "after");
        let entries = std::fs::read_to_string(&file)
            .or_else(|error| refused(format!("{}: {error}", file.display())))?;
        let also = format!("; COMMENT ON SCHEMA {SCHEMA} IS 'complete'");
        run_part(work, journal, tools, (&work.file(journal, "list"), &entries), &also).await?;
    }
    work.say("indexes, constraints and triggers are there");
    target.run("ANALYZE").await?;
    target.run(sql::FREEZE).await?;
    let (back, forward) = (journal.subscription(Side::Source), journal.subscription(Side::Target));
    if !target.has(&format!("SELECT 1 FROM pg_publication WHERE pubname = {}", literal(&back))).await? {
        target.run(&journal.publish(Side::Target)).await?;
    }
    if !target
        .has(&format!("SELECT 1 FROM pg_replication_slots WHERE slot_name = {}", literal(&back)))
        .await?
    {
        target
            .run(&format!("SELECT pg_create_logical_replication_slot({}, 'pgoutput')", literal(&back)))
            .await?;
    }
    let source = work.connect(journal, Side::Source).await?;
    if !source.has(&format!("SELECT 1 FROM pg_subscription WHERE subname = {}", literal(&back))).await? {
        let seen_as = work.migration.target_seen_as.as_ref();
        let conninfo = work.login(journal, Side::Target).conninfo(seen_as, &journal.dbname);
        source.run(&journal.subscribe_back(&conninfo)).await?;
    }
    work.say(format_args!("the way back is armed; {forward} follows"));
    kept.change(|journal| journal.phase = Phase::Ready { serving: Side::Source }).await
}
