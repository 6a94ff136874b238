//! What is taken, what is refused, and that it does not matter how the bytes come in.

use super::chunked::Chunked;
use super::scan::HeadScan;
use super::*;
use bytes::BytesMut;
use proptest::prelude::*;

/// Reads one request with its body, `step` bytes at a time, as the session does.
fn read_request(bytes: &[u8], step: usize, limits: &Limits) -> Result<Option<Request>, Malformed> {
    let (mut scan, mut fields) = (HeadScan::default(), Fields::default());
    let mut seen = 0;
    let length = loop {
        seen = (seen + step).min(bytes.len());
        match scan.advance(&bytes[..seen], limits)? {
            Some(length) => break length,
            None if seen == bytes.len() => return Ok(None),
            None => {}
        }
    };
    let head = RequestHead::parse(&bytes[..length], limits, &mut fields)?;
    let mut out = Request {
        method: head.method.to_vec(),
        target: head.target.to_vec(),
        host: head.host.to_vec(),
        keeps_alive: head.keeps_alive(),
        framing: head.framing,
        data: Vec::new(),
        rest: Vec::new(),
    };
    let (mut body, mut at) = (Body::new(head.framing), length);
    let mut held = at;
    while !body.is_done() {
        held = (held + step).min(bytes.len());
        at += body.advance(&bytes[at..held], limits, |data| out.data.extend_from_slice(data))?;
        if !body.is_done() && held == bytes.len() {
            return Ok(None);
        }
    }
    out.rest = bytes[at..].to_vec();
    Ok(Some(out))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    method: Vec<u8>,
    target: Vec<u8>,
    host: Vec<u8>,
    keeps_alive: bool,
    framing: Framing,
    data: Vec<u8>,
    rest: Vec<u8>,
}

fn read_reply(bytes: &[u8], to_head: bool) -> Result<(u16, Framing, bool), Malformed> {
    let limits = Limits::default();
    let mut fields = Fields::default();
    let length = HeadScan::default().advance(bytes, &limits)?.expect("a whole head");
    let head = ReplyHead::parse(&bytes[..length], to_head, &limits, &mut fields)?;
    Ok((head.status, head.framing, head.keeps_alive()))
}

/// A hop that says what it says by default.
fn hop(trusted: bool) -> Hop<'static> {
    static SAYS: std::sync::LazyLock<Says> = std::sync::LazyLock::new(Says::default);
    Hop {
        says: &SAYS,
        client: b"192.0.2.7",
        real_ip: b"192.0.2.7",
        scheme: b"http",
        port: 80,
        trusted,
        via: b"groove",
        is_http2: false,
        request_id: b"42",
        trace: None,
        trace_continues: false,
    }
}

/// Requests that must be refused, and for what. None may be taken as "incomplete": its sender would wait for ever.
const MALFORMED: &[(&str, Malformed)] = &[
    // who says where the body ends
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Malformed::LengthAndCoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        Malformed::LengthAndCoding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
        Malformed::LengthDuplicate,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
        Malformed::LengthDuplicate,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 5\r\n\r\nabcde", Malformed::LengthDuplicate),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nabcd", Malformed::LengthInvalid),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", Malformed::LengthInvalid),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x4\r\n\r\nabcd", Malformed::LengthInvalid),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4 4\r\n\r\nabcd", Malformed::LengthInvalid),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n", Malformed::LengthInvalid),
    ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n", Malformed::LengthInvalid),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        Malformed::CodingUnknown,
    ),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", Malformed::Coding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Malformed::Coding),
    ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Malformed::FieldValue),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Malformed::Coding,
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Malformed::Coding,
    ),
    ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Malformed::CodingMisplaced),
    // how lines and fields are written
    ("GET / HTTP/1.1\nHost: a\n\n", Malformed::LineEnd),
    ("GET / HTTP/1.1\r\nHost: a\n\r\n", Malformed::LineEnd),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n", Malformed::LineEnd),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", Malformed::FieldValue),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tfolded\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nX[]: b\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Malformed::FieldName),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", Malformed::FieldValue),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01c\r\n\r\n", Malformed::FieldValue),
    ("GET / HTTP/1.1\r\nHost: a\r\nX: b\x7fc\r\n\r\n", Malformed::FieldValue),
    ("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", Malformed::FieldName),
    // the request line
    ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Method),
    ("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Method),
    (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::StartLine),
    ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::StartLine),
    ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Malformed::StartLine),
    ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Malformed::Version),
    ("GET / http/1.1\r\nHost: a\r\n\r\n", Malformed::StartLine),
    ("GET / HTTP/1.10\r\nHost: a\r\n\r\n", Malformed::StartLine),
    ("GET /\r\n", Malformed::StartLine),
    ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("GET http://u@a/x HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::Target),
    ("\x16\x03\x01\x02\x00\x01\x00", Malformed::StartLine),
    // the host
    ("GET / HTTP/1.1\r\n\r\n", Malformed::HostMissing),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Malformed::HostDuplicate),
    ("GET / HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", Malformed::HostDuplicate),
    ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", Malformed::HostMismatch),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: a:80:90\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: a:x\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: [:::1]\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", Malformed::HostInvalid),
    ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", Malformed::HostInvalid),
];

