//! Exact bounds, and the one queue before them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{App, Kind, Proxy, eventually};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::fleet::{Client, Fleet, get, ok};

const BOUNDED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 2
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    health: {probe: null}
    concurrency: {hard: $HARD}
    queue: {$QUEUE}
";

fn bounded(apps: impl std::fmt::Display, hard: usize, queue: &str) -> Proxy {
    let proxy = Proxy::of(Kind::Http).config(BOUNDED).set("APPS", apps).set("HARD", hard);
    proxy.set("QUEUE", queue).start().unwrap()
}

fn metric(proxy: &Proxy, name: &str, labels: &[(&str, &str)]) -> f64 {
    proxy.metrics().unwrap().sum(name, labels).unwrap_or(0.0)
}

fn until_waiting(proxy: &Proxy, count: usize) {
    let seen = || (metric(proxy, "groove_http_queue_waiting", &[]) == count as f64).then_some(());
    eventually(&format!("{count} in the queue"), seen).unwrap();
}

/// Until so many requests are at the first server.
fn at_server(fleet: &Fleet, count: usize) {
    let begun = || (fleet.servers[0].in_flight.load(Ordering::SeqCst) == count).then_some(());
    eventually(&format!("{count} at the server"), begun).unwrap();
}

/// Another configuration, taken when this returns.
pub(super) fn reload(proxy: &mut Proxy, template: &str) {
    proxy.rewrite(template).unwrap();
    let request = ::http::Request::post("/api/v1/reload").header("host", "127.0.0.1");
    let reply = harness::http::send(proxy.admin(), request.body(Bytes::new()).unwrap()).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Servers that answer when a permit is there.
fn gated(count: usize) -> (Fleet, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    let fleet = Fleet::start(count, move |_, asked| {
        let gate = Arc::clone(&held);
        async move {
            gate.acquire().await.unwrap().forget();
            ok(asked.target())
        }
    });
    (fleet.unwrap(), gate)
}

/// The chi-square statistic of counts that should be equal.
fn chi_square(counts: &[usize]) -> f64 {
    let expected = counts.iter().sum::<usize>() as f64 / counts.len() as f64;
    counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum()
}

/// The 99.9th percentile for 19 degrees of freedom.
const CHI_SQUARE_19_MAX: f64 = 43.82;

#[tokio::test]
async fn twenty_servers_that_take_one_never_see_two_from_five_hundred_clients() {
    const CLIENTS: usize = 500;
    const EACH: usize = 12;
    let fleet = Fleet::start(20, |server, _| async move {
        tokio::time::sleep(Duration::from_millis(1 + server.index as u64 % 3)).await;
        ok("done")
    })
    .unwrap();
    let proxy = bounded(fleet.addresses(), 1, "max: 1000");
    let address = proxy.address();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            tokio::spawn(async move {
                let mut connection = Client::connect(address).await?;
                for number in 0..EACH {
                    connection.get(&format!("/{client}/{number}")).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap().unwrap();
    }
    assert_eq!(fleet.most_in_flight(), 1, "a server has seen two at once");
    assert_eq!(fleet.served().iter().sum::<usize>(), CLIENTS * EACH, "each request was served once");
    assert!(metric(&proxy, "groove_http_queue_seconds_count", &[]) > 0.0, "somebody has waited");
    assert_eq!(metric(&proxy, "groove_http_queue_waiting", &[]), 0.0);
    assert_eq!(metric(&proxy, "groove_http_queue_bytes", &[]), 0.0);
}

#[tokio::test]
async fn the_pick_among_idle_servers_is_uniform() {
    let fleet = Fleet::start(20, |_, _| async { ok("done") }).unwrap();
    let proxy = bounded(fleet.addresses(), 1, "max: 1000");
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..4000 {
        client.get("/").await.unwrap();
    }
    let chi = chi_square(&fleet.served());
    assert!(chi < CHI_SQUARE_19_MAX, "chi-square {chi:.1} of {:?}", fleet.served());
}

#[tokio::test]
async fn the_queue_is_first_in_first_out_over_all_workers() {
    const WAITING: usize = 40;
    let (fleet, gate) = gated(1);
    let proxy = bounded(fleet.addresses(), 1, "max: 100");
    let mut clients = Vec::new();
    for number in 0..=WAITING {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&get(&format!("/{number}"))).await.unwrap();
        clients.push(client);
        // The first is served; each of the others is in line before the next comes.
        until_waiting(&proxy, number);
        if number == 0 {
            at_server(&fleet, 1);
        }
    }
    gate.add_permits(WAITING + 1);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reply().await.unwrap().text(), format!("/{number}"));
    }
    let order = fleet.servers[0].targets.lock().unwrap().clone();
    assert_eq!(order, (0..=WAITING).map(|number| format!("/{number}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_client_that_leaves_is_out_of_the_queue_at_once_even_behind_its_body() {
    let (fleet, gate) = gated(1);
    let proxy = bounded(fleet.addresses(), 1, "max: 2");
    let mut first = Client::connect(proxy.address()).await.unwrap();
    first.send(&get("/first")).await.unwrap();
    at_server(&fleet, 1);

    // Its body is more than the proxy holds: the close lies behind bytes that nobody reads.
    let mut gone = Client::connect(proxy.address()).await.unwrap();
    gone.send("POST /gone HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2000000\r\n\r\n").await.unwrap();
    until_waiting(&proxy, 1);
    gone.stream.write_all(&vec![b'x'; 100_000]).await.unwrap();
    let mut stays = Client::connect(proxy.address()).await.unwrap();
    stays.send(&get("/stays")).await.unwrap();
    until_waiting(&proxy, 2);
    drop(gone);
    until_waiting(&proxy, 1);
    assert_eq!(metric(&proxy, "groove_http_queue_refused_total", &[("reason", "left")]), 1.0);

    gate.add_permits(2);
    assert_eq!(first.reply().await.unwrap().text(), "/first");
    assert_eq!(stays.reply().await.unwrap().text(), "/stays");
    let order = fleet.servers[0].targets.lock().unwrap().clone();
    assert_eq!(order, ["/first", "/stays"], "the one that left was never sent");
}

#[tokio::test]
async fn over_the_count_the_bytes_and_the_age_it_is_503() {
    let (fleet, _gate) = gated(1);
    let proxy = bounded(fleet.addresses(), 1, "max: 1, timeout: 400ms, bytes: 64KiB");
    let mut busy = Client::connect(proxy.address()).await.unwrap();
    busy.send(&get("/busy")).await.unwrap();
    at_server(&fleet, 1);
    let refused = |reason: &str| metric(&proxy, "groove_http_queue_refused_total", &[("reason", reason)]);

    let since = Instant::now();
    let mut waits = Client::connect(proxy.address()).await.unwrap();
    waits.send(&get("/waits")).await.unwrap();
    until_waiting(&proxy, 1);
    let mut over = Client::connect(proxy.address()).await.unwrap();
    let reply = over.ask(&get("/over")).await.unwrap();
    assert_eq!((reply.status(), reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert_eq!(refused("full"), 1.0);

    let reply = waits.reply().await.unwrap();
    assert!(since.elapsed() >= Duration::from_millis(400), "too soon");
    assert_eq!((reply.status(), reply.header("retry-after")), (503, Some("1")), "{reply:?}");
    assert_eq!(refused("timeout"), 1.0);

    // Both connections are still good, and what they sent was never seen.
    let big = format!(
        "POST /big HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 70000\r\n\r\n{}",
        "x".repeat(70_000)
    );
    let mut big_client = Client::connect(proxy.address()).await.unwrap();
    let reply = big_client.ask(&big).await.unwrap();
    assert_eq!(reply.status(), 503, "{reply:?}");
    assert_eq!(refused("bytes"), 1.0);
    assert_eq!(*fleet.servers[0].targets.lock().unwrap(), ["/busy"]);
}

#[tokio::test]
async fn a_tunnel_holds_its_place_for_as_long_as_it_lives() {
    let fleet = Fleet::start(1, |_, asked| async move {
        match asked.header("upgrade") {
            Some(_) => b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n".to_vec(),
            None => ok("after"),
        }
    })
    .unwrap();
    let proxy = bounded(fleet.addresses(), 1, "max: 10");
    let mut tunnel = Client::connect(proxy.address()).await.unwrap();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    assert_eq!(tunnel.ask(upgrade).await.unwrap().status(), 101);
    let mut next = Client::connect(proxy.address()).await.unwrap();
    next.send(&get("/next")).await.unwrap();
    until_waiting(&proxy, 1);
    assert_eq!(*fleet.servers[0].targets.lock().unwrap(), ["/ws"], "it waits for the tunnel");
    drop(tunnel);
    assert_eq!(next.reply().await.unwrap().text(), "after");
}

#[tokio::test]
async fn a_server_that_appears_or_bounds_that_come_serve_those_who_wait() {
    let (mut fleet, gate) = gated(1);
    let mut proxy = bounded(fleet.addresses(), 1, "max: 10");
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&get(&format!("/{number}"))).await.unwrap();
        clients.push(client);
        until_waiting(&proxy, number);
    }
    // One more server takes the first who waits, a bound of two the other.
    fleet.add().unwrap();
    proxy.set("APPS", fleet.addresses());
    reload(&mut proxy, BOUNDED);
    until_waiting(&proxy, 1);
    let at_new = || (*fleet.servers[1].targets.lock().unwrap() == ["/1"]).then_some(());
    eventually("the first of the line at the new server", at_new).unwrap();
    proxy.set("HARD", 2);
    reload(&mut proxy, BOUNDED);
    until_waiting(&proxy, 0);
    gate.add_permits(3);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.reply().await.unwrap().text(), format!("/{number}"));
    }
}

#[tokio::test]
async fn a_server_that_is_found_or_gets_well_serves_those_who_wait() {
    let (fleet, gate) = gated(1);
    let mut down = App::saying("well again").unwrap();
    let list = |servers: &[SocketAddr]| {
        let lines: Vec<_> = servers.iter().map(|server| format!("- {server}\n")).collect();
        lines.concat()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endpoints.yaml");
    std::fs::write(&file, list(&[fleet.servers[0].address])).unwrap();
    let template = BOUNDED
        .replace("[$APPS]", "{file: $DIR/endpoints.yaml}")
        .replace("probe: null", "probe: {interval: 50ms, timeout: 50ms, failures: 1}");
    let proxy = Proxy::of(Kind::Http).config(&template).set("HARD", 1).set("QUEUE", "max: 10");
    let proxy = proxy.folder(folder).start().unwrap();
    let mut first = Client::connect(proxy.address()).await.unwrap();
    first.send(&get("/first")).await.unwrap();
    at_server(&fleet, 1);
    let mut second = Client::connect(proxy.address()).await.unwrap();
    second.send(&get("/second")).await.unwrap();
    until_waiting(&proxy, 1);
    // It is found, by the way of the file and no reload: and at once it is down.
    down.crash();
    let both = list(&[fleet.servers[0].address, down.address()]);
    std::fs::write(proxy.folder().join("new.yaml"), both).unwrap();
    std::fs::rename(proxy.folder().join("new.yaml"), proxy.folder().join("endpoints.yaml")).unwrap();
    let is_down = || proxy.status().unwrap().to_string().contains("\"state\":\"down\"").then_some(());
    eventually("it is down", is_down).unwrap();
    let mut third = Client::connect(proxy.address()).await.unwrap();
    third.send(&get("/third")).await.unwrap();
    let waiting = metric(&proxy, "groove_http_queue_waiting", &[]);
    down.resume().unwrap();
    assert!(waiting >= 1.0, "somebody waits: {waiting}");
    assert_eq!(third.reply().await.unwrap().text(), "well again");
    gate.add_permits(2);
    assert_eq!(first.reply().await.unwrap().text(), "/first");
    drop(second);
}

#[tokio::test]
async fn the_time_in_the_queue_is_not_the_servers() {
    let (fleet, gate) = gated(1);
    let template = BOUNDED.replace("workers: 2", "workers: 1\ntimeouts: {first_byte: 1s}");
    let proxy = Proxy::of(Kind::Http).config(&template).set("APPS", fleet.addresses()).set("HARD", 1);
    let proxy = proxy.set("QUEUE", "max: 10").start().unwrap();
    let mut clients = Vec::new();
    for number in 0..3 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&get(&format!("/{number}"))).await.unwrap();
        clients.push(client);
        until_waiting(&proxy, number);
    }
    // Each takes most of what a server may take; the last waits for longer than that.
    for (number, client) in clients.iter_mut().enumerate() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        gate.add_permits(1);
        assert_eq!(client.reply().await.unwrap().text(), format!("/{number}"));
    }
}

