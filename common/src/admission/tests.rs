use std::collections::BTreeMap;
use std::future::pending;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use super::line::{Entry, Line};
use super::*;
use crate::balance::Dice;

/// What the line does, said in the plainest way: a list that is searched.
#[derive(Default)]
struct Model {
    waiting: Vec<(Priority, usize)>,
    inside: usize,
}

impl Model {
    fn first(&self) -> Option<usize> {
        self.waiting.iter().min_by_key(|(priority, number)| (*priority, *number)).map(|&(_, number)| number)
    }

    fn leave(&mut self, number: usize) {
        self.waiting.retain(|&(_, other)| other != number);
    }
}

/// Arrivals, departures, cancels, resizes and a close, in random order, against the model:
/// who is served is always the first of the best priority; permits are neither lost nor made
/// up; the line keeps its bound.
#[test]
fn simulated_lines_are_fair_bounded_and_lose_nothing() {
    for seed in 0..500 {
        let mut dice = Dice::seeded(seed);
        let (mut limit, mut waiting_max) = (dice.below(4), dice.below(20));
        let mut line = Line::new(limit, waiting_max);
        let mut model = Model::default();
        let mut tickets = BTreeMap::new();
        let closes_at = 200 + dice.below(600);
        for number in 0..800 {
            let context = format!("seed {seed} step {number}");
            match dice.below(10) {
                0..=3 => {
                    let priority = [Priority::High, Priority::Normal, Priority::Low][dice.below(3)];
                    match line.enter(priority, || number) {
                        Entry::Admitted => {
                            assert!(model.waiting.is_empty(), "{context}: barged");
                            assert!(model.inside < limit, "{context}: over the limit");
                            model.inside += 1;
                        }
                        Entry::Queued(ticket) => {
                            assert!(model.inside >= limit || !model.waiting.is_empty(), "{context}");
                            model.waiting.push((priority, number));
                            tickets.insert(number, ticket);
                        }
                        Entry::Full => assert!(model.waiting.len() >= waiting_max, "{context}"),
                        Entry::Closed => assert!(number > closes_at, "{context}"),
                    }
                }
                4 if model.inside > 0 => {
                    let heir = line.pass_on();
                    assert_eq!(heir, model.first().filter(|_| model.inside <= limit), "{context}");
                    heir.into_iter().for_each(|heir| model.leave(heir));
                }
                5..=7 if model.inside > 0 => {
                    let heir = line.release();
                    let expected = if model.inside <= limit { model.first() } else { None };
                    assert_eq!(heir, expected, "{context}: not the first in line");
                    match heir {
                        Some(heir) => model.leave(heir),
                        None => model.inside -= 1,
                    }
                }
                8 if !model.waiting.is_empty() => {
                    let (_, number) = model.waiting[dice.below(model.waiting.len())];
                    assert_eq!(line.cancel(tickets[&number]), Some(number), "{context}");
                    assert_eq!(line.cancel(tickets[&number]), None, "{context}: cancelled twice");
                    model.leave(number);
                }
                9 => {
                    (limit, waiting_max) = (dice.below(6), dice.below(20));
                    for admitted in line.resize(limit, waiting_max) {
                        assert_eq!(Some(admitted), model.first(), "{context}: resize is not fair");
                        model.leave(admitted);
                        model.inside += 1;
                    }
                    assert!(model.waiting.is_empty() || model.inside >= limit, "{context}: room left");
                }
                _ => {}
            }
            if number == closes_at {
                let sent_home = line.close();
                assert_eq!(sent_home.len(), model.waiting.len(), "{context}");
                model.waiting.clear();
            }
            assert_eq!(line.in_use(), model.inside, "{context}: permits lost or made up");
            assert_eq!(line.waiting(), model.waiting.len(), "{context}");
        }
    }
}

#[tokio::test]
async fn a_free_gate_admits_at_once_and_takes_permits_back() {
    let gate = Gate::<()>::new(2, 0);
    let first = gate.acquire(Priority::Normal, pending::<()>()).await.unwrap();
    let second = gate.try_acquire().unwrap();
    assert!(gate.try_acquire().is_none());
    assert_eq!(gate.acquire(Priority::High, pending::<()>()).await.unwrap_err(), Refused::QueueFull);
    drop((first, second));
    assert_eq!(gate.status().in_use, 0);
}

#[tokio::test]
async fn a_released_permit_goes_to_the_first_in_line_and_not_to_a_newcomer() {
    let gate = Gate::<()>::new(1, 10);
    let held = gate.try_acquire().unwrap();
    let mut normal = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    let mut high = Box::pin(gate.acquire(Priority::High, pending::<()>()));
    assert!(normal.as_mut().now_or_never().is_none());
    assert!(high.as_mut().now_or_never().is_none());
    drop(held);
    assert!(gate.try_acquire().is_none(), "barged");
    assert!(normal.as_mut().now_or_never().is_none());
    let permit = high.await.unwrap();
    drop(permit);
    drop(normal.await.unwrap());
}

