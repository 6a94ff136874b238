use super::*;
use crate::wire::{Limits, Output};
use proptest::prelude::*;

fn encoded(request: &Request<'_>) -> Vec<u8> {
    let mut out = Output::new();
    request.encode(&mut out);
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let front = out.front().to_vec();
        out.advance(front.len());
        bytes.extend(front);
    }
    bytes
}

fn decode_all(text: &[u8], step: usize) -> Result<Vec<Reply>, DecodeError> {
    let (mut decoder, mut input, mut replies) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in text.chunks(step) {
        input.extend_from_slice(piece);
        while let Some(reply) = decoder.decode(&mut input, &Limits::default())? {
            replies.push(reply);
        }
    }
    Ok(replies)
}

#[test]
fn requests_as_memcached_wants_them() {
    let value = Bytes::from_static(b"xyz");
    let store = Store::new(Mode::Set, &value);
    let get = Get::default();
    let item = Get { wants: Wants::ITEM, ..get };
    let arith = Arith::up(5);
    let everything = Wants::LETTERS.iter().fold(Wants::NOTHING, |wants, (letter, _)| wants.and(*letter));
    let table = [
        (Op::Get(get), "mg k\r\n"),
        (Op::Get(item), "mg k k f v\r\n"),
        (Op::Get(Get { wants: Wants::ITEM.and(Wants::CAS), touch: Some(-1), ..get }), "mg k k f c v T-1\r\n"),
        (Op::Get(Get { touch: Some(0), ..get }), "mg k T0\r\n"),
        (
            Op::Get(Get { wants: everything, vivify: Some(30), recache: Some(9), new_cas: Some(7), ..get }),
            "mg k k f c t s h l v N30 R9 E7\r\n",
        ),
        (Op::Store(store), "ms k 3\r\nxyz\r\n"),
        (Op::Store(Store { mode: Mode::Add, flags: 7, exptime: 60, ..store }), "ms k 3 F7 T60 ME\r\nxyz\r\n"),
        (
            Op::Store(Store { compare: Some(u64::MAX), flags: u32::MAX, exptime: i32::MIN, ..store }),
            "ms k 3 F4294967295 T-2147483648 C18446744073709551615\r\nxyz\r\n",
        ),
        (Op::Store(Store { mode: Mode::Append, vivify: Some(0), ..store }), "ms k 3 MA N0\r\nxyz\r\n"),
        (Op::Store(Store { mode: Mode::Prepend, ..store }), "ms k 3 MP\r\nxyz\r\n"),
        (Op::Store(Store { mode: Mode::Replace, ..store }), "ms k 3 MR\r\nxyz\r\n"),
        (
            Op::Store(Store {
                compare: Some(1),
                new_cas: Some(2),
                invalidate: true,
                wants: Wants::CAS,
                ..store
            }),
            "ms k 3 C1 E2 I c\r\nxyz\r\n",
        ),
        (Op::Delete(Delete::default()), "md k\r\n"),
        (
            Op::Delete(Delete {
                compare: Some(1),
                new_cas: Some(2),
                invalidate: true,
                touch: Some(30),
                clear: true,
                wants: Wants::KEY,
            }),
            "md k k C1 E2 I T30 x\r\n",
        ),
        (Op::Arith(arith), "ma k v D5\r\n"),
        (Op::Arith(Arith { decrement: true, ..Arith::up(u64::MAX) }), "ma k v MD D18446744073709551615\r\n"),
        (
            Op::Arith(Arith {
                vivify: Some(60),
                initial: Some(3),
                touch: Some(1),
                compare: Some(2),
                ..arith
            }),
            "ma k v D5 N60 J3 T1 C2\r\n",
        ),
    ];
    for (op, expected) in table {
        assert_eq!(encoded(&Request { key: b"k", is_coded: false, op }), expected.as_bytes());
    }
    let coded = |op| String::from_utf8(encoded(&Request { key: b"a b", is_coded: true, op })).unwrap();
    assert_eq!(coded(Op::Get(get)), "mg YSBi b\r\n");
    assert_eq!(coded(Op::Get(item)), "mg YSBi f v b\r\n");
    assert_eq!(coded(Op::Store(store)), "ms YSBi 3 b\r\nxyz\r\n");
}

