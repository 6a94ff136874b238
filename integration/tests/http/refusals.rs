//! What is refused, in whose words, and how soon.

use std::io::{Read, Write};
use std::net::TcpStream;

use harness::{App, Kind, Proxy, Scripted, http};

use super::{ONE_APP, closed, proxy_to, read_until, request, talk};

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
        (format!("{post}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 501),
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
        ("GET / HTTP/1.9\r\nHost: shop.test\r\n\r\n".into(), 505),
        ("GET / HTTP/2.0\r\nHost: shop.test\r\n\r\n".into(), 505),
        ("GET /\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET  / HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET / x HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET\t/ HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        (" GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET / http/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1 \r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET /\x7f HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET /é HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET /#part HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET * HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET http://me@shop.test/ HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET /\rX HTTP/1.1\r\nHost: shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\n Host: shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: me@shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test/\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: shop test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test, shop.test\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test:99999999\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: shop.test\r\r\n\r\n".into(), 400),
        (format!("{get}: nameless\r\n\r\n"), 400),
        (format!("{get}no colon\r\n\r\n"), 400),
        (format!("{get}X\u{7f}: a\r\n\r\n"), 400),
        (format!("{get}X: a\u{7f}\r\n\r\n"), 400),
        (format!("{get}\nX: a\r\n\r\n"), 400),
        (format!("{post}Content-Length: +5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: -5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 0x5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 5, 5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length: 5 5\r\n\r\nhello"), 400),
        (format!("{post}Content-Length:\r\n\r\nhello"), 400),
        (format!("{post}Content_Length: 5\r\n\r\nhello"), 400),
        (format!("{post}Transfer-Encoding:\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: identity\r\n\r\nhello"), 400),
        (format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("{post}Transfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n"), 400),
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
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a=\"b\n\"\r\nhello\r\n0\r\n\r\n",
        "5;a=\0\r\nhello\r\n0\r\n\r\n",
        "00000000000000000005\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : 1\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: 1\r\n y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: 1\n\r\n",
        "5\r\nhello\r\n0\r\nX: \0\r\n\r\n",
        "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: other.test\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
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
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0\r\n\r\n",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
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

#[test]
fn a_server_may_not_switch_to_what_was_not_offered() {
    for (offered, chosen, switches) in
        [("echo", "other", false), ("echo, chat/2", "CHAT/2", true), ("echo", "echo, other", false)]
    {
        let app = Scripted::start(move |_, mut stream| {
            let _asked = stream.read(&mut [0; 1024]);
            let reply = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\n"
            );
            let _left = stream.write_all(reply.as_bytes());
            let _end = stream.read(&mut [0; 1024]);
        })
        .unwrap();
        let proxy = proxy_to(app.address()).unwrap();
        let asked =
            format!("GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: {offered}\r\n\r\n");
        let answer = talk(proxy.address(), asked.as_bytes(), "\n").unwrap();
        let status = if switches { "101" } else { "502" };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{offered} then {chosen}: {answer}");
    }
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
