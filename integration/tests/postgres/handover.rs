//! One process after the other, under load: nobody is to notice.

mod load;

use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, ensure};
use harness::{Authority, Kind, PATIENCE, Postgres, Process, Proxy, Signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use super::{code, connect, connect_as, run, text};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
handover: $DIR/handover
databases:
  shop: {endpoints: [$SERVER], pool: {size: $SIZE}}
  own: {endpoints: [$SERVER], dbname: shop, pool: {mode: session, size: 20}}
users:
  app: {password: secret}
";

fn proxy(size: usize) -> Result<(Postgres, Proxy)> {
    let server = Postgres::start()?;
    let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address());
    Ok((server, builder.set("SIZE", size).start()?))
}

/// One process follows another; the one before ends by itself, with nobody left.
fn handed_over(proxy: &mut Proxy) -> Result<()> {
    let mut old = proxy.hand_over()?;
    ended(&mut old)
}

fn ended(old: &mut Process) -> Result<()> {
    let ended = old.exit(PATIENCE)?;
    ensure!(ended.success(), "{ended}\n{}", old.log());
    Ok(())
}

/// Sends a cancel request until the query has felt it: the first may come before the server runs it.
async fn cancelled(client: &tokio_postgres::Client, query: &str) -> Result<()> {
    let token = client.cancel_token();
    let again = async {
        loop {
            token.cancel_query(NoTls).await?;
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        outcome = client.simple_query(query) => assert_eq!(code(outcome), SqlState::QUERY_CANCELED),
        failed = again => return failed,
    }
    Ok(())
}

#[test]
fn what_a_session_has_goes_with_it() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(2)?;
        let client = connect(&proxy, "shop").await?;
        client
            .batch_execute("SET TimeZone = 'Asia/Tokyo'; SET my.own = 'mine'; SET work_mem = '7MB'")
            .await?;
        client.batch_execute("PREPARE by_sql (int) AS SELECT $1 * 3").await?;
        let statement = client.prepare("SELECT $1::int + 1").await?;
        for round in 0..3 {
            handed_over(&mut proxy)?;
            let shown = "SELECT current_setting('TimeZone') || current_setting('my.own') || current_setting('work_mem')";
            assert_eq!(text(&client, shown).await?, "Asia/Tokyomine7MB", "round {round}");
            assert_eq!(text(&client, "EXECUTE by_sql(7)").await?, "21");
            assert_eq!(client.query_one(&statement, &[&round]).await?.get::<_, i32>(0), round + 1);
            // Reset is what it began with, not what it has now.
            client.batch_execute("BEGIN; SET LOCAL work_mem = '9MB'; COMMIT").await?;
            assert_eq!(text(&client, shown).await?, "Asia/Tokyomine7MB", "round {round}");
            cancelled(&client, "SELECT pg_sleep(60)").await?;
        }
        client.batch_execute("RESET ALL").await?;
        assert_ne!(text(&client, "SHOW TimeZone").await?, "Asia/Tokyo");
        // Nothing of it is another's.
        let other = connect(&proxy, "shop").await?;
        assert_eq!(text(&other, "SELECT coalesce(current_setting('my.own', true), '')").await?, "");
        Ok(())
    })
}

const TRUSTING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
handover: $DIR/handover
auth: trust
databases: {shop: {endpoints: [$SERVER], pool: {size: 2}}}
users: {app: {server_password: secret}}
";

/// A client of which every byte is ours to send.
async fn raw(proxy: &Proxy) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy.address()).await?;
    stream.write_all(b"\0\0\0\x20\0\x03\0\0user\0app\0database\0shop\0\0").await?;
    heard(&mut stream).await?;
    Ok(stream)
}

/// The tags of what is said up to ReadyForQuery, and what is in the last row.
async fn heard(stream: &mut TcpStream) -> Result<(String, Vec<u8>)> {
    let (mut tags, mut row) = (String::new(), Vec::new());
    while !tags.ends_with('Z') {
        tags.push(char::from(stream.read_u8().await?));
        let mut body = vec![0; usize::try_from(stream.read_u32().await?)?.saturating_sub(4)];
        stream.read_exact(&mut body).await?;
        if tags.ends_with('D') {
            row = body;
        }
    }
    Ok((tags, row))
}

#[test]
fn half_a_message_is_sent_before_and_half_after() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let mut proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
        let mut stream = raw(&proxy).await?;
        for _ in 0..2 {
            let (one, other) = b"Q\0\0\0\x15SELECT 'a whole'\0Q\0\0\0\x14SELECT 'second'\0".split_at(11);
            let before = proxy.metrics()?.sum("groove_postgres_received_bytes_total", &[]).unwrap_or(0.0);
            stream.write_all(one).await?;
            harness::eventually("half a message", || {
                let read = proxy.metrics().ok()?.sum("groove_postgres_received_bytes_total", &[])?;
                (read >= before + 11.0).then_some(())
            })?;
            handed_over(&mut proxy)?;
            stream.write_all(other).await?;
            let (first, second) = (heard(&mut stream).await?, heard(&mut stream).await?);
            assert_eq!((first.0.as_str(), &first.1[6..]), ("TDCZ", &b"a whole"[..]));
            assert_eq!((second.0.as_str(), &second.1[6..]), ("TDCZ", &b"second"[..]));
        }
        Ok(())
    })
}

