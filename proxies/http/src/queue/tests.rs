//! The queue over a real cluster, under real threads.

use super::*;
use crate::config::Config;
use futures_util::FutureExt;
use groove_common::config::check_text;
use groove_common::discovery::ConnectProber;
use groove_common::telemetry::Registry;
use std::sync::atomic::{AtomicU32, Ordering};

fn queue(endpoints: &str, more: &str) -> Arc<Queue> {
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\napps:\n  a:\n    hosts: [a.test]\n    endpoints: [{endpoints}]\n    \
         health: {{probe: null}}\n    {more}\n"
    );
    let config: Config = check_text("http.yaml", &text).expect("a good configuration");
    let servers = config.apps["a"].servers();
    let prober = Arc::new(ConnectProber);
    let cluster =
        Cluster::start("a", &servers.endpoints, &servers.health, prober, &Handle::current()).expect("one");
    let plan = Plan::of(&servers).expect("a plan").expect("something to say");
    Queue::start(cluster, Arc::new(plan), QueueMetrics::new(&Registry::new(1), "a"), &Handle::current())
}

fn enter(queue: &Arc<Queue>) -> Result<Entry, Refused> {
    queue.enter(&Ask::default(), 100, None)
}

fn granted(entry: Result<Entry, Refused>) -> Grant {
    match entry {
        Ok(Entry::Granted(grant)) => grant,
        // Where others wait, a grant comes by way of the line.
        Ok(Entry::Waiting(mut place)) => place.turn().now_or_never().flatten().expect("a grant at once"),
        Err(refusal) => panic!("not granted: {refusal:?}"),
    }
}

fn waiting(entry: Result<Entry, Refused>) -> Place {
    match entry {
        Ok(Entry::Waiting(place)) => place,
        other => panic!("not waiting: {other:?}"),
    }
}

#[tokio::test]
async fn one_that_ends_lets_one_in_and_a_newcomer_goes_behind() {
    let queue = queue("127.0.0.1:1", "concurrency: {hard: 1}");
    let held = granted(enter(&queue));
    let (mut first, mut second) = (waiting(enter(&queue)), waiting(enter(&queue)));
    drop(held);
    let mut third = waiting(enter(&queue));
    let grant = first.turn().now_or_never().expect("its turn").expect("a grant");
    assert!(second.turn().now_or_never().is_none() && third.turn().now_or_never().is_none());
    drop(grant);
    assert!(third.turn().now_or_never().is_none(), "the second comes before it");
    let fourth = waiting(enter(&queue));
    drop(fourth);
    assert_eq!(queue.state.lock().line.len(), 1, "it left at once");
    drop(second);
    assert!(third.turn().now_or_never().is_some(), "a grant on its way to who is gone goes on");
}

#[tokio::test]
async fn room_that_is_there_before_it_is_told_is_not_a_newcomers() {
    let queue = queue("127.0.0.1:1", "concurrency: {hard: 1}");
    let held = granted(enter(&queue));
    let mut first = waiting(enter(&queue));
    // Between an exchange's end and the word of it somebody comes.
    held.exchange.endpoint().watch(None);
    drop(held);
    assert!(first.turn().now_or_never().is_none());
    let mut newcomer = waiting(enter(&queue));
    let _its = first.turn().now_or_never().expect("its turn").expect("a grant");
    assert!(newcomer.turn().now_or_never().is_none());
}

#[tokio::test]
async fn who_comes_back_has_its_place() {
    let queue = queue("127.0.0.1:1", "concurrency: {hard: 1}");
    let held = granted(enter(&queue));
    let mut early = waiting(enter(&queue));
    let mut late = waiting(enter(&queue));
    drop(held);
    let number = early.number();
    let grant = early.turn().now_or_never().expect("its turn").expect("a grant");
    // Its endpoint did not answer: it asks again, before the place of the other.
    let mut again = waiting(queue.enter(&Ask::default(), 100, Some(number)));
    drop(grant);
    let _its = again.turn().now_or_never().expect("its turn again");
    assert!(late.turn().now_or_never().is_none());
}

