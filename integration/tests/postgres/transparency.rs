//! What a session in transaction mode may do as if its server were its own: settings, locks, temporary tables,
//! cursors, statements prepared by SQL, transactions that do nothing. A server of its own is what it is compared with.

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

use harness::{Kind, Postgres, Proxy};

use super::{TRUSTING, code, connect, connect_as, proxy, proxy_with_wait, roll, run, text};

const CLIENTS: usize = 200;
const SERVERS: usize = 20;

/// Runs `rounds` of something with 200 clients on 20 server connections; then nothing of it is left there.
async fn crowd<F>(prepare: &str, session: impl Fn(usize, Client) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    server.sql("shop", prepare)?;
    let proxy = &proxy;
    let clients = try_join_all((0..CLIENTS).map(|_| connect_as(proxy, "user=app dbname=shop"))).await?;
    try_join_all(clients.into_iter().enumerate().map(|(number, client)| session(number, client))).await?;
    let connections = server.sql("shop", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")?;
    ensure!(connections.parse::<usize>()? <= SERVERS, "{connections} connections");
    // Each connection is asked, as far as chance has it.
    let fresh = try_join_all((0..SERVERS).map(|_| connect_as(proxy, "user=app dbname=shop"))).await?;
    let left = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') \
                || ' ' || (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()) \
                || ' ' || (SELECT count(*) FROM pg_cursors) || ' ' || current_setting('work_mem') \
                || ' ' || coalesce(current_setting('app.tenant', true), '') || ' ' || current_user \
                || ' ' || (SELECT count(*) FROM pg_listening_channels()) FROM pg_sleep(0.05)";
    for found in try_join_all(fresh.iter().map(|client| text(client, left))).await? {
        ensure!(found == "0 0 0 4MB  app 0", "{found}");
    }
    Ok(())
}

#[test]
fn settings_of_every_kind_go_with_their_session() -> Result<()> {
    run(async {
        crowd("CREATE ROLE other; GRANT other TO app", |number, client| async move {
            let (work_mem, tenant) = (format!("{}kB", 1025 + number), format!("t{number}"));
            client.batch_execute(&format!("SET work_mem = '{work_mem}'")).await?;
            let name = "app.tenant";
            client.query("SELECT set_config($1, $2, false)", &[&name, &tenant]).await?;
            if number % 2 == 0 {
                client.batch_execute("SET ROLE other; SET search_path = pg_catalog, public").await?;
            }
            for _ in 0..5 {
                client
                    .batch_execute("BEGIN; SET LOCAL work_mem = '1MB'; SET lock_timeout = 7; ROLLBACK")
                    .await?;
                let all = "SELECT current_setting('work_mem') || ' ' || current_setting('app.tenant') \
                           || ' ' || current_setting('lock_timeout') || ' ' || current_user \
                           || ' ' || current_setting('search_path')";
                let role = if number % 2 == 0 { "other pg_catalog, public" } else { "app \"$user\", public" };
                assert_eq!(text(&client, all).await?, format!("{work_mem} {tenant} 0 {role}"));
            }
            client.batch_execute("RESET work_mem").await?;
            assert_eq!(text(&client, "SHOW work_mem").await?, "4MB");
            Ok(())
        })
        .await
    })
}

#[test]
fn advisory_locks_stay_with_their_session() -> Result<()> {
    run(async {
        crowd("SELECT 1", |number, client| async move {
            for _ in 0..5 {
                // One lock for ten clients each: who has it is alone.
                let lock = number % 20;
                client.execute("SELECT pg_advisory_lock($1)", &[&i64::try_from(lock)?]).await?;
                let held =
                    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
                assert_eq!(text(&client, held).await?, "1");
                client.batch_execute("BEGIN; SELECT 1; ROLLBACK").await?;
                let freed = format!("SELECT pg_advisory_unlock({lock})");
                assert_eq!(text(&client, &freed).await?, "t");
            }
            Ok(())
        })
        .await
    })
}

#[test]
fn temporary_tables_and_cursors_stay_with_their_session() -> Result<()> {
    run(async {
        crowd("SELECT 1", |number, client| async move {
            client.batch_execute(&format!("CREATE TEMP TABLE mine AS SELECT {number} AS n")).await?;
            for _ in 0..3 {
                assert_eq!(text(&client, "SELECT n FROM mine").await?, number.to_string());
            }
            client.batch_execute("DROP TABLE mine").await?;
            let declared =
                format!("DECLARE c CURSOR WITH HOLD FOR SELECT {number} FROM generate_series(1, 3)");
            client.batch_execute(&declared).await?;
            for _ in 0..3 {
                assert_eq!(text(&client, "FETCH c").await?, number.to_string());
            }
            client.batch_execute("CLOSE c").await?;
            Ok(())
        })
        .await
    })
}

#[test]
fn statements_prepared_by_sql_go_with_their_session() -> Result<()> {
    run(async {
        crowd("SELECT 1", |number, client| async move {
            client.batch_execute(&format!("PREPARE p (int) AS SELECT {number} + $1")).await?;
            assert_eq!(
                code(client.batch_execute("PREPARE p AS SELECT 1").await),
                SqlState::DUPLICATE_PSTATEMENT
            );
            for added in 0..5 {
                assert_eq!(
                    text(&client, &format!("EXECUTE p ({added})")).await?,
                    (number + added).to_string()
                );
            }
            // What it gives is settled when it is parsed, and differs from client to client.
            let odd = if number % 2 == 1 { ", 'odd'" } else { "" };
            client.batch_execute(&format!("PREPARE q (int) AS SELECT {number} + $1 {odd}")).await?;
            let by_protocol = client.prepare("EXECUTE q (7)").await?;
            for _ in 0..3 {
                let row = client.query_one(&by_protocol, &[]).await?;
                let n = i32::try_from(number)? + 7;
                assert_eq!((row.get(0), row.len()), (n, 1 + usize::from(!odd.is_empty())));
            }
            client.batch_execute("DEALLOCATE p").await?;
            let gone = client.batch_execute("EXECUTE p (1)").await;
            assert_eq!(code(gone), SqlState::INVALID_SQL_STATEMENT_NAME);
            Ok(())
        })
        .await
    })
}

#[test]
fn a_transaction_that_does_nothing_needs_no_server() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy_with_wait(1, "300ms")?;
        let clients = try_join_all((0..10).map(|_| connect(&proxy, "shop"))).await?;
        for client in &clients {
            client.batch_execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await?;
        }
        let [holder, refused, ..] = clients.as_slice() else { unreachable!("ten of them") };
        assert_eq!(text(holder, "SHOW transaction_isolation").await?, "serializable");
        // Who gets no server has a failed transaction, and says so until it is rolled back.
        assert_eq!(code(text(refused, "SELECT 1").await), SqlState::TOO_MANY_CONNECTIONS);
        holder.batch_execute("COMMIT").await?;
        assert_eq!(code(text(refused, "SELECT 1").await), SqlState::IN_FAILED_SQL_TRANSACTION);
        refused.batch_execute("ROLLBACK").await?;
        for client in &clients {
            client.batch_execute("ROLLBACK").await?;
            assert_eq!(text(client, "SHOW transaction_isolation").await?, "read committed");
        }
        Ok(())
    })
}

