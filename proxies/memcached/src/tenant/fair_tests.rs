use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const US: Duration = Duration::from_micros(1);

fn ask(tenant: usize, session: usize, now: Duration) -> Ask {
    Ask { tenant, session, in_flight_max: usize::MAX, requests: 1, now }
}

#[test]
fn alone_there_is_no_bound() {
    let mut fair = Fair::new(8);
    for session in 0..100 {
        assert!(fair.may_send(ask(0, session, US), || session));
        fair.sent(0, session, 1, 0);
    }
    assert!(!fair.is_shared());
}

#[test]
fn with_two_each_has_half_and_the_line_moves_in_order() {
    let mut fair = Fair::new(8);
    assert!(fair.may_send(ask(1, 500, US), || 500));
    fair.sent(1, 500, 1, 0);
    for session in 0..4 {
        assert!(fair.may_send(ask(0, session, US), || session));
        fair.sent(0, session, 1, 0);
    }
    for session in 4..7 {
        assert!(!fair.may_send(ask(0, session, US), || session));
    }
    assert!(fair.may_send(ask(1, 500, US), || 500), "the other is not held up");
    assert!(fair.is_over(0) && !fair.is_over(1));
    let mut woken = Vec::new();
    fair.answered(0, 1, 0, |session| woken.push(session));
    assert_eq!(woken, [4]);
    // Nobody barges, not even one who comes while the first in line has not moved yet.
    assert!(!fair.may_send(ask(0, 7, US), || 7));
    assert!(fair.may_send(ask(0, 4, US), || 4));
    fair.sent(0, 4, 1, 0);
    assert!(!fair.may_send(ask(0, 4, US), || 4), "there is no more room");
}

#[test]
fn who_leaves_the_line_lets_the_next_go() {
    let mut fair = Fair::new(2);
    assert!(fair.may_send(ask(1, 9, US), || 9));
    assert!(fair.may_send(ask(0, 0, US), || 0));
    fair.sent(0, 0, 1, 0);
    for session in [1, 2] {
        assert!(!fair.may_send(ask(0, session, US), || session));
    }
    let mut woken = Vec::new();
    fair.answered(0, 1, 0, |session| woken.push(session));
    fair.leave(0, 1, |session| woken.push(session));
    assert_eq!(woken, [1, 2]);
    assert!(fair.may_send(ask(0, 2, US), || 2));
}

#[test]
fn what_was_sent_without_asking_counts_too() {
    let mut fair = Fair::new(8);
    // `version` and `flush_all` wait for nobody, and may be the first of their tenant.
    fair.sent(3, 0, 1, 0);
    assert!(fair.may_send(ask(3, 0, US), || 0));
    fair.sent(3, 0, 1, 0);
    fair.answered(3, 1, 0, |session| panic!("{session} was not in line"));
    fair.answered(3, 1, 0, |session| panic!("{session} was not in line"));
}

#[test]
fn several_keys_take_the_room_of_as_many_requests_as_they_count_for() {
    assert_eq!([1, 4, 5, 32].map(requests_of), [1, 1, 2, 8]);
    let mut fair = Fair::new(8);
    let several = |session| Ask { requests: 4, ..ask(0, session, US) };
    assert!(fair.may_send(ask(1, 9, US), || 9));
    assert!(fair.may_send(several(0), || 0));
    fair.sent(0, 0, 4, 0);
    for session in 1..4 {
        assert!(!fair.may_send(several(session), || session));
    }
    let mut woken = Vec::new();
    fair.answered(0, 4, 0, |session| woken.push(session));
    assert_eq!(woken, [1], "who was called takes all of the room");
    assert!(fair.may_send(several(1), || 1));
    fair.sent(0, 1, 4, 0);
    fair.leave(0, 1, |session| woken.push(session));
    fair.answered(0, 2, 0, |session| woken.push(session));
    assert_eq!(woken, [1, 2]);
}

