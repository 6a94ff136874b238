//! `groove-memcached tap` beside a running proxy, as an operator uses it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, Memcached, PATIENCE, Process, Proxy, Signal, eventually};
use serde_json::Value;

use crate::client::Client;
use crate::proxy_to;

/// Watches the proxy with these arguments, once it is known to do so.
fn watch(proxy: &Proxy, arguments: &[&str]) -> Result<Process> {
    let before = watchers(proxy)?;
    let mut command = Command::new(Kind::Memcached.binary()?);
    command.args(["tap", "--admin", &proxy.admin().to_string()]).args(arguments);
    let process = Process::spawn("tap", command)?;
    eventually("it watches", || watchers(proxy).ok().filter(|count| *count > before))?;
    Ok(process)
}

fn watchers(proxy: &Proxy) -> Result<f64> {
    proxy.metrics()?.sum("groove_memcached_tap_watchers", &[]).context("nobody counts watchers")
}

fn json(process: &Process, line: usize) -> Result<Value> {
    let lines = eventually("so many lines", || {
        let lines = process.log().lines();
        (lines.len() > line).then_some(lines)
    })?;
    Ok(serde_json::from_str(lines.get(line).context("no such line")?)?)
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn each_exchange_is_shown_and_no_value() -> Result<()> {
    let server = Memcached::start()?;
    let tenants = "tenants: {shop: {credentials: [{user: shop, password: secret}]}, rest: {}}\n\
                   default_tenant: rest\n";
    let proxy = proxy_to(&[server.address()], tenants).start()?;
    let mut all = watch(&proxy, &["--sample", "100%", "--json"])?;
    let pages = watch(&proxy, &["--sample", "1/1", "--prefix", "page:", "--tenant", "rest"])?;
    let mut client = Client::connect(proxy.address())?;
    // Longer than a server would take it with the tenant before it.
    let long = format!("page:{}", "x".repeat(240));
    assert_eq!(client.ask(&format!("set {long} 0 0 6\r\nsecret\r\n"))?, "STORED");
    client.ask_all(&format!("get {long}\r\n"))?;
    client.ask_all("get user:7\r\n")?;
    assert_eq!(client.ask("set text 0 0 1 noreply\r\nx\r\nincr text 1 noreply\r\nmn\r\n")?, "MN");
    assert_eq!(client.ask("md text\r\n")?, "HD");
    let wanted = [
        ("set", &*long, "stored", Some(6)),
        ("get", &*long, "hit", Some(6)),
        ("get", "user:7", "miss", None),
        ("set", "text", "stored", Some(1)),
        ("incr", "text", "error", None),
        ("delete", "text", "deleted", None),
    ];
    for (index, (verb, key, result, bytes)) in wanted.into_iter().enumerate() {
        let seen = json(&all, index)?;
        assert_eq!((text(&seen, "verb"), text(&seen, "key"), text(&seen, "result")), (verb, key, result));
        assert_eq!(seen.get("value_bytes").and_then(Value::as_u64), bytes, "{seen}");
        assert_eq!((text(&seen, "tenant"), text(&seen, "cluster")), ("rest", "main"));
        assert_eq!(text(&seen, "server"), server.address().to_string());
        assert!(seen.get("took_us").and_then(Value::as_u64).is_some_and(|took| took > 0), "{seen}");
    }
    pages.log().expect(" hit ")?;
    let lines = pages.log().lines();
    ensure!(lines.len() == 2 && lines.iter().all(|line| line.ends_with(&long)), "{lines:?}");
    assert!(!all.log().lines().concat().contains("secret"), "nobody is shown a value");

    // Whoever hangs up is no watcher any more; whoever is left hears the end.
    drop(pages);
    eventually("one watches", || watchers(&proxy).ok().filter(|count| *count == 1.0))?;
    let mut proxy = proxy;
    proxy.signal(Signal::TERM)?;
    assert!(all.exit(PATIENCE)?.success(), "{:?}", all.log().lines());
    drop(client);
    assert!(proxy.exit(PATIENCE)?.success());
    Ok(())
}

#[test]
fn what_is_asked_most_is_summed_up() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy_to(&[server.address()], "").start()?;
    let mut client = Client::connect(proxy.address())?;
    assert_eq!(client.ask("set hot:1 0 0 5\r\n12345\r\n")?, "STORED");
    let tap = watch(&proxy, &["--sample", "100%", "--top", "2", "--every", "100ms", "--json"])?;
    let requests = format!("{}get cold/a\r\nget cold/b\r\n", "get hot:1\r\n".repeat(8));
    let summary = eventually("a summary of something", || {
        client.send(requests.as_bytes()).ok()?;
        (0..10).try_for_each(|_| client.ask_all("").map(drop)).ok()?;
        let lines = tap.log().lines();
        let summaries = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        summaries.into_iter().find(|line| line.get("seen").and_then(Value::as_u64).unwrap_or_default() >= 10)
    })?;
    let rows = |name| summary.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let (keys, prefixes) = (rows("keys"), rows("prefixes"));
    assert_eq!((keys.len(), text(&keys[0], "name")), (2, "hot:1"), "{summary}");
    assert_eq!(keys[0].get("value_bytes"), Some(&Value::from(5)), "{summary}");
    let ratio = |row: &Value| row.get("miss_ratio").and_then(Value::as_f64);
    assert_eq!((ratio(&keys[0]), ratio(&keys[1])), (Some(0.0), Some(1.0)), "{summary}");
    let names: Vec<_> = prefixes.iter().map(|row| text(row, "name")).collect();
    assert_eq!(names, ["hot:", "cold/"], "{summary}");
    // The same for people.
    let page = watch(&proxy, &["--top", "--every", "100ms"])?;
    page.log().expect("requests a second")?;
    Ok(())
}