/// Something a session does; what it sees is text.
const OPERATIONS: [&str; 44] = [
    "BEGIN",
    "BEGIN",
    "COMMIT",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "ROLLBACK TO s",
    "SELECT 1/0",
    "SELECT 1",
    "SET work_mem = '1MB'",
    "SET LOCAL work_mem = '2MB'",
    "RESET work_mem",
    "SHOW work_mem",
    "SET TimeZone = 'Asia/Tokyo'",
    "SET TIME ZONE DEFAULT",
    "SHOW TimeZone",
    "SELECT set_config('app.x', '1', false)",
    "SELECT set_config('app.x', '2', true)",
    "SELECT current_setting('app.x', true) IS NOT DISTINCT FROM '1'",
    "SET search_path = pg_catalog",
    "SET SESSION search_path TO DEFAULT",
    "SHOW search_path",
    "RESET ALL",
    "DISCARD ALL",
    "SET ROLE other",
    "RESET ROLE",
    "SELECT current_user",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "SET default_transaction_read_only = off",
    "SHOW transaction_read_only",
    "PREPARE p AS SELECT 'p', current_setting('work_mem')",
    "EXECUTE p",
    "DEALLOCATE p",
    "CREATE TEMP TABLE mine (n) AS SELECT 1",
    "SELECT * FROM mine",
    "DROP TABLE mine",
    "CREATE TEMP TABLE brief ON COMMIT DROP AS SELECT 1",
    "SELECT pg_advisory_lock(SELF)",
    "SELECT pg_advisory_unlock(SELF)",
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 100)",
    "FETCH c",
    "CLOSE c",
    "DO $$BEGIN PERFORM set_config('app.x', '1', false); END$$",
];

