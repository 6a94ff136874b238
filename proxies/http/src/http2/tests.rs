//! Heads and bodies between the two forms, whole and byte by byte.

use super::head::{self, Carriage};
use super::reading::{BodyReading, Head, HeadReading, LIMITS, Part};
use crate::wire::{Fields, Framing, RequestHead};
use bytes::BytesMut;
use h2::ext::Protocol;
use http::request::Parts;
use http::{HeaderMap, Request};

fn written(request: http::request::Builder, is_whole: bool) -> Option<(String, Carriage)> {
    let (parts, ()): (Parts, ()) = request.body(()).expect("a request").into_parts();
    let mut out = BytesMut::new();
    let carriage = head::put_request(&parts, is_whole, b"key", &mut out).ok()?;
    Some((String::from_utf8(out.to_vec()).expect("text"), carriage))
}

#[test]
fn a_request_is_written_as_http_1_has_it() {
    let request = Request::get("http://a.test:81/x?y")
        .header("cookie", "a=1")
        .header("accept", "*/*")
        .header("cookie", "b=2");
    let (text, carriage) = written(request, true).expect("well-formed");
    assert_eq!(text, "GET /x?y HTTP/1.1\r\nhost: a.test:81\r\ncookie: a=1; b=2\r\naccept: */*\r\n\r\n");
    assert_eq!(carriage, Carriage::None);

    let (text, carriage) = written(Request::post("http://a.test/"), false).expect("well-formed");
    assert!(text.ends_with("\r\ntransfer-encoding: chunked\r\n\r\n"), "{text}");
    assert_eq!(carriage, Carriage::Chunks);

    let (text, carriage) =
        written(Request::post("http://a.test/").header("content-length", "3"), false).expect("well-formed");
    assert!(!text.contains("chunked") && text.contains("content-length: 3"), "{text}");
    assert_eq!(carriage, Carriage::Plain);

    let connect = Request::connect("http://a.test/chat").extension(Protocol::from_static("websocket"));
    let (text, carriage) = written(connect, false).expect("well-formed");
    assert!(text.starts_with("GET /chat HTTP/1.1\r\nhost: a.test\r\n"), "{text}");
    assert!(
        text.ends_with("connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: key\r\n\r\n"),
        "{text}"
    );
    assert_eq!(carriage, Carriage::Tunnel);
}

#[test]
fn what_says_two_things_is_refused() {
    assert!(written(Request::get("http://a.test/").header("host", "b.test"), true).is_none(), "two hosts");
    assert!(written(Request::get("http://a.test/").header("host", "A.test"), true).is_some(), "one host");
    assert!(
        written(Request::post("http://a.test/").header("content-length", "3"), true).is_none(),
        "a void body"
    );
    // Nobody would ever send what this waits for.
    let (text, _) =
        written(Request::post("http://a.test/").header("expect", "100-continue"), true).expect("a head");
    assert!(!text.contains("expect"), "{text}");
}

fn read_reply(text: &str, to_head: bool) -> (Vec<String>, String, Option<HeaderMap>, bool) {
    let (mut heads, mut body, mut said, mut trailers) = (HeadReading::default(), None, String::new(), None);
    let (mut inbox, mut seen) = (BytesMut::new(), Vec::new());
    for byte in text.bytes() {
        inbox.extend_from_slice(&[byte]);
        if body.is_none() {
            match heads.next(&mut inbox, to_head).expect("a head") {
                Some(Head::Interim(head)) => {
                    seen.push(format!("{} {:?}", head.status().as_u16(), head.headers()))
                }
                Some(Head::Final(head, reading)) => {
                    seen.push(format!("{} {:?}", head.status().as_u16(), head.headers()));
                    body = Some(reading);
                }
                None => {}
            }
        }
        while let Some(reading) = &mut body
            && let Some(part) = reading.next(&mut inbox).expect("a body")
        {
            match part {
                Part::Data(data) => said.push_str(std::str::from_utf8(&data).expect("text")),
                Part::Trailers(fields) => trailers = Some(fields),
                Part::End => {}
            }
        }
    }
    let is_done = body.is_some_and(|mut body| body.is_done() || body.closed());
    (seen, said, trailers, is_done)
}

#[test]
fn replies_are_read_byte_by_byte() {
    let text = "HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: x, close\r\nKeep-Alive: 1\r\n\
                Transfer-Encoding: chunked\r\nX-A: 1\r\n\r\n5\r\nhello\r\n3;a=b\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    let (heads, said, trailers, is_done) = read_reply(text, false);
    assert_eq!(heads, ["103 {\"link\": \"<a>\"}", "200 {\"x-a\": \"1\"}"]);
    assert_eq!((said.as_str(), is_done), ("helloabc", true));
    assert_eq!(trailers.expect("trailers")["x-sum"], "7");

    let cut = text.strip_suffix("0\r\nX-Sum: 7\r\n\r\n").expect("an end");
    assert!(!read_reply(cut, false).3, "an end that is missing is no end");
    assert!(!read_reply("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false).3, "too little is no end");
    assert!(read_reply("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", false).3);
    assert!(read_reply("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", true).3, "to HEAD");
    assert!(read_reply("HTTP/1.1 200 OK\r\n\r\nuntil", false).3, "the close is its end");

    let switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\nbytes";
    let (heads, said, ..) = read_reply(switched, false);
    assert_eq!(
        (heads, said.as_str()),
        (vec!["200 {\"sec-websocket-protocol\": \"chat\"}".to_owned()], "bytes")
    );
}

fn asked(text: &str, speaks_websockets: bool) -> head::Asking {
    let mut fields = Fields::default();
    let head = RequestHead::parse(text.as_bytes(), &LIMITS, &mut fields).expect("a request");
    head::request(&head, "http", speaks_websockets).expect("a request of HTTP/2")
}

#[test]
fn a_sessions_request_is_asked_as_http_2_has_it() {
    let text =
        "POST /x?y HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: x\r\nX-A: 1\r\n\r\n";
    let asking = asked(text, true);
    let request = asking.request;
    assert_eq!(request.uri(), "http://a.test/x?y");
    assert_eq!(format!("{:?}", request.headers()), r#"{"x-a": "1", "te": "trailers"}"#);
    assert_eq!((asking.framing, asking.to_head, asking.accept), (Framing::Chunked, false, None));

    let text = "GET /chat HTTP/1.1\r\nHost: a.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let asking = asked(text, true);
    // The example of RFC 6455, 1.3.
    assert_eq!(asking.accept.as_deref(), Some(&b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..]));
    assert_eq!(asking.request.method(), "CONNECT");
    assert!(asking.request.headers().get("sec-websocket-key").is_none());
    // A server that does not know of it sees an Upgrade that is ignored.
    let asking = asked(text, false);
    assert_eq!((asking.accept, asking.request.method().as_str()), (None, "GET"));
}

#[test]
fn a_body_of_no_length_ends_at_once() {
    let mut body = BodyReading::new(Framing::None);
    assert!(matches!(body.next(&mut BytesMut::new()), Ok(Some(Part::End))));
    assert!(body.is_done() && matches!(body.next(&mut BytesMut::new()), Ok(None)));
}
