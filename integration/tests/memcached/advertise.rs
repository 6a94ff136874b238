//! Clients that ask where to connect, as those of ElastiCache do, are told proxies.

use std::path::Path;

use anyhow::{Result, ensure};
use harness::{Kind, Memcached, Proxy, eventually, paths, python};

use crate::client::Client;
use crate::{embedded, proxy_to};

/// What a client is told: the version and the servers.
fn told(proxy: &Proxy, question: &str) -> Result<(u64, String)> {
    let mut client = Client::connect(proxy.address())?;
    let lines = client.ask_all(&format!("{question}\r\n"))?;
    let [head, version, servers, _, _] = lines.as_slice() else { anyhow::bail!("{lines:?}") };
    let len = version.len() + servers.len() + 2;
    ensure!(
        head.ends_with(&format!(":cluster 0 {len}")) || *head == format!("CONFIG cluster 0 {len}"),
        "{lines:?}"
    );
    Ok((version.parse()?, servers.clone()))
}

#[test]
fn the_listener_itself_is_told_unless_others_are_listed_and_the_version_grows_when_the_list_changes()
-> Result<()> {
    let mut proxy = embedded()?;
    let own = proxy.address();
    let itself = format!("{0}|{0}|{1}", own.ip(), own.port());
    let first = told(&proxy, "config get cluster")?;
    ensure!(first.1 == itself, "{first:?}");
    ensure!(told(&proxy, "get AmazonElastiCache:cluster")? == first);
    // Whatever is no such question is what it was.
    let mut client = Client::connect(own)?;
    for other in ["config", "config get", "config get cluster now", "config set cluster 1"] {
        ensure!(client.ask(&format!("{other}\r\n"))? == "ERROR", "{other}");
    }
    ensure!(client.ask_all("get AmazonElastiCache:cluster other\r\n")? == ["END"]);
    let listed = |servers: &str| {
        format!(
            "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nadvertise: [{servers}]\n\
             clusters: {{main: {{endpoints: {{embedded: {{capacity: 64MiB}}}}}}}}\n"
        )
    };
    let mut version = first.0;
    for (servers, expected) in [
        ("10.0.0.1:1, cache.internal:2", "10.0.0.1|10.0.0.1|1 cache.internal||2"),
        ("10.0.0.3:1", "10.0.0.3|10.0.0.3|1"),
    ] {
        proxy.rewrite(&listed(servers))?;
        let looked = || told(&proxy, "config get cluster").ok().filter(|it| it.1 == expected);
        let (now, _) = eventually("told anew", looked)?;
        ensure!(now > version, "{now} after {version}");
        version = now;
    }
    Ok(())
}

#[test]
fn a_proxy_finds_other_proxies_and_a_clients_library_does() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let servers: Vec<_> = servers.iter().map(Memcached::address).collect();
    let second = proxy_to(&servers, "").start()?;
    let first =
        proxy_to(&servers, "advertise: [$LISTEN, $SECOND]\n").set("SECOND", second.address()).start()?;
    let both = format!("{} {}", first.address(), second.address());
    let script = paths::repository().join("integration/python/memcached_discovery.py");
    let environment = [("CONFIGURATION", first.address().to_string()), ("EXPECTED", both)];
    let output = python::script::<&Path>(&script, &[], &environment)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let behind = Proxy::of(Kind::Memcached)
        .config(
            "listeners: [{address: $LISTEN}]\nadmin: {address: $ADMIN}\n\
             clusters: {main: {endpoints: {elasticache: $FIRST}}}\n",
        )
        .set("FIRST", first.address())
        .start()?;
    let knows = |text: &str| [&first, &second].iter().all(|it| text.contains(&it.address().to_string()));
    let looked = || behind.get("/api/v1/status").ok().filter(|it| knows(&it.text()));
    eventually("found", looked)?;
    let mut client = Client::connect(behind.address())?;
    for number in 0..200 {
        let heard = client.ask_all(&format!("get key{number}\r\n"))?;
        ensure!(heard.get(1) == Some(&number.to_string()), "key{number}: {heard:?}");
    }
    Ok(())
}
