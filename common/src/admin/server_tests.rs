use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::admin;
use crate::testing::ScriptedPeer;

/// A server with one route of its own, and its address.
fn server() -> (Server, Address) {
    let routes = Routes::new().post(
        "/api/v1/length",
        "how long the body is",
        |request: http::Request<Bytes>| async move { json(&request.body().len()) },
    );
    started(routes, None)
}

/// A server of these routes, and its address.
fn started(routes: Routes, token: Option<&str>) -> (Server, Address) {
    let server = Server::new("groove-test", routes, Handle::current(), Registry::new(0)).unwrap();
    let token = token.map(config::Secret::new);
    let config = config::Admin { address: Address::tcp("127.0.0.1", 0), token };
    let change = server.prepare(Some(&config)).unwrap();
    server.apply(change);
    let address = server.address().unwrap();
    (server, address)
}

async fn client(address: &Address) -> ScriptedPeer {
    ScriptedPeer::new(net::connect(address, None, Duration::from_secs(5)).await.unwrap())
}

#[tokio::test]
async fn a_route_gets_its_body() {
    let (_server, address) = server();
    let mut client = client(&address).await;
    client.send("POST /api/v1/length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello").await;
    client.expect("HTTP/1.1 200 OK\r\n").await;
    client.expect_until("\r\n\r\n").await;
    client.expect("5\n").await;
    client.send("GET /api/v1/openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    client.expect("HTTP/1.1 200 OK\r\n").await;
    client.expect_until("\"summary\": \"how long the body is\"").await;
}

#[tokio::test]
async fn a_segment_in_braces_is_any_one_and_comes_decoded() {
    let told = |request: admin::Request| async move {
        let file = admin::query(&request, "file");
        json(&format!("{:?} {file:?}", admin::segment(&request, 1)))
    };
    let routes = Routes::new().put("/apps/{name}", "sets", told).delete("/apps/{name}/x", "goes", told);
    let (_server, address) = started(routes, None);
    let mut client = client(&address).await;
    for (line, want) in [
        ("PUT /apps/a%20b?x=1&file=c%2Fd", "Some(\\\"a b\\\") Some(\\\"c/d\\\")"),
        ("PUT /apps/50%?file=%ff", "Some(\\\"50%\\\") None"),
        ("DELETE /apps/a/x", "Some(\\\"a\\\") None"),
    ] {
        client.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        client.expect("HTTP/1.1 200 OK\r\n").await;
        client.expect_until(want).await;
        client.expect_until("\n").await;
    }
    for (line, status) in [("PUT /apps/", 404), ("PUT /apps/a/b", 404), ("GET /apps/a", 405)] {
        client.send(format!("{line} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        client.expect(format!("HTTP/1.1 {status} ")).await;
        client.expect_until("what does\n").await;
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let (_server, address) = server();
    let mut long_body = client(&address).await;
    long_body
        .send("POST /api/v1/length HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n")
        .await;
    long_body.send(vec![b'x'; 1_048_577]).await;
    long_body.expect("HTTP/1.1 413 ").await;

    let mut long_head = client(&address).await;
    long_head.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000))).await;
    long_head.expect("HTTP/1.1 431 ").await;
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_not_waited_for_long() {
    let (_server, address) = server();
    let mut slow = client(&address).await;
    let before = tokio::time::Instant::now();
    slow.send("GET / HTTP/1.1\r\n").await;
    slow.expect_end().await;
    assert_eq!(before.elapsed(), HEAD_TIME_MAX);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_read_is_not_kept_for_ever() {
    // More than the buffers of both sides hold.
    let routes = Routes::new().get("/large", "a large answer", |_| async {
        respond(StatusCode::OK, "text/plain", vec![b'x'; 64 << 20])
    });
    let (server, address) = started(routes, None);
    let mut lazy = client(&address).await;
    lazy.send("GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    lazy.expect("HTTP/1.1 200 OK\r\n").await;
    assert_eq!(server.listeners.connections(), 1);
    sleep(CONNECTION_TIME_MAX + LAST_TIME_MAX + Duration::from_secs(1)).await;
    assert_eq!(server.listeners.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_goes_on_until_its_sender_or_its_client_ends() {
    let (parts, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let routes = Routes::new().post("/stream", "what comes", move |_| {
        let (send, receive) = tokio::sync::mpsc::channel(1);
        parts.send(send).unwrap();
        async move { crate::admin::stream("text/plain", receive) }
    });
    let (server, address) = started(routes, None);
    let client = crate::admin::Client::new(address, None, false);
    let mut lines = client.follow("/stream", &serde_json::Value::Null).await.unwrap();
    let send = asked.recv().await.unwrap();
    send.send(Bytes::from("one\ntw")).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap(), "one");
    // Longer than any other answer may take.
    sleep(CONNECTION_TIME_MAX + LAST_TIME_MAX + Duration::from_secs(1)).await;
    send.send(Bytes::from("o\n")).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap(), "two");
    drop(send);
    assert_eq!(lines.next().await.unwrap(), None);

    let lines = client.follow("/stream", &serde_json::Value::Null).await.unwrap();
    let send = asked.recv().await.unwrap();
    drop(lines);
    send.closed().await;
    while server.listeners.connections() > 0 {
        sleep(Duration::from_millis(1)).await;
    }
    let refused = client.follow("/nowhere", &serde_json::Value::Null).await.unwrap_err();
    assert!(refused.to_string().contains("404"), "{refused}");
}

#[tokio::test]
async fn probes_need_no_token() {
    let routes = Routes::new().probe("/alive", "for probes", |_| async { plain(StatusCode::OK, "yes") }).get(
        "/secret",
        "for those with the token",
        |_| async { plain(StatusCode::OK, "42") },
    );
    let (_server, address) = started(routes, Some("hunter2"));
    for (request, status) in [
        ("GET /alive HTTP/1.1\r\nHost: groove.example", "200"),
        ("POST /alive HTTP/1.1\r\nHost: groove.example", "401"),
        ("GET /secret HTTP/1.1\r\nHost: groove.example", "401"),
    ] {
        let mut client = client(&address).await;
        client.send(format!("{request}\r\nConnection: close\r\n\r\n")).await;
        client.expect(format!("HTTP/1.1 {status} ")).await;
    }
}

#[tokio::test]
async fn a_reload_may_move_it_or_take_it_away() {
    let (server, address) = server();
    let folder = tempfile::tempdir().unwrap();
    let elsewhere = Address::Unix(folder.path().join("admin.sock"));
    let config = config::Admin { address: elsewhere.clone(), token: None };
    let change = server.prepare(Some(&config)).unwrap();
    server.apply(change);
    assert_eq!(server.address(), Some(elsewhere.clone()));
    let mut client = client(&elsewhere).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    client.expect("HTTP/1.0 200 OK\r\n").await;
    assert_ne!(server.address(), Some(address));
    let change = server.prepare(None).unwrap();
    server.apply(change);
    assert_eq!(server.address(), None);
}

#[test]
fn only_names_of_this_machine_are_ours() {
    for host in
        ["", "localhost", "localhost:9311", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:9311", "10.0.0.7:1"]
    {
        assert!(is_ours(host), "{host}");
    }
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "a:b"]
    {
        assert!(!is_ours(host), "{host}");
    }
}

#[test]
fn tokens_are_the_same_only_if_every_byte_is() {
    assert!(same(b"token", b"token"));
    assert!(!same(b"token", b"tokem") && !same(b"token", b"toke") && !same(b"", b"t"));
}
