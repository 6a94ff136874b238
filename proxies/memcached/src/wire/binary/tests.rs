use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::wire::meta::{Arith, Delete, Get, Mode, Op, Wants};
use crate::wire::request::{DecodeError, Refusal, To};
use crate::wire::{Decoder, Limits, Output, Request};

const OPAQUE: [u8; 4] = *b"op42";

/// A packet of a client.
fn packet(opcode: u8, extras: &[u8], key: &[u8], value: &[u8], cas: u64) -> Vec<u8> {
    let key_len = u16::try_from(key.len()).unwrap().to_be_bytes();
    let body_len = u32::try_from(extras.len() + key.len() + value.len()).unwrap().to_be_bytes();
    let extras_len = u8::try_from(extras.len()).unwrap();
    [
        &[REQUEST_MAGIC, opcode][..],
        &key_len,
        &[extras_len, 0, 0, 0],
        &body_len,
        &OPAQUE,
        &cas.to_be_bytes(),
        extras,
        key,
        value,
    ]
    .concat()
}

type Outcome = Result<Option<Request>, DecodeError>;

fn decode_one(bytes: &[u8]) -> (Outcome, BytesMut) {
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::from(bytes));
    let limits = Limits { value_len_max: 100, ..Limits::default() };
    (decoder.decode(&mut input, &limits), input)
}

fn to(opcode: u8) -> To {
    To::Binary { opcode, opaque: OPAQUE }
}

#[test]
fn packets_ask_what_meta_requests_can() {
    let get = Get { wants: Wants::ITEM.and(Wants::CAS), ..Get::default() };
    let value = Bytes::from_static(b"value");
    let store = |mode, compare| crate::wire::meta::Store {
        compare,
        wants: Wants::CAS,
        ..crate::wire::meta::Store::new(mode, &value)
    };
    let set = crate::wire::meta::Store { flags: 7, exptime: 60, ..store(Mode::Set, None) };
    let set_extras = [0, 0, 0, 7, 0, 0, 0, 60];
    let counts = |delta: u8, initial: u8, exptime: [u8; 4]| {
        [&[0, 0, 0, 0, 0, 0, 0, delta, 0, 0, 0, 0, 0, 0, 0, initial][..], &exptime].concat()
    };
    let arith = Arith { wants: Wants::VALUE.and(Wants::CAS), ..Arith::up(5) };
    let table = [
        (packet(0x00, b"", b"k", b"", 0), Op::Get(get)),
        (packet(0x0d, b"", b"k", b"", 9), Op::Get(get)),
        (packet(0x1d, &[0, 0, 0, 30], b"k", b"", 0), Op::Get(Get { touch: Some(30), ..get })),
        (packet(0x24, &[255; 4], b"k", b"", 0), Op::Get(Get { touch: Some(i32::MAX), ..get })),
        (
            packet(0x1c, &[0; 4], b"k", b"", 0),
            Op::Get(Get { touch: Some(0), wants: Wants::FLAGS.and(Wants::CAS), ..get }),
        ),
        (packet(0x01, &set_extras, b"k", b"value", 0), Op::Store(set)),
        (packet(0x12, &[0; 8], b"k", b"value", 0), Op::Store(store(Mode::Add, None))),
        // With a CAS value all stores are the same.
        (packet(0x03, &[0; 8], b"k", b"value", 4), Op::Store(store(Mode::Set, Some(4)))),
        (packet(0x0e, b"", b"k", b"value", 4), Op::Store(store(Mode::Append, Some(4)))),
        (packet(0x1a, b"", b"k", b"value", 0), Op::Store(store(Mode::Prepend, None))),
        (packet(0x04, b"", b"k", b"", 0), Op::Delete(Delete::default())),
        (packet(0x14, b"", b"k", b"", 3), Op::Delete(Delete { compare: Some(3), ..Delete::default() })),
        (packet(0x05, &counts(5, 3, [255; 4]), b"k", b"", 0), Op::Arith(arith)),
        (
            packet(0x16, &counts(5, 3, [0, 0, 0, 9]), b"k", b"", 2),
            Op::Arith(Arith {
                decrement: true,
                vivify: Some(9),
                initial: Some(3),
                compare: Some(2),
                ..arith
            }),
        ),
    ];
    for (bytes, op) in table {
        let opcode = bytes[1];
        let (outcome, rest) = decode_one(&bytes);
        let Ok(Some(Request::One(one))) = outcome else { panic!("{opcode:#x}: {outcome:?}") };
        assert_eq!((one.request().key, one.request().op, one.to), (&b"k"[..], op, to(opcode)), "{opcode:#x}");
        assert!(rest.is_empty());
    }
}

#[test]
fn keys_that_no_line_can_hold_are_coded() {
    for (key, expected) in
        [(&b"plain"[..], false), (b"a b", true), (b"a\nb", true), (b"\0", true), (b"\xff", false)]
    {
        let (outcome, _) = decode_one(&packet(0x00, b"", key, b"", 0));
        let Ok(Some(Request::One(one))) = outcome else { panic!("{outcome:?}") };
        assert_eq!((one.key.as_bytes(), one.key.is_coded), (key, expected));
    }
    let refused = |bytes: &[u8]| decode_one(bytes).0;
    assert!(refused(&packet(0x00, b"", &[b' '; 186], b"", 0)).is_ok());
    let too_long = Err(DecodeError::Refused { refusal: Refusal::KeyTooLong, to: to(0) });
    assert_eq!(refused(&packet(0x00, b"", &[b' '; 187], b"", 0)), too_long);
    assert!(refused(&packet(0x00, b"", &[b'k'; 250], b"", 0)).is_ok());
}

