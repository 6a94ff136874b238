//! How many workers are needed, and who is to give sessions to whom. Pure: loads in, orders out.

/// A worker that uses more than this of its core is near its end.
const FULL: f64 = 0.8;
/// With less than this of the cores of one worker fewer, one fewer will do...
const SPARE: f64 = 0.5;
/// ... if it has been so for this many rounds.
const CALM_ROUNDS: u32 = 40;
/// Sessions move between two workers if their loads differ by more.
const UNEVEN: f64 = 0.3;

/// What a worker did in the last round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Cores' worth of processor time, 0 to 1.
    pub(super) cpu: f64,
    /// Sessions that have begun a piece of work.
    pub(super) active: u32,
}

/// What a worker's sessions are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// So many leave...
    pub(super) leaving: u32,
    /// ... for this worker.
    pub(super) target: usize,
}

/// What is to be done until the next round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The workers before this one have sessions.
    pub(super) awake: usize,
    /// One for each worker.
    pub(super) orders: Vec<Order>,
}

/// What is remembered from round to round.
#[derive(Debug)]
pub(super) struct Policy {
    awake: usize,
    calm: u32,
}

impl Policy {
    pub(super) fn new() -> Self {
        Self { awake: 1, calm: 0 }
    }

    /// The plan after a round with these loads, of all workers.
    pub(super) fn next(&mut self, loads: &[Load]) -> Plan {
        let used: f64 = loads.iter().map(|load| load.cpu).sum();
        let is_calm = self.awake > 1 && used < SPARE * (self.awake - 1) as f64;
        self.calm = if is_calm { self.calm + 1 } else { 0 };
        let busiest = extreme(loads, self.awake, |a, b| a > b);
        let mut give = None;
        if self.calm > CALM_ROUNDS {
            self.calm = 0;
            self.awake -= 1;
        } else if let Some((from, load)) = busiest
            && load.cpu > FULL
            && load.active > 1
        {
            let (to, least) = match extreme(loads, self.awake, |a, b| a < b) {
                Some((to, least)) if load.cpu - least.cpu > UNEVEN => (to, least.cpu),
                _ if self.awake < loads.len() => {
                    self.awake += 1;
                    (self.awake - 1, 0.0)
                }
                _ => (from, load.cpu),
            };
            let share = (load.cpu - least) / (2.0 * load.cpu);
            // A worker has at most as many sessions as the process has descriptors.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let count = (f64::from(load.active) * share).ceil() as u32;
            give = Some((from, Order { leaving: count.min(load.active - 1), target: to }));
        }
        let refuge = extreme(loads, self.awake, |a, b| a < b).map_or(0, |(index, _)| index);
        let orders = (0..loads.len()).map(|index| match give {
            // Nobody is to be left: whoever comes to life there moves.
            _ if index >= self.awake => Order { leaving: u32::MAX, target: refuge },
            Some((from, order)) if from == index => order,
            _ => Order { leaving: 0, target: index },
        });
        Plan { awake: self.awake, orders: orders.collect() }
    }
}

/// The first of the first `awake` whose load is beyond all others'.
fn extreme(loads: &[Load], awake: usize, beyond: impl Fn(f64, f64) -> bool) -> Option<(usize, Load)> {
    let awake = loads.iter().copied().enumerate().take(awake);
    awake.reduce(|best, one| if beyond(one.1.cpu, best.1.cpu) { one } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads<const N: usize>(loads: [(f64, u32); N]) -> [Load; N] {
        loads.map(|(cpu, active)| Load { cpu, active })
    }

    fn stay(target: usize) -> Order {
        Order { leaving: 0, target }
    }

    fn all_to(target: usize) -> Order {
        Order { leaving: u32::MAX, target }
    }

    #[test]
    fn one_worker_is_enough_until_its_core_is() {
        let mut policy = Policy::new();
        for cpu in [0.0, 0.3, 0.79] {
            let plan = policy.next(&loads([(cpu, 100), (0.0, 0), (0.0, 0)]));
            assert_eq!(plan, Plan { awake: 1, orders: vec![stay(0), all_to(0), all_to(0)] });
        }
        let plan = policy.next(&loads([(0.95, 100), (0.0, 0), (0.0, 0)]));
        assert_eq!(
            plan,
            Plan { awake: 2, orders: vec![Order { leaving: 50, target: 1 }, stay(1), all_to(1)] }
        );
    }

    #[test]
    fn a_single_session_has_nothing_to_gain() {
        let plan = Policy::new().next(&loads([(1.0, 1), (0.0, 0)]));
        assert_eq!(plan.awake, 1);
        assert_eq!(plan.orders.first(), Some(&stay(0)));
    }

    #[test]
    fn the_uneven_are_evened_before_another_wakes() {
        let mut policy = Policy::new();
        policy.next(&loads([(0.9, 10), (0.0, 0), (0.0, 0)]));
        let plan = policy.next(&loads([(0.9, 10), (0.3, 2), (0.0, 0)]));
        assert_eq!(plan.awake, 2);
        assert_eq!(plan.orders.first(), Some(&Order { leaving: 4, target: 1 }));
        let plan = policy.next(&loads([(0.9, 10), (0.85, 9), (0.0, 0)]));
        assert_eq!(plan.awake, 3);
        assert_eq!(plan.orders.first(), Some(&Order { leaving: 5, target: 2 }));
        // All are full: nobody gains by moving.
        let plan = policy.next(&loads([(0.9, 10), (0.85, 9), (0.95, 9)]));
        assert!(plan.orders.iter().all(|order| order.leaving == 0), "{plan:?}");
    }

    #[test]
    fn a_worker_is_let_go_after_a_while_of_calm() {
        let mut policy = Policy::new();
        policy.next(&loads([(0.9, 10), (0.0, 0)]));
        let calm = loads([(0.2, 5), (0.2, 5)]);
        for _ in 0..CALM_ROUNDS {
            assert_eq!(policy.next(&calm).awake, 2);
        }
        // One round of work begins the while anew.
        assert_eq!(policy.next(&loads([(0.4, 5), (0.4, 5)])).awake, 2);
        for _ in 0..CALM_ROUNDS {
            assert_eq!(policy.next(&calm).awake, 2);
        }
        assert_eq!(policy.next(&calm), Plan { awake: 1, orders: vec![stay(0), all_to(0)] });
    }
}
