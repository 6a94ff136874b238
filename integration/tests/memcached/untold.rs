//! What goes wrong with requests whose clients do not want to hear of it: counted nevertheless, in every protocol.

use anyhow::{Context, Result};
use harness::{Memcached, Proxy};

use crate::client::Client;
use crate::proxy_to;

const GETQ: u8 = 0x09;
const INCRQ: u8 = 0x15;
const NOOP: u8 = 0x0a;

/// A packet of the binary protocol.
fn packet(opcode: u8, extras_len: u8, key: &[u8]) -> Result<Vec<u8>> {
    let key_len = u8::try_from(key.len())?;
    let head = [0x80, opcode, 0, key_len, extras_len, 0, 0, 0, 0, 0, 0, extras_len + key_len];
    let extras = vec![0; usize::from(extras_len)];
    Ok([&head[..], &[0; 12], &extras, key].concat())
}

/// Sends text, and is answered nothing but the end of it.
fn quietly(proxy: &Proxy, text: &str) -> Result<()> {
    let heard = Client::connect(proxy.address())?.ask(&format!("{text}mn\r\n"))?;
    assert_eq!(heard, "MN", "{text:?}");
    Ok(())
}

/// Sends packets, and is answered what the no-op behind them is.
fn quietly_in_packets(proxy: &Proxy, packets: &[u8]) -> Result<()> {
    let mut client = Client::connect(proxy.address())?;
    client.send(&[packets, &packet(NOOP, 0, b"")?].concat())?;
    assert_eq!(client.take(2)?, [0x81, NOOP]);
    Ok(())
}

fn count(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
    proxy.metrics()?.sum(name, labels).with_context(|| format!("{name} {labels:?} is not there"))
}

#[test]
fn what_a_server_refuses_is_counted() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy_to(&[server.address()], "").start()?;
    let refused = |command| count(&proxy, "groove_memcached_refused_total", &[("command", command)]);
    assert_eq!(refused("incr")?, 0.0);
    quietly(&proxy, "set text 0 0 3 noreply\r\nabc\r\nincr text 1 noreply\r\ndecr text 1 noreply\r\n")?;
    assert_eq!((refused("incr")?, refused("decr")?, refused("set")?), (1.0, 1.0, 0.0));
    // Found out by the proxy itself: too large a value, flags that are no number.
    let large = "x".repeat(2 << 20);
    quietly(&proxy, &format!("set text 0 0 {} noreply\r\n{large}\r\n", large.len()))?;
    assert_eq!(refused("set")?, 1.0);
    quietly(&proxy, "set text abc 0 1 noreply\r\n")?;
    assert_eq!(refused("refused")?, 1.0);
    // Meta and binary clients are told errors however quiet they are.
    let mut meta = Client::connect(proxy.address())?;
    meta.ask("ms text 3 q\r\nabc\r\nmn\r\n")?;
    assert!(meta.ask("ma text q\r\n")?.starts_with("CLIENT_ERROR"));
    assert_eq!(refused("ma")?, 1.0);
    let mut binary = Client::connect(proxy.address())?;
    binary.send(&packet(INCRQ, 20, b"text")?)?;
    assert_eq!(binary.take(8)?, [0x81, INCRQ, 0, 0, 0, 0, 0, 6]);
    assert_eq!(refused("incr")?, 2.0);
    Ok(())
}

#[test]
fn what_no_server_answers_is_counted() -> Result<()> {
    let mut server = Memcached::start()?;
    let proxy = proxy_to(&[server.address()], "    health: {probe: null}\n").start()?;
    let failures = || count(&proxy, "groove_memcached_failures_total", &[]);
    quietly(&proxy, "set a 0 0 1 noreply\r\n1\r\n")?;
    assert_eq!(failures()?, 0.0);
    server.kill()?;
    let noreply = ["set a 0 0 1 noreply\r\n1\r\n", "delete a noreply\r\n", "incr a 1 noreply\r\n"];
    for (before, request) in (0_u8..).zip(noreply) {
        quietly(&proxy, request)?;
        assert_eq!(failures()?, f64::from(before) + 1.0, "{request}");
    }
    quietly(&proxy, "mg a v q\r\n")?;
    assert_eq!(failures()?, 4.0);
    quietly_in_packets(&proxy, &packet(GETQ, 0, b"a")?)?;
    assert_eq!(failures()?, 5.0);
    Ok(())
}
