//! What becomes of requests whose server is away, where the cluster's `failover` says more than "an error". Pure.

use bytes::Bytes;

use crate::wire::meta::{Op, Reply, Request, Status};

/// Expiries above this are Unix times, as memcached has it.
const RELATIVE_MAX_S: i32 = 60 * 60 * 24 * 30;

/// The answer of a server that has nothing and keeps nothing (`failover: miss`).
pub fn nothing(request: &Request<'_>) -> Reply {
    let (status, line): (_, &'static [u8]) = match &request.op {
        Op::Get(_) | Op::Debug => (Status::Miss, b"EN"),
        Op::Store(store) if store.compare.is_none() => (Status::NotStored, b"NS"),
        Op::Store(_) | Op::Delete(_) | Op::Arith(_) => (Status::NotFound, b"NF"),
    };
    Reply::new(status, Bytes::from_static(line), Bytes::new())
}

/// The request with no expiry beyond `ttl_max_s` from now, for a server that only stands in for another.
///
/// What it writes is stale as soon as the owner is back, and must not be found there when the owner leaves again
/// much later.
pub fn capped<'a>(request: &Request<'a>, ttl_max_s: i32, now_unix_s: i64) -> Request<'a> {
    let cap = |exptime: i32| match exptime {
        ..0 => exptime,
        0 => ttl_max_s,
        1..=RELATIVE_MAX_S => exptime.min(ttl_max_s),
        _ if i64::from(exptime) > now_unix_s + i64::from(ttl_max_s) => ttl_max_s,
        _ => exptime,
    };
    let mut request = *request;
    match &mut request.op {
        Op::Get(get) => {
            get.touch = get.touch.map(cap);
            get.vivify = get.vivify.map(cap);
        }
        Op::Store(store) => {
            store.exptime = cap(store.exptime);
            store.vivify = store.vivify.map(cap);
        }
        Op::Delete(delete) => delete.touch = delete.touch.map(cap),
        Op::Arith(arith) => {
            arith.touch = arith.touch.map(cap);
            arith.vivify = arith.vivify.map(cap);
        }
        Op::Debug => (),
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::meta::{Arith, Delete, Get, Mode, Store};

    fn of(op: Op<'_>) -> Request<'_> {
        Request { key: b"k", is_coded: false, op }
    }

    #[test]
    fn nothing_is_there_and_nothing_is_kept() {
        let value = Bytes::from_static(b"v");
        let set = Store::new(Mode::Set, &value);
        let cas = Store { compare: Some(7), ..set };
        let answers = [
            (Op::Get(Get::default()), Status::Miss),
            (Op::Store(set), Status::NotStored),
            (Op::Store(cas), Status::NotFound),
            (Op::Delete(Delete::default()), Status::NotFound),
            (Op::Arith(Arith::up(1)), Status::NotFound),
        ];
        for (op, status) in answers {
            assert_eq!(nothing(&of(op)).status, status, "{op:?}");
        }
    }

    #[test]
    fn nothing_lives_longer_than_the_cap() {
        let value = Bytes::from_static(b"v");
        let now = 1_800_000_000;
        let near = i32::try_from(now + 20).unwrap();
        let far = i32::try_from(now + 90).unwrap();
        for (asked, given) in [(0, 60), (10, 10), (61, 60), (-1, -1), (near, near), (far, 60)] {
            let store = Store { exptime: asked, ..Store::new(Mode::Set, &value) };
            let Op::Store(store) = capped(&of(Op::Store(store)), 60, now).op else { panic!() };
            assert_eq!(store.exptime, given, "{asked}");
            let touch = Get { touch: Some(asked), ..Get::default() };
            let Op::Get(get) = capped(&of(Op::Get(touch)), 60, now).op else { panic!() };
            assert_eq!(get.touch, Some(given), "{asked}");
        }
        let plain = of(Op::Get(Get::default()));
        assert_eq!(capped(&plain, 60, now), plain, "a read without a new expiry sets none");
    }
}
