//! Servers that go away with their values and come back with them: who stands in, and what is never seen again.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use harness::{Memcached, Proxy, Signal, eventually};
use serde_json::Value;

use crate::client::Client;
use crate::proxy_to;

const KEYS: usize = 60;

/// Away after two failures in a row, and asked again soon.
const WATCHED: &str = "    timeout: 400ms\n    connect_timeout: 400ms\n    health: {probe: {interval: 400ms, \
                       timeout: 400ms, failures: 2, successes: 1}, breaker: {base_ejection: 200ms}}\n";

fn addresses(servers: &[Memcached]) -> Vec<SocketAddr> {
    servers.iter().map(Memcached::address).collect()
}

/// The states of the servers of the cluster `main`, in the order of their slots.
fn states(proxy: &Proxy) -> Result<Vec<String>> {
    let status = proxy.status()?;
    let of = |value: &Value, name| value.get(name).cloned().with_context(|| format!("no {name}"));
    let clusters = of(&status, "clusters")?;
    let clusters = clusters.as_array().context("no list of clusters")?;
    let main = clusters.iter().find(|cluster| cluster.get("name").is_some_and(|name| name == "main"));
    let endpoints = of(main.context("no main")?, "endpoints")?;
    let endpoints = endpoints.as_array().context("no list of endpoints")?;
    let state = |endpoint| Ok(of(endpoint, "state")?.as_str().context("no word for a state")?.to_owned());
    endpoints.iter().map(state).collect()
}

fn until_states(proxy: &Proxy, wanted: &[&str]) -> Result<()> {
    eventually(&format!("the servers are {wanted:?}"), || {
        states(proxy).ok().filter(|states| states == wanted)
    })
    .map(drop)
}

fn set_all(client: &mut Client, value: &str) -> Result<()> {
    for number in 0..KEYS {
        let heard = client.ask(&format!("set key{number} 0 0 {}\r\n{value}\r\n", value.len()))?;
        ensure!(heard == "STORED", "key{number}: {heard}");
    }
    Ok(())
}

/// How many keys have this value, and how many have none; any other value or an error is one.
fn count(client: &mut Client, value: &str) -> Result<(usize, usize)> {
    let (mut found, mut missing) = (0, 0);
    for number in 0..KEYS {
        let heard = client.ask_all(&format!("get key{number}\r\n"))?;
        match heard.get(1) {
            None if heard == ["END"] => missing += 1,
            Some(line) if line == value => found += 1,
            _ => bail!("key{number}: {heard:?}"),
        }
    }
    Ok((found, missing))
}

/// The same, asked for with one `get`.
fn count_at_once(client: &mut Client, value: &str) -> Result<(usize, usize)> {
    let keys: String = (0..KEYS).map(|number| format!(" key{number}")).collect();
    let heard = client.ask_all(&format!("get{keys}\r\n"))?;
    let (end, items) = heard.split_last().context("no answer")?;
    ensure!(end == "END", "{heard:?}");
    let (items, rest) = items.as_chunks();
    let is_right = |[line, told]: &[String; 2]| line.starts_with("VALUE key") && told == value;
    ensure!(rest.is_empty() && items.iter().all(is_right), "{heard:?}");
    Ok((items.len(), KEYS - items.len()))
}

/// Two servers with "old" values; the first stops, everything is written anew, and the first goes on where it was.
fn returned(more: &str) -> Result<(Vec<Memcached>, Proxy, Client)> {
    let servers = Memcached::start_many(2)?;
    let proxy = proxy_to(&addresses(&servers), &format!("{more}{WATCHED}")).start()?;
    let mut client = Client::connect(proxy.address())?;
    set_all(&mut client, "old")?;
    let first = servers.first().context("no servers")?;
    first.signal(Signal::STOP)?;
    until_states(&proxy, &["down", "up"])?;
    set_all(&mut client, "new")?;
    assert_eq!(count(&mut client, "new")?, (KEYS, 0), "the other server stands in");
    assert_eq!(count_at_once(&mut client, "new")?, (KEYS, 0));
    first.signal(Signal::CONT)?;
    Ok((servers, proxy, client))
}

#[test]
fn a_server_that_returns_is_flushed_before_it_serves() -> Result<()> {
    let (servers, proxy, mut client) = returned("    failover: rehash\n")?;
    eventually("it is back", || {
        // Whatever is seen on the way is new or nothing.
        count(&mut client, "new").unwrap();
        states(&proxy).ok().filter(|states| states == &["up", "up"])
    })?;
    let (found, missing) = count(&mut client, "new")?;
    assert!(found > 0 && missing > 0, "its keys are gone, the other's are not: {found} and {missing}");
    set_all(&mut client, "newer")?;
    assert_eq!(count(&mut client, "newer")?, (KEYS, 0));
    let stats = Client::connect(servers[0].address())?.ask_all("stats\r\n")?;
    assert!(!stats.contains(&"STAT curr_items 0".to_owned()), "it serves again");
    Ok(())
}

