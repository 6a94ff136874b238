//! Servers that fail more often than the others, though never many times in a row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{Kind, Proxy, eventually};

use super::fleet::{Client, Fleet, get, ok};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    balance: round_robin
    health: {probe: null, breaker: {consecutive_failures: 0, base_ejection: 1s}}
    outlier:
      success_rate: {interval: 300ms, minimum_hosts: 5, request_volume: 20, stdev_factor: 1.5, max_ejection_percent: 20}
";

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_every_third_time_is_out_and_comes_back_when_it_is_well() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let ill = Arc::clone(&is_ill);
    let fleet = Fleet::start(6, move |server, _| {
        let fails =
            server.index == 4 && ill.load(Ordering::SeqCst) && server.served.load(Ordering::SeqCst) % 3 == 0;
        async move { if fails { b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec() } else { ok("ok") } }
    })
    .unwrap();
    let proxy = Proxy::of(Kind::Http).config(CONFIG).set("APPS", fleet.addresses()).start().unwrap();
    let (address, stop) = (proxy.address(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let load = tokio::spawn(async move {
        let mut client = Client::connect(address).await.unwrap();
        while !stopped.load(Ordering::SeqCst) {
            client.ask(&get("/")).await.unwrap();
        }
    });
    let watched = tokio::task::spawn_blocking(move || {
        let state = || {
            let status = proxy.status().unwrap();
            let endpoints = status["clusters"][0]["endpoints"].as_array().unwrap().clone();
            endpoints.iter().map(|it| it["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        eventually("it is ejected", || (state()[4] == "ejected").then_some(())).unwrap();
        let others = state();
        assert!(others.iter().enumerate().all(|(index, it)| index == 4 || it == "up"), "{others:?}");
        let labels = [("cluster", "shop"), ("detector", "success_rate")];
        let ejections = proxy.metrics().unwrap().sum("groove_http_outlier_ejections_total", &labels);
        assert!(ejections >= Some(1.0), "{ejections:?}");
        proxy.log().expect("it fails more often than the others").unwrap();
        is_ill.store(false, Ordering::SeqCst);
        eventually("it is back", || (state()[4] == "up").then_some(())).unwrap();
        proxy
    });
    // It goes after its client.
    let _proxy = watched.await.unwrap();
    stop.store(true, Ordering::SeqCst);
    load.await.unwrap();
    assert!(fleet.served().iter().all(|served| *served > 0));
}
