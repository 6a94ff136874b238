//! Tenants: who may come in, whose keys are whose, what each may use, and that none sees or slows another.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::{Authority, Kind, Memcached, PATIENCE, Proxy, ProxyBuilder, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Client;
use crate::proxy_to;

/// `secret`, hashed as `argon2 -id` does, with parameters that cost little.
const HASH: &str =
    "$argon2id$v=19$m=64,t=1,p=1$c29tZSBzYWx0IG1vcmU$M3dCerT2NmYEwHghGkdfvky5uARVCgSKHpj0QRI+vX4";

/// Two tenants with passwords, `shop` and `news`, and what else `tenants` and `more` say.
fn proxy(servers: &[SocketAddr], tenants: &str, more: &str) -> ProxyBuilder {
    proxy_to(
        servers,
        &format!(
            "tenants:\n  shop: {{credentials: [{{user: shop, password: secret}}]}}\n\
             \x20 news: {{credentials: [{{user: news, password: other}}]}}\n{tenants}{more}"
        ),
    )
}

fn log_in(client: &mut Client, user: &str, password: &str) -> Result<String> {
    let value = format!("{user} {password}");
    client.ask(&format!("set login 0 0 {}\r\n{value}\r\n", value.len()))
}

fn client_of(proxy: &Proxy, user: &str, password: &str) -> Result<Client> {
    let mut client = Client::connect(proxy.address())?;
    let heard = log_in(&mut client, user, password)?;
    ensure!(heard == "STORED", "{user} was told {heard}");
    Ok(client)
}

#[test]
fn logging_in_is_what_memcached_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let users = folder.path().join("users");
    std::fs::write(&users, "shop:secret\nnews:other\n")?;
    let stock = Memcached::builder().arg("-Y").arg(users.display().to_string()).start()?;
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "").start()?;
    for request in [
        "set a 0 0 11\r\nshop secret\r\nget a\r\n",
        "set a 0 0 11 noreply\r\nshop secret\r\n",
        "set a 0 0 11\nshop secret\r\n",
        "set a b c 11\r\nshop secret\r\n",
        "set a 0 0 15\r\nshop secret foo\r\n",
        "set a 0 0 11\r\nshop secret\r\nset a 0 0 1\r\nx\r\nget a\r\n",
        "set a 0 0 10\r\nshop wrong\r\n",
        "set a 0 0 4\r\nshop\r\n",
        "set a 0 0 0\r\n\r\n",
        "set a 0 0 3\r\na bxx",
        "set a 0 0\r\n",
        "set a 0 0 x\r\n",
        "set a 0 0 -1\r\n",
        "set a 0 0 3x\r\n",
        "add a 0 0 3\r\n",
        "  set a  0 0 14\r\n shop  secret \r\n",
        "get a\r\n",
        "mg a v\r\n",
        "version\r\n",
        "quit\r\n",
        "flush_all\r\n",
        "\r\n",
    ] {
        // memcached answers two refused commands of one packet with one line: they are sent one by one.
        let ask = |address| -> Result<Vec<String>> {
            let mut client = Client::connect(address)?;
            client.send(request.as_bytes())?;
            let mut heard = vec![client.line()?];
            // Known in no state, and answered in each: what came before it has been answered.
            client.send(b"mark\r\n")?;
            while heard.len() < 2
                || !["ERROR", "CLIENT_ERROR unauthenticated"].contains(&heard[heard.len() - 1].as_str())
            {
                heard.push(client.line()?);
            }
            Ok(heard)
        };
        assert_eq!(ask(proxy.address())?, ask(stock.address())?, "{request:?}");
    }
    // An endless line ends it.
    let mut client = Client::connect(proxy.address())?;
    client.send(&[b'x'; 3000])?;
    assert!(client.line().is_err(), "the connection is still open");
    Ok(())
}