#[test]
fn a_transaction_ends_where_it_began_and_its_session_then_moves() -> Result<()> {
    run(async {
        let (server, mut proxy) = proxy(2)?;
        server.sql("shop", "CREATE TABLE t (n int); GRANT ALL ON t TO app")?;
        let (busy, begun, locked) =
            (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        locked.batch_execute("SELECT pg_advisory_lock(7)").await?;
        busy.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await?;
        // Begun, and no server knows of it.
        begun.batch_execute("BEGIN").await?;
        let mut old = proxy.hand_over()?;
        old.log().expect("handing over")?;
        begun.batch_execute("INSERT INTO t VALUES (2)").await?;
        busy.batch_execute("SAVEPOINT s").await?;
        // The new process does not know it, and asks the old one.
        cancelled(&busy, "SELECT pg_sleep(60)").await?;
        busy.batch_execute("ROLLBACK TO s; INSERT INTO t VALUES (3); COMMIT").await?;
        begun.batch_execute("COMMIT").await?;
        assert_eq!(text(&busy, "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t").await?, "1 2 3");
        // What keeps a server connection keeps its process.
        assert_eq!(text(&connect(&proxy, "shop").await?, "SELECT pg_try_advisory_lock(7)").await?, "f");
        locked.batch_execute("SELECT pg_advisory_unlock(7)").await?;
        ended(&mut old)?;
        let said = old.log().expect("handed over")?;
        ensure!(said.contains("\"given\":3") && said.contains("\"kept\":0"), "{said}");
        assert_eq!(text(&locked, "SELECT pg_try_advisory_lock(7)").await?, "t");
        assert_eq!(text(&busy, "SELECT count(*) FROM t").await?, "3");
        let metrics = proxy.metrics()?;
        assert_eq!(metrics.sum("groove_handover_sessions_total", &[("outcome", "taken")]), Some(3.0));
        Ok(())
    })
}

#[test]
fn a_process_that_does_not_get_ready_changes_nothing() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(2)?;
        let client = connect(&proxy, "shop").await?;
        let statement = client.prepare("SELECT $1::int + 1").await?;
        let occupied = std::net::TcpListener::bind("127.0.0.1:0")?;
        let too_many = format!("[{{address: $LISTEN}}, {{address: \"{}\"}}]", occupied.local_addr()?);
        for (config, complaint) in [
            (CONFIG.replace("databases:", "databasses:"), "databasses"),
            // This one has the sockets already when it fails.
            (CONFIG.replace("[{address: $LISTEN}]", &too_many), "in use"),
        ] {
            let mut next = proxy.beside(&config)?;
            assert_eq!(next.exit(PATIENCE)?.code(), Some(1), "{}", next.log());
            next.log().expect(complaint)?;
            assert_eq!(client.query_one(&statement, &[&1]).await?.get::<_, i32>(0), 2);
            assert_eq!(text(&connect(&proxy, "shop").await?, "SELECT 1").await?, "1");
        }
        // Some that go without a word, or say nonsense.
        let path = proxy.folder().join("handover");
        drop(UnixStream::connect(&path)?);
        std::io::Write::write_all(&mut UnixStream::connect(&path)?, &[0xff; 64])?;
        proxy.log().expect("did not get to take over")?;
        assert_eq!(proxy.get("/readyz")?.status, 200);
        handed_over(&mut proxy)?;
        assert_eq!(client.query_one(&statement, &[&1]).await?.get::<_, i32>(0), 2);
        Ok(())
    })
}

#[test]
fn a_new_process_that_dies_at_once_takes_only_what_it_has_taken() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(2)?;
        let (moved, busy) = (connect(&proxy, "shop").await?, connect(&proxy, "shop").await?);
        busy.batch_execute("BEGIN; SELECT 1").await?;
        let mut old = proxy.hand_over()?;
        harness::eventually("a session that is taken", || {
            let taken =
                proxy.metrics().ok()?.sum("groove_handover_sessions_total", &[("outcome", "taken")])?;
            (taken >= 1.0).then_some(())
        })?;
        proxy.kill()?;
        assert!(text(&moved, "SELECT 1").await.is_err());
        // There is nobody to move to: it is served to its end.
        busy.batch_execute("COMMIT; SELECT 1").await?;
        drop(busy);
        ended(&mut old)
    })
}

