//! Compressed replies, as curl and a browser's words for it see them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{App, Kind, PATIENCE, Proxy, Scripted, eventually, http};

use super::request;

const COMPRESSING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
$TOP
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    health: {probe: null}
    compression: {$RULES}
    routes:
      - {match: {path: /plain}, compression: {enabled: false}}
      - {match: {path: /said}, respond: {status: 200, headers: {Content-Type: text/plain}, body: $BODY}}
";

fn compressing(app: SocketAddr, top: &str, rules: &str) -> Proxy {
    let proxy = Proxy::of(Kind::Http).config(COMPRESSING).set("APP", app).set("TOP", top);
    proxy.set("RULES", rules).set("BODY", "words ".repeat(500)).start().unwrap()
}

/// Text that no coding makes much of, and text that each does.
fn pages() -> App {
    App::start(|asked| async move {
        let body = match asked.uri().path() {
            "/long" => "lorem ipsum dolor sit amet ".repeat(200_000),
            _ => "lorem ipsum dolor sit amet ".repeat(200),
        };
        let reply = ::http::Response::builder().header("content-type", "text/html").header("etag", "\"1\"");
        reply.body(Bytes::from(body)).unwrap()
    })
    .unwrap()
}

fn curl(proxy: &Proxy, arguments: &[&str], path: &str) -> Vec<u8> {
    let url = format!("http://{}{path}", proxy.address());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "-H", "Host: shop.test"]).args(arguments).arg(url);
    let output = harness::run(&mut command).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn asking(proxy: &Proxy, path: &str, accepts: &str) -> http::Response {
    let mut asked = request("shop.test", path);
    asked.headers_mut().insert("accept-encoding", accepts.parse().unwrap());
    http::send(proxy.address(), asked).unwrap()
}

#[test]
fn curl_reads_what_is_compressed_over_both_versions() {
    let app = pages();
    let proxy = compressing(app.address(), "", "min_length: 1KiB");
    let plain = curl(&proxy, &[], "/");
    assert_eq!(plain.len(), 200 * 27);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let whole = curl(&proxy, &[version, "--compressed"], "/long");
        assert_eq!(whole.len(), 200_000 * 27, "{version}");
        let gzip = ["-H", "Accept-Encoding: gzip", version, "-D", "-", "-o", "/dev/null"];
        let head = String::from_utf8(curl(&proxy, &gzip, "/")).unwrap().to_ascii_lowercase();
        for line in ["content-encoding: gzip\r\n", "vary: accept-encoding\r\n", "etag: w/\"1\"\r\n"] {
            assert!(head.contains(line), "{version}: {head}");
        }
        assert!(!head.contains("content-length"), "{version}: {head}");
        // HEAD tells what GET would.
        let head =
            String::from_utf8(curl(&proxy, &[version, "-I", "-H", "Accept-Encoding: gzip"], "/")).unwrap();
        assert!(head.to_ascii_lowercase().contains("content-encoding: gzip\r\n"), "{version}: {head}");
    }
    for (accepts, coding) in
        [("gzip", "gzip"), ("br, gzip;q=0.9", "br"), ("gzip, br, zstd", "zstd"), ("*;q=0", "")]
    {
        assert_eq!(asking(&proxy, "/", accepts).header("content-encoding"), coding, "{accepts}");
    }
    let (plain, said) = (asking(&proxy, "/plain", "gzip"), asking(&proxy, "/said", "gzip"));
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", ""));
    assert_eq!(
        (said.header("content-encoding"), said.body.len()),
        ("", 2999),
        "what is ours is not compressed"
    );
    let metrics = proxy.metrics().unwrap();
    let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).unwrap_or_default();
    assert!(sum("groove_http_compressed_total", &[("app", "shop"), ("encoding", "gzip")]) >= 3.0);
    let (before, after) = (
        sum("groove_http_compression_bytes_total", &[("direction", "in")]),
        sum("groove_http_compression_bytes_total", &[("direction", "out")]),
    );
    assert!(before > 10e6 && after > 100.0 && after < before / 20.0, "{before} to {after}");
}