/// What the flush is for: without it the old values are back.
#[test]
fn a_server_that_keeps_what_it_had_serves_it() -> Result<()> {
    let (_servers, proxy, mut client) = returned("    failover: rehash\n    on_return: keep\n")?;
    until_states(&proxy, &["up", "up"])?;
    assert!(count(&mut client, "new").is_err(), "no old value was seen");
    Ok(())
}

#[test]
fn what_stands_in_for_another_does_not_live_long() -> Result<()> {
    let (servers, _proxy, _client) = returned("    failover: rehash\n    failover_ttl: 30s\n")?;
    let mut other = Client::connect(servers[1].address())?;
    let mut capped = 0;
    for number in 0..KEYS {
        let heard = other.ask(&format!("mg key{number} t\r\n"))?;
        match heard.strip_prefix("HD t").map(str::parse::<i64>) {
            Some(Ok(-1)) => (),
            Some(Ok(1..=30)) => capped += 1,
            _ => bail!("key{number}: {heard}"),
        }
    }
    assert!((1..KEYS).contains(&capped), "{capped} of {KEYS}");
    Ok(())
}

#[test]
fn keys_of_a_server_that_is_away_can_miss() -> Result<()> {
    let servers = Memcached::start_many(2)?;
    let proxy = proxy_to(&addresses(&servers), &format!("    failover: miss\n{WATCHED}")).start()?;
    let mut client = Client::connect(proxy.address())?;
    set_all(&mut client, "old")?;
    servers[0].signal(Signal::STOP)?;
    until_states(&proxy, &["down", "up"])?;
    let (found, missing) = count(&mut client, "old")?;
    assert!(found > 0 && missing > 0, "{found} and {missing}");
    assert_eq!(count_at_once(&mut client, "old")?, (found, missing));
    let mut lost = 0;
    for number in 0..KEYS {
        let key = format!("key{number}");
        match client.ask(&format!("set {key} 0 0 3\r\nnew\r\n"))?.as_str() {
            "STORED" => continue,
            "NOT_STORED" => lost += 1,
            other => bail!("{key}: {other}"),
        }
        assert_eq!(client.ask(&format!("delete {key}\r\n"))?, "NOT_FOUND");
        assert_eq!(client.ask(&format!("incr {key} 1\r\n"))?, "NOT_FOUND");
        assert_eq!(client.ask(&format!("touch {key} 1\r\n"))?, "NOT_FOUND");
        assert_eq!(client.ask(&format!("add {key} 0 0 3\r\nnew\r\n"))?, "NOT_STORED");
        assert_eq!(client.ask(&format!("cas {key} 0 0 3 1\r\nnew\r\n"))?, "NOT_FOUND");
    }
    assert_eq!(lost, missing);
    servers[0].signal(Signal::CONT)?;
    until_states(&proxy, &["up", "up"])?;
    assert_eq!(count(&mut client, "new")?, (KEYS - lost, lost), "what was deleted meanwhile stays away");
    Ok(())
}

#[test]
fn keys_of_a_server_that_is_away_can_go_to_a_gutter() -> Result<()> {
    let (mut servers, gutter) = (Memcached::start_many(2)?, Memcached::start()?);
    let more = format!(
        "    failover: {{gutter: gutter}}\n    failover_ttl: 20s\n{WATCHED}  gutter:\n    endpoints: [{}]\n\
         default_cluster: main\n",
        gutter.address()
    );
    let proxy = proxy_to(&addresses(&servers), &more).start()?;
    let mut client = Client::connect(proxy.address())?;
    set_all(&mut client, "old")?;
    servers[0].signal(Signal::STOP)?;
    until_states(&proxy, &["down", "up"])?;
    set_all(&mut client, "new")?;
    assert_eq!(count(&mut client, "new")?, (KEYS, 0));
    assert_eq!(count_at_once(&mut client, "new")?, (KEYS, 0));
    let mut beside = Client::connect(gutter.address())?;
    let lives = |heard: &str| heard.strip_prefix("HD t").and_then(|ttl| ttl.parse::<i64>().ok());
    let mut held = 0;
    for number in 0..KEYS {
        match beside.ask(&format!("mg key{number} t\r\n"))?.as_str() {
            "EN" => (),
            heard if lives(heard).is_some_and(|ttl| (1..=20).contains(&ttl)) => held += 1,
            heard => bail!("key{number}: {heard}"),
        }
    }
    assert!((1..KEYS).contains(&held), "{held} of {KEYS}");
    servers[0].signal(Signal::CONT)?;
    until_states(&proxy, &["up", "up"])?;
    assert_eq!(count(&mut client, "new")?, (KEYS - held, held), "its own keys are gone, and none is old");
    servers[0].kill()?;
    until_states(&proxy, &["down", "up"])?;
    servers[0].restart()?;
    until_states(&proxy, &["up", "up"])
}
