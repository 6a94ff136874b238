//! One database name before a primary and its replica: what only reads goes to the replica, and nothing else does.

use std::collections::HashSet;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{Kind, PATIENCE, Postgres, Proxy, Signal};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{code, connect, connect_as, roll, run, text, until};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
handover: $DIR/handover
databases:
  shop: &split
    endpoints: [$FIRST, $SECOND]
    dbname: shop
    role: split
    split: {read_only_functions: [peek, shop.nothing]}
    replicas: {max_lag: null}
    monitor: {user: plain, interval: 100ms}
    pool: {size: 4}
  careful: {<<: *split, split: {read_your_writes: true}}
  single: {<<: *split, pool: {mode: statement, size: 2}}
  writes: {<<: *split, role: primary, split: {}, replicas: {}}
  reads: {<<: *split, role: replica, split: {}}
users:
  app: {password: secret}
console: {admins: [app]}
";

/// What tells where it is answered.
const WHERE: &str = "SELECT inet_server_port()";

/// A primary, its replica, and the proxy before them.
struct Pair {
    first: Postgres,
    second: Postgres,
    proxy: Proxy,
}

/// A primary and its replica, with what the tests need.
fn servers() -> Result<(Postgres, Postgres)> {
    let first =
        Postgres::builder().set("log_statement", "all").set("max_standby_streaming_delay", "0").start()?;
    first.sql(
            "shop",
            "CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL); \
             INSERT INTO counter SELECT id, 0 FROM generate_series(0, 99) AS id; GRANT ALL ON counter TO app; \
             CREATE SEQUENCE numbers; GRANT ALL ON SEQUENCE numbers TO app; \
             GRANT CREATE ON SCHEMA public TO app; \
             CREATE FUNCTION peek() RETURNS int LANGUAGE sql VOLATILE AS \
               'UPDATE counter SET n = n + 1 WHERE id = 99 RETURNING n'",
        )?;
    let second = first.replica()?;
    Ok((first, second))
}

impl Pair {
    async fn start() -> Result<Pair> {
        let (first, second) = servers()?;
        let builder = Proxy::of(Kind::Postgres).config(CONFIG);
        let proxy = builder.set("FIRST", first.address()).set("SECOND", second.address()).start()?;
        let pair = Pair { first, second, proxy };
        pair.until_roles(["primary", "replica"]).await?;
        Ok(pair)
    }

    async fn until_roles(&self, roles: [&str; 2]) -> Result<()> {
        for database in ["shop", "careful", "single"] {
            until("the roles", || Ok(roles_of(&self.proxy, database)? == roles)).await?;
        }
        Ok(())
    }

    /// Waits until the replica has replayed what the primary has written.
    async fn until_replayed(&self) -> Result<()> {
        let written = self.first.sql("postgres", "SELECT pg_current_wal_insert_lsn()")?;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        until("the replica", || Ok(self.second.sql("postgres", &replayed)? == "t")).await
    }

    /// Transactions of a database by where they went.
    fn went(&self, database: &str, to: &str) -> Result<u64> {
        let labels = [("database", database), ("to", to)];
        let sum = self.proxy.metrics()?.sum("groove_postgres_split_total", &labels);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(sum.unwrap_or_default() as u64)
    }

    fn ports(&self) -> (String, String) {
        (self.first.address().port().to_string(), self.second.address().port().to_string())
    }
}

fn roles_of(proxy: &Proxy, database: &str) -> Result<Vec<String>> {
    let status = proxy.status()?;
    let clusters = status.get("clusters").and_then(Value::as_array).context("no clusters")?;
    let is_it = |cluster: &&Value| cluster.get("name").is_some_and(|name| name == database);
    let cluster = clusters.iter().find(is_it).context("no such cluster")?;
    let endpoints = cluster.get("endpoints").and_then(Value::as_array).context("no endpoints")?;
    let role = |endpoint: &Value| endpoint.get("role").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(endpoints.iter().map(role).collect())
}

