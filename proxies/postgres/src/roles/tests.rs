//! The arbiter by cases, and in a world of servers that are promoted, come back, hang and are cut off.

use std::time::Duration;

use groove_common::config::EndpointRole;
use groove_common::ids::EndpointId;
use groove_common::testing::{Dice, simulate};

use super::arbiter::Arbiter;
use super::seen::Sighting;
use super::view::{Standing, View, Wish};
use Standing::{Fenced, Lagging, Lost, Primary, Replica, Unknown};

fn primary(timeline: u32) -> Sighting {
    Sighting { in_recovery: false, timeline, applied: 100, received: 0, inserted: 100 }
}

fn replica(applied: u64, received: u64) -> Sighting {
    Sighting { in_recovery: true, timeline: 0, applied, received, inserted: 0 }
}

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Some servers, nothing declared.
struct Servers {
    arbiter: Arbiter,
    ids: Vec<EndpointId>,
}

impl Servers {
    fn new(count: usize, lag_max: Option<Duration>) -> Servers {
        let ids: Vec<_> = (0..count).map(|_| EndpointId::next()).collect();
        let mut arbiter = Arbiter::new(lag_max);
        arbiter.set_members(&ids.iter().map(|id| (*id, None)).collect::<Vec<_>>());
        Servers { arbiter, ids }
    }

    fn saw(&mut self, index: usize, at: u64, sighting: Sighting) {
        self.arbiter.saw(self.ids[index], s(at), sighting);
    }

    fn lost(&mut self, index: usize) {
        self.arbiter.lost(self.ids[index]);
    }

    fn standings(&self) -> Vec<Standing> {
        self.arbiter.view().standings.iter().map(|(_, standing)| *standing).collect()
    }
}

#[test]
fn the_one_that_is_not_in_recovery_is_the_primary() {
    let mut servers = Servers::new(3, None);
    assert_eq!(servers.standings(), [Unknown; 3]);
    servers.saw(0, 1, replica(100, 100));
    servers.saw(1, 1, primary(1));
    servers.lost(2);
    assert_eq!(servers.standings(), [Replica, Primary, Lost]);
}

#[test]
fn who_answers_first_may_be_an_old_primary() {
    let mut servers = Servers::new(3, None);
    servers.saw(0, 1, primary(1));
    servers.saw(2, 1, replica(100, 100));
    assert_eq!(servers.standings(), [Unknown, Unknown, Replica]);
    servers.saw(1, 2, primary(2));
    assert_eq!(servers.standings(), [Fenced, Primary, Replica]);
    // Who joins later is not waited for.
    let all: Vec<_> = servers.ids.iter().copied().chain([EndpointId::next()]).map(|id| (id, None)).collect();
    servers.arbiter.set_members(&all);
    assert_eq!(servers.standings(), [Fenced, Primary, Replica, Unknown]);
}

#[test]
fn a_failover_and_the_return_of_the_old_primary() {
    let mut servers = Servers::new(2, None);
    servers.saw(0, 1, primary(1));
    servers.saw(1, 1, replica(100, 100));
    servers.lost(0);
    assert_eq!(servers.standings(), [Lost, Replica], "a replica is no primary before it says so");
    servers.saw(1, 2, primary(2));
    assert_eq!(servers.standings(), [Lost, Primary]);
    servers.saw(0, 3, primary(1));
    assert_eq!(servers.standings(), [Fenced, Primary]);
    // The new one is away for a moment: the old one is no substitute.
    servers.lost(1);
    assert_eq!(servers.standings(), [Fenced, Lost]);
    servers.saw(1, 4, primary(2));
    // Rewound, it follows.
    servers.saw(0, 5, replica(100, 100));
    assert_eq!(servers.standings(), [Replica, Primary]);
}

#[test]
fn who_promotes_a_replica_beside_a_primary_that_lives_means_it() {
    let mut servers = Servers::new(2, None);
    servers.saw(0, 1, primary(1));
    servers.saw(1, 1, primary(2));
    assert_eq!(servers.standings(), [Fenced, Primary]);
    assert!(servers.arbiter.split().is_none());
}

#[test]
fn of_equal_timelines_the_present_primary_stays() {
    let mut servers = Servers::new(3, None);
    servers.saw(0, 1, replica(100, 100));
    servers.lost(2);
    servers.saw(1, 1, primary(1));
    servers.saw(0, 1, primary(1));
    assert_eq!(servers.standings(), [Fenced, Primary, Lost]);
    assert_eq!(servers.arbiter.split().unwrap().other, servers.ids[0]);
    servers.lost(1);
    assert_eq!(servers.standings(), [Primary, Lost, Lost]);
    assert!(servers.arbiter.split().is_none());
}

