//! Three sidecars change their servers together, with clients at work, and with processes that end in the middle.

#[path = "rings.rs"]
mod rings;
#[path = "standby.rs"]
mod standby;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use harness::{Kind, Memcached, Proxy, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;

/// Phase F alone lasts 33 seconds, and a barrier waits for a busy machine.
const RESIZED_WITHIN: Duration = Duration::from_secs(150);

/// Sidecars that share a folder, and what is asked of them.
pub(crate) struct Fleet {
    folder: TempDir,
    pub(crate) proxies: Vec<Proxy>,
    /// What else its cluster has, in lines.
    cluster: String,
}

impl Fleet {
    fn start(count: usize, servers: &[SocketAddr], more: &str) -> Result<Self> {
        Self::with(count, servers, more, "")
    }

    /// With `more` in the `resize` section, and the lines of `cluster` behind it.
    pub(crate) fn with(count: usize, servers: &[SocketAddr], more: &str, cluster: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("fleet-")?;
        let mut fleet = Self { folder, proxies: Vec::new(), cluster: cluster.to_owned() };
        for _ in 0..count {
            fleet.proxies.push(fleet.proxy(servers, more)?);
        }
        Ok(fleet)
    }

    fn proxy(&self, servers: &[SocketAddr], more: &str) -> Result<Proxy> {
        let state = self.folder.path().join("state");
        let config = config(servers, more) + &self.cluster;
        Proxy::of(Kind::Memcached).config(&config).set("STATE", state.display()).start()
    }

    /// Another file for one of them.
    pub(crate) fn rewrite(&mut self, number: usize, servers: &[SocketAddr], cluster: &str) -> Result<()> {
        let proxy = self.proxies.get_mut(number).context("no such sidecar")?;
        proxy.rewrite(&(config(servers, "") + cluster))
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.proxies.iter().map(Proxy::address).collect()
    }

    pub(crate) fn list(&self, servers: &[SocketAddr]) -> Result<PathBuf> {
        let file = self.folder.path().join("to.yaml");
        let lines: Vec<String> = servers.iter().map(|server| format!("- {server}\n")).collect();
        std::fs::write(&file, lines.concat())?;
        Ok(file)
    }
}

fn config(servers: &[SocketAddr], more: &str) -> String {
    let servers: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    format!(
        "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nworkers: 2\n\
         clusters:\n  main:\n    endpoints: [{}]\n    timeout: 5s\n    resize: {{state: $STATE, guard: 5s{more}}}\n",
        servers.join(", ")
    )
}

pub(crate) fn addresses(servers: &[Memcached]) -> Vec<SocketAddr> {
    servers.iter().map(Memcached::address).collect()
}

/// How the resize stands, as this sidecar sees it.
pub(crate) fn status(proxy: &Proxy) -> Result<Value> {
    let answer = proxy.get("/api/v1/resize")?;
    ensure!(answer.status.is_success(), "{}", answer.text());
    Ok(answer.json()?.get(0).context("no cluster")?.clone())
}

fn post(proxy: &Proxy, path: &str, body: &Value) -> Result<harness::http::Response> {
    let request = http::Request::post(path).header("host", proxy.admin().to_string());
    let request = request.header("content-type", "application/json");
    harness::http::send(proxy.admin(), request.body(Bytes::from(body.to_string()))?)
}

pub(crate) fn begin(proxy: &Proxy, servers: &[SocketAddr]) -> Result<()> {
    let to: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    let answer = post(proxy, "/api/v1/resize", &json!({ "cluster": "main", "to": to }))?;
    ensure!(answer.status.is_success(), "{}", answer.text());
    Ok(())
}

/// Looks until `is_so` of the status.
pub(crate) fn until(what: &str, proxy: &Proxy, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let seen = status(proxy);
        if let Ok(seen) = &seen
            && is_so(seen)
        {
            return Ok(seen.clone());
        }
        if begun.elapsed() > RESIZED_WITHIN {
            bail!("{what}: not within {RESIZED_WITHIN:?}, but {seen:?}\n{}", proxy.log());
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn is_phase(phase: &'static str) -> impl Fn(&Value) -> bool {
    move |status| status["phase"] == phase
}

/// Nothing is under way, everybody knows it, and these are the servers.
pub(crate) fn is_settled(servers: &[SocketAddr]) -> impl Fn(&Value) -> bool {
    let servers: Vec<Value> = servers.iter().map(|server| json!(server.to_string())).collect();
    move |status| {
        let list = |value: &Value| -> Vec<Value> {
            value.as_array().into_iter().flatten().map(|server| server["address"].clone()).collect()
        };
        let all_in =
            status["sidecars"].as_array().is_some_and(|all| all.iter().all(|it| it["behind"] == false));
        status["phase"] == "plain"
            && status["next"].is_null()
            && all_in
            && list(&status["servers"]) == servers
    }
}

/// What a client did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    /// What was answered instead.
    pub(crate) failed: Vec<String>,
}

/// Clients that write each their own keys through one sidecar and read them through another.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<Tally>>>,
}

/// Keys of each client.
const KEYS: usize = 150;

impl Load {
    pub(crate) fn start(sidecars: &[SocketAddr], clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |client: usize| {
            let (stop, sidecars) = (Arc::clone(&stop), sidecars.to_vec());
            thread::spawn(move || work(client, &sidecars, &stop))
        };
        let clients = (0..clients).map(start).collect();
        Self { stop, clients }
    }

