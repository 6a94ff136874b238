//! Messages of every framing, on connections that stay, end, switch or die.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use harness::{App, Kind, PATIENCE, Proxy, Scripted, http};

use super::{ONE_APP, proxy_to, read_until, talk};

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
    let metrics = proxy.metrics().unwrap();
    assert_eq!(metrics.sum("groove_http_tunnels", &[]), Some(1.0));
    assert_eq!(
        metrics.sum("groove_http_request_seconds_count", &[("app", "shop")]),
        Some(1.0),
        "it is answered"
    );
    assert_eq!(metrics.sum("groove_http_tunnel_seconds_count", &[]), Some(0.0), "it is not over");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_until(&mut stream, "").unwrap(), "bye", "a half that is closed leaves the other open");
    drop(stream);
    let over =
        || (proxy.metrics().ok()?.sum("groove_http_tunnel_seconds_count", &[]) == Some(1.0)).then_some(());
    harness::eventually("the end of the tunnel", over).unwrap();
    let bytes = |direction| {
        proxy.metrics().unwrap().sum("groove_http_tunnel_bytes_total", &[("direction", direction)]).unwrap()
    };
    assert_eq!((bytes("up"), bytes("down")), (6.0, 16.0), "onetwo; welcomeonetwobye");
}

#[test]
fn what_an_edit_removes_is_no_trailer_either() {
    let app = Scripted::start(|_, mut stream| {
        let asked = read_until(&mut stream, "X-Sum: 2\r\n\r\n").unwrap_or_default().to_lowercase();
        let seen = format!("{} {}", asked.contains("x-debug"), asked.contains("x-sum"));
        let reply = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{seen}\r\n0\r\nX-Internal: 1\r\n",
            seen.len()
        );
        stream.write_all(reply.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        stream.write_all(b"X-Kept: 2\r\n\r\n").unwrap();
    })
    .unwrap();
    let config = format!(
        "{ONE_APP}    request_headers: {{remove: [X-Debug]}}\n    response_headers: {{remove: [X-Internal]}}\n"
    );
    let proxy = Proxy::of(Kind::Http).config(&config).set("APP", app.address()).start().unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Debug: 1\r\n",
        )
        .unwrap();
    // In two pieces: nothing spins, and nothing is lost, while the section is not whole.
    std::thread::sleep(Duration::from_millis(50));
    stream.write_all(b"X-Sum: 2\r\n\r\n").unwrap();
    let answer = read_until(&mut stream, "X-Kept: 2\r\n\r\n").unwrap();
    assert!(answer.contains("false true"), "{answer}");
    assert!(!answer.contains("X-Internal"), "{answer}");
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
