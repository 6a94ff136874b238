use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::*;
use crate::balance::{Candidate, Dice, Rule};
use crate::config;
use crate::ids::Address;

/// A source that the test speaks through.
struct Told(mpsc::UnboundedReceiver<Found>);

impl Source for Told {
    fn describe(&self) -> String {
        "told".to_owned()
    }

    fn initial(&mut self) -> Option<Found> {
        self.0.try_recv().ok()
    }

    fn next(&mut self) -> BoxFuture<'_, Found> {
        Box::pin(async {
            match self.0.recv().await {
                Some(found) => found,
                None => std::future::pending().await,
            }
        })
    }
}

/// Servers that are down, by address.
#[derive(Default)]
struct Probed {
    down: Mutex<HashSet<Address>>,
    starts: Mutex<HashMap<Address, Instant>>,
}

impl Prober for Arc<Probed> {
    fn probe<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, Result<(), ProbeError>> {
        self.starts.lock().entry(address.clone()).or_insert_with(Instant::now);
        let down = self.down.lock().contains(address);
        Box::pin(async move { if down { Err(ProbeError::new("down")) } else { Ok(()) } })
    }
}

fn server(number: u16) -> config::Endpoint {
    config::Endpoint::from(Address::tcp("10.0.0.1", number))
}

fn found(numbers: &[u16]) -> Found {
    Found { endpoints: numbers.iter().copied().map(server).collect(), may_be_empty: false }
}

fn passive(max_share: f64) -> config::Health {
    config::Health {
        probe: None,
        breaker: config::Breaker {
            consecutive_failures: 2,
            base_ejection: config::Duration::from_secs(5),
            max_ejection: config::Duration::from_secs(60),
            max_share,
        },
        slow_start: config::Duration::from_secs(0),
    }
}

fn told(
    numbers: &[u16],
    health: &config::Health,
) -> (Arc<Cluster>, mpsc::UnboundedSender<Found>, Arc<Probed>) {
    let (tell, listen) = mpsc::unbounded_channel();
    tell.send(found(numbers)).unwrap();
    let probed = Arc::new(Probed::default());
    let prober = Arc::new(Arc::clone(&probed));
    let cluster = Cluster::with_source("test", Box::new(Told(listen)), health, prober, &Handle::current());
    (cluster, tell, probed)
}

/// Slots with the port of who sits there.
fn seats(snapshot: &Snapshot) -> Vec<Option<u16>> {
    let port = |member: &Member| match member.endpoint.address {
        Address::Tcp { port, .. } => port,
        Address::Unix(_) => 0,
    };
    (0..snapshot.slots()).map(|slot| snapshot.at_slot(slot).map(port)).collect()
}

fn by_port(snapshot: &Snapshot, port: u16) -> Member {
    let address = server(port).address;
    snapshot.members.iter().find(|member| member.endpoint.address == address).expect("a member").clone()
}

/// Waits for the next snapshot after the one the cluster has now.
async fn next(cluster: &Cluster, after: u64) -> Arc<Snapshot> {
    cluster.changed(after).await;
    cluster.snapshot()
}

async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn whom_an_operator_drains_gets_nothing_new_there_or_not() {
    let (cluster, tell, _) = told(&[1, 2], &passive(0.5));
    let health = |port| by_port(&cluster.snapshot(), port).health;
    cluster.set_drained([server(2).address, server(3).address].into());
    assert_eq!((health(1), health(2)), (Health::Up, Health::Down));
    assert_eq!(cluster.status().endpoints[1].state, "drained");
    let generation = cluster.snapshot().generation;
    tell.send(found(&[1, 2, 3])).unwrap();
    next(&cluster, generation).await;
    assert_eq!(health(3), Health::Down, "it came later");
    cluster.set_drained([server(3).address].into());
    assert_eq!((health(2), health(3)), (Health::Up, Health::Down));
    assert_eq!(cluster.status().endpoints[1].state, "up");
}

