//! What is sent again, and what is not.

use std::sync::atomic::{AtomicUsize, Ordering};

use harness::{Kind, Port, Proxy};

use super::fleet::{Client, Fleet, get, ok};

const RETRYING: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 2
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    health: {probe: null, breaker: {consecutive_failures: $FAILURES, base_ejection: 60s}}
    retry: {$RETRY}
    outlier: {on: [5xx]}
";

fn proxy(apps: impl std::fmt::Display, retry: &str) -> Proxy {
    let proxy = Proxy::of(Kind::Http).config(RETRYING).set("APPS", apps).set("RETRY", retry);
    proxy.set("FAILURES", 0).start().unwrap()
}

fn failing(status: u16) -> Vec<u8> {
    format!("HTTP/1.1 {status} Sorry\r\nContent-Length: 5\r\n\r\nsorry").into_bytes()
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbody")
}

fn retries(proxy: &Proxy) -> f64 {
    proxy.metrics().unwrap().sum("groove_http_retries_total", &[]).unwrap_or(0.0)
}

#[tokio::test]
async fn a_status_that_says_so_is_asked_again_elsewhere_and_the_last_answer_is_the_clients() {
    let fleet = Fleet::start(2, |server, asked| async move {
        match (asked.target(), server.index) {
            ("/both", _) | (_, 0) => failing(503),
            _ => ok("good"),
        }
    })
    .unwrap();
    let proxy = proxy(fleet.addresses(), "attempts: 1, budget: {min_per_second: 1000}, backoff: {base: 1ms}");
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..50 {
        assert_eq!(client.get("/one").await.unwrap().text(), "good");
    }
    let sick = fleet.served()[0];
    assert!(sick > 5 && retries(&proxy) == sick as f64, "{sick} of {}", retries(&proxy));
    let reply = client.ask(&get("/both")).await.unwrap();
    assert_eq!((reply.status(), reply.text().as_str()), (503, "sorry"), "{reply:?}");
    assert_eq!(fleet.served().iter().sum::<usize>(), 50 + sick + 2);
}

#[tokio::test]
async fn what_a_server_may_have_acted_on_is_sent_again_only_if_that_is_wanted() {
    let fleet =
        Fleet::start(2, |server, _| async move { if server.index == 0 { failing(503) } else { ok("good") } })
            .unwrap();
    let fast = "budget: {min_per_second: 1000}, backoff: {base: 1ms}";
    for (more, want) in [("", false), (", non_idempotent: true", true)] {
        let proxy = proxy(fleet.addresses(), &format!("{fast}{more}"));
        let mut client = Client::connect(proxy.address()).await.unwrap();
        let mut refused = 0;
        for _ in 0..40 {
            let reply = client.ask(&post("/")).await.unwrap();
            refused += usize::from(reply.status() == 503);
        }
        assert_eq!(refused == 0, want, "{refused} with {more:?}");
        assert_eq!(retries(&proxy) > 0.0, want);
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_takes_any_request_along_and_a_long_body_is_never_sent_twice() {
    let fleet = Fleet::start(1, |_, asked| async move { ok(&asked.body.len().to_string()) }).unwrap();
    // Nobody listens there.
    let nobody = Port::reserve().unwrap();
    let apps = format!("{nobody}, {}", fleet.addresses());
    let template = RETRYING.replace("    retry:", "    retries: 0\n    retry:");
    let proxy = Proxy::of(Kind::Http).config(&template).set("APPS", apps).set("FAILURES", 0);
    let proxy = proxy.set("RETRY", "budget: {min_per_second: 1000}, backoff: {base: 1ms}").start().unwrap();
    let long = format!(
        "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 300000\r\n\r\n{}",
        "x".repeat(300_000)
    );
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.ask(&post("/")).await.unwrap().text(), "4");
        assert_eq!(client.ask(&long).await.unwrap().text(), "300000");
    }
    assert!(retries(&proxy) > 0.0);
}

#[tokio::test]
async fn the_budget_bounds_what_is_sent_again() {
    const REQUESTS: usize = 400;
    let fleet = Fleet::start(2, |_, _| async { failing(503) }).unwrap();
    let proxy = proxy(
        fleet.addresses(),
        "attempts: 3, budget: {percent: 10, min_per_second: 0}, backoff: {base: 1ms}",
    );
    let mut client = Client::connect(proxy.address()).await.unwrap();
    for _ in 0..REQUESTS {
        assert_eq!(client.ask(&get("/")).await.unwrap().status(), 503);
    }
    let sent = fleet.served().iter().sum::<usize>();
    assert_eq!(sent, REQUESTS + REQUESTS / 10, "a tenth is sent again");
}

#[tokio::test]
async fn a_server_that_answers_5xx_in_a_row_is_ejected_where_that_counts() {
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    let fleet = Fleet::start(3, |server, _| async move {
        ANSWERED.fetch_add(1, Ordering::SeqCst);
        if server.index == 0 { failing(500) } else { ok("good") }
    })
    .unwrap();
    let proxy = Proxy::of(Kind::Http).config(RETRYING).set("APPS", fleet.addresses()).set("FAILURES", 3);
    let proxy = proxy.set("RETRY", "on: [reset]").start().unwrap();
    let mut client = Client::connect(proxy.address()).await.unwrap();
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(client.ask(&get("/")).await.unwrap().status() == 500);
    }
    assert_eq!((failed, fleet.served()[0]), (3, 3), "three, and it was out");
}

#[tokio::test]
async fn each_attempt_has_the_time_of_one() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let fleet = Fleet::start(1, |_, asked| async move {
        // The first two each take most of what a server may take, and the third answers.
        if asked.target() == "/warm" {
            return ok("warm");
        }
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        if ASKED.fetch_add(1, Ordering::SeqCst) < 2 { failing(503) } else { ok("good") }
    })
    .unwrap();
    let template = RETRYING.replace("workers: 2", "workers: 1\ntimeouts: {first_byte: 1s}");
    let proxy = Proxy::of(Kind::Http).config(&template).set("APPS", fleet.addresses()).set("FAILURES", 0);
    let retry = "attempts: 2, budget: {min_per_second: 1000}, backoff: {base: 1ms}";
    let proxy = proxy.set("RETRY", retry).start().unwrap();
    // So many connections are idle afterwards that each attempt finds one.
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::connect(proxy.address()).await.unwrap();
        client.send(&get("/warm")).await.unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.reply().await.unwrap().text(), "warm");
    }
    assert_eq!(clients[0].get("/").await.unwrap().text(), "good");
}