const UNBOUNDED: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 2
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    health: {probe: null}
";

#[tokio::test]
async fn bounds_that_come_by_a_reload_count_what_has_begun_before_and_go_again() {
    let (fleet, gate) = gated(1);
    let mut proxy = Proxy::of(Kind::Http).config(UNBOUNDED).set("APPS", fleet.addresses()).start().unwrap();
    let mut clients = Vec::new();
    for path in ["/before", "/waits", "/waits too"] {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&get(&path.replace(' ', "-"))).await.unwrap();
        clients.push(client);
        match path {
            "/before" => {
                at_server(&fleet, 1);
                proxy.set("HARD", 1);
                proxy.set("QUEUE", "max: 10");
                reload(&mut proxy, BOUNDED);
            }
            "/waits" => until_waiting(&proxy, 1),
            _ => until_waiting(&proxy, 2),
        }
    }
    // The end of an exchange that began without bounds lets the next one in.
    gate.add_permits(1);
    assert_eq!(clients[0].reply().await.unwrap().text(), "/before");
    until_waiting(&proxy, 1);
    assert_eq!(fleet.most_in_flight(), 1);
    reload(&mut proxy, UNBOUNDED);
    at_server(&fleet, 2);
    gate.add_permits(2);
    assert_eq!(clients[1].reply().await.unwrap().text(), "/waits");
    assert_eq!(clients[2].reply().await.unwrap().text(), "/waits-too");
}

