//! What a database may have in it.

use anyhow::{Result, ensure};
use tokio::task::spawn_blocking;

use super::Stage;
use crate::{connect, run, text};

/// Each of these stands in the way.
const BLOCKED: &str = "
    CREATE UNLOGGED TABLE cache (n int);
    CREATE TABLE documents (j json);
    CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED);
    CREATE TABLE watched (n int PRIMARY KEY);
    CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER always AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION watch();
    ALTER TABLE watched ENABLE ALWAYS TRIGGER always;
    SELECT lo_create(0);";

#[test]
fn what_stands_in_the_way_is_told_at_once_and_nothing_is_touched() -> Result<()> {
    run(async {
        let stage = Stage::bare(8)?;
        stage.source.sql("shop", BLOCKED)?;
        // A slot waits for transactions that are under way, so it comes first.
        stage.source.sql("shop", "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")?;
        stage.source.sql("shop", "BEGIN; INSERT INTO watched VALUES (1); PREPARE TRANSACTION 'half'")?;
        stage.target.sql("postgres", "CREATE DATABASE shop")?;
        let client = connect(&stage.proxy, "shop").await?;
        client.batch_execute("CREATE TEMP TABLE mine (n int)").await?;
        let before = stage.source.sql("shop", "SELECT count(*) FROM pg_class")?;
        let said = spawn_blocking(move || {
            let said = stage.refused("plan", &[])?;
            ensure!(stage.refused("start", &[])?.contains("nothing has been touched"));
            ensure!(stage.source.sql("shop", "SELECT count(*) FROM pg_class")? == before);
            ensure!(stage.migrate("status", &[])?.status.success());
            Ok::<_, anyhow::Error>(said)
        })
        .await??;
        for named in [
            "unlogged tables: public.cache",
            "public.documents (j json)",
            "a generated column: public.computed",
            "triggers that fire on replicas: always on public.watched",
            "large objects: 1 of them",
            "prepared transactions: half",
            "logical slots: theirs (pgoutput)",
            "temporary tables: mine of a session of app",
            "target database: the target has a database \"shop\" already",
            "9 things stand in the way",
        ] {
            ensure!(said.contains(named), "{named} is not named:\n{said}");
        }
        Ok(())
    })
}

#[test]
fn a_configuration_that_cannot_be_moved_says_why() -> Result<()> {
    let stage = Stage::bare(4)?;
    let said = stage.refused("plan", &["--mode", "physical"])?;
    ensure!(said.contains("--mode physical is not there yet"), "{said}");
    let own = stage.proxy.address().to_string();
    let file = stage.proxy.folder().join("other.yaml");
    std::fs::write(
        &file,
        format!(
            "listeners: [{{address: {own}}}]\nadmin: {{address: {}}}\n\
             databases: {{shop: {{endpoints: [127.0.0.1:1, 127.0.0.1:2], role: primary, tls: {{}}, \
             pool: {{mode: session}}}}}}\n\
             users: {{app: {{password: secret}}}}\nmigration: {{folder: {}}}\n",
            stage.proxy.admin(),
            stage.proxy.folder().join("migration").display()
        ),
    )?;
    let file = file.display().to_string();
    let arguments = ["migrate", "plan", "--config", &file, "--database", "shop", "--to", "127.0.0.1:3"];
    let output = harness::Kind::Postgres.run(&arguments)?;
    let said = super::text(&output.stdout);
    ensure!(!output.status.success());
    for named in ["endpoints: ", "role: ", "tls: ", "pool mode: "] {
        ensure!(said.contains(&format!("BLOCKER  {named}")), "{named} is not named:\n{said}");
    }
    Ok(())
}

