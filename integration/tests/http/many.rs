//! Tens of thousands of apps, of which a hundred a second change under traffic: what an app takes, when a change is
//! seen, and that nobody else notices.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use harness::{Kind, PATIENCE, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// Connections that look for a change, so that each worker has some.
const LOOKS: usize = 4;
/// Operators at work at once, each with apps of its own.
const OPERATORS: usize = 8;
/// Between two requests of a client: what is measured is the way through, not a queue that grows with the machine's load.
const PAUSE: Duration = Duration::from_millis(20);
/// Apps that clients ask for: as many as there may be hot ones.
const ASKED_FOR: usize = 512;

struct Size {
    apps: usize,
    sockets: usize,
    clients: usize,
    per_second: u32,
    time: Duration,
}

/// Two that say the same.
type Servers = [SocketAddr; 2];

/// One connection, kept alive.
struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Wire {
    async fn new(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: Vec::new() })
    }

    /// Status and body of the answer to a request.
    async fn ask(&mut self, method: &str, path: &str, host: &str, body: &str) -> Result<(u16, String)> {
        let length = body.len();
        let text =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.write_all(text.as_bytes()).await?;
        timeout(PATIENCE, self.answer()).await?
    }

    async fn answer(&mut self) -> Result<(u16, String)> {
        let end = loop {
            match self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.fill().await?,
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        let status = head.get(9..12).context("a status")?.parse()?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap_or("0").trim().parse()?;
        while self.read.len() < end + length {
            self.fill().await?;
        }
        let body = String::from_utf8_lossy(&self.read[end..end + length]).into_owned();
        self.read.drain(..end + length);
        Ok((status, body))
    }

    async fn fill(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.read).await? > 0, "closed");
        Ok(())
    }
}

/// Says which of the two it is, and echoes what comes after an upgrade.
async fn serve(listener: TcpListener, word: &'static str) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let mut read = Vec::new();
            loop {
                if stream.read_buf(&mut read).await? == 0 {
                    return Ok(());
                }
                while let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
                    read.drain(..end + 4);
                    if head.contains("upgrade: websocket") {
                        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
                        stream.write_all(switch.as_bytes()).await?;
                        let (mut from, mut to) = stream.split();
                        tokio::io::copy(&mut from, &mut to).await?;
                        return Result::<()>::Ok(());
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}", word.len());
                    stream.write_all(answer.as_bytes()).await?;
                }
            }
        });
    }
}

/// Two listeners of one server.
async fn server(word: &'static str) -> Result<Servers> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let servers = [first.local_addr()?, second.local_addr()?];
    tokio::spawn(serve(first, word));
    tokio::spawn(serve(second, word));
    Ok(servers)
}

fn host(app: usize) -> String {
    format!("app-{app:05}.example.test")
}

fn text(app: usize, [first, second]: Servers) -> String {
    format!("{{hosts: [{}], endpoints: ['{first}', '{second}']}}", host(app))
}

fn proxy_of(apps: usize, servers: Servers) -> Result<(Proxy, usize)> {
    let mut config =
        "listeners: [{address: $LISTEN}]\nadmin: {address: $ADMIN}\nlog: {level: warn}\nworkers: 2\napps:\n"
            .to_owned();
    let before = config.len();
    for app in 0..apps {
        writeln!(config, "  app-{app:05}: {}", text(app, servers))?;
    }
    let bytes = config.len() - before;
    Ok((Proxy::of(Kind::Http).config(&config).open_files_max(16 << 10).start()?, bytes))
}

/// Clients that ask until they are told to stop: the time of each answer.
fn clients(size: &Size, address: SocketAddr, stop: &Arc<AtomicBool>) -> JoinSet<Result<Vec<Duration>>> {
    let mut set = JoinSet::new();
    for client in 0..size.clients {
        let (stop, apps) = (Arc::clone(stop), size.apps.min(ASKED_FOR));
        set.spawn(async move {
            let (mut wire, mut times, mut app) = (Wire::new(address).await?, Vec::new(), client * 7919);
            let mut pace = interval(PAUSE);
            while !stop.load(Relaxed) {
                pace.tick().await;
                app = (app * 31 + 17) % apps;
                let begun = Instant::now();
                let (status, _) = wire.ask("GET", "/", &host(app), "").await?;
                times.push(begun.elapsed());
                ensure!(status == 200, "{status} of {}", host(app));
            }
            Ok(times)
        });
    }
    set
}

async fn all(mut set: JoinSet<Result<Vec<Duration>>>) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    while let Some(done) = set.join_next().await {
        times.extend(done??);
    }
    times.sort_unstable();
    Ok(times)
}

fn part(sorted: &[Duration], of_thousand: usize) -> Duration {
    sorted.get(sorted.len() * of_thousand / 1000).or(sorted.last()).copied().unwrap_or_default()
}

