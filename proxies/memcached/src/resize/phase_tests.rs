//! Three sidecars, one of which drives, in any order of events: never further apart than neighbours, always at
//! an end, and of one mind there.

use std::cell::Cell;

use groove_common::testing::{Dice, simulate};

use super::super::plan::Unfit;
use super::super::wishes::Refused;
use super::*;

const SEEDS: u64 = 150;
const EVENTS: usize = 1500;
const GUARD: Duration = Duration::from_secs(2);
const STUB: Duration = STUB_LIFE;

fn list(ports: &[u16]) -> Vec<Endpoint> {
    ports.iter().map(|&port| Endpoint::from(Address::tcp("10.0.0.1", port))).collect()
}

fn wish(ports: &[u16]) -> Wish {
    Wish { to: list(ports), is_immediate: false }
}

fn joined(port: u16) -> Joined {
    let address = Address::tcp("10.0.0.1", port);
    Joined { address, since_s: 0, why: String::new(), full_percent: 90 }
}

/// A process with its sidecar.
#[derive(Debug, Default)]
struct Sidecar {
    up: bool,
    /// What it has acknowledged; none while it is not present.
    presence: Option<u64>,
    /// What it serves by.
    serves: Option<State>,
    /// Operations under way, by the state that they began in.
    operations: Vec<State>,
}

/// What the one who drives remembers.
#[derive(Debug)]
struct Driver {
    sidecar: usize,
    /// A state it has read, not decided upon yet.
    read: Option<(State, u64)>,
    /// The step that all were seen in, and since when.
    settled: Option<(u64, Duration)>,
    /// What the flags below are about.
    about: (u64, Phase, bool),
    is_purged: bool,
    is_moved: bool,
    moving: bool,
}

#[derive(Debug)]
struct World {
    dice: Dice,
    now: Duration,
    state: State,
    revision: u64,
    history: BTreeMap<u64, State>,
    sidecars: Vec<Sidecar>,
    driver: Option<Driver>,
    away: BTreeSet<Address>,
    /// The new servers may hold something of the moved keys.
    dirty: bool,
    /// Until when stubs may live at the old and the new servers.
    stubs: Duration,
    /// Changes that were carried out, and that went back.
    ends: (u32, u32),
}

impl World {
    fn new(seed: u64) -> Self {
        let state = State::new(list(&[1, 2, 3]));
        Self {
            dice: Dice::new(seed),
            now: Duration::ZERO,
            revision: 1,
            history: BTreeMap::from([(1, state.clone())]),
            state,
            sidecars: (0..3).map(|_| Sidecar { up: true, ..Sidecar::default() }).collect(),
            driver: None,
            away: BTreeSet::new(),
            dirty: true,
            stubs: Duration::ZERO,
            ends: (0, 0),
        }
    }

    fn put(&mut self, state: State) {
        if state.step != self.state.step {
            assert_eq!(state.step, self.state.step + 1);
            assert!(are_neighbours(&self.state, &state), "{:?}\n{state:?}", self.state);
            let gone = |state: &State| state.change.as_ref().map(|change| change.gone.clone());
            let moving = self.driver.as_ref().is_some_and(|driver| driver.moving);
            assert!(!moving || gone(&self.state) == gone(&state), "the mover may read who is given up");
            match (&self.state.change, &state.change) {
                (Some(change), None) if state.slots == change.to => self.ends.0 += 1,
                (Some(_), None) => self.ends.1 += 1,
                (None, Some(_)) => self.dirty = true,
                (Some(_) | None, _) => {}
            }
            self.history.insert(state.step, state.clone());
        }
        self.state = state;
        self.revision += 1;
    }

