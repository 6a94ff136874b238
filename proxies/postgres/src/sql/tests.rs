//! What texts are read to do, and that no text is read for more than it is.

use proptest::prelude::*;

use super::*;

fn leaves(text: &str) -> Kinds {
    read(text.as_bytes()).leaves
}

fn settings(text: &str) -> Vec<String> {
    read(text.as_bytes()).settings.iter().map(ToString::to_string).collect()
}

fn resets(text: &str) -> Vec<String> {
    read(text.as_bytes()).resets.iter().map(ToString::to_string).collect()
}

#[test]
fn most_texts_leave_nothing() {
    for text in [
        "",
        " ; ; ",
        "SELECT 1",
        "UPDATE t SET a = 1, temp = 2 WHERE b = 'SET x = 1; LISTEN y'",
        "SELECT temp, \"set\" FROM weather -- SET x = 1;\n/* ; LISTEN /* a */ b; LOAD 'c' */ ORDER BY 1",
        "SET LOCAL work_mem = '1MB'",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "SET CONSTRAINTS ALL DEFERRED",
        "SELECT set_config('a.b', $1, true), pg_catalog.set_config($1, $2, 't')",
        "SELECT pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)",
        "INSERT INTO t VALUES ($$;SET x = 1;$$, $a$;LISTEN b;$$;$a$, E'\\';LOAD ''x''', '\\')",
        "DECLARE c CURSOR WITHOUT HOLD FOR SELECT hold FROM t",
        "PREPARE TRANSACTION 'x'",
        "CREATE FUNCTION f() RETURNS int AS 'LISTEN x; SET y = 1' LANGUAGE sql",
    ] {
        assert_eq!(read(text.as_bytes()), Reading::default(), "{text}");
    }
    assert!(read(b"COMMIT").is_nothing() && read(b"BEGIN").is_nothing());
}

#[test]
fn what_may_stay_is_noticed_wherever_it_stands() {
    for (text, kinds) in [
        ("LISTEN a", Kinds::LISTENS),
        ("/* x */ listen a", Kinds::LISTENS),
        ("SELECT 1; LISTEN a", Kinds::LISTENS),
        ("CREATE TEMP TABLE t (a int)", Kinds::TEMPORARY),
        ("create or replace temporary view v as select 1", Kinds::TEMPORARY),
        ("SELECT 1 AS a INTO TEMP t", Kinds::TEMPORARY),
        ("CREATE TABLE pg_temp.t (a int)", Kinds::TEMPORARY),
        ("EXPLAIN ANALYZE CREATE TEMP TABLE t AS SELECT 1", Kinds::TEMPORARY),
        ("SELECT pg_advisory_lock(1)", Kinds::LOCKS),
        ("SELECT pg_catalog.\"pg_try_advisory_lock_shared\"(1)", Kinds::LOCKS),
        ("DECLARE c BINARY SCROLL CURSOR WITH HOLD FOR SELECT 1", Kinds::CURSORS),
        ("LOAD 'auto_explain'", Kinds::LIBRARIES),
        ("DO $$BEGIN END$$", Kinds::ANYTHING),
        ("call p()", Kinds::ANYTHING),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Kinds::SETTINGS),
        ("SELECT set_config('a' || 'b', '1', false)", Kinds::SETTINGS),
        ("PREPARE p AS SELECT 1; SELECT 2", Kinds::PREPARED),
    ] {
        assert_eq!(leaves(text), kinds, "{text}");
    }
}

#[test]
fn settings_are_known_by_name() {
    for (text, names) in [
        ("SET Work_Mem = '1MB'", vec!["work_mem"]),
        ("SET SESSION search_path TO a, b; SET x.y = 1", vec!["search_path", "x.y"]),
        ("SET \"my\".\"own\" TO DEFAULT", vec!["my.own"]),
        ("SET TIME ZONE 'UTC'", vec!["timezone"]),
        ("SET NAMES 'latin1'; SET SCHEMA 's'", vec!["client_encoding", "search_path"]),
        ("SET ROLE bob; SET SESSION AUTHORIZATION amy", vec!["role", "session_authorization"]),
        ("RESET work_mem; RESET SESSION AUTHORIZATION", vec!["work_mem", "session_authorization"]),
        ("SELECT set_config('App.User'::text, $1, false)", vec!["app.user"]),
        ("SELECT a, pg_catalog.set_config('a.b', (SELECT 'true'), false) FROM t", vec!["a.b"]),
    ] {
        assert_eq!(settings(text), names, "{text}");
        assert!(leaves(text).is_empty(), "{text}");
    }
    assert_eq!(settings("DO $$BEGIN PERFORM 1; PERFORM set_config('a.b', 'c', false); END$$"), ["a.b"]);
    assert!(read(b"SELECT set_config($1, $2, false)").sets_by_parameter);
}

#[test]
fn resets_are_known_by_name() {
    assert_eq!(resets("RESET work_mem; SET a TO DEFAULT; SET b = default"), ["work_mem", "a", "b"]);
    assert_eq!(resets("SET TIME ZONE LOCAL; RESET TIME ZONE"), ["timezone", "timezone"]);
    assert_eq!(resets("SET synchronous_commit TO local"), Vec::<String>::new());
    assert!(read(b"RESET ALL").resets_all);
    let discard = read(b"discard all");
    assert!(discard.resets_all && discard.releases == Kinds::ANYTHING && discard.leaves.is_empty());
}

