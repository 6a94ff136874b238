//! A restart of an app closes its idle connections to servers at once, of both versions, and no others.

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use harness::{App, Kind, PATIENCE, Proxy, Scripted, http};

use super::request;

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 1
timeouts: {server_keep_alive: 60s}
apps:
  shop: {hosts: [shop.test], endpoints: [$APP], health: {probe: null}}
  other: {hosts: [other.test], endpoints: [$OTHER], health: {probe: null}}
  grpc: {hosts: [grpc.test], endpoints: [$LISTEN_TOO], health: {probe: null}, protocol: http2, request_headers: {set: {Host: other.test}}}
";

/// Answers each request, and tells when its connection has ended.
fn telling() -> (Scripted, Mutex<mpsc::Receiver<()>>) {
    let (ended, has_ended) = mpsc::channel();
    let app = Scripted::start(move |_, mut stream| {
        let mut part = [0; 4096];
        while stream.read(&mut part).is_ok_and(|count| count > 0) {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        }
        let _nobody = ended.send(());
    });
    (app.unwrap(), Mutex::new(has_ended))
}

fn restart(proxy: &Proxy, app: &str) {
    let path = format!("/api/v1/apps/{app}/restart");
    let asked = ::http::Request::post(path).header("host", "127.0.0.1").body(Bytes::new()).unwrap();
    assert_eq!(http::send(proxy.admin(), asked).unwrap().status, 200);
}

#[test]
fn idle_connections_end_with_the_restart_and_others_stay() {
    let (app, app_ended) = telling();
    let (other, other_ended) = telling();
    let proxy = Proxy::of(Kind::Http)
        .config(&CONFIG.replace(
            "listeners: [{address: $LISTEN}]",
            "listeners: [{address: $LISTEN}, {address: $LISTEN_TOO}]",
        ))
        .port("LISTEN_TOO")
        .set("APP", app.address())
        .set("OTHER", other.address())
        .start()
        .unwrap();
    let ask = |host: &str| {
        assert_eq!(http::send(proxy.address(), request(host, "/")).unwrap().status, 200, "{host}")
    };
    ask("shop.test");
    ask("other.test");
    ask("shop.test");
    assert_eq!(app.accepted(), 1, "it was idle, and was used again");
    restart(&proxy, "shop");
    app_ended.lock().unwrap().recv_timeout(PATIENCE).expect("closed at once");
    other_ended.lock().unwrap().recv_timeout(Duration::from_millis(300)).expect_err("this is another app's");
    ask("shop.test");
    ask("other.test");
    assert_eq!((app.accepted(), other.accepted()), (2, 1));
    // And once more, which a worker hears that has heard it before.
    restart(&proxy, "shop");
    app_ended.lock().unwrap().recv_timeout(PATIENCE).expect("closed again");
    // A connection of HTTP/2, on which nothing is under way: ours to our second listener.
    ask("grpc.test");
    let second = || {
        let status = proxy.status().unwrap();
        let listeners = status["listeners"].as_array().unwrap();
        listeners[1]["connections"].as_u64().unwrap()
    };
    assert_eq!(second(), 1);
    restart(&proxy, "grpc");
    harness::eventually("it is closed", || (second() == 0).then_some(())).unwrap();
}

#[test]
fn a_connection_that_was_busy_is_not_kept_after_the_restart() {
    let (go, may_go) = mpsc::channel::<()>();
    let (ended, has_ended) = mpsc::channel();
    let (asked, is_asked) = mpsc::channel();
    let may_go = Mutex::new(may_go);
    let app = Scripted::start(move |_, mut stream| {
        let _asked = stream.read(&mut [0; 4096]);
        asked.send(()).unwrap();
        may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
        let closed = matches!(stream.read(&mut [0; 16]), Ok(0));
        let _nobody = ended.send(closed);
    })
    .unwrap();
    let other = App::saying("ok").unwrap();
    let proxy = Proxy::of(Kind::Http)
        .config(CONFIG)
        .set("LISTEN_TOO", other.address())
        .set("APP", app.address())
        .set("OTHER", other.address())
        .start()
        .unwrap();
    let address = proxy.address();
    let client = std::thread::spawn(move || http::send(address, request("shop.test", "/")).unwrap().status);
    is_asked.recv_timeout(PATIENCE).unwrap();
    restart(&proxy, "shop");
    go.send(()).unwrap();
    assert_eq!(client.join().unwrap(), 200, "the exchange ends well");
    assert!(has_ended.recv_timeout(PATIENCE).expect("closed behind it"));
}
