use super::*;
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
    let store = |mode, flags, exptime| Op::Store { mode, flags, exptime, value: &value };
    let table = [
        (Op::Get { cas: false, touch: None }, "mg k k f v\r\n"),
        (Op::Get { cas: true, touch: Some(-1) }, "mg k k f c v T-1\r\n"),
        (Op::Touch { exptime: 0 }, "mg k T0\r\n"),
        (store(Mode::Set, 0, 0), "ms k 3\r\nxyz\r\n"),
        (store(Mode::Add, 7, 60), "ms k 3 F7 T60 ME\r\nxyz\r\n"),
        (
            store(Mode::Cas(u64::MAX), u32::MAX, i32::MIN),
            "ms k 3 F4294967295 T-2147483648 C18446744073709551615\r\nxyz\r\n",
        ),
        (store(Mode::Append, 0, 0), "ms k 3 MA\r\nxyz\r\n"),
        (store(Mode::Prepend, 0, 0), "ms k 3 MP\r\nxyz\r\n"),
        (store(Mode::Replace, 0, 0), "ms k 3 MR\r\nxyz\r\n"),
        (Op::Delete, "md k\r\n"),
        (Op::Arith { delta: 5, decrement: false }, "ma k v D5\r\n"),
        (Op::Arith { delta: u64::MAX, decrement: true }, "ma k v MD D18446744073709551615\r\n"),
    ];
    for (op, expected) in table {
        assert_eq!(encoded(&Request { key: b"k", op }), expected.as_bytes());
    }
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