/// Waits until a session's reads are answered there.
async fn until_read_at(client: &Client, port: &str) -> Result<()> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while text(client, WHERE).await? != port {
        ensure!(tokio::time::Instant::now() < deadline, "no read at {port}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn number(client: &Client, query: &str) -> Result<i32> {
    Ok(client.query_one(query, &[]).await?.get(0))
}

#[test]
fn what_reads_goes_to_the_replica_and_all_else_to_the_primary() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = connect(&pair.proxy, "shop").await?;
        assert_eq!(text(&client, WHERE).await?, second, "a simple query");
        assert_eq!(number(&client, WHERE).await?.to_string(), second, "a prepared one");
        let place = client.prepare(WHERE).await?;
        for _ in 0..3 {
            assert_eq!(client.query_one(&place, &[]).await?.get::<_, i32>(0).to_string(), second);
            client.batch_execute("UPDATE counter SET n = n + 1 WHERE id = 1").await?;
            // A statement that was parsed on both.
            let insert = client.prepare("SELECT nextval('numbers'), inet_server_port()").await?;
            assert_eq!(client.query_one(&insert, &[]).await?.get::<_, i32>(1).to_string(), first);
        }
        for (query, at) in [
            ("SELECT inet_server_port() FROM (SELECT 1) x; SELECT 1", &second),
            ("WITH x AS (SELECT inet_server_port() AS port) SELECT port FROM x", &second),
            ("WITH x AS (UPDATE counter SET n = 0 RETURNING 1) SELECT inet_server_port()", &first),
            ("SELECT inet_server_port(), * FROM counter FOR UPDATE", &first),
            ("SELECT inet_server_port(), nextval('numbers')", &first),
            ("SELECT inet_server_port(), pg_advisory_xact_lock(1)", &first),
            ("SELECT inet_server_port() /* ; */; SELECT 1; UPDATE counter SET n = 0", &first),
        ] {
            assert_eq!(text(&client, query).await?, *at, "{query}");
        }
        // Settings go with the session to both.
        client.batch_execute("SET work_mem = '7MB'; SET TimeZone = 'Asia/Tokyo'").await?;
        for _ in 0..2 {
            let shown = "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'work_mem'";
            assert_eq!(text(&client, "SHOW work_mem").await?, "7MB");
            assert_eq!(text(&client, "SHOW TimeZone").await?, "Asia/Tokyo");
            assert_eq!(text(&client, shown).await?, "7168", "on the primary");
        }
        // Who asks whether this is a replica is told that it takes writes.
        assert_eq!(text(&client, "SELECT pg_is_in_recovery()").await?, "f");
        assert_eq!(text(&client, "SHOW transaction_read_only").await?, "off");
        let copied = text(&client, "EXPLAIN SELECT inet_server_port()").await?;
        assert!(!copied.is_empty());
        assert_eq!(pair.went("shop", "repeated")?, 0);

        let single = connect(&pair.proxy, "single").await?;
        assert_eq!(text(&single, WHERE).await?, second, "in statement mode");
        single.batch_execute("UPDATE counter SET n = 0").await?;
        assert_eq!(code(single.batch_execute("BEGIN READ ONLY; SELECT 1").await).code(), "0A000");
        Ok(())
    })
}

#[test]
fn a_transaction_goes_whole_by_what_it_says_of_itself() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = connect(&pair.proxy, "shop").await?;
        for (begin, at) in [
            ("BEGIN", &first),
            ("BEGIN READ ONLY", &second),
            ("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", &second),
            ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", &first),
            ("BEGIN READ WRITE", &first),
        ] {
            for extended in [false, true] {
                match extended {
                    false => client.batch_execute(begin).await?,
                    true => _ = client.execute(begin, &[]).await?,
                }
                for _ in 0..2 {
                    assert_eq!(text(&client, WHERE).await?, *at, "{begin} {extended}");
                    assert_eq!(number(&client, WHERE).await?.to_string(), *at, "{begin} {extended}");
                }
                client.batch_execute("COMMIT").await?;
                assert_eq!(text(&client, WHERE).await?, second);
            }
        }
        // As drivers and pg_dump say it.
        client.batch_execute("BEGIN").await?;
        client.batch_execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        client.batch_execute("DECLARE c CURSOR FOR SELECT inet_server_port()").await?;
        assert_eq!(text(&client, "FETCH 1 FROM c").await?, second);
        assert_eq!(
            code(client.batch_execute("UPDATE counter SET n = 1").await),
            SqlState::READ_ONLY_SQL_TRANSACTION
        );
        client.batch_execute("ROLLBACK").await?;
        client.batch_execute("SET default_transaction_read_only = on").await?;
        client.batch_execute("BEGIN").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        client.batch_execute("COMMIT; SET default_transaction_read_only = off").await?;
        client.batch_execute("BEGIN").await?;
        assert_eq!(text(&client, WHERE).await?, first);
        client.batch_execute("COMMIT").await?;
        // There is no such level on a replica; also where it is a default that only the servers know of.
        pair.first.sql("shop", "ALTER ROLE app SET default_transaction_isolation = serializable")?;
        pair.until_replayed().await?;
        pair.second.sql("postgres", END_ALL)?;
        let other = connect(&pair.proxy, "careful").await?;
        for _ in 0..3 {
            assert_eq!(text(&other, WHERE).await?, first);
        }
        assert_eq!(pair.went("careful", "repeated")?, 1, "seen once");
        client.batch_execute("SET default_transaction_isolation = serializable").await?;
        assert_eq!(text(&client, WHERE).await?, first);
        assert_eq!(pair.went("shop", "repeated")?, 0);
        Ok(())
    })
}

