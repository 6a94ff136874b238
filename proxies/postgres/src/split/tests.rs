//! What reads, what writes, and what is made up to be mistaken.

use super::verdict::{TEXT_MAX, judge};
use super::{Functions, Judge, Modes, Verdict};

/// What applications read by.
const READS: &[&str] = &[
    "SELECT 1",
    "select * from accounts where id = $1",
    "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;",
    "SELECT a.id, b.name, count(*) FROM a JOIN b ON a.bid = b.id WHERE a.x = $1 AND b.y IN (1, 2) GROUP BY 1, 2 \
     HAVING count(*) > 1 ORDER BY 3 DESC NULLS LAST LIMIT 10 OFFSET 5",
    "SELECT \"user\".\"id\", \"user\".\"name\" FROM \"public\".\"user\" WHERE \"user\".\"id\" = $1 LIMIT $2",
    "SELECT DISTINCT ON (a) a, b FROM t ORDER BY a, b",
    "SELECT * FROM t WHERE name ILIKE '%' || $1 || '%' AND tags && ARRAY['a','b']::text[]",
    "SELECT data->>'name', data #>> '{a,b}', data @> '{\"a\": 1}'::jsonb FROM t WHERE data ? 'key'",
    "SELECT row_number() OVER (PARTITION BY a ORDER BY b ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) FROM t",
    "SELECT sum(x) FILTER (WHERE y > 0), array_agg(x ORDER BY y), string_agg(DISTINCT z, ',') FROM t",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM t",
    "SELECT CASE WHEN a IS NULL THEN 'x' ELSE coalesce(b, 'y') END, nullif(a, 0), greatest(a, b) FROM t",
    "SELECT now(), current_timestamp, CURRENT_DATE, localtime, current_user, session_user, current_schema()",
    "SELECT random(), gen_random_uuid(), clock_timestamp()",
    "SELECT extract(year FROM at), date_trunc('day', at), at AT TIME ZONE 'UTC', at + interval '1 day' FROM t",
    "SELECT position('a' IN b), substring(b FROM 1 FOR 2), trim(BOTH 'x' FROM b), overlay(b PLACING 'x' FROM 1) FROM t",
    "SELECT x::int, CAST(y AS numeric(10, 2)), '2024-01-01'::date, (a).b, c[1], c[1:2], ROW(1, 2) FROM t",
    "WITH x AS (SELECT 1), y AS MATERIALIZED (SELECT * FROM x) SELECT * FROM y",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT * FROM r",
    "(SELECT 1) UNION (SELECT 2) EXCEPT SELECT 3 INTERSECT SELECT 4",
    "SELECT * FROM a LEFT JOIN LATERAL (SELECT * FROM b WHERE b.id = a.id LIMIT 1) c ON true CROSS JOIN d",
    "SELECT * FROM a NATURAL JOIN b JOIN c USING (id) FULL OUTER JOIN d ON d.id = c.id",
    "SELECT * FROM generate_series(1, 10) AS g(n), unnest(ARRAY[1, 2]) WITH ORDINALITY",
    "SELECT * FROM jsonb_to_recordset($1) AS x(a int, b text)",
    "SELECT EXISTS (SELECT 1 FROM t), a = ANY($1), b = ALL (SELECT c FROM t), (1, 2) IN (SELECT a, b FROM t) FROM t",
    "SELECT pg_catalog.lower('A'), \"pg_catalog\".\"upper\"('a')",
    "SELECT count(*) FROM t TABLESAMPLE BERNOULLI (10)",
    "SELECT a FROM t GROUP BY GROUPING SETS ((a), ()), ROLLUP (a), CUBE (a)",
    "VALUES (1, 'a'), (2, 'b')",
    "SELECT U&'\\0041'",
    "SELECT B'101', X'1F', date '2024-01-01', interval '1' day, a COLLATE \"C\", a IS DISTINCT FROM b FROM ONLY t",
    "SELECT * FROM t ORDER BY a FETCH FIRST 10 ROWS ONLY",
    "SELECT a SIMILAR TO 'x', a ~ 'x', a !~* 'x', NOT a LIKE 'x' ESCAPE '!', a IS NOT TRUE FROM t",
    "SHOW TimeZone",
    "SHOW search_path",
    "EXPLAIN SELECT * FROM t",
    "EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM t",
    "EXPLAIN ANALYZE SELECT 1",
    "COPY t TO STDOUT",
    "COPY (SELECT * FROM t) TO STDOUT WITH (FORMAT csv)",
    "SELECT 1; SELECT 2",
    "",
    ";",
    "-- nothing but a word",
    "/* hello */ SELECT 1 -- bye",
    "/* /* nested */ */ SELECT 1",
    "SELECT 'INSERT INTO t VALUES (1); DELETE FROM t'",
    "SELECT $$DROP TABLE t$$, $x$ $$; COMMIT; $x$",
    "SELECT E'it\\'s; DELETE FROM t', 'it''s'",
    "SELECT \"delete\", \"insert into\" FROM \"update\"",
    "SELECT 1 /* ; DELETE FROM t */",
    "SELECT t.oid, pg_get_expr(adbin, adrelid), format_type(atttypid, atttypmod), pg_table_is_visible(t.oid) \
     FROM pg_catalog.pg_class t, pg_attrdef, pg_attribute WHERE t.relname = 't'::regclass::text",
    "SELECT * FROM t ORDER BY a FETCH FIRST 10 ROWS WITH TIES",
    "SELECT json_value(j, '$.a' RETURNING int) FROM t",
    "SELECT a OPERATOR(pg_catalog.+) b FROM t",
    "SELECT a IS NFC NORMALIZED FROM t",
    "SELECT (a, b) OVERLAPS (c, d) FROM t",
    "SELECT count(*) FROM t TABLESAMPLE SYSTEM (1) REPEATABLE (2)",
    "EXPLAIN (ANALYZE, WAL, SETTINGS off) SELECT 1",
    "SELECT * FROM json_table(j, '$[*]' COLUMNS (a int PATH '$.a')) x",
    "COPY t (a, b) TO STDOUT (FORMAT binary)",
    "COPY t TO STDOUT CSV HEADER",
    "SELECT similarity(a, b) FROM t",
    "SELECT shop.price(id) FROM t",
];