#[tokio::test]
async fn a_permit_that_is_passed_on_takes_along_what_its_holder_leaves() {
    let gate = Gate::<&str>::new(1, 10);
    let held = gate.try_acquire().unwrap();
    let back = held.pass_on("nobody waits").unwrap_err();
    assert_eq!(back.legacy, Some("nobody waits"));
    let mut gone = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    let mut next = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    assert!(gone.as_mut().now_or_never().is_none());
    assert!(next.as_mut().now_or_never().is_none());
    gate.resize(0, 10);
    let back = back.permit.pass_on("the gate is shut").unwrap_err();
    assert_eq!(back.legacy, Some("the gate is shut"));
    gate.resize(1, 10);
    back.permit.pass_on("first").unwrap();
    assert_eq!(gone.as_mut().now_or_never().unwrap().unwrap().legacy, Some("first"));
    assert_eq!(next.await.unwrap().legacy, None, "only who passes it on leaves something");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_and_frees_the_place() {
    let gate = Gate::<()>::new(1, 1);
    let _held = gate.try_acquire().unwrap();
    let before = Instant::now();
    let deadline = before + Duration::from_secs(3);
    let refused = gate.acquire(Priority::Normal, sleep_until(deadline)).await.unwrap_err();
    assert_eq!((refused, before.elapsed()), (Refused::TimedOut, Duration::from_secs(3)));
    assert_eq!(gate.status().waiting, 0);
}

#[tokio::test]
async fn a_permit_beats_a_deadline_that_comes_with_it() {
    let gate = Gate::<()>::new(1, 1);
    let held = gate.try_acquire().unwrap();
    let (ring, alarm) = tokio::sync::oneshot::channel::<()>();
    let mut waiting = Box::pin(gate.acquire(Priority::Normal, alarm));
    assert!(waiting.as_mut().now_or_never().is_none());
    ring.send(()).unwrap();
    drop(held);
    drop(waiting.await.unwrap());
}

#[tokio::test]
async fn a_permit_that_comes_while_the_deadline_does_is_not_sent_back() {
    let gate = Gate::<()>::new(1, 1);
    let mut held = gate.try_acquire();
    // The deadline passes, and before that is noticed the permit is on its way.
    let deadline = std::future::poll_fn(|_| {
        drop(held.take());
        std::task::Poll::Ready(())
    });
    let admitted = gate.acquire(Priority::Normal, deadline).await;
    assert!(admitted.is_ok(), "{admitted:?}");
}

#[tokio::test]
async fn a_gate_that_is_shut_while_nobody_is_in_is_quiet() {
    let gate = Gate::<()>::new(1, 1);
    let mut quiet = Box::pin(gate.quiet());
    assert!(quiet.as_mut().now_or_never().is_none());
    gate.resize(0, 1);
    assert!(quiet.now_or_never().is_some());
}

#[tokio::test]
async fn a_waiter_that_is_dropped_passes_its_permit_on() {
    let gate = Gate::<()>::new(1, 10);
    let held = gate.try_acquire().unwrap();
    let mut gone = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    let mut next = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    assert!(gone.as_mut().now_or_never().is_none());
    assert!(next.as_mut().now_or_never().is_none());
    let mut impatient = Box::pin(gate.acquire(Priority::High, pending::<()>()));
    assert!(impatient.as_mut().now_or_never().is_none());
    drop(impatient);
    assert_eq!(gate.status().waiting, 2, "its place is free at once");
    // The permit is on its way to the first when it goes.
    drop(held);
    drop(gone);
    let permit = next.now_or_never().expect("the permit came to the next").unwrap();
    drop(permit);
    assert_eq!(gate.status().in_use, 0);
}

#[tokio::test]
async fn closing_sends_waiters_home_and_quiet_waits_for_the_last_permit() {
    let gate = Gate::<()>::new(1, 10);
    let held = gate.try_acquire().unwrap();
    let mut waiting = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    assert!(waiting.as_mut().now_or_never().is_none());
    gate.close();
    assert_eq!(waiting.await.unwrap_err(), Refused::Closed);
    assert_eq!(gate.acquire(Priority::High, pending::<()>()).await.unwrap_err(), Refused::Closed);
    let mut quiet = Box::pin(gate.quiet());
    assert!(quiet.as_mut().now_or_never().is_none());
    drop(held);
    quiet.await;
}

#[tokio::test]
async fn a_limit_of_nothing_holds_everybody_until_it_is_raised() {
    let gate = Gate::<()>::new(1, 10);
    let held = gate.try_acquire().unwrap();
    gate.resize(0, 10);
    let mut quiet = Box::pin(gate.quiet());
    assert!(quiet.as_mut().now_or_never().is_none());
    drop(held);
    quiet.await;
    let mut waiting = Box::pin(gate.acquire(Priority::Normal, pending::<()>()));
    assert!(waiting.as_mut().now_or_never().is_none());
    gate.resize(2, 10);
    drop(waiting.await.unwrap());
}

/// The shell under real threads: cancels, time-outs and resizes at random; never more inside
/// than permits, and all of them there again at the end.
#[test]
fn a_gate_under_threads_loses_no_permit() {
    const LIMIT: usize = 3;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
    for seed in 0..30 {
        let gate = Gate::<()>::new(LIMIT, 1_000);
        let inside = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let (gate, inside) = (gate.clone(), std::sync::Arc::clone(&inside));
                let mut dice = Dice::seeded(seed * 1_000 + task);
                runtime.spawn(async move {
                    use std::sync::atomic::Ordering::SeqCst;
                    for _ in 0..50 {
                        let patience = dice.below(4);
                        let deadline = async {
                            for _ in 0..patience {
                                tokio::task::yield_now().await;
                            }
                        };
                        if let Ok(permit) = gate.acquire(Priority::Normal, deadline).await {
                            let now = inside.fetch_add(1, SeqCst) + 1;
                            assert!(now <= LIMIT, "seed {seed}: {now} inside");
                            tokio::task::yield_now().await;
                            inside.fetch_sub(1, SeqCst);
                            drop(permit);
                        }
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                task.await.unwrap();
            }
        });
        let status = gate.status();
        assert_eq!((status.in_use, status.waiting), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate() {
    let mut bucket = TokenBucket::new(10.0, 5.0);
    let start = Duration::from_secs(1_000);
    for _ in 0..5 {
        assert_eq!(bucket.take(start, 1.0), Ok(()));
    }
    let wait = bucket.take(start, 1.0).unwrap_err();
    assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
    assert_eq!(bucket.take(start + wait, 1.0), Ok(()), "after the wait it was told, it goes through");
    assert!((bucket.available(start + Duration::from_secs(60)) - 5.0).abs() < 1e-6, "never above the burst");
}

#[test]
fn a_burst_of_less_than_a_token_lets_one_through() {
    let mut bucket = TokenBucket::new(10.0, 0.2);
    assert!((bucket.available(Duration::ZERO) - 1.0).abs() < 1e-6);
    assert_eq!(bucket.take(Duration::ZERO, 1.0), Ok(()));
    let wait = bucket.take(Duration::ZERO, 1.0).unwrap_err();
    assert!((wait.as_secs_f64() - 0.1).abs() < 1e-6, "{wait:?}");
}

#[test]
fn a_bucket_lends_what_is_more_than_it_holds_and_is_paid_back() {
    let mut bucket = TokenBucket::new(1.0, 2.0);
    assert_eq!(bucket.take(Duration::ZERO, 5.0), Ok(()));
    assert!((bucket.available(Duration::ZERO) + 3.0).abs() < 1e-6);
    let wait = bucket.take(Duration::ZERO, 1.0).unwrap_err();
    assert!((wait.as_secs_f64() - 4.0).abs() < 1e-6, "{wait:?}");
}

#[test]
fn simulated_buckets_never_let_more_through_than_burst_and_rate() {
    for seed in 0..200 {
        let mut dice = Dice::seeded(seed);
        let (rate, burst) = (1.0 + dice.unit() * 1e4, 5.0 + dice.unit() * 100.0);
        let mut bucket = TokenBucket::new(rate, burst);
        let (mut now, mut taken) = (Duration::ZERO, 0.0);
        for _ in 0..5_000 {
            now += Duration::from_secs_f64(dice.unit() / rate);
            if bucket.take(now, 1.0).is_ok() {
                taken += 1.0;
            }
            let bound = burst + rate * now.as_secs_f64() + 1e-3;
            assert!(taken <= bound, "seed {seed}: {taken} of {bound} at {now:?}");
        }
        // It was asked twice as fast as it flows: it must have given nearly all it could.
        assert!(taken >= rate * now.as_secs_f64() - 1.0, "seed {seed}: only {taken}");
    }
}

#[test]
fn reconfiguring_a_bucket_keeps_its_debt() {
    let mut bucket = TokenBucket::new(1.0, 10.0);
    bucket.take(Duration::ZERO, 10.0).unwrap();
    bucket.reconfigure(Duration::ZERO, 100.0, 20.0);
    assert!((bucket.available(Duration::ZERO) - 10.0).abs() < 1e-6, "ten of twenty are drawn");
}