#[test]
fn a_newest_primary_that_left_the_list_binds_nobody() {
    let mut servers = Servers::new(2, None);
    servers.saw(0, 1, primary(1));
    servers.saw(1, 1, primary(2));
    servers.arbiter.set_members(&[(servers.ids[0], None)]);
    assert_eq!(servers.standings(), [Primary]);
}

#[test]
fn who_makes_the_newest_primary_anew_from_the_old_one_means_the_old_one() {
    let mut servers = Servers::new(2, None);
    let followed = |timeline| Sighting { timeline, ..replica(100, 100) };
    servers.saw(0, 1, primary(1));
    servers.saw(1, 1, primary(2));
    // Stopped, and started as a replica of nobody knows whom: it has seen the newer timeline.
    servers.saw(1, 2, followed(2));
    assert_eq!(servers.standings(), [Fenced, Replica]);
    servers.saw(1, 3, replica(100, 100));
    assert_eq!(servers.standings(), [Fenced, Replica], "it does not tell");
    servers.saw(1, 4, followed(1));
    assert_eq!(servers.standings(), [Primary, Replica]);
}

#[test]
fn what_is_declared_is_not_asked() {
    let (first, second, third) = (EndpointId::next(), EndpointId::next(), EndpointId::next());
    let mut arbiter = Arbiter::new(None);
    let declared =
        [(first, Some(EndpointRole::Replica)), (second, Some(EndpointRole::Primary)), (third, None)];
    arbiter.set_members(&declared);
    arbiter.well(first);
    assert_eq!(arbiter.view().primary(), None, "the declared one has not been seen yet");
    arbiter.saw(third, s(1), primary(7));
    assert_eq!(arbiter.view().primary(), None, "nobody else is");
    arbiter.well(second);
    let standings = arbiter.view().standings;
    assert_eq!(standings, [(first, Replica), (second, Primary), (third, Fenced)]);
    arbiter.lost(second);
    assert_eq!(arbiter.view().primary(), None);
}

#[test]
fn lag_is_how_long_what_is_not_applied_has_been_known_of() {
    let mut servers = Servers::new(2, Some(s(10)));
    let at = |servers: &mut Servers, second: u64, position: u64, applied: u64| {
        servers.saw(0, second, Sighting { applied: position, ..primary(1) });
        servers.saw(1, second, replica(applied, applied));
        servers.arbiter.lag_of(servers.ids[1]).unwrap()
    };
    let lag = at(&mut servers, 1, 1000, 1000);
    assert_eq!((lag.time, lag.bytes), (s(0), 0));
    // An idle primary makes nobody lag.
    assert_eq!(at(&mut servers, 60, 1000, 1000).time, s(0));
    let lag = at(&mut servers, 61, 2000, 1000);
    assert_eq!((lag.time, lag.bytes), (s(0), 1000), "it has only just been heard of");
    assert_eq!(at(&mut servers, 71, 3000, 1000).time, s(10));
    assert_eq!(servers.standings(), [Primary, Replica]);
    assert_eq!(at(&mut servers, 72, 4000, 1000).time, s(11));
    assert_eq!(servers.standings(), [Primary, Lagging]);
    // Closer than the bound is not close enough to come back.
    assert_eq!(at(&mut servers, 73, 4000, 3000).time, s(1));
    assert_eq!(servers.standings(), [Primary, Replica]);
    assert_eq!(at(&mut servers, 84, 5000, 4000).time, s(0));
}

#[test]
fn who_was_too_far_behind_has_to_come_closer_than_that() {
    let mut servers = Servers::new(2, Some(s(10)));
    for second in 1..=30 {
        servers.saw(0, second, Sighting { applied: 100 * second, ..primary(1) });
    }
    let mut lag = |applied| {
        servers.saw(1, 30, replica(applied, applied));
        servers.standings()[1]
    };
    // What is not applied was first heard of at 19, 21, 24 and 25.
    assert_eq!([lag(1_800), lag(2_000), lag(2_300), lag(2_400)], [Lagging, Lagging, Lagging, Replica]);
    assert_eq!(lag(1_900), Replica, "ten seconds are not more than ten");
}