/// Chunked bodies that must be refused, and for what.
const MALFORMED_CHUNKS: &[(&str, Malformed)] = &[
    ("x\r\n", Malformed::ChunkSize),
    ("\r\n", Malformed::ChunkSize),
    ("-1\r\n", Malformed::ChunkSize),
    ("+1\r\na\r\n", Malformed::ChunkSize),
    ("0x1\r\na\r\n", Malformed::ChunkSize),
    (" 1\r\na\r\n", Malformed::ChunkSize),
    ("1,\r\na\r\n", Malformed::ChunkSize),
    ("10000000000000000\r\n", Malformed::ChunkSize),
    ("00000000000000001\r\na\r\n", Malformed::ChunkSize),
    ("ffffffffffffffff\r\n", Malformed::BodyTooLarge),
    ("1\na\r\n", Malformed::LineEnd),
    ("1\rXa", Malformed::LineEnd),
    ("1 \r\na\r\n", Malformed::ChunkExtension),
    ("1 x\r\na\r\n", Malformed::ChunkExtension),
    ("1;\r\na\r\n", Malformed::ChunkExtension),
    ("1;a=\r\na\r\n", Malformed::ChunkExtension),
    ("1;a=\"b\r\na\r\n", Malformed::ChunkExtension),
    ("1;a\nb\r\na\r\n", Malformed::ChunkExtension),
    ("1;a=b c\r\na\r\n", Malformed::ChunkExtension),
    ("1\r\nab\r\n0\r\n\r\n", Malformed::ChunkEnd),
    ("1\r\na\n0\r\n\r\n", Malformed::ChunkEnd),
    ("1\r\na\rX", Malformed::ChunkEnd),
    ("0\r\nX: y\n\r\n", Malformed::LineEnd),
    ("0\r\nX y\r\n\r\n", Malformed::FieldName),
    ("0\r\n X: y\r\n\r\n", Malformed::FieldName),
    ("0\r\nX: \x01\r\n\r\n", Malformed::FieldValue),
    ("0\r\nContent-Length: 5\r\n\r\n", Malformed::TrailerField),
    ("0\r\ntransfer-encoding: chunked\r\n\r\n", Malformed::TrailerField),
    ("0\r\nHost: b\r\n\r\n", Malformed::TrailerField),
    ("0\r\nX_Forwarded-For: 1.2.3.4\r\n\r\n", Malformed::TrailerField),
];

/// Replies that must be refused, and for what.
const MALFORMED_REPLIES: &[(&str, Malformed)] = &[
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
        Malformed::LengthAndCoding,
    ),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n", Malformed::LengthDuplicate),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\n", Malformed::LengthDuplicate),
    ("HTTP/1.1 200 OK\r\nContent-Length: four\r\n\r\n", Malformed::LengthInvalid),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Malformed::CodingUnknown),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::CodingMisplaced),
    ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::CodingMisplaced),
    ("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", Malformed::BodyMisplaced),
    ("HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n", Malformed::BodyMisplaced),
    ("HTTP/1.1 200 OK\nX: y\n\n", Malformed::LineEnd),
    ("HTTP/1.1 200 OK\r\nX: y\n\r\n", Malformed::LineEnd),
    ("HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n", Malformed::FieldName),
    ("HTTP/1.1 200 OK\r\nX : y\r\n\r\n", Malformed::FieldName),
    ("HTTP/1.1 200 OK\r\nX: \0\r\n\r\n", Malformed::FieldValue),
    ("HTTP/1.1 99 Low\r\n\r\n", Malformed::Status),
    ("HTTP/1.1 099 Low\r\n\r\n", Malformed::Status),
    ("HTTP/1.1 600 High\r\n\r\n", Malformed::Status),
    ("HTTP/1.1 2xx OK\r\n\r\n", Malformed::Status),
    ("HTTP/2.0 200 OK\r\n\r\n", Malformed::Version),
    ("ICY 200 OK\r\n\r\n", Malformed::StartLine),
    ("HTTP/1.1  200 OK\r\n\r\n", Malformed::Status),
];