#[test]
fn the_tenants_own_bound_holds_alone_too() {
    let mut fair = Fair::new(64);
    let ask = |session| Ask { in_flight_max: 2, ..ask(0, session, US) };
    for session in 0..2 {
        assert!(fair.may_send(ask(session), || session));
        fair.sent(0, session, 1, 0);
    }
    assert!(!fair.may_send(ask(2), || 2));
    let mut woken = Vec::new();
    fair.answered(0, 1, 0, |session| woken.push(session));
    assert_eq!(woken, [2]);
    assert!(fair.may_send(ask(2), || 2));
    // Nor is it for another's sake that it waits when there is one.
    assert!(!fair.may_send(ask(3), || 3));
    assert!(fair.may_send(Ask { tenant: 1, ..ask(9) }, || 9));
    assert!(fair.is_shared() && !fair.is_over(0));
}

/// A worker and one server that takes requests in order, in virtual time. Clients ask, wait for the answer and ask
/// again after a pause.
struct Simulation {
    fair: Fair<usize>,
    now: Duration,
    /// What the server has before it: whose, since when, how long it takes.
    queue: VecDeque<(usize, Duration, Duration)>,
    clients: Vec<Client>,
    /// When clients ask.
    asks: BinaryHeap<Reverse<(Duration, usize)>>,
}

struct Client {
    tenant: usize,
    pause: Duration,
    value_len: usize,
    asked_at: Duration,
    latencies: Vec<Duration>,
}

/// What the server takes for a request, and for each 4 KiB of its value.
const SERVICE: Duration = Duration::from_micros(2);

impl Simulation {
    fn new(window: usize) -> Self {
        Self {
            fair: Fair::new(window),
            now: Duration::ZERO,
            queue: VecDeque::new(),
            clients: Vec::new(),
            asks: BinaryHeap::new(),
        }
    }

    fn clients(&mut self, tenant: usize, count: usize, pause: Duration, value_len: usize) {
        for _ in 0..count {
            self.asks.push(Reverse((self.now, self.clients.len())));
            let asked_at = Duration::ZERO;
            self.clients.push(Client { tenant, pause, value_len, asked_at, latencies: Vec::new() });
        }
    }

    fn try_send(&mut self, first: usize) {
        let mut numbers = vec![first];
        while let Some(number) = numbers.pop() {
            let (tenant, value_len) = (self.clients[number].tenant, self.clients[number].value_len);
            if self.fair.may_send(ask(tenant, number, self.now), || number) {
                self.fair.sent(tenant, number, 1, 0);
                let takes = SERVICE * u32::try_from(1 + value_len / COST_LEN).unwrap();
                self.queue.push_back((number, self.clients[number].asked_at, takes));
                self.fair.leave(tenant, number, |session| numbers.push(session));
            }
        }
    }

    fn run(&mut self, until: Duration) {
        let mut busy_until = None;
        while self.now < until {
            let served = self.queue.front().map(|(_, _, takes)| *busy_until.get_or_insert(self.now + *takes));
            let asks = self.asks.peek().map(|Reverse((at, _))| *at);
            let Some(next) = served.into_iter().chain(asks).min() else { panic!("everybody waits for ever") };
            self.now = next;
            if served == Some(next) {
                busy_until = None;
                let (number, asked_at, _) = self.queue.pop_front().unwrap();
                let client = &mut self.clients[number];
                client.latencies.push(self.now - asked_at);
                self.asks.push(Reverse((self.now + client.pause, number)));
                let (tenant, value_len) = (client.tenant, client.value_len);
                let mut woken = Vec::new();
                self.fair.answered(tenant, 1, value_len, |session| woken.push(session));
                woken.into_iter().for_each(|number| self.try_send(number));
            } else if let Some(Reverse((_, number))) = self.asks.pop() {
                self.clients[number].asked_at = self.now;
                self.try_send(number);
            }
        }
    }

    fn latencies(&self, tenant: usize) -> Vec<Duration> {
        let mine = self.clients.iter().filter(|client| client.tenant == tenant);
        let mut all: Vec<_> = mine.flat_map(|client| client.latencies.clone()).collect();
        all.sort();
        all
    }

