//! The command that moves a database is killed, at moments that locks hold it at.

use anyhow::{Context, Result, ensure};
use harness::{Postgres, Process};
use tokio::task::spawn_blocking;
use tokio_postgres::{Client, NoTls};

use super::{Load, Stage};
use crate::{connect, text, until};

/// Where a cutover is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// A transaction does not end.
    Drain,
    /// The source is about to be fenced.
    Fence,
    /// The marker is about to be written.
    Beat,
    /// The marker does not come through.
    Marker,
    /// Sequences are about to be set.
    Sequences,
    /// The target is about to be opened.
    Unfence,
    /// It is decided, and no client knows yet.
    Switched,
    /// Clients are on the target, and the source does not follow yet.
    Back,
}

const MOMENTS: [Moment; 8] = [
    Moment::Drain,
    Moment::Fence,
    Moment::Beat,
    Moment::Marker,
    Moment::Sequences,
    Moment::Unfence,
    Moment::Switched,
    Moment::Back,
];

impl Moment {
    fn is_on_source(self) -> bool {
        match self {
            Moment::Drain | Moment::Fence | Moment::Beat | Moment::Back => true,
            Moment::Marker | Moment::Sequences | Moment::Unfence | Moment::Switched => false,
        }
    }

    /// What a session locks so that the command gets so far and no further.
    fn lock(self, id: &str) -> String {
        match self {
            Moment::Drain => "SELECT 1".to_owned(),
            Moment::Fence | Moment::Unfence => "ALTER DATABASE shop IS_TEMPLATE false".to_owned(),
            Moment::Beat | Moment::Marker => "SELECT * FROM groove_migration.beat FOR UPDATE".to_owned(),
            Moment::Sequences => "ALTER SEQUENCE public.tickets_id_seq CACHE 1".to_owned(),
            Moment::Switched => {
                format!("ALTER SUBSCRIPTION groove_forward_{id} SET (synchronous_commit = off)")
            }
            Moment::Back => format!("ALTER SUBSCRIPTION groove_back_{id} SET (synchronous_commit = off)"),
        }
    }
}

/// A superuser's session that the command takes for one of its own.
async fn holder(server: &Postgres) -> Result<Client> {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server.address().port()).user("postgres").password("secret").dbname("shop");
    let (client, connection) = config.application_name("groove migration").connect(NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET groove.allow_ddl = 'on'").await?;
    Ok(client)
}

/// Lets a cutover come to a moment, and kills it there.
async fn killed_at(stage: Stage, moment: Moment) -> Result<Stage> {
    let open = connect(&stage.proxy, "shop").await?;
    open.batch_execute("BEGIN; SELECT abalance FROM pgbench_accounts WHERE aid = 1").await?;
    let (stage, mut command) = spawn_blocking(move || {
        let command = stage.begin("cutover", &["--max-pause", "4s"])?;
        Ok::<_, anyhow::Error>((stage, command))
    })
    .await??;
    let stage = until_gate(stage).await?;
    let journal = stage.journal()?;
    let id = journal.get("id").and_then(serde_json::Value::as_str).context("no id")?.to_owned();
    let server = if moment.is_on_source() { &stage.source } else { &stage.target };
    let holder = holder(server).await?;
    holder.batch_execute(&format!("BEGIN; {}", moment.lock(&id))).await?;
    if moment != Moment::Drain {
        open.batch_execute("COMMIT").await?;
        let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND \
                     (a.application_name = 'groove migration' OR a.backend_type LIKE 'logical replication%')";
        until("the command waits for a lock", || Ok(server.sql("postgres", waits)? != "0")).await?;
    }
    kill(&mut command)?;
    holder.batch_execute("ROLLBACK").await?;
    if moment == Moment::Drain {
        open.batch_execute("COMMIT").await?;
    }
    Ok(stage)
}

fn kill(command: &mut Process) -> Result<()> {
    ensure!(command.is_running(), "the command had ended\n{}", command.log());
    command.kill()
}