#[test]
fn keys_are_a_tenants_own() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "").start()?;
    let mut shop = client_of(&proxy, "shop", "secret")?;
    let mut news = client_of(&proxy, "news", "other")?;
    assert_eq!(shop.ask("set a 5 0 4\r\nshop\r\n")?, "STORED");
    assert_eq!(news.ask_all("get a\r\n")?, ["END"]);
    assert_eq!(news.ask("set a 6 0 4\r\nnews\r\n")?, "STORED");
    assert_eq!(shop.ask_all("get a b\r\n")?, ["VALUE a 5 4", "shop", "END"]);
    assert_eq!(news.ask_all("gat 0 a\r\n")?, ["VALUE a 6 4", "news", "END"]);
    // Nobody's key looks like another's, however it is made.
    for key in ["shop/0:a", "../shop/0:a", "a", "0:a"] {
        news.ask(&format!("delete {key}\r\n"))?;
    }
    assert_eq!(shop.ask_all("get a\r\n")?, ["VALUE a 5 4", "shop", "END"]);
    let mut direct = Client::connect(server.address())?;
    assert_eq!(direct.ask_all("get shop/0:a news/0:a\r\n")?, ["VALUE shop/0:a 5 4", "shop", "END"]);
    // Meta clients are told their own keys, coded or not.
    assert_eq!(shop.ask("mg a k s O1\r\n")?, "HD ka s4 O1");
    assert_eq!(shop.ask("mg YQ== b k\r\n")?, "HD kYQ== b");
    assert_eq!(shop.ask("ms AAEgCg== 1 b k\r\nx\r\n")?, "HD kAAEgCg== b");
    assert_eq!(shop.ask("mg AAEgCg== b k s\r\n")?, "HD kAAEgCg== b s1");
    assert!(news.ask("mg AAEgCg== b k s\r\n")?.starts_with("EN"));
    Ok(())
}

#[test]
fn the_longest_keys_are_hashed_and_told_as_they_are() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "").start()?;
    let mut shop = client_of(&proxy, "shop", "secret")?;
    let keys: Vec<String> = (0..20).map(|number| format!("{}{number:05}", "k".repeat(245))).collect();
    for key in &keys {
        assert_eq!(shop.ask(&format!("set {key} 0 0 5\r\n{}\r\n", &key[245..]))?, "STORED");
    }
    let heard = shop.ask_all(&format!("get {}\r\n", keys.join(" ")))?;
    let wanted: Vec<_> =
        keys.iter().flat_map(|key| [format!("VALUE {key} 0 5"), key[245..].to_owned()]).collect();
    assert_eq!(heard[..40], wanted[..]);
    let key = &keys[7];
    assert_eq!(shop.ask(&format!("mg {key} k v\r\n"))?, format!("VA 5 k{key}"));
    assert_eq!(shop.line()?, "00007");
    assert_eq!(shop.ask(&format!("incr {key} 3\r\n"))?, "10");
    assert_eq!(shop.ask(&format!("delete {key}\r\n"))?, "DELETED");
    assert_eq!(shop.ask_all(&format!("get {key}\r\n"))?, ["END"]);
    // One byte more is no key.
    assert_eq!(shop.ask(&format!("get {key}x\r\n"))?, "CLIENT_ERROR bad command line format");
    Ok(())
}

#[tokio::test]
async fn a_listener_a_certificate_or_nothing_tells_who_it_is() -> Result<()> {
    let server = Memcached::start()?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path())?;
    let (own, shop) = (authority.issue("own", &["localhost"])?, authority.issue("shop", &["shop.internal"])?);
    let other = authority.issue("other", &["other.internal"])?;
    let proxy = Proxy::of(Kind::Memcached)
        .config(
            "listeners:\n  - {address: $LISTEN}\n  - {address: $NEWS, name: news}\n  \
             - {address: $TLS, tls: {certificate: $OWN, key: $KEY, client_ca: $CA, client_auth: optional}}\n\
             admin: {address: $ADMIN}\nworkers: 2\nclusters: {main: {endpoints: [$SERVER]}}\n\
             tenants:\n  shop: {certificates: [shop.internal]}\n  news: {listeners: [news]}\n  rest: {}\n\
             default_tenant: rest\n",
        )
        .port("NEWS")
        .port("TLS")
        .set("SERVER", server.address())
        .set("OWN", own.certificate.display())
        .set("KEY", own.key.display())
        .set("CA", authority.certificate().display())
        .start()?;
    for (address, name) in [(proxy.address(), "rest"), (proxy.at("NEWS"), "news")] {
        let mut client = Client::connect(address)?;
        assert_eq!(client.ask(&format!("set who 0 0 4\r\n{name}\r\n"))?, "STORED");
    }
    for (identity, name) in [(Some(&shop), "shop"), (Some(&other), "rest"), (None, "rest")] {
        let stream = tokio::net::TcpStream::connect(proxy.at("TLS")).await?;
        let mut stream =
            harness::tls::connect(stream, "localhost", &authority.certificate(), identity).await?;
        let request = format!("set who 0 0 4\r\n{name}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut heard = [0; 8];
        stream.read_exact(&mut heard).await?;
        assert_eq!(&heard, b"STORED\r\n");
    }
    let mut direct = Client::connect(server.address())?;
    let heard = direct.ask_all("get shop/0:who news/0:who rest/0:who\r\n")?;
    assert_eq!([&heard[1], &heard[3], &heard[5]], ["shop", "news", "rest"]);
    Ok(())
}