/// What reads, and is not known to: the parser does not take it. It goes to the primary.
const REFUSED: &[&str] = &[
    "TABLE accounts",
    "SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3))",
    "SELECT xmlelement(name a, xmlattributes(b AS c)) FROM t",
    "SELECT concat(VARIADIC ARRAY['a', 'b'])",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r) SEARCH DEPTH FIRST BY n SET o SELECT * FROM r",
    "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r) CYCLE n SET c USING p SELECT * FROM r",
    "SELECT * FROM a JOIN b USING (id) AS c",
    "SELECT x.* FROM xmltable('/a' PASSING d COLUMNS b text PATH 'c') x",
];

/// What has to go to the primary.
const WRITES: &[&str] = &[
    "INSERT INTO t VALUES (1)",
    "INSERT INTO t SELECT * FROM u RETURNING id",
    "UPDATE t SET a = 1",
    "DELETE FROM t",
    "MERGE INTO t USING u ON t.id = u.id WHEN MATCHED THEN DELETE",
    "TRUNCATE t",
    "CREATE TABLE t (a int)",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t (a int)",
    "ALTER TABLE t ADD b int",
    "DROP TABLE t",
    "GRANT SELECT ON t TO u",
    "VACUUM",
    "ANALYZE t",
    "REFRESH MATERIALIZED VIEW m",
    "COMMENT ON TABLE t IS 'x'",
    "SELECT * INTO u FROM t",
    "SELECT 1 AS a INTO TEMP u",
    "SELECT * FROM t FOR UPDATE",
    "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED",
    "SELECT * FROM t FOR SHARE OF t NOWAIT",
    "SELECT * FROM (SELECT * FROM t FOR KEY SHARE) x",
    "WITH x AS (SELECT * FROM t FOR UPDATE) SELECT * FROM x",
    "WITH x AS (INSERT INTO t VALUES (1) RETURNING id) SELECT * FROM x",
    "WITH x AS (DELETE FROM t RETURNING *) SELECT count(*) FROM x",
    "WITH x AS (UPDATE t SET a = 1 RETURNING *), y AS (SELECT 1) SELECT * FROM y",
    "WITH a AS (WITH b AS (DELETE FROM t RETURNING 1) SELECT * FROM b) SELECT * FROM a",
    "WITH x AS (SELECT 1) DELETE FROM t USING x",
    "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
    "SELECT nextval('s')",
    "SELECT setval('s', 1)",
    "SELECT currval('s'), lastval()",
    "SELECT pg_catalog.nextval('s')",
    "SELECT * FROM nextval('s')",
    "SELECT 1 FROM t, LATERAL nextval('s')",
    "SELECT 1 FROM t WHERE a = nextval('s')",
    "SELECT a FROM t ORDER BY nextval('s')",
    "SELECT a FROM t GROUP BY f(a)",
    "SELECT a FROM t LIMIT f()",
    "SELECT CASE WHEN f() THEN 1 END",
    "SELECT ARRAY[f()]",
    "SELECT ARRAY(SELECT f())",
    "SELECT (SELECT f())",
    "SELECT sum(f(a)) OVER (ORDER BY g(b)) FROM t",
    "SELECT count(*) FILTER (WHERE f(a)) FROM t",
    "SELECT array_agg(a ORDER BY f(a)) FROM t",
    "SELECT count(*) OVER w FROM t WINDOW w AS (PARTITION BY f(a))",
    "VALUES (f())",
    "SELECT * FROM a JOIN b ON f(a.id)",
    "SELECT a[f()] FROM t",
    "SELECT f(1)::int + 1",
    "SELECT x BETWEEN 1 AND f() FROM t",
    "SELECT * FROM unnest(f())",
    "SELECT COALESCE(f(), 1)",
    "SELECT EXTRACT(year FROM f())",
    "SELECT DISTINCT ON (f(a)) a FROM t",
    "SELECT * FROM t TABLESAMPLE BERNOULLI (f())",
    "SELECT make_interval(days => f())",
    "SELECT lower(f())",
    "SELECT count(*) FROM t HAVING f()",
    "SELECT a FROM t WHERE a LIKE f()",
    "SELECT a FROM t WHERE a IN (1, f())",
    "SELECT a FROM t WHERE f() IN (SELECT 1)",
    "SELECT ROW(f())",
    "SELECT (f()).x",
    "SELECT (f())[1]",
    "SELECT a AT TIME ZONE f() FROM t",
    "SELECT position(f() IN 'a')",
    "SELECT trim(f())",
    "SELECT substring(a FROM f()) FROM t",
    "SELECT overlay(a PLACING f() FROM 1) FROM t",
    "SELECT CAST(f() AS int)",
    "SELECT * FROM generate_series(1, f())",
    "SELECT * FROM t, LATERAL (SELECT f()) x",
    "SELECT 1 WHERE EXISTS (SELECT f())",
    "SELECT * FROM json_table(f(), '$' COLUMNS (a int PATH '$')) x",
    "SELECT 1 OFFSET f()",
    "SELECT 1 FETCH FIRST (f()) ROWS ONLY",
    "SELECT CASE f() WHEN 1 THEN 2 END",
    "SELECT CASE WHEN true THEN f() ELSE 2 END",
    "SELECT CASE WHEN true THEN 1 ELSE f() END",
    "SELECT a FROM t WHERE a IS DISTINCT FROM f()",
    "SELECT ARRAY[[f()]]",
    "SELECT percentile_cont(f()) WITHIN GROUP (ORDER BY a) FROM t",
    "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY f(a)) FROM t",
    "SELECT sum(a) OVER (ORDER BY f(b)) FROM t",
    "SELECT sum(a) OVER (ROWS BETWEEN f() PRECEDING AND CURRENT ROW) FROM t",
    "SELECT a FROM t GROUP BY ROLLUP (f(a))",
    "SELECT a FROM t GROUP BY GROUPING SETS ((f(a)), ())",
    "SELECT -f(), NOT f(), f() IS NULL, f()::int, (f())",
    "SELECT a ->> f() FROM t",
    "SELECT a FROM t WHERE a = ANY (f())",
    "SELECT a FROM t WHERE a ~ f()",
    "SELECT a FROM t WHERE a SIMILAR TO f()",
    "SELECT greatest(1, f()), nullif(f(), 1)",
    "SELECT ceil(f()), floor(f())",
    "SELECT 1 UNION SELECT f()",
    "SELECT 1 UNION ALL (SELECT 2 EXCEPT SELECT f())",
    "WITH x AS (SELECT f()) SELECT * FROM x",
    "WITH RECURSIVE x AS (SELECT 1 AS n UNION ALL SELECT f() FROM x) SELECT * FROM x",
    "SELECT * FROM a LEFT JOIN (b JOIN c ON f()) ON true",
    "SELECT * FROM (VALUES (f())) x",
    "SELECT * FROM unnest(ARRAY[f()])",
    "SELECT json_object('a' VALUE f()), json_array(f())",
    "SELECT concat(VARIADIC f())",
    "SELECT a FROM t ORDER BY a USING <, f()",
    "COPY (SELECT f()) TO STDOUT",
    "EXPLAIN SELECT f()",
    "SELECT \"now\"(), \"Now\"()",
    "SELECT public.lower('A')",
    "SELECT shop.other(id) FROM t",
    "SELECT Price(id) FROM t",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_xact_lock(1)",
    "SELECT set_config('a.b', 'x', true)",
    "SELECT pg_notify('c', 'x')",
    "SELECT lo_import('/etc/passwd'), lo_create(0), lo_put(1, 0, 'x'), loread(1, 1)",
    "SELECT * FROM dblink('x', 'DELETE FROM t') AS x(a int)",
    "SELECT query_to_xml('DELETE FROM t', true, true, '')",
    "SELECT ts_rewrite(q, 'SELECT f()') FROM t",
    "SELECT txid_current(), pg_current_xact_id()",
    "SELECT pg_terminate_backend(1), pg_cancel_backend(1), pg_reload_conf()",
    "SELECT pg_logical_emit_message(true, 'a', 'b')",
    "SELECT pg_stat_reset()",
    "SELECT pg_export_snapshot()",
    "SELECT pg_is_in_recovery()",
    "SELECT pg_current_wal_lsn()",
    "SELECT current_setting('transaction_read_only')",
    "SELECT * FROM pg_stat_activity",
    "SELECT * FROM pg_catalog.pg_stat_replication",
    "SELECT * FROM pg_locks",
    "TABLE pg_stat_activity",
    "SELECT * FROM pg_temp.t",
    "SHOW transaction_read_only",
    "SHOW IN_HOT_STANDBY",
    "SHOW ALL",
    "EXPLAIN ANALYZE DELETE FROM t",
    "EXPLAIN (ANALYZE) INSERT INTO t VALUES (1)",
    "EXPLAIN (FORMAT json, ANALYZE on) UPDATE t SET a = 1",
    "EXPLAIN ANALYZE WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x",
    "EXPLAIN ANALYZE SELECT nextval('s')",
    "EXPLAIN ANALYZE CREATE TABLE u AS SELECT 1",
    "EXPLAIN ANALYZE EXECUTE p",
    "COPY t FROM STDIN",
    "COPY (DELETE FROM t RETURNING *) TO STDOUT",
    "COPY t TO '/tmp/x'",
    "COPY t TO PROGRAM 'rm -rf /'",
    "COPY (SELECT nextval('s')) TO STDOUT",
    "DECLARE c CURSOR FOR SELECT 1",
    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
    "FETCH 1 FROM c",
    "DO $$ BEGIN DELETE FROM t; END $$",
    "CALL p()",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "SET search_path = x",
    "SET LOCAL search_path = x",
    "RESET ALL",
    "DISCARD ALL",
    "LISTEN c",
    "NOTIFY c",
    "UNLISTEN *",
    "LOCK TABLE t",
    "CHECKPOINT",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "PREPARE TRANSACTION 'x'",
    "COMMIT PREPARED 'x'",
    "IMPORT FOREIGN SCHEMA x FROM SERVER y INTO z",
    "SELECT 1; DELETE FROM t",
    "SELECT 1; SELECT nextval('s'); SELECT 2",
    "BEGIN READ ONLY; SELECT 1",
    "SELECT 1; COMMIT",
    "DELETE/**/FROM t",
    "/* SELECT */ DELETE FROM t",
    "-- SELECT\nDELETE FROM t",
    "-- SELECT 1\rDELETE FROM t",
    "SELECT 1 -- \r; DELETE FROM t",
    "SELECT '\\'; DELETE FROM t; --'",
    "SELECT E'\\''; DELETE FROM t; --'",
    "SELECT $a$ $b$; $a$; DELETE FROM t; --$b$",
    "SELECT U&\"\\006eextval\"('s')",
    "SELECT \"nextval\"('s')",
    "SELECT NextVal ('s')",
    "SELECT nextval /* */ ('s')",
    "SELECT this is no SQL",
    "SELECT (",
];