    pub(crate) fn end(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = Tally::default();
        for client in self.clients {
            let tally = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            sum.hits += tally.hits;
            sum.misses += tally.misses;
            sum.failed.extend(tally.failed);
        }
        Ok(sum)
    }
}

/// Of each key the last acknowledged version, and those that may have been stored since without an answer.
#[derive(Default, Clone)]
struct Known {
    acknowledged: u64,
    doubtful: Vec<u64>,
}

fn work(client: usize, sidecars: &[SocketAddr], stop: &AtomicBool) -> Result<Tally> {
    let (mut known, mut tally) = (vec![Known::default(); KEYS], Tally::default());
    let mut connections: Vec<Option<Client>> = sidecars.iter().map(|_| None).collect();
    let mut version = 0;
    let mut ask = |sidecar: usize, request: &str, all: bool| -> Option<Vec<String>> {
        let place = connections.get_mut(sidecar)?;
        if place.is_none() {
            *place = Client::connect(*sidecars.get(sidecar)?).ok();
        }
        let connection = place.as_mut()?;
        let heard =
            if all { connection.ask_all(request) } else { connection.ask(request).map(|line| vec![line]) };
        if heard.is_err() {
            *place = None;
        }
        heard.ok()
    };
    for turn in client.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Fleets of several tests run beside each other: what matters is when, not how often.
        thread::sleep(Duration::from_millis(1));
        let (writer, reader) = (turn % sidecars.len(), (turn / 3 + 1) % sidecars.len());
        let number = turn * 7 % KEYS;
        let (key, known) = (format!("c{client}k{number}"), known.get_mut(number).context("a key")?);
        if turn % 4 == 0 {
            version += 1;
            let value = version.to_string();
            let set = format!("set {key} 0 0 {}\r\n{value}\r\n", value.len());
            match ask(writer, &set, false).as_deref() {
                Some([line]) if line == "STORED" => {
                    *known = Known { acknowledged: version, doubtful: Vec::new() }
                }
                other => {
                    tally.failed.push(format!("set: {other:?}"));
                    known.doubtful.push(version);
                }
            }
        }
        match ask(reader, &format!("get {key}\r\n"), true).as_deref() {
            Some([end]) if end == "END" => tally.misses += u64::from(known.acknowledged > 0),
            Some([_, value, _]) => {
                let value: u64 = value.parse()?;
                tally.hits += 1;
                let good = value == known.acknowledged || known.doubtful.contains(&value);
                ensure!(
                    good,
                    "{key} is {value}: {} was acknowledged, {:?} not",
                    known.acknowledged,
                    known.doubtful
                );
            }
            other => tally.failed.push(format!("get: {other:?}")),
        }
    }
    Ok(tally)
}

#[test]
fn three_servers_become_five_and_then_two_while_clients_go_on() -> Result<()> {
    let servers = Memcached::start_many(5)?;
    let all = addresses(&servers);
    let (three, two) = (&all[..3], &all[1..3]);
    let fleet = Fleet::start(3, three, "")?;
    let load = Load::start(&fleet.addresses(), 4);
    let admin = fleet.proxies[1].admin().to_string();
    for to in [&all[..], two] {
        let file = fleet.list(to)?;
        let file = file.to_str().context("a path")?;
        let output = Kind::Memcached.run(&["resize", "--to", file, "--admin", &admin])?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(text.contains("phase F") && text.trim_end().ends_with("3 sidecars)"), "{text}");
        for proxy in &fleet.proxies {
            until("agreed", proxy, is_settled(to))?;
        }
    }
    let tally = load.end()?;
    ensure!(tally.failed.is_empty(), "{tally:?}");
    ensure!(tally.hits > 1000 && tally.misses * 200 <= tally.hits, "{tally:?}");
    Ok(())
}

