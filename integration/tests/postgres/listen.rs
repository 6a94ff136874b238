//! LISTEN in transaction mode: a pool hears for its sessions, and each hears what it would on a server of its own.

mod storm;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::poll_fn;
use harness::{Kind, Postgres, Proxy, Signal};
use tokio::net::TcpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

use super::faults::until;
use super::{TRUSTING, connect, connect_as, proxy, run, text};

const SHOP: &str = "user=app password=secret dbname=shop";

/// A client, and what it is told without having asked.
struct Ears {
    client: Client,
    heard: UnboundedReceiver<Heard>,
}

#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Told(String, String),
    Ended(Option<SqlState>),
}

impl Ears {
    async fn open(address: SocketAddr, rest: &str) -> Result<Ears> {
        let target = format!("host={} port={} {rest}", address.ip(), address.port());
        let (client, mut connection) = tokio_postgres::connect(&target, NoTls).await?;
        let (tell, heard) = unbounded_channel();
        let mut messages = poll_fn(move |cx| connection.poll_message(cx));
        tokio::spawn(async move {
            let ended = loop {
                match messages.next().await {
                    Some(Ok(AsyncMessage::Notification(said))) => {
                        let said = Heard::Told(said.channel().to_owned(), said.payload().to_owned());
                        // Who does not want to hear any more has gone.
                        let _ = tell.send(said);
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break Heard::Ended(error.code().cloned()),
                    None => break Heard::Ended(None),
                }
            };
            let _ = tell.send(ended);
        });
        Ok(Ears { client, heard })
    }

    async fn run(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.with_context(|| sql.to_owned())
    }

    async fn next(&mut self) -> Result<(String, String)> {
        match self.heard.recv().await.context("the connection")? {
            Heard::Told(channel, payload) => Ok((channel, payload)),
            Heard::Ended(code) => bail!("ended by {code:?}"),
        }
    }

    /// What comes before a payload.
    async fn until(&mut self, last: &str) -> Result<Vec<(String, String)>> {
        let mut heard = Vec::new();
        loop {
            match self.next().await? {
                (_, payload) if payload == last => return Ok(heard),
                told => heard.push(told),
            }
        }
    }

    /// What is here already.
    fn here(&mut self) -> Vec<(String, String)> {
        let mut here = Vec::new();
        while let Ok(Heard::Told(channel, payload)) = self.heard.try_recv() {
            here.push((channel, payload));
        }
        here
    }

    /// Why the connection ended; what was told before is passed over.
    async fn end(&mut self) -> Result<Option<SqlState>> {
        loop {
            if let Heard::Ended(code) = self.heard.recv().await.context("the connection")? {
                return Ok(code);
            }
        }
    }
}

fn told(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(channel, payload)| ((*channel).to_owned(), (*payload).to_owned())).collect()
}

fn gauge(proxy: &Proxy, name: &str) -> Result<f64> {
    proxy.metrics()?.sum(name, &[("user", "app")]).with_context(|| name.to_owned())
}

#[test]
fn two_hundred_listen_over_one_connection() -> Result<()> {
    const CLIENTS: usize = 200;
    run(async {
        let server = Postgres::start()?;
        let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
        let ears = (0..CLIENTS).map(|_| Ears::open(proxy.address(), "user=app dbname=shop"));
        let mut ears = try_join_all(ears).await?;
        try_join_all(ears.iter().enumerate().map(|(number, ears)| async move {
            ears.run(&format!("LISTEN own_{number}")).await?;
            ears.run("BEGIN; LISTEN common; COMMIT").await
        }))
        .await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        ensure!(gauge(&proxy, "groove_postgres_listening")? == 200.0);
        ensure!(gauge(&proxy, "groove_postgres_channels")? == 201.0);
        let listening = "SELECT count(*) FILTER (WHERE application_name = 'groove listener') || ' ' || \
                         (count(*) <= 21) FROM pg_stat_activity WHERE usename = 'app'";
        ensure!(server.sql("shop", listening)? == "1 true");

        try_join_all(ears.iter().enumerate().map(|(number, ears)| async move {
            let next = (number + 1) % CLIENTS;
            for round in 0..3 {
                ears.run(&format!(
                    "NOTIFY own_{next}, '{number} {round}'; NOTIFY common, '{number} {round}'"
                ))
                .await?;
            }
            anyhow::Ok(())
        }))
        .await?;
        server.sql("shop", "NOTIFY common, 'end'")?;
        let mut common: Option<Vec<String>> = None;
        for (number, ears) in ears.iter_mut().enumerate() {
            let heard = ears.until("end").await?;
            let on = |wanted: &str| -> Vec<String> {
                let of = heard.iter().filter(|(channel, _)| channel == wanted);
                of.map(|(_, payload)| payload.clone()).collect()
            };
            let before = (number + CLIENTS - 1) % CLIENTS;
            let expected: Vec<_> = (0..3).map(|round| format!("{before} {round}")).collect();
            ensure!(on(&format!("own_{number}")) == expected, "{number}: {heard:?}");
            ensure!(heard.len() == 3 + 3 * CLIENTS, "{number} heard {}", heard.len());
            // All in the order in which they were committed.
            ensure!(common.get_or_insert_with(|| on("common")) == &on("common"), "{number}");
        }
        Ok(())
    })
}