/// Everything that can be moved.
const MOVABLE: &str = "
    CREATE ROLE readers; CREATE ROLE \"odd; role\" LOGIN PASSWORD 'secret'; GRANT readers TO \"odd; role\" WITH ADMIN OPTION;
    ALTER DATABASE shop SET search_path TO \"$user\", public, other; ALTER DATABASE shop SET work_mem TO '7MB';
    ALTER ROLE app IN DATABASE shop SET statement_timeout TO '1min'; GRANT TEMP ON DATABASE shop TO readers;
    CREATE SCHEMA other AUTHORIZATION app; CREATE SCHEMA \"odd schema\";
    CREATE SEQUENCE other.unowned INCREMENT 7 START 100; SELECT nextval('other.unowned'), nextval('other.unowned');
    CREATE SEQUENCE cycled MAXVALUE 3 CYCLE; SELECT nextval('cycled'), nextval('cycled'), nextval('cycled'), nextval('cycled');
    CREATE SEQUENCE unused MINVALUE -5 MAXVALUE -1 INCREMENT -1;
    CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE nokey (n int, m mood, r int4range, t text[], v varchar(5), d positive); INSERT INTO nokey VALUES
        (1, 'good', '[1,2)', '{a,b}', 'x', 1), (1, 'good', '[1,2)', '{a,b}', 'x', 1), (NULL, NULL, NULL, NULL, NULL, NULL);
    CREATE TABLE identities (id int GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 5) PRIMARY KEY, a int NOT NULL,
        twice int GENERATED ALWAYS AS (a * 2) STORED, at timestamptz DEFAULT now());
    INSERT INTO identities (a) SELECT generate_series(1, 50);
    CREATE TABLE parts (id bigserial, day date NOT NULL, what text, PRIMARY KEY (id, day, what)) PARTITION BY RANGE (day);
    CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
    CREATE TABLE parts_new PARTITION OF parts FOR VALUES FROM ('2021-01-01') TO ('2030-01-01') PARTITION BY LIST (what);
    CREATE TABLE parts_new_a PARTITION OF parts_new FOR VALUES IN ('a'); CREATE TABLE parts_rest PARTITION OF parts_new DEFAULT;
    CREATE INDEX ON parts (what); INSERT INTO parts (day, what) SELECT date '2020-06-01' + i * 30, 'abc' FROM generate_series(0, 30) i;
    CREATE TABLE parents (id int PRIMARY KEY, u text UNIQUE DEFERRABLE); CREATE TABLE children (id int PRIMARY KEY,
        parent int REFERENCES parents ON DELETE CASCADE, CHECK (id < 1000)); INSERT INTO parents VALUES (1, 'x'), (2, 'y');
    INSERT INTO children VALUES (10, 1), (20, 2); CREATE TABLE audit (n bigserial PRIMARY KEY, what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.audit (what) VALUES (tg_op); RETURN NULL; END';
    CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON children FOR EACH ROW EXECUTE FUNCTION note();
    CREATE MATERIALIZED VIEW totals AS SELECT what, count(*) FROM parts GROUP BY what; CREATE UNIQUE INDEX ON totals (what);
    CREATE VIEW \"odd schema\".\"a view\" AS SELECT * FROM nokey WHERE n > 0;
    CREATE TABLE \"odd schema\".\"odd; table\" (\"a key\" text PRIMARY KEY, b bytea, j jsonb, f float8, i interval, x numeric);
    INSERT INTO \"odd schema\".\"odd; table\" VALUES ('é''\"', '\\xdeadbeef', '{\"a\": 1}', 0.1, '1 mon 2 days', 12345678901234567890.5);
    ALTER TABLE children ENABLE ROW LEVEL SECURITY; CREATE POLICY visible ON children TO app USING (id > 0);
    CREATE RULE quiet AS ON DELETE TO audit DO INSTEAD NOTHING; COMMENT ON TABLE audit IS 'it''s a log';
    GRANT SELECT ON ALL TABLES IN SCHEMA public TO readers; GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app; ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO readers;
    CREATE STATISTICS stats ON day, what FROM parts; ANALYZE; CREATE PUBLICATION theirs FOR TABLE audit;";

/// What there is in a database, in a form that both releases have in common.
const CONTENTS: &[&str] = &[
    "SELECT c.relkind, c.oid::regclass, pg_get_userbyid(c.relowner), c.relrowsecurity, \
     (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM aclexplode(c.relacl) e, LATERAL (SELECT \
     e.grantee::regrole::text || e.privilege_type) a(a) WHERE e.privilege_type <> 'MAINTAIN') FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_|^information_schema|^groove'",
    "SELECT indexrelid::regclass, pg_get_indexdef(indexrelid), indisvalid FROM pg_index WHERE indexrelid >= 16384",
    "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype <> 'n' \
     AND oid >= 16384",
    "SELECT tgrelid::regclass, pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE NOT tgisinternal",
    "SELECT polname, polrelid::regclass, pg_get_expr(polqual, polrelid) FROM pg_policy",
    "SELECT statistics_name, attnames FROM pg_stats_ext",
    "SELECT schemaname, viewname FROM pg_views WHERE schemaname !~ '^pg_|^information_schema'",
    "SELECT schemaname, sequencename, data_type, start_value, min_value, max_value, increment_by, cycle, last_value \
     FROM pg_sequences",
    "SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attidentity, attgenerated FROM pg_attribute \
     WHERE attrelid >= 16384 AND attnum > 0 AND NOT attisdropped AND attrelid::regclass::text !~ 'groove'",
    "SELECT * FROM totals",
    "SELECT setrole::regrole, unnest(setconfig) FROM pg_db_role_setting WHERE setdatabase <> 0",
    "SELECT obj_description('audit'::regclass)",
    "SELECT a.rolname, m.rolname, x.admin_option FROM pg_auth_members x JOIN pg_roles a ON a.oid = x.roleid \
     JOIN pg_roles m ON m.oid = x.member WHERE a.rolname = 'readers'",
    "SELECT grantee::regrole, privilege_type FROM pg_database, aclexplode(datacl) WHERE datname = 'shop'",
];

#[test]
fn everything_that_can_be_moved_arrives() -> Result<()> {
    run(async {
        let stage = Stage::bare(8)?;
        stage.source.sql("shop", MOVABLE)?;
        let stage = spawn_blocking(move || {
            stage.done("start", &[])?;
            let said = stage.done("cutover", &[])?;
            ensure!(said.contains("are the same on both"), "{said}");
            Ok::<_, anyhow::Error>(stage)
        })
        .await??;
        for query in CONTENTS {
            let sorted = |server: &harness::Postgres| {
                let rows = server.sql("shop", query)?;
                let is_own = |row: &&str| !row.contains("pg_toast");
                let mut rows: Vec<_> = rows.lines().filter(is_own).map(str::to_owned).collect();
                rows.sort();
                Ok::<_, anyhow::Error>(rows)
            };
            let (source, target) = (sorted(&stage.source)?, sorted(&stage.target)?);
            assert!(!source.is_empty(), "{query}");
            assert_eq!(source, target, "{query}");
        }
        // Writes on the new server, and they come back.
        let client = connect(&stage.proxy, "shop").await?;
        assert_eq!(text(&client, "SELECT nextval('cycled')").await?, "2");
        client.batch_execute("UPDATE nokey SET n = 2 WHERE n = 1; DELETE FROM nokey WHERE n IS NULL").await?;
        client
            .batch_execute("INSERT INTO identities (a) VALUES (51); INSERT INTO children VALUES (30, 1)")
            .await?;
        assert_eq!(text(&client, "SELECT max(id) FROM identities").await?, "255");
        spawn_blocking(move || {
            let said = stage.done("rollback", &[])?;
            ensure!(said.contains("are the same on both"), "{said}");
            stage.done("finish", &[])?;
            Stage::is_clean_but_for(&stage.source, "publication theirs")?;
            let audit = "SELECT count(*) FROM audit WHERE what = 'INSERT'";
            ensure!(stage.source.sql("shop", audit)? == "1", "a trigger has fired once for each row");
            let next = stage.source.sql("shop", "SELECT nextval('cycled')")?;
            ensure!(next == "3", "the sequence goes on with {next}");
            Ok::<_, anyhow::Error>(())
        })
        .await??;
        Ok(())
    })
}
