//! What is understood, what is refused, and what becomes of a text.

use proptest::prelude::*;

use super::*;
use crate::replicate::rewrite::{self, Place};
use crate::replicate::schema::{Column, Table};

fn write(text: &str) -> Write {
    match understand(text) {
        Ok(Statement::Write(write)) => *write,
        other => panic!("{text}: {other:?}"),
    }
}

fn made_up(name: &str, kind: &str, default: &str) -> Column {
    Column {
        name: name.to_owned(),
        kind: kind.to_owned(),
        default: Some(default.to_owned()),
        ..Column::default()
    }
}

fn table() -> Table {
    let plain = Column { name: "name".to_owned(), kind: "text".to_owned(), ..Column::default() };
    Table {
        columns: vec![
            made_up("id", "bigint", "nextval('s'::regclass)"),
            plain,
            made_up("at", "timestamptz", "now()"),
        ],
        primary: vec!["id".to_owned()],
        ..Table::default()
    }
}

/// The text as the members get it, with the numbers 1, 2, … for what is drawn.
fn rewritten(text: &str) -> Result<String, Refusal> {
    let write = write(text);
    let plan = rewrite::plan(text, &write, &table())?;
    let values: Vec<_> = (1..=plan.draws.len()).map(|number| Some(number.to_string())).collect();
    Ok(rewrite::edit(text, &plan, &values))
}

#[test]
fn what_members_would_make_up_is_written_into_the_text() {
    for (text, expected) in [
        (
            "INSERT INTO t (name) VALUES ('now()'), ($1)",
            "INSERT INTO t (name, \"id\", \"at\") VALUES ('now()', (E'1'::bigint), (E'2'::timestamptz)), ($1, (E'3'::bigint), (E'4'::timestamptz))",
        ),
        (
            "INSERT INTO t VALUES (5, 'a')",
            "INSERT INTO t (\"id\", \"name\", \"at\") VALUES (5, 'a', (E'1'::timestamptz))",
        ),
        (
            "insert into t as x (id, name, at) values (default, f(1, 2), current_timestamp(3))",
            "insert into t as x (id, name, at) values ((E'2'::bigint), f(1, 2), (E'1'::timestamptz))",
        ),
        (
            "INSERT INTO t DEFAULT VALUES",
            "INSERT INTO t (\"id\", \"at\") VALUES ((E'1'::bigint), (E'2'::timestamptz))",
        ),
        (
            "UPDATE t SET at = pg_catalog.now() -- now()\n WHERE id = 3",
            "UPDATE t SET at = (E'1'::timestamptz) -- now()\n WHERE id = 3",
        ),
        (
            "DELETE FROM t WHERE at < now() - interval '1 day'",
            "DELETE FROM t WHERE at < (E'1'::timestamptz) - interval '1 day'",
        ),
    ] {
        assert_eq!(rewritten(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    for text in [
        "UPDATE t SET name = gen_random_uuid()::text",
        "DELETE FROM t WHERE random() < 0.5",
        "INSERT INTO t (name) SELECT name FROM t",
        "INSERT INTO t (id, name, at) VALUES (1, (SELECT random()::text), now())",
        "INSERT INTO t (id, name, at) VALUES (nextval($1), 'a', now())",
        "INSERT INTO t (id, name, at) VALUES (1, 'a', now()) ON CONFLICT (id) DO UPDATE SET name = random()::text",
    ] {
        assert!(rewritten(text).is_err(), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in [
        "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
        "WITH new AS (INSERT INTO t VALUES (1) RETURNING *) UPDATE t SET name = 'a'",
        "EXPLAIN (ANALYZE) DELETE FROM t",
        "EXPLAIN ANALYZE DELETE FROM t",
        "SELECT * INTO u FROM t",
        "SELECT * FROM t FOR UPDATE SKIP LOCKED",
        "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE",
        "COPY t FROM STDIN",
        "CREATE TABLE u AS SELECT * FROM t",
        "CREATE UNLOGGED TABLE u (a int)",
        "CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION f()",
        "SET default_transaction_read_only = off",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "RESET role",
        "COMMIT PREPARED 'a'",
        "PREPARE TRANSACTION 'a'",
        "DO $$ BEGIN END $$",
        "VACUUM t",
        "SELECT 'open",
        "UPDATE t SET name = 'a' FROM",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "CREATE DATABASE d",
        "NOTIFY x",
    ] {
        assert!(understand(text).is_err(), "{text}: {:?}", understand(text));
    }
}

#[test]
fn statements_are_cut_where_they_end() {
    assert_eq!(
        split("a; b ;; -- c;\n ';' ; \"d;\" $x$;$x$").unwrap(),
        ["a", " b ", " -- c;\n ';' ", " \"d;\" $x$;$x$"]
    );
    assert!(split("SELECT 'open").is_err());
    assert_eq!(
        understand("begin isolation level repeatable read, read only"),
        Ok(Statement::Begin(Modes { is_read_only: Some(true), level: Some(Level::Repeatable) }))
    );
    assert_eq!(
        understand("set local time zone 'UTC'"),
        Ok(Statement::Set { name: "timezone".to_owned(), is_local: true })
    );
    assert_eq!(understand("ROLLBACK TO SAVEPOINT a"), Ok(Statement::RollbackTo));
}

proptest! {
    /// Nothing makes it panic, and nothing that is drawn is left in a text that is accepted.
    #[test]
    fn whatever_stands_in_a_value_is_drawn_or_refused(
        values in proptest::collection::vec(prop_oneof![
            Just("now()"), Just("'now()'"), Just("random() * 2"), Just("coalesce($1, now())"), Just("nextval('s')"),
            Just("DEFAULT"), Just("\"now\""), Just("(CURRENT_DATE)"), Just("E'\\'now()'"), Just("$q$random()$q$"), Just("f(now(), 1)"),
        ], 3),
        odd in "[ -~]{0,20}",
    ) {
        let _refused_or_not = understand(&odd);
        let text = format!("INSERT INTO t (id, name, at) VALUES ({}) ON CONFLICT DO NOTHING", values.join(","));
        if let Ok(Statement::Write(write)) = understand(&text)
            && let Ok(plan) = rewrite::plan(&text, &write, &table())
        {
            let values: Vec<_> = plan.draws.iter().map(|_| Some("1".to_owned())).collect();
            let edited = rewrite::edit(&text, &plan, &values);
            prop_assert_eq!(rewrite::calls(&edited), Some(Vec::new()), "{}", edited);
            prop_assert!(matches!(understand(&edited), Ok(Statement::Write(_))), "{}", edited);
            prop_assert!(plan.draws.iter().all(|draw| matches!(draw.place, Place::Instead(_))));
        }
    }
}
