//! Many clients write at random while members are killed and come back, and the proxy is killed at any moment.
//! Afterwards all members have the same in them, everything that was acknowledged, and nothing left prepared.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use super::Group;
use crate::roll;

const TABLES: &str = "
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0, touched timestamptz DEFAULT now());
CREATE TABLE events (id bigserial PRIMARY KEY, account int REFERENCES accounts, token uuid DEFAULT gen_random_uuid(),
    luck float8 DEFAULT random(), at timestamptz DEFAULT clock_timestamp());
CREATE TABLE tags (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text UNIQUE, seen int NOT NULL DEFAULT 1);
CREATE TABLE bag (a int, b text);
CREATE TABLE ledger (entry text PRIMARY KEY, at timestamptz DEFAULT now());
INSERT INTO accounts (id, touched) SELECT i, 'epoch' FROM generate_series(0, 19) i;
";

const NAMES: [&str; 5] = ["accounts", "events", "tags", "bag", "ledger"];

/// A statement over the grammar.
fn statement(dice: &mut u64) -> String {
    let (a, b) = (roll(dice, 20), roll(dice, 20));
    match roll(dice, 14) {
        0 => format!("UPDATE accounts SET balance = balance + {b}, touched = now() WHERE id = {a}"),
        1 => format!("UPDATE accounts SET balance = balance - {b} WHERE id IN ({a}, {b}) RETURNING balance"),
        2 => format!("INSERT INTO events (account) VALUES ({a}), ({b})"),
        3 => format!("INSERT INTO events (account, luck) VALUES ({a}, random() * {b}) RETURNING id, token"),
        4 => format!(
            "INSERT INTO tags (word) VALUES ('w{a}') ON CONFLICT (word) DO UPDATE SET seen = tags.seen + 1"
        ),
        5 => format!("DELETE FROM tags WHERE word = 'w{a}' AND seen > 3"),
        6 => format!("INSERT INTO bag VALUES ({a}, 'x' || {b}), ({b}, now()::text)"),
        7 => format!("DELETE FROM bag WHERE a = {a}"),
        8 => format!("UPDATE bag SET b = 'y' || {b} WHERE a < {a}"),
        9 => format!("DELETE FROM events WHERE account = {a} AND id % 3 = 0"),
        10 => format!("INSERT INTO bag (a, b) SELECT id, 'copied' FROM accounts WHERE id < {}", a / 4),
        11 => format!(
            "UPDATE accounts SET balance = (SELECT count(*) FROM events WHERE account = {a}) WHERE id = {a}"
        ),
        12 => format!("SELECT count(*) FROM events WHERE account = {a}"),
        _ => "SELECT nextval('events_id_seq')".to_owned(),
    }
}

struct Load {
    target: String,
    wanted: usize,
    done: AtomicUsize,
    stop: AtomicBool,
    /// In what the clients could not have expected.
    odd: std::sync::Mutex<Vec<String>>,
}

