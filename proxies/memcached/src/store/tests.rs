use std::time::Duration;

use super::*;
use crate::wire::meta::{self as wire, Arith, Delete, Get, Mode, Op, Status, Wants};
use crate::wire::number;

fn store() -> Arc<Store> {
    Store::small()
}

fn ask(store: &Store, op: Op<'_>) -> Reply {
    store.ask(&Request { key: b"k", is_coded: false, op })
}

fn set(store: &Store, mode: Mode, value: &'static str, exptime: i32) -> Status {
    store_if(store, mode, None, value, exptime)
}

fn set_if(store: &Store, token: u64, value: &'static str) -> Status {
    store_if(store, Mode::Set, Some(token), value, 0)
}

fn store_if(store: &Store, mode: Mode, compare: Option<u64>, value: &'static str, exptime: i32) -> Status {
    let value = Bytes::from_static(value.as_bytes());
    ask(store, Op::Store(wire::Store { flags: 7, exptime, compare, ..wire::Store::new(mode, &value) })).status
}

fn get(store: &Store) -> Option<(Bytes, u64)> {
    let reply = ask(store, Op::Get(Get { wants: Wants::ITEM.and(Wants::CAS), ..Get::default() }));
    let cas = reply.flag(b'c').and_then(number::unsigned)?;
    Some((reply.value, cas))
}

fn count(store: &Store, delta: u64, decrement: bool) -> Reply {
    ask(store, Op::Arith(Arith { decrement, ..Arith::up(delta) }))
}

#[test]
fn stores_by_mode() {
    let store = store();
    for mode in [Mode::Replace, Mode::Append, Mode::Prepend] {
        assert_eq!(set(&store, mode, "x", 0), Status::NotStored);
    }
    assert_eq!(set_if(&store, 1, "x"), Status::NotFound);
    assert_eq!(set(&store, Mode::Add, "b", 0), Status::Done);
    assert_eq!(set(&store, Mode::Add, "x", 0), Status::NotStored);
    assert_eq!(set(&store, Mode::Append, "c", 0), Status::Done);
    assert_eq!(set(&store, Mode::Prepend, "a", 0), Status::Done);
    let (value, cas) = get(&store).unwrap();
    assert_eq!(value, "abc");
    assert_eq!(set_if(&store, cas + 1, "x"), Status::Exists);
    assert_eq!(set_if(&store, cas, "d"), Status::Done);
    assert!(get(&store).unwrap().1 > cas);
}

#[test]
fn counts_as_memcached_does() {
    let store = store();
    assert_eq!(count(&store, 1, false).status, Status::NotFound);
    set(&store, Mode::Set, "10", 0);
    assert_eq!(count(&store, 1, true).value, "9");
    assert_eq!(get(&store).unwrap().0, "9 ", "the old length stays");
    assert_eq!(count(&store, 100, true).value, "0");
    assert_eq!(count(&store, u64::MAX, false).value, "18446744073709551615");
    assert_eq!(count(&store, 1, false).value, "0");
    set(&store, Mode::Set, "x", 0);
    assert_eq!(count(&store, 1, false).status, Status::Error);
}

#[test]
fn what_has_expired_is_gone() {
    let store = store();
    for past in [-1, i32::MIN, 60 * 60 * 24 * 30 + 1] {
        assert_eq!(set(&store, Mode::Set, "x", past), Status::Done);
        assert_eq!(get(&store), None, "{past}");
    }
    set(&store, Mode::Set, "x", 100);
    assert_eq!(
        ask(&store, Op::Get(Get { wants: Wants::ITEM, touch: Some(200), ..Get::default() })).status,
        Status::Value
    );
    assert_eq!(ask(&store, Op::Get(Get { touch: Some(-1), ..Get::default() })).status, Status::Done);
    assert_eq!(ask(&store, Op::Get(Get { touch: Some(0), ..Get::default() })).status, Status::Miss);
}

#[test]
fn flushing_takes_all_there_is_and_nothing_that_comes() {
    let store = store();
    set(&store, Mode::Set, "x", 0);
    store.flush_all(100);
    assert!(get(&store).is_some());
    store.flush_all(0);
    assert_eq!(get(&store), None);
    set(&store, Mode::Set, "y", 0);
    assert!(get(&store).is_some());
    assert_eq!(ask(&store, Op::Delete(Delete::default())).status, Status::Done);
    assert_eq!(ask(&store, Op::Delete(Delete::default())).status, Status::NotFound);
}

#[test]
fn it_holds_no_more_than_its_capacity() {
    let store = store();
    let value = Bytes::from(vec![b'v'; 10_000]);
    for number in 0..1000 {
        let key = format!("key{number}");
        let op = Op::Store(wire::Store::new(Mode::Set, &value));
        store.ask(&Request { key: key.as_bytes(), is_coded: false, op });
    }
    assert!(
        store.held_len() <= 1 << 20 && store.items() > 50,
        "{} bytes, {} items",
        store.held_len(),
        store.items()
    );
    let stats = String::from_utf8(store.stats().to_vec()).unwrap();
    assert!(stats.contains("STAT cmd_set 1000\r\n"), "{stats}");
}

#[test]
fn two_threads_lose_no_count() {
    let store = store();
    set(&store, Mode::Set, "0", 0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..5000).for_each(|_| _ = count(&store, 1, false)));
        }
    });
    assert_eq!(&get(&store).unwrap().0[..], b"10000");
}

#[test]
fn the_latest_flush_is_the_one_that_counts() {
    let store = store();
    store.flush_all(1);
    store.flush_all(0);
    set(&store, Mode::Set, "x", 0);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(get(&store).is_some(), "the flush that was to come was taken back");
}
