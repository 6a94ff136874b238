//! Two servers of one replication cluster: the primary dies, stops, is replaced, and comes back.

use std::fmt::Display;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use harness::{Kind, PATIENCE, Postgres, Process, Proxy, Signal};
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{code, connect, connect_as, run, text, until};

/// Connections to the primary, and so the clients that may have a transaction under way when it dies.
const SIZE: usize = 4;
/// The contract: so long after its promotion a new primary serves those who wait.
const RECOVERY_MAX: Duration = Duration::from_secs(1);

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
databases:
  shop: {endpoints: [$FIRST, $SECOND], role: primary, pool: {size: $SIZE}}
  own: {endpoints: [$FIRST, $SECOND], dbname: shop, role: primary, pool: {mode: session, size: 20}}
  reads: {endpoints: [$FIRST, $SECOND], dbname: shop, role: replica, replicas: {max_lag: 2s}}
users: {app: {password: secret}}
";

const DECLARED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
databases:
  shop:
    endpoints: [{address: $FIRST, role: primary}, {address: $SECOND, role: replica}]
    role: primary
    pool: {size: $SIZE}
    health: &often {probe: {interval: 100ms, timeout: 100ms}}
  reads:
    endpoints: [{address: $FIRST, role: primary}, {address: $SECOND, role: replica}]
    dbname: shop
    role: replica
    health: *often
users: {app: {password: secret}}
";

/// A primary, its replica, and the proxy before them.
struct Pair {
    first: Postgres,
    second: Postgres,
    proxy: Proxy,
}

impl Pair {
    fn start(config: &str) -> Result<Pair> {
        let first = Postgres::builder().set("log_statement", "all").start()?;
        first.sql(
            "shop",
            "CREATE TABLE counter (n int); INSERT INTO counter VALUES (0); GRANT ALL ON counter TO app",
        )?;
        let second = first.replica()?;
        let builder = Proxy::of(Kind::Postgres).config(config).set("SIZE", SIZE);
        let proxy = builder.set("FIRST", first.address()).set("SECOND", second.address()).start()?;
        Ok(Pair { first, second, proxy })
    }

    /// Waits until the proxy says that a database's servers are these.
    async fn until_roles(&self, database: &str, roles: [&str; 2]) -> Result<()> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = roles_of(&self.proxy, database)?;
            if now == roles {
                return Ok(());
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{now:?} instead of {roles:?}\n{}",
                self.proxy.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Promotes the replica; when that was done.
    async fn promote(self) -> Result<(Pair, Instant)> {
        spawn_blocking(move || {
            self.second.promote()?;
            Ok((self, Instant::now()))
        })
        .await?
    }
}

fn roles_of(proxy: &Proxy, database: &str) -> Result<Vec<String>> {
    let status = proxy.status()?;
    let clusters = status.get("clusters").and_then(Value::as_array).context("no clusters")?;
    let cluster = clusters
        .iter()
        .find(|cluster| cluster.get("name").is_some_and(|name| name == database))
        .context("no such cluster")?;
    let endpoints = cluster.get("endpoints").and_then(Value::as_array).context("no endpoints")?;
    Ok(endpoints
        .iter()
        .map(|endpoint| endpoint.get("role").and_then(Value::as_str).unwrap_or_default().to_owned())
        .collect())
}

/// For whoever runs the tests with `--nocapture`.
#[allow(clippy::print_stdout, reason = "what was measured is worth more than that it was enough")]
pub(crate) fn figure(text: impl Display) {
    println!("{text}");
}

/// Which of the servers answers.
async fn port(client: &Client) -> Result<u16> {
    Ok(text(client, "SELECT inet_server_port()").await?.parse()?)
}

/// pgbench's own transactions, of 16 clients for some seconds.
fn pgbench(proxy: &Proxy, protocol: &str) -> Result<Process> {
    let mut command = Command::new(harness::paths::program("pgbench")?);
    command.args(["-n", "-j", "2", "-c", "16", "-T", "7", "-P", "1", "-M", protocol, "-h", "127.0.0.1"]);
    command
        .args(["-p", &proxy.address().port().to_string(), "-U", "app", "shop"])
        .env("PGPASSWORD", "secret");
    Process::spawn("pgbench", command)
}

/// Kills the primary under pgbench, promotes the replica, and gives how long after it those who waited were served.
async fn killed_under_pgbench(protocol: &str) -> Result<()> {
    let mut pair = Pair::start(CONFIG)?;
    let loaded = Command::new(harness::paths::program("pgbench")?)
        .args([
            "-i",
            "-q",
            "-h",
            "127.0.0.1",
            "-p",
            &pair.first.address().port().to_string(),
            "-U",
            "app",
            "shop",
        ])
        .env("PGPASSWORD", "secret")
        .output()?;
    ensure!(loaded.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&loaded.stderr));
    let idle = connect(&pair.proxy, "shop").await?;
    let statement = idle.prepare("SELECT $1::int + 1").await?;
    let mut bench = pgbench(&pair.proxy, protocol)?;
    let mark = bench.log().mark();
    bench.log().after(mark, "progress: ")?;