#[test]
fn what_is_pipelined_behind_reads_is_not_taken_for_one() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = connect(&pair.proxy, "shop").await?;
        let place = client.prepare(WHERE).await?;
        let update =
            client.prepare("UPDATE counter SET n = n + 1 WHERE id = 2 RETURNING inet_server_port()").await?;
        for _ in 0..20 {
            // All are on their way before the first is answered.
            let (a, b, c, d, e) = tokio::try_join!(
                client.query_one(&place, &[]),
                client.query_one(&place, &[]),
                client.query_one(&update, &[]),
                client.query_one(&place, &[]),
                client.query_one(&update, &[]),
            )?;
            let ports = [a, b, c, d, e].map(|row| row.get::<_, i32>(0).to_string());
            assert_eq!(ports[..3], [second.clone(), second.clone(), first.clone()]);
            assert_eq!(ports[4], first);
        }
        assert_eq!(pair.first.sql("shop", "SELECT n FROM counter WHERE id = 2")?, "40");
        let begun = tokio::try_join!(
            client.simple_query("BEGIN READ ONLY"),
            client.simple_query(WHERE),
            client.simple_query("COMMIT"),
            client.simple_query("UPDATE counter SET n = 7 WHERE id = 3"),
            client.simple_query(WHERE),
        );
        begun?;
        assert_eq!(pair.first.sql("shop", "SELECT n FROM counter WHERE id = 3")?, "7");
        assert_eq!(pair.went("shop", "repeated")?, 0);
        Ok(())
    })
}

#[test]
fn a_session_that_keeps_its_connection_keeps_its_primary() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = connect(&pair.proxy, "shop").await?;
        client.batch_execute("CREATE TEMP TABLE own (n int)").await?;
        assert_eq!(text(&client, WHERE).await?, first);
        client.batch_execute("INSERT INTO own VALUES (1); DROP TABLE own").await?;
        assert_eq!(text(&client, WHERE).await?, second, "and no longer than that");
        client.batch_execute("SELECT pg_advisory_lock(7)").await?;
        assert_eq!(text(&client, WHERE).await?, first);
        client.batch_execute("SELECT pg_advisory_unlock(7)").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        client.batch_execute("LISTEN news").await?;
        assert_eq!(text(&client, WHERE).await?, first, "what it is told of may not be on a replica yet");
        client.batch_execute("UNLISTEN news").await?;
        Ok(())
    })
}

#[test]
fn a_session_says_otherwise() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = connect(&pair.proxy, "shop").await?;
        client.batch_execute("SET groove.role = 'primary'").await?;
        assert_eq!(text(&client, WHERE).await?, first);
        client.batch_execute("SET groove.role = 'replica'").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        let write = client.batch_execute("UPDATE counter SET n = 1").await;
        assert_eq!(code(write), SqlState::READ_ONLY_SQL_TRANSACTION);
        client.batch_execute("BEGIN").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        client.batch_execute("COMMIT; SET groove.role = 'auto'").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        client.batch_execute("UPDATE counter SET n = 1").await?;
        let login = "user=app password=secret dbname=shop options='-c groove.role=primary'";
        let client = connect_as(&pair.proxy, login).await?;
        assert_eq!(text(&client, WHERE).await?, first);
        client.batch_execute("SET groove.role = auto").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        Ok(())
    })
}

#[test]
fn who_has_written_reads_that_and_not_what_was_before() -> Result<()> {
    run(async {
        let mut pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let (careful, careless) =
            (connect(&pair.proxy, "careful").await?, connect(&pair.proxy, "shop").await?);
        let told = connect_as(
            &pair.proxy,
            "user=app password=secret dbname=shop options='-c groove.read_your_writes=on'",
        )
        .await?;
        for client in [&careful, &careless, &told] {
            until_read_at(client, &second).await?;
        }
        pair.second.sql("postgres", "SELECT pg_wal_replay_pause()")?;
        let read = "SELECT n FROM counter WHERE id = 5";
        for (n, client) in [(1, &careful), (2, &told), (3, &careless)] {
            client.batch_execute(&format!("UPDATE counter SET n = {n} WHERE id = 5")).await?;
        }
        assert_eq!(number(&careless, read).await?, 0, "there is something to be missed");
        // Also once positions are known: those of the monitor come ten times a second.
        let began = tokio::time::Instant::now();
        while began.elapsed() < Duration::from_millis(500) {
            assert_eq!(number(&careful, read).await?, 3);
            assert_eq!(text(&told, read).await?, "3");
            assert_eq!(text(&careful, WHERE).await?, first);
        }
        assert!(pair.went("careful", "own_writes")? > 0);
        // Who has written nothing reads at the replica.
        let other = connect(&pair.proxy, "careful").await?;
        assert_eq!(text(&other, WHERE).await?, second);
        assert_eq!(text(&other, read).await?, "0");
        // It goes with the session into another process.
        let mut old = pair.proxy.hand_over()?;
        ensure!(old.exit(PATIENCE)?.success());
        pair.until_roles(["primary", "replica"]).await?;
        assert_eq!(text(&careful, read).await?, "3");
        assert_eq!(text(&careful, WHERE).await?, first);
        assert_eq!(text(&other, WHERE).await?, second);
        pair.second.sql("postgres", "SELECT pg_wal_replay_resume()")?;
        until_read_at(&careful, &second).await?;
        until_read_at(&told, &second).await?;
        assert_eq!(text(&careful, read).await?, "3", "from the replica, which has it now");
        Ok(())
    })
}

