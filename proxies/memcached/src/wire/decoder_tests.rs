use super::*;
use crate::wire::KEY_LEN_MAX;
use crate::wire::meta::Mode;
use crate::wire::request::{Command, Intent, Refusal, Store, To};
use proptest::prelude::*;

type Outcome = Result<Option<Request>, DecodeError>;

fn decode(text: &[u8]) -> (Outcome, BytesMut) {
    let mut input = BytesMut::from(text);
    let outcome = Decoder::default().decode(&mut input, &Limits::default());
    (outcome, input)
}

/// Everything that comes out of `text`, fed in pieces of `step` bytes. Ends with the first fatal error.
fn decode_in_steps(text: &[u8], step: usize) -> Vec<Result<Request, DecodeError>> {
    let (mut decoder, mut input, mut seen) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in text.chunks(step) {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input, &Limits::default()) {
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

fn keys(request: Request) -> Vec<Vec<u8>> {
    let Request::Get(mut get) = request else { panic!("{request:?} is no retrieval") };
    let mut keys = Vec::new();
    while let Some(key) = get.key() {
        keys.push(key.to_vec());
        get.advance();
    }
    keys
}

fn refused(refusal: Refusal, noreply: bool) -> Outcome {
    Err(DecodeError::Refused { refusal, to: To::Classic { noreply } })
}

#[test]
fn retrievals_with_any_number_of_keys_and_spaces() {
    let (request, rest) = decode(b"  get a  bb   c \r\nget d\r\n");
    assert_eq!(keys(request.unwrap().unwrap()), [&b"a"[..], b"bb", b"c"]);
    assert_eq!(rest, "get d\r\n");
    assert!(keys(decode(b"gat 0\n").0.unwrap().unwrap()).is_empty());
    let Ok(Some(Request::Get(get))) = decode(b"gats -1 a\r\n").0 else { panic!() };
    assert_eq!((get.cas, get.touch, get.key()), (true, Some(-1), Some(&b"a"[..])));
}

#[test]
fn a_stats_line_that_would_end_a_shared_connection_is_refused() {
    let line = |len: usize| format!("stats {}\r\n", "a".repeat(len));
    assert!(matches!(decode(line(1000).as_bytes()).0, Ok(Some(Request::Stats(_)))));
    for len in [1100, 5000] {
        let (outcome, rest) = decode(line(len).as_bytes());
        assert_eq!(outcome, refused(Refusal::UnknownCommand, false), "{len}");
        assert!(rest.is_empty());
    }
}

#[test]
fn stores_with_all_that_they_may_have() {
    let (request, rest) = decode(b"cas k 4294967295 -1 3 18446744073709551615 noreply\r\na\r\n\r\nget");
    let Ok(Some(Request::One(one))) = request else { panic!("{request:?}") };
    assert_eq!((one.key.as_bytes(), one.to), (&b"k"[..], To::Classic { noreply: true }));
    let Intent::Store(Store { mode, flags, exptime, value, compare, .. }) = one.intent else { panic!() };
    assert_eq!((one.command, mode, compare), (Command::Cas, Mode::Set, Some(u64::MAX)));
    assert_eq!((flags, exptime, &value[..]), (u32::MAX, -1, &b"a\r\n"[..]));
    assert_eq!(rest, "get");
}

#[test]
fn bad_requests_are_refused_as_memcached_refuses_them() {
    let long = "k".repeat(251);
    let table: Vec<(String, Outcome)> = vec![
        ("\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("GET a\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("get\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("get\ta\r\n".into(), refused(Refusal::UnknownCommand, false)),
        (format!("get a {long}\r\n"), refused(Refusal::BadFormat, false)),
        (format!("delete {long}\r\n"), refused(Refusal::BadFormat, false)),
        ("gat x a\r\n".into(), refused(Refusal::InvalidExptime, false)),
        ("set a 0 0\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("set a 0 0 1 noreply x\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("set a -1 0 1\r\n".into(), refused(Refusal::BadFormat, false)),
        ("set a 0 0 -1 noreply\r\n".into(), refused(Refusal::BadFormat, true)),
        ("set a 0 0 1\r\nxx\r\n".into(), refused(Refusal::BadDataChunk, false)),
        ("cas a 0 0 1\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("cas a 0 0 1 x\r\n".into(), refused(Refusal::BadFormat, false)),
        ("incr a\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("incr a -1 noreply\r\n".into(), refused(Refusal::InvalidDelta, true)),
        ("touch a x\r\n".into(), refused(Refusal::InvalidExptime, false)),
        ("delete a 1\r\n".into(), refused(Refusal::DeleteUsage, false)),
        ("delete a 1 noreply\r\n".into(), refused(Refusal::DeleteUsage, true)),
        ("delete a b c d\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("flush_all x\r\n".into(), refused(Refusal::InvalidExptime, false)),
        ("flush_all 1 2 3\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("verbosity noreply\r\n".into(), refused(Refusal::BadFormat, true)),
        ("cache_memlimit x\r\n".into(), refused(Refusal::UnknownCommand, false)),
        ("shutdown\r\n".into(), refused(Refusal::Shutdown, false)),
        ("lru_crawler crawl all\r\n".into(), refused(Refusal::OneServer, false)),
        ("GET / HTTP/1.1\r\n".into(), Err(DecodeError::Http)),
        ("delete / HTTP/1.1\r\n".into(), refused(Refusal::DeleteUsage, false)),
        ("\u{80}".into(), Ok(None)),
    ];
    for (text, expected) in table {
        assert_eq!(decode(text.as_bytes()).0, expected, "{text:?}");
    }
    assert_eq!(decode(b"\x80\x00").0, Ok(None));
    assert_eq!(decode(b"\x16").0, Ok(None));
    assert_eq!(decode(b"\x16\x03\x01\x02\x00").0, Err(DecodeError::Tls));
}

#[test]
fn a_refused_request_takes_no_more_than_its_own_bytes() {
    // The value of a store whose line is bad is read as a command, as memcached does.
    assert_eq!(decode(b"set a x 0 1\r\ny\r\n").1, "y\r\n");
    // A value that is too long by one: its last byte is left.
    assert_eq!(decode(b"set a 0 0 1\r\nxy\r\n").1, "\n");
    assert_eq!(decode(b"a\0b c\r\nget a\r\n").1, "get a\r\n");
}

#[test]
fn an_oversized_value_is_never_held() {
    let limits = Limits { value_len_max: 4, ..Limits::default() };
    let (mut decoder, mut input) = (Decoder::default(), BytesMut::from("set a 0 0 1000000\r\n"));
    let request = decoder.decode(&mut input, &limits).unwrap().unwrap();
    assert!(matches!(&request, Request::Oversized(store) if store.key.as_bytes() == b"a"));
    let mut left = 1_000_002;
    while left > 0 {
        let piece = left.min(4096);
        input.extend_from_slice(&vec![b'\n'; piece]);
        left -= piece;
        assert_eq!(decoder.decode(&mut input, &limits), Ok(None));
        assert!(input.is_empty());
    }
    input.extend_from_slice(b"get a\r\n");
    assert!(matches!(decoder.decode(&mut input, &limits), Ok(Some(Request::Get(_)))));
}

#[test]
fn endless_lines_end() {
    assert_eq!(decode(&b"x".repeat(COMMAND_LEN_MAX)).0, Ok(None));
    assert_eq!(decode(&b"x".repeat(COMMAND_LEN_MAX + 1)).0, Err(DecodeError::Garbage));
    assert_eq!(decode(&[b" ".repeat(101), b"get a".repeat(500)].concat()).0, Err(DecodeError::Garbage));
    assert_eq!(decode(&[&b"get "[..], &b"a ".repeat(5000)].concat()).0, Ok(None));
    let endless = [&b"get "[..], &b"a ".repeat(1 << 19)].concat();
    assert_eq!(decode(&endless).0, Err(DecodeError::LineTooLong));
    let complete = [&b"gat 0 "[..], &b"a ".repeat(20_000), b"\r\n"].concat();
    assert_eq!(decode(&complete).0, Err(DecodeError::Garbage));
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![b'!'..=b'~', 0x80u8..], 1..=KEY_LEN_MAX)
}

/// A well-formed request as bytes.
fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let noreply = prop_oneof![Just(""), Just(" noreply")];
    let value = prop::collection::vec(any::<u8>(), 0..300);
    let store = (any_key(), 0usize..6, any::<u32>(), any::<i32>(), value, any::<u64>(), noreply.clone());
    let store = store.prop_map(|(key, mode, flags, exptime, value, cas, noreply)| {
        let name = ["set", "add", "replace", "append", "prepend", "cas"][mode];
        let cas = if name == "cas" { format!(" {cas}") } else { String::new() };
        let head = format!(" {flags} {exptime} {}{cas}{noreply}\r\n", value.len());
        [name.as_bytes(), b" ", &key, head.as_bytes(), &value, b"\r\n"].concat()
    });
    let get = (prop::collection::vec(any_key(), 1..5), 0usize..4).prop_map(|(keys, name)| {
        let name: &[u8] = [&b"get "[..], b"gets ", b"gat 7 ", b"gats 0 "][name];
        [name, &keys.join(&b' '), b"\r\n"].concat()
    });
    let other = (any_key(), any::<u64>(), noreply, 0usize..5).prop_map(|(key, number, noreply, name)| {
        let exptime = number % 1000;
        let (name, rest) = [
            ("incr ", format!(" {number}{noreply}\n")),
            ("decr ", format!(" {number}{noreply}\r\n")),
            ("touch ", format!(" {exptime}{noreply}\r\n")),
            ("delete ", format!("{noreply}\r\n")),
            ("delete ", format!(" 0{noreply}\r\n")),
        ][name]
            .clone();
        [name.as_bytes(), &key, rest.as_bytes()].concat()
    });
    prop_oneof![store, get, other]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut, the same requests come out, and all of them are understood.
    #[test]
    fn cuts_do_not_matter(requests in prop::collection::vec(any_request(), 1..8), step in 1usize..70) {
        let text = requests.concat();
        let whole = decode_in_steps(&text, text.len());
        prop_assert_eq!(whole.len(), requests.len());
        prop_assert!(whole.iter().all(Result::is_ok));
        prop_assert_eq!(&decode_in_steps(&text, 1), &whole);
        prop_assert_eq!(&decode_in_steps(&text, step), &whole);
    }

    /// Any bytes at all: no panic, progress or an honest wish for more, and cuts do not matter here either
    /// as long as no line is so long that memcached itself would look at the cut.
    #[test]
    fn any_bytes_are_survived(text in prop::collection::vec(
        prop_oneof![any::<u8>(), Just(b'\n'), Just(b' '), Just(b'0'), Just(b's')], 0..400,
    )) {
        prop_assert_eq!(decode_in_steps(&text, text.len().max(1)), decode_in_steps(&text, 1));
    }
}
