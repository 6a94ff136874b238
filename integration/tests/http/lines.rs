//! A queue's refusals: how long to stay away, and no endpoint's sessions take all of the line. Also what a new session is
//! told with a 101, and what Via says of a request's version.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use harness::{App, Kind, PATIENCE, Proxy, Scripted, eventually, paths};
use tokio::sync::Semaphore;

use super::fleet::{Client, Fleet, ok};
use super::{proxy_to, read_until};

const STRICT: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    health: {probe: null}
    affinity: {by: {header: X-Session}, mode: strict}
    concurrency: {hard: 1}
    queue: {max: $MAX, max_per_endpoint: 3}
";

fn waiting(proxy: &Proxy, count: usize) {
    let seen = || proxy.metrics().unwrap().sum("groove_http_queue_waiting", &[]) == Some(count as f64);
    eventually(&format!("{count} wait"), || seen().then_some(())).unwrap();
}

fn asks(session: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: shop.test\r\nX-Session: {session}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_line_of_one_endpoint_has_an_end_and_others_still_get_in() {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let fleet = Fleet::start(2, move |server, _| {
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.unwrap().forget();
            ok(&server.index.to_string())
        }
    })
    .unwrap();
    let config = Proxy::of(Kind::Http).config(STRICT).set("APPS", fleet.addresses()).set("MAX", 100);
    let proxy = config.start().unwrap();
    // One is served and three wait: no more of this session.
    let mut clients = Vec::new();
    for number in 0..4 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&asks("a")).await.unwrap();
        clients.push(client);
        if number > 0 {
            waiting(&proxy, number);
        }
    }
    let mut more = Client::connect(proxy.address()).await.unwrap();
    let refused = more.ask(&asks("a")).await.unwrap();
    assert_eq!((refused.status(), refused.header("x-groove-code")), (503, Some("H11")));
    assert!(refused.header("retry-after").is_some_and(|after| after.parse::<u64>().is_ok()));
    let metrics = proxy.metrics().unwrap();
    assert_eq!(metrics.sum("groove_http_queue_refused_total", &[("reason", "endpoint")]), Some(1.0));
    // A session of the other server waits for nobody; nor does who belongs nowhere.
    let busy =
        fleet.servers.iter().position(|it| it.in_flight.load(std::sync::atomic::Ordering::SeqCst) == 1);
    let other = 1 - busy.unwrap();
    gate.add_permits(100);
    for client in &mut clients {
        assert_eq!(client.reply().await.unwrap().text(), busy.unwrap().to_string());
    }
    let mut found = None;
    for session in 0..40 {
        let home = more.ask(&asks(&format!("s{session}"))).await.unwrap().text();
        found = found.or((home == other.to_string()).then_some(session));
    }
    assert!(found.is_some(), "some session lives at the other server");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_how_long_the_line_takes() {
    // Five a second.
    let fleet = Fleet::start(1, |_, _| async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ok("ok")
    })
    .unwrap();
    let config = STRICT.replace("affinity: {by: {header: X-Session}, mode: strict}", "balance: p2c");
    let config = config.replace(", max_per_endpoint: 3", "");
    let config = Proxy::of(Kind::Http).config(&config).set("APPS", fleet.addresses()).set("MAX", 20);
    let proxy = config.start().unwrap();
    let address = proxy.address();
    // The line is kept full for three seconds: it takes four to its end.
    let load: Vec<_> = (0..30)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await.unwrap();
                let until = std::time::Instant::now() + Duration::from_secs(3);
                while std::time::Instant::now() < until {
                    if client.ask(&asks("a")).await.unwrap().status() == 503 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut client = Client::connect(address).await.unwrap();
    let refused = client.ask(&asks("a")).await.unwrap();
    assert_eq!(refused.status(), 503);
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((3..=7).contains(&after), "{after} seconds, where four are what it takes");
    for client in load {
        client.await.unwrap();
    }
}

#[test]
fn a_new_session_is_told_its_home_with_a_101_too() {
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        let _left = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nSet-Cookie: own=1\r\n\r\n",
        );
        let _until = stream.read(&mut [0; 16]);
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    health: {probe: null}
    affinity: {by: {cookie: {name: home, generate: true, secret: 0123456789abcdef}}}
    response_headers: {set: {X-Edited: 'yes'}}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let switch = |cookie: &str| {
        let mut client = TcpStream::connect(proxy.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let upgrade = "Connection: Upgrade\r\nUpgrade: echo";
        write!(client, "GET / HTTP/1.1\r\nHost: shop.test\r\n{upgrade}\r\n{cookie}\r\n").unwrap();
        read_until(&mut client, "\r\n\r\n").unwrap()
    };
    let first = switch("");
    assert!(first.starts_with("HTTP/1.1 101 ") && first.contains("Set-Cookie: own=1\r\n"), "{first}");
    assert!(!first.contains("X-Edited"), "{first}");
    let cookie = first.lines().find_map(|line| line.strip_prefix("Set-Cookie: home=")).expect("a home");
    let cookie = cookie.split(';').next().unwrap();
    // Who comes back with it is told nothing new.
    let second = switch(&format!("Cookie: home={cookie}\r\n"));
    assert!(second.starts_with("HTTP/1.1 101 ") && !second.contains("home="), "{second}");
}

#[test]
fn via_says_in_which_version_a_request_came() {
    let app = App::saying("ok").unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    for version in ["--http1.0", "--http1.1", "--http2-prior-knowledge"] {
        let mut command = Command::new(paths::program("curl").unwrap());
        command.args(["-sS", "--max-time", "10", version, "-H", "Host: shop.test"]);
        let output = harness::run(command.arg(format!("http://{}/", proxy.address()))).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let seen: Vec<_> =
        app.received().iter().map(|it| it.headers()["via"].to_str().unwrap().to_owned()).collect();
    assert_eq!(seen, ["1.0 groove", "1.1 groove", "2.0 groove"]);
}
