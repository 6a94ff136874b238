//! Seeds, small worlds in full, and the mutants that must not get through either.

use groove_common::testing::{Dice, simulate};

use super::client::Stage;
use super::history::{Act, Value};
use super::world::{Event, Troubles, World};
use crate::program::mutants::{Mutant, tests_own};
use crate::program::resize::Phase;

const WAY: [Stage; 6] = [
    Stage::A,
    Stage::Moving(Phase::B),
    Stage::Moving(Phase::C),
    Stage::Moving(Phase::E),
    Stage::Moving(Phase::F),
    Stage::H,
];

/// When the old server is gone for good.
const WAY_WITHOUT_OLD: [Stage; 6] = [
    Stage::Moving(Phase::B),
    Stage::Moving(Phase::C),
    Stage::Moving(Phase::E),
    Stage::Moving(Phase::F),
    Stage::Moving(Phase::G),
    Stage::H,
];

fn first() -> Value {
    Value { bytes: b"100000".to_vec(), flags: 0, ttl: 0 }
}

/// Something that no other operation writes.
fn value(dice: &mut Dice, id: usize) -> Value {
    let ttl = *dice.pick(&[0, 0, 500, 3000]).unwrap_or(&0);
    let ttl = if ttl == 0 { 0 } else { ttl + u32::try_from(id).unwrap_or(0) * 2 };
    Value { bytes: (id + 2).to_string().into_bytes().repeat(2), flags: u32::try_from(id).unwrap_or(0), ttl }
}

fn act(dice: &mut Dice, world: &World, client: usize) -> Act {
    let id = world.asked() + 10;
    let part = || id.to_string().into_bytes();
    let delta = id as u64;
    if let Some(held) = &world.clients[client].held
        && dice.chance(2, 5)
    {
        let seen = held.seen.clone();
        return match dice.below(5) {
            0 => Act::CasDelete(seen),
            1 => Act::CasAppend(seen, part()),
            2 => Act::CasIncr(seen, delta),
            _ => Act::Cas(seen, value(dice, id)),
        };
    }
    match dice.below(19) {
        0..6 => Act::Get,
        6..9 => Act::Set(value(dice, id)),
        9..11 => Act::Delete,
        11 => Act::Add(value(dice, id)),
        12 => Act::Replace(value(dice, id)),
        13 | 14 => Act::Incr(delta),
        15 => Act::Append(part()),
        16 => Act::Prepend(part()),
        17 => Act::Flush,
        _ => Act::Touch(100 + u32::try_from(id).unwrap_or(0) * 2),
    }
}

/// A run. The error is what happened.
fn run(dice: &mut Dice, is_traced: bool) -> Result<(), Vec<String>> {
    let way = if dice.chance(1, 5) { WAY_WITHOUT_OLD } else { WAY };
    let begin = *dice.pick(&[0, 0, 1, 2, 3]).unwrap_or(&0);
    let begin = if way[0] == Stage::A { begin } else { begin.min(2) };
    let sidecars = 2 + dice.below(2);
    let clients: Vec<usize> = (0..sidecars + dice.below(2)).map(|client| client % sidecars).collect();
    let mut world = World::new(&way[begin..], sidecars, &clients, 3 + dice.below(6), &first());
    world.trace = is_traced.then(Vec::new);
    let mut some = |most: usize| if dice.chance(1, 2) { 0 } else { dice.below(most + 1) };
    world.troubles = Troubles {
        give_ups: some(2),
        breaks: some(1),
        restarts: some(1),
        evictions: some(6),
        fills: some(1),
        ticks: some(6),
        backs: some(3),
        moves: some(4),
    };
    // Many steps within a phase, or few.
    let haste = 1 + dice.below(40);
    loop {
        let mut events = world.events();
        let is_work =
            |event: &Event| matches!(event, Event::Ask { .. } | Event::Execute { .. } | Event::Reply { .. });
        let (work, other): (Vec<_>, Vec<_>) = events.drain(..).partition(is_work);
        let is_work = !work.is_empty() && (other.is_empty() || !dice.chance(1, haste));
        let Some(event) = dice.pick(if is_work { &work } else { &other }).copied() else { return Ok(()) };
        if work.is_empty() && world.clients.iter().all(|client| client.left == 0) {
            return Ok(());
        }
        if !world.happen(event, |world, client| act(dice, world, client)) {
            return Err(world.trace.take().unwrap_or_default());
        }
        if world.is_lost() {
            return Ok(());
        }
    }
}

fn check(seed: u64) {
    if run(&mut Dice::new(seed), false).is_err() {
        let trace = run(&mut Dice::new(seed), true).unwrap_err();
        panic!("no order of these operations explains what clients were told:\n{}", trace.join("\n"));
    }
}

#[test]
fn a_key_that_moves_stays_one_register() {
    simulate(2_000, |dice| check(dice.roll()));
}

#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    // It takes one order of many to be noticed: see below.
    for mutant in Mutant::ALL.into_iter().filter(|mutant| *mutant != Mutant::FlushOnce) {
        tests_own::CURRENT.set(Some(mutant));
        let caught = (0..5_000).find(|seed| run(&mut Dice::new(*seed), false).is_err());
        tests_own::CURRENT.set(None);
        missed.extend(caught.is_none().then_some(mutant.name()));
    }
    assert!(missed.is_empty(), "nobody noticed {missed:?}");
}

/// Is a value seen after a flush that was acknowledged, if new is flushed before a copy makes its stub there, and old
/// when the copy has read and bumped it?
fn flushed_around_a_copy() -> bool {
    let mut world = World::new(&WAY[3..4], 1, &[0, 0], 2, &first());
    let mut is_possible = true;
    let mut happen = |world: &mut World, event, act| is_possible &= world.happen(event, |_, _| act);
    happen(&mut world, Event::Ask { client: 1 }, Act::Flush);
    happen(&mut world, Event::Ask { client: 0 }, Act::Get);
    happen(&mut world, Event::Execute { mail: 1 }, Act::Get);
    for _ in 0..3 {
        happen(&mut world, Event::Execute { mail: 2 }, Act::Get);
        happen(&mut world, Event::Reply { mail: 2 }, Act::Get);
    }
    happen(&mut world, Event::Execute { mail: 0 }, Act::Get);
    // Whatever is left, and then the client looks once more.
    for is_over in [false, true] {
        if is_over {
            happen(&mut world, Event::Ask { client: 0 }, Act::Get);
        }
        let is_mail = |event: &Event| matches!(event, Event::Execute { .. } | Event::Reply { .. });
        while let Some(event) = world.events().into_iter().find(is_mail) {
            happen(&mut world, event, Act::Get);
        }
    }
    is_possible
}

#[test]
fn a_flush_is_not_undone_by_a_copy_under_way() {
    assert!(flushed_around_a_copy());
    tests_own::CURRENT.set(Some(Mutant::FlushOnce));
    let is_possible = flushed_around_a_copy();
    tests_own::CURRENT.set(None);
    assert!(!is_possible, "nobody noticed");
}