/// Upgraded connections over all apps; each says at the end whether it was there all the time.
async fn sockets(size: &Size, address: SocketAddr) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for socket in 0..size.sockets {
        let mut wire = Wire::new(address).await?;
        let host = host(socket % size.apps);
        let ask =
            format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        wire.stream.write_all(ask.as_bytes()).await?;
        let (status, _) = timeout(PATIENCE, wire.answer()).await??;
        ensure!(status == 101, "{status}");
        open.push(wire.stream);
    }
    Ok(open)
}

async fn closed(open: Vec<TcpStream>) -> usize {
    let mut lost = 0;
    for mut stream in open {
        let mut echo = [0; 4];
        let spoken = async {
            stream.write_all(b"here").await?;
            stream.read_exact(&mut echo).await
        };
        lost += usize::from(!matches!(timeout(PATIENCE, spoken).await, Ok(Ok(_))));
    }
    lost
}

/// Changes one app after the other, and sees when all workers know: from the moment it is asked for.
async fn operator(
    (number, apps): (usize, usize),
    every: Duration,
    proxy: (SocketAddr, SocketAddr),
    servers: [Servers; 2],
    stop: Arc<AtomicBool>,
) -> Result<Vec<Duration>> {
    let mut admin = Wire::new(proxy.1).await?;
    let mut looks = Vec::new();
    for _ in 0..LOOKS {
        looks.push(Wire::new(proxy.0).await?);
    }
    let own: Vec<usize> = (0..apps).filter(|app| app % OPERATORS == number).collect();
    let (mut pace, mut seen) = (interval(every), Vec::new());
    while !stop.load(Relaxed) {
        pace.tick().await;
        let (app, turn) = (own[seen.len() % own.len()], (seen.len() / own.len() + 1) % 2);
        let begun = Instant::now();
        let text = text(app, servers[turn]);
        let (status, said) =
            admin.ask("PUT", &format!("/api/v1/apps/app-{app:05}"), "localhost", &text).await?;
        ensure!(status == 200, "{status}: {said}");
        for look in &mut looks {
            while look.ask("GET", "/", &host(app), "").await?.1 != ["one", "two"][turn] {
                ensure!(begun.elapsed() < PATIENCE, "the change of {app} is not seen");
            }
        }
        seen.push(begun.elapsed());
    }
    Ok(seen)
}

async fn show(size: Size) -> Result<()> {
    let servers = [server("one").await?, server("two").await?];
    let alone = proxy_of(1, servers[0])?.0.usage()?.resident_bytes;
    let begun = Instant::now();
    let (proxy, text_bytes) = proxy_of(size.apps, servers[0])?;
    let loaded = begun.elapsed();
    let grown = proxy.usage()?.resident_bytes.saturating_sub(alone);
    let an_app = grown.saturating_sub(text_bytes as u64) / size.apps as u64;
    let open = sockets(&size, proxy.address()).await?;

    let phase = async |with_changes: bool| -> Result<(Vec<Duration>, Vec<Duration>)> {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = clients(&size, proxy.address(), &stop);
        let mut operators = JoinSet::new();
        for number in (0..OPERATORS).filter(|_| with_changes) {
            let (every, addresses) =
                (Duration::from_secs(OPERATORS as u64) / size.per_second, (proxy.address(), proxy.admin()));
            operators.spawn(operator((number, size.apps), every, addresses, servers, Arc::clone(&stop)));
        }
        tokio::time::sleep(size.time).await;
        stop.store(true, Relaxed);
        Ok((all(clients).await?, all(operators).await?))
    };
    phase(false).await?;
    let (without, _) = phase(false).await?;
    let (with, seen) = phase(true).await?;
    let lost = closed(open).await;
    let of = |times: &[Duration]| (part(times, 500), part(times, 990), times.len());
    eprintln!(
        "{} apps loaded in {loaded:?}, {an_app} bytes each beyond their text; {} changes in {:?}, seen by all workers \
         after {:?} (p50), {:?} (p99); {} WebSockets, {lost} closed; requests p50, p99, count: {:?} without changes, \
         {:?} with; {} bytes resident at the end",
        size.apps,
        seen.len(),
        size.time,
        part(&seen, 500),
        part(&seen, 990),
        size.sockets,
        of(&without),
        of(&with),
        proxy.usage()?.resident_bytes,
    );
    // What is not the apps' (buffers, threads) counts too much among few of them.
    ensure!(size.apps < 10_000 || an_app <= 2048, "{an_app} bytes an app");
    if lost > 0 || seen.is_empty() {
        bail!("{lost} of {} WebSockets were closed, {} changes", size.sockets, seen.len());
    }
    Ok(())
}

fn run(size: Size) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(show(size)).unwrap();
}

#[test]
fn changes_of_some_of_many_apps_disturb_nobody() {
    run(Size { apps: 2_000, sockets: 50, clients: 16, per_second: 100, time: Duration::from_secs(5) });
}

#[test]
#[ignore = "a minute, and a release build to be of use: --ignored --nocapture"]
fn fifty_thousand_apps_and_a_hundred_changes_a_second() {
    run(Size { apps: 50_000, sockets: 1_000, clients: 64, per_second: 100, time: Duration::from_secs(20) });
}
