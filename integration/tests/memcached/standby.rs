//! Servers that evict are joined by one that stands by, and it leaves when it is no longer needed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};
use harness::{Kind, Memcached, Proxy};
use serde_json::{Value, json};

use crate::client::Client;
use crate::resizes::{Fleet, addresses, is_settled, until};

/// Small items, in a size class of their own: nothing evicts them.
const KEPT: usize = 300;
/// Large ones, of which the servers hold a few thousand.
const LARGE_LEN: usize = 4000;

/// Stores ever more large items until it is told to stop; how many, when it ends.
struct Filler {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    task: JoinHandle<Result<()>>,
}

impl Filler {
    fn start(sidecar: SocketAddr) -> Self {
        let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&count));
        let task = thread::spawn(move || {
            let mut client = Client::connect(sidecar)?;
            let value = "v".repeat(LARGE_LEN);
            while !stopped.load(Ordering::Relaxed) {
                let number = counted.fetch_add(1, Ordering::Relaxed);
                let heard = client.ask(&format!("set large{number} 0 0 {LARGE_LEN}\r\n{value}\r\n"))?;
                ensure!(heard == "STORED", "large{number}: {heard}");
                thread::sleep(std::time::Duration::from_millis(1));
            }
            Ok(())
        });
        Self { stop, count, task }
    }

    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join().map_err(|_| anyhow::anyhow!("the filler panicked"))??;
        Ok(self.count.load(Ordering::Relaxed))
    }
}

/// Looks at the small items all the time, through every sidecar.
struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<usize>>,
}

impl Reader {
    fn start(sidecars: Vec<SocketAddr>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = thread::spawn(move || {
            let mut clients = sidecars.into_iter().map(Client::connect).collect::<Result<Vec<_>>>()?;
            let mut hits = 0;
            while !stopped.load(Ordering::Relaxed) {
                for number in 0..KEPT {
                    for client in &mut clients {
                        let heard = client.ask_all(&format!("get kept{number}\r\n"))?;
                        ensure!(heard.len() == 3, "kept{number}: {heard:?} after {hits} hits");
                        hits += 1;
                    }
                }
            }
            Ok(hits)
        });
        Self { stop, task }
    }

    fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join().map_err(|_| anyhow::anyhow!("the reader panicked"))?
    }
}

fn part(status: &Value) -> Value {
    status.pointer("/standby/servers/0/part").cloned().unwrap_or_default()
}

