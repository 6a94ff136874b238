//! Clients that are slow on purpose, and those beside them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{App, Kind, Proxy, Scripted, http, paths, run};

use super::{ONE_APP, read_until, request};

/// What a bystander may wait for one answer: far more than any takes, far less than an attack lasts.
const UNNOTICED: Duration = Duration::from_secs(4);

#[test]
fn slow_heads_bodies_and_readers_are_noticed_by_nobody() {
    attack("");
}

#[test]
fn slow_clients_are_let_go_where_there_is_a_least_rate() {
    let cut = attack("limits: {min_rate: {rate: 1KiB, grace: 1s}}\n");
    assert!(cut[0] >= 150.0 && cut[1] >= 150.0 && cut[2] >= 40.0, "of 200, 200 and 50: {cut:?}");
}

/// slowhttptest in its three modes, with a client beside it that must not notice. How many slow clients were cut in each.
fn attack(limits: &str) -> Vec<f64> {
    // The large one is more than the kernel takes for a client that reads nothing.
    let (page, large) = (Bytes::from(vec![b'x'; 200_000]), Bytes::from(vec![b'x'; 16 << 20]));
    let app = App::start(move |asked| {
        let body = if asked.uri().path() == "/large" { large.clone() } else { page.clone() };
        async { ::http::Response::new(body) }
    })
    .unwrap();
    let config = format!("timeouts: {{head: 2s}}\n{limits}{ONE_APP}");
    // The tool knows addresses, not apps.
    let config = config.replace("hosts: [shop.test]", "hosts: ['*']");
    let proxy = Proxy::of(Kind::Http).config(&config).set("APP", app.address()).start().unwrap();
    let slow = || proxy.metrics().unwrap().sum("groove_http_codes_total", &[("code", "H28")]).unwrap();
    let mut cuts = Vec::new();
    let url = format!("http://{}/", proxy.address());
    for (mode, path, what) in [
        (&["-H", "-c", "200", "-i", "1"][..], "", "heads"),
        (&["-B", "-c", "200", "-i", "1", "-s", "100000"], "", "bodies"),
        (&["-X", "-c", "50", "-n", "1", "-w", "10", "-y", "20", "-z", "8"], "large", "readers"),
    ] {
        let before = slow();
        let (stop, worst) = (AtomicBool::new(false), std::sync::Mutex::new((0, Duration::ZERO)));
        let output = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let answer = http::send(proxy.address(), request("shop.test", "/")).unwrap();
                    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 200_000), "{what}");
                    let mut seen = worst.lock().unwrap();
                    *seen = (seen.0 + 1, seen.1.max(begun.elapsed()));
                }
            });
            let mut command = Command::new(paths::program("slowhttptest").unwrap());
            command.args(mode).args(["-r", "100", "-l", "6", "-p", "2", "-u"]).arg(format!("{url}{path}"));
            let output = run(&mut command);
            stop.store(true, Ordering::Relaxed);
            output.unwrap()
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (count, worst) = *worst.lock().unwrap();
        assert!(count > 20 && worst < UNNOTICED, "{what}: {count} answers, the slowest in {worst:?}\n{said}");
        cuts.push(slow() - before);
        eprintln!("{what}: {count} answers, the slowest in {worst:?}; {cuts:?} slow clients cut so far");
    }
    cuts
}

#[test]
fn a_body_and_a_reader_below_the_least_rate_are_cut_and_one_above_it_is_not() {
    let app = Scripted::start(|_, mut stream| {
        let head = read_until(&mut stream, "\r\n\r\n").unwrap_or_default();
        if head.starts_with("GET") {
            let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
            let block = vec![b'x'; 1 << 20];
            while stream.write_all(&block).is_ok() {}
        } else if !head.is_empty() {
            let mut body = [0; 60];
            let _all = stream.read_exact(&mut body);
            // The server's own time is nobody's fault.
            std::thread::sleep(Duration::from_millis(1500));
            let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
    .unwrap();
    let config =
        format!("limits: {{min_rate: {{rate: 100B, grace: 1s}}}}{ONE_APP}    health: {{probe: null}}\n");
    let proxy = Proxy::of(Kind::Http).config(&config).set("APP", app.address()).start().unwrap();
    let send = |bytes: &[u8], pause: Duration| {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream
            .write_all(
                b"POST / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 60\r\n\r\n",
            )
            .unwrap();
        for part in bytes.chunks(10) {
            std::thread::sleep(pause);
            if stream.write_all(part).is_err() {
                break;
            }
        }
        read_until(&mut stream, "").unwrap_or_default()
    };
    // 10 bytes each 50 ms are 200 a second, each 400 ms are 25.
    let fast = send(&[b'a'; 60], Duration::from_millis(50));
    assert!(fast.starts_with("HTTP/1.1 200 "), "{fast}");
    let slow = send(&[b'a'; 60], Duration::from_millis(400));
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.contains("\r\nX-Groove-Code: H28\r\n"), "{slow}");

    let mut reader = TcpStream::connect(proxy.address()).unwrap();
    reader.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    let mut first = [0; 10];
    reader.read_exact(&mut first).unwrap();
    let cut = || {
        (proxy.metrics().ok()?.sum("groove_http_codes_total", &[("code", "H28")]) == Some(2.0)).then_some(())
    };
    harness::eventually("the end of a reader that takes nothing", cut).unwrap();
}