#[test]
fn a_session_with_tls_is_served_to_its_end_by_the_old_process() -> Result<()> {
    run(async {
        let (server, folder) = (Postgres::start()?, tempfile::tempdir()?);
        let authority = Authority::new(folder.path())?;
        let issued = authority.issue("proxy", &["localhost"])?;
        let tls =
            format!("tls: {{certificate: {}, key: {}}}", issued.certificate.display(), issued.key.display());
        let config = TRUSTING.replace("$LISTEN", &format!("$LISTEN, {tls}"));
        let mut proxy = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address()).start()?;
        let mut stream = TcpStream::connect(proxy.address()).await?;
        stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
        ensure!(stream.read_u8().await? == b'S', "no TLS");
        let stream = harness::tls::connect(stream, "localhost", &authority.certificate(), None).await?;
        let mut login = tokio_postgres::Config::new();
        login.user("app").dbname("shop").ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = login.connect_raw(stream, NoTls).await?;
        tokio::spawn(connection);
        let plain = connect_as(&proxy, "user=app dbname=shop").await?;
        let mut old = proxy.hand_over()?;
        harness::eventually("the plain one to move", || {
            let taken =
                proxy.metrics().ok()?.sum("groove_handover_sessions_total", &[("outcome", "taken")])?;
            (taken >= 1.0).then_some(())
        })?;
        ensure!(old.is_running(), "{}", old.log());
        assert_eq!(text(&client, "SELECT 1").await?, "1");
        assert_eq!(text(&plain, "SELECT 1").await?, "1");
        // A second signal is not needed: SIGTERM ends the wait, with the protocol's goodbye.
        old.signal(Signal::TERM)?;
        ended(&mut old)?;
        assert!(text(&client, "SELECT 1").await.is_err());
        assert_eq!(text(&plain, "SELECT 1").await?, "1");
        Ok(())
    })
}

/// What only the client's login has told goes along: here the new process could log in nowhere without it.
#[test]
fn what_a_login_has_told_goes_along() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        server.sql("shop", "CREATE ROLE asker LOGIN PASSWORD 'ask'; GRANT SELECT ON pg_authid TO asker")?;
        let verifier = server.sql("shop", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")?;
        let asking = "auth_query: {database: shop, user: asker, password: ask, ttl: 1h}\n";
        let passing = "auth: passthrough\n";
        for way in ["users: {app: {password: $VERIFIER}}\n", asking, passing] {
            let config = TRUSTING.replace("auth: trust\n", way);
            let config: String = config
                .lines()
                .filter(|line| !line.contains("server_password"))
                .map(|line| format!("{line}\n"))
                .collect();
            let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
            let mut proxy = builder.set("VERIFIER", &verifier).start()?;
            let client =
                connect_as(&proxy, "user=app password=secret dbname=shop").await.context(way.to_owned())?;
            for _ in 0..2 {
                handed_over(&mut proxy)?;
                assert_eq!(text(&client, "SELECT current_user").await.context(way.to_owned())?, "app");
            }
        }
        Ok(())
    })
}

#[test]
fn who_the_client_is_goes_along() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let balanced = "{address: \"unix:$DIR/balanced\", proxy_protocol: {trusted: [127.0.0.0/8]}}";
        let config = TRUSTING.replace("[{address: $LISTEN}]", &format!("[{{address: $LISTEN}}, {balanced}]"));
        let mut proxy = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address()).start()?;
        let mut stream = tokio::net::UnixStream::connect(proxy.folder().join("balanced")).await?;
        stream.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 6432\r\n").await?;
        let mut login = tokio_postgres::Config::new();
        login.user("app").dbname("shop").application_name("balance sheet");
        let (client, connection) =
            login.ssl_mode(tokio_postgres::config::SslMode::Disable).connect_raw(stream, NoTls).await?;
        tokio::spawn(connection);
        let clients = async |proxy: &Proxy| {
            use tokio_postgres::SimpleQueryMessage::Row;
            let console = connect_as(proxy, "user=app dbname=groove").await?;
            let shown = console.simple_query("SHOW CLIENTS").await?;
            let rows =
                shown.iter().filter_map(|message| if let Row(row) = message { Some(row) } else { None });
            let ours = rows.into_iter().find(|row| row.get("application_name") == Some("balance sheet"));
            let ours = ours.map(|row| {
                ["addr", "port", "connect_time", "user", "database"]
                    .map(|name| row.get(name).map(str::to_owned))
            });
            ours.context("not shown")
        };
        let before = clients(&proxy).await?;
        assert_eq!(before[0].as_deref(), Some("192.0.2.7"), "{before:?}");
        for _ in 0..2 {
            let mut old = proxy.hand_over()?;
            ended(&mut old)?;
            assert_eq!(text(&client, "SELECT 1").await?, "1");
            assert_eq!(clients(&proxy).await?, before);
        }
        Ok(())
    })
}

#[test]
fn sigusr2_starts_the_next_process() -> Result<()> {
    run(async {
        let (_server, mut proxy) = proxy(2)?;
        let client = connect(&proxy, "shop").await?;
        let pid = proxy.pid();
        proxy.signal(Signal::USR2)?;
        // The log is the child's as well.
        proxy.log().expect("took the place of another process")?;
        assert!(proxy.exit(PATIENCE)?.success());
        assert_eq!(text(&client, "SELECT 1").await?, "1");
        let status = proxy.status()?;
        let next = status["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).context("a pid")?;
        assert_ne!(u32::try_from(next)?, pid);
        harness::end(next)?;
        Ok(())
    })
}