#[tokio::test]
async fn requests_of_one_http2_connection_queue_and_leave_one_by_one() {
    let (fleet, gate) = gated(1);
    let proxy = bounded(fleet.addresses(), 1, "max: 10");
    let stream = tokio::net::TcpStream::connect(proxy.address()).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let ask = |path: &str| {
        let request = ::http::Request::get(format!("http://shop.test{path}")).body(()).unwrap();
        let (reply, body) = requests.clone().send_request(request, true).unwrap();
        (tokio::spawn(reply), body)
    };
    let (first, _) = ask("/first");
    while fleet.servers[0].in_flight.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (_gone, mut leaves) = ask("/gone");
    waiting_soon(&proxy, 1).await;
    let (last, _) = ask("/last");
    waiting_soon(&proxy, 2).await;
    leaves.send_reset(h2::Reason::CANCEL);
    waiting_soon(&proxy, 1).await;
    gate.add_permits(2);
    for reply in [first, last] {
        assert_eq!(reply.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(*fleet.servers[0].targets.lock().unwrap(), ["/first", "/last"]);
}

/// As `until_waiting`, while this thread's other tasks go on.
async fn waiting_soon(proxy: &Proxy, count: usize) {
    while metric(proxy, "groove_http_queue_waiting", &[]) != count as f64 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
