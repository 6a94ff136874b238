//! What is let out, who is refused, and how they come in again.

use anyhow::{Result, ensure};
use bytes::Bytes;
use harness::{Kind, Postgres, Proxy, http};
use tokio_postgres::error::SqlState;

use super::{CONFIG, Group};
use crate::{code, connect_as, run, until};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, a int); INSERT INTO t VALUES (1, 1), (2, 2)";

fn post(group: &Group, verb: &str) -> Result<serde_json::Value> {
    let admin = group.proxy.admin();
    let path = format!("/api/v1/replicate/shop/{verb}");
    let request = ::http::Request::post(path).header("host", admin.to_string()).body(Bytes::from("{}"))?;
    http::send(admin, request)?.json()
}

#[test]
fn a_member_that_differs_is_found_let_out_and_comes_in_once_repaired() {
    run(async {
        let group = Group::start(TABLES)?;
        let client = connect_as(&group.proxy, "user=app dbname=shop").await?;
        client.batch_execute("UPDATE t SET a = 5 WHERE id = 1").await?;
        group.members[2].sql("shop", "UPDATE t SET a = 77 WHERE id = 2")?;
        // The row that differs is written: nobody keeps it.
        let seen = code(client.batch_execute("UPDATE t SET a = a + 1").await);
        ensure!(seen == SqlState::FEATURE_NOT_SUPPORTED, "{seen:?}");
        until("it is not let out", || Ok(group.states()? == ["in", "in", "diverged"])).await?;
        client.batch_execute("UPDATE t SET a = a + 1").await?;
        ensure!(group.members[0].sql("shop", "SELECT sum(a) FROM t")? == "9");
        // Told to come in as it is, it is found again.
        post(&group, "rejoin")?;
        until("it is not found", || Ok(group.states()?[2] == "diverged")).await?;
        // As it was before what it has missed.
        group.members[2].sql("shop", "UPDATE t SET a = 2 WHERE id = 2")?;
        until("it does not come in", || {
            post(&group, "rejoin")?;
            std::thread::sleep(std::time::Duration::from_millis(200));
            Ok(group.states()? == ["in", "in", "in"])
        })
        .await?;
        ensure!(group.agreed("SELECT sum(a) FROM t")? == "9");
        // Found without a write to it, too.
        group.members[1].sql("shop", "DELETE FROM t WHERE id = 2")?;
        let found = post(&group, "verify")?;
        ensure!(
            found
                .as_array()
                .is_some_and(|found| found.iter().filter(|it| it["is_equal"] == true).count() == 2),
            "{found}"
        );
        ensure!(group.states()?[1] == "diverged");
        group.members[1].sql("shop", "INSERT INTO t VALUES (2, 3)")?;
        post(&group, "rejoin")?;
        until("it does not come in", || Ok(group.states()? == ["in", "in", "in"])).await?;
        // Where the leader differs from all others it is the one that is let out.
        let leader = group.leader()?;
        group.members[leader].sql("shop", "UPDATE t SET a = 50 WHERE id = 2")?;
        post(&group, "verify")?;
        ensure!(group.states()?.iter().filter(|state| *state == "in").count() == 2);
        ensure!(group.states()?[leader] == "diverged" && group.leader()? != leader);
        until("the next one does not lead", || Ok(group.status()?["served"] == true)).await?;
        connect_as(&group.proxy, "user=app dbname=shop")
            .await?
            .batch_execute("UPDATE t SET a = a + 1")
            .await?;
        group.nothing_prepared()
    })
    .unwrap();
}

#[test]
fn a_member_that_hangs_is_set_aside_and_the_leaders_death_is_a_retry() {
    run(async {
        let mut group = Group::start(TABLES)?;
        let client = connect_as(&group.proxy, "user=app dbname=shop").await?;
        // Not the leader: of that one it would be an error.
        let late = (group.leader()? + 1) % group.members.len();
        group.members[late].freeze()?;
        client.batch_execute("UPDATE t SET a = 10 WHERE id = 1").await?;
        ensure!(group.states()?[late] != "in", "{:?}", group.states()?);
        client.batch_execute("UPDATE t SET a = 11 WHERE id = 1").await?;
        group.members[late].thaw()?;
        tokio::task::block_in_place(|| group.until_in(3))?;
        ensure!(group.agreed("SELECT a FROM t WHERE id = 1")? == "11");
        client.batch_execute("BEGIN; UPDATE t SET a = 12 WHERE id = 1").await?;
        let leader = group.leader()?;
        group.members[leader].kill()?;
        let seen = code(client.batch_execute("COMMIT").await);
        ensure!(seen == SqlState::T_R_SERIALIZATION_FAILURE, "{seen:?}");
        client.batch_execute("ROLLBACK").await?;
        client.batch_execute("UPDATE t SET a = 13 WHERE id = 1").await?;
        group.members[leader].restart()?;
        tokio::task::block_in_place(|| group.until_in(3))?;
        ensure!(group.agreed("SELECT a FROM t WHERE id = 1")? == "13");
        group.nothing_prepared()
    })
    .unwrap();
}

fn plain(members: &[Postgres]) -> Result<Proxy> {
    Proxy::of(Kind::Postgres)
        .config(CONFIG)
        .set("LOG_MAX", "1MiB")
        .set("A", members[0].address())
        .set("B", members[1].address())
        .set("C", members[2].address())
        .start()
}

#[test]
fn a_second_proxy_is_refused_and_unequal_members_are_no_group() {
    run(async {
        let group = Group::start(TABLES)?;
        let second = plain(&group.members)?;
        let why = |proxy: &Proxy| -> Result<String> {
            let groups = proxy.get("/api/v1/replicate")?.json()?;
            Ok(groups[0]["reason"].as_str().unwrap_or_default().to_owned())
        };
        until("the second is not refused", || Ok(why(&second)?.contains("another proxy leads"))).await?;
        let seen = code(connect_as(&second, "user=app dbname=shop").await);
        ensure!(seen == SqlState::CANNOT_CONNECT_NOW, "{seen:?}");
        let client = connect_as(&group.proxy, "user=app dbname=shop").await?;
        client.batch_execute("UPDATE t SET a = 5 WHERE id = 1").await?;
        ensure!(group.agreed("SELECT a FROM t WHERE id = 1")? == "5");

        let member = || Postgres::builder().set("max_prepared_transactions", "16").start();
        let others = [member()?, member()?, Postgres::start()?];
        others.iter().try_for_each(|other| other.sql("shop", TABLES).map(|_| ()))?;
        let third = plain(&others)?;
        until("no reason is given", || Ok(why(&third)?.contains("max_prepared_transactions is 0"))).await?;
        let others = [member()?, member()?, member()?];
        others.iter().try_for_each(|other| other.sql("shop", TABLES).map(|_| ()))?;
        others[1].sql("shop", "UPDATE t SET a = 3 WHERE id = 2")?;
        let fourth = plain(&others)?;
        until("they are served", || Ok(why(&fourth)?.contains("differ: table public.t has other rows")))
            .await?;
        ensure!(others[0].sql("shop", "SELECT to_regnamespace('groove_replicate') IS NULL")? == "t");
        others[1].sql("shop", "UPDATE t SET a = 2 WHERE id = 2")?;
        until("they are not served", || Ok(why(&fourth)?.is_empty())).await
    })
    .unwrap();
}