#[tokio::test(start_paused = true)]
async fn who_stays_keeps_everything_and_who_comes_takes_the_vacant_slot() {
    let (cluster, tell, _) = told(&[1, 2, 3], &passive(0.5));
    let before = cluster.snapshot();
    assert_eq!(seats(&before), [Some(1), Some(2), Some(3)]);
    let kept = by_port(&before, 3).endpoint;
    let _exchange = kept.begin();
    tell.send(found(&[3, 1])).unwrap();
    let after = next(&cluster, before.generation).await;
    assert_eq!(seats(&after), [Some(1), None, Some(3)], "the hole keeps its place");
    assert!(Arc::ptr_eq(&kept, &by_port(&after, 3).endpoint));
    assert_eq!(by_port(&after, 3).in_flight(), 1);
    tell.send(found(&[1, 3, 9, 8])).unwrap();
    let after = next(&cluster, after.generation).await;
    assert_eq!(seats(&after), [Some(1), Some(9), Some(3), Some(8)]);
    tell.send(found(&[9])).unwrap();
    let after = next(&cluster, after.generation).await;
    assert_eq!(seats(&after), [None, Some(9)], "the tail goes, the head stays vacant");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_and_returns_is_another() {
    let (cluster, tell, _) = told(&[1, 2], &passive(0.5));
    let before = cluster.snapshot();
    tell.send(found(&[1])).unwrap();
    let without = next(&cluster, before.generation).await;
    tell.send(found(&[1, 2])).unwrap();
    let after = next(&cluster, without.generation).await;
    assert_ne!(by_port(&before, 2).endpoint.id, by_port(&after, 2).endpoint.id);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_never_empties_a_cluster_but_an_operators_empty_list_does() {
    let (cluster, tell, _) = told(&[1, 2], &passive(0.5));
    let before = cluster.snapshot();
    tell.send(found(&[])).unwrap();
    settle().await;
    assert_eq!(cluster.snapshot().generation, before.generation);
    cluster.prepare(&config::Endpoints::Static(Vec::new()), &passive(0.5)).unwrap().apply();
    assert!(cluster.snapshot().members.is_empty());
    let empty = cluster.snapshot();
    assert!(empty.by_key(&empty.placement(Rule::default()), b"k", 1).is_none());
    assert!(cluster.snapshot().pick(Policy::LeastLoaded, cluster.now(), &mut Dice::seeded(1)).is_none());
}

#[tokio::test(start_paused = true)]
async fn another_weight_or_zone_makes_a_new_snapshot_and_the_same_set_does_not() {
    let (cluster, tell, _) = told(&[1, 2], &passive(0.5));
    let before = cluster.snapshot();
    tell.send(found(&[2, 1, 1])).unwrap();
    settle().await;
    assert_eq!(cluster.snapshot().generation, before.generation, "order and repetition mean nothing");
    let mut heavier = found(&[1, 2]);
    heavier.endpoints[1].weight = 7;
    tell.send(heavier).unwrap();
    let after = next(&cluster, before.generation).await;
    assert_eq!(by_port(&after, 2).weight(cluster.now()), 7.0);
    assert!(Arc::ptr_eq(&by_port(&before, 2).endpoint, &by_port(&after, 2).endpoint));
}

#[tokio::test(start_paused = true)]
async fn failures_eject_one_trial_decides_and_success_brings_back() {
    let (cluster, _tell, _) = told(&[1, 2], &passive(0.5));
    let mut dice = Dice::seeded(1);
    let sick = by_port(&cluster.snapshot(), 1).endpoint;
    for _ in 0..2 {
        cluster.report(&sick, Outcome::Failure);
    }
    let snapshot = cluster.snapshot();
    assert_eq!(by_port(&snapshot, 1).health, Health::Down, "at once, before any task runs");
    for _ in 0..20 {
        let picked = snapshot.pick(Policy::LeastLoaded, cluster.now(), &mut dice).unwrap();
        assert_ne!(picked.endpoint.id, sick.id);
    }
    assert_eq!(cluster.status().endpoints[0].state, "ejected");

    let half_open = next(&cluster, snapshot.generation).await;
    assert_eq!(cluster.now().as_secs(), 5);
    assert_eq!(by_port(&half_open, 1).health, Health::Trial);
    let trials = (0..20).filter(|_| {
        half_open.pick(Policy::PowerOfTwo, cluster.now(), &mut dice).unwrap().endpoint.id == sick.id
    });
    assert_eq!(trials.count(), 1, "one trial, whoever picks");
    cluster.report(&sick, Outcome::Success { latency: Duration::from_millis(3) });
    assert_eq!(by_port(&cluster.snapshot(), 1).health, Health::Up);
    let status = cluster.status();
    assert_eq!((status.endpoints[0].state, status.endpoints[0].ejections), ("up", 1));
    assert!((status.endpoints[0].latency_ms - 3.0).abs() < 0.01, "{}", status.endpoints[0].latency_ms);
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_nobody_reports_is_offered_again() {
    let (cluster, _tell, _) = told(&[1, 2], &passive(0.5));
    let sick = by_port(&cluster.snapshot(), 1).endpoint;
    for _ in 0..2 {
        cluster.report(&sick, Outcome::Failure);
    }
    sleep(Duration::from_millis(5_100)).await;
    assert!(sick.claim_trial());
    assert!(!sick.claim_trial());
    sleep(Duration::from_secs(5)).await;
    assert!(sick.claim_trial());
    cluster.report(&sick, Outcome::Failure);
    assert!(!sick.claim_trial());
    assert_eq!(cluster.status().endpoints[0].ejections, 2);
}

#[tokio::test(start_paused = true)]
async fn at_most_a_share_is_ejected_and_never_the_last() {
    let (cluster, _tell, _) = told(&[1, 2, 3, 4], &passive(0.5));
    for member in &cluster.snapshot().members {
        for _ in 0..5 {
            cluster.report(&member.endpoint, Outcome::Failure);
        }
    }
    let up = cluster.snapshot().members.iter().filter(|member| member.health == Health::Up).count();
    assert_eq!(up, 2);
    let (single, _tell, _) = told(&[1], &passive(1.0));
    for _ in 0..5 {
        single.report(&single.snapshot().members[0].endpoint, Outcome::Failure);
    }
    assert_eq!(single.snapshot().members[0].health, Health::Up);
}

#[tokio::test(start_paused = true)]
async fn the_last_that_may_be_well_stays_when_probes_took_the_others_down() {
    let probe = config::Probe::default();
    let health = config::Health { probe: Some(probe), ..passive(1.0) };
    let (cluster, _tell, probed) = told(&[1, 2, 3], &health);
    probed.down.lock().extend([server(2).address, server(3).address]);
    sleep(Duration::from_secs(10)).await;
    let last = by_port(&cluster.snapshot(), 1).endpoint;
    for _ in 0..5 {
        cluster.report(&last, Outcome::Failure);
    }
    assert_eq!(by_port(&cluster.snapshot(), 1).health, Health::Up);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_turned_off_lets_go_of_whom_it_holds() {
    let list = config::Endpoints::Static(found(&[1, 2]).endpoints);
    let prober = Arc::new(ConnectProber);
    let cluster = Cluster::start("c", &list, &passive(0.5), prober, &Handle::current()).unwrap();
    let sick = by_port(&cluster.snapshot(), 1).endpoint;
    for _ in 0..2 {
        cluster.report(&sick, Outcome::Failure);
    }
    assert_eq!(by_port(&cluster.snapshot(), 1).health, Health::Down);
    let mut off = passive(0.5);
    off.breaker.consecutive_failures = 0;
    cluster.prepare(&list, &off).unwrap().apply();
    assert_eq!(by_port(&cluster.snapshot(), 1).health, Health::Up);
    cluster.report(&sick, Outcome::Failure);
    assert_eq!(cluster.status().endpoints[0].state, "up");
}

/// What a source found while another took its place.
#[tokio::test(start_paused = true)]
async fn a_source_that_was_replaced_is_not_heard_any_more() {
    type Slot = Arc<Mutex<Option<Arc<Cluster>>>>;
    struct Late(Slot);
    impl Source for Late {
        fn describe(&self) -> String {
            "late".to_owned()
        }

        fn initial(&mut self) -> Option<Found> {
            None
        }

        fn next(&mut self) -> BoxFuture<'_, Found> {
            Box::pin(async {
                let cluster = self.0.lock().take();
                let Some(cluster) = cluster else { return std::future::pending().await };
                cluster
                    .prepare(&config::Endpoints::Static(found(&[5]).endpoints), &passive(0.5))
                    .unwrap()
                    .apply();
                found(&[1])
            })
        }
    }
    let slot = Slot::default();
    let prober = Arc::new(ConnectProber);
    let late = Box::new(Late(Arc::clone(&slot)));
    let cluster = Cluster::with_source("c", late, &passive(0.5), prober, &Handle::current());
    *slot.lock() = Some(Arc::clone(&cluster));
    settle().await;
    assert_eq!(seats(&cluster.snapshot()), [Some(5)]);
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_sick_server_go_elsewhere_and_nobody_elses_move() {
    let (cluster, _tell, _) = told(&[1, 2, 3, 4], &passive(0.5));
    let before = cluster.snapshot();
    let sick = by_port(&before, 2).endpoint;
    for _ in 0..2 {
        cluster.report(&sick, Outcome::Failure);
    }
    let after = cluster.snapshot();
    assert_eq!(before.set, after.set, "health is no other set");
    let placement = after.placement(Rule::default());
    let mut heirs = HashSet::new();
    let mut dice = Dice::seeded(9);
    for _ in 0..1_000 {
        let hash = dice.bits();
        let owner = |of: &Arc<Snapshot>| of.by_key(&placement, b"", hash).unwrap().clone();
        let (old, new) = (owner(&before), owner(&after));
        if old.endpoint.id == sick.id {
            heirs.insert(new.endpoint.id);
        } else {
            assert_eq!(old.endpoint.id, new.endpoint.id);
        }
    }
    assert_eq!(heirs.len(), 3, "the load of the one goes to all the others");
}

#[tokio::test(start_paused = true)]
async fn probes_take_servers_down_and_up_and_do_not_start_together() {
    let interval = Duration::from_secs(10);
    let probe = config::Probe {
        interval: config::Duration(interval),
        timeout: config::Duration::from_secs(1),
        failures: 2,
        successes: 1,
    };
    let numbers: Vec<u16> = (1..=20).collect();
    let (cluster, tell, probed) = told(&numbers, &config::Health { probe: Some(probe), ..passive(0.5) });
    sleep(interval).await;
    let starts: HashSet<_> = probed.starts.lock().values().copied().collect();
    assert_eq!(probed.starts.lock().len(), 20, "all were probed within the first interval");
    assert!(starts.len() > 10, "spread over it");

    probed.down.lock().insert(server(7).address);
    sleep(3 * interval).await;
    let snapshot = cluster.snapshot();
    assert_eq!(by_port(&snapshot, 7).health, Health::Down);
    assert_eq!(snapshot.members.iter().filter(|member| member.health == Health::Up).count(), 19);
    let status = cluster.status();
    assert_eq!(
        (status.endpoints[6].state, status.endpoints[6].probe_error.as_deref()),
        ("down", Some("down"))
    );

    // As a prober with another certificate sees it.
    cluster.set_prober(Arc::new(Arc::new(Probed::default())));
    sleep(2 * interval).await;
    assert_eq!(by_port(&cluster.snapshot(), 7).health, Health::Up);
    cluster.set_prober(Arc::new(Arc::clone(&probed)));

    tell.send(found(&[1])).unwrap();
    settle().await;
    probed.starts.lock().clear();
    sleep(3 * interval).await;
    assert_eq!(probed.starts.lock().len(), 1, "those that left are not probed any more");
}

#[tokio::test(start_paused = true)]
async fn who_joins_later_starts_slowly() {
    let health = config::Health { slow_start: config::Duration::from_secs(10), ..passive(0.5) };
    let (cluster, tell, _) = told(&[1], &health);
    tell.send(found(&[1, 2])).unwrap();
    let snapshot = next(&cluster, 1).await;
    assert_eq!(by_port(&snapshot, 1).weight(cluster.now()), 1.0, "the first set is at full share");
    assert_eq!(by_port(&snapshot, 2).weight(cluster.now()), 0.1);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(by_port(&snapshot, 2).weight(cluster.now()), 0.5);
}

#[tokio::test(start_paused = true)]
async fn readers_see_what_is_new_and_tasks_end_with_the_cluster() {
    let (cluster, tell, _) = told(&[1], &passive(0.5));
    let mut reader = cluster.reader();
    assert_eq!(reader.get().members.len(), 1);
    tell.send(found(&[1, 2])).unwrap();
    next(&cluster, 1).await;
    assert_eq!(reader.get().members.len(), 2);
    drop(cluster);
    tell.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_stays() {
    let list = |numbers: &[u16]| config::Endpoints::Static(found(numbers).endpoints);
    let prober = Arc::new(ConnectProber);
    let cluster = Cluster::start("c", &list(&[1, 2]), &passive(0.5), prober, &Handle::current()).unwrap();
    let kept = by_port(&cluster.snapshot(), 2).endpoint;
    for _ in 0..2 {
        cluster.report(&kept, Outcome::Failure);
    }
    cluster.prepare(&list(&[5, 2]), &passive(0.5)).unwrap().apply();
    let snapshot = cluster.snapshot();
    assert_eq!(seats(&snapshot), [Some(5), Some(2)]);
    assert!(Arc::ptr_eq(&kept, &by_port(&snapshot, 2).endpoint));
    assert_eq!(by_port(&snapshot, 2).health, Health::Down, "a reload is no pardon");
    assert_eq!(cluster.status().source, "static");
}

#[tokio::test(start_paused = true)]
async fn what_is_prepared_changes_nothing_before_it_is_applied() {
    let list = |numbers: &[u16]| config::Endpoints::Static(found(numbers).endpoints);
    let prober = Arc::new(ConnectProber);
    let cluster = Cluster::start("c", &list(&[1]), &passive(0.5), prober, &Handle::current()).unwrap();
    let update = cluster.prepare(&list(&[2]), &passive(0.5)).unwrap();
    assert_eq!(seats(&cluster.snapshot()), [Some(1)]);
    update.apply();
    assert_eq!(seats(&cluster.snapshot()), [Some(2)]);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_what_else_is_known_of_an_endpoint() {
    let mut endpoints = found(&[1, 2]).endpoints;
    endpoints[0].metadata.insert("rack".to_owned(), "7".to_owned());
    let (list, prober) = (config::Endpoints::Static(endpoints), Arc::new(ConnectProber));
    let cluster = Cluster::start("c", &list, &passive(0.5), prober, &Handle::current()).unwrap();
    let status = serde_json::to_value(cluster.status()).unwrap();
    assert_eq!(status["endpoints"][0]["metadata"], serde_json::json!({ "rack": "7" }));
    assert_eq!(status["endpoints"][1].get("metadata"), None);
}

#[tokio::test]
async fn the_default_probe_connects() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = Address::from(listener.local_addr().unwrap());
    ConnectProber.probe(&address).await.unwrap();
    drop(listener);
    assert!(ConnectProber.probe(&address).await.is_err());
}

mod dns {
    use hickory_resolver::TokioResolver;
    use hickory_resolver::config::{NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    use hickory_resolver::proto::op::{Message, OpCode};
    use hickory_resolver::proto::rr::rdata::SRV;
    use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

    use super::super::dns::{Answer, Dns, ask_with, refresh};
    use super::*;

    fn asked(script: Vec<Result<Answer, String>>) -> (Dns, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let (counting, script) = (Arc::clone(&count), Mutex::new(script));
        let ask = Box::new(move || {
            counting.fetch_add(1, SeqCst);
            let answer = script.lock().remove(0);
            async move { answer }.boxed()
        });
        let config: config::Dns = "cache.internal:11211".parse().unwrap();
        (Dns::with(&config, ask, Dice::seeded(4)), count)
    }

    fn answer(numbers: &[u16], ttl_s: u64) -> Result<Answer, String> {
        Ok(Answer { endpoints: found(numbers).endpoints, ttl: Duration::from_secs(ttl_s) })
    }

    #[tokio::test(start_paused = true)]
    async fn the_ttl_is_honoured_and_order_means_nothing() {
        let (mut dns, _) = asked(vec![answer(&[2, 1], 10), answer(&[3, 1, 2], 10)]);
        assert_eq!(dns.describe(), "dns cache.internal:11211");
        assert_eq!(dns.next().await, found(&[1, 2]));
        let before = Instant::now();
        assert_eq!(dns.next().await, found(&[1, 2, 3]));
        let waited = before.elapsed().as_secs_f64();
        assert!((9.0..=10.01).contains(&waited), "{waited}");
    }

    #[tokio::test(start_paused = true)]
    async fn failed_and_empty_answers_are_no_news() {
        let failed = || Err("no such host".to_owned());
        let (mut dns, count) = asked(vec![failed(), answer(&[], 10), failed(), answer(&[1], 10)]);
        assert_eq!(dns.next().await, found(&[1]));
        assert_eq!(count.load(SeqCst), 4);
    }

    /// A name server that knows two names, over UDP.
    async fn serve_names(socket: tokio::net::UdpSocket) {
        let mut question = [0; 512];
        loop {
            let (len, peer) = socket.recv_from(&mut question).await.unwrap();
            let question = Message::from_vec(&question[..len]).unwrap();
            let query = question.queries[0].clone();
            let ip = |text: &str| RData::from(text.parse::<std::net::IpAddr>().unwrap());
            let service = |priority, weight, port, target: &str| {
                RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
            };
            let records = match (query.name().to_ascii().as_str(), query.query_type()) {
                ("cache.test.", RecordType::A) => {
                    vec![ip("10.0.0.2"), ip("10.0.0.1")]
                }
                ("cache.test.", RecordType::AAAA) => vec![ip("fd00::1")],
                ("_memcache._tcp.test.", RecordType::SRV) => vec![
                    service(1, 20, 11211, "b.test."),
                    service(1, 0, 11212, "a.test."),
                    service(2, 1, 11211, "spare.test."),
                ],
                ("_gone._tcp.test.", RecordType::SRV) => vec![service(0, 0, 0, ".")],
                _ => Vec::new(),
            };
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_query(query.clone());
            answer.add_answers(
                records.into_iter().map(|data| Record::from_rdata(query.name().clone(), 7, data)),
            );
            socket.send_to(&answer.to_vec().unwrap(), peer).await.unwrap();
        }
    }

    async fn resolve(name: &str) -> Vec<String> {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut server = NameServerConfig::udp(address.ip());
        server.connections[0].port = address.port();
        let names = ResolverConfig::from_name_servers(vec![server]);
        let builder = TokioResolver::builder_with_config(names, TokioRuntimeProvider::default());
        let serving = tokio::spawn(serve_names(socket));
        let ask = ask_with(builder, &name.parse().unwrap()).unwrap();
        let answer = ask().await.unwrap();
        serving.abort();
        assert!((6..=7).contains(&answer.ttl.as_secs()), "of 7: {:?}", answer.ttl);
        answer.endpoints.iter().map(|endpoint| format!("{} x{}", endpoint.address, endpoint.weight)).collect()
    }

    #[tokio::test]
    async fn a_name_gives_its_addresses_of_both_families() {
        let found = resolve("cache.test.:11211").await;
        assert_eq!(found, ["10.0.0.2:11211 x1", "10.0.0.1:11211 x1", "[fd00::1]:11211 x1"]);
    }

    #[tokio::test]
    async fn a_service_gives_the_targets_of_its_best_priority() {
        let found = resolve("_memcache._tcp.test.").await;
        assert_eq!(found, ["b.test:11211 x20", "a.test:11212 x1"]);
    }

    #[tokio::test]
    async fn a_service_that_is_decidedly_not_there_has_no_servers() {
        assert!(resolve("_gone._tcp.test.").await.is_empty());
    }

    #[test]
    fn refreshing_keeps_its_bounds() {
        let s = Duration::from_secs;
        assert_eq!(refresh(s(0), s(30), 0.0), s(1), "a TTL of 0 is no reason to flood");
        assert_eq!(refresh(s(3_600), s(30), 0.0), s(30));
        assert_eq!(refresh(s(20), s(30), 0.5), s(19));
    }
}

/// On a real file system, whose events take real time; the poll is far slower than the test.
mod file {
    use super::super::file::File;
    use super::*;

    async fn soon(source: &mut File) -> Found {
        tokio::time::timeout(Duration::from_secs(8), source.next()).await.expect("noticed before the poll")
    }

    #[tokio::test]
    async fn writes_renames_and_symlink_swaps_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        std::fs::write(&path, "[10.0.0.1:1]").unwrap();
        let mut source = File::new(&path).unwrap();
        assert_eq!(source.initial(), Some(found(&[1])));

        std::fs::write(&path, "- 10.0.0.1:2\n- {address: 10.0.0.1:3, weight: 1}\n").unwrap();
        assert_eq!(soon(&mut source).await, found(&[2, 3]));

        let beside = folder.path().join("beside");
        std::fs::write(&beside, r#"[{"address": "10.0.0.1:4"}]"#).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        assert_eq!(soon(&mut source).await, found(&[4]));

        // As Kubernetes does it: endpoints.yaml -> ..data/endpoints.yaml, ..data -> a new folder.
        for (version, number) in [("v1", 5), ("v2", 6)] {
            std::fs::create_dir(folder.path().join(version)).unwrap();
            let text = format!("[10.0.0.1:{number}]");
            std::fs::write(folder.path().join(version).join("endpoints.yaml"), text).unwrap();
            let fresh = folder.path().join("..data_tmp");
            std::os::unix::fs::symlink(version, &fresh).unwrap();
            std::fs::rename(&fresh, folder.path().join("..data")).unwrap();
            if version == "v1" {
                std::os::unix::fs::symlink("..data/endpoints.yaml", &beside).unwrap();
                std::fs::rename(&beside, &path).unwrap();
            }
            assert_eq!(soon(&mut source).await, found(&[number]));
        }
        std::fs::write(folder.path().join("v2/endpoints.yaml"), "[10.0.0.1:7]").unwrap();
        assert_eq!(soon(&mut source).await, found(&[7]), "a write behind the symlinks");
    }

    #[tokio::test]
    async fn a_bad_file_is_no_news_and_a_mended_one_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("endpoints.yaml");
        let mut source = File::new(&path).unwrap();
        assert_eq!(source.initial(), None, "not there yet");
        for bad in
            ["[10.0.0.1]", "{endpoints: []}", "[10.0.0.1:1", "[{address: 10.0.0.1:1, weight: 2000000}]"]
        {
            std::fs::write(&path, bad).unwrap();
            assert!(source.initial().is_none(), "{bad}");
        }
        std::fs::write(&path, "[10.0.0.1:1]").unwrap();
        assert_eq!(soon(&mut source).await, found(&[1]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(source.initial(), None);
    }
}
