//! groove-http while things change under it: drains, reloads, servers that die and come back, heavy clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use harness::{App, Kind, Nginx, PATIENCE, Proxy, Signal, http};

const CLIENTS: usize = 16;

const TWO_SERVERS: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 20s
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$ONE, $TWO]
    health: {probe: {interval: 100ms, timeout: 100ms}}
";

/// Clients that ask on kept connections, one request after the other.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// A client reconnects when the proxy says goodbye or closes between two exchanges; when it can no longer connect,
    /// it ends. A request that was begun and is not answered by 200 is an error.
    fn start(address: SocketAddr) -> Self {
        let (stop, good) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..CLIENTS)
            .map(|index| {
                let (stop, good) = (Arc::clone(&stop), Arc::clone(&good));
                std::thread::spawn(move || {
                    while let Ok(stream) = TcpStream::connect(address) {
                        session(stream, index, &stop, &good)?;
                        if stop.load(Ordering::Acquire) {
                            break;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        Self { stop, good, clients }
    }

    fn good(&self) -> usize {
        self.good.load(Ordering::Relaxed)
    }

    /// Waits for as many more good answers.
    fn more(&self, count: usize) {
        let before = self.good();
        harness::eventually("answers", || (self.good() >= before + count).then_some(())).unwrap();
    }

    fn finish(self) -> Result<usize> {
        self.stop.store(true, Ordering::Release);
        for client in self.clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(self.good.load(Ordering::Relaxed))
    }
}

fn session(mut stream: TcpStream, index: usize, stop: &AtomicBool, good: &AtomicUsize) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let body = "x".repeat(index * 100);
    let sent = match index % 2 {
        0 => "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".to_owned(),
        _ => format!("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
    };
    while !stop.load(Ordering::Acquire) {
        if stream.write_all(sent.as_bytes()).is_err() {
            // Closed between two exchanges.
            return Ok(());
        }
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"done\n") {
            match stream.read(&mut part) {
                Ok(0) if answer.is_empty() => return Ok(()),
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(error) if answer.is_empty() && error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Ok(());
                }
                Err(error) => return Err(error).context("in the midst of a reply"),
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done\n"), "answered by {answer:?}");
        good.fetch_add(1, Ordering::Relaxed);
        if answer.contains("\r\nConnection: close\r\n") {
            return Ok(());
        }
    }
    Ok(())
}

fn server() -> Nginx {
    Nginx::serving(1, "location / { client_max_body_size 100m; return 200 'done\\n'; }").unwrap()
}

fn two_servers(one: SocketAddr, two: SocketAddr) -> Proxy {
    Proxy::of(Kind::Http).config(TWO_SERVERS).set("ONE", one).set("TWO", two).start().unwrap()
}

#[test]
fn a_drain_under_load_fails_no_exchange_that_has_begun() {
    let (one, two) = (server(), server());
    let mut proxy = two_servers(one.address(), two.address());
    let load = Load::start(proxy.address());
    let idle = TcpStream::connect(proxy.address()).unwrap();
    load.more(500);
    proxy.signal(Signal::TERM).unwrap();
    assert!(proxy.exit(Duration::from_secs(10)).unwrap().success());
    load.finish().unwrap();
    drop(idle);
}

#[test]
fn an_exchange_that_has_begun_is_finished_by_a_draining_proxy() {
    let app = App::start(|_| async move {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        ::http::Response::new(Bytes::from_static(b"slow"))
    })
    .unwrap();
    let mut proxy = two_servers(
        app.address(),
        app.address().to_string().replace("127.0.0.1", "127.0.0.2").parse().unwrap(),
    );
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    harness::eventually("the request at the app", || (!app.received().is_empty()).then_some(())).unwrap();
    proxy.signal(Signal::TERM).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("slow"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert!(proxy.exit(Duration::from_secs(5)).unwrap().success());
}

#[test]
fn a_bad_reload_under_load_drops_nothing_and_a_good_one_moves_routes() {
    let (one, two) = (server(), server());
    let other = App::saying("other").unwrap();
    let mut proxy = two_servers(one.address(), two.address());
    proxy.set("OTHER", other.address());
    let load = Load::start(proxy.address());
    load.more(200);
    let mark = proxy.log().mark();
    proxy.rewrite(&TWO_SERVERS.replace("endpoints", "endpionts")).unwrap();
    proxy.signal(Signal::HUP).unwrap();
    proxy.log().after(mark, "endpionts").unwrap();
    load.more(500);
    let good = format!("{TWO_SERVERS}  other: {{hosts: [other.test], endpoints: [$OTHER]}}\n");
    proxy.rewrite(&good).unwrap();
    proxy.signal(Signal::HUP).unwrap();
    harness::eventually("the new route", || {
        let asked = ::http::Request::get("/").header("host", "other.test").body(Bytes::new()).unwrap();
        (http::send(proxy.address(), asked).unwrap().text() == "other").then_some(())
    })
    .unwrap();
    load.more(500);
    load.finish().unwrap();
    assert_eq!(
        proxy.metrics().unwrap().sum("groove_http_requests_total", &[("class", "5xx")]).unwrap_or(0.0),
        0.0
    );
}

#[test]
fn a_server_that_dies_costs_no_request_that_can_be_sent_again_and_comes_back() {
    let echo = |asked: harness::Received| async move { http::echo(&asked) };
    let (mut one, two) = (App::start(echo).unwrap(), App::start(echo).unwrap());
    let proxy = two_servers(one.address(), two.address());
    let ask = || {
        let asked = ::http::Request::get("/").header("host", "shop.test").body(Bytes::new()).unwrap();
        http::send(proxy.address(), asked).unwrap().status.as_u16()
    };
    for _ in 0..50 {
        assert_eq!(ask(), 200);
    }
    assert!(!one.received().is_empty() && !two.received().is_empty(), "both had some");
    one.crash();
    for _ in 0..200 {
        assert_eq!(ask(), 200);
    }
    let before = one.received().len();
    one.resume().unwrap();
    harness::eventually("a request at the server that came back", || {
        assert_eq!(ask(), 200);
        (one.received().len() > before).then_some(())
    })
    .unwrap();
}

#[test]
fn no_server_at_all_is_a_502_or_503_and_not_a_hang() {
    let mut app = App::saying("ok").unwrap();
    let proxy = two_servers(
        app.address(),
        app.address().to_string().replace("127.0.0.1", "127.0.0.2").parse().unwrap(),
    );
    app.crash();
    for _ in 0..20 {
        let asked = ::http::Request::get("/").header("host", "shop.test").body(Bytes::new()).unwrap();
        let status = http::send(proxy.address(), asked).unwrap().status.as_u16();
        assert!(matches!(status, 502 | 503), "{status}");
    }
}

#[test]
fn wrk_sees_no_error_with_get_and_post() {
    let (one, two) = (server(), server());
    let proxy = two_servers(one.address(), two.address());
    let folder = tempfile::TempDir::new().unwrap();
    let post = folder.path().join("post.lua");
    std::fs::write(&post, "wrk.method = 'POST'\nwrk.body = string.rep('x', 1024)\n").unwrap();
    for script in [None, Some(&post)] {
        let mut wrk = Command::new("wrk");
        wrk.args(["-t2", "-c64", "-d3s", "-H", "Host: shop.test"]);
        if let Some(script) = script {
            wrk.arg("-s").arg(script);
        }
        wrk.arg(format!("http://{}/", proxy.address()));
        let output = harness::run(&mut wrk).unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("requests in"), "{said}");
        assert!(!said.contains("Non-2xx") && !said.contains("Socket errors"), "{said}");
    }
    let metrics = proxy.metrics().unwrap();
    assert!(
        metrics.sum("groove_http_requests_total", &[("app", "shop"), ("class", "2xx")]).unwrap() > 1000.0
    );
    // wrk hangs up with requests under way; their ends are told a moment later.
    harness::eventually("nothing in flight", || {
        proxy.metrics().ok()?.sum("groove_http_in_flight", &[]).filter(|in_flight| *in_flight == 0.0)
    })
    .unwrap();
}
