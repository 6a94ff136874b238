//! groove-http between real clients and real servers: routing, edits, framing, upgrades, TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use harness::{App, Authority, Kind, Nginx, PATIENCE, Proxy, Scripted, http};

const ONE_APP: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
";

fn proxy_to(app: SocketAddr) -> Result<Proxy> {
    Proxy::of(Kind::Http).config(ONE_APP).set("APP", app).start()
}

/// Sends bytes, keeps the connection open, and reads until `end` stands at the end or the proxy closes.
fn talk(address: SocketAddr, bytes: &[u8], end: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    read_until(&mut stream, end)
}

fn read_until(stream: &mut TcpStream, end: &str) -> Result<String> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => return Err(error).context(String::from_utf8_lossy(&answer).into_owned()),
        }
        if !end.is_empty() && answer.ends_with(end.as_bytes()) {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn closed(stream: &mut TcpStream) -> bool {
    matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_))
}

fn request(host: &str, path: &str) -> ::http::Request<Bytes> {
    ::http::Request::get(path).header("host", host).body(Bytes::new()).unwrap()
}

#[test]
fn requests_are_routed_by_host_path_and_method() {
    let (own, api, writes, wild, rest) = (
        App::saying("own").unwrap(),
        App::saying("api").unwrap(),
        App::saying("writes").unwrap(),
        App::saying("wild").unwrap(),
        App::saying("rest").unwrap(),
    );
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$OWN]
    clusters:
      api: {endpoints: [$API]}
      writes: {endpoints: [$WRITES]}
    routes:
      - {match: {path: /api/*}, cluster: api}
      - {match: {path: /api/*, methods: [POST]}, cluster: writes}
  wild: {hosts: ['*.shop.test'], endpoints: [$WILD]}
  rest: {hosts: ['*'], endpoints: [$REST]}
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .set("OWN", own.address())
        .set("API", api.address())
        .set("WRITES", writes.address())
        .set("WILD", wild.address())
        .set("REST", rest.address())
        .start()
        .unwrap();
    let ask = |method: &str, host: &str, path: &str| {
        let request = ::http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .body(Bytes::new())
            .unwrap();
        http::send(proxy.address(), request).unwrap().text()
    };
    assert_eq!(ask("GET", "shop.test", "/"), "own");
    assert_eq!(ask("GET", "SHOP.test:8080", "/apix"), "own");
    assert_eq!(ask("GET", "shop.test", "/api"), "api");
    assert_eq!(ask("GET", "shop.test", "/api/x?y"), "api");
    assert_eq!(ask("POST", "shop.test", "/api/x"), "writes");
    assert_eq!(ask("GET", "a.b.shop.test", "/"), "wild");
    assert_eq!(ask("GET", "elsewhere.test", "/"), "rest");
}

#[test]
fn headers_are_edited_and_the_app_learns_who_asks() {
    let app = App::start(|_| async move {
        ::http::Response::builder()
            .header("x-internal", "secret")
            .header("x-kept", "1")
            .body(Bytes::from_static(b"ok"))
            .unwrap()
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    request_headers: {set: {X-Team: a}, add: {X-More: b}, remove: [X-Debug]}
    response_headers: {set: {X-Frame-Options: DENY}, remove: [X-Internal]}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let mut asked = request("shop.test", "/");
    for (name, value) in
        [("x-team", "mine"), ("x-debug", "1"), ("x-forwarded-for", "6.6.6.6"), ("x-request-id", "mine")]
    {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = http::send(proxy.address(), asked).unwrap();
    assert_eq!(
        (answer.header("x-frame-options"), answer.header("x-internal"), answer.header("x-kept")),
        ("DENY", "", "1")
    );
    let seen = &app.received()[0];
    let header = |name: &str| seen.headers().get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!((header("x-team"), header("x-more"), header("x-debug")), ("a", "b", ""));
    assert_eq!(
        (header("x-forwarded-for"), header("x-forwarded-proto"), header("x-forwarded-host")),
        ("127.0.0.1", "http", "shop.test")
    );
    assert_eq!((header("via"), header("x-request-id").len()), ("1.1 groove", 32));
}

#[test]
fn identity_of_trusted_peers_is_kept() {
    let app = App::saying("ok").unwrap();
    let proxy = Proxy::of(Kind::Http)
        .config(&format!("trusted: [127.0.0.0/8]\nvia: null{ONE_APP}"))
        .set("APP", app.address())
        .start()
        .unwrap();
    let mut asked = request("shop.test", "/");
    for (name, value) in
        [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"), ("x-request-id", "mine")]
    {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    http::send(proxy.address(), asked).unwrap();
    let seen = &app.received()[0];
    let header = |name: &str| seen.headers().get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("x-forwarded-for"), "6.6.6.6, 127.0.0.1");
    assert_eq!((header("x-forwarded-proto"), header("x-request-id"), header("via")), ("https", "mine", ""));
}

#[test]
fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let app = App::start(|asked| async move { http::echo(&asked) }).unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut sent = String::new();
    for index in 0..20 {
        sent.push_str(&format!("POST /{index} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\nabc"));
    }
    sent.push_str("GET /last HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n");
    let answer = talk(proxy.address(), sent.as_bytes(), "").unwrap();
    let places: Vec<_> =
        (0..20).map(|index| answer.find(&format!("POST /{index} 3")).expect("an answer")).collect();
    assert!(places.is_sorted(), "{places:?}");
    assert!(answer.ends_with("GET /last 0"), "{answer}");
    assert_eq!(app.connections(), 1, "one connection to the app serves them all");
}

#[test]
fn malformed_requests_are_refused_and_never_reach_the_app() {
    let app = App::saying("reached").unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let post = "POST / HTTP/1.1\r\nHost: shop.test\r\n";
    let get = "GET / HTTP/1.1\r\nHost: shop.test\r\n";
    let cases = [
        (format!("{post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: five\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 99999999999999999999\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"), 400),
        ("POST / HTTP/1.0\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        (format!("{get}X: a\r\n b\r\n\r\n"), 400),
        (format!("{get}X : a\r\n\r\n"), 400),
        (format!("{get}X: a\0b\r\n\r\n"), 400),
        (format!("{get}X: a\x08b\r\n\r\n"), 400),
        (format!("{get}X: a\n\r\n"), 400),
        (format!("{get}X: a\rb\r\n\r\n"), 400),
        ("GET / HTTP/1.1\nHost: shop.test\n\n".into(), 400),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        (format!("{get}Host: shop.test\r\n\r\n"), 400),
        (format!("{get}Host: other.test\r\n\r\n"), 400),
        ("GET http://other.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("G@T / HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.9\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET /\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("\x16\x03\x01\x00\u{5}hello".into(), 400),
        ("CONNECT shop.test:443 HTTP/1.1\r\nHost: shop.test:443\r\n\r\n".into(), 405),
        (format!("{get}Expect: the impossible\r\nConnection: close\r\n\r\n"), 417),
        (format!("GET /{} HTTP/1.1\r\nHost: shop.test\r\n\r\n", "a".repeat(9000)), 414),
        (format!("{get}X: {}\r\n\r\n", "a".repeat(40_000)), 431),
        (format!("{get}{}\r\n", "X: a\r\n".repeat(200)), 431),
        ("GET / HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n".into(), 404),
    ];
    for (sent, status) in &cases {
        // The connection stays open on our side: the refusal does not wait for it to end.
        let answer = talk(proxy.address(), sent.as_bytes(), "").unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{sent:?} was answered by {answer:?}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    }
    assert_eq!(app.received().len(), 0);
}

#[test]
fn malformed_chunks_are_refused_and_the_app_gets_no_whole_body() {
    let app = App::saying("reached").unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let post = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    for chunks in [
        "x\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
    ] {
        let answer = talk(proxy.address(), format!("{post}{chunks}").as_bytes(), "").unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?} was answered by {answer:?}");
    }
    assert_eq!(app.received().len(), 0);
}

#[test]
fn malformed_replies_become_502() {
    for said in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\nX: a\n\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX",
        "",
    ] {
        let app = Scripted::start(move |_, mut stream| {
            let mut asked = [0; 1024];
            if stream.read(&mut asked).is_ok_and(|count| count > 0) {
                let _left = stream.write_all(said.as_bytes());
            }
        })
        .unwrap();
        let proxy = proxy_to(app.address()).unwrap();
        let answer =
            talk(proxy.address(), b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\na", "\n")
                .unwrap();
        assert!(answer.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{said:?} became {answer:?}");
    }
}

/// Reads a head and sends an answer, again and again.
fn answering(said: &'static str) -> Result<Scripted> {
    Scripted::start(move |_, mut stream| {
        let mut asked = Vec::new();
        let mut part = [0; 1024];
        while let Ok(count) = stream.read(&mut part) {
            if count == 0 {
                return;
            }
            asked.extend_from_slice(&part[..count]);
            if asked.ends_with(b"\r\n\r\n") {
                asked.clear();
                if stream.write_all(said.as_bytes()).is_err() {
                    return;
                }
            }
        }
    })
}

#[test]
fn interim_replies_chunks_and_trailers_are_relayed() {
    let said = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
                HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
    let app = answering(said).unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let answer =
        talk(proxy.address(), b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "X-Sum: 1\r\n\r\n").unwrap();
    assert_eq!(
        answer,
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nTrailer: X-Sum\r\n\
         Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"
    );
    // HTTP/1.0 knows neither interim replies nor chunks.
    let answer =
        talk(proxy.address(), b"GET / HTTP/1.0\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n", "")
            .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(answer.contains("Connection: close") && !answer.contains("chunked"), "{answer}");
}

#[test]
fn a_body_that_ends_with_the_connection_is_chunked_for_a_client_that_stays() {
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 1024]);
        let _left = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end");
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    for _ in 0..2 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        let answer = read_until(&mut stream, "0\r\n\r\n").unwrap();
        assert!(answer.contains("\r\nd\r\nuntil the end\r\n0\r\n\r\n"), "{answer}");
    }
}

#[test]
fn expect_is_answered_by_the_app() {
    let app = Scripted::start(|_, mut stream| {
        let mut part = [0; 1024];
        let count = stream.read(&mut part).unwrap();
        assert!(String::from_utf8_lossy(&part[..count]).contains("\r\nExpect: 100-continue\r\n"));
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let count = stream.read(&mut part).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {count}\r\n\r\n");
        stream.write_all(answer.as_bytes()).unwrap();
        stream.write_all(&part[..count]).unwrap();
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        .unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").unwrap();
    assert!(read_until(&mut stream, "hello").unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn an_early_reply_reaches_a_client_that_still_sends() {
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 1024]);
        let _left = stream.write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n");
        // And it goes on reading, as good servers do.
        while stream.read(&mut [0; 65536]).is_ok_and(|count| count > 0) {}
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 100000000\r\n\r\n").unwrap();
    stream.write_all(&[b'x'; 100_000]).unwrap();
    let answer = read_until(&mut stream, "no\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[test]
fn head_204_and_304_have_no_body_and_the_connection_goes_on() {
    let app = App::start(|asked| async move {
        let status = asked.uri().path().trim_start_matches('/').parse::<u16>().unwrap();
        ::http::Response::builder()
            .status(status)
            .body(Bytes::from(if status == 200 { "body" } else { "" }))
            .unwrap()
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let sent = "HEAD /200 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /204 HTTP/1.1\r\nHost: shop.test\r\n\r\n\
                GET /304 HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /200 HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = talk(proxy.address(), sent.as_bytes(), "").unwrap();
    let statuses: Vec<_> = answer.split("HTTP/1.1 ").skip(1).map(|part| &part[..3]).collect();
    assert_eq!(statuses, ["200", "204", "304", "200"]);
    assert_eq!(answer.matches("body").count(), 1, "{answer}");
    assert!(answer.contains("content-length: 4"), "HEAD says how long it would be: {answer}");
}

#[test]
fn a_stale_connection_is_not_a_502() {
    // Answers once, promises to stay, and leaves.
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 1024]);
        let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        // The next request is read, and the connection closed without an answer.
        let _next = stream.read(&mut [0; 1024]);
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    for _ in 0..10 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
        let answer = read_until(&mut stream, "ok").unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    assert!(proxy.metrics().unwrap().sum("groove_http_retries_total", &[]).unwrap() >= 9.0);
    // What may change something is not sent twice.
    stream.write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 1\r\n\r\na").unwrap();
    let answer = read_until(&mut stream, "\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let app = Scripted::start(|_, mut stream| {
        let mut part = [0; 1024];
        let count = stream.read(&mut part).unwrap();
        let asked = String::from_utf8_lossy(&part[..count]).to_lowercase();
        assert!(
            asked.contains("\r\nupgrade: echo\r\n") && asked.contains("\r\nconnection: upgrade\r\n"),
            "{asked}"
        );
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nwelcome",
            )
            .unwrap();
        while let Ok(count) = stream.read(&mut part) {
            if count == 0 {
                stream.write_all(b"bye").unwrap();
                return;
            }
            stream.write_all(&part[..count]).unwrap();
        }
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .unwrap();
    let answer = read_until(&mut stream, "welcome").unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    for word in ["one", "two"] {
        stream.write_all(word.as_bytes()).unwrap();
        assert_eq!(read_until(&mut stream, word).unwrap(), word);
    }
    assert_eq!(proxy.metrics().unwrap().sum("groove_http_tunnels", &[]), Some(1.0));
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_until(&mut stream, "").unwrap(), "bye", "a half that is closed leaves the other open");
}

#[test]
fn a_client_that_leaves_ends_its_request_at_the_app() {
    let (left, seen) = std::sync::mpsc::channel();
    let app = Scripted::start(move |_, mut stream| {
        let _asked = stream.read(&mut [0; 1024]);
        let _end = stream.read(&mut [0; 1024]);
        left.send(()).unwrap();
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
    harness::eventually("the request at the app", || (app.accepted() > 0).then_some(())).unwrap();
    drop(stream);
    seen.recv_timeout(PATIENCE).expect("the app's connection ends");
}

#[test]
fn phases_time_out_in_their_own_words() {
    let app = Scripted::start(|_, mut stream| {
        let mut part = [0; 1024];
        let count = stream.read(&mut part).unwrap_or(0);
        if String::from_utf8_lossy(&part[..count]).starts_with("GET /body") {
            let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        }
        while stream.read(&mut part).is_ok_and(|count| count > 0) {}
    })
    .unwrap();
    let config =
        format!("timeouts: {{head: 300ms, first_byte: 300ms, body_idle: 300ms, keep_alive: 300ms}}{ONE_APP}");
    let proxy = Proxy::of(Kind::Http).config(&config).set("APP", app.address()).start().unwrap();
    let ask = |sent: &str| talk(proxy.address(), sent.as_bytes(), "").unwrap();
    assert!(ask("GET / HTTP/1.1\r\nHost: sho").starts_with("HTTP/1.1 408 "), "a head");
    assert_eq!(ask(""), "", "a connection without a request is closed without a word");
    let answer = talk(proxy.address(), b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n", "\n").unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 "), "a first byte: {answer}");
    let answer = ask("POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 5\r\n\r\nab");
    assert!(answer.starts_with("HTTP/1.1 408 "), "an upload: {answer}");
    assert!(
        !ask("GET /body HTTP/1.1\r\nHost: shop.test\r\n\r\n").contains("504"),
        "a reply that has begun is cut"
    );
}

#[test]
fn slow_readers_do_not_fill_memory() {
    let app = Scripted::start(|_, mut stream| {
        let _asked = stream.read(&mut [0; 1024]);
        let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..1024 {
            if stream.write_all(&block).is_err() {
                return;
            }
        }
    })
    .unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let before = proxy.usage().unwrap().resident_bytes;
    let readers: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(proxy.address()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
            let mut part = [0; 64];
            assert!(stream.read(&mut part).unwrap() > 0);
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    let after = proxy.usage().unwrap().resident_bytes;
    // Each could have a gigabyte; what is held is a few buffers each.
    assert!(after < before + (32 << 20), "{before} bytes became {after}");
    drop(readers);
}

#[test]
fn tls_unix_sockets_and_the_proxy_protocol_come_together() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    authority.issue("server", &["shop.test"]).unwrap();
    let app = App::saying("ok").unwrap();
    let config = "
listeners:
  - {address: $LISTEN, tls: {certificate: $DIR/server.pem, key: $DIR/server.key}}
  - {address: '$DIR/groove.sock'}
  - {address: $PROXIED, proxy_protocol: {trusted: [127.0.0.0/8]}}
admin: {address: $ADMIN}
apps:
  shop: {hosts: [shop.test], endpoints: [$APP]}
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .folder(folder)
        .port("PROXIED")
        .set("APP", app.address())
        .start()
        .unwrap();
    let curl = |arguments: &[&str]| {
        let output = harness::run(
            std::process::Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments),
        )
        .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let port = proxy.address().port();
    let ca = proxy.folder().join("ca.pem").display().to_string();
    let resolve = format!("shop.test:{port}:127.0.0.1");
    assert_eq!(curl(&["--cacert", &ca, "--resolve", &resolve, &format!("https://shop.test:{port}/")]), "ok");
    let socket = proxy.folder().join("groove.sock").display().to_string();
    assert_eq!(curl(&["--unix-socket", &socket, "http://shop.test/"]), "ok");
    let mut stream = TcpStream::connect(proxy.at("PROXIED")).unwrap();
    stream
        .write_all(b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .unwrap();
    assert!(read_until(&mut stream, "ok").unwrap().starts_with("HTTP/1.1 200 "));
    let seen = app.received();
    let header =
        |index: usize, name: &str| seen[index].headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(
        (header(0, "x-forwarded-proto"), header(1, "x-forwarded-for")),
        ("https".into(), "unknown".into())
    );
    assert_eq!(header(2, "x-forwarded-for"), "203.0.113.9");
}

#[test]
fn nginx_behind_tls_is_reached_and_checked() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    authority.issue("server", &["inside.test"]).unwrap();
    let here = folder.path().display().to_string();
    let nginx = Nginx::configured(1, |listen| {
        format!(
            "server {{ listen {listen} ssl; ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key; \
             location / {{ return 200 'over tls'; }} }}"
        )
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  good: {hosts: [good.test], endpoints: [$APP], tls: {ca: $DIR/ca.pem, server_name: inside.test}}
  bad: {hosts: [bad.test], endpoints: [$APP], tls: {ca: $DIR/ca.pem, server_name: other.test}}
";
    let proxy =
        Proxy::of(Kind::Http).config(config).folder(folder).set("APP", nginx.address()).start().unwrap();
    let answer = http::send(proxy.address(), request("good.test", "/")).unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "over tls"));
    assert_eq!(http::send(proxy.address(), request("bad.test", "/")).unwrap().status.as_u16(), 502);
}

#[test]
fn a_reply_of_the_proxy_takes_the_form_the_client_reads() {
    let app = App::saying("ok").unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let ask = |accept: &str| {
        let mut asked = request("nobody.test", "/");
        asked.headers_mut().insert("accept", accept.parse().unwrap());
        http::send(proxy.address(), asked).unwrap()
    };
    let json = ask("application/json").json().unwrap();
    assert_eq!(json["status"], 404);
    assert!(ask("text/html,*/*").text().starts_with("<!doctype html>"));
    assert!(ask("*/*").text().contains("nobody.test"));
}

#[test]
fn the_connection_of_a_refused_request_with_a_body_is_still_usable() {
    let app = App::saying("ok").unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: nobody.test\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    assert!(read_until(&mut stream, "\n").unwrap().starts_with("HTTP/1.1 404 "));
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n").unwrap();
    assert!(read_until(&mut stream, "ok").unwrap().starts_with("HTTP/1.1 200 "));
    assert!(closed(&mut stream));
}