impl Load {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.done.load(Ordering::Relaxed) >= self.wanted
    }

    async fn connect(&self) -> Option<Client> {
        while !self.is_over() {
            if let Ok((client, connection)) = tokio_postgres::connect(&self.target, NoTls).await {
                tokio::spawn(connection);
                return Some(client);
            }
            sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// One client; gives the entries of the ledger whose commit was acknowledged.
    async fn client(self: Arc<Load>, number: usize, seed: u64) -> BTreeSet<String> {
        let (mut dice, mut acknowledged, mut turn) = (seed | 1, BTreeSet::new(), 0usize);
        let Some(mut client) = self.connect().await else { return acknowledged };
        while !self.is_over() {
            turn += 1;
            let entry = format!("{number}-{turn}");
            if self.transaction(&client, &mut dice, &entry).await {
                acknowledged.insert(entry);
            }
            if client.is_closed() {
                match self.connect().await {
                    Some(again) => client = again,
                    None => break,
                }
            }
        }
        acknowledged
    }

    async fn transaction(&self, client: &Client, dice: &mut u64, entry: &str) -> bool {
        let is_block = roll(dice, 3) > 0;
        let mut work = Vec::new();
        if is_block {
            work.push("BEGIN".to_owned());
            for _ in 0..1 + roll(dice, 4) {
                work.push(statement(dice));
            }
            if roll(dice, 6) == 0 {
                work.extend(["SAVEPOINT s".to_owned(), statement(dice), "ROLLBACK TO s".to_owned()]);
            }
        }
        work.push(format!("INSERT INTO ledger (entry) VALUES ('{entry}')"));
        if is_block {
            work.push(if roll(dice, 10) == 0 { "ROLLBACK" } else { "COMMIT" }.to_owned());
        }
        let is_kept = work.last().is_some_and(|last| last != "ROLLBACK");
        for text in work {
            // Half by the extended protocol.
            let done = match roll(dice, 2) {
                0 => client.simple_query(&text).await.map(|_| ()),
                _ => client.query(&text, &[]).await.map(|_| ()),
            };
            self.done.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = done {
                let code = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                // A member or the proxy has gone, two waited for each other, or a key was there.
                let is_expected =
                    ["", "40001", "40P01", "55P03", "57P01", "57P03", "08006", "53300", "23505"]
                        .contains(&code.as_str());
                if !is_expected {
                    let mut odd = self.odd.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if odd.len() < 20 {
                        odd.push(format!("{text}: {code} {error:?}"));
                    }
                }
                let _over = client.simple_query("ROLLBACK").await;
                if code == "57P03" {
                    sleep(Duration::from_millis(50)).await;
                }
                return false;
            }
        }
        is_kept
    }
}

fn storm(wanted: usize, clients: usize, seed: u64, log_max: &str) -> Result<()> {
    let mut group = Group::with_log(TABLES, log_max)?;
    let address = group.proxy.address();
    let load = Arc::new(Load {
        target: format!("host={} port={} user=app dbname=shop", address.ip(), address.port()),
        wanted,
        done: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        odd: std::sync::Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let tasks: Vec<_> = (0..clients)
        .map(|number| {
            runtime.spawn(Arc::clone(&load).client(number, seed.wrapping_mul(2 * number as u64 + 3)))
        })
        .collect();
    let mut dice = seed | 1;
    let (mut killed, mut restarted, began) = (0, 0, Instant::now());
    while load.done.load(Ordering::Relaxed) < wanted || killed < 2 || restarted < 2 {
        std::thread::sleep(Duration::from_millis(200 + roll(&mut dice, 600) as u64));
        if roll(&mut dice, 2) == 0 {
            let member = &mut group.members[roll(&mut dice, 3)];
            if roll(&mut dice, 2) == 0 {
                member.kill()?
            } else {
                member.crash()?
            }
            std::thread::sleep(Duration::from_millis(roll(&mut dice, 800) as u64));
            member.restart()?;
            killed += 1;
        } else {
            group.proxy.restart()?;
            restarted += 1;
        }
        // Not always: the next may fall before the last is back.
        if roll(&mut dice, 3) > 0 {
            group.until_in(3)?;
        }
    }
    load.stop.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeSet::new();
    for task in tasks {
        acknowledged.append(&mut runtime.block_on(task)?);
    }
    group.until_in(3)?;
    println!(
        "seed {seed}: {} statements in {:.0?}, {} acknowledged commits, {killed} members and {restarted} proxies killed",
        load.done.load(Ordering::Relaxed),
        began.elapsed(),
        acknowledged.len()
    );
    let odd = load.odd.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    ensure!(odd.is_empty(), "{odd:#?}\n{}", group.proxy.log().lines().join("\n"));
    group.nothing_prepared()?;
    for name in NAMES {
        let sums = format!("SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t");
        if let Err(error) = group.agreed(&sums) {
            let all = format!("SELECT t::text FROM {name} t ORDER BY 1");
            let rows: Vec<BTreeSet<String>> = group
                .members
                .iter()
                .map(|member| Ok(member.sql("shop", &all)?.lines().map(str::to_owned).collect()))
                .collect::<Result<_>>()?;
            let differs: Vec<_> = rows[1..]
                .iter()
                .map(|other| rows[0].symmetric_difference(other).take(6).cloned().collect::<Vec<_>>())
                .collect();
            anyhow::bail!("{error}: {differs:?}\n{}", group.proxy.log().lines().join("\n"));
        }
    }
    let kept: BTreeSet<String> =
        group.members[0].sql("shop", "SELECT entry FROM ledger")?.lines().map(str::to_owned).collect();
    let lost: Vec<_> = acknowledged.difference(&kept).take(10).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    ensure!(acknowledged.len() > wanted / 20, "hardly anything was committed");
    Ok(())
}

#[test]
fn members_and_proxies_die_and_nothing_is_lost_or_differs() {
    storm(500, 8, 20_261_128, "1MiB").unwrap();
}

/// The long form: `cargo test --test postgres replicate::random -- --ignored --nocapture`. GROOVE_STATEMENTS and
/// GROOVE_SEED make it another.
#[test]
#[ignore = "takes an hour"]
fn two_hundred_thousand_statements_through_deaths() {
    let number =
        |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let wanted = usize::try_from(number("GROOVE_STATEMENTS", 200_000)).unwrap();
    // What is written while a member is away has to have room, however fast the build is.
    storm(wanted, 16, number("GROOVE_SEED", 4711), "16MiB").unwrap();
}