#[test]
fn replies_and_their_flags() {
    let replies = decode_all(b"VA 2 ka f7 c12\r\n\r\n\r\nHD\r\nEN\r\nSERVER_ERROR out\r\n", 1).unwrap();
    let [value, done, miss, error] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!((value.status, &value.value[..]), (Status::Value, &b"\r\n"[..]));
    assert_eq!(value.flag(b'c'), Some(&b"12"[..]));
    assert_eq!(value.flag(b'2'), None, "the length is no flag");
    assert_eq!((done.status, miss.status, error.status), (Status::Done, Status::Miss, Status::Error));
    assert_eq!(error.line(), b"SERVER_ERROR out");
}

#[test]
fn an_answer_for_another_key_is_found_out() {
    let asked = |key| {
        let op = Op::Get(Get { wants: Wants::ITEM, ..Get::default() });
        Request { key, is_coded: false, op }.fingerprint().unwrap()
    };
    let replies = decode_all(b"VA 1 kfoo f0\r\nx\r\nVA 1 kZm9v b f0\r\nx\r\nEN\r\n", 100).unwrap();
    for reply in &replies[..2] {
        assert!(reply.is_of(asked(b"foo")) && !reply.is_of(asked(b"bar")));
    }
    assert!(replies[2].is_of(asked(b"bar")), "it tells no key");
}

#[test]
fn what_is_not_memcached_is_found_out() {
    for (text, error) in [
        (&b"HTTP/1.1 400 Bad Request\r\n"[..], DecodeError::UnknownReply),
        (b"VA x\r\n", DecodeError::BadValue),
        (b"VA -1 f0\r\n", DecodeError::BadValue),
        (b"VA 99999999999 f0\r\n", DecodeError::BadValue),
        (b"VA 1 f0\r\nabc", DecodeError::BadValue),
        (&[b'H'; LINE_LEN_MAX + 1], DecodeError::LineTooLong),
    ] {
        assert_eq!(decode_all(text, text.len()), Err(error), "{text:?}");
    }
}

#[test]
fn a_value_over_the_limit_is_thrown_away_and_the_next_reply_found() {
    let limits = Limits { value_len_max: 3, ..Limits::default() };
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::from("VA 5 ka f0\r\nab"));
    assert_eq!(decoder.decode(&mut input, &limits).unwrap().unwrap().status, Status::TooLarge);
    assert_eq!(decoder.decode(&mut input, &limits), Ok(None));
    input.extend_from_slice(b"cde\r\nEN\r\n");
    assert_eq!(decoder.decode(&mut input, &limits).unwrap().unwrap().status, Status::Miss);
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        values in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..100), any::<u32>(), any::<u64>()), 1..6),
        step in 1usize..40,
    ) {
        let mut text = Vec::new();
        for (value, flags, cas) in &values {
            text.extend(format!("VA {} kkey f{flags} c{cas}\r\n", value.len()).into_bytes());
            text.extend(value);
            text.extend(b"\r\nNF\r\n");
        }
        let replies = decode_all(&text, step).unwrap();
        prop_assert_eq!(&replies, &decode_all(&text, 1).unwrap());
        prop_assert_eq!(replies.len(), 2 * values.len());
        for (reply, (value, flags, cas)) in replies.iter().step_by(2).zip(&values) {
            prop_assert_eq!(&reply.value[..], &value[..]);
            prop_assert_eq!(reply.flag(b'f').unwrap().to_vec(), flags.to_string().into_bytes());
            prop_assert_eq!(reply.flag(b'c').unwrap().to_vec(), cas.to_string().into_bytes());
            prop_assert_eq!(&reply.clone().detached(), reply);
        }
    }

    #[test]
    fn any_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..300), step in 1usize..40) {
        let whole = decode_all(&text, text.len().max(1));
        if whole.is_ok() {
            prop_assert_eq!(decode_all(&text, step), whole);
        }
    }
}
