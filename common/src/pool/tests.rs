use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::task::yield_now;
use tokio::time::{Instant, advance};

use super::*;
use crate::balance::Dice;

/// A server that counts its connections and can be down, slow, or picky.
#[derive(Default)]
struct Server {
    down: AtomicBool,
    hangs: AtomicBool,
    refuses: AtomicBool,
    open: AtomicUsize,
    open_max: AtomicUsize,
    dialled: AtomicUsize,
}

struct Dialling(Arc<Server>);

#[derive(Debug)]
struct Conn {
    number: usize,
    broken: bool,
    server: Arc<Server>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Server")
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.server.open.fetch_sub(1, SeqCst);
    }
}

#[derive(Debug, thiserror::Error, PartialEq)]
enum DialError {
    #[error("connection refused")]
    Down,
    #[error("password refused")]
    Password,
}

impl Manager for Dialling {
    type Connection = Conn;
    type Error = DialError;

    async fn connect(&self) -> Result<Conn, DialError> {
        let number = self.0.dialled.fetch_add(1, SeqCst);
        yield_now().await;
        if self.0.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.0.down.load(SeqCst) {
            return Err(DialError::Down);
        }
        if self.0.refuses.load(SeqCst) {
            return Err(DialError::Password);
        }
        let open = self.0.open.fetch_add(1, SeqCst) + 1;
        self.0.open_max.fetch_max(open, SeqCst);
        Ok(Conn { number, broken: false, server: Arc::clone(&self.0) })
    }

    fn has_broken(&self, conn: &mut Conn) -> bool {
        conn.broken
    }

    fn retry(&self, error: &DialError) -> bool {
        *error == DialError::Down
    }
}

fn config(size: usize) -> PoolConfig {
    PoolConfig {
        size,
        idle_timeout: None,
        max_lifetime: None,
        backoff: Backoff { base: Duration::from_secs(1), max: Duration::from_secs(8) },
        ..PoolConfig::default()
    }
}

fn pool(config: PoolConfig) -> (Pool<Dialling>, Arc<Server>) {
    let server = Arc::new(Server::default());
    (Pool::start("test", Dialling(Arc::clone(&server)), config, &Handle::current()), server)
}

fn within(seconds: u64) -> Waiter {
    Waiter { deadline: Some(Instant::now() + Duration::from_secs(seconds)), ..Waiter::default() }
}

/// Lets everything run that can without time passing.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_warmest_connection_comes_back_first() {
    let (pool, server) = pool(config(3));
    let leases = join_all((0..3).map(|_| pool.lease(Waiter::default()))).await;
    let mut leases: Vec<_> = leases.into_iter().map(Result::unwrap).collect();
    let last = leases.remove(1);
    let number = last.number;
    drop(leases);
    last.release();
    for _ in 0..5 {
        assert_eq!(pool.lease(Waiter::default()).await.unwrap().number, number);
    }
    assert_eq!(server.dialled.load(SeqCst), 3);
    let status = pool.status();
    assert_eq!((status.idle, status.leased, status.opened), (3, 0, 3));
}