#[test]
fn a_sidecar_and_then_the_one_that_drives_are_killed_in_the_middle() -> Result<()> {
    let servers = Memcached::start_many(3)?;
    let all = addresses(&servers);
    let mut fleet = Fleet::start(3, &all[..2], ", keys_per_second: 100")?;
    let mut filler = Client::connect(fleet.proxies[0].address())?;
    for number in 0..600 {
        ensure!(filler.ask(&format!("set k{number} 0 0 1\r\nx\r\n"))? == "STORED");
    }
    begin(&fleet.proxies[0], &all)?;
    let seen = until("phase E", &fleet.proxies[0], |it| it["phase"] == "e" && !it["leader"].is_null())?;
    let pid = |proxy: &Proxy| json!(proxy.pid());
    let leader = seen["leader"].as_str().context("nobody drives")?;
    let present = seen["sidecars"].as_array().context("no sidecars")?;
    let driving = present.iter().find(|it| it["name"] == leader).context("not there")?["pid"].clone();
    let (leads, other): (Vec<_>, Vec<_>) = (0..3).partition(|&it| pid(&fleet.proxies[it]) == driving);
    // Whoever is killed is dropped at once; whoever drives is replaced; what was moved is not moved again.
    fleet.proxies[other[0]].kill()?;
    fleet.proxies[leads[0]].kill()?;
    let left = other[1];
    until("alone", &fleet.proxies[left], |it| it["sidecars"].as_array().is_some_and(|all| all.len() == 1))?;
    until("driven", &fleet.proxies[left], |it| it["leader"].as_str().is_some_and(|name| name != leader))?;
    // One comes back in the middle, with an old configuration, and starts in the current phase.
    fleet.proxies[other[0]].restart()?;
    until("done", &fleet.proxies[left], is_settled(&all))?;
    fleet.proxies[leads[0]].restart()?;
    for proxy in &fleet.proxies {
        let seen = until("agreed", proxy, is_settled(&all))?;
        ensure!(seen["sidecars"].as_array().map(Vec::len) == Some(3), "{seen}");
        let mut client = Client::connect(proxy.address())?;
        for number in 0..600 {
            let heard = client.ask_all(&format!("get k{number}\r\n"))?;
            ensure!(heard.len() == 3, "k{number} through {}: {heard:?}", proxy.address());
        }
    }
    let mark = fleet.proxies[leads[0]].log().lines().join("\n");
    ensure!(mark.contains("is not the committed one"), "an older list is told of:\n{mark}");
    Ok(())
}