    /// One event of a sidecar's own.
    fn sidecar(&mut self, number: usize) {
        let state = self.state.clone();
        let choice = self.dice.below(6);
        let Some(sidecar) = self.sidecars.get_mut(number) else { return };
        if !sidecar.up {
            return;
        }
        match (&sidecar.presence, &sidecar.serves) {
            (None, _) => sidecar.presence = Some(0),
            (Some(_), None) => sidecar.serves = Some(state),
            (Some(_), Some(serves)) => match choice {
                0 => sidecar.serves = Some(state),
                1 | 2 if sidecar.operations.len() < 3 => sidecar.operations.push(serves.clone()),
                1..=3 if !sidecar.operations.is_empty() => {
                    sidecar.operations.remove(0);
                }
                _ => {
                    if sidecar.operations.iter().all(|operation| operation.step == serves.step) {
                        sidecar.presence = Some(serves.step);
                    }
                }
            },
        }
    }

    fn crash(&mut self, number: usize) {
        self.sidecars[number] = Sidecar::default();
        if self.driver.as_ref().is_some_and(|driver| driver.sidecar == number) {
            self.driver = None;
        }
    }

    fn drive(&mut self) {
        if self.driver.is_none() {
            let serving = (0..3).filter(|&number| self.sidecars[number].serves.is_some()).collect::<Vec<_>>();
            if let Some(&sidecar) = serving.get(self.dice.below(3)) {
                self.driver = Some(Driver {
                    sidecar,
                    read: None,
                    settled: None,
                    about: (0, Phase::Plain, false),
                    is_purged: false,
                    is_moved: false,
                    moving: false,
                });
            }
        }
        let Some(driver) = &mut self.driver else { return };
        let Some((state, revision)) = driver.read.take() else {
            driver.read = Some((self.state.clone(), self.revision));
            return;
        };
        // Only now, after the state was read, it looks who is present.
        let present = self.sidecars.iter().enumerate();
        let sidecars: BTreeMap<_, _> =
            present.filter_map(|(number, sidecar)| Some((number.to_string(), sidecar.presence?))).collect();
        let change = state.change.as_ref();
        let about = change.map_or((0, Phase::Plain, false), |it| (it.id, it.phase, it.is_aborting));
        if driver.about != about {
            (driver.about, driver.is_purged, driver.is_moved) = (about, false, false);
        }
        let all_in = sidecars.values().all(|acknowledged| *acknowledged >= state.step);
        driver.settled = match driver.settled {
            _ if !all_in => None,
            Some((step, since)) if step == state.step => Some((step, since)),
            Some(_) | None => Some((state.step, self.now)),
        };
        let facts = Facts {
            sidecars,
            settled: driver.settled.map_or(Duration::ZERO, |(_, since)| self.now - since),
            guard: GUARD,
            is_purged: driver.is_purged,
            is_moved: driver.is_moved,
            is_mover_idle: !driver.moving,
            away: self.away.clone(),
        };
        match decide(&state, &facts) {
            Decision::Rest | Decision::Wait(_) => {}
            Decision::Purge => {
                (driver.is_purged, self.dirty) = (true, false);
                assert!(facts.away.iter().all(|it| change.unwrap().gone.contains_key(it)
                    || change.unwrap().to.iter().all(|to| to.address != *it)));
            }
            Decision::Move if !driver.moving => driver.moving = true,
            Decision::Move => driver.is_moved = self.dice.chance(1, 3),
            Decision::StopMover => driver.moving = false,
            Decision::Put(state) if revision == self.revision => self.put(state),
            Decision::Put(_) => {}
        }
    }

    fn operator(&mut self) {
        let ports: Vec<u16> = (1..=6).filter(|_| self.dice.chance(1, 2)).collect();
        let state = match self.dice.below(8) {
            6 => self.state.join(&list(&[7])[0], joined(7)),
            7 => self.state.leave(&list(&[7])[0].address),
            0 | 1 => self.state.propose(wish(&ports)).ok(),
            2 => self.state.follow(wish(&ports)),
            3 => self.state.abort().ok(),
            4 => self.state.pause(true).ok(),
            _ => self.state.pause(false).ok(),
        };
        if let Some(state) = state {
            self.put(state);
        }
    }

    /// Every state that somebody goes by now.
    fn in_use(&self) -> impl Iterator<Item = &State> {
        self.sidecars.iter().flat_map(|sidecar| sidecar.serves.iter().chain(&sidecar.operations))
    }