#[test]
fn a_transaction_decides_what_is_heard() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        // The server's own word first.
        for address in [server.address(), proxy.address()] {
            let address: SocketAddr = address.to_string().parse()?;
            let (mut ears, other) = (Ears::open(address, SHOP).await?, Ears::open(address, SHOP).await?);
            ears.run("LISTEN sure").await?;
            ears.run("BEGIN; LISTEN a; ROLLBACK").await?;
            ears.run("BEGIN; SAVEPOINT s; LISTEN a; ROLLBACK TO s; COMMIT").await?;
            ears.run("LISTEN a; SELECT 1/0").await.unwrap_err();
            other.run("NOTIFY a, '1'; NOTIFY sure, '2'").await?;
            ensure!(ears.next().await? == ("sure".into(), "2".into()));

            // Its own, and at once.
            ears.run("BEGIN; LISTEN a; NOTIFY a, '3'; NOTIFY sure, '4'; COMMIT").await?;
            let mut here = ears.here();
            here.sort();
            ensure!(here == told(&[("a", "3"), ("sure", "4")]), "{here:?}");
            ears.run("NOTIFY a, '5'").await?;
            ensure!(ears.here() == told(&[("a", "5")]));
            text(&ears.client, "SELECT pg_notify('a', '6')").await?;
            ensure!(ears.here() == told(&[("a", "6")]));

            // Not before its transaction is over.
            ears.run("BEGIN; SELECT 1").await?;
            if address != proxy.address() {
                other.run("NOTIFY a, '7'").await?;
                ensure!(ears.here().is_empty());
                ears.run("COMMIT").await?;
                ensure!(ears.until("7").await?.is_empty());
            } else {
                ears.run("COMMIT").await?;
            }

            // An UNLISTEN counts with its transaction.
            for undone in
                ["BEGIN; UNLISTEN a; ROLLBACK", "UNLISTEN a; SELECT 1/0", "BEGIN; UNLISTEN *; SELECT 1/0"]
            {
                ears.client.batch_execute(undone).await.ok();
                ears.run("ROLLBACK").await?;
                other.run("NOTIFY a, 'undone'").await?;
                ensure!(ears.next().await?.1 == "undone", "{undone}");
            }
            ears.run("BEGIN; UNLISTEN *; COMMIT AND CHAIN; LISTEN a; LISTEN sure; COMMIT").await?;
            other.run("NOTIFY a, '8'; NOTIFY sure, '9'").await?;
            ensure!(ears.until("9").await? == told(&[("a", "8")]));
            for leave in ["UNLISTEN a", "UNLISTEN *; LISTEN sure", "DISCARD ALL; LISTEN sure"] {
                let leave: Vec<_> = leave.split("; ").collect();
                ears.run("LISTEN a").await?;
                other.run("NOTIFY a, '10'").await?;
                ensure!(ears.next().await?.1 == "10");
                for sql in leave {
                    ears.client.simple_query(sql).await?;
                }
                other.run("NOTIFY a, '11'; NOTIFY sure, '12'").await?;
                ensure!(ears.until("12").await?.is_empty());
            }
            let statement = ears.client.prepare("UNLISTEN sure").await?;
            ears.client.execute(&statement, &[]).await?;
            other.run("NOTIFY sure, '13'").await?;
            ears.run("LISTEN last").await?;
            other.run("NOTIFY last, '14'").await?;
            ensure!(ears.until("14").await?.is_empty());
        }
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        Ok(())
    })
}

