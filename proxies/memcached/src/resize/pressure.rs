//! When a standby server is to join, and when it is to leave. Pure: what servers say and the time come in.
//!
//! ```text
//!            settle                    evicting for `join.for`
//!  a change ───────► looking at them ────────────────────────────► join
//!                         │
//!                         └── nothing to evict, and the others would hold it all, for `leave.after` ──► leave
//! ```
//!
//! What keeps it from going to and fro: each look tells the evictions since the look before, and one look without
//! pressure begins the count anew; nothing counts until a change has settled; and a standby server leaves only if
//! the others would hold everything well below what they held when they evicted.

use std::collections::BTreeMap;
use std::time::Duration;

use groove_common::ids::Address;

/// How a server stands, as it says itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    /// Items thrown out that had not expired, since its start.
    pub(super) evictions: u64,
    /// Bytes of items.
    pub(super) stored_len: u64,
    /// Bytes that it may take.
    pub(super) room_len: u64,
}

/// Every server in service; none of what it says if it does not answer.
pub(super) type Loads = BTreeMap<Address, Option<Load>>;

/// When something is to happen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rules {
    /// From here on it is pressure.
    pub(super) evictions_per_second: f64,
    /// How long pressure has to last.
    pub(super) join_after: Duration,
    /// Below this part of what the others held when they evicted, from 0 to 1.
    pub(super) leave_below: f64,
    /// For so long.
    pub(super) leave_after: Duration,
    /// After a change, before anything counts.
    pub(super) settle: Duration,
}

/// The standby server that would leave first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Last<'a> {
    /// Which.
    pub(super) address: &'a Address,
    /// How full the others were when they evicted, in percent.
    pub(super) full_percent: u8,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// Nothing.
    Stay,
    /// One more server.
    Join,
    /// One less.
    Leave,
}

/// What is known of servers that do not change meanwhile.
#[derive(Debug)]
pub(super) struct Pressure {
    /// Nothing counts before.
    settled_at: Duration,
    /// The last look.
    last: Option<(Duration, Loads)>,
    /// Since when servers evict.
    pressed_since: Option<Duration>,
    /// Since when one less would do.
    roomy_since: Option<Duration>,
    /// What was seen lately.
    seen: Seen,
}

/// What a look came to.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Seen {
    /// By all servers together, since the look before.
    pub(super) evictions: u64,
    /// The same in a second.
    pub(super) evictions_per_second: f64,
    /// Bytes of items in all servers that answer.
    pub(super) stored_len: u64,
    /// Bytes that they may take.
    pub(super) room_len: u64,
}

impl Seen {
    /// How full they are, in percent.
    pub(super) fn full_percent(&self) -> u8 {
        let percent = self.stored_len.saturating_mul(100).checked_div(self.room_len).unwrap_or_default();
        u8::try_from(percent.min(100)).unwrap_or(100)
    }
}

impl Pressure {
    /// Nothing is known of these servers yet.
    pub(super) fn new(now: Duration, rules: &Rules) -> Self {
        let settled_at = now + rules.settle;
        Self { settled_at, last: None, pressed_since: None, roomy_since: None, seen: Seen::default() }
    }

    /// What the last look came to.
    pub(super) fn seen(&self) -> Seen {
        self.seen
    }

    /// How long it has been going on, for people: evicting, or having room for one server less.
    pub(super) fn since(&self, now: Duration) -> (Option<Duration>, Option<Duration>) {
        let time = |since: Option<Duration>| since.map(|since| now.saturating_sub(since));
        (time(self.pressed_since), time(self.roomy_since))
    }