#[test]
fn malformed_requests_are_refused_however_they_come() {
    let limits = Limits::default();
    for (text, want) in MALFORMED {
        for step in [text.len(), 1, 2, 7] {
            assert_eq!(read_request(text.as_bytes(), step, &limits), Err(*want), "{text:?} by {step}");
        }
        let (coding, version) = (*want == Malformed::CodingUnknown, *want == Malformed::Version);
        assert_eq!(
            want.status(),
            if coding {
                501
            } else if version {
                505
            } else {
                400
            },
            "{text:?}"
        );
    }
}

#[test]
fn malformed_chunks_are_refused_however_they_come() {
    let limits = Limits { body_bytes: 1 << 40, ..Limits::default() };
    for (text, want) in MALFORMED_CHUNKS {
        for step in [text.len(), 1, 2, 3] {
            let (mut chunked, mut result) = (Chunked::default(), Ok(0));
            for part in text.as_bytes().chunks(step) {
                result = result.and_then(|_| chunked.advance(part, &limits, |_| {}));
            }
            assert_eq!(result, Err(*want), "{text:?} by {step}");
        }
    }
}

#[test]
fn malformed_replies_are_refused() {
    for (text, want) in MALFORMED_REPLIES {
        assert_eq!(read_reply(text.as_bytes(), false), Err(*want), "{text:?}");
    }
}

#[test]
fn bounds_have_their_own_statuses() {
    let limits = Limits { head_bytes: 256, target_bytes: 32, fields: 8, body_bytes: 10, ..Limits::default() };
    let long_target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(40));
    let endless_target = format!("GET /{}", "a".repeat(400));
    let long_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(400));
    let many_fields = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "A: b\r\n".repeat(9));
    let endless_head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(400));
    let long_body = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n";
    let trailers = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}",
        "a".repeat(9000)
    );
    for (text, want, status) in [
        (long_target.as_str(), Malformed::TargetTooLong, 414),
        (&endless_target, Malformed::TargetTooLong, 414),
        (&long_head, Malformed::HeadTooLong, 431),
        (&many_fields, Malformed::HeadTooLong, 431),
        (&endless_head, Malformed::HeadTooLong, 431),
        (long_body, Malformed::BodyTooLarge, 413),
        (&trailers, Malformed::TrailerTooLong, 431),
    ] {
        for step in [text.len(), 1] {
            assert_eq!(read_request(text.as_bytes(), step, &limits), Err(want), "{text:?}");
        }
        assert_eq!(want.status(), status);
    }
}