#[test]
fn channels_are_called_what_the_server_calls_them() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        let mut ears = Ears::open(proxy.address(), SHOP).await?;
        let long = "l".repeat(70);
        // As it is written, and as it is.
        let names = [
            ("MiXed", "mixed"),
            ("\"MiXed\"", "MiXed"),
            ("\"with \"\"quotes\"\"; and 'more', \\ $1\"", "with \"quotes\"; and 'more', \\ $1"),
            ("\"ÄÖ 漢字\"", "ÄÖ 漢字"),
            (&long, &long[..63]),
        ];
        for (written, _) in names {
            ears.run(&format!("LISTEN {written}")).await?;
        }
        let payload = "'; UNLISTEN *; -- \t \u{1} é 漢";
        for (_, name) in names {
            ears.client.execute("SELECT pg_notify($1, $2)", &[&name, &payload]).await?;
            ensure!(ears.next().await? == (name.to_owned(), payload.to_owned()));
        }
        ears.run("LISTEN sure").await?;
        for (written, name) in names {
            ears.run(&format!("UNLISTEN {written}")).await?;
            server.sql("shop", &format!("SELECT pg_notify('{}', 'x')", name.replace('\'', "''")))?;
            ears.run("NOTIFY sure, 'y'").await?;
            ensure!(ears.until("y").await?.is_empty(), "{written}");
        }
        Ok(())
    })
}

#[test]
fn who_listens_is_ended_with_what_hears_for_it() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(2)?;
        let (mut idle, mut busy) =
            (Ears::open(proxy.address(), SHOP).await?, Ears::open(proxy.address(), SHOP).await?);
        let other = connect(&proxy, "shop").await?;
        idle.run("LISTEN a").await?;
        busy.run("LISTEN a").await?;
        busy.run("BEGIN; SELECT 1").await?;
        let hang_up = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE application_name = 'groove listener'";
        ensure!(server.sql("shop", hang_up)? == "1");
        ensure!(idle.end().await? == Some(SqlState::CONNECTION_FAILURE));
        // A transaction comes to its end first.
        ensure!(text(&busy.client, "SELECT 2").await? == "2");
        busy.run("COMMIT").await?;
        ensure!(busy.end().await? == Some(SqlState::CONNECTION_FAILURE));
        ensure!(text(&other, "SELECT 3").await? == "3");
        // Who comes anew is heard for anew.
        let mut again = Ears::open(proxy.address(), SHOP).await?;
        again.run("LISTEN a").await?;
        server.sql("shop", "NOTIFY a, 'b'")?;
        ensure!(again.next().await? == ("a".into(), "b".into()));
        // When the last has left, nothing is left on the server.
        again.run("UNLISTEN a").await?;
        let listeners = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'groove listener'";
        until("the end of what nobody needs", || async { Ok(server.sql("shop", listeners)? == "0") }).await?;
        again.run("LISTEN a; NOTIFY a, 'c'").await?;
        ensure!(again.next().await? == ("a".into(), "c".into()));
        Ok(())
    })
}

#[test]
fn where_nothing_hears_for_it_a_session_keeps_its_connection() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(2)?;
        let mut ears = Ears::open(proxy.address(), SHOP).await?;
        ears.run("SELECT 1").await?;
        // The role has all the connections that it may have.
        server.sql("shop", "ALTER ROLE app CONNECTION LIMIT 1")?;
        ears.run("LISTEN a").await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 1.0);
        ensure!(gauge(&proxy, "groove_postgres_listening")? == 0.0);
        server.sql("shop", "NOTIFY a, 'b'; ALTER ROLE app CONNECTION LIMIT 10")?;
        ensure!(ears.next().await? == ("a".into(), "b".into()));
        ears.run("UNLISTEN a; LISTEN a").await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        server.sql("shop", "NOTIFY a, 'c'")?;
        ensure!(ears.next().await? == ("a".into(), "c".into()));
        Ok(())
    })
}

#[test]
fn who_keeps_its_connection_for_another_reason_hears_on_both() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(2)?;
        let mut ears = Ears::open(proxy.address(), SHOP).await?;
        ears.run("LISTEN a").await?;
        ears.run("SELECT pg_advisory_lock(1)").await?;
        ears.run("LISTEN b; LISTEN a").await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 1.0);
        server.sql("shop", "NOTIFY a, '1'; NOTIFY b, '2'")?;
        let mut heard = vec![ears.next().await?, ears.next().await?];
        heard.sort();
        ensure!(heard == told(&[("a", "1"), ("b", "2")]), "{heard:?}");
        ears.run("SELECT pg_advisory_unlock(1)").await?;
        ears.run("UNLISTEN a").await?;
        server.sql("shop", "NOTIFY a, '3'; NOTIFY b, '4'")?;
        ensure!(ears.next().await? == ("b".into(), "4".into()));
        Ok(())
    })
}