    /// Takes in what servers say. `last` is who would leave.
    pub(super) fn look(
        &mut self,
        now: Duration,
        rules: &Rules,
        loads: Loads,
        last: Option<Last<'_>>,
    ) -> Verdict {
        let Some((before, known)) = self.last.take() else {
            (self.seen, self.last) = (Seen::of(&loads, &Loads::new(), Duration::ZERO), Some((now, loads)));
            return Verdict::Stay;
        };
        self.seen = Seen::of(&loads, &known, now.saturating_sub(before));
        let is_pressed = self.seen.evictions_per_second >= rules.evictions_per_second;
        let is_roomy = !is_pressed && last.is_some_and(|last| would_do(&loads, last, rules.leave_below));
        self.last = Some((now, loads));
        if before < self.settled_at {
            return Verdict::Stay;
        }
        // What was seen now has gone on since the look before.
        let since = |known: Option<Duration>, is_so: bool| is_so.then(|| known.unwrap_or(before));
        self.pressed_since = since(self.pressed_since, is_pressed);
        self.roomy_since = since(self.roomy_since, is_roomy);
        let lasted =
            |since: Option<Duration>, time| since.is_some_and(|since| now.saturating_sub(since) >= time);
        match (lasted(self.pressed_since, rules.join_after), lasted(self.roomy_since, rules.leave_after)) {
            (true, _) => Verdict::Join,
            (false, true) => Verdict::Leave,
            (false, false) => Verdict::Stay,
        }
    }
}

impl Seen {
    fn of(loads: &Loads, known: &Loads, time: Duration) -> Self {
        let answers = || loads.iter().filter_map(|(address, load)| Some((address, (*load)?)));
        let evicted = |(address, load): (&Address, Load)| {
            let before = known.get(address).copied().flatten()?;
            // A server that was started again counts from 0: what it evicted meanwhile is not known.
            Some(load.evictions.saturating_sub(before.evictions))
        };
        let evictions: u64 = answers().filter_map(evicted).sum();
        let evictions_per_second = match time.is_zero() {
            true => 0.0,
            false => evictions as f64 / time.as_secs_f64(),
        };
        let stored_len = answers().map(|(_, load)| load.stored_len).sum();
        let room_len = answers().map(|(_, load)| load.room_len).sum();
        Self { evictions, evictions_per_second, stored_len, room_len }
    }
}