#[test]
fn a_replica_that_is_behind_the_other_is_not_read_from_by_who_has_written() -> Result<()> {
    run(async {
        let (first, second) = servers()?;
        let third = first.replica()?;
        let config = CONFIG.replace("[$FIRST, $SECOND]", "[$FIRST, $SECOND, $THIRD]");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("THIRD", third.address());
        let proxy = builder.set("FIRST", first.address()).set("SECOND", second.address()).start()?;
        let roles = ["primary", "replica", "replica"];
        until("the roles", || Ok(roles_of(&proxy, "careful")? == roles)).await?;
        let clients = try_join_all((0..8).map(|_| connect(&proxy, "careful"))).await?;
        // All at once, so that there are connections to both.
        let places = "SELECT inet_server_port() FROM pg_sleep(0.3)";
        let ports = try_join_all(clients.iter().map(|client| text(client, places))).await?;
        let (second, third_port) = (second.address().port().to_string(), third.address().port().to_string());
        assert!(ports.contains(&second) && ports.contains(&third_port), "{ports:?}");
        third.sql("postgres", "SELECT pg_wal_replay_pause()")?;
        for (id, client) in clients.iter().enumerate() {
            client.batch_execute(&format!("UPDATE counter SET n = 5 WHERE id = {id}")).await?;
        }
        // Whose connection lies on top is chance; a read that gets the third's goes to the primary.
        for _ in 0..20 {
            let reads = clients.iter().enumerate().map(|(id, client)| async move {
                let query =
                    format!("SELECT n, inet_server_port() FROM counter, pg_sleep(0.02) WHERE id = {id}");
                let row = client.query_one(&query, &[]).await?;
                Ok::<_, anyhow::Error>((row.get::<_, i32>(0), row.get::<_, i32>(1).to_string()))
            });
            for (n, port) in try_join_all(reads).await? {
                assert_eq!(n, 5, "at {port}");
                assert_ne!(port, third_port, "it has not replayed that");
            }
        }
        third.sql("postgres", "SELECT pg_wal_replay_resume()")?;
        Ok(())
    })
}

#[test]
fn clients_are_not_told_where_they_read() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let (address, second) = (pair.proxy.address(), pair.ports().1);
        let login =
            format!("host={} port={} user=app password=secret dbname=shop", address.ip(), address.port());
        let (client, mut connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await?;
        let told = tokio::spawn(async move {
            let over = std::future::poll_fn(|cx| connection.poll_message(cx));
            ensure!(over.await.is_none(), "nothing but answers");
            Ok(connection.parameter("in_hot_standby").map(str::to_owned))
        });
        client.batch_execute("UPDATE counter SET n = 1").await?;
        assert_eq!(text(&client, WHERE).await?, second);
        drop(client);
        assert_eq!(told.await??.as_deref(), Some("off"));
        Ok(())
    })
}