#[test]
fn who_does_not_read_is_told_so_and_ended() -> Result<()> {
    // More than sockets take here, and a mailbox.
    const FLOOD: usize = 4000;
    run(async {
        let (server, proxy) = proxy(2)?;
        let mut other = Ears::open(proxy.address(), SHOP).await?;
        other.run("LISTEN quiet").await?;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(64 << 10)?;
        let stream = socket.connect(proxy.address()).await?;
        let (client, mut connection) = SHOP.parse::<Config>()?.connect_raw(stream, NoTls).await?;
        let mut messages = poll_fn(move |cx| connection.poll_message(cx));
        tokio::select! {
            listens = client.batch_execute("LISTEN flood") => listens?,
            message = messages.next() => bail!("{message:?}"),
        }
        let flood = format!(
            "SELECT count(pg_notify('flood', n || repeat('x', 7000))) FROM generate_series(1, {FLOOD}) n"
        );
        server.sql("shop", &flood)?;
        let limit = [("user", "app"), ("kind", "limit")];
        until("the end of who does not read", || async {
            Ok(proxy.metrics()?.sum("groove_postgres_errors_total", &limit).is_some_and(|count| count > 0.0))
        })
        .await?;
        let mut read = 0;
        let error = loop {
            match messages.next().await.context("its end")? {
                Ok(AsyncMessage::Notification(said)) => {
                    read += 1;
                    ensure!(said.payload().starts_with(&format!("{read}x")), "no gap before the end");
                }
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        ensure!(error.code() == Some(&SqlState::PROGRAM_LIMIT_EXCEEDED), "{error:?}");
        ensure!(read < FLOOD);
        server.sql("shop", "NOTIFY quiet, 'end'")?;
        ensure!(other.next().await? == ("quiet".into(), "end".into()));
        Ok(())
    })
}

/// With somebody who may use the console.
const OPERATED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
databases: {shop: {endpoints: [$SERVER], dbname: $NAME, pool: {size: 2}}}
users: {app: {password: secret}, boss: {password: secret}}
console: {admins: [boss]}
";

fn operated(server: &Postgres) -> Result<Proxy> {
    let builder = Proxy::of(Kind::Postgres).config(OPERATED).set("SERVER", server.address());
    builder.set("NAME", "shop").start()
}

/// A client that listens, and has heard something.
async fn listening(proxy: &Proxy) -> Result<Ears> {
    let mut ears = Ears::open(proxy.address(), SHOP).await?;
    ears.run("LISTEN a; NOTIFY a, 'here'").await?;
    ensure!(ears.next().await? == ("a".into(), "here".into()));
    Ok(ears)
}

#[test]
fn a_pause_leaves_those_that_listen_alone_and_a_replacement_ends_them() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let mut proxy = operated(&server)?;
        let boss = connect_as(&proxy, "user=boss password=secret dbname=groove").await?;
        let mut ears = listening(&proxy).await?;
        let states = |rows: Vec<SimpleQueryMessage>, column: &str| -> Vec<String> {
            let value = |row: &SimpleQueryMessage| {
                let SimpleQueryMessage::Row(row) = row else { return None };
                row.get(column).map(str::to_owned)
            };
            rows.iter().filter_map(value).collect()
        };
        let mut servers = states(boss.simple_query("SHOW SERVERS").await?, "state");
        servers.sort();
        ensure!(servers == ["idle", "listening"], "{servers:?}");
        ensure!(states(boss.simple_query("SHOW POOLS").await?, "sv_idle") == ["1"]);

        boss.batch_execute("PAUSE shop").await?;
        server.sql("shop", "NOTIFY a, 'in a pause'")?;
        ensure!(ears.next().await?.1 == "in a pause");
        boss.batch_execute("RESUME shop").await?;
        ears.run("SELECT 1").await?;

        boss.batch_execute("RECONNECT shop").await?;
        ensure!(ears.end().await? == Some(SqlState::ADMIN_SHUTDOWN));
        let mut ears = listening(&proxy).await?;
        boss.batch_execute("KILL shop").await?;
        ensure!(ears.end().await? == Some(SqlState::ADMIN_SHUTDOWN));
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        until("nothing on the server", || async { Ok(server.sql("shop", count)? == "0") }).await?;
        boss.batch_execute("RESUME shop").await?;

        // The database is another one from now on.
        let mut ears = listening(&proxy).await?;
        proxy.set("NAME", "postgres");
        proxy.rewrite(OPERATED)?;
        proxy.signal(Signal::HUP)?;
        ensure!(ears.end().await? == Some(SqlState::ADMIN_SHUTDOWN));
        let mut ears = listening(&proxy).await?;
        server.sql("postgres", "NOTIFY a, 'elsewhere'")?;
        ensure!(ears.next().await?.1 == "elsewhere");
        Ok(())
    })
}

