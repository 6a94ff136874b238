//! Copies of requests: what arrives where, and that nobody who asks waits for them or hears of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use bytes::Bytes;
use harness::{App, Kind, PATIENCE, Proxy, Scripted, eventually, http};

use super::{read_until, request};

const MIRRORED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    health: {probe: null}
    clusters:
      shadow: {endpoints: [$SHADOW], health: {probe: null}, $MORE}
    routes:
      - match: {path: /*}
        rewrite: {prefix: /v2}
        request_headers: {set: {X-Team: a}}
        mirror: {cluster: shadow, $RULE}
";

fn mirrored(app: SocketAddr, shadow: SocketAddr, rule: &str, more: &str) -> Proxy {
    let proxy = Proxy::of(Kind::Http).config(MIRRORED).set("APP", app).set("SHADOW", shadow);
    proxy.set("RULE", rule).set("MORE", more).start().unwrap()
}

fn counted(proxy: &Proxy, reason: Option<&str>, count: usize) {
    let seen = || {
        let metrics = proxy.metrics().unwrap();
        let sum = match reason {
            None => metrics.sum("groove_http_mirror_requests_total", &[("cluster", "shop/shadow")]),
            Some(reason) => metrics.sum("groove_http_mirror_dropped_total", &[("reason", reason)]),
        };
        (sum == Some(count as f64)).then_some(())
    };
    eventually(&format!("{count} mirrors, {reason:?}"), seen).unwrap();
}

/// Until a request is under way, though its body is still to come.
fn begun(proxy: &Proxy) {
    eventually("it is begun", || {
        let metrics = proxy.metrics().unwrap();
        (metrics.sum("groove_http_in_flight", &[("app", "shop")]) == Some(1.0)).then_some(())
    })
    .unwrap();
}

#[test]
fn a_copy_is_what_the_app_gets_body_and_all() {
    let app = App::saying("main").unwrap();
    let shadow = App::saying("a reply that nobody reads").unwrap();
    let proxy = mirrored(app.address(), shadow.address(), "percent: 100", "balance: p2c");
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let bodies =
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"];
    for (number, body) in bodies.into_iter().enumerate() {
        // In pieces, so that the body comes after the head.
        let (head, body) = body.split_once("\r\n\r\n").unwrap();
        write!(client, "POST /a?b HTTP/1.1\r\nHost: shop.test\r\n{head}\r\n\r\n").unwrap();
        begun(&proxy);
        for piece in body.as_bytes().chunks(4) {
            client.write_all(piece).unwrap();
            client.flush().unwrap();
        }
        assert!(read_until(&mut client, "main").unwrap().starts_with("HTTP/1.1 200 "));
        // Copies overtake each other, and each that is under way has a connection.
        counted(&proxy, None, number + 1);
    }
    client.write_all(b"HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").unwrap().starts_with("HTTP/1.1 200 "));
    counted(&proxy, None, 3);
    let (main, copied) = (app.received(), shadow.received());
    assert_eq!((main.len(), copied.len()), (3, 3));
    for (main, copy) in main.iter().zip(&copied) {
        assert_eq!((main.method(), main.uri(), main.body()), (copy.method(), copy.uri(), copy.body()));
        assert_eq!(main.headers(), copy.headers());
    }
    assert_eq!((copied[0].uri().path(), &copied[0].body()[..]), ("/v2/a", &b"hello"[..]));
    assert_eq!(shadow.connections(), 1, "its connection stays");
    let counts = proxy.metrics().unwrap();
    assert_eq!(
        counts.sum("groove_http_requests_total", &[("app", "shop")]),
        Some(3.0),
        "a copy is no request"
    );
}

#[test]
fn a_copy_is_marked_where_that_is_wanted() {
    let (app, shadow) = (App::saying("main").unwrap(), App::saying("").unwrap());
    let proxy = mirrored(app.address(), shadow.address(), "shadow_host: true", "balance: p2c");
    http::send(proxy.address(), request("shop.test:80", "/")).unwrap();
    counted(&proxy, None, 1);
    assert_eq!(shadow.received()[0].headers()["host"], "shop.test-shadow:80");
    assert_eq!(app.received()[0].headers()["host"], "shop.test:80");
}

#[test]
fn nobody_waits_for_a_shadow_that_hangs_and_copies_are_bounded() {
    let app = App::saying("main").unwrap();
    // It reads all that comes and never answers.
    let shadow =
        Scripted::start(|_, mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {})
            .unwrap();
    let rule = "in_flight: 3, timeout: 1s";
    let proxy = mirrored(app.address(), shadow.address(), rule, "balance: p2c");
    let begun = Instant::now();
    for _ in 0..10 {
        let answer = http::send(proxy.address(), request("shop.test", "/")).unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "main"));
    }
    assert!(begun.elapsed().as_millis() < 1000, "ten requests took {:?}", begun.elapsed());
    counted(&proxy, Some("in_flight"), 7);
    counted(&proxy, Some("timeout"), 3);
    http::send(proxy.address(), request("shop.test", "/")).unwrap();
    counted(&proxy, Some("timeout"), 4);
    proxy.log().expect("copies of requests are dropped").unwrap();
}

#[test]
fn what_fails_of_a_copy_fails_nothing_else() {
    let app = App::saying("main").unwrap();
    let mut shadow = App::saying("").unwrap();
    let proxy = mirrored(app.address(), shadow.address(), "body: 1KiB", "balance: p2c");
    let ask = |body: usize| {
        let request = ::http::Request::post("/").header("host", "shop.test");
        http::send(proxy.address(), request.body(Bytes::from(vec![b'x'; body])).unwrap()).unwrap()
    };
    assert_eq!(ask(1024).text(), "main");
    counted(&proxy, None, 1);
    assert_eq!(ask(1025).text(), "main", "only its copy is too long");
    assert_eq!(ask(500_000).text(), "main");
    counted(&proxy, Some("body"), 2);
    assert_eq!(app.received()[2].body().len(), 500_000);
    shadow.crash();
    assert_eq!(ask(1).text(), "main");
    counted(&proxy, Some("failed"), 1);
    // A client that leaves in the midst of its body has no copy.
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    begun(&proxy);
    drop(client);
    counted(&proxy, Some("incomplete"), 1);
}

#[test]
fn a_copy_keeps_to_the_bounds_of_its_cluster_and_its_share() {
    let (app, shadow) = (App::saying("main").unwrap(), App::saying("").unwrap());
    let proxy = mirrored(app.address(), shadow.address(), "percent: 30", "concurrency: {hard: 100}");
    for _ in 0..400 {
        http::send(proxy.address(), request("shop.test", "/")).unwrap();
    }
    eventually("copies arrive", || (shadow.received().len() >= 60).then_some(())).unwrap();
    // Four standard deviations around 120.
    assert!((83..=157).contains(&shadow.received().len()), "{} of 400", shadow.received().len());

    let held =
        Scripted::start(|_, mut stream| while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {})
            .unwrap();
    let proxy = mirrored(app.address(), held.address(), "timeout: 30s", "concurrency: {hard: 1}");
    for _ in 0..3 {
        http::send(proxy.address(), request("shop.test", "/")).unwrap();
    }
    counted(&proxy, Some("no_endpoint"), 2);
    assert_eq!(held.accepted(), 1, "never two at once, and none in its queue");
}