#[test]
fn good_requests_mean_what_they_say() {
    let read = |text: &str| {
        let whole = read_request(text.as_bytes(), text.len(), &Limits::default());
        assert_eq!(whole, read_request(text.as_bytes(), 1, &Limits::default()), "{text:?} byte by byte");
        whole.expect(text).expect("a whole request")
    };
    let get =
        read("GET /a?b=c HTTP/1.1\r\nHost: A.example:8080\r\nX-Empty:\r\nX-Space: \t y \t\r\n\r\nGET /next");
    assert_eq!(
        (get.target.as_slice(), get.host.as_slice()),
        (b"/a?b=c".as_slice(), b"A.example:8080".as_slice())
    );
    assert!(get.keeps_alive);
    assert_eq!(get.rest, b"GET /next");
    let absolute = read("GET HTTP://a.example/x?y HTTP/1.1\r\nHost: A.example\r\n\r\n");
    assert_eq!(
        (absolute.target.as_slice(), absolute.host.as_slice()),
        (b"/x?y".as_slice(), b"a.example".as_slice())
    );
    assert_eq!(read("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").target, b"/");
    assert_eq!(read("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").target, b"*");
    assert_eq!(read("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n").target, b"*");
    assert_eq!(read("OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n").target, b"/");
    assert_eq!(read("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").host, b"[::1]:80");
    assert!(!read("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, Close\r\n\r\n").keeps_alive);
    let old = read("GET / HTTP/1.0\r\n\r\n");
    assert!(!old.keeps_alive && old.host.is_empty());
    assert!(read("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keeps_alive);
    let post = read("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /");
    assert_eq!((post.data.as_slice(), post.rest.as_slice()), (b"hello".as_slice(), b"GET /".as_slice()));
    let chunked = read(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
         5;a;b=c;d=\"e\\\"\"\r\nhello\r\n00006\r\n world\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\nGET /",
    );
    assert_eq!(
        (chunked.data.as_slice(), chunked.rest.as_slice()),
        (b"hello world".as_slice(), b"GET /".as_slice())
    );
}

#[test]
fn a_reply_is_framed_by_its_status_and_its_request() {
    for (text, to_head, want) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, (200, Framing::Length(5), true)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, (200, Framing::None, true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", true, (200, Framing::None, true)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false, (200, Framing::Chunked, true)),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", false, (304, Framing::None, true)),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", false, (204, Framing::None, true)),
        ("HTTP/1.1 200\r\n\r\n", false, (200, Framing::Close, false)),
        (
            "HTTP/1.1 200 \r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            false,
            (200, Framing::None, false),
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", false, (200, Framing::Length(5), false)),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n",
            false,
            (200, Framing::Length(5), true),
        ),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", false, (103, Framing::None, true)),
    ] {
        assert_eq!(read_reply(text.as_bytes(), to_head), Ok(want), "{text:?}");
    }
}

fn rendered(request: &str, trusted: bool, edits: &Edits) -> String {
    let (mut fields, mut out) = (Fields::default(), BytesMut::new());
    let head = RequestHead::parse(request.as_bytes(), &Limits::default(), &mut fields).expect(request);
    let hop = hop(trusted);
    render::request(&head, &hop, edits, &mut out);
    String::from_utf8(out.to_vec()).expect("text")
}

#[test]
fn a_request_goes_on_in_its_order_and_case_without_what_was_for_this_hop() {
    let request = "GET http://Shop.example/a HTTP/1.1\r\nuser-AGENT: x\r\nhost: shop.EXAMPLE\r\nConnection: keep-alive, X-Hop\r\n\
                   Keep-Alive: 5\r\nX-Hop: 1\r\nTE: trailers\r\nX-b: 1\r\nX-a: 2\r\nX_Forwarded_For: forged\r\nVia: 1.1 first\r\n\r\n";
    assert_eq!(
        rendered(request, false, &Edits::default()),
        "GET /a HTTP/1.1\r\nuser-AGENT: x\r\nhost: shop.EXAMPLE\r\nX-b: 1\r\nX-a: 2\r\nVia: 1.1 first\r\n\
         X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: Shop.example\r\nX-Request-Id: 42\r\n\
         Via: 1.1 groove\r\n\r\n"
    );
}

#[test]
fn identity_is_believed_from_trusted_peers_only() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.1.1.1\r\nX-Forwarded-For: 10.2.2.2\r\n\
                   X-Forwarded-Proto: https\r\nX-Forwarded-Host: real\r\nX-Request-Id: theirs\r\nForwarded: for=x\r\nX-Real-IP: y\r\n\r\n";
    assert_eq!(
        rendered(request, true, &Edits::default()),
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: real\r\nX-Request-Id: theirs\r\n\
         Forwarded: for=x\r\nX-Real-IP: y\r\nX-Forwarded-For: 10.1.1.1, 10.2.2.2, 192.0.2.7\r\nVia: 1.1 groove\r\n\r\n"
    );
    let untrusted = rendered(request, false, &Edits::default());
    for forged in ["10.1.1.1", "https", "real", "theirs", "for=x", "X-Real-IP"] {
        assert!(!untrusted.contains(forged), "{forged} in {untrusted}");
    }
}

