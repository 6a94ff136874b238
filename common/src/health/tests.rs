use std::time::Duration;

use super::*;
use crate::balance::Dice;

const POLICY: BreakerPolicy = BreakerPolicy {
    consecutive_failures: 3,
    base_ejection: Duration::from_secs(5),
    max_ejection: Duration::from_secs(12),
    max_share: 0.5,
};

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let mut breaker = Breaker::new(POLICY);
    for second in [0, 1] {
        assert_eq!(breaker.on_failure(at(second), true), None);
    }
    assert_eq!(breaker.state(), State::Suspect { failures: 2 });
    breaker.on_success(at(2));
    assert_eq!(breaker.state(), State::Healthy);
    for second in [3, 4] {
        assert_eq!(breaker.on_failure(at(second), true), None);
    }
    assert_eq!(breaker.on_failure(at(5), true), Some(Change::Ejected { until: at(10) }));
}

#[test]
fn ejections_grow_to_the_longest_and_start_over_after_lasting_health() {
    let mut breaker = Breaker::new(POLICY);
    let mut now = at(100);
    let eject = |breaker: &mut Breaker, now: Duration| {
        (0..3).find_map(|_| breaker.on_failure(now, true)).expect("ejected")
    };
    assert_eq!(eject(&mut breaker, now), Change::Ejected { until: now + at(5) });
    for length in [10, 12, 12] {
        now = breaker.wakes_at().unwrap();
        assert_eq!(breaker.on_time(now), Some(Change::HalfOpened));
        assert!(breaker.claim_trial(now));
        assert_eq!(breaker.on_failure(now, false), Some(Change::Ejected { until: now + at(length) }));
    }
    now = breaker.wakes_at().unwrap();
    breaker.on_time(now);
    assert!(breaker.claim_trial(now));
    assert_eq!(breaker.on_success(now), Some(Change::Recovered));
    now += at(13);
    assert_eq!(eject(&mut breaker, now), Change::Ejected { until: now + at(5) }, "the slate is clean");
    assert_eq!(breaker.ejections(), 5);
}

#[test]
fn a_trial_is_one_and_is_offered_again_when_nobody_reports() {
    let mut breaker = Breaker::new(POLICY);
    for _ in 0..3 {
        breaker.on_failure(at(0), true);
    }
    assert!(!breaker.claim_trial(at(4)), "still ejected");
    assert_eq!(breaker.on_time(at(4)), None);
    assert_eq!(breaker.on_time(at(5)), Some(Change::HalfOpened));
    assert!(breaker.claim_trial(at(5)));
    assert!(!breaker.claim_trial(at(5)), "one at a time");
    assert_eq!(breaker.on_time(at(10)), Some(Change::HalfOpened));
    assert!(breaker.claim_trial(at(10)));
}

#[test]
fn results_from_before_the_ejection_change_nothing() {
    let mut breaker = Breaker::new(POLICY);
    for _ in 0..3 {
        breaker.on_failure(at(0), true);
    }
    let ejected = breaker.state();
    assert_eq!(breaker.on_success(at(1)), None);
    assert_eq!(breaker.on_failure(at(1), true), None);
    assert_eq!(breaker.state(), ejected);
}

#[test]
fn a_breaker_that_is_off_never_ejects() {
    let mut breaker = Breaker::new(BreakerPolicy { consecutive_failures: 0, ..POLICY });
    for second in 0..100 {
        assert_eq!(breaker.on_failure(at(second), true), None);
    }
    assert_eq!(breaker.state(), State::Healthy);
}

#[test]
fn the_share_that_may_be_ejected() {
    assert!(!may_eject(0, 1, 1.0), "never the last one");
    assert!(may_eject(0, 2, 0.1), "one always, however small the share");
    assert!(!may_eject(1, 2, 1.0));
    assert!(may_eject(1, 4, 0.5));
    assert!(!may_eject(2, 4, 0.5));
}

/// Sets of endpoints under random outcomes. At every step: at most the share is out, somebody
/// is in, trials are single, and an ejection is never longer than the longest.
#[test]
fn simulated_sets_keep_their_share_and_recover() {
    for seed in 0..300 {
        let mut dice = Dice::seeded(seed);
        let size = 1 + dice.below(8);
        let policy = BreakerPolicy { max_share: dice.unit(), ..POLICY };
        let mut set: Vec<_> = (0..size).map(|_| Breaker::new(policy)).collect();
        let allows = |out: usize| out == 1 || out as f64 <= size as f64 * policy.max_share;
        let allowed = (1..size).filter(|&out| allows(out)).max().unwrap_or(0);
        let mut now = Duration::ZERO;
        for step in 0..2_000 {
            now += Duration::from_millis(dice.below(900) as u64);
            let out = set.iter().filter(|breaker| breaker.is_out()).count();
            assert!(out <= allowed, "seed {seed} step {step}: {out} of {size} out, {allowed} allowed");
            let may = may_eject(out, size, policy.max_share);
            let breaker = &mut set[dice.below(size)];
            breaker.on_time(now);
            match breaker.state() {
                State::Ejected { until } => {
                    assert!(until > now, "seed {seed} step {step}: overdue");
                    assert!(until - now <= POLICY.max_ejection, "seed {seed} step {step}: too long");
                    continue;
                }
                State::HalfOpen { trial_until } => {
                    let claimed = breaker.claim_trial(now);
                    assert_eq!(claimed, trial_until.is_none(), "seed {seed} step {step}: two trials");
                }
                State::Healthy | State::Suspect { .. } => {}
            }
            if dice.unit() < 0.4 {
                breaker.on_success(now);
            } else if dice.unit() < 0.9 {
                breaker.on_failure(now, may);
            }
        }
        for (index, breaker) in set.iter_mut().enumerate() {
            now += POLICY.max_ejection;
            breaker.on_time(now);
            breaker.on_success(now);
            assert_eq!(breaker.state(), State::Healthy, "seed {seed}: {index} did not recover");
        }
    }
}