    fn check(&mut self) {
        let wanted = self.state.listed();
        assert!(self.state.target().starts_with(&wanted), "standby servers stand behind: {:?}", self.state);
        assert_eq!(self.state.clone().pruned(), self.state, "a standby server is in no list");
        let steps: BTreeSet<u64> = self.in_use().map(|state| state.step).collect();
        if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
            assert!(last - first <= 1, "steps {steps:?}");
        }
        let phases: BTreeSet<Phase> = self.in_use().map(State::phase).collect();
        let moving = self.driver.as_ref().is_some_and(|driver| driver.moving);
        assert!(!moving || !phases.contains(&Phase::C), "the mover runs while somebody is in C");
        assert!(!moving || phases.iter().all(|phase| *phase == Phase::E), "the mover runs in {phases:?}");
        if phases.contains(&Phase::C) && phases.contains(&Phase::B) {
            let unread = self.state.change.as_ref().is_some_and(|change| !change.gone.is_empty());
            assert!(!self.dirty || unread, "somebody reads what nobody deletes");
        }
        if phases.contains(&Phase::E) {
            self.dirty = true;
        }
        if phases.contains(&Phase::C) || phases.contains(&Phase::E) {
            self.stubs = self.now + STUB;
        }
        assert!(!phases.contains(&Phase::Plain) || self.now >= self.stubs, "a stub is read plainly");
    }

    fn event(&mut self) {
        match self.dice.below(40) {
            0 => self.operator(),
            1 if self.dice.chance(1, 8) => {
                let number = self.dice.below(3);
                self.crash(number);
            }
            2 => {
                let number = self.dice.below(3);
                self.sidecars[number].up = true;
            }
            3 if self.dice.chance(1, 8) => {
                let known = list(&[1, 2, 3, 4, 5, 6]);
                self.away.extend(self.dice.pick(&known).map(|server| server.address.clone()));
            }
            4 if self.dice.chance(1, 2) => self.away.clear(),
            5..=7 => self.now += Duration::from_millis(self.dice.below(9000) as u64),
            8..=16 => self.drive(),
            _ => {
                let number = self.dice.below(3);
                self.sidecar(number);
            }
        }
        self.check();
    }

    /// Nothing goes wrong any more.
    fn calm(&mut self) {
        self.away.clear();
        self.sidecars.iter_mut().for_each(|sidecar| sidecar.up = true);
        for _ in 0..200_000 {
            if let Ok(state) = self.state.pause(false).and_then(|state| match self.state.paused {
                true => Ok(state),
                false => Err(Refused::Nothing),
            }) {
                self.put(state);
            }
            let step = self.state.step;
            let agreed = |it: &Sidecar| it.presence == Some(step) && it.serves.as_ref() == Some(&self.state);
            if self.state.change.is_none() && self.state.next.is_none() && self.sidecars.iter().all(agreed) {
                return;
            }
            match self.dice.below(8) {
                0 => self.now += Duration::from_millis(500),
                1 | 2 => self.drive(),
                _ => {
                    let number = self.dice.below(3);
                    self.sidecar(number);
                }
            }
            self.check();
        }
        panic!("it does not end: {self:#?}");
    }
}

/// May two states be in use at once?
fn are_neighbours(a: &State, b: &State) -> bool {
    let place = |state: &State, change: &Change| match state.change.as_ref().map(|it| it.phase) {
        Some(Phase::Plain) => unreachable!(),
        Some(Phase::B) => 1,
        Some(Phase::C) => 2,
        Some(Phase::E) => 3,
        Some(Phase::F) => 4,
        None if state.slots == change.to => 5_i32,
        None => 0,
    };
    match (&a.change, &b.change) {
        (Some(one), Some(two)) => one.id == two.id && (place(a, one) - place(b, two)).abs() <= 1,
        (Some(change), None) | (None, Some(change)) => (place(a, change) - place(b, change)).abs() == 1,
        (None, None) => a.slots == b.slots,
    }
}