#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_turn_and_never_by_a_new_connection() {
    let (pool, server) = pool(config(1));
    let held = pool.lease(Waiter::default()).await.unwrap();
    let mut first = Box::pin(pool.lease(Waiter::default()));
    let mut second = Box::pin(pool.lease(Waiter::default()));
    assert!(first.as_mut().now_or_never().is_none());
    assert!(second.as_mut().now_or_never().is_none());
    assert_eq!(pool.status().waiting, 2);
    drop(held);
    assert!(second.as_mut().now_or_never().is_none(), "out of turn");
    assert_eq!(pool.status().idle, 0, "it goes on without a stop");
    drop(first.now_or_never().unwrap().unwrap());
    drop(second.now_or_never().unwrap().unwrap());
    assert_eq!(server.dialled.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_on_its_way_to_the_next_in_line_is_replaced() {
    let (pool, server) = pool(config(1));
    let mut held = pool.lease(Waiter::default()).await.unwrap();
    let mut next = Box::pin(pool.lease(Waiter::default()));
    let mut last = Box::pin(pool.lease(Waiter::default()));
    assert!(next.as_mut().now_or_never().is_none());
    assert!(last.as_mut().now_or_never().is_none());
    held.broken = true;
    drop(held);
    drop(next.await.unwrap());
    assert_eq!((server.dialled.load(SeqCst), server.open.load(SeqCst)), (2, 1));
    drop(last);
    assert_eq!((pool.status().leased, pool.status().idle), (0, 1), "nobody took it: it lies on the shelf");
}

#[tokio::test(start_paused = true)]
async fn broken_closed_and_condemned_connections_are_not_lent_again() {
    let (pool, server) = pool(config(2));
    let mut lease = pool.lease(Waiter::default()).await.unwrap();
    lease.broken = true;
    drop(lease);
    assert_eq!(server.open.load(SeqCst), 0);
    pool.lease(Waiter::default()).await.unwrap().close();
    assert_eq!(server.open.load(SeqCst), 0);
    let mut lease = pool.lease(Waiter::default()).await.unwrap();
    lease.condemn();
    lease.redeem();
    drop(lease);
    assert_eq!(server.open.load(SeqCst), 1, "redeemed");
    pool.lease(Waiter::default()).await.unwrap().condemn();
    assert_eq!((server.open.load(SeqCst), pool.status().idle), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_the_servers_own_answer_comes_at_once() {
    let (pool, server) = pool(config(2));
    server.down.store(true, SeqCst);
    let error = pool.lease(Waiter::default()).await.unwrap_err();
    assert!(matches!(error, LeaseError::Connect(DialError::Down)), "{error:?}");
    assert_eq!(pool.status().leased, 0, "the permit came back");
    assert_eq!(pool.status().last_error.as_deref(), Some("connection refused"));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_get_better_is_not_tried_again() {
    let (pool, server) = pool(config(2));
    server.refuses.store(true, SeqCst);
    let error = pool.lease(within(60)).await.unwrap_err();
    assert!(matches!(error, LeaseError::Connect(DialError::Password)), "{error:?}");
    assert_eq!(server.dialled.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_within_the_deadline_serves_everybody_who_waited() {
    let (pool, server) = pool(config(10));
    server.down.store(true, SeqCst);
    let callers: Vec<_> = (0..10)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { pool.lease(within(600)).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let dialled = server.dialled.load(SeqCst);
    assert!(dialled < 10 + 60, "one trial at a time, further and further apart: {dialled}");
    server.down.store(false, SeqCst);
    let leases = join_all(callers).await;
    assert!(leases.into_iter().all(|lease| lease.unwrap().is_ok()));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_all_waiting_and_says_why_nobody_could_be_reached() {
    let (pool, server) = pool(config(2));
    server.down.store(true, SeqCst);
    let before = Instant::now();
    let error = pool.lease(within(30)).await.unwrap_err();
    assert_eq!(before.elapsed().as_secs(), 30);
    assert_eq!(error.to_string(), "no connection before the deadline: connection refused");
    assert_eq!(pool.status().leased, 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up_on_in_time() {
    let (pool, server) = pool(config(2));
    server.hangs.store(true, SeqCst);
    let before = Instant::now();
    let error = pool.lease(Waiter::default()).await.unwrap_err();
    assert_eq!(before.elapsed(), PoolConfig::default().connect_timeout);
    assert!(error.to_string().contains("within 5s"), "{error}");
}

/// With one connection out and dials failing (a server at its own limit), whoever wants to
/// dial takes the connection that comes back instead.
#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_back_serves_whoever_cannot_dial() {
    let (pool, server) = pool(config(2));
    let held = pool.lease(Waiter::default()).await.unwrap();
    server.down.store(true, SeqCst);
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.lease(within(600)).await }
    });
    settle().await;
    let before = Instant::now();
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap().number, 0);
    assert_eq!(before.elapsed(), Duration::ZERO, "without waiting for the back-off");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_trial_leaves_the_way_free_for_the_next() {
    let (pool, server) = pool(config(2));
    server.down.store(true, SeqCst);
    assert!(pool.lease(Waiter::default()).await.is_err());
    advance(Duration::from_secs(20)).await;
    server.hangs.store(true, SeqCst);
    let mut trial = Box::pin(pool.lease(Waiter::default()));
    assert!(trial.as_mut().now_or_never().is_none());
    settle().await;
    drop(trial);
    server.hangs.store(false, SeqCst);
    server.down.store(false, SeqCst);
    pool.lease(Waiter::default()).await.unwrap().release();
}

#[tokio::test(start_paused = true)]
async fn the_warm_minimum_is_opened_and_comes_back() {
    let (pool, server) = pool(PoolConfig { warm: 3, ..config(5) });
    settle().await;
    assert_eq!(pool.status().idle, 3);
    pool.lease(Waiter::default()).await.unwrap().close();
    assert_eq!(server.open.load(SeqCst), 2);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(server.open.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn the_idle_go_after_their_time_and_the_warm_stay() {
    let (pool, server) =
        pool(PoolConfig { warm: 2, idle_timeout: Some(Duration::from_secs(40)), ..config(6) });
    let leases = join_all((0..6).map(|_| pool.lease(Waiter::default()))).await;
    drop(leases);
    // One is used every ten seconds and so is never idle for long.
    for _ in 0..6 {
        pool.lease(Waiter::default()).await.unwrap().release();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(server.open.load(SeqCst), 2);
    assert_eq!(server.dialled.load(SeqCst), 6, "none was opened anew");
}

#[tokio::test(start_paused = true)]
async fn lifetimes_end_between_four_fifths_and_all_of_the_longest() {
    let (pool, server) = pool(PoolConfig { max_lifetime: Some(Duration::from_secs(1_000)), ..config(50) });
    drop(join_all((0..50).map(|_| pool.lease(Waiter::default()))).await);
    let mut left = Vec::new();
    for _ in 0..11 {
        left.push(server.open.load(SeqCst));
        tokio::time::sleep(Duration::from_secs(100)).await;
    }
    assert_eq!((left[8], server.open.load(SeqCst)), (50, 0), "{left:?}");
    assert!((1..50).contains(&left[9]), "not all at once: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_shrinks_closes_what_is_too_much() {
    let (pool, server) = pool(config(6));
    let mut leases: Vec<_> = join_all((0..6).map(|_| pool.lease(Waiter::default())))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    leases.truncate(4);
    pool.reconfigure(config(2));
    settle().await;
    assert!(pool.lease(within(1)).await.is_err(), "four are out, two may be");
    drop(leases);
    assert_eq!(server.open.load(SeqCst), 2);
    pool.reconfigure(config(6));
    let leases = join_all((0..6).map(|_| pool.lease(Waiter::default()))).await;
    assert!(leases.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn reconnecting_replaces_idle_connections_now_and_busy_ones_as_they_return() {
    let (pool, server) = pool(config(3));
    let mut leases: Vec<_> = join_all((0..3).map(|_| pool.lease(Waiter::default())))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let busy = leases.remove(0);
    drop(leases);
    pool.reconnect();
    assert_eq!(server.open.load(SeqCst), 1);
    drop(busy);
    assert_eq!(server.open.load(SeqCst), 0);
    assert_eq!(pool.lease(Waiter::default()).await.unwrap().number, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pause_waits_for_leases_and_holds_new_ones_until_it_ends() {
    let (pool, _) = pool(config(2));
    let held = pool.lease(Waiter::default()).await.unwrap();
    let mut pause = Box::pin(pool.pause());
    assert!(pause.as_mut().now_or_never().is_none());
    let mut waiting = Box::pin(pool.lease(Waiter::default()));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(held);
    pause.await;
    assert!(waiting.as_mut().now_or_never().is_none());
    pool.resume();
    waiting.await.unwrap().release();
}

#[tokio::test(start_paused = true)]
async fn a_pause_leaves_no_connection_open_and_the_next_lease_dials() {
    let (pool, server) = pool(PoolConfig { warm: 2, ..config(3) });
    settle().await;
    let held = pool.lease(Waiter::default()).await.unwrap();
    assert_eq!(server.open.load(SeqCst), 2);
    let mut pause = Box::pin(pool.pause());
    assert!(pause.as_mut().now_or_never().is_none());
    drop(held);
    pause.await;
    assert_eq!((server.open.load(SeqCst), pool.status().idle), (0, 0));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.open.load(SeqCst), 0, "the keeper warms nothing meanwhile");
    let mut waiting = Box::pin(pool.lease(Waiter::default()));
    assert!(waiting.as_mut().now_or_never().is_none());
    pool.resume();
    assert_eq!(waiting.await.unwrap().number, 2);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_given_up_has_closed_nothing() {
    let (pool, server) = pool(config(2));
    let held = pool.lease(Waiter::default()).await.unwrap();
    pool.lease(Waiter::default()).await.unwrap().release();
    pool.hold();
    assert!(pool.empty().now_or_never().is_none());
    let mut waiting = Box::pin(pool.lease(Waiter::default()));
    assert!(waiting.as_mut().now_or_never().is_none(), "it still holds");
    pool.resume();
    drop(held);
    assert_eq!((waiting.await.unwrap().number, server.open.load(SeqCst)), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn deadlines_count_in_a_pause_and_new_bounds_do_not_end_it() {
    let (pool, _) = pool(config(2));
    pool.pause().await;
    pool.reconfigure(config(5));
    let error = pool.lease(within(3)).await.unwrap_err();
    assert!(matches!(error, LeaseError::Refused(Refused::TimedOut)), "{error:?}");
    pool.resume();
    drop(join_all((0..5).map(|_| pool.lease(within(1)))).await.into_iter().map(Result::unwrap));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_with_the_last_lease_and_leaves_nothing_open() {
    let (pool, server) = pool(config(2));
    let held = pool.lease(Waiter::default()).await.unwrap();
    pool.lease(Waiter::default()).await.unwrap().release();
    let mut drain = Box::pin(pool.drain());
    assert!(drain.as_mut().now_or_never().is_none());
    let refused = pool.lease(Waiter::default()).await.unwrap_err();
    assert!(matches!(refused, LeaseError::Refused(Refused::Closed)));
    drop(held);
    drain.await;
    assert_eq!(server.open.load(SeqCst), 0);
    assert_eq!(pool.status().idle, 0);
}

/// Many callers on few connections, with cancels, breaks, outages, resizes and reconnects:
/// never more connections than the largest size allows, and nothing lost at the end.
#[tokio::test(start_paused = true)]
async fn simulated_pools_keep_their_bound_and_lose_nothing() {
    for seed in 0..100 {
        let mut dice = Dice::seeded(seed);
        let size = 1 + dice.below(5);
        let (pool, server) = pool(PoolConfig {
            idle_timeout: Some(Duration::from_secs(3)),
            max_lifetime: Some(Duration::from_secs(20)),
            warm: dice.below(3),
            ..config(size)
        });
        let callers: Vec<_> = (0..40)
            .map(|caller| {
                let (pool, mut dice) = (pool.clone(), Dice::seeded(seed * 100 + caller));
                tokio::spawn(async move {
                    for _ in 0..20 {
                        let patience = Duration::from_millis(dice.below(3_000) as u64);
                        let lease = tokio::time::timeout(patience, pool.lease(within(2))).await;
                        let Ok(Ok(mut lease)) = lease else { continue };
                        tokio::time::sleep(Duration::from_millis(dice.below(50) as u64)).await;
                        lease.broken = dice.below(10) == 0;
                    }
                })
            })
            .collect();
        for _ in 0..30 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            server.down.store(dice.below(4) == 0, SeqCst);
            match dice.below(6) {
                0 => pool.reconnect(),
                1 => pool.reconfigure(PoolConfig { warm: dice.below(3), ..config(1 + dice.below(size)) }),
                _ => {}
            }
            let open = server.open_max.load(SeqCst);
            assert!(open <= size, "seed {seed}: {open} connections of {size}");
        }
        server.down.store(false, SeqCst);
        for caller in callers {
            caller.await.unwrap();
        }
        pool.reconfigure(config(size));
        let leases = join_all((0..size).map(|_| pool.lease(within(60)))).await;
        assert!(leases.iter().all(Result::is_ok), "seed {seed}: a permit was lost");
        drop(leases);
        pool.drain().await;
        assert_eq!(server.open.load(SeqCst), 0, "seed {seed}: a connection was lost");
    }
}

/// A connection lies on the shelf before its permit brings the next caller there: otherwise,
/// on another thread, that one would find nothing and dial once too often.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pool_under_threads_never_dials_more_than_its_size() {
    let (pool, server) = pool(config(2));
    let callers = (0..8).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..20_000 {
                pool.lease(Waiter::default()).await.unwrap().release();
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert!(server.dialled.load(SeqCst) <= 2, "{}", server.dialled.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn the_keeper_ends_with_the_pool() {
    let (pool, server) = pool(PoolConfig { warm: 2, ..config(2) });
    settle().await;
    assert_eq!(server.open.load(SeqCst), 2);
    drop(pool);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(server.open.load(SeqCst), 0);
}

mod idle_lists {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn warmest_first_and_the_oldest_goes_over_the_bound() {
        let now = Instant::now();
        let mut list = IdleList::new(2, Duration::from_secs(10));
        assert_eq!(list.put('a', now), None);
        assert_eq!(list.put('b', now), None);
        assert_eq!(list.put('c', now), Some('a'));
        assert_eq!((list.take(now), list.take(now), list.take(now)), (Some('c'), Some('b'), None));
    }

    #[tokio::test(start_paused = true)]
    async fn the_old_are_never_lent() {
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let mut list = IdleList::new(9, Duration::from_secs(10));
        list.put('a', start);
        list.put('b', later(5));
        assert_eq!(list.expire(later(10)), Some(later(15)));
        assert_eq!(list.len(), 1);
        assert_eq!(list.take(later(15)), None);
        assert!(list.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_list_takes_other_bounds_while_it_is_in_use() {
        let mut list = IdleList::new(3, Duration::from_secs(10));
        let now = Instant::now();
        for conn in 1..=3 {
            list.put(conn, now);
        }
        list.bound(1, Duration::from_secs(2));
        assert_eq!(list.len(), 1);
        assert_eq!(list.take(now + Duration::from_secs(3)), None, "too old by now");
        list.put(4, now);
        assert_eq!(list.put(5, now), Some(4));
    }

    #[test]
    fn a_bound_of_nothing_keeps_nothing() {
        let mut list = IdleList::new(0, Duration::from_secs(10));
        assert_eq!(list.put('a', Instant::now()), Some('a'));
    }
}

#[tokio::test(start_paused = true)]
async fn shrinking_closes_idle_connections_at_once_however_few_permits_are_left() {
    let (pool, server) = pool(config(5));
    drop(join_all((0..5).map(|_| pool.lease(within(1)))).await);
    assert_eq!(server.open.load(SeqCst), 5);
    pool.reconfigure(config(2));
    assert_eq!(server.open.load(SeqCst), 2);
    pool.reconfigure(config(0));
    assert_eq!(server.open.load(SeqCst), 0);
}