#[test]
fn nobody_misses_their_own_writes_while_a_replica_stops_and_goes() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for id in 10..26 {
            let client = connect(&pair.proxy, "careful").await?;
            let stop = Arc::clone(&stop);
            clients.push(tokio::spawn(async move {
                let read = client
                    .prepare(&format!("SELECT n, inet_server_port() FROM counter WHERE id = {id}"))
                    .await?;
                let mut dice = 0x5DEE_CE66_u64 + u64::try_from(id)?;
                let (mut written, mut ports) = (0, HashSet::new());
                while !stop.load(Ordering::Relaxed) {
                    match roll(&mut dice, 4) {
                        0 => {
                            client
                                .batch_execute(&format!("UPDATE counter SET n = n + 1 WHERE id = {id}"))
                                .await?;
                            written += 1;
                        }
                        1 => {
                            let update = format!("UPDATE counter SET n = n + 1 WHERE id = {id}");
                            client.batch_execute("BEGIN").await?;
                            client.execute(&update, &[]).await?;
                            client.batch_execute("COMMIT").await?;
                            written += 1;
                        }
                        // Time for the replica to catch up, and for the proxy to hear of it.
                        2 => {
                            tokio::time::sleep(Duration::from_millis(u64::try_from(roll(&mut dice, 300))?))
                                .await
                        }
                        _ => {}
                    }
                    for _ in 0..roll(&mut dice, 4) {
                        let row = client.query_one(&read, &[]).await?;
                        let n: i32 = row.get(0);
                        ensure!(n == written, "client {id} has written {written} and reads {n}");
                        ports.insert(row.get::<_, i32>(1).to_string());
                    }
                }
                Ok(ports)
            }));
        }
        let (stopped, second) = (Arc::clone(&stop), pair.ports().1);
        let pair = spawn_blocking(move || {
            let mut dice = 0x0DDB_1A5E_u64;
            for _ in 0..12 {
                pair.second.sql("postgres", "SELECT pg_wal_replay_pause()")?;
                std::thread::sleep(Duration::from_millis(u64::try_from(roll(&mut dice, 300))?));
                pair.second.sql("postgres", "SELECT pg_wal_replay_resume()")?;
                std::thread::sleep(Duration::from_millis(u64::try_from(roll(&mut dice, 400))?));
            }
            stopped.store(true, Ordering::Relaxed);
            Ok::<_, anyhow::Error>(pair)
        })
        .await?;
        stop.store(true, Ordering::Relaxed);
        let pair = pair?;
        let ports = try_join_all(clients).await?.into_iter().collect::<Result<Vec<_>>>()?;
        let at_replica = ports.iter().filter(|ports| ports.contains(&second)).count();
        assert!(at_replica > 8, "{at_replica} of 16 have ever read at the replica");
        assert!(pair.went("careful", "replica")? > 0 && pair.went("careful", "own_writes")? > 0);
        Ok(())
    })
}

#[test]
fn what_was_wrongly_taken_for_a_read_is_run_once_on_the_primary() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let client = connect(&pair.proxy, "shop").await?;
        let second = pair.ports().1;
        assert_eq!(text(&client, "SELECT peek()").await?, "1", "it writes, whatever is said of it");
        assert_eq!(pair.went("shop", "repeated")?, 1);
        pair.proxy.log().expect("\"query\":\"select peek()\"")?;
        assert_eq!(number(&client, "SELECT peek() + 0").await?, 2);
        assert_eq!(pair.went("shop", "repeated")?, 2);
        let statement = client.prepare("SELECT peek() + $1::int").await?;
        for n in 3..6 {
            assert_eq!(client.query_one(&statement, &[&0]).await?.get::<_, i32>(0), n);
            assert_eq!(text(&client, "SELECT peek() + 100").await?, (n + 101).to_string());
            client.batch_execute("UPDATE counter SET n = n - 1 WHERE id = 99").await?;
        }
        let repeated = pair.went("shop", "repeated")?;
        assert!(repeated <= 4, "{repeated} times, though it was seen not to read");
        // What is not there yet, as well.
        pair.until_replayed().await?;
        pair.second.sql("postgres", "SELECT pg_wal_replay_pause()")?;
        client.batch_execute("CREATE TABLE fresh (n int); INSERT INTO fresh VALUES (5)").await?;
        assert_eq!(text(&client, "SELECT n FROM fresh").await?, "5");
        assert_eq!(number(&client, "SELECT n FROM fresh").await?, 5);
        pair.second.sql("postgres", "SELECT pg_wal_replay_resume()")?;
        // What is wrong everywhere is told once, by whoever is asked last.
        assert_eq!(code(client.batch_execute("SELECT no_such_column").await), SqlState::UNDEFINED_COLUMN);
        assert_eq!(code(client.batch_execute("SELECT 1/0").await), SqlState::DIVISION_BY_ZERO);
        assert_eq!(text(&client, WHERE).await?, second);
        // The replica's connections have outlived all that.
        assert_eq!(pair.second.sql("postgres", CONNECTIONS)?, "1");
        Ok(())
    })
}

const END_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";

/// Waits until the replica sleeps for a client: with the locks that its statement takes.
async fn until_sleeps(server: &Postgres) -> Result<()> {
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND usename = 'app'";
    until("a statement under way", || Ok(server.sql("postgres", sleeps)? == "1")).await
}

