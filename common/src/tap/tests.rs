//! Who is told, and what becomes of who does not listen.

use std::time::Duration;

use http_body_util::BodyExt;

use super::*;
use crate::net::Drain;

fn hub() -> Arc<Hub<(), u64>> {
    Hub::new(&Registry::new(1), ("watchers", "Who watches"), ("dropped", "What was not told"))
}

#[test]
fn exchanges_are_wanted_while_somebody_watches_or_says_so() {
    let hub = hub();
    assert!(!hub.is_wanted());
    let watch = hub.watch((), 1.0).unwrap();
    assert!(hub.is_wanted() && hub.is_watched());
    hub.want(true);
    drop(watch);
    assert!(hub.is_wanted() && !hub.is_watched());
    hub.want(false);
    assert!(!hub.is_wanted());
}

#[test]
fn a_watcher_that_does_not_look_costs_a_bounded_queue() {
    let hub = hub();
    let watch = hub.watch((), 1.0).unwrap();
    for number in 0..QUEUE_LEN as u64 + 10 {
        hub.tell(hub.watchers().iter(), &Arc::new(number));
    }
    assert_eq!((watch.dropped(), watch.seen.len()), (10, QUEUE_LEN));
    let others: Vec<_> = (1..WATCHERS_MAX).map(|_| hub.watch((), 1.0).unwrap()).collect();
    assert!(hub.watch((), 1.0).is_none());
    drop(others);
    assert!(hub.watch((), 1.0).is_some());
}

/// Tells numbers.
struct Numbers(u64);

impl Tell for Numbers {
    type Seen = u64;
    type Line = u64;

    fn new(_: usize) -> Self {
        Self(0)
    }

    fn add(&mut self, seen: &u64) {
        self.0 += seen;
    }

    fn summary(&self, _: Duration, _: f64, _: u64) -> u64 {
        self.0
    }

    fn exchange(seen: &u64) -> u64 {
        *seen
    }

    fn dropped(exchanges: u64) -> u64 {
        exchanges
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_reads_nothing_is_let_go() {
    let hub = hub();
    for top in [None, Some(1)] {
        let pace = Pace { sample: 1.0, top, every_ms: 100 };
        let answer = answer::<Numbers, ()>(hub.watch((), 1.0).unwrap(), pace, Drain::default());
        let mut body = answer.into_body();
        hub.tell(hub.watchers().iter(), &Arc::new(7));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(&*first, b"7\n");
        // Time passes by itself while everybody waits: 40 seconds at the most.
        let mut steps = (0..400).filter(|_| hub.is_watched());
        while steps.next().is_some() {
            hub.tell(hub.watchers().iter(), &Arc::new(7));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(!hub.is_watched(), "{top:?}");
        drop(body);
    }
}