#[test]
fn sasl_in_the_binary_protocol() -> Result<()> {
    let server = Memcached::start()?;
    let tenants = "  hashed: {credentials: [{user: hashed, password: '$HASH'}]}\n";
    let proxy = proxy(&[server.address()], tenants, "").set("HASH", HASH).start()?;
    let mut client = Client::connect(proxy.address())?;
    let mut ask = |opcode: u8, key: &str, value: &str, extras: &[u8]| -> Result<(u8, String)> {
        let body_len = u8::try_from(extras.len() + key.len() + value.len())?;
        let mut packet = vec![0x80, opcode, 0, u8::try_from(key.len())?, u8::try_from(extras.len())?];
        packet.extend_from_slice(&[0, 0, 0, 0, 0, 0, body_len, 0, 0, 0, 7]);
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(&[extras, key.as_bytes(), value.as_bytes()].concat());
        client.send(&packet)?;
        let head = client.take(24)?;
        let body = client.take(usize::from(head[11]))?;
        Ok((head[7], String::from_utf8_lossy(&body).into_owned()))
    };
    assert_eq!(ask(0x20, "", "", b"")?, (0, "PLAIN".into()));
    assert_eq!(ask(0x21, "PLAIN", "\0hashed\0wrong", b"")?, (0x20, "Auth failure.".into()));
    assert_eq!(ask(0x21, "PLAIN", "\0hashed\0secret", b"")?, (0, "Authenticated".into()));
    assert_eq!(ask(0x01, "a", "x", &[0; 8])?.0, 0);
    assert_eq!(ask(0x0c, "a", "", b"")?, (0, "\0\0\0\0ax".into()));
    let mut direct = Client::connect(server.address())?;
    assert_eq!(direct.ask_all("get hashed/0:a\r\n")?.len(), 3);
    // Before that nothing is served, and the connection ends.
    let mut stranger = Client::connect(proxy.address())?;
    stranger.send(&[&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1][..], &[0; 12], b"a"].concat())?;
    assert_eq!(stranger.take(8)?[6..], [0, 0x20]);
    stranger.take(16 + 13)?;
    assert_eq!(stranger.fill()?, 0);
    Ok(())
}

#[test]
fn limits_are_told_as_memcached_tells_such_things() -> Result<()> {
    let server = Memcached::start()?;
    let tenants = "  small:\n    credentials: [{user: small, password: s}]\n    \
                   limits: {connections: 1, item: 1KiB, requests_per_second: 100, patience: 0s}\n";
    let proxy = proxy(&[server.address()], tenants, "").start()?;
    let mut small = client_of(&proxy, "small", "s")?;
    let mut second = Client::connect(proxy.address())?;
    assert_eq!(log_in(&mut second, "small", "s")?, "ERROR Too many open connections");
    assert!(second.line().is_err());
    assert_eq!(
        small.ask(&format!("set a 0 0 1025\r\n{}\r\n", "x".repeat(1025)))?,
        "SERVER_ERROR object too large for cache"
    );
    let begun = Instant::now();
    let mut refused = 0;
    for _ in 0..300 {
        let heard = small.ask("get a\r\n")?;
        if heard != "END" {
            assert!(
                heard.starts_with("SERVER_ERROR this tenant is over its requests_per_second, try again in "),
                "{heard}"
            );
            refused += 1;
        }
    }
    let most = 11 + usize::try_from(begun.elapsed().as_millis() / 10)?;
    assert!(300 - refused <= most, "{} of 300 in {:?}", 300 - refused, begun.elapsed());
    assert!(refused > 0);
    // Others go on.
    let mut shop = client_of(&proxy, "shop", "secret")?;
    for _ in 0..300 {
        assert_eq!(shop.ask("get a\r\n")?, "END");
    }
    drop(small);
    eventually("the connection is given back", || client_of(&proxy, "small", "s").ok())?;
    let metrics = proxy.metrics()?;
    assert!(metrics.names().iter().any(|name| name.contains("groove_memcached_tenant_refused")));
    Ok(())
}

