//! Real client libraries through the proxy, in front of two servers.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::{Authority, Memcached, Proxy, paths, python, suites};
use memcache_async::ascii::Protocol;

use crate::client::Client;
use crate::{embedded, proxy_to};

fn in_front_of_two() -> Result<(Vec<Memcached>, Proxy)> {
    let servers = Memcached::start_many(2)?;
    let addresses: Vec<_> = servers.iter().map(Memcached::address).collect();
    let proxy = proxy_to(&addresses, "").start()?;
    Ok((servers, proxy))
}

fn pymemcache_suite(name: &str, proxy: &Proxy) -> Result<()> {
    let source = suites::source("pymemcache", "4.0.0")?;
    let port = proxy.address().port().to_string();
    let arguments =
        ["-o", "addopts=", "pymemcache/test/test_integration.py", "--server", "127.0.0.1", "--port"];
    let arguments: Vec<&str> = arguments.into_iter().chain([port.as_str()]).collect();
    let counts = python::pytest(name, &source, &arguments, &[])?;
    assert_eq!((counts.passed, counts.failed), (200, 0), "{counts:?}");
    Ok(())
}

#[test]
fn pymemcaches_own_integration_suite() -> Result<()> {
    let (_servers, proxy) = in_front_of_two()?;
    pymemcache_suite("pymemcache", &proxy)
}

fn script(name: &str, proxy: &Proxy) -> Result<()> {
    let file = paths::repository().join("integration/python").join(name);
    let environment = [("MEMCACHED", proxy.address().to_string())];
    let output = python::script::<&Path>(&file, &[], &environment)?;
    ensure!(output.status.success(), "{name}:\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[test]
fn pylibmc_and_aiomcache() -> Result<()> {
    let (_servers, proxy) = in_front_of_two()?;
    script("memcached_clients.py", &proxy)?;
    script("memcached_clients.py", &embedded()?)
}

#[tokio::test]
async fn memcache_async() -> Result<()> {
    let (_servers, proxy) = in_front_of_two()?;
    let stream = tokio::net::TcpStream::connect(proxy.address()).await?;
    stream.set_nodelay(true)?;
    let mut client = Protocol::new(stream);
    let keys: Vec<String> = (0..100).map(|number| format!("key{number}")).collect();
    for key in &keys {
        client.set(key, key.as_bytes(), 100).await?;
    }
    let found = client.get_multi(&keys).await?;
    assert_eq!(found.len(), keys.len());
    assert!(found.iter().all(|(key, value)| key.as_bytes() == value));
    client.set("count", b"1", 0).await?;
    assert_eq!(client.increment("count", 41).await?, 42);
    client.delete("count").await?;
    let missing = client.get("count").await.err().context("it is still there")?;
    assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
    assert!(client.version().await?.starts_with("1."));
    client.flush().await?;
    assert!(client.get_multi(&keys).await?.is_empty());
    Ok(())
}

#[test]
fn servers_that_want_tls() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path())?;
    let issued = authority.issue("server", &["127.0.0.1"])?;
    let tls = format!("ssl_chain_cert={},ssl_key={}", issued.certificate.display(), issued.key.display());
    let server = Memcached::builder().arg("-Z").arg("-o").arg(tls).start()?;
    let believed = format!("    tls: {{ca: {}}}\n", authority.certificate().display());
    let proxy = proxy_to(&[server.address()], &believed).start()?;
    let mut client = Client::connect(proxy.address())?;
    let value = "v".repeat(500_000);
    assert_eq!(client.ask(&format!("set a 0 0 500000\r\n{value}\r\n"))?, "STORED");
    assert_eq!(client.ask_all("get a b\r\n")?, ["VALUE a 0 500000", value.as_str(), "END"]);
    // Nobody else is believed.
    let other = proxy_to(&[server.address()], "    tls: {}\n").alive_is_enough().start()?;
    assert!(Client::connect(other.address())?.ask("get a\r\n")?.starts_with("SERVER_ERROR "));
    Ok(())
}
