//! Databases whose servers each carry out every write: what clients see, and what is left on the members.

#![allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "in helpers of tests too, a panic is the report"
)]

mod faults;
mod first;
mod random;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Kind, Postgres, Proxy};
use serde_json::Value;

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
auth: trust
drain: 2s
databases:
  shop:
    endpoints: [$A, $B, $C]
    replicate: {log: $DIR/log, log_max: $LOG_MAX, user: postgres, password: secret, interval: 100ms, member_wait: 2s, lock_wait: 10s}
users: {app: {server_password: secret}}
";

/// Three members and a proxy before them.
struct Group {
    members: Vec<Postgres>,
    proxy: Proxy,
}

impl Group {
    /// With these tables in them.
    fn start(tables: &str) -> Result<Group> {
        Self::with_log(tables, "1MiB")
    }

    /// The same, with a log of this length at the most.
    fn with_log(tables: &str, log_max: &str) -> Result<Group> {
        let member = || Postgres::builder().set("max_prepared_transactions", "64").start();
        let members = vec![member()?, member()?, member()?];
        for member in &members {
            member.sql("shop", &format!("SET ROLE app; {tables}"))?;
        }
        let proxy = Proxy::of(Kind::Postgres)
            .config(CONFIG)
            .set("LOG_MAX", log_max)
            .set("A", members[0].address())
            .set("B", members[1].address())
            .set("C", members[2].address())
            .start()?;
        let group = Group { members, proxy };
        group.until_in(3)?;
        Ok(group)
    }

    fn status(&self) -> Result<Value> {
        let groups = self.proxy.get("/api/v1/replicate")?.json()?;
        groups.get(0).cloned().context("there is no group")
    }

    /// How each member is.
    fn states(&self) -> Result<Vec<String>> {
        let status = self.status()?;
        let members = status["members"].as_array().context("members")?.clone();
        Ok(members.iter().map(|member| member["state"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Which member leads.
    fn leader(&self) -> Result<usize> {
        let status = self.status()?;
        let members = status["members"].as_array().context("members")?;
        members.iter().position(|member| member["is_leader"] == true).context("nobody leads")
    }

    /// Waits until so many members are in.
    fn until_in(&self, count: usize) -> Result<()> {
        let late = Instant::now() + Duration::from_secs(40);
        loop {
            let status = self.status()?;
            let ins = self.states()?.iter().filter(|state| *state == "in").count();
            if ins == count && status["served"] == Value::Bool(true) {
                return Ok(());
            }
            ensure!(
                Instant::now() < late,
                "not {count} in: {status:#}\n{}",
                self.proxy.log().lines().join("\n")
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What each member answers to a question, which is the same for all.
    fn agreed(&self, question: &str) -> Result<String> {
        let answers: Result<Vec<String>> =
            self.members.iter().map(|member| member.sql("shop", question)).collect();
        let answers = answers?;
        ensure!(answers.iter().all(|answer| *answer == answers[0]), "{question}: {answers:?}");
        Ok(answers[0].clone())
    }

    /// Nothing is left prepared anywhere.
    fn nothing_prepared(&self) -> Result<()> {
        let left = self.agreed("SELECT count(*) FROM pg_prepared_xacts")?;
        ensure!(left == "0", "{left} transactions are left prepared");
        Ok(())
    }
}