#[test]
fn a_little_over_the_rate_waits() -> Result<()> {
    let server = Memcached::start()?;
    let tenants = "  slow:\n    credentials: [{user: slow, password: s}]\n    \
                   limits: {requests_per_second: 500, patience: 1s}\n";
    let proxy = proxy(&[server.address()], tenants, "").start()?;
    let mut slow = client_of(&proxy, "slow", "s")?;
    let begun = Instant::now();
    // 50 lie ready; the other 250 take half a second. Sent at once, answered in order.
    slow.send("get a\r\n".repeat(300).as_bytes())?;
    for _ in 0..300 {
        assert_eq!(slow.line()?, "END");
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(490), "{took:?}");
    assert!(took < PATIENCE, "{took:?}");
    Ok(())
}

#[test]
fn flush_all_is_a_tenants_own_and_every_proxys() -> Result<()> {
    let server = Memcached::start()?;
    let folder = tempfile::tempdir()?;
    let more = format!("state: {}\n", folder.path().join("state").display());
    let mut proxies = Vec::new();
    for _ in 0..3 {
        proxies.push(proxy(&[server.address()], "", &more).start()?);
    }
    let mut news = client_of(&proxies[0], "news", "other")?;
    assert_eq!(news.ask("set a 0 0 1\r\nx\r\n")?, "STORED");
    let mut shops: Vec<_> =
        proxies.iter().map(|proxy| client_of(proxy, "shop", "secret")).collect::<Result<_>>()?;
    for round in 0..10 {
        let flusher = round % 3;
        for key in 0..20 {
            assert_eq!(shops[(key + round) % 3].ask(&format!("set k{key} 0 0 1\r\nx\r\n"))?, "STORED");
        }
        // One that is sent behind it is of the new generation.
        shops[flusher].send(b"flush_all\r\nget k1\r\nset own 0 0 1\r\ny\r\n")?;
        assert_eq!(
            [shops[flusher].line()?, shops[flusher].line()?, shops[flusher].line()?],
            ["OK", "END", "STORED"]
        );
        // Nobody sees anything old once it was answered, and everybody what is new.
        for (number, shop) in shops.iter_mut().enumerate() {
            for key in 0..20 {
                assert_eq!(
                    shop.ask_all(&format!("get k{key}\r\n"))?,
                    ["END"],
                    "proxy {number}, round {round}"
                );
            }
            assert_eq!(shop.ask_all("get own\r\n")?, ["VALUE own 0 1", "y", "END"]);
        }
    }
    assert_eq!(news.ask_all("get a\r\n")?, ["VALUE a 0 1", "x", "END"], "another tenant keeps what it has");
    // It outlives the proxies.
    assert_eq!(shops[0].ask("set kept 0 0 1\r\nz\r\n")?, "STORED");
    drop((shops, news));
    drop(proxies);
    let after = proxy(&[server.address()], "", &more).start()?;
    let mut shop = client_of(&after, "shop", "secret")?;
    assert_eq!(shop.ask_all("get kept k1 own\r\n")?.len(), 5, "k1 is of an older generation");
    // Later is later.
    assert_eq!(shop.ask("flush_all 2\r\n")?, "OK");
    assert_eq!(shop.ask_all("get kept\r\n")?.len(), 3);
    eventually("the delay is over", || (shop.ask_all("get kept\r\n").ok()? == ["END"]).then_some(()))?;
    Ok(())
}

