//! When the machine itself stood still: another guest of its host, or the kernel, had a processor. On such a machine
//! a p99 is that of the neighbours, and differs by ten times from one minute to the next.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::paced::Exchange;

/// Between two looks at the clock. On a virtual machine each costs its processor some 40 us.
const EVERY: Duration = Duration::from_micros(500);
/// What goes before all others and still is later than this stood still. Nothing of a proxy's takes as long.
const LATE: Duration = Duration::from_micros(100);

/// From the last time a processor was seen to run to the next.
pub(super) struct Stall {
    from: Instant,
    to: Instant,
}

/// Watches the calling thread's processor; it must go before all others.
pub(super) fn watch(is_over: &AtomicBool) -> Vec<Stall> {
    let (mut stalls, mut from) = (Vec::new(), Instant::now());
    while !is_over.load(Ordering::Relaxed) {
        thread::sleep(EVERY);
        let to = Instant::now();
        if to.duration_since(from) > EVERY + LATE {
            stalls.push(Stall { from, to });
        }
        from = to;
    }
    stalls
}

/// Those exchanges that no stall delayed. What waits behind one is worked off in less time than it lasted.
pub(super) fn undelayed<'a>(exchanges: &'a [Exchange], stalls: &[Stall]) -> Vec<&'a Exchange> {
    let delays = |stall: &Stall, exchange: &Exchange| {
        let over = stall.to + stall.to.duration_since(stall.from);
        stall.from < exchange.answered && exchange.asked < over
    };
    exchanges.iter().filter(|exchange| !stalls.iter().any(|stall| delays(stall, exchange))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stall_delays_is_left_out_and_what_waits_behind_that() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let exchange =
            |(asked, answered)| Exchange { asked: at(asked), answered: at(answered), is_right: true };
        let exchanges = [(0, 1), (2, 12), (15, 16), (21, 31), (29, 32), (30, 31)].map(exchange);
        let stalls = [Stall { from: at(10), to: at(20) }];
        let kept: Vec<_> = undelayed(&exchanges, &stalls).iter().map(|exchange| exchange.asked).collect();
        assert_eq!(kept, [at(0), at(30)]);
    }
}
