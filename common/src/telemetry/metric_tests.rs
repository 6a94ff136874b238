use std::sync::Barrier;
use std::thread;

use proptest::prelude::*;

use super::*;

#[test]
fn workers_and_others_count_into_one_sum() {
    let counter = Counter::new(3);
    let gauge = Gauge::new(3);
    // All at once, so that two who write without asking each other lose counts.
    let start = Barrier::new(5);
    thread::scope(|scope| {
        for worker in 0..5 {
            let (counter, gauge, start) = (counter.clone(), gauge.clone(), &start);
            scope.spawn(move || {
                // Two of the five are no workers of this program, and share a cell.
                if worker < 3 {
                    become_worker(worker);
                }
                start.wait();
                for _ in 0..200_000 {
                    counter.inc();
                    gauge.add(3);
                    gauge.dec();
                }
            });
        }
    });
    assert_eq!(counter.get(), 1_000_000);
    assert_eq!(gauge.get(), 2_000_000);
    gauge.set(-4);
    assert_eq!(gauge.get(), -4);
}

#[test]
fn only_a_worker_has_a_cell_to_itself() {
    let cells = ["shared", "worker 0", "worker 1"];
    assert_eq!(mine(&cells), Some((&"shared", true)));
    thread::scope(|scope| {
        scope.spawn(|| {
            become_worker(1);
            assert_eq!(mine(&cells), Some((&"worker 1", false)));
            become_worker(2);
            assert_eq!(mine(&cells), Some((&"shared", true)));
        });
    });
}

#[test]
fn a_worker_of_a_larger_program_counts_too() {
    let counter = Counter::new(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            become_worker(17);
            counter.inc();
        });
    });
    assert_eq!(counter.get(), 1);
}

#[test]
fn buckets_follow_each_other_without_gap_or_overlap() {
    let mut end = 0;
    for bucket in 0..BUCKETS {
        assert_eq!(bucket_of(end), bucket);
        let next = bucket_end(bucket);
        assert!(next > end);
        assert_eq!(bucket_of(next - 1), bucket);
        // No wider than an eighth of what is in it, beyond the first few.
        assert!(next - end <= (end / SUB).max(1), "{end}..{next}");
        end = next;
    }
    assert_eq!(end, 1 << BITS_MAX);
    assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
}

#[test]
fn an_empty_histogram_has_no_quantiles() {
    let empty = Histogram::new(1).snapshot();
    assert_eq!((empty.count(), empty.sum()), (0, Duration::ZERO));
    assert_eq!(empty.quantile(0.99), Duration::ZERO);
}

proptest! {
    /// What is told of a quantile is off by no more than a bucket, whatever was counted.
    #[test]
    fn quantiles_are_within_a_bucket(times in proptest::collection::vec(0_u64..1 << 40, 1..200), q in 0.0..=1.0) {
        let histogram = Histogram::new(0);
        times.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
        let all = histogram.snapshot();
        prop_assert_eq!(all.count(), times.len() as u64);
        prop_assert_eq!(all.sum(), Duration::from_micros(times.iter().sum()));
        let mut sorted = times;
        sorted.sort_unstable();
        let count = sorted.len() as u64;
        let rank = usize::try_from(count - share_of(count, 1.0 - q)).unwrap().max(1);
        prop_assert_eq!(all.quantile(q), Duration::from_micros(bucket_end(bucket_of(sorted[rank - 1]))));
    }

    /// The edges that Prometheus sees are edges of buckets: each count is exact.
    #[test]
    fn octaves_are_exact(times in proptest::collection::vec(0_u64..1 << 30, 0..200)) {
        let histogram = Histogram::new(0);
        times.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
        let mut below = 0;
        for (edge_s, inside) in histogram.snapshot().octaves() {
            below += inside;
            let expected = times.iter().filter(|us| Duration::from_micros(**us).as_secs_f64() < edge_s).count();
            prop_assert_eq!(below, expected as u64, "up to {} s", edge_s);
        }
    }
}