#[test]
fn forwarded_quotes_what_is_no_token_and_hides_what_it_may_not_say() {
    let request = "GET / HTTP/1.1\r\nHost: a:8080\r\nForwarded: for=10.1.1.1\r\nX-Real-IP: y\r\n\r\n";
    let line = |node, trusted| {
        let (mut fields, mut out) = (Fields::default(), BytesMut::new());
        let head = RequestHead::parse(request.as_bytes(), &Limits::default(), &mut fields).expect(request);
        let says = Says { forwarded: Some(node), x_real_ip: true, ..Says::default() };
        let hop =
            Hop { says: &says, client: b"2001:db8::7", request_id: b"0123456789abcdef0123", ..hop(trusted) };
        render::request(&head, &hop, &Edits::default(), &mut out);
        let text = String::from_utf8(out.to_vec()).expect("text");
        assert_eq!(text.matches("X-Real-IP: 192.0.2.7\r\n").count(), 1, "{text}");
        assert_eq!(text.matches("X-Real-IP").count(), 1, "{text}");
        let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("Forwarded: ")).collect();
        lines.join(" | ")
    };
    assert_eq!(line(Node::Address, false), "for=\"[2001:db8::7]\";host=\"a:8080\";proto=http");
    assert_eq!(line(Node::Address, true), "for=10.1.1.1, for=\"[2001:db8::7]\";host=\"a:8080\";proto=http");
    assert_eq!(line(Node::Hidden, false), "for=_0123456789abcdef;host=\"a:8080\";proto=http");
}

#[test]
fn edits_remove_then_set_then_add_and_the_route_has_the_last_word() {
    let app = Edits::new(["X-Gone"], [("X-Team", "app"), ("X-Both", "app")], [("X-More", "app")]);
    let route = Edits::new(["x-more"], [("x-team", "route")], [("X-More", "route")]);
    let request =
        "GET / HTTP/1.1\r\nHost: a\r\nx-gone: 1\r\nX-Team: mine\r\nX-More: mine\r\nX-Kept: 1\r\n\r\n";
    let text = rendered(request, false, &app.then(&route));
    let (_, added) = text.split_once("Via: 1.1 groove\r\n").expect("our own fields");
    assert_eq!(added, "X-Both: app\r\nx-team: route\r\nX-More: route\r\n\r\n");
    assert!(text.starts_with("GET / HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\nX-Forwarded-For"), "{text}");
    let host = rendered(request, false, &Edits::new([""; 0], [("Host", "inside")], []));
    assert!(host.contains("\r\nHost: inside\r\n") && !host.contains("\r\nHost: a\r\n"), "{host}");
}

#[test]
fn edits_have_the_last_word_on_our_own_fields_too() {
    let own = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id", "Via"];
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: ftp\r\n\r\n";
    for trusted in [false, true] {
        let set = Edits::new([""; 0], own.map(|name| (name, "set")), []);
        let text = rendered(request, trusted, &set);
        for name in own {
            assert_eq!(text.matches(&format!("\r\n{name}: ")).count(), 1, "{name} in {text}");
            assert!(text.contains(&format!("\r\n{name}: set\r\n")), "{name} in {text}");
        }
        let text = rendered(request, trusted, &Edits::new(own, [("", ""); 0], []));
        assert_eq!(text, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
}

#[test]
fn what_an_edit_removes_is_no_trailer_either() {
    let edits = Edits::new(["x-secret"], [("X-Set", "1")], [("X-Add", "1")]);
    let body = "5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-SECRET: 2\r\nx-set: 3\r\nX-Add: 4\r\n\r\nGET";
    for step in 1..body.len() {
        let (mut reader, mut input, mut out) =
            (Body::new(Framing::Chunked), BytesMut::new(), BytesMut::new());
        for part in body.as_bytes().chunks(step) {
            input.extend_from_slice(part);
            reader.pass(&mut input, &mut out, &Limits::default(), &edits).unwrap();
            // A body is passed on as it comes; only trailers wait for each other.
            assert!(input.is_empty() || out.ends_with(b"0\r\n") || reader.is_done(), "{input:?} {out:?}");
        }
        assert!(reader.is_done());
        assert_eq!(out, "5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-Add: 4\r\n\r\n", "{step} bytes at a time");
        assert_eq!(input, "GET", "the next request");
    }
}

#[test]
fn a_trailer_section_that_is_held_is_as_strict_and_as_bounded() {
    let edits = Edits::new(["x-secret"], [("X-Set", "1")], [("X-Add", "1")]);
    let limits = Limits { trailer_bytes: 64, ..Limits::default() };
    for (section, refused) in [
        ("X : 1\r\n\r\n".to_owned(), Malformed::FieldName),
        ("X: 1\r\n y\r\n\r\n".to_owned(), Malformed::FieldName),
        ("Content-Length: 1\r\n\r\n".to_owned(), Malformed::TrailerField),
        (format!("X: {}", "y".repeat(100)), Malformed::TrailerTooLong),
    ] {
        let mut reader = Body::new(Framing::Chunked);
        let (mut input, mut out) = (BytesMut::from(format!("0\r\n{section}").as_str()), BytesMut::new());
        assert_eq!(reader.pass(&mut input, &mut out, &limits, &edits), Err(refused), "{section:?}");
    }
}

#[test]
fn an_expectation_is_not_hidden_behind_another() {
    for (lines, met) in [
        ("Expect: 100-continue\r\n", true),
        ("Expect: 100-continue\r\nExpect: 100-Continue\r\n", true),
        ("Expect: tea\r\nExpect: 100-continue\r\n", false),
        ("Expect: 100-continue\r\nExpect: tea\r\n", false),
    ] {
        let (request, mut fields) = (format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), Fields::default());
        let head = RequestHead::parse(request.as_bytes(), &Limits::default(), &mut fields).expect(lines);
        assert_eq!(head.expectation_can_be_met(), met, "{lines}");
    }
}

#[test]
fn framing_is_not_forged_for_apps_that_take_one_line_for_another() {
    for name in ["Content_Length", "content_length", "Transfer_Encoding"] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: 5\r\n\r\n");
        let read = read_request(request.as_bytes(), request.len(), &Limits::default());
        assert_eq!(read, Err(Malformed::FieldName), "{name}");
    }
}