#[test]
fn a_read_that_a_replica_breaks_off_is_read_from_the_primary() -> Result<()> {
    run(async {
        let mut pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = Arc::new(connect(&pair.proxy, "shop").await?);
        // It waits wherever it runs, before its first row: for long enough to be broken off on a busy machine.
        let slow = "SELECT inet_server_port() FROM (SELECT count(*) FROM counter, pg_sleep(3)) x";
        let asked = |client: &Arc<Client>, extended: bool| {
            let client = Arc::clone(client);
            tokio::spawn(async move {
                match extended {
                    true => number(&client, slow).await.map(|port| port.to_string()),
                    false => Ok(text(&client, slow).await?),
                }
            })
        };
        for extended in [false, true] {
            let answer = asked(&client, extended);
            until_sleeps(&pair.second).await?;
            // Its replay needs a lock that the read is in the way of.
            pair.first.sql(
                "shop",
                "ALTER TABLE counter ADD COLUMN more int; ALTER TABLE counter DROP COLUMN more",
            )?;
            assert_eq!(answer.await??, first, "a conflict with recovery, extended: {extended}");
        }
        assert_eq!(pair.went("shop", "repeated")?, 2);
        assert_eq!(text(&client, WHERE).await?, second);

        // It is killed, with a client's settings on their way or without.
        for settings in ["", "SET work_mem = '5MB'"] {
            client.batch_execute(settings).await?;
            let other = connect(&pair.proxy, "shop").await?;
            assert_eq!(text(&other, "SHOW work_mem").await?, "4MB");
            let answer = asked(&client, false);
            until_sleeps(&pair.second).await?;
            pair.second.crash()?;
            assert_eq!(answer.await??, first);
            pair.until_roles(["primary", "lost"]).await?;
            assert_eq!(text(&client, WHERE).await?, first, "the primary stands in");
            pair.second.restart()?;
            pair.until_roles(["primary", "replica"]).await?;
            until_read_at(&client, &second).await?;
        }
        // And in an orderly way.
        let answer = asked(&client, true);
        until_sleeps(&pair.second).await?;
        pair.second.stop()?;
        assert_eq!(answer.await??, first);
        Ok(())
    })
}

#[test]
fn nobody_who_only_reads_notices_that_replicas_die_and_come_back() -> Result<()> {
    run(async {
        let mut pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = Vec::new();
        for _ in 0..16 {
            let (client, stop) = (connect(&pair.proxy, "shop").await?, Arc::clone(&stop));
            clients.push(tokio::spawn(async move {
                let place = client.prepare(WHERE).await?;
                let (mut ports, mut reads) = (HashSet::new(), 0);
                while !stop.load(Ordering::Relaxed) {
                    ports.insert(client.query_one(&place, &[]).await?.get::<_, i32>(0).to_string());
                    ports.insert(text(&client, WHERE).await?);
                    reads += 2;
                }
                Ok::<_, anyhow::Error>((ports, reads))
            }));
        }
        for round in 0..4 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            match round % 2 {
                0 => pair.second.crash()?,
                _ => pair.second.stop()?,
            }
            pair.until_roles(["primary", "lost"]).await?;
            pair.second.restart()?;
            pair.until_roles(["primary", "replica"]).await?;
        }
        stop.store(true, Ordering::Relaxed);
        let seen = try_join_all(clients).await?.into_iter().collect::<Result<Vec<_>>>()?;
        for (ports, reads) in seen {
            assert!(ports.contains(&first) && ports.contains(&second), "{reads} reads at {ports:?}");
        }
        Ok(())
    })
}

#[test]
fn a_read_on_a_replica_is_cancelled_as_any_other() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let client = connect(&pair.proxy, "shop").await?;
        for settings in ["SET work_mem = '5MB'", ""] {
            client.batch_execute(settings).await?;
            let other = connect(&pair.proxy, "shop").await?;
            assert_eq!(text(&other, "SHOW work_mem").await?, "4MB", "so that it is set anew");
            let token = client.cancel_token();
            let cancel = async {
                until_sleeps(&pair.second).await?;
                token.cancel_query(tokio_postgres::NoTls).await?;
                Ok::<_, anyhow::Error>(())
            };
            let (outcome, cancelled) = tokio::join!(client.simple_query("SELECT pg_sleep(60)"), cancel);
            cancelled?;
            assert_eq!(code(outcome), SqlState::QUERY_CANCELED);
        }
        assert_eq!(pair.went("shop", "repeated")?, 0, "nobody wants it repeated");
        Ok(())
    })
}

#[test]
fn sessions_outlive_a_failover() -> Result<()> {
    run(async {
        let mut pair = Pair::start().await?;
        let second = pair.ports().1;
        let (client, careful) = (connect(&pair.proxy, "shop").await?, connect(&pair.proxy, "careful").await?);
        let place = client.prepare(WHERE).await?;
        for client in [&client, &careful] {
            client.batch_execute("UPDATE counter SET n = n + 1 WHERE id = 7").await?;
        }
        pair.until_replayed().await?;
        until_read_at(&careful, &second).await?;
        pair.first.crash()?;
        pair.until_roles(["lost", "replica"]).await?;
        assert_eq!(text(&client, WHERE).await?, second, "there is somebody to read from");
        assert_eq!(text(&careful, "SELECT n FROM counter WHERE id = 7").await?, "2");
        let pair = spawn_blocking(move || pair.second.promote().map(|()| pair)).await??;
        pair.until_roles(["lost", "primary"]).await?;
        for client in [&client, &careful] {
            client.batch_execute("UPDATE counter SET n = n + 1 WHERE id = 7").await?;
            assert_eq!(text(client, WHERE).await?, second);
        }
        assert_eq!(client.query_one(&place, &[]).await?.get::<_, i32>(0).to_string(), second);
        assert_eq!(text(&careful, "SELECT n FROM counter WHERE id = 7").await?, "4");
        Ok(())
    })
}

