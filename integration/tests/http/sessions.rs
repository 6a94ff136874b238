//! Sessions that are bound to the server which holds their state, while servers are replaced under them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Kind, Proxy, eventually};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::fleet::{Client, Fleet, Message, Server, ok};

const BY: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 2
apps:
  game:
    hosts: [shop.test]
    endpoints: {file: $DIR/endpoints.yaml}
    health: {probe: null}
    affinity: {by: $BY, mode: $MODE}
    concurrency: {hard: 64}
";

const BY_HEADER: &str = "{header: X-Session}";
const BY_COOKIE: &str = "{cookie: {name: home, generate: true, secret: 0123456789abcdef}}";

/// A server's line in the list of endpoints.
fn line(server: &Server, name: &str, more: &str) -> String {
    format!("- {{address: {}, name: {name}{more}}}\n", server.address)
}

/// How much is asked.
#[derive(Clone, Copy)]
struct Scale {
    sessions: usize,
    connections: usize,
    per_second: usize,
    phase: Duration,
}

/// What every machine can do beside other tests.
const SMALL: Scale =
    Scale { sessions: 4_000, connections: 16, per_second: 800, phase: Duration::from_millis(1500) };
const FULL: Scale =
    Scale { sessions: 100_000, connections: 64, per_second: 5_000, phase: Duration::from_secs(20) };

/// What is known of each change of servers.
struct Change {
    /// Servers that are no more: told before the proxy is.
    retired: Vec<AtomicBool>,
    /// The proxy knows, too.
    applied: AtomicBool,
    /// Answers.
    count: AtomicUsize,
    stop: AtomicBool,
}

/// Clients that each have sessions of their own, and check of every answer who gave it.
struct Load {
    change: Arc<Change>,
    clients: Vec<JoinHandle<Result<Tally>>>,
}

#[derive(Debug, Default)]
struct Tally {
    requests: usize,
    /// Sessions that were answered by another server than before.
    moved: usize,
    /// How late the latest answer was, and when that was.
    lag_ms_max: u128,
    lag_at_s: u64,
}