#[test]
fn what_takes_back_is_noticed() {
    for (text, kinds) in [
        ("SELECT pg_advisory_unlock_all()", Kinds::LOCKS),
        ("DROP TABLE t", Kinds::TEMPORARY),
        ("CLOSE ALL", Kinds::CURSORS),
        ("UNLISTEN *", Kinds::LISTENS),
        ("DEALLOCATE ALL", Kinds::PREPARED),
        ("DISCARD TEMP", Kinds::TEMPORARY),
    ] {
        assert_eq!(read(text.as_bytes()).releases, kinds, "{text}");
    }
}

#[test]
fn statements_prepared_by_sql_are_known_by_name() {
    let prepared = |text: &str| read(text.as_bytes()).prepared;
    assert_eq!(prepared("PREPARE Foo (int) AS SELECT $1;"), [Prepared::Made("foo".into())]);
    assert_eq!(prepared("EXECUTE \"Fo\"\"o\" (1)"), [Prepared::Used("Fo\"o".into())]);
    assert_eq!(prepared("EXPLAIN EXECUTE a; EXECUTE b;"), ["a", "b"].map(|n| Prepared::Used(n.into())));
    assert_eq!(prepared("DEALLOCATE PREPARE x"), [Prepared::Dropped("x".into())]);
    assert_eq!(prepared("DEALLOCATE prepare"), [Prepared::Dropped("prepare".into())]);
    assert_eq!(prepared("DEALLOCATE \"all\""), [Prepared::Dropped("all".into())]);
    assert_eq!(prepared("DEALLOCATE ALL"), []);
    assert_eq!(prepared("PREPARE p AS SELECT 1; SELECT 2"), [], "who repeats it repeats both");
}

#[test]
fn transaction_commands_are_read_exactly() {
    for (text, block) in [
        ("BEGIN", Block::Begin),
        (" begin work ; ", Block::Begin),
        ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE", Block::Start),
        ("BEGIN TRANSACTION READ WRITE DEFERRABLE --x", Block::Begin),
        ("COMMIT", Block::Commit),
        ("END TRANSACTION;", Block::Commit),
        ("ROLLBACK WORK", Block::Rollback),
        ("abort", Block::Rollback),
    ] {
        assert_eq!(read(text.as_bytes()).block, Some(block), "{text}");
    }
    for text in [
        "BEGIN; SELECT 1",
        "BEGIN bogus",
        "BEGIN TRANSACTION WORK",
        "BEGIN ISOLATION LEVEL READ ONLY",
        "BEGIN READ ONLY,",
        "BEGIN , READ ONLY",
        "START",
        "START WORK",
        "COMMIT AND CHAIN",
        "ROLLBACK TO a",
        "COMMIT PREPARED 'x'",
        "COMMIT 1",
        "SELECT 1; COMMIT",
    ] {
        assert_eq!(read(text.as_bytes()).block, None, "{text}");
    }
}

proptest! {
    /// What is quoted is never read, and what is not closed ends with the text.
    #[test]
    fn no_text_is_too_odd(pieces in prop::collection::vec(prop::sample::select(vec![
        "'", "''", "\"", "$$", "$a$", "E'", "\\", "/*", "*/", "--", "\n", ";", "(", ")", ",", " ", "set", "set_config",
        "local", "a.b", "=", "to", "default", "begin", "isolation", "level", "read", "prepare", "deallocate", "execute",
        "declare", "hold", "with", "temp", "into", "create", "$1", "1.5e3", "é", "discard", "all", "reset", "u&'",
    ]), 0..30)) {
        let text = pieces.concat();
        let reading = read(text.as_bytes());
        let quoted = read(format!("SELECT $quote${text}$quote$").as_bytes());
        prop_assert_eq!(quoted, Reading::default());
        prop_assert!(reading.settings.len() <= pieces.len() && reading.prepared.len() <= pieces.len());
    }
}

#[test]
fn what_a_text_no_longer_listens_to_is_read() {
    let one = |name: &[u8]| Unlisten::One(name.into());
    let long = format!("UNLISTEN \"{}\u{e9}\"", "l".repeat(62));
    for (text, expected) in [
        ("UNLISTEN a", vec![one(b"a")]),
        ("unlisten MiXed; UNLISTEN \"MiXed\"", vec![one(b"mixed"), one(b"MiXed")]),
        ("/* ; */ UNLISTEN * ; SELECT 1", vec![Unlisten::All]),
        ("UNLISTEN \"a\"\"b;\"\"\"", vec![one(b"a\"b;\"")]),
        ("UNLISTEN U&\"\\0061\"; UNLISTEN u", vec![one(b""), one(b"u")]),
        // As the server cuts it: by whole characters.
        (long.as_str(), vec![one("l".repeat(62).as_bytes())]),
        ("SELECT 'UNLISTEN a'", vec![]),
        ("UNLISTEN", vec![]),
    ] {
        assert_eq!(read(text.as_bytes()).unlistens, expected, "{text}");
    }
    assert!(read(b"NOTIFY a, 'b'").notifies && read(b"SELECT pg_catalog.pg_notify('a', 'b')").notifies);
    assert!(!read(b"SELECT notify FROM t").notifies);
}