#[test]
fn a_resize_is_paused_resumed_and_aborted_from_e() -> Result<()> {
    let servers = Memcached::start_many(3)?;
    let all = addresses(&servers);
    let fleet = Fleet::start(3, &all[..2], ", keys_per_second: 20")?;
    let load = Load::start(&fleet.addresses(), 2);
    thread::sleep(Duration::from_secs(2));
    begin(&fleet.proxies[0], &all)?;
    let refused = post(&fleet.proxies[1], "/api/v1/resize", &json!({ "to": ["127.0.0.1:1"] }))?;
    ensure!(refused.status.as_u16() == 409, "{}", refused.text());
    until("phase E", &fleet.proxies[0], is_phase("e"))?;
    for (verb, is_paused) in [("pause", true), ("resume", false)] {
        let admin = fleet.proxies[2].admin().to_string();
        let output = Kind::Memcached.run(&["resize", verb, "--admin", &admin, "--json"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout)?;
        ensure!(told["paused"] == is_paused && told["phase"] == "e", "{told}");
    }
    let aborted = post(&fleet.proxies[1], "/api/v1/resize/abort", &json!({}))?;
    ensure!(aborted.status.is_success(), "{}", aborted.text());
    for proxy in &fleet.proxies {
        until("back", proxy, is_settled(&all[..2]))?;
    }
    // Nothing stale through the whole of it; what had moved is lost.
    let tally = load.end()?;
    ensure!(tally.failed.is_empty() && tally.hits > 1000, "{tally:?}");
    Ok(())
}

#[test]
fn an_old_server_that_is_killed_in_e_costs_its_own_keys_and_no_others() -> Result<()> {
    let mut servers = Memcached::start_many(4)?;
    let all = addresses(&servers);
    let fleet = Fleet::start(3, &all[..2], ", keys_per_second: 20, away_after: 2s")?;
    let mut client = Client::connect(fleet.proxies[0].address())?;
    for number in 0..400 {
        ensure!(client.ask(&format!("set k{number} 0 0 3\r\nold\r\n"))? == "STORED");
    }
    // Both old servers go.
    begin(&fleet.proxies[0], &all[2..])?;
    until("phase E", &fleet.proxies[0], is_phase("e"))?;
    servers[0].kill()?;
    let dead = all[0].to_string();
    until("given up", &fleet.proxies[1], |it| it["gone"][&dead] == "gone")?;
    let too_late = post(&fleet.proxies[1], "/api/v1/resize/abort", &json!({}))?;
    ensure!(too_late.status.as_u16() == 409 && too_late.text().contains(&dead), "{}", too_late.text());
    // From now on every key can be written and read again.
    let (mut kept, mut lost) = (0, 0);
    for number in 0..400 {
        let heard = client.ask_all(&format!("get k{number}\r\n"))?;
        match heard.as_slice() {
            [_, value, _] if value == "old" => kept += 1,
            [end] if end == "END" => lost += 1,
            other => bail!("k{number}: {other:?}"),
        }
        ensure!(client.ask(&format!("set k{number} 0 0 3\r\nnew\r\n"))? == "STORED", "k{number}");
    }
    ensure!(kept > 100 && lost > 50, "{kept} kept, {lost} lost");
    // And what the dead one has when it comes back is seen by nobody.
    servers[0].restart()?;
    for proxy in &fleet.proxies {
        until("done", proxy, is_settled(&all[2..]))?;
        let mut client = Client::connect(proxy.address())?;
        for number in 0..400 {
            let heard = client.ask_all(&format!("get k{number}\r\n"))?;
            ensure!(heard.get(1).map(String::as_str) == Some("new"), "k{number}: {heard:?}");
        }
    }
    Ok(())
}

#[test]
fn a_sidecar_whose_store_is_busy_at_its_start_serves_nobody_before_it_knows_the_servers() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let fleet = Fleet::start(1, &addresses(&servers), "")?;
    // As somebody who writes for long, on a disk that is slow.
    let lock = std::fs::File::open(fleet.folder.path().join("state/lock"))?;
    lock.lock()?;
    let late = thread::scope(|scope| {
        let late = scope.spawn(|| fleet.proxy(&addresses(&servers), ""));
        thread::sleep(Duration::from_secs(4));
        lock.unlock()?;
        late.join().map_err(|_| anyhow::anyhow!("it panicked"))?
    })?;
    ensure!(Client::connect(late.address())?.ask("get a\r\n")? == "END");
    Ok(())
}

#[test]
fn a_stopped_sidecar_holds_it_up_and_is_named_and_a_changed_file_is_proposed() -> Result<()> {
    let servers = Memcached::start_many(3)?;
    let all = addresses(&servers);
    let mut fleet = Fleet::start(2, &all[..2], "")?;
    let both = |it: &Value| it["sidecars"].as_array().map(Vec::len) == Some(2);
    until("both", &fleet.proxies[0], |it| both(it) && is_settled(&all[..2])(it))?;
    fleet.proxies[1].signal(Signal::STOP)?;
    // As an operator changes it: in the file, of every sidecar, one after the other.
    fleet.proxies[0].rewrite(&config(&all, ""))?;
    let stopped = json!(fleet.proxies[1].pid());
    let behind = |it: &Value| {
        let all = it["sidecars"].as_array().cloned().unwrap_or_default();
        all.iter().any(|it| it["pid"] == stopped && it["behind"] == true)
    };
    let seen = until("held up", &fleet.proxies[0], |it| it["phase"] == "b" && behind(it))?;
    thread::sleep(Duration::from_secs(2));
    let later = status(&fleet.proxies[0])?;
    ensure!(later["step"] == seen["step"] && later["phase"] == "b", "{later}");
    fleet.proxies[1].signal(Signal::CONT)?;
    fleet.proxies[1].rewrite(&config(&all, ""))?;
    for proxy in &fleet.proxies {
        until("done", proxy, is_settled(&all))?;
    }
    Ok(())
}