/// pgbench as `app`, its own way.
fn pgbench(address: std::net::SocketAddr, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(harness::paths::program("pgbench")?);
    command.args(["-n", "-h", "127.0.0.1", "-p", &address.port().to_string(), "-U", "app"]).args(arguments);
    let output = command.arg("shop").env("PGPASSWORD", "secret").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// How many statements of pgbench's a server has logged.
fn seen(server: &Postgres, mark: usize, what: &str) -> usize {
    let is_one = |line: &&String| line.contains(what) && line.contains("pgbench_");
    server.log().lines().iter().skip(mark).filter(is_one).count()
}

#[test]
fn pgbench_reads_at_the_replica_and_writes_to_the_primary() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let pair = spawn_blocking(move || {
            pgbench(pair.first.address(), &["-i", "-q"])?;
            Ok::<_, anyhow::Error>(pair)
        })
        .await??;
        pair.until_replayed().await?;
        let pair = spawn_blocking(move || {
            for protocol in ["simple", "extended", "prepared"] {
                let marks = (pair.first.log().mark(), pair.second.log().mark());
                pgbench(pair.proxy.address(), &["-S", "-c", "8", "-t", "50", "-M", protocol])?;
                pair.second.log().after(marks.1, "SELECT abalance")?;
                assert_eq!(seen(&pair.first, marks.0, "SELECT abalance"), 0, "{protocol}");
                let marks = (pair.first.log().mark(), pair.second.log().mark());
                pgbench(pair.proxy.address(), &["-c", "8", "-t", "20", "-M", protocol])?;
                pair.first.log().after(marks.0, "UPDATE pgbench_accounts")?;
                for what in ["UPDATE", "INSERT", "SELECT abalance"] {
                    assert_eq!(seen(&pair.second, marks.1, what), 0, "{protocol}: {what} in a transaction");
                }
            }
            Ok::<_, anyhow::Error>(pair)
        })
        .await??;
        assert_eq!(pair.went("shop", "repeated")?, 0);
        // The text that the bench is made of is parsed once, whatever its numbers.
        assert!(pair.went("shop", "replica")? >= 3 * 400);
        let sums =
            "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";
        assert_eq!(pair.first.sql("shop", sums)?, "t");
        Ok(())
    })
}

#[test]
fn the_console_and_metrics_show_both_pools() -> Result<()> {
    run(async {
        let pair = Pair::start().await?;
        let client = connect(&pair.proxy, "shop").await?;
        client.batch_execute("UPDATE counter SET n = 1").await?;
        client.batch_execute(WHERE).await?;
        let console = connect(&pair.proxy, "groove").await?;
        let pools = console.simple_query("SHOW POOLS").await?;
        let row = |message| {
            if let tokio_postgres::SimpleQueryMessage::Row(row) = message { Some(row) } else { None }
        };
        let rows: Vec<_> = pools.into_iter().filter_map(row).collect();
        let shown = rows
            .iter()
            .map(|row| (row.get("database").unwrap_or_default(), row.get("sv_idle").unwrap_or_default()));
        let databases: Vec<_> = shown.filter(|(database, _)| database.starts_with("shop")).collect();
        assert_eq!(databases, [("shop", "1"), ("shop/replicas", "1")]);
        let metrics = pair.proxy.metrics()?;
        for database in ["shop", "shop/replicas"] {
            let labels = [("database", database)];
            assert_eq!(metrics.sum("groove_postgres_transactions_total", &labels), Some(1.0), "{database}");
        }
        let databases = console.simple_query("SHOW DATABASES").await?;
        let connections = databases.into_iter().filter_map(row).find(|row| row.get("name") == Some("shop"));
        assert_eq!(
            connections.and_then(|row| row.get("current_connections").map(str::to_owned)),
            Some("2".to_owned())
        );
        // A pause holds both, and what asks for either waits.
        console.simple_query("PAUSE shop").await?;
        let held = tokio::time::timeout(Duration::from_millis(300), client.simple_query(WHERE)).await;
        assert!(held.is_err(), "{held:?}");
        console.simple_query("RESUME shop").await?;
        until_read_at(&client, &pair.ports().1).await?;
        Ok(())
    })
}