#[tokio::test]
async fn a_strict_session_waits_for_its_endpoint_and_moves_when_that_is_gone() {
    let queue = queue(
        "127.0.0.1:1, 127.0.0.1:2",
        "concurrency: {hard: 1}\n    affinity: {by: {header: X}, mode: strict}",
    );
    let ask = Ask { key: Key::Hash(7), failed: &[] };
    let held = granted(queue.enter(&ask, 0, None));
    let home = held.exchange.endpoint().address.clone();
    let mut place = waiting(queue.enter(&ask, 0, None));
    let other = granted(enter(&queue));
    assert_ne!(other.exchange.endpoint().address, home);
    drop(other);
    assert!(place.turn().now_or_never().is_none(), "another that is free is not its own");
    // Its endpoint leaves: the session lives with the other from now on.
    let left = queue
        .cluster
        .snapshot()
        .members
        .iter()
        .map(|member| &*member.described)
        .find(|it| it.address != home)
        .cloned();
    queue.cluster.set_endpoints(left.into_iter().collect());
    let turn = tokio::time::timeout(Duration::from_secs(10), place.turn()).await;
    let grant = turn.expect("in time").expect("a grant");
    assert_ne!(grant.exchange.endpoint().address, home);
}

#[tokio::test]
async fn with_nobody_left_to_try_nobody_waits() {
    let queue = queue("127.0.0.1:1, 127.0.0.1:2", "concurrency: {hard: 1}");
    let (one, two) = (granted(enter(&queue)), granted(enter(&queue)));
    let failed = [one.exchange.endpoint().id, two.exchange.endpoint().id];
    drop(one);
    assert!(matches!(
        queue.enter(&Ask { key: Key::None, failed: &failed }, 0, None),
        Err(Refused { why: Refusal::Nobody, .. })
    ));
    // One is left, and busy.
    drop(waiting(queue.enter(&Ask { key: Key::None, failed: &failed[..1] }, 0, None)));
}

/// Threads that come, wait, leave and end at random: never more than the bound at an endpoint, nothing lost at the end.
#[test]
fn under_threads_no_endpoint_is_over_its_bound_and_no_room_is_lost() {
    const HARD: u32 = 2;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    for seed in 0..20 {
        runtime.block_on(async {
            let endpoints = "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3";
            let queue = queue(endpoints, &format!("concurrency: {{hard: {HARD}}}"));
            let inside: Arc<HashMapOfCounts> = Arc::default();
            let tasks: Vec<_> = (0..48)
                .map(|task| {
                    let (queue, inside) = (Arc::clone(&queue), Arc::clone(&inside));
                    let mut dice = Dice::seeded(seed * 1000 + task);
                    tokio::spawn(async move {
                        for _ in 0..60 {
                            let grant = match enter(&queue) {
                                Ok(Entry::Granted(grant)) => grant,
                                Ok(Entry::Waiting(mut place)) => {
                                    let patience = async {
                                        for _ in 0..dice.below(6) {
                                            tokio::task::yield_now().await;
                                        }
                                    };
                                    tokio::select! {
                                        biased;
                                        grant = place.turn() => grant.expect("a grant"),
                                        () = patience => continue,
                                    }
                                }
                                Err(refusal) => panic!("{refusal:?}"),
                            };
                            let count = inside.of(&grant);
                            assert!(
                                count.fetch_add(1, Ordering::SeqCst) < HARD,
                                "seed {seed}: over the bound"
                            );
                            tokio::task::yield_now().await;
                            count.fetch_sub(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no panic");
            }
            assert!(queue.state.lock().line.is_empty(), "seed {seed}");
            let held: Vec<_> = (0..3 * HARD).map(|_| granted(enter(&queue))).collect();
            drop(held);
        });
    }
}

#[derive(Default)]
struct HashMapOfCounts(Mutex<std::collections::HashMap<EndpointId, Arc<AtomicU32>>>);

impl HashMapOfCounts {
    fn of(&self, grant: &Grant) -> Arc<AtomicU32> {
        Arc::clone(self.0.lock().entry(grant.exchange.endpoint().id).or_default())
    }
}
