//! What the proxy does when it is short itself, and how it finds out what a server can do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::{Kind, Proxy};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::fleet::{Client, Fleet, ok};

const SHORT: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 2
limits: {in_flight: {max: 4, queue: 100, timeout: 30s}}
apps:
  loud:
    hosts: [loud.test]
    endpoints: [$APP]
    health: {probe: null}
    tenants: {header: X-Tenant}
  quiet:
    hosts: [quiet.test]
    endpoints: [$APP]
    health: {probe: null}
";

/// Clients that ask as fast as they are answered, and how long each answer took.
struct Crowd {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<Duration>>>,
}

impl Crowd {
    fn start(address: SocketAddr, count: usize, head: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..count)
            .map(|_| {
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    let mut client = Client::connect(address).await.unwrap();
                    let mut took = Vec::new();
                    while !stop.load(Ordering::SeqCst) {
                        let since = Instant::now();
                        let reply = client.ask(&format!("GET / HTTP/1.1\r\n{head}\r\n")).await.unwrap();
                        assert_eq!(reply.status(), 200, "{reply:?}");
                        took.push(since.elapsed());
                    }
                    took
                })
            })
            .collect();
        Self { stop, clients }
    }

    /// The median.
    async fn finish(self) -> Duration {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for client in self.clients {
            all.extend(client.await.unwrap());
        }
        all.sort_unstable();
        all[all.len() / 2]
    }
}

#[tokio::test]
async fn a_crowd_before_one_app_or_of_one_tenant_does_not_keep_others_waiting() {
    let fleet = Fleet::start(1, |_, _| async move {
        tokio::time::sleep(Duration::from_millis(4)).await;
        ok("done")
    })
    .unwrap();
    let proxy = Proxy::of(Kind::Http).config(SHORT).set("APP", fleet.addresses()).start().unwrap();
    let loud = Crowd::start(proxy.address(), 200, "Host: loud.test\r\n");
    let quiet = Crowd::start(proxy.address(), 1, "Host: quiet.test\r\n");
    let tenant = Crowd::start(proxy.address(), 1, "Host: loud.test\r\nX-Tenant: quiet\r\n");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (quiet, tenant, loud) = (quiet.finish().await, tenant.finish().await, loud.finish().await);
    assert_eq!(fleet.most_in_flight(), 4, "the bound is the proxy's, and it is used");
    assert!(quiet * 4 < loud && tenant * 4 < loud, "quiet {quiet:?}, tenant {tenant:?}, loud {loud:?}");
    let metrics = proxy.metrics().unwrap();
    assert_eq!(metrics.sum("groove_http_fair_in_flight", &[]), Some(0.0));
    assert_eq!(metrics.sum("groove_http_fair_waiting", &[]), Some(0.0));
}

const ADAPTIVE: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 1
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    health: {probe: null}
    concurrency: {hard: 200, adaptive: {initial: 4}}
";

#[tokio::test]
async fn an_adaptive_bound_keeps_the_wait_out_of_the_server() {
    let (places, most) = (Arc::new(Semaphore::new(8)), Arc::new(AtomicUsize::new(0)));
    let (at_once, seen) = (Arc::clone(&places), Arc::clone(&most));
    let fleet = Fleet::start(1, move |server, _| {
        let (places, most) = (Arc::clone(&at_once), Arc::clone(&seen));
        async move {
            most.fetch_max(server.in_flight.load(Ordering::SeqCst), Ordering::SeqCst);
            let _place = places.acquire().await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
            ok("done")
        }
    })
    .unwrap();
    let proxy = Proxy::of(Kind::Http).config(ADAPTIVE).set("APP", fleet.addresses()).start().unwrap();
    let crowd = Crowd::start(proxy.address(), 100, "Host: shop.test\r\n");
    tokio::time::sleep(Duration::from_secs(4)).await;
    crowd.finish().await;
    let most = most.load(Ordering::SeqCst);
    assert!((6..=30).contains(&most), "{most} of 100 were at the server, which does 8 at once");
}
