//! PINGs of HTTP/2: peers that vanish without a word are found out, those that are there stay.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use harness::{App, Kind, PATIENCE, Proxy, Scripted, eventually, http};

use super::request;

const PINGING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
http2: {ping: {interval: 1s, timeout: 500ms}, server_ping: {interval: 1s, timeout: 500ms}}
timeouts: {first_byte: 20s}
apps:
  shop: {hosts: [shop.test], endpoints: [$APP], health: {probe: null}, protocol: $PROTOCOL, retries: 0}
";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Reads frames; each goes to `seen` with its type and flags.
fn frames(stream: &mut TcpStream, mut seen: impl FnMut(&mut TcpStream, u8, u8, &[u8]) -> bool) -> bool {
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return false;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).is_err() {
            return false;
        }
        if seen(stream, head[3], head[4], &payload) {
            return true;
        }
    }
}

fn timeouts(proxy: &Proxy, peer: &str) -> f64 {
    let metrics = proxy.metrics().unwrap();
    metrics.sum("groove_http_http2_ping_timeouts_total", &[("peer", peer)]).unwrap_or_default()
}

#[test]
fn a_client_that_does_not_answer_is_let_go_and_one_that_does_stays() {
    let app = App::saying("ok").unwrap();
    let proxy = Proxy::of(Kind::Http).config(PINGING).set("APP", app.address()).set("PROTOCOL", "http1");
    let proxy = proxy.start().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(PREFACE).unwrap();
        stream
    };
    let mut silent = connect();
    let begun = Instant::now();
    let mut pings = 0;
    frames(&mut silent, |_, kind, flags, _| {
        pings += usize::from(kind == 6 && flags == 0);
        false
    });
    assert_eq!(pings, 1);
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(6)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(timeouts(&proxy, "client"), 1.0);
    // This one answers three times and then no more.
    let mut pings = 0;
    frames(&mut connect(), |stream, kind, flags, payload| {
        if kind == 6 && flags == 0 {
            pings += 1;
            if pings <= 3 {
                stream.write_all(&[b"\0\0\x08\x06\x01\0\0\0\0", payload].concat()).unwrap();
            }
        }
        false
    });
    assert_eq!((pings, timeouts(&proxy, "client")), (4, 2.0));
}

#[test]
fn a_server_that_does_not_answer_is_a_502_long_before_its_time_is_up() {
    let (asked, is_asked) = mpsc::channel();
    let app = Scripted::start(move |_, mut stream| {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).unwrap();
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
        let asked = asked.clone();
        // It answers until it is asked for something, and then it is gone.
        let mut is_gone = false;
        frames(&mut stream, |stream, kind, flags, payload| {
            is_gone |= kind == 1;
            if kind == 1 {
                let _nobody = asked.send(Instant::now());
            }
            if kind == 6 && flags == 0 && !is_gone {
                stream.write_all(&[b"\0\0\x08\x06\x01\0\0\0\0", payload].concat()).unwrap();
            }
            false
        });
    })
    .unwrap();
    let proxy = Proxy::of(Kind::Http).config(PINGING).set("APP", app.address()).set("PROTOCOL", "http2");
    let proxy = proxy.start().unwrap();
    let answer = http::send(proxy.address(), request("shop.test", "/")).unwrap();
    let since = is_asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("x-groove-code")), (502, "H13"));
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    eventually("it is counted", || (timeouts(&proxy, "server") == 1.0).then_some(())).unwrap();
}