#[test]
fn what_is_remembered_to_measure_by_is_bounded() {
    let mut servers = Servers::new(2, None);
    for second in 1..=100_000 {
        servers.saw(0, second, Sighting { applied: second, ..primary(1) });
    }
    servers.saw(1, 100_000, replica(50, 50));
    let lag = servers.arbiter.lag_of(servers.ids[1]).unwrap();
    assert!(lag.time >= s(600), "at least what is remembered: {lag:?}");
    assert_eq!(lag.bytes, 99_950);
}

#[test]
fn who_is_wanted_where() {
    let ids: Vec<_> = (0..4).map(|_| EndpointId::next()).collect();
    let admitted = |wish, standings: [Standing; 4]| {
        let view = View { standings: ids.iter().copied().zip(standings).collect() };
        ids.iter().map(|id| view.admits(wish, *id)).collect::<Vec<_>>()
    };
    let usual = [Primary, Replica, Lagging, Fenced];
    assert_eq!(admitted(Wish::Primary, usual), [true, false, false, false]);
    assert_eq!(admitted(Wish::Replica { or_primary: true }, usual), [false, true, false, false]);
    assert_eq!(admitted(Wish::Any, usual), [true, true, true, false]);
    let unasked = [Primary, Lost, Lagging, Unknown];
    assert_eq!(admitted(Wish::Replica { or_primary: true }, unasked), [false; 4], "it may be a replica");
    let alone = [Primary, Lost, Lagging, Fenced];
    assert_eq!(admitted(Wish::Replica { or_primary: true }, alone), [true, false, false, false]);
    assert_eq!(admitted(Wish::Replica { or_primary: false }, alone), [false; 4]);
}

/// A server as it really is.
#[derive(Clone, Copy)]
struct Real {
    is_up: bool,
    is_reachable: bool,
    in_recovery: bool,
    timeline: u32,
}

/// A failover manager that promotes one server at a time, crashes, returns and partitions beside it, and a monitor that
/// hears of all this late and in any order.
fn world(dice: &mut Dice) {
    const COUNT: usize = 4;
    let mut servers = Servers::new(COUNT, None);
    let mut real = [Real { is_up: true, is_reachable: true, in_recovery: true, timeline: 1 }; COUNT];
    real[0].in_recovery = false;
    let (mut newest, mut floor) = (1, 0);
    for step in 0..300 {
        let index = dice.below(COUNT);
        match dice.below(10) {
            0 => real[index].is_up = false,
            1 => real[index].is_up = true,
            2 => real[index].is_reachable = false,
            3 => real[index].is_reachable = true,
            4 if real[index].is_up && real[index].in_recovery => {
                newest += 1;
                real[index] = Real { in_recovery: false, timeline: newest, ..real[index] };
            }
            // Rewound to follow the newest.
            5 if real[index].timeline < newest => real[index].in_recovery = true,
            _ => {
                let Real { is_up, is_reachable, in_recovery, timeline } = real[index];
                match (is_up && is_reachable, in_recovery) {
                    (false, _) => servers.lost(index),
                    (true, true) => servers.saw(index, step, replica(step, step)),
                    (true, false) => servers.saw(index, step, primary(timeline)),
                }
            }
        }
        let view = servers.arbiter.view();
        let primaries = view.standings.iter().filter(|(_, standing)| *standing == Primary).count();
        assert!(primaries <= 1, "step {step}: {primaries} primaries");
        if let Some(id) = view.primary() {
            let timeline = servers.arbiter.timeline_of(id).expect("a primary has told its timeline");
            assert!(timeline >= floor, "step {step}: back from timeline {floor} to {timeline}");
            floor = timeline;
        }
    }
    // Once everybody has been asked, the newest primary is found, if it is there to be found.
    for (index, server) in real.iter().enumerate() {
        match (server.is_up && server.is_reachable, server.in_recovery) {
            (false, _) => servers.lost(index),
            (true, true) => servers.saw(index, 400, replica(400, 400)),
            (true, false) => servers.saw(index, 400, primary(server.timeline)),
        }
    }
    let is_newest = |server: &Real| server.is_up && server.is_reachable && !server.in_recovery;
    let there = real.iter().position(|server| server.timeline == newest && is_newest(server));
    if let Some(index) = there {
        assert_eq!(servers.arbiter.view().primary(), Some(servers.ids[index]));
    }
    for (index, server) in real.iter().enumerate() {
        if is_newest(server) && Some(index) != there && (there.is_some() || server.timeline < floor) {
            assert_eq!(servers.standings()[index], Fenced, "an old primary gets nothing");
        }
    }
}

#[test]
fn whatever_happens_nobody_goes_back_to_an_older_primary() {
    simulate(500, world);
}