#[test]
fn packets_that_cannot_be_end_the_connection_as_memcached_ends_it() {
    let bad = |opcode| Err(DecodeError::HangUp { refusal: Refusal::BadPacket, to: to(opcode) });
    let table = [
        (packet(0x00, b"", &[b'k'; 251], b"", 0), bad(0)),
        (packet(0x00, b"", b"", b"", 0), bad(0)),
        (packet(0x00, b"", b"k", b"v", 0), bad(0)),
        (packet(0x00, b"e", b"k", b"", 0), bad(0)),
        (packet(0x01, &[0; 4], b"k", b"v", 0), bad(1)),
        (packet(0x05, &[0; 8], b"k", b"", 0), bad(5)),
        (packet(0x0a, b"", b"k", b"", 0), bad(10)),
        (packet(0x1c, b"", b"k", b"", 0), bad(0x1c)),
    ];
    for (bytes, expected) in table {
        assert_eq!(decode_one(&bytes).0, expected, "{bytes:?}");
    }
    // A body that is shorter than its parts.
    let mut short = packet(0x00, b"", b"key", b"", 0);
    short[11] = 2;
    let refusal = Refusal::UnknownCommand;
    assert_eq!(decode_one(&short).0, Err(DecodeError::HangUp { refusal, to: to(0) }));
    let mut second = packet(0x0a, b"", b"", b"", 0);
    second.extend(packet(0x0a, b"", b"", b"", 0));
    second[HEAD_LEN] = 0x81;
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::from(&second[..]));
    assert_eq!(decoder.decode(&mut input, &Limits::default()), Ok(Some(Request::Noop(to(10)))));
    assert_eq!(decoder.decode(&mut input, &Limits::default()), Err(DecodeError::BadMagic));
}

#[test]
fn what_is_refused_takes_its_own_bytes_and_no_more() {
    let noop = packet(0x0a, b"", b"", b"", 0);
    for bytes in [
        packet(0x1b, &[0; 4], b"", b"", 0),
        packet(0x7f, b"ext", b"key", b"value", 0),
        packet(0x01, &[0; 8], b"key", &[b'v'; 101], 0),
        packet(0x10, b"", b"a\r\nflush_all", b"", 0),
        packet(0x21, b"", &[b'm'; 33], b"data", 0),
        packet(0x10, b"", b"settings", b"what is this", 0),
    ] {
        let mut decoder = Decoder::default();
        let mut input = BytesMut::from(&[&bytes[..], &noop].concat()[..]);
        let limits = Limits { value_len_max: 100, ..Limits::default() };
        let first = decoder.decode(&mut input, &limits);
        assert!(!matches!(first, Ok(None) | Err(DecodeError::HangUp { .. })), "{first:?}");
        assert_eq!(decoder.decode(&mut input, &limits), Ok(Some(Request::Noop(to(10)))), "{bytes:?}");
    }
}

#[test]
fn statistics_are_a_packet_each() {
    let mut out = Output::new();
    write_stats(OPAQUE, b"STAT pid 7\r\nSTAT empty\r\nSTAT two words here\r\n", &mut out);
    let bytes = out.front().to_vec();
    let texts: Vec<&[u8]> = vec![b"pid7", b"empty", b"twowords here", b""];
    let mut at = 0;
    for text in texts {
        let head = &bytes[at..at + HEAD_LEN];
        assert_eq!((head[0], head[1], &head[12..16]), (ANSWER_MAGIC, STAT, &OPAQUE[..]));
        assert_eq!(&bytes[at + HEAD_LEN..at + HEAD_LEN + text.len()], text);
        at += HEAD_LEN + text.len();
    }
    assert_eq!(at, bytes.len());
}

fn decode_in_steps(bytes: &[u8], step: usize) -> Vec<Result<Request, DecodeError>> {
    let (mut decoder, mut input, mut seen) = (Decoder::default(), BytesMut::new(), Vec::new());
    let limits = Limits { value_len_max: 40, ..Limits::default() };
    for piece in bytes.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input, &limits) {
                Ok(None) => break,
                Ok(Some(request)) => seen.push(Ok(request)),
                Err(error) => {
                    seen.push(Err(error));
                    if !matches!(error, DecodeError::Refused { .. }) {
                        return seen;
                    }
                }
            }
        }
    }
    seen
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        packets in prop::collection::vec(
            (0u8..0x40, prop::sample::select(vec![0usize, 4, 8, 20]), prop::collection::vec(any::<u8>(), 0..20),
             prop::collection::vec(any::<u8>(), 0..60), any::<u64>()),
            1..8,
        ),
        step in 1usize..70,
    ) {
        let bytes: Vec<u8> = packets
            .iter()
            .flat_map(|(opcode, extras, key, value, cas)| packet(*opcode, &vec![7; *extras], key, value, *cas))
            .collect();
        let whole = decode_in_steps(&bytes, bytes.len());
        prop_assert_eq!(&decode_in_steps(&bytes, 1), &whole);
        prop_assert_eq!(&decode_in_steps(&bytes, step), &whole);
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 1..400)) {
        bytes[0] = REQUEST_MAGIC;
        prop_assert_eq!(decode_in_steps(&bytes, bytes.len()), decode_in_steps(&bytes, 1));
    }
}