/// What a client sees of one operation.
async fn seen(client: &Client, operation: &str) -> String {
    match client.simple_query(operation).await {
        Ok(messages) => messages.iter().map(shown).collect(),
        Err(error) => format!("{:?}", code(Err::<(), Error>(error))),
    }
}

fn shown(message: &SimpleQueryMessage) -> String {
    if let SimpleQueryMessage::Row(row) = message {
        (0..row.len()).map(|column| format!("{:?},", row.get(column))).collect()
    } else if let SimpleQueryMessage::CommandComplete(rows) = message {
        format!("{rows} rows;")
    } else {
        String::new()
    }
}

/// Several sessions at once, each beside one that has a server to itself: both see the same.
#[test]
fn a_session_sees_what_it_would_see_alone() -> Result<()> {
    const SESSIONS: usize = 8;
    const ROUNDS: usize = 3;
    run(async {
        // Some wait while others keep theirs.
        let (server, proxy) = proxy(SESSIONS - 2)?;
        server.sql("shop", "CREATE ROLE other; GRANT other TO app; GRANT CREATE ON SCHEMA public TO app")?;
        for round in 0..ROUNDS {
            let sessions = (0..SESSIONS).map(|number| beside_its_own(&server, &proxy, round, number));
            try_join_all(sessions).await?;
        }
        Ok(())
    })
}

async fn beside_its_own(server: &Postgres, proxy: &Proxy, round: usize, number: usize) -> Result<()> {
    const STEPS: usize = 250;
    const STARTUP: &str =
        "user=app password=secret dbname=shop options='-c work_mem=3MB -c TimeZone=Africa/Cairo'";
    let pooled = connect_as(proxy, STARTUP).await?;
    let address = server.address();
    let direct = format!("host={} port={} {STARTUP}", address.ip(), address.port());
    let (direct, connection) = tokio_postgres::connect(&direct, NoTls).await?;
    tokio::spawn(connection);
    let mut dice = 0x9E37_79B9_7F4A_7C15 ^ u64::try_from(round * 100 + number + 1)?;
    let (mut done, mut in_block) = (Vec::new(), false);
    for _ in 0..STEPS {
        let Some(operation) = OPERATIONS.get(roll(&mut dice, OPERATIONS.len())) else { continue };
        match *operation {
            "BEGIN" => in_block = true,
            "COMMIT" | "ROLLBACK" => in_block = false,
            // Within a transaction they reset to the server's default; see docs/postgres.md.
            _ if in_block && (operation.contains("RESET") || operation.contains("DEFAULT")) => continue,
            _ => {}
        }
        let own = |base: usize| operation.replace("SELF", &(base + number).to_string());
        done.push(*operation);
        let (here, there) = (own(100), own(200));
        let (expected, found) = tokio::join!(seen(&direct, &here), seen(&pooled, &there));
        let steps = done.join("\n");
        ensure!(
            found == expected,
            "round {round}, session {number}: {found}, not {expected}, after\n{steps}"
        );
    }
    Ok(())
}

#[test]
fn what_is_altered_is_parsed_anew() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        server.sql("shop", "CREATE TABLE a (n int); INSERT INTO a VALUES (1); ALTER TABLE a OWNER TO app")?;
        let (one, other) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        let query = "SELECT * FROM a";
        let before = one.prepare(query).await?;
        one.query_one(&before, &[]).await?;
        other.batch_execute("ALTER TABLE a ALTER n TYPE text").await?;
        // Who has prepared it before hears what it would from the server; who does so now has what is there now.
        assert_eq!(code(one.query(&before, &[]).await), SqlState::FEATURE_NOT_SUPPORTED);
        assert_eq!(one.query(&before, &[]).await?.len(), 1, "it hears so once");
        for client in [&one, &other] {
            let statement = client.prepare(query).await?;
            assert_eq!(client.query_one(&statement, &[]).await?.get::<_, &str>(0), "1");
        }
        // Of what others alter, behind the proxy's back, who prepares afterwards hears nothing: whether it describes the
        // statement first, or binds it in the same breath as it is parsed.
        server.sql("shop", "ALTER TABLE a ALTER n TYPE int USING n::int")?;
        for client in [&one, &other] {
            let statement = client.prepare(query).await?;
            assert_eq!(client.query_one(&statement, &[]).await?.get::<_, i32>(0), 1);
        }
        // What was parsed after the change on one connection may be older than it on another.
        Ok(())
    })
}