async fn until_gate(stage: Stage) -> Result<Stage> {
    spawn_blocking(move || {
        harness::eventually("the gate is about to close", || {
            stage.journal().ok()?.pointer("/phase/gate").map(|_| ())
        })?;
        Ok(stage)
    })
    .await?
}

/// Kills a cutover at a moment under load; then the gate opens by itself, or by the command that comes next.
async fn survives(stage: Stage, load: &Load, moment: Moment, by_itself: bool) -> Result<Stage> {
    load.more(20).await?;
    let mut stage = killed_at(stage, moment).await?;
    if by_itself {
        load.more(20).await?;
    }
    stage = spawn_blocking(move || {
        // Whatever it was: it is undone or completed, and then done.
        let said = stage.done("cutover", &["--max-pause", "5s"])?;
        crate::failover::figure(format_args!("{moment:?}: {said}"));
        Ok::<_, anyhow::Error>(stage)
    })
    .await??;
    load.more(20).await?;
    let client = connect(&stage.proxy, "shop").await?;
    assert!(text(&client, "SHOW server_version").await?.starts_with("18"), "{moment:?}");
    spawn_blocking(move || stage.done("rollback", &["--max-pause", "5s"]).map(|_| stage)).await?
}

async fn all_survive(moments: &[(Moment, bool)]) -> Result<()> {
    let stage = Stage::start(8)?;
    let mut stage = spawn_blocking(move || stage.done("start", &[]).map(|_| stage)).await??;
    let load = Load::start(stage.proxy.address(), 4);
    for (moment, by_itself) in moments {
        stage = survives(stage, &load, *moment, *by_itself).await.with_context(|| format!("{moment:?}"))?;
    }
    let tally = load.stop().await?;
    assert_eq!(tally.errors, Vec::<String>::new());
    spawn_blocking(move || {
        stage.until_same()?;
        stage.compare(&tally)?;
        stage.done("finish", &[])?;
        Stage::is_clean(&stage.source)
    })
    .await?
}

#[test]
fn a_killed_cutover_is_undone_or_completed_by_the_proxy() -> Result<()> {
    patiently(&[(Moment::Marker, true), (Moment::Switched, true)])
}

#[test]
#[ignore = "minutes: at each moment, by the proxy and by the next command"]
fn a_cutover_is_killed_at_every_moment() -> Result<()> {
    let each = |by_itself| MOMENTS.map(|moment| (moment, by_itself));
    patiently(&[each(false), each(true)].concat())
}

/// Each waits for a lease to run out.
fn patiently(moments: &[(Moment, bool)]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time_max = harness::PATIENCE * 3 * u32::try_from(moments.len())?;
    runtime.block_on(async { tokio::time::timeout(time_max, all_survive(moments)).await? })
}

/// However far a `start` has come, the next one goes on, and `rollback` removes it all.
#[test]
fn a_killed_start_goes_on_or_is_removed() -> Result<()> {
    let stage = Stage::start(4)?;
    killed_after(&stage, "the schema is frozen")?;
    stage.done("rollback", &[])?;
    Stage::is_clean(&stage.source)?;
    let left = stage.target.sql("postgres", "SELECT count(*) FROM pg_database WHERE datname = 'shop'")?;
    ensure!(left == "0", "the copy is not removed");
    for line in ["rows are copied", "indexes, constraints"] {
        killed_after(&stage, line)?;
    }
    stage.done("start", &[])?;
    stage.done("cutover", &[])?;
    Ok(())
}

/// Kills a `start` when it has said so.
fn killed_after(stage: &Stage, line: &str) -> Result<()> {
    let mut start = stage.begin("start", &[])?;
    start.log().expect(line)?;
    start.kill()?;
    // It may have come to its end meanwhile.
    if stage.journal()?.pointer("/phase/ready").is_some() {
        return Ok(());
    }
    let said = stage.refused("cutover", &[])?;
    ensure!(said.contains("the copy is not complete"), "after {line}: {said}");
    Ok(())
}
