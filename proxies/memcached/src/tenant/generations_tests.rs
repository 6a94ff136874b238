use super::*;

const NOW: u64 = 1_763_650_000_000;

#[test]
fn a_flush_at_once_or_later() {
    let first = Flushed::first(NOW);
    assert_eq!(first.at(NOW), 1_763_650_000);
    let flushed = first.flush(NOW + 5000, 0);
    assert_eq!((flushed.at(NOW), flushed.then), (1_763_650_005, None));
    // Twice in a second, or with a clock that went back.
    assert_eq!(flushed.flush(NOW + 5001, 0).at(NOW), 1_763_650_006);
    assert_eq!(flushed.flush(NOW - 99_000, 0).at(NOW), 1_763_650_006);
    let later = flushed.flush(NOW + 6000, NOW + 16_000);
    assert_eq!(later.at(NOW + 15_999), flushed.at(NOW));
    assert_eq!(later.changes_in(NOW + 15_999), Some(Duration::from_millis(1)));
    assert!(later.at(NOW + 16_000) > flushed.at(NOW));
    assert_eq!(later.changes_in(NOW + 16_000), None);
    // At once takes back what was to come, and is another generation than it would have been.
    let at_once = later.flush(NOW + 7000, 0);
    assert_eq!(at_once.then, None);
    assert!(at_once.at(NOW) > flushed.at(NOW));
    // After a delayed one has come to pass, the next is another again.
    assert!(later.flush(NOW + 17_000, 0).at(NOW) > later.at(NOW + 17_000));
}

#[test]
fn delays_are_memcacheds() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert_eq!(flush_at(0), Duration::ZERO);
    assert_eq!(flush_at(-5), Duration::ZERO);
    assert!(flush_at(10) >= now + Duration::from_secs(10));
    assert_eq!(flush_at(1_763_650_000), Duration::from_secs(1_763_650_000));
}