impl Load {
    fn start(
        address: SocketAddr,
        scale: Scale,
        servers: usize,
        asks: fn(usize, &str, bool) -> String,
    ) -> Self {
        let change = Arc::new(Change {
            retired: (0..servers).map(|_| AtomicBool::new(false)).collect(),
            applied: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let clients = (0..scale.connections)
            .map(|index| tokio::spawn(client(address, scale, index, Arc::clone(&change), asks)))
            .collect();
        Self { change, clients }
    }

    fn retire(&self, servers: &[usize]) {
        servers.iter().for_each(|server| self.change.retired[*server].store(true, Ordering::SeqCst));
    }

    async fn run_for(&self, time: Duration) {
        let before = self.change.count.load(Ordering::SeqCst);
        tokio::time::sleep(time).await;
        assert!(self.change.count.load(Ordering::SeqCst) > before, "no answers");
    }

    async fn finish(self) -> Tally {
        self.change.stop.store(true, Ordering::SeqCst);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.await.unwrap().unwrap();
            all.requests += tally.requests;
            all.moved += tally.moved;
            if tally.lag_ms_max > all.lag_ms_max {
                (all.lag_ms_max, all.lag_at_s) = (tally.lag_ms_max, tally.lag_at_s);
            }
        }
        all
    }
}

/// One connection. Its sessions are its own, so that the order of their requests is known.
async fn client(
    address: SocketAddr,
    scale: Scale,
    index: usize,
    change: Arc<Change>,
    asks: fn(usize, &str, bool) -> String,
) -> Result<Tally> {
    let own = scale.sessions / scale.connections;
    let mut homes: Vec<(Option<usize>, String)> = vec![(None, String::new()); own];
    let mut connection = Client::connect(address).await?;
    let mut ticks = interval(Duration::from_secs_f64(scale.connections as f64 / scale.per_second as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut dice = index as u64 + 1;
    let (mut tally, began) = (Tally::default(), Instant::now());
    while !change.stop.load(Ordering::SeqCst) {
        let due = ticks.tick().await;
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let session = (dice >> 33) as usize % own;
        let is_post = !(dice >> 20).is_multiple_of(10);
        let (home, cookie) = &mut homes[session];
        let knew = change.applied.load(Ordering::SeqCst);
        let reply = connection.ask(&asks(index * own + session, cookie, is_post)).await;
        let reply = reply.with_context(|| format!("session {session} of client {index}"))?;
        ensure!(reply.status() == 200, "lost: {reply:?}");
        let server: usize = reply.text().parse()?;
        let is_retired = |server: usize| change.retired[server].load(Ordering::SeqCst);
        ensure!(!knew || !is_retired(server), "{server} is no more, and was asked");
        if let Some(before) = *home
            && before != server
        {
            ensure!(is_retired(before), "a session of {before} reached {server}");
            tally.moved += 1;
        }
        *home = Some(server);
        if let Some(set) = reply.header("set-cookie") {
            *cookie = set.split(';').next().unwrap_or_default().to_owned();
        }
        tally.requests += 1;
        let lag_ms = due.elapsed().as_millis();
        if lag_ms > tally.lag_ms_max {
            (tally.lag_ms_max, tally.lag_at_s) = (lag_ms, began.elapsed().as_secs());
        }
        change.count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(tally)
}

fn request(more: &str, is_post: bool) -> String {
    let (method, body) = if is_post { ("POST", "move=e2e4") } else { ("GET", "") };
    format!(
        "{method} /play HTTP/1.1\r\nHost: shop.test\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn by_header(session: usize, _: &str, is_post: bool) -> String {
    request(&format!("X-Session: {session}\r\n"), is_post)
}

fn by_cookie(_: usize, cookie: &str, is_post: bool) -> String {
    if cookie.is_empty() { request("", is_post) } else { request(&format!("Cookie: {cookie}\r\n"), is_post) }
}

fn fleet() -> Fleet {
    Fleet::start(22, |server, _: Message| async move { ok(&server.index.to_string()) }).unwrap()
}

fn proxy(by: &str, mode: &str, endpoints: &str) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("endpoints.yaml"), endpoints).unwrap();
    Proxy::of(Kind::Http).config(BY).set("BY", by).set("MODE", mode).folder(folder).start().unwrap()
}

/// Replaces the list of endpoints, and waits until the proxy knows.
fn tell(proxy: &Proxy, endpoints: &str, known: impl Fn(&str) -> bool) {
    let file = proxy.folder().join("endpoints.yaml");
    std::fs::write(proxy.folder().join("new.yaml"), endpoints).unwrap();
    std::fs::rename(proxy.folder().join("new.yaml"), file).unwrap();
    let seen = || known(&proxy.status().unwrap().to_string()).then_some(());
    eventually("the proxy knows the endpoints", seen).unwrap();
}

/// Two of twenty servers drain, and are then replaced by two others. With `in_place` those take their names.
async fn replace_two(scale: Scale, by: &str, asks: fn(usize, &str, bool) -> String, in_place: bool) {
    let fleet = fleet();
    let list = |replaced: bool, more: &str| {
        let mut list = String::new();
        for slot in 0..20 {
            let (server, is_new) = match slot {
                3 | 11 if replaced => (20 + usize::from(slot == 11), true),
                _ => (slot, false),
            };
            let name = if is_new && !in_place { format!("new{slot}") } else { format!("s{slot}") };
            let more = if matches!(slot, 3 | 11) && !is_new { more } else { "" };
            list.write_str(&line(&fleet.servers[server], &name, more)).unwrap();
        }
        list
    };
    let proxy = proxy(by, "strict", &list(false, ""));
    let load = Load::start(proxy.address(), scale, fleet.servers.len(), asks);
    load.run_for(scale.phase).await;
    tell(&proxy, &list(false, ", metadata: {draining: \"true\"}"), |status| status.contains("draining"));
    load.run_for(scale.phase / 2).await;
    let served_before: Vec<_> = fleet.served();
    load.retire(&[3, 11]);
    let added = fleet.servers[20].address.to_string();
    tell(&proxy, &list(true, ""), |status| status.contains(&added));
    load.change.applied.store(true, Ordering::SeqCst);
    let began = Instant::now();
    load.run_for(scale.phase).await;
    // The old ones are switched off under load: nobody notices.
    fleet.servers[3].crash();
    fleet.servers[11].crash();
    load.run_for(scale.phase / 2).await;
    let tally = load.finish().await;
    let served = fleet.served();
    assert!(served_before[3] > 0 && served_before[11] > 0, "they had sessions");
    assert!(served[20] > 0 && served[21] > 0, "the new ones have sessions: {served:?}");
    let each = scale.sessions / 20;
    assert!(tally.moved > 0 && tally.moved <= 4 * each, "{tally:?}");
    eprintln!(
        "{tally:?} in phases of {:?}, replaced {:?} before the end, {served:?}",
        scale.phase,
        began.elapsed()
    );
}

#[tokio::test]
async fn sessions_by_header_move_only_from_servers_that_are_replaced() {
    replace_two(SMALL, BY_HEADER, by_header, true).await;
}

#[tokio::test]
async fn sessions_by_our_own_cookie_move_only_from_servers_that_are_gone() {
    replace_two(SMALL, BY_COOKIE, by_cookie, false).await;
}

#[tokio::test]
#[ignore = "takes a minute of both processors: `cargo test --test http -- --ignored full_size`"]
async fn full_size_sessions_by_header() {
    replace_two(FULL, BY_HEADER, by_header, true).await;
}

#[tokio::test]
#[ignore = "takes a minute of both processors: `cargo test --test http -- --ignored full_size`"]
async fn full_size_sessions_by_our_own_cookie() {
    replace_two(FULL, BY_COOKIE, by_cookie, false).await;
}