#[test]
fn a_reload_splits_and_joins() -> Result<()> {
    run(async {
        let mut pair = Pair::start().await?;
        let (first, second) = pair.ports();
        let client = connect(&pair.proxy, "shop").await?;
        let statement = client.prepare(WHERE).await?;
        until_read_at(&client, &second).await?;
        let joined = CONFIG
            .replace("role: split\n    split: {read_only_functions: [peek, shop.nothing]}", "role: primary");
        let joined = joined.replace("    replicas: {max_lag: null}\n", "");
        let joined =
            joined.replace("careful: {<<: *split, split", "careful: {<<: *split, role: split, split");
        let joined = joined.replace("single: {<<: *split, pool", "single: {<<: *split, role: split, pool");
        let joined = joined.replace(", split: {}, replicas: {}", "").replace(", split: {}", "");
        for (config, at) in [(&joined[..], &first), (CONFIG, &second)] {
            pair.proxy.rewrite(config)?;
            pair.proxy.signal(Signal::HUP)?;
            until_read_at(&client, at).await?;
            assert_eq!(client.query_one(&statement, &[]).await?.get::<_, i32>(0).to_string(), *at);
            client.batch_execute("UPDATE counter SET n = 1").await?;
        }
        Ok(())
    })
}

/// psql by a list of hosts, as libpq goes through it.
fn psql(proxies: [&Proxy; 2], attributes: &str) -> Result<Output> {
    let ports = proxies.map(|proxy| proxy.address().port().to_string()).join(",");
    let target = format!(
        "host=127.0.0.1,127.0.0.1 port={ports} user=app dbname=shop target_session_attrs={attributes}"
    );
    let mut command = Command::new(harness::paths::program("psql")?);
    Ok(command.args(["-XAt", &target, "-c", WHERE]).env("PGPASSWORD", "secret").output()?)
}

#[test]
fn libpq_finds_what_it_wants_among_databases_by_role() -> Result<()> {
    run(async {
        let mut pair = Pair::start().await?;
        let beside = |role: &str| {
            let config =
                CONFIG.replace("role: split\n    split: {read_only_functions: [peek, shop.nothing]}", role);
            let config = config.split("  careful:").next().unwrap_or_default().to_owned();
            let config = match role {
                "role: primary" => config.replace("    replicas: {max_lag: null}\n", ""),
                _ => config,
            };
            let config = config + "users: {app: {password: secret}}\n";
            let builder = Proxy::of(Kind::Postgres).config(&config);
            builder.set("FIRST", pair.first.address()).set("SECOND", pair.second.address()).start()
        };
        let (primary, replica) = (beside("role: primary")?, beside("role: replica")?);
        let (first, second) = pair.ports();
        let answer = |proxies, attributes: &str| -> Result<String> {
            let output = psql(proxies, attributes)?;
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        for proxies in [[&primary, &replica], [&replica, &primary]] {
            for (attributes, at) in [
                ("read-write", &first),
                ("primary", &first),
                ("read-only", &second),
                ("standby", &second),
                ("prefer-standby", &second),
            ] {
                assert_eq!(answer(proxies, attributes)?, *at, "{attributes}");
            }
        }
        // A database that is split takes writes.
        for attributes in ["any", "read-write", "primary", "prefer-standby"] {
            assert_eq!(answer([&pair.proxy, &pair.proxy], attributes)?, second, "{attributes}");
        }
        let standby = psql([&pair.proxy, &primary], "standby")?;
        assert!(!standby.status.success(), "{standby:?}");
        // Where the primary stands in for its replica, that is not called one.
        pair.second.stop()?;
        until("the loss", || Ok(roles_of(&replica, "shop")? == ["primary", "lost"])).await?;
        let standby = psql([&replica, &primary], "standby")?;
        assert!(!standby.status.success(), "{standby:?}");
        assert_eq!(answer([&replica, &primary], "prefer-standby")?, first);
        assert_eq!(answer([&replica, &primary], "read-write")?, first);
        Ok(())
    })
}

#[test]
fn the_servers_own_catalogue_says_that_the_listed_functions_only_read() -> Result<()> {
    let server = Postgres::start()?;
    let listed = harness::paths::repository().join("proxies/postgres/src/split/harmless.txt");
    let listed = std::fs::read_to_string(listed)?;
    let names: Vec<_> = listed.split_ascii_whitespace().map(|name| format!("('{name}')")).collect();
    let volatile = format!(
        "SELECT coalesce(string_agg(DISTINCT proname, ' '), '') FROM pg_proc JOIN (VALUES {}) AS listed (name) \
         ON proname = name WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'",
        names.join(",")
    );
    assert_eq!(server.sql("postgres", &volatile)?, "", "these are volatile");
    let known = format!(
        "SELECT count(DISTINCT proname) FROM pg_proc JOIN (VALUES {}) AS listed (name) ON proname = name \
         WHERE pronamespace = 'pg_catalog'::regnamespace",
        names.join(",")
    );
    let known: usize = server.sql("postgres", &known)?.parse()?;
    assert!(
        known + 60 > names.len(),
        "{known} of {} are there: the others are of later releases",
        names.len()
    );
    Ok(())
}