    fn p99(&self, tenant: usize) -> Duration {
        let all = self.latencies(tenant);
        all[all.len() * 99 / 100]
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_flood_costs_a_quiet_tenant_its_part_of_the_window_and_no_more() {
    for (clients, value_len) in [(10, 0), (1000, 0), (10_000, 0), (1000, 100 * 1024)] {
        let mut simulation = Simulation::new(16);
        simulation.clients(0, 4, Duration::from_millis(1), 0);
        simulation.run(SECOND / 10);
        let alone = simulation.p99(0);
        assert!(alone <= SERVICE * 4);
        simulation.clients[..4].iter_mut().for_each(|client| client.latencies.clear());
        simulation.clients(1, clients, Duration::ZERO, value_len);
        simulation.run(SECOND / 2);
        let flooded = simulation.p99(0);
        // Eight requests of the flood, or one that is too large for that, and what its own other clients ask.
        let large = SERVICE * u32::try_from(value_len / COST_LEN).unwrap();
        assert!(flooded <= SERVICE * 12 + large, "{clients} of {value_len}: {alone:?} became {flooded:?}");
        // And the server is busy all the time: nobody gains by holding the flood back.
        let flood = simulation.latencies(1).len();
        let busy = SERVICE * u32::try_from(flood * (1 + value_len / COST_LEN)).unwrap();
        assert!(busy > SECOND * 3 / 10, "{busy:?}");
    }
}

#[test]
fn without_shares_the_flood_would_drown_it() {
    let mut simulation = Simulation::new(usize::MAX);
    simulation.clients(0, 4, Duration::from_millis(1), 0);
    simulation.clients(1, 1000, Duration::ZERO, 0);
    simulation.run(SECOND);
    assert!(simulation.p99(0) > SERVICE * 900, "this test could not fail: {:?}", simulation.p99(0));
}

#[test]
fn all_who_are_always_over_get_the_same() {
    let mut simulation = Simulation::new(64);
    simulation.clients(0, 40, Duration::ZERO, 0);
    simulation.clients(1, 4000, Duration::ZERO, 0);
    simulation.clients(2, 400, Duration::ZERO, 36 * 1024);
    simulation.run(SECOND);
    let work = |tenant, each| simulation.latencies(tenant).len() * each;
    let (small, crowd, large) = (work(0, 1), work(1, 1), work(2, 10));
    for (one, other) in [(small, crowd), (small, large), (crowd, large)] {
        assert!(one * 10 > other * 7 && other * 10 > one * 7, "{small} {crowd} {large}");
    }
}

#[test]
fn a_tenants_own_sessions_take_turns() {
    let mut simulation = Simulation::new(8);
    simulation.clients(0, 1, Duration::ZERO, 0);
    simulation.clients(1, 100, Duration::ZERO, 0);
    simulation.run(SECOND);
    let served: Vec<_> = simulation.clients[1..].iter().map(|client| client.latencies.len()).collect();
    let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
    assert!(most - least <= most / 10, "{least} to {most}");
}

#[test]
fn who_falls_silent_gives_its_part_back() {
    let mut simulation = Simulation::new(8);
    simulation.clients(0, 1, SECOND * 100, 0);
    simulation.clients(1, 100, Duration::ZERO, 0);
    simulation.run(SECOND / 100);
    assert!(simulation.queue.len() <= 4);
    simulation.run(SECOND / 10);
    assert!(simulation.queue.len() > 90, "{}", simulation.queue.len());
}

#[test]
fn as_long_as_nobody_is_quiet_each_may_have_what_the_least_wants() {
    let mut simulation = Simulation::new(8);
    simulation.clients(0, 30, Duration::ZERO, 0);
    simulation.clients(1, 1000, Duration::ZERO, 0);
    simulation.run(SECOND / 10);
    assert_eq!(simulation.queue.len(), 60, "thirty of each");
    let (mine, theirs) = (simulation.latencies(0).len(), simulation.latencies(1).len());
    assert!(mine.abs_diff(theirs) * 20 < mine, "{mine} and {theirs}");
    // Their p99 is theirs alone, and as much again of the other's.
    assert!(simulation.p99(0) <= SERVICE * 64, "{:?}", simulation.p99(0));
    assert!(![0, 1].map(|tenant| simulation.fair.is_over(tenant)).contains(&true), "a line is no reason");
    simulation.clients(2, 1, Duration::from_millis(1), 0);
    simulation.run(SECOND / 2);
    assert!(simulation.queue.len() <= 6, "{}", simulation.queue.len());
    assert_eq!([0, 1, 2].map(|tenant| simulation.fair.is_over(tenant)), [true, true, false]);
    assert!(simulation.p99(2) <= SERVICE * 64, "it comes among sixty");
    let third = simulation.latencies(2);
    assert!(third[third.len() / 2] <= SERVICE * 8, "and then among six");
}