#[test]
fn what_cannot_be_watched_is_said() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy_to(&[server.address()], "").start()?;
    let admin = proxy.admin().to_string();
    for (arguments, told) in [
        (["--cluster", "mian"], "there is no cluster `mian`; there are `main`"),
        (["--tenant", "shop"], "there are no tenants"),
        (["--sample", "0"], "a share is written"),
        (["--every", "1ms"], "`every_ms`"),
        (["--top", "0"], "`top`"),
    ] {
        let output = Kind::Memcached.run(&[&["tap", "--admin", &admin][..], &arguments].concat())?;
        let heard = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && heard.contains(told), "{arguments:?}: {heard}");
    }
    let watching: Vec<_> = (0..8).map(|_| watch(&proxy, &[])).collect::<Result<_>>()?;
    let output = Kind::Memcached.run(&["tap", "--admin", &admin])?;
    assert!(String::from_utf8_lossy(&output.stderr).contains("as many watch as may"));
    drop(watching);
    eventually("nobody watches", || watchers(&proxy).ok().filter(|count| *count == 0.0))?;
    Ok(())
}

#[test]
fn the_usual_time_of_servers_and_tenants_is_in_the_status() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy_to(&[server.address()], "tenants: {rest: {}}\ndefault_tenant: rest\n").start()?;
    let shown = |list: &str, inner: Option<&str>, name: &str| -> Result<Value> {
        let status = proxy.status()?;
        let first = |value: &Value, name: &str| value.get(name)?.as_array()?.first().cloned();
        let row = first(&status, list).context("no row")?;
        let row = match inner {
            Some(inner) => first(&row, inner).context("no inner row")?,
            None => row,
        };
        row.get(name).cloned().with_context(|| format!("no {name} in {row}"))
    };
    assert_eq!(shown("tenants", None, "p99_ms")?, Value::Null);
    let mut client = Client::connect(proxy.address())?;
    client.ask_all("get a\r\n")?;
    for name in ["p50_ms", "p99_ms"] {
        for value in [shown("tenants", None, name)?, shown("clusters", Some("endpoints"), name)?] {
            assert!(value.as_f64().is_some_and(|millis| millis > 0.0 && millis < 10_000.0), "{value}");
        }
    }
    Ok(())
}