#[test]
fn sidecars_are_never_further_apart_than_neighbours_and_always_come_to_one_mind() {
    let ends = Cell::new((0, 0));
    simulate(SEEDS, |dice| {
        let mut world = World::new(dice.roll());
        for _ in 0..EVENTS {
            world.event();
        }
        world.calm();
        let (done, undone) = ends.get();
        ends.set((done + world.ends.0, undone + world.ends.1));
    });
    let ends = ends.get();
    assert!(ends.0 > 100 && ends.1 > 100, "too little happened: {ends:?}");
}

/// Goes on until it is decided otherwise than `is_over`, with everybody acknowledging at once.
fn go_on(state: &mut State, facts: &mut Facts) -> Decision {
    loop {
        facts.sidecars = BTreeMap::from([("a".to_owned(), state.step)]);
        match decide(state, facts) {
            Decision::Put(next) => *state = next,
            other @ (Decision::Rest
            | Decision::Wait(_)
            | Decision::Purge
            | Decision::Move
            | Decision::StopMover) => return other,
        }
    }
}

fn idle() -> Facts {
    Facts { guard: GUARD, is_mover_idle: true, ..Facts::default() }
}

#[test]
fn a_change_goes_through_its_phases_and_waits_where_it_must() {
    let mut state = State::new(list(&[1, 2])).propose(wish(&[1, 2, 3])).unwrap();
    let mut facts = idle();
    assert_eq!(go_on(&mut state, &mut facts), Decision::Wait(Reason::Guard(GUARD)));
    assert_eq!((state.phase(), state.target()), (Phase::B, &*list(&[1, 2, 3])));
    facts.settled = GUARD;
    assert_eq!(go_on(&mut state, &mut facts), Decision::Purge);
    facts.is_purged = true;
    assert_eq!(go_on(&mut state, &mut facts), Decision::Move);
    assert_eq!(state.phase(), Phase::E);
    (facts.is_moved, facts.is_mover_idle) = (true, false);
    assert_eq!(go_on(&mut state, &mut facts), Decision::StopMover);
    (facts.is_mover_idle, facts.settled) = (true, Duration::ZERO);
    assert_eq!(go_on(&mut state, &mut facts), Decision::Wait(Reason::Stubs(STUBS_DIE)));
    assert_eq!((state.phase(), state.abort()), (Phase::F, Err(Refused::TooLate)));
    facts.settled = STUBS_DIE;
    assert_eq!(go_on(&mut state, &mut facts), Decision::Rest);
    assert_eq!((state.slots, state.change, state.step), (list(&[1, 2, 3]), None, 6));
}

#[test]
fn who_has_not_acknowledged_holds_it_up_by_name() {
    let state = State::new(list(&[1])).propose(wish(&[2])).unwrap();
    let sidecars = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 0), ("c".to_owned(), 0)]);
    let facts = Facts { sidecars, ..idle() };
    let Decision::Wait(reason) = decide(&state, &facts) else { panic!() };
    assert_eq!(reason.to_string(), "waiting for b, c to acknowledge");
}

#[test]
fn an_abort_from_e_purges_in_c_and_lets_stubs_die_in_b() {
    let mut state = State::new(list(&[1, 2])).propose(wish(&[1, 3])).unwrap();
    let mut facts = Facts { settled: GUARD, is_purged: true, ..idle() };
    assert_eq!(go_on(&mut state, &mut facts), Decision::Move);
    state = state.abort().unwrap();
    (facts.is_purged, facts.is_mover_idle) = (false, false);
    assert_eq!(go_on(&mut state, &mut facts), Decision::StopMover);
    facts.is_mover_idle = true;
    assert_eq!(go_on(&mut state, &mut facts), Decision::Purge);
    assert_eq!(state.phase(), Phase::C);
    (facts.is_purged, facts.settled) = (true, Duration::ZERO);
    assert_eq!(go_on(&mut state, &mut facts), Decision::Wait(Reason::Stubs(STUBS_DIE)));
    assert_eq!(state.phase(), Phase::B);
    facts.settled = STUBS_DIE;
    assert_eq!(go_on(&mut state, &mut facts), Decision::Rest);
    assert_eq!((state.slots, state.change), (list(&[1, 2]), None));
}