#[test]
fn a_standby_server_joins_servers_that_evict_and_leaves_when_they_have_room() -> Result<()> {
    let small = || Memcached::builder().arg("-m").arg("8").arg("-o").arg("slab_automove=0").start();
    let servers = [small()?, small()?, small()?];
    let all = addresses(&servers);
    let two = &all[..2];
    let cluster = format!(
        "    standby:\n      endpoints: [{}]\n      join: {{evictions_per_second: 5, for: 3s}}\n      \
         leave: {{below_percent: 60, after: 3s}}\n      settle: 1s\n",
        all[2]
    );
    let mut fleet = Fleet::with(2, two, "", &cluster)?;
    let is_known = |it: &Value| it["standby"]["bytes_max"] == 16 << 20 && is_settled(two)(it);
    let seen = until("waiting", &fleet.proxies[0], is_known)?;
    ensure!(part(&seen) == "waiting", "{seen}");
    let mut client = Client::connect(fleet.proxies[0].address())?;
    for number in 0..KEPT {
        ensure!(client.ask(&format!("set kept{number} 0 0 4\r\nkept\r\n"))? == "STORED");
    }
    let reader = Reader::start(fleet.addresses());
    let filler = Filler::start(fleet.proxies[1].address());
    until("joining", &fleet.proxies[0], |it| it["phase"] != "plain" && part(it) == "joining")?;
    for proxy in &fleet.proxies {
        let seen = until("joined", proxy, is_settled(&all))?;
        let why = seen.pointer("/standby/servers/0/why").and_then(Value::as_str).context("no reason")?;
        ensure!(part(&seen) == "joined" && why.contains("evictions a second"), "{seen}");
    }
    let admin = fleet.proxies[0].admin().to_string();
    let told = Kind::Memcached.run(&["resize", "status", "--admin", &admin])?;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(text.contains(&format!("standby  {} has joined: ", all[2])), "{text}");
    let count = filler.end()?;
    let evictions = metric(&fleet, "groove_memcached_standby_evictions_total", &[])?;
    let resizes = metric(&fleet, "groove_memcached_resizes_total", &[("result", "done")])?;
    let moved = metric(&fleet, "groove_memcached_resize_moved_keys_total", &[("cluster", "main")])?;
    let plain = metric(&fleet, "groove_memcached_resize_phase", &[("phase", "plain")])?;
    ensure!(evictions > 100.0 && resizes > 0.0 && moved > 50.0, "{evictions} {resizes} {moved}");
    ensure!(
        plain == 2.0 && metric(&fleet, "groove_memcached_standby_servers", &[("state", "joined")])? == 1.0
    );
    ensure!(reader.end()? > 10 * KEPT);

    // Whoever drove is gone, and so are most items: the other one lets it go.
    let leader = until("led", &fleet.proxies[0], is_settled(&all))?;
    let drives = "groove_memcached_resize_drives";
    let is_one = |proxy: &Proxy| proxy.metrics().is_ok_and(|it| it.sum(drives, &[]) == Some(1.0));
    let leads = fleet.proxies.iter().position(is_one);
    let leads = leads.with_context(|| format!("nobody drives: {leader}"))?;
    fleet.proxies[leads].kill()?;
    let left = &fleet.proxies[1 - leads];
    let reader = Reader::start(vec![left.address()]);
    let mut client = Client::connect(left.address())?;
    for number in 0..count {
        let heard = client.ask(&format!("delete large{number}\r\n"))?;
        ensure!(heard == "DELETED" || heard == "NOT_FOUND", "large{number}: {heard}");
    }
    until("leaving", left, |it| it["phase"] != "plain" && part(it) == "leaving")?;
    let seen = until("left", left, is_settled(two))?;
    ensure!(part(&seen) == "waiting", "{seen}");
    ensure!(reader.end()? > KEPT);
    Ok(())
}

#[test]
fn what_operators_list_is_in_front_of_a_standby_server_and_taking_it_back_makes_it_leave() -> Result<()> {
    let small = || Memcached::builder().arg("-m").arg("8").start();
    let servers = [small()?, small()?, small()?];
    let all = addresses(&servers);
    let standby = format!(
        "    standby: {{endpoints: [{}], join: {{evictions_per_second: 5, for: 2s}}, settle: 1s}}\n",
        all[1]
    );
    let mut fleet = Fleet::with(1, &all[..1], "", &standby)?;
    let filler = Filler::start(fleet.proxies[0].address());
    until("joined", &fleet.proxies[0], is_settled(&all[..2]))?;
    filler.end()?;
    // A list of one more server: the standby server is still behind it, and the command is content with that.
    let admin = fleet.proxies[0].admin().to_string();
    let file = fleet.list(&[all[0], all[2]])?;
    let output =
        Kind::Memcached.run(&["resize", "--to", file.to_str().context("a path")?, "--admin", &admin])?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let behind = [all[0], all[2], all[1]];
    until("behind", &fleet.proxies[0], is_settled(&behind))?;
    let refused =
        Kind::Memcached.run(&["resize", "--to", file.to_str().context("a path")?, "--admin", &admin])?;
    ensure!(String::from_utf8_lossy(&refused.stderr).contains("has these servers already"));
    // What the operator no longer gives leaves, whether or not the others have room.
    fleet.rewrite(0, &[all[0]], "")?;
    let seen = until("taken back", &fleet.proxies[0], is_settled(&[all[0], all[2]]))?;
    ensure!(seen["standby"] == json!(null), "{seen}");
    Ok(())
}

/// Of all sidecars together.
fn metric(fleet: &Fleet, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    let mut sum = 0.0;
    for proxy in &fleet.proxies {
        sum += proxy.metrics()?.sum(name, labels).with_context(|| format!("no {name}"))?;
    }
    Ok(sum)
}
