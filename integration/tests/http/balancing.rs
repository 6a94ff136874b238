//! Which server a request gets, as the configuration says.

use std::collections::BTreeMap;

use harness::{Kind, Proxy};

use super::fleet::{Client, Fleet, ok};

const BALANCED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 1
trusted: [$TRUSTED]
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    health: {probe: null, slow_start: $SLOW}
    $MORE
";

/// Servers that say who they are.
fn fleet(count: usize) -> Fleet {
    Fleet::start(count, |server, _| async move { ok(&server.index.to_string()) }).unwrap()
}

fn proxy(apps: impl std::fmt::Display, more: &str) -> Proxy {
    let proxy = Proxy::of(Kind::Http).config(BALANCED).set("APPS", apps).set("MORE", more);
    proxy.set("SLOW", "0s").set("TRUSTED", "127.0.0.0/8").start().unwrap()
}

/// Weight of three for the first.
fn heavy_and_light(fleet: &Fleet) -> String {
    format!("{{address: {}, weight: 3}}, {}", fleet.servers[0].address, fleet.servers[1].address)
}

async fn who(client: &mut Client, head: &str) -> usize {
    let reply =
        client.ask(&format!("GET /a/b?room=7 HTTP/1.1\r\nHost: shop.test\r\n{head}\r\n")).await.unwrap();
    assert_eq!(reply.status(), 200, "{reply:?}");
    reply.text().parse().unwrap()
}

#[tokio::test]
async fn each_policy_is_what_it_says() {
    for (balance, least, most) in [
        ("round_robin", 300, 300),
        ("least_loaded", 260, 340),
        ("p2c", 210, 290),
        // The heavier is taken until it seems to be three times as slow.
        ("peak_ewma", 200, 400),
    ] {
        let fleet = fleet(2);
        let proxy = proxy(heavy_and_light(&fleet), &format!("balance: {balance}"));
        let mut client = Client::connect(proxy.address()).await.unwrap();
        for _ in 0..400 {
            who(&mut client, "").await;
        }
        let first = fleet.served()[0];
        assert!((least..=most).contains(&first), "{balance}: {:?}", fleet.served());
    }
}

#[tokio::test]
async fn turns_go_on_over_reloads() {
    let fleet = fleet(3);
    let mut proxy = proxy(fleet.addresses(), "balance: round_robin");
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for round in 0..12 {
        who(&mut client, "").await;
        // Something else changes.
        proxy.set("TRUSTED", format!("10.0.0.{round}/32"));
        super::queueing::reload(&mut proxy, BALANCED);
    }
    assert_eq!(fleet.served(), [4, 4, 4]);
}

#[tokio::test]
async fn a_value_keeps_its_server_and_when_one_is_added_few_move() {
    let mut fleet = fleet(5);
    for (hash, line) in [
        ("{header: X-User}", "X-User: "),
        ("{cookie: user}", "Cookie: a=b; user="),
        ("client_ip", "X-Forwarded-For: 10.9.8."),
    ] {
        let mut homes = BTreeMap::new();
        let mut moved = 0;
        for (servers, is_first) in [(5, true), (6, false)] {
            while fleet.servers.len() < servers {
                fleet.add().unwrap();
            }
            let apps: Vec<_> =
                fleet.servers.iter().take(servers).map(|server| server.address.to_string()).collect();
            let proxy = proxy(apps.join(", "), &format!("balance: {{hash: {hash}}}"));
            let mut client = Client::connect(proxy.address()).await.unwrap();
            for user in 0..200 {
                let home = who(&mut client, &format!("{line}{user}\r\n")).await;
                assert_eq!(home, who(&mut client, &format!("{line}{user}\r\n")).await, "{hash} {user}");
                match homes.insert(user, home) {
                    Some(before) if before != home => {
                        assert_eq!(home, 5, "only to the new one");
                        moved += 1;
                    }
                    Some(_) => {}
                    None => assert!(is_first),
                }
            }
        }
        assert!((10..=60).contains(&moved), "{hash}: {moved} of 200 moved, a sixth should");
    }
}

#[tokio::test]
async fn a_server_that_joins_gets_little_at_first() {
    let mut fleet = fleet(1);
    let mut proxy = proxy(fleet.addresses(), "balance: round_robin");
    proxy.set("SLOW", "1h");
    super::queueing::reload(&mut proxy, BALANCED);
    fleet.add().unwrap();
    proxy.set("APPS", fleet.addresses());
    super::queueing::reload(&mut proxy, BALANCED);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..220 {
        who(&mut client, "").await;
    }
    assert_eq!(fleet.served(), [200, 20], "a tenth of the share of the other");
}

#[tokio::test]
async fn a_server_that_drains_gets_nothing_new() {
    let fleet = fleet(3);
    let draining = format!(
        "{}, {{address: {}, metadata: {{draining: \"true\"}}}}, {}",
        fleet.servers[0].address, fleet.servers[1].address, fleet.servers[2].address
    );
    for more in ["balance: least_loaded", "balance: round_robin", "concurrency: {hard: 5}"] {
        let proxy = proxy(&draining, more);
        let mut client = Client::connect(proxy.address()).await.unwrap();
        for _ in 0..60 {
            assert_ne!(who(&mut client, "").await, 1, "{more}");
        }
    }
}

#[tokio::test]
async fn our_own_cookie_is_set_once_and_says_nothing_of_the_server() {
    let fleet = fleet(4);
    let more = "affinity: {by: {cookie: {name: home, generate: true, secret: 0123456789abcdef}}}";
    let proxy = proxy(fleet.addresses(), more);
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let get = "GET / HTTP/1.1\r\nHost: shop.test\r\n";
    let first = client.ask(&format!("{get}\r\n")).await.unwrap();
    let set = first.header("set-cookie").unwrap().to_owned();
    assert!(set.starts_with("home=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
    let cookie = set.split(';').next().unwrap();
    for _ in 0..30 {
        let reply = client.ask(&format!("{get}Cookie: x=y; {cookie}\r\n\r\n")).await.unwrap();
        assert_eq!((reply.text(), reply.header("set-cookie")), (first.text(), None));
    }
    let forged = client.ask(&format!("{get}Cookie: home=0123456789abcdef\r\n\r\n")).await.unwrap();
    assert!(forged.header("set-cookie").is_some(), "what is not ours begins anew");
}
