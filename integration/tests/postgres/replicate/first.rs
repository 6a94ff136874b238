//! One client: what is written is on every member, the same, or it is refused and on none.

use anyhow::ensure;
use tokio_postgres::error::SqlState;

use super::Group;
use crate::{code, connect_as, run, text};

const TABLES: &str = "
CREATE TABLE items (id bigserial PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL DEFAULT now(),
    token uuid NOT NULL DEFAULT gen_random_uuid(), luck float8 NOT NULL DEFAULT random(), day date DEFAULT current_date);
CREATE TABLE numbered (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);
CREATE TABLE parts (id bigserial PRIMARY KEY, item bigint NOT NULL REFERENCES items ON DELETE CASCADE, note text);
CREATE TABLE loose (a int, b int);
CREATE TABLE watched (a int PRIMARY KEY);
CREATE FUNCTION ring() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER ring BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION ring();
CREATE FUNCTION dice() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 4';
";

#[test]
fn what_members_would_make_up_is_the_same_on_all() {
    run(async {
        let group = Group::start(TABLES)?;
        let client = connect_as(&group.proxy, "user=app dbname=shop").await?;
        client.batch_execute("INSERT INTO items (name) VALUES ('a'), ('b')").await?;
        client.batch_execute("INSERT INTO items (name, luck) VALUES ('c', random()), ('d', DEFAULT)").await?;
        client.batch_execute("INSERT INTO items VALUES (DEFAULT, 'e', clock_timestamp())").await?;
        client.batch_execute("INSERT INTO numbered (name) VALUES ('x'), ('y')").await?;
        client.batch_execute("INSERT INTO numbered DEFAULT VALUES").await?;
        client.batch_execute("UPDATE items SET at = now() + interval '1 day', day = current_date WHERE id < 3").await?;
        let rows = client
            .query("INSERT INTO items (name) VALUES ($1) RETURNING id, name", &[&"f"])
            .await?;
        ensure!(rows.len() == 1 && rows[0].len() == 2, "the proxy's own column is not the client's");
        let id: i64 = rows[0].get(0);
        client.execute("INSERT INTO parts (item, note) VALUES ($1, $2)", &[&id, &"wheel"]).await?;
        ensure!(text(&client, "SELECT nextval('items_id_seq')").await? == "7");
        client.batch_execute("BEGIN; INSERT INTO items (name) VALUES ('g'); SAVEPOINT s; INSERT INTO items (name) VALUES ('h');
            ROLLBACK TO s; UPDATE items SET name = 'i' WHERE name = 'g'; COMMIT").await?;
        client.batch_execute("BEGIN; INSERT INTO items (name) VALUES ('never'); ROLLBACK").await?;
        client.batch_execute("DELETE FROM items WHERE name = 'f'").await?;
        let all = "SELECT string_agg(i::text, ',' ORDER BY id) FROM items i";
        ensure!(group.agreed(all)?.matches("),").count() == 5, "{}", group.agreed(all)?);
        ensure!(group.agreed("SELECT count(*) FROM parts")? == "0", "the cascade");
        ensure!(group.agreed("SELECT string_agg(n::text, ',' ORDER BY id) FROM numbered n")? == "(1,x),(2,y),(3,)");
        group.agreed("SELECT last_value FROM items_id_seq")?;
        group.nothing_prepared()
    })
    .unwrap();
}

#[test]
fn what_would_differ_is_refused_before_anything_is_done() {
    run(async {
        let group = Group::start(TABLES)?;
        let client = connect_as(&group.proxy, "user=app dbname=shop").await?;
        client
            .batch_execute("INSERT INTO loose VALUES (1, 1), (2, 2); INSERT INTO items (name) VALUES ('a')")
            .await?;
        for refused in [
            "UPDATE items SET luck = random()",
            "INSERT INTO items (name) SELECT name FROM items",
            "UPDATE loose SET a = 3 WHERE a IN (SELECT a FROM loose LIMIT 1)",
            "UPDATE loose SET a = 3 WHERE a = (SELECT a FROM loose ORDER BY b LIMIT 1)",
            "DELETE FROM loose WHERE ctid = '(0,1)'",
            "INSERT INTO watched VALUES (1)",
            "UPDATE loose SET a = dice()",
            "SELECT set_config('x.y', '1', false)",
            "SELECT pg_advisory_lock(1)",
            "COPY loose FROM STDIN",
            "CREATE TEMP TABLE t (a int)",
            "CREATE INDEX CONCURRENTLY i ON loose (a)",
            "DO 'BEGIN END'",
            "LISTEN x",
            "PREPARE p AS SELECT 1",
            "SET ROLE postgres",
            "ALTER TABLE loose ADD COLUMN c float8 DEFAULT random()",
            "WITH gone AS (DELETE FROM loose RETURNING *) SELECT * FROM gone",
        ] {
            let seen = code(client.batch_execute(refused).await);
            ensure!(seen == SqlState::FEATURE_NOT_SUPPORTED, "{refused}: {seen:?}");
        }
        // A function that writes, in what looks like a read: the server itself says no.
        ensure!(
            code(client.batch_execute("SELECT setval('items_id_seq', 9)").await)
                == SqlState::FEATURE_NOT_SUPPORTED
        );
        ensure!(group.agreed("SELECT count(*), sum(a) FROM loose")? == "2|3");
        ensure!(group.agreed("SELECT count(*) FROM items")? == "1");
        ensure!(
            code(client.batch_execute("INSERT INTO nowhere VALUES (1)").await) == SqlState::UNDEFINED_TABLE
        );
        ensure!(
            code(client.batch_execute("INSERT INTO items (id, name) VALUES (1, 'a')").await)
                == SqlState::UNIQUE_VIOLATION
        );
        group.nothing_prepared()
    })
    .unwrap();
}

#[test]
fn definitions_are_on_all_members_and_known_at_once() {
    run(async {
        let group = Group::start(TABLES)?;
        let client = connect_as(&group.proxy, "user=app dbname=shop").await?;
        client.batch_execute("CREATE TABLE made (id serial PRIMARY KEY, at timestamptz DEFAULT now()); CREATE INDEX ON made (at)").await?;
        client.batch_execute("INSERT INTO made DEFAULT VALUES").await?;
        client.batch_execute("BEGIN; CREATE TABLE more (id serial PRIMARY KEY, a int); INSERT INTO more (a) VALUES (5); COMMIT").await?;
        client.batch_execute("ALTER TABLE more ADD COLUMN b text; TRUNCATE made; DROP TABLE loose").await?;
        client.batch_execute("SET TimeZone = 'Asia/Tokyo'; INSERT INTO more (a, b) VALUES (6, now()::text)").await?;
        ensure!(group.agreed("SELECT string_agg(m.id || ':' || a, ',' ORDER BY id) FROM more m")? == "1:5,2:6");
        ensure!(group.agreed("SELECT right(b, 3) FROM more WHERE a = 6")? == "+09");
        ensure!(group.agreed("SELECT count(*) FROM made")? == "0");
        ensure!(group.agreed("SELECT to_regclass('loose') IS NULL")? == "t");
        group.nothing_prepared()
    })
    .unwrap();
}