#[test]
fn events_arrive_as_they_are_made() {
    let (go, may_go) = mpsc::channel::<()>();
    let may_go = std::sync::Mutex::new(may_go);
    let app = Scripted::start(move |_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        for number in 1..=3 {
            let event = format!("data: {number}\n\n");
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).unwrap();
            // Not before the client has it.
            may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    })
    .unwrap();
    let proxy = compressing(app.address(), "", "codings: [gzip]");
    let mut child = Command::new("curl")
        .args(["-sSN", "--compressed", "--max-time", "20", "-H", "Host: shop.test"])
        .arg(format!("http://{}/", proxy.address()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    for number in 1..=3 {
        let mut event = [0; 9];
        out.read_exact(&mut event).unwrap();
        assert_eq!(&event, format!("data: {number}\n\n").as_bytes());
        go.send(()).unwrap();
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_slow_reader_holds_its_server_back_and_others_have_their_turn() {
    // Of sixteen letters by chance: hard work for who compresses it, and half of it is left.
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let app = Scripted::start(move |_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (mut state, mut left) = (1_u64, stream.write_all(head.as_bytes()));
        while left.is_ok() {
            let mut part = Vec::with_capacity(64 << 10);
            while part.len() < 64 << 10 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                part.extend(state.to_le_bytes().map(|byte| b'a' + (byte & 15)));
            }
            left = stream.write_all(&[b"10000\r\n", &part[..], b"\r\n"].concat());
            counted.fetch_add(part.len(), Ordering::SeqCst);
        }
    })
    .unwrap();
    let proxy = compressing(app.address(), "workers: 1\nlimits: {buffer: 64KiB}", "codings: [gzip], gzip: 9");
    let before = proxy.usage().unwrap().resident_bytes;
    let mut slow = TcpStream::connect(proxy.address()).unwrap();
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    let mut first = [0; 15];
    slow.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    // It reads no more, and its server can send no more.
    let (mut last, mut looks) = (0, 0);
    eventually("the server is held back", || {
        let now = sent.load(Ordering::SeqCst);
        looks = if now == last { looks + 1 } else { 0 };
        last = now;
        (looks > 20).then_some(())
    })
    .unwrap();
    let held = proxy.usage().unwrap().resident_bytes;
    assert!(held < before + (16 << 20), "{held} after {before}");
    // One that reads as fast as it can keeps its worker busy, and others still have their turn.
    let mut fast = TcpStream::connect(proxy.address()).unwrap();
    fast.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nAccept-Encoding: gzip\r\n\r\n").unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let reader = std::thread::spawn(move || {
        let (mut part, mut count) = (vec![0; 1 << 20], 1);
        while count > 0 && !over.load(Ordering::SeqCst) {
            count = fast.read(&mut part).unwrap_or_default();
        }
    });
    // Without turns each would wait for as much as a task may read before others run at all: many seconds.
    let begun = Instant::now();
    for _ in 0..5 {
        assert_eq!(asking(&proxy, "/said", "gzip").status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(12), "five requests took {:?}", begun.elapsed());
    is_over.store(true, Ordering::SeqCst);
    reader.join().unwrap();
}

#[test]
fn no_more_are_compressed_at_once_than_may_be() {
    let app = pages();
    let proxy = compressing(app.address(), "limits: {compressing: 0}", "");
    let answer = asking(&proxy, "/", "gzip");
    assert_eq!((answer.header("content-encoding"), answer.header("vary")), ("", "Accept-Encoding"));
    assert_eq!(answer.body.len(), 200 * 27);
    let skipped = proxy.metrics().unwrap().sum("groove_http_compression_skipped_total", &[("app", "shop")]);
    assert_eq!(skipped, Some(1.0));
}