#[test]
fn an_old_server_that_dies_in_e_is_left_and_then_gone_and_then_there_is_no_way_back() {
    let mut state = State::new(list(&[1, 2])).propose(wish(&[1, 3])).unwrap();
    let mut facts = Facts { settled: GUARD, is_purged: true, ..idle() };
    assert_eq!(go_on(&mut state, &mut facts), Decision::Move);
    let (step, address) = (state.step, Address::tcp("10.0.0.1", 2));
    facts.away.insert(address.clone());
    assert_eq!(go_on(&mut state, &mut facts), Decision::Move);
    assert_eq!(state.step, step + 2, "one step to leave it, one to give it up");
    assert_eq!(state.change.as_ref().unwrap().gone, BTreeMap::from([(address.clone(), Gone::Gone)]));
    assert_eq!(state.abort(), Err(Refused::Gone(address)));
}

#[test]
fn a_new_server_that_dies_is_waited_for_in_b_and_does_not_hold_up_an_abort() {
    let mut state = State::new(list(&[1, 2])).propose(wish(&[1, 3])).unwrap();
    let address = Address::tcp("10.0.0.1", 3);
    let mut facts = Facts { settled: GUARD, away: BTreeSet::from([address.clone()]), ..idle() };
    let waits = Decision::Wait(Reason::Servers(vec![address.clone()]));
    assert_eq!(go_on(&mut state, &mut facts), waits);
    (facts.away, facts.is_purged) = (BTreeSet::new(), true);
    assert_eq!(go_on(&mut state, &mut facts), Decision::Move);
    facts.away.insert(address.clone());
    facts.is_purged = false;
    state = state.abort().unwrap();
    assert_eq!(go_on(&mut state, &mut facts), Decision::Purge);
    assert_eq!(state.change.as_ref().unwrap().gone, BTreeMap::from([(address, Gone::Leaving)]));
}

#[test]
fn wishes_are_refused_in_words() {
    let state = State::new(list(&[1, 2]));
    assert_eq!(state.propose(wish(&[1, 2])), Err(Refused::Same));
    assert_eq!(state.propose(wish(&[])), Err(Refused::Unfit(Unfit::Empty)));
    assert_eq!((state.abort(), state.pause(true)), (Err(Refused::Nothing), Err(Refused::Nothing)));
    let wished = state.propose(wish(&[3])).unwrap();
    assert_eq!(wished.propose(wish(&[4])), Err(Refused::UnderWay));
    assert_eq!(wished.abort(), Ok(state.clone()));
    // A source says the same again and again.
    assert_eq!(wished.follow(wish(&[3])), None);
    assert_eq!(wished.follow(wish(&[4])).unwrap().target(), list(&[4]));
    assert_eq!(state.follow(wish(&[])), None);
    let Decision::Put(paused) = decide(&wished, &idle()) else { panic!() };
    let paused = paused.pause(true).unwrap();
    assert_eq!(decide(&paused, &idle()), Decision::Wait(Reason::Paused));
}

#[test]
fn an_immediate_wish_takes_one_step() {
    let state = State::new(list(&[1, 2])).propose(Wish { to: list(&[3]), is_immediate: true }).unwrap();
    let Decision::Put(next) = decide(&state, &idle()) else { panic!() };
    assert_eq!((next.step, next.slots, next.change, next.next), (2, list(&[3]), None, None));
}

#[test]
fn what_is_shared_can_be_read_again() {
    let mut state = State::new(list(&[1, 2])).propose(wish(&[3])).unwrap();
    let Decision::Put(next) = decide(&state, &idle()) else { panic!() };
    state = next;
    state.change.as_mut().unwrap().gone.insert(Address::tcp("10.0.0.1", 2), Gone::Leaving);
    let text = serde_json::to_string(&state).unwrap();
    assert_eq!(serde_json::from_str::<State>(&text).unwrap(), state, "{text}");
}