#[test]
fn probes_need_enough_in_a_row_to_change_the_verdict() {
    let mut probes = ProbeVerdict::new(2, 3);
    assert_eq!(probes.verdict(), Verdict::Unknown);
    assert_eq!(probes.on(true), Some(Verdict::Up), "the first decides alone");
    let results = [false, false, true, false, false];
    assert!(results.into_iter().all(|success| probes.on(success).is_none()));
    assert_eq!(probes.on(false), Some(Verdict::Down));
    assert_eq!(probes.on(true), None);
    assert_eq!(probes.on(false), None);
    assert_eq!(probes.on(true), None);
    assert_eq!(probes.on(true), Some(Verdict::Up));
}

#[test]
fn a_server_that_is_dead_from_the_start_is_down_at_once() {
    assert_eq!(ProbeVerdict::new(2, 3).on(false), Some(Verdict::Down));
    let mut least = ProbeVerdict::new(0, 0);
    let heard = [false, false, true, true].map(|success| least.on(success));
    assert_eq!(heard, [Some(Verdict::Down), None, Some(Verdict::Up), None], "none counts as one");
}

#[test]
fn backoff_windows_double_to_the_widest_and_the_jitter_is_full() {
    let backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(1) };
    let windows: Vec<_> = (0..6).map(|attempt| backoff.window(attempt).as_millis()).collect();
    assert_eq!(windows, [100, 200, 400, 800, 1000, 1000]);
    assert_eq!(backoff.window(u32::MAX), backoff.max, "no overflow however long it lasts");
    assert_eq!(backoff.delay(2, 0.0), Duration::ZERO);
    assert_eq!(backoff.delay(2, 0.5), Duration::from_millis(200));
    // A thousand sidecars in a window of a second: no tenth of it gets more than twice its share.
    let mut dice = Dice::seeded(7);
    let mut tenths = [0; 10];
    for _ in 0..1_000 {
        let delay = backoff.delay(9, dice.unit());
        let tenth = (0..10).find(|&tenth| delay < Duration::from_millis(100) * (tenth + 1)).unwrap();
        tenths[tenth as usize] += 1;
    }
    assert!(tenths.iter().all(|&count| (50..200).contains(&count)), "{tenths:?}");
}

#[test]
fn one_trial_at_a_time_after_a_failure() {
    let mut redial = Redial::new(Backoff { base: at(2), max: at(60) });
    assert_eq!(redial.ask(at(0)), Turn::Dial);
    assert_eq!(redial.ask(at(0)), Turn::Dial, "while all is well anybody dials");
    redial.failed(at(1), 1.0);
    redial.failed(at(1), 1.0);
    assert_eq!(redial.failures(), 1, "those who dialled together fail as one");
    assert_eq!(redial.ask(at(1)), Turn::Wait(at(2)));
    assert_eq!(redial.ask(at(3)), Turn::Dial);
    assert_eq!(redial.ask(at(3)), Turn::Watch);
    redial.failed(at(4), 1.0);
    assert_eq!(redial.ask(at(4)), Turn::Wait(at(4)), "the window doubled");
    assert_eq!(redial.ask(at(8)), Turn::Dial);
    redial.gave_up(at(8));
    assert_eq!(redial.ask(at(8)), Turn::Dial, "a cancelled trial passes its turn on");
    redial.succeeded();
    assert_eq!((redial.ask(at(8)), redial.ask(at(8))), (Turn::Dial, Turn::Dial));
    assert_eq!(redial.failures(), 0);
}

#[test]
fn what_a_reload_changes_holds_from_then_on() {
    let mut breaker = Breaker::new(POLICY);
    breaker.set_policy(BreakerPolicy { consecutive_failures: 1, ..POLICY });
    assert_eq!(breaker.on_failure(at(0), true), Some(Change::Ejected { until: at(5) }));
    breaker.set_policy(BreakerPolicy { consecutive_failures: 0, ..POLICY });
    assert_eq!(breaker.state(), State::Healthy, "a breaker that is off keeps nobody out");

    let mut probes = ProbeVerdict::new(2, 3);
    assert_eq!(probes.on(true), Some(Verdict::Up));
    probes.set_thresholds(1, 1);
    assert_eq!(probes.on(false), Some(Verdict::Down));
    assert_eq!(probes.on(true), Some(Verdict::Up));

    let mut redial = Redial::new(Backoff { base: at(2), max: at(60) });
    redial.set_backoff(Backoff { base: at(1), max: at(1) });
    redial.failed(at(0), 1.0);
    assert_eq!(redial.ask(at(0)), Turn::Wait(at(1)));
}

#[test]
fn an_outlier_is_out_at_once_and_comes_back_like_any_other() {
    let mut breaker = Breaker::new(POLICY);
    assert_eq!(breaker.on_outlier(at(0), false), None, "not where too many are out");
    assert_eq!(breaker.on_outlier(at(0), true), Some(Change::Ejected { until: at(5) }));
    assert_eq!(breaker.on_outlier(at(1), true), None, "once is enough");
    assert_eq!(breaker.on_success(at(1)), None);
    assert_eq!(breaker.on_time(at(5)), Some(Change::HalfOpened));
    assert_eq!(breaker.on_outlier(at(5), true), None, "it is on trial");
    assert!(breaker.claim_trial(at(5)));
    assert_eq!(breaker.on_success(at(5)), Some(Change::Recovered));
    // Again, and for longer.
    assert_eq!(breaker.on_outlier(at(6), true), Some(Change::Ejected { until: at(16) }));
}