fn configured() -> Vec<String> {
    vec!["similarity".to_owned(), "shop.price".to_owned()]
}

#[test]
fn what_reads_reads() {
    let functions = Functions::new(&configured());
    let wrong: Vec<_> = READS.iter().filter(|text| judge(text, &functions) != Verdict::Reads).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_the_parser_does_not_take_does_not_read() {
    let functions = Functions::new(&configured());
    let taken: Vec<_> = REFUSED.iter().filter(|text| judge(text, &functions) == Verdict::Reads).collect();
    assert!(taken.is_empty(), "these may be listed above: {taken:#?}");
}

#[test]
fn what_may_write_writes() {
    let functions = Functions::new(&configured());
    let wrong: Vec<_> = WRITES.iter().filter(|text| judge(text, &functions) == Verdict::Reads).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn and_is_not_mistaken_for_what_was_judged_before() {
    let judge = Judge::new(&configured());
    for _ in 0..2 {
        for text in READS {
            assert_eq!(judge.judge(text.as_bytes()), Verdict::Reads, "{text}");
        }
        for text in WRITES {
            assert_ne!(judge.judge(text.as_bytes()), Verdict::Reads, "{text}");
        }
    }
    assert_eq!(judge.judge(b"SELECT \xff"), Verdict::Writes, "in an encoding that is not known");
}

#[test]
fn what_a_replica_refused_is_not_sent_there_again_with_other_values() {
    let judge = Judge::new(&configured());
    assert_eq!(judge.judge(b"SELECT shop.price(1)"), Verdict::Reads);
    judge.misjudged(b"SELECT shop.price(1)");
    assert_eq!(judge.judge(b"SELECT shop.price(2)"), Verdict::Writes);
    assert_eq!(judge.judge(b"SELECT shop.price(2), 1"), Verdict::Reads);
}

#[test]
fn transactions_say_what_they_are() {
    let functions = Functions::new(&[]);
    let modes = |is_read_only, is_serializable| Modes { is_read_only, is_serializable };
    for (text, expected) in [
        ("BEGIN", Verdict::Begins(modes(None, None))),
        ("begin read only", Verdict::Begins(modes(Some(true), None))),
        ("START TRANSACTION READ WRITE", Verdict::Begins(modes(Some(false), None))),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY", Verdict::Begins(modes(Some(true), Some(true)))),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", Verdict::Begins(modes(Some(true), Some(false)))),
        ("BEGIN READ ONLY, READ WRITE", Verdict::Begins(modes(Some(false), None))),
        ("SET TRANSACTION READ ONLY", Verdict::Sets(modes(Some(true), None))),
        (
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            Verdict::Sets(modes(Some(true), Some(false))),
        ),
        ("SET TRANSACTION SNAPSHOT '1'", Verdict::Writes),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", Verdict::Writes),
        ("COMMIT AND CHAIN", Verdict::Writes),
    ] {
        assert_eq!(judge(text, &functions), expected, "{text}");
    }
    let later = modes(Some(false), None);
    assert_eq!(modes(Some(true), Some(true)).then(later), modes(Some(false), Some(true)));
}

/// A client's text can neither end the program nor hold it up.
#[test]
fn the_deepest_and_the_longest_are_no_danger() {
    let functions = Functions::new(&[]);
    for (start, more, end) in [
        ("SELECT 1", "+1", ""),
        ("SELECT 1 WHERE true", " OR true", ""),
        ("SELECT 1", "::int", ""),
        ("SELECT 1", " UNION SELECT 1", ""),
        ("SELECT ", "(", "1"),
        ("SELECT ", "NOT ", "true"),
        ("SELECT ", "- ", "1"),
        ("SELECT ", "(SELECT ", "1"),
        ("SELECT a", "[1]", " FROM t"),
        ("SELECT 1", " IS NULL", ""),
        ("SELECT * FROM ", "(SELECT * FROM ", "t"),
        ("", "WITH a AS (", "SELECT 1"),
        ("SELECT ", "CASE WHEN ", "1"),
        ("SELECT ", "ARRAY[", "1"),
        ("EXPLAIN ", "EXPLAIN ", "SELECT 1"),
        ("", "SELECT 1;", ""),
    ] {
        let count = (TEXT_MAX - start.len() - end.len()) / more.len();
        let text = format!("{start}{}{end}", more.repeat(count));
        assert!(text.len() <= TEXT_MAX);
        let _ = judge(&text, &functions);
    }
    let long = format!("SELECT 1{}", " ".repeat(TEXT_MAX));
    assert_eq!(judge(&long, &functions), Verdict::Writes);
}

#[test]
fn each_function_of_the_list_is_there_once_and_in_order() {
    let names: Vec<_> = include_str!("harmless.txt").split_ascii_whitespace().collect();
    assert!(
        names.is_sorted_by(|one, next| one < next),
        "{:?}",
        names.windows(2).find(|pair| pair[0] >= pair[1])
    );
    for volatile in Functions::volatile() {
        assert!(!names.contains(volatile), "{volatile}");
    }
    for harmful in
        ["nextval", "setval", "set_config", "pg_notify", "query_to_xml", "ts_rewrite", "txid_current"]
    {
        assert!(!names.contains(&harmful), "{harmful}");
    }
}