    pair.first.crash()?;
    pair.until_roles("shop", ["lost", "replica"]).await?;
    let bumped = Arc::new(AtomicBool::new(false));
    let (flag, waiting) = (Arc::clone(&bumped), connect_later(&pair.proxy));
    let waiter = tokio::spawn(async move {
        let newcomer = waiting.await?;
        newcomer.batch_execute("UPDATE counter SET n = n + 1").await?;
        flag.store(true, Ordering::Relaxed);
        Ok::<_, anyhow::Error>(Instant::now())
    });
    let refused = tokio::time::timeout(Duration::from_millis(2500), idle.query_one(&statement, &[&1])).await;
    ensure!(refused.is_err(), "held, not failed: {refused:?}");
    ensure!(!bumped.load(Ordering::Relaxed), "nobody takes writes now");

    let begun = Instant::now();
    let (pair, promoted) = pair.promote().await?;
    let served = waiter.await??;
    let after = served.saturating_duration_since(promoted);
    figure(format_args!(
        "{protocol}: served {after:?} after the promotion, {:?} after it was asked for",
        served.duration_since(begun)
    ));
    ensure!(after < RECOVERY_MAX, "served {after:?} after the promotion");
    for number in 0..10 {
        ensure!(idle.query_one(&statement, &[&number]).await?.get::<_, i32>(0) == number + 1);
    }
    ensure!(port(&idle).await? == pair.second.address().port());

    let status = spawn_blocking(move || bench.exit(PATIENCE).map(|status| (status, bench))).await??;
    let lines = status.1.log().lines();
    let aborted: Vec<_> = lines.iter().filter(|line| line.contains("error: client ")).collect();
    let done = lines.iter().find(|line| line.contains("number of transactions actually processed"));
    figure(format_args!("{protocol}: {} of 16 clients were in a transaction; {done:?}", aborted.len()));
    ensure!(aborted.len() <= SIZE, "more than had a connection:\n{}", status.1.log());
    let rates = lines
        .iter()
        .filter_map(|line| line.strip_prefix("progress: ")?.split(", ").nth(1))
        .collect::<Vec<_>>();
    ensure!(rates.last().is_some_and(|rate| *rate != "0.0 tps"), "and nobody went on: {rates:?}");
    let sums =
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)";
    ensure!(pair.second.sql("shop", sums)? == "t", "half a transaction");
    Ok(())
}