#[test]
fn an_upgrade_goes_on_unless_it_is_h2c() {
    let request = |protocol: &str| {
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n")
    };
    let text = rendered(&request("websocket"), false, &Edits::default());
    assert!(text.ends_with("Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"), "{text}");
    let text = rendered(&request("h2c"), false, &Edits::default());
    assert!(!text.to_lowercase().contains("upgrade"), "{text}");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), step in 1usize..50) {
        let limits = Limits::default();
        let one = read_request(&bytes, bytes.len().max(1), &limits);
        prop_assert_eq!(one, read_request(&bytes, step, &limits));
    }

    #[test]
    fn splits_do_not_matter(
        chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
        damage in proptest::option::of((0usize..400, any::<u8>())),
        step in 1usize..30,
    ) {
        let mut bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            bytes.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
        if let Some((at, byte)) = damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let whole = read_request(&bytes, bytes.len(), &Limits::default());
        prop_assert_eq!(&whole, &read_request(&bytes, step, &Limits::default()));
        if damage.is_none() {
            prop_assert_eq!(whole.expect("valid").expect("whole").data, chunks.concat());
        }
    }

    /// What is taken of a damaged request is written so that a reader takes it again, and for the same.
    #[test]
    fn what_passes_is_read_alike_by_the_next(
        sample in 0usize..SAMPLES.len(),
        damage in proptest::collection::vec((any::<usize>(), 0usize..3, proptest::sample::select(INTERESTING)), 0..4),
        step in 1usize..30,
    ) {
        let mut bytes = SAMPLES[sample].as_bytes().to_vec();
        for (at, how, byte) in damage {
            let at = at % bytes.len();
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let limits = Limits::default();
        let whole = read_request(&bytes, bytes.len(), &limits);
        prop_assert_eq!(&whole, &read_request(&bytes, step, &limits));
        let Ok(Some(length)) = HeadScan::default().advance(&bytes, &limits) else { return Ok(()) };
        let mut fields = Fields::default();
        let Ok(head) = RequestHead::parse(&bytes[..length], &limits, &mut fields) else { return Ok(()) };
        let hop = hop(false);
        let mut out = BytesMut::new();
        render::request(&head, &hop, &Edits::default(), &mut out);
        let mut again_fields = Fields::default();
        let again = RequestHead::parse(&out, &limits, &mut again_fields);
        let again = again.map_err(|error| TestCaseError::fail(format!("{error}: {out:?}")))?;
        prop_assert_eq!((again.method, again.target, again.framing), (head.method, head.target, head.framing));
        prop_assert_eq!(HeadScan::default().advance(&out, &limits), Ok(Some(out.len())));
    }
}

const SAMPLES: [&str; 3] = [
    "POST /a?b HTTP/1.1\r\nHost: a.b:80\r\nTransfer-Encoding: chunked\r\nConnection: x, close\r\nX: y\r\nX-Forwarded-For: 1\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "GET http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nUpgrade: ws\r\nConnection: upgrade, Host\r\n\r\nhello",
    "PUT / HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\nTE: trailers\r\nExpect: 100-continue\r\n\r\nabc",
];

const INTERESTING: &[u8] = b"\r\n\t :,;=/?#[]@\"\\\0\x01\x7f\x80\xff0159aAfFxX-_.";