#[test]
fn who_only_listens_does_not_hold_up_a_drain() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let mut proxy = operated(&server)?;
        let (mut idle, mut busy) = (listening(&proxy).await?, listening(&proxy).await?);
        idle.here();
        busy.run("BEGIN; SELECT 1").await?;
        proxy.signal(Signal::TERM)?;
        ensure!(idle.end().await? == Some(SqlState::ADMIN_SHUTDOWN));
        busy.run("NOTIFY a, 'last'").await?;
        busy.run("COMMIT").await?;
        busy.until("last").await?;
        ensure!(busy.end().await? == Some(SqlState::ADMIN_SHUTDOWN));
        let ended = tokio::task::spawn_blocking(move || proxy.exit(Duration::from_secs(10))).await??;
        ensure!(ended.success());
        Ok(())
    })
}

/// In session mode the server itself hears; in statement mode the pool, as in transaction mode.
#[test]
fn the_other_modes_hear_too() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        for (database, through_the_pool) in [("own", 0.0), ("single", 1.0)] {
            let rest = format!("user=app password=secret dbname={database}");
            let mut ears = Ears::open(proxy.address(), &rest).await?;
            ears.run("LISTEN a").await?;
            server.sql("shop", &format!("NOTIFY a, '{database}'"))?;
            ensure!(ears.next().await? == ("a".into(), database.into()));
            let labels = [("database", database)];
            let metrics = proxy.metrics()?;
            ensure!(metrics.sum("groove_postgres_listening", &labels) == Some(through_the_pool));
            ensure!(metrics.sum("groove_postgres_notifications_total", &labels) == Some(through_the_pool));
            ensure!(metrics.sum("groove_postgres_pinned", &labels) == Some(0.0));
            ears.run("UNLISTEN *").await?;
            server.sql("shop", "NOTIFY a, 'unheard'")?;
            ears.run("LISTEN b").await?;
            server.sql("shop", "NOTIFY b, 'heard'")?;
            ensure!(ears.next().await? == ("b".into(), "heard".into()));
        }
        Ok(())
    })
}

/// What the hub's connection hears is in its encoding: who has another keeps a connection.
#[test]
fn who_has_another_encoding_hears_in_it() -> Result<()> {
    run(async {
        let (server, proxy) = proxy(1)?;
        ensure!(server.sql("shop", "SHOW server_encoding")? == "UTF8");
        let mut ears = Ears::open(proxy.address(), SHOP).await?;
        ears.run("SET client_encoding = 'SQL_ASCII'; LISTEN a").await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 1.0);
        ears.run("NOTIFY a, 'x'").await?;
        ensure!(ears.next().await? == ("a".into(), "x".into()));
        ears.run("UNLISTEN *; SET client_encoding = 'UTF8'").await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        Ok(())
    })
}

/// More than are heard through the pool.
#[test]
fn who_has_very_many_channels_keeps_a_connection() -> Result<()> {
    const CHANNELS: usize = 1001;
    run(async {
        let (server, proxy) = proxy(1)?;
        let mut ears = Ears::open(proxy.address(), SHOP).await?;
        let listens: Vec<_> = (0..CHANNELS).map(|number| format!("LISTEN c{number}")).collect();
        let (last, all_but_one) = listens.split_last().context("some")?;
        ears.run(&all_but_one.join(";")).await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        ensure!(gauge(&proxy, "groove_postgres_channels")? == 1000.0);
        ears.run(last).await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 1.0);
        server.sql("shop", "NOTIFY c0, 'first'")?;
        ensure!(ears.next().await? == ("c0".into(), "first".into()));
        server.sql("shop", "NOTIFY c1000, 'last'")?;
        ensure!(ears.next().await? == ("c1000".into(), "last".into()));
        ears.run("UNLISTEN *").await?;
        ensure!(gauge(&proxy, "groove_postgres_pinned")? == 0.0);
        ensure!(gauge(&proxy, "groove_postgres_channels")? == 0.0);
        Ok(())
    })
}