fn connect_later(proxy: &Proxy) -> impl Future<Output = Result<Client>> + use<> {
    let address = proxy.address();
    async move {
        let target =
            format!("host={} port={} user=app password=secret dbname=shop", address.ip(), address.port());
        let (client, connection) = tokio_postgres::connect(&target, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

#[test]
fn a_primary_killed_under_pgbench_is_replaced_within_a_second() -> Result<()> {
    run(killed_under_pgbench("simple"))
}

#[test]
fn and_under_prepared_statements() -> Result<()> {
    run(killed_under_pgbench("prepared"))
}

#[test]
fn an_old_primary_that_comes_back_gets_nothing() -> Result<()> {
    run(async {
        let mut pair = Pair::start(CONFIG)?;
        let (client, reader) = (connect(&pair.proxy, "shop").await?, connect(&pair.proxy, "reads").await?);
        assert_eq!(port(&client).await?, pair.first.address().port());
        assert_eq!(port(&reader).await?, pair.second.address().port());
        pair.until_roles("shop", ["primary", "replica"]).await?;
        pair.first.crash()?;
        let (mut pair, _) = pair.promote().await?;
        pair.until_roles("shop", ["lost", "primary"]).await?;
        let load = Load::start(&pair.proxy).await?;
        load.more(20).await?;
        pair.first.restart_alone()?;
        pair.until_roles("shop", ["fenced", "primary"]).await?;
        pair.until_roles("reads", ["fenced", "primary"]).await?;
        load.more(100).await?;
        pair.proxy.log().expect("fenced, it gets nothing")?;
        for _ in 0..5 {
            for database in ["shop", "own", "reads"] {
                let client = connect(&pair.proxy, database).await?;
                assert_eq!(port(&client).await?, pair.second.address().port(), "{database}");
            }
        }
        // Also while the new one is away for a moment.
        pair.second.crash()?;
        pair.until_roles("shop", ["fenced", "lost"]).await?;
        let held =
            tokio::time::timeout(Duration::from_secs(1), client.simple_query("UPDATE counter SET n = 0"))
                .await;
        assert!(held.is_err(), "held: {held:?}");
        pair.second.restart()?;
        pair.until_roles("shop", ["fenced", "primary"]).await?;
        load.more(20).await?;
        let errors = load.finish().await?;
        assert!(errors <= SIZE, "{errors} transactions were under way when the second was killed");
        let reached: Vec<_> = pair.first.log().lines().into_iter().filter(|line| is_clients(line)).collect();
        assert_eq!(reached, Vec::<String>::new(), "what has reached the old primary");
        Ok(())
    })
}

/// Whether a server's log line is of a statement that the proxy's clients have run.
fn is_clients(line: &str) -> bool {
    (line.contains("statement: ") || line.contains("execute "))
        && (line.contains("counter") || line.contains("inet_server_port"))
}

#[test]
fn a_primary_that_lives_on_beside_the_promoted_one_acknowledges_nothing_more() -> Result<()> {
    run(async {
        let pair = Pair::start(CONFIG)?;
        let (open, idle, own) = (
            connect(&pair.proxy, "shop").await?,
            connect(&pair.proxy, "shop").await?,
            connect(&pair.proxy, "own").await?,
        );
        let ears = connect(&pair.proxy, "shop").await?;
        ears.batch_execute("LISTEN news").await?;
        open.batch_execute("BEGIN; UPDATE counter SET n = n + 1").await?;
        assert_eq!(port(&idle).await?, pair.first.address().port(), "on a connection that is idle then");
        assert_eq!(port(&own).await?, pair.first.address().port());
        let (pair, promoted) = pair.promote().await?;
        pair.until_roles("shop", ["fenced", "primary"]).await?;
        pair.until_roles("own", ["fenced", "primary"]).await?;
        figure(format_args!("fenced {:?} after the promotion", promoted.elapsed()));
        // Those who have a connection there are told, and what they still say is not heard.
        let commit = open.batch_execute("COMMIT").await;
        assert!(commit.is_err(), "not to be believed");
        until("all are told", || Ok(open.is_closed() && own.is_closed() && ears.is_closed())).await?;
        // Its connections end without anybody's doing, but for those that ask it what it is.
        let left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND application_name <> 'groove monitor'";
        let ended = until("no connection", || Ok(pair.first.sql("postgres", left)? == "0"));
        tokio::time::timeout(Duration::from_secs(5), ended)
            .await
            .context("not before the pool looks by itself")??;
        assert_eq!(port(&idle).await?, pair.second.address().port());
        assert_eq!(pair.first.sql("shop", "SELECT n FROM counter")?, "0");
        let metrics = pair.proxy.metrics()?;
        let address = pair.first.address().to_string();
        let labels = [("database", "shop"), ("endpoint", address.as_str()), ("role", "fenced")];
        assert_eq!(metrics.sum("groove_postgres_server_role", &labels), Some(1.0));
        Ok(())
    })
}

/// Ends the server process that will get the client's next message, so that both cross each other on their way.
async fn cross<T>(pair: &Pair, client: &Client, next: impl Future<Output = T>) -> Result<T> {
    let pid = text(client, "SELECT pg_backend_pid()").await?;
    let signal = |name: &str| Command::new("kill").args([name, &pid]).status();
    signal("-STOP")?;
    ensure!(pair.first.sql("postgres", &format!("SELECT pg_terminate_backend({pid})"))? == "t");
    let on_its_way = async {
        until("a message on its way", || {
            let status = pair.proxy.status()?;
            let pools = status.get("pools").and_then(Value::as_array).context("no pools")?;
            Ok(pools.iter().any(|pool| {
                let is = |key: &str, value: Value| pool.get(key) == Some(&value);
                is("name", "shop.app".into()) && is("leased", 1.into())
            }))
        })
        .await?;
        signal("-CONT")?;
        Ok::<_, anyhow::Error>(())
    };
    let (outcome, released) = tokio::join!(next, on_its_way);
    released?;
    Ok(outcome)
}

#[test]
fn what_crosses_the_servers_farewell_is_sent_again_if_it_surely_was_not_read() -> Result<()> {
    run(async {
        let pair = Pair::start(CONFIG)?;
        let client = connect(&pair.proxy, "shop").await?;
        let statement = client.prepare("UPDATE counter SET n = n + 1 RETURNING n").await?;
        let updated = cross(&pair, &client, client.query_one(&statement, &[])).await??;
        assert_eq!(updated.get::<_, i32>(0), 1);

        let begun = async {
            client.batch_execute("BEGIN").await?;
            client.batch_execute("UPDATE counter SET n = n + 1").await?;
            client.batch_execute("COMMIT").await
        };
        cross(&pair, &client, begun).await??;
        assert_eq!(text(&client, "SELECT n FROM counter").await?, "2");

        // Of this one nobody knows whether it ran.
        let alone = cross(&pair, &client, client.batch_execute("UPDATE counter SET n = n + 1")).await?;
        assert_eq!(code(alone), SqlState::ADMIN_SHUTDOWN);
        Ok(())
    })
}

#[test]
fn nobody_is_stuck_on_a_primary_that_was_cut_off() -> Result<()> {
    run(cut_off(SIZE))
}

#[test]
fn nor_on_the_way_to_it() -> Result<()> {
    run(cut_off(SIZE - 1))
}

/// Cuts the primary off from clients in so many transactions, and promotes the replica.
async fn cut_off(count: usize) -> Result<()> {
    let mut pair = Pair::start(CONFIG)?;
    let (mut stuck, own) = (Vec::new(), connect(&pair.proxy, "own").await?);
    assert_eq!(port(&own).await?, pair.first.address().port());
    for _ in 0..count {
        let client = connect(&pair.proxy, "shop").await?;
        client.batch_execute("BEGIN; SELECT 1").await?;
        stuck.push(client);
    }
    pair.first.freeze()?;
    // They will never hear of it again, and those who come wait for one of theirs, or for the server's greeting.
    let stuck = stuck.into_iter().map(|client| async move { code(client.batch_execute("COMMIT").await) });
    let stuck: Vec<_> = stuck.map(tokio::spawn).collect();
    let waiting = connect_later(&pair.proxy);
    let waiter = tokio::spawn(async move {
        let client = waiting.await?;
        client.batch_execute("UPDATE counter SET n = n + 1").await?;
        Ok::<_, anyhow::Error>(Instant::now())
    });
    pair.until_roles("shop", ["lost", "replica"]).await?;
    let (mut pair, promoted) = pair.promote().await?;
    let after = waiter.await??.saturating_duration_since(promoted);
    figure(format_args!("cut off: served {after:?} after the promotion"));
    ensure!(after < RECOVERY_MAX, "served {after:?} after the promotion");
    for outcome in stuck {
        assert_eq!(outcome.await?, SqlState::ADMIN_SHUTDOWN);
    }
    until("nobody idle either", || Ok(own.is_closed())).await?;
    pair.first.thaw()?;
    pair.until_roles("shop", ["fenced", "primary"]).await
}

#[test]
fn replicas_are_read_from_as_long_as_they_follow_closely() -> Result<()> {
    run(async {
        let mut pair = Pair::start(CONFIG)?;
        let (reader, writer) = (connect(&pair.proxy, "reads").await?, connect(&pair.proxy, "shop").await?);
        assert_eq!(port(&reader).await?, pair.second.address().port());
        assert_eq!(
            code(reader.batch_execute("UPDATE counter SET n = 7").await),
            SqlState::READ_ONLY_SQL_TRANSACTION
        );
        assert_eq!(port(&reader).await?, pair.second.address().port(), "that was the client's own fault");
        pair.second.sql("postgres", "SELECT pg_wal_replay_pause()")?;
        writer.batch_execute("UPDATE counter SET n = 7").await?;
        pair.until_roles("reads", ["primary", "lagging"]).await?;
        assert_eq!(text(&reader, "SELECT n FROM counter").await?, "7", "from the primary");
        pair.second.sql("postgres", "SELECT pg_wal_replay_resume()")?;
        pair.until_roles("reads", ["primary", "replica"]).await?;
        assert_eq!(port(&reader).await?, pair.second.address().port());
        pair.second.stop()?;
        pair.until_roles("reads", ["primary", "lost"]).await?;
        assert_eq!(port(&reader).await?, pair.first.address().port());
        Ok(())
    })
}

#[test]
fn the_idle_do_not_notice_that_the_primary_was_stopped_and_replaced() -> Result<()> {
    run(async {
        let mut pair = Pair::start(CONFIG)?;
        let mut idle = Vec::new();
        for _ in 0..8 {
            let client = connect(&pair.proxy, "shop").await?;
            let statement = client.prepare("SELECT $1::int + 1").await?;
            client.query_one(&statement, &[&1]).await?;
            client.batch_execute("SET statement_timeout = '12s'").await?;
            idle.push((client, statement));
        }
        let load = Load::start(&pair.proxy).await?;
        load.more(50).await?;
        pair.first.stop()?;
        let (pair, _) = pair.promote().await?;
        load.more(50).await?;
        let errors = load.finish().await?;
        figure(format_args!("{errors} transactions were under way at the stop"));
        assert!(errors <= SIZE, "{errors}");
        for (client, statement) in &idle {
            assert_eq!(client.query_one(statement, &[&41]).await?.get::<_, i32>(0), 42);
            assert_eq!(text(client, "SHOW statement_timeout").await?, "12s");
            assert_eq!(port(client).await?, pair.second.address().port());
        }
        Ok(())
    })
}

#[test]
fn who_may_not_log_in_hears_it_from_the_server_and_hinders_nobody() -> Result<()> {
    run(async {
        let config = CONFIG.replace("users: {", "users: {stranger: {password: secret}, ");
        let pair = Pair::start(&config)?;
        for _ in 0..2 {
            let refused = connect_as(&pair.proxy, "user=stranger password=secret dbname=shop").await;
            assert_eq!(code(refused), SqlState::INVALID_PASSWORD, "no such role on the servers");
        }
        let client = connect(&pair.proxy, "shop").await?;
        assert_eq!(port(&client).await?, pair.first.address().port());
        pair.until_roles("shop", ["primary", "replica"]).await
    })
}

#[test]
fn a_monitor_has_a_login_of_its_own_if_it_is_given_one() -> Result<()> {
    run(async {
        let config = CONFIG
            .replace("role: primary, pool", "role: primary, monitor: {user: plain, interval: 50ms}, pool");
        let pair = Pair::start(&config)?;
        // Before anybody has come.
        pair.until_roles("shop", ["primary", "replica"]).await?;
        let asks =
            "SELECT string_agg(usename, ' ') FROM pg_stat_activity WHERE application_name = 'groove monitor'";
        assert_eq!(pair.first.sql("postgres", asks)?, "plain plain", "of shop and of own");
        // Ended, it comes again, and nobody takes the server for lost.
        let mark = pair.proxy.log().mark();
        let before = pair.first.sql("postgres", MONITOR)?;
        pair.first.sql(
            "postgres",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain'",
        )?;
        until("another", || {
            let now = pair.first.sql("postgres", MONITOR)?;
            Ok(!now.is_empty() && now != before)
        })
        .await?;
        let lost = pair.proxy.log().lines().into_iter().skip(mark).find(|line| line.contains("\"lost\""));
        assert_eq!(lost, None);
        Ok(())
    })
}

const MONITOR: &str = "SELECT min(pid) FROM pg_stat_activity WHERE usename = 'plain'";

#[test]
fn a_reload_gives_servers_their_roles_and_takes_them() -> Result<()> {
    run(async {
        let any = CONFIG.replace("role: primary, pool: {size: $SIZE}", "pool: {size: $SIZE}");
        let mut pair = Pair::start(&any)?;
        let clients = try_join_all((0..SIZE).map(|_| connect(&pair.proxy, "shop"))).await?;
        // At once, so that each has a connection of its own.
        let pauses =
            clients.iter().map(|client| text(client, "SELECT inet_server_port() FROM pg_sleep(0.2)"));
        let ports = try_join_all(pauses).await?;
        assert!(ports.contains(&pair.second.address().port().to_string()), "spread over both: {ports:?}");
        assert_eq!(roles_of(&pair.proxy, "shop")?, ["", ""]);

        pair.proxy.rewrite(CONFIG)?;
        pair.proxy.signal(Signal::HUP)?;
        pair.until_roles("shop", ["primary", "replica"]).await?;
        for client in &clients {
            assert_eq!(port(client).await?, pair.first.address().port());
        }
        pair.proxy.rewrite(&any)?;
        pair.proxy.signal(Signal::HUP)?;
        pair.until_roles("shop", ["", ""]).await?;
        assert_eq!(text(&clients[0], "SELECT 1").await?, "1");
        Ok(())
    })
}

#[test]
fn what_is_declared_is_believed_and_nobody_is_asked() -> Result<()> {
    run(async {
        let mut pair = Pair::start(DECLARED)?;
        let (writer, reader) = (connect(&pair.proxy, "shop").await?, connect(&pair.proxy, "reads").await?);
        assert_eq!(port(&writer).await?, pair.first.address().port());
        assert_eq!(port(&reader).await?, pair.second.address().port());
        let asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'groove monitor'";
        assert_eq!(pair.first.sql("postgres", asked)?, "0");
        pair.second.stop()?;
        pair.until_roles("reads", ["primary", "lost"]).await?;
        assert_eq!(port(&reader).await?, pair.first.address().port());
        pair.second.restart()?;
        pair.until_roles("reads", ["primary", "replica"]).await?;
        assert_eq!(port(&reader).await?, pair.second.address().port());
        Ok(())
    })
}

/// Clients that write, one statement a transaction, and come again when their connection is lost.
struct Load {
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<usize>>>,
}

impl Load {
    async fn start(proxy: &Proxy) -> Result<Load> {
        let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let mut clients = Vec::new();
        for _ in 0..16 {
            let mut client = connect(proxy, "shop").await?;
            let (done, stop) = (Arc::clone(&done), Arc::clone(&stop));
            let again = (0..8).map(|_| connect_later(proxy)).collect::<Vec<_>>();
            clients.push(tokio::spawn(async move {
                let (mut errors, mut again) = (0, again.into_iter());
                while !stop.load(Ordering::Relaxed) {
                    match client.batch_execute("UPDATE counter SET n = n + 1").await {
                        Ok(()) => _ = done.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            errors += 1;
                            figure(format_args!("a client of the load: {error}"));
                            let is_fatal =
                                error.as_db_error().is_some_and(|error| error.severity() == "FATAL");
                            let is_lost = client.is_closed() || is_fatal;
                            ensure!(is_lost, "refused, not lost: {error:?}");
                            client = again.next().context("too many errors")?.await?;
                        }
                    }
                }
                Ok(errors)
            }));
        }
        Ok(Load { done, stop, clients })
    }

    async fn more(&self, count: usize) -> Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + count;
        until("transactions", || Ok(self.done.load(Ordering::Relaxed) >= goal)).await
    }

    async fn finish(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(try_join_all(self.clients).await?.into_iter().collect::<Result<Vec<_>>>()?.into_iter().sum())
    }
}