#[test]
fn a_proxy_that_is_stopped_makes_flush_all_fail_rather_than_lie() -> Result<()> {
    let server = Memcached::start()?;
    let folder = tempfile::tempdir()?;
    let more = format!("state: {}\n", folder.path().join("state").display());
    let (one, other) =
        (proxy(&[server.address()], "", &more).start()?, proxy(&[server.address()], "", &more).start()?);
    let mut shop = client_of(&one, "shop", "secret")?;
    eventually("both go by it", || (shop.ask("flush_all\r\n").ok()? == "OK").then_some(()))?;
    other.signal(harness::Signal::STOP)?;
    let heard = shop.ask("flush_all\r\n");
    other.signal(harness::Signal::CONT)?;
    assert_eq!(heard?, "SERVER_ERROR flush_all is not confirmed by 1 of the proxies yet, try again");
    eventually("both go by it", || (shop.ask("flush_all\r\n").ok()? == "OK").then_some(()))?;
    Ok(())
}

#[test]
fn without_a_store_a_tenant_cannot_flush() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "").start()?;
    let mut shop = client_of(&proxy, "shop", "secret")?;
    let heard = shop.ask("flush_all\r\n")?;
    assert!(heard.starts_with("SERVER_ERROR flush_all of a tenant needs a folder"), "{heard}");
    assert_eq!(shop.ask("get a\r\n")?, "END");
    Ok(())
}

#[test]
fn statistics_are_a_tenants_own() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "").start()?;
    let mut news = client_of(&proxy, "news", "other")?;
    for _ in 0..50 {
        assert_eq!(news.ask("set a 0 0 1\r\nx\r\n")?, "STORED");
    }
    let mut shop = client_of(&proxy, "shop", "secret")?;
    assert_eq!(shop.ask("set a 0 0 1\r\nx\r\n")?, "STORED");
    assert_eq!(shop.ask_all("get a b c\r\n")?.len(), 3);
    assert_eq!(shop.ask("delete a\r\n")?, "DELETED");
    let stats = shop.ask_all("stats\r\n")?;
    for line in [
        "STAT curr_connections 1",
        "STAT cmd_set 1",
        "STAT cmd_get 3",
        "STAT get_hits 1",
        "STAT get_misses 2",
        "STAT delete_hits 1",
        "STAT auth_cmds 1",
        "END",
    ] {
        assert!(stats.iter().any(|stat| stat == line), "{line} is not in {stats:?}");
    }
    for request in ["stats items\r\n", "stats slabs\r\n", "stats sizes\r\n", "stats settings\r\n"] {
        assert_eq!(shop.ask_all(request)?, ["END"], "{request}");
    }
    for request in [
        "stats conns\r\n",
        "stats cachedump 1 100\r\n",
        "stats detail on\r\n",
        "stats reset\r\n",
        "verbosity 1\r\n",
        "cache_memlimit 64\r\n",
        "lru_crawler metadump all\r\n",
        "watch fetchers\r\n",
    ] {
        let heard = shop.ask(request)?;
        assert!(heard.contains("ERROR"), "{request}: {heard}");
    }
    assert_eq!(shop.ask("mn\r\n")?, "MN");
    Ok(())
}

#[test]
fn a_reload_turns_out_who_is_no_longer_let_in() -> Result<()> {
    let server = Memcached::start()?;
    let mut proxy = proxy(&[server.address()], "", "").start()?;
    let mut shop = client_of(&proxy, "shop", "secret")?;
    let mut news = client_of(&proxy, "news", "other")?;
    assert_eq!(news.ask("set a 0 0 1\r\nx\r\n")?, "STORED");
    let text = format!(
        "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\nworkers: 2\n\
         clusters: {{main: {{endpoints: [{}]}}}}\ntenants:\n  \
         news: {{credentials: [{{user: news, password: other}}], limits: {{item: 1KiB}}}}\n  \
         shop: {{credentials: [{{user: shop, password: changed}}]}}\n",
        server.address()
    );
    proxy.rewrite(&text)?;
    eventually("the old password is turned out", || shop.ask("get a\r\n").is_err().then_some(()))?;
    // Who still is who it was goes on, under the new limits.
    assert_eq!(news.ask_all("get a\r\n")?, ["VALUE a 0 1", "x", "END"]);
    let large = format!("set b 0 0 2000\r\n{}\r\n", "x".repeat(2000));
    assert_eq!(news.ask(&large)?, "SERVER_ERROR object too large for cache");
    let mut again = Client::connect(proxy.address())?;
    assert_eq!(log_in(&mut again, "shop", "secret")?, "CLIENT_ERROR authentication failure");
    assert_eq!(log_in(&mut again, "shop", "changed")?, "STORED");
    Ok(())
}