/// Would the others hold all there is, well below what they held when they evicted? Not known while one is silent.
fn would_do(loads: &Loads, last: Last<'_>, below: f64) -> bool {
    if loads.values().any(Option::is_none) {
        return false;
    }
    let stored: u64 = loads.values().flatten().map(|load| load.stored_len).sum();
    let stays = loads.iter().filter(|(address, _)| *address != last.address);
    let room: u64 = stays.filter_map(|(_, load)| load.as_ref()).map(|load| load.room_len).sum();
    let full = f64::from(last.full_percent) / 100.0;
    (stored as f64) < below * full * room as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        evictions_per_second: 1.0,
        join_after: Duration::from_secs(60),
        leave_below: 0.7,
        leave_after: Duration::from_secs(600),
        settle: Duration::from_secs(30),
    };
    const LOOK_EVERY_S: u64 = 10;
    const MIB: u64 = 1 << 20;

    fn address(port: u16) -> Address {
        Address::tcp("10.0.0.1", port)
    }

    /// Servers that are looked at every ten seconds.
    struct World {
        pressure: Pressure,
        now_s: u64,
        loads: Loads,
        standby: Option<(Address, u8)>,
    }

    impl World {
        /// Of 64 MiB each, the last being a standby server if they are more than two.
        fn new(servers: u16) -> Self {
            let load = Load { evictions: 5000, stored_len: 50 * MIB, room_len: 64 * MIB };
            Self {
                pressure: Pressure::new(Duration::ZERO, &RULES),
                now_s: 0,
                loads: (1..=servers).map(|port| (address(port), Some(load))).collect(),
                standby: (servers > 2).then(|| (address(servers), 90)),
            }
        }

        fn each(&mut self, change: impl Fn(&mut Load)) {
            self.loads.values_mut().flatten().for_each(change);
        }

        /// Another look, after so many evictions by the first server.
        fn look(&mut self, evictions: u64) -> Verdict {
            self.now_s += LOOK_EVERY_S;
            if let Some(Some(load)) = self.loads.get_mut(&address(1)) {
                load.evictions += evictions;
            }
            let last = self
                .standby
                .as_ref()
                .map(|(address, full_percent)| Last { address, full_percent: *full_percent });
            self.pressure.look(Duration::from_secs(self.now_s), &RULES, self.loads.clone(), last)
        }

        /// When it says anything but "stay", in seconds from now on.
        fn until(&mut self, seconds: u64, evictions: u64) -> Option<(u64, Verdict)> {
            let begun = self.now_s;
            while self.now_s < begun + seconds {
                match self.look(evictions) {
                    Verdict::Stay => {}
                    verdict @ (Verdict::Join | Verdict::Leave) => return Some((self.now_s - begun, verdict)),
                }
            }
            None
        }
    }

    #[test]
    fn pressure_that_lasts_makes_one_join_once_the_last_change_has_settled() {
        // 30 seconds settle, 60 it has to last.
        assert_eq!(World::new(2).until(1000, 10), Some((90, Verdict::Join)));
        // A little less than one in a second is none, and what was evicted before is none either.
        assert_eq!(World::new(2).until(1000, 9), None);
    }

    #[test]
    fn a_burst_is_no_pressure_and_neither_is_one_after_another() {
        let mut world = World::new(2);
        for _ in 0..20 {
            assert_eq!(world.look(100_000), Verdict::Stay);
            assert_eq!(world.until(50, 0), None);
        }
        for _ in 0..20 {
            assert_eq!(world.until(50, 10), None);
            assert_eq!(world.look(0), Verdict::Stay);
        }
    }

    #[test]
    fn a_server_that_was_started_again_or_is_silent_has_not_evicted() {
        let mut world = World::new(2);
        assert_eq!(world.until(60, 0), None);
        world.each(|load| load.evictions = 0);
        assert_eq!(world.until(300, 0), None);
        world.loads.insert(address(1), None);
        assert_eq!(world.until(300, 0), None);
        // What it evicted while nobody could ask it is not known either.
        let load = Load { evictions: 1_000_000, stored_len: 0, room_len: 64 * MIB };
        world.loads.insert(address(1), Some(load));
        assert_eq!(world.until(300, 0), None);
        assert_eq!(world.until(300, 10), Some((60, Verdict::Join)));
    }

    #[test]
    fn one_leaves_when_the_others_have_room_for_all_for_long_enough() {
        let mut world = World::new(3);
        assert_eq!(world.until(2000, 0), None, "150 MiB do not go into two servers of 64");
        // 90 % of 128 MiB are full; 70 % of that are 80.6 MiB.
        world.each(|load| load.stored_len = 27 * MIB);
        assert_eq!(world.until(2000, 0), None);
        world.each(|load| load.stored_len = 26 * MIB);
        assert_eq!(world.until(500, 0), None);
        world.each(|load| load.stored_len = 30 * MIB);
        assert_eq!(world.look(0), Verdict::Stay);
        world.each(|load| load.stored_len = 26 * MIB);
        assert_eq!(world.until(2000, 0), Some((600, Verdict::Leave)));
    }

    #[test]
    fn nobody_leaves_while_there_is_pressure_or_a_server_is_silent_or_none_is_a_standby() {
        let mut world = World::new(3);
        world.each(|load| load.stored_len = MIB);
        assert_eq!(world.until(2000, 10).map(|(_, verdict)| verdict), Some(Verdict::Join));
        let mut world = World::new(3);
        world.each(|load| load.stored_len = MIB);
        world.loads.insert(address(2), None);
        assert_eq!(world.until(2000, 0), None);
        let mut world = World::new(2);
        world.each(|load| load.stored_len = MIB);
        assert_eq!(world.until(2000, 0), None);
    }

    #[test]
    fn what_made_one_join_does_not_make_it_leave_again() {
        // Servers that are full at 65 %, as those with few sizes of many are.
        let mut world = World::new(3);
        world.standby = Some((address(3), 65));
        world.each(|load| load.stored_len = 28 * MIB);
        // 84 MiB: below 70 % of 128, but just what the two could not hold.
        assert_eq!(world.until(5000, 0), None);
    }
}