#[test]
fn guesses_cost_time_and_only_the_guesser() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "authentication: {timeout: 3s, pending: 4}\n").start()?;
    let begun = Instant::now();
    let mut guesser = Client::connect(proxy.address())?;
    for number in 0..5 {
        assert_eq!(
            log_in(&mut guesser, "shop", &format!("guess{number}"))?,
            "CLIENT_ERROR authentication failure"
        );
    }
    assert!(begun.elapsed() >= Duration::from_millis(700), "five guesses took {:?}", begun.elapsed());
    // Another user of the same address does not wait.
    let begun = Instant::now();
    client_of(&proxy, "news", "other")?;
    assert!(begun.elapsed() < Duration::from_millis(700), "it took {:?}", begun.elapsed());
    // Those who say nothing give way to those who come, and go after a while.
    let mut silent: Vec<_> = (0..12).map(|_| Client::connect(proxy.address())).collect::<Result<_>>()?;
    client_of(&proxy, "news", "other")?;
    assert!(silent[0].line().is_err(), "the oldest is still there");
    let last = silent.last_mut().context("there are twelve")?;
    let begun = Instant::now();
    assert!(last.line().is_err());
    assert!(begun.elapsed() < PATIENCE);
    Ok(())
}

/// Requests that each connection of the flood has in flight.
const FLOOD_DEPTH: usize = 64;

/// A tenant that never stops asking, on many connections: how long each of its batches took.
fn flood(proxy: SocketAddr, stop: &AtomicBool) -> Result<Vec<Duration>> {
    let mut clients: Vec<Client> = (0..16).map(|_| Client::connect(proxy)).collect::<Result<_>>()?;
    for client in &mut clients {
        ensure!(log_in(client, "news", "other")? == "STORED");
    }
    let batch = "get aaaaaaaaaaaaaaaa\r\n".repeat(FLOOD_DEPTH);
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        for client in &mut clients {
            client.send(batch.as_bytes())?;
        }
        for client in &mut clients {
            ensure!(client.take(FLOOD_DEPTH * "END\r\n".len())?.ends_with(b"END\r\n"));
        }
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// One request after the other, with a pause: sorted by how long they took.
fn quiet(client: &mut Client, requests: usize) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..requests {
        let begun = Instant::now();
        ensure!(client.ask("get a\r\n")? == "END");
        took.push(begun.elapsed());
        std::thread::sleep(Duration::from_micros(500));
    }
    took.sort();
    Ok(took)
}

#[test]
fn a_flood_does_not_drown_a_quiet_tenant() -> Result<()> {
    let server = Memcached::start()?;
    let proxy = proxy(&[server.address()], "", "").start()?;
    let mut client = client_of(&proxy, "shop", "secret")?;
    quiet(&mut client, 100)?;
    let (mut alone, mut flooded, mut batches) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..4 {
        alone.extend(quiet(&mut client, 250)?);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| flood(proxy.address(), &stop));
            let measured = quiet(&mut client, 250);
            stop.store(true, Ordering::Relaxed);
            batches.extend(flood.join().ok().context("the flood panicked")??);
            flooded.extend(measured?);
            Ok::<_, anyhow::Error>(())
        })?;
    }
    let quantile = |times: &mut Vec<Duration>, percent: usize| {
        times.sort();
        times[times.len() * percent / 100]
    };
    eprintln!(
        "alone p50 {:?} p99 {:?}, beside a flood p50 {:?} p99 {:?}, the flood's own batches p50 {:?}",
        quantile(&mut alone, 50),
        quantile(&mut alone, 99),
        quantile(&mut flooded, 50),
        quantile(&mut flooded, 99),
        quantile(&mut batches, 50),
    );
    // Figures are for people: processors are shared here. But in one line with the flood it would take a whole batch.
    assert!(
        quantile(&mut flooded, 50) * 3 < quantile(&mut batches, 50),
        "the quiet tenant stands in one line"
    );
    Ok(())
}
