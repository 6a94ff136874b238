//! Replies through the exchange: what is compressed, what its head says, and that what comes out is what went in.

use super::*;
use crate::session::state::{Asked, Exchange, Rules};
use crate::wire::{Fields, Limits, Outlet, Version};
use bytes::BytesMut;
use groove_common::telemetry::Registry;
use proptest::prelude::*;
use std::io::{Read, Write};

const TEXT: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n";

fn rules(more: &str) -> Compression {
    let written: config::Compression = serde_json::from_str(more).expect("rules");
    let registry = Registry::new(1);
    let metrics = move || CompressionMetrics::new(&registry, "a");
    Compression::new(&written, Arc::default(), metrics).expect("switched on")
}

fn asked(is_head: bool, version: Version) -> Asked {
    Asked { version, is_head, keeps_alive: true, may_replay: true, is_idempotent: true, offered: None }
}

fn bytes(outlet: &Outlet) -> Vec<u8> {
    [&outlet.head[..], &outlet.body[..]].concat()
}

/// What a client gets of a reply that comes in these pieces, with a pause behind each.
struct Got {
    head: String,
    body: Vec<u8>,
    stays: bool,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut named = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let found = named.next().map(|(_, value)| value);
        assert!(named.next().is_none(), "two of {name}: {}", self.head);
        found
    }

    /// The body without chunks, and its trailers.
    fn plain(&self) -> (Vec<u8>, String) {
        let (mut data, mut rest) = (Vec::new(), &self.body[..]);
        loop {
            let end = memchr::memmem::find(rest, b"\r\n").expect("a size");
            let size =
                usize::from_str_radix(std::str::from_utf8(&rest[..end]).expect("text"), 16).expect("hex");
            rest = &rest[end + 2..];
            if size == 0 {
                return (data, String::from_utf8(rest.to_vec()).expect("text"));
            }
            data.extend_from_slice(&rest[..size]);
            assert_eq!(&rest[size..size + 2], b"\r\n");
            rest = &rest[size + 2..];
        }
    }

    fn decoded(&self) -> Vec<u8> {
        decoded(self.header("Content-Encoding").expect("a coding"), &self.plain().0)
    }
}

fn decoded(coding: &str, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match coding {
        "gzip" => drop(flate2::read::GzDecoder::new(data).read_to_end(&mut out).expect("gzip")),
        "br" => drop(brotli::Decompressor::new(data, 4096).read_to_end(&mut out).expect("br")),
        "zstd" => out = zstd::stream::decode_all(data).expect("zstd"),
        other => panic!("no coding: {other}"),
    }
    out
}

fn pass_as(asked: Asked, rules: &Compression, accepted: &str, pieces: &[&[u8]], closes: bool) -> Got {
    let (limits, edits) = (Limits::default(), Edits::default());
    let choice = rules.choice([accepted.as_bytes()].into_iter());
    let compress = Compress { rules, choice, encoders_max: 10 };
    let rules = Rules { compress: Some(compress), ..Rules::plain(&limits, &edits) };
    let mut exchange = Exchange::new(asked, Framing::None);
    let (mut input, mut output) = (BytesMut::new(), Outlet::default());
    for piece in pieces {
        input.extend_from_slice(piece);
        exchange.download(&mut input, &mut output, &rules, &mut Fields::default()).expect("a good reply");
        exchange.pause(&mut output).expect("memory");
    }
    if closes {
        exchange.server_closed(&input, &mut output).expect("its end");
    }
    let output = bytes(&output);
    assert!(exchange.is_answered(), "{}", String::from_utf8_lossy(&output));
    let end = memchr::memmem::find(&output, b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(output[..end].to_vec()).expect("text");
    Got { head, body: output[end..].to_vec(), stays: exchange.keeps_client() }
}

fn pass(rules: &Compression, accepted: &str, reply: &str) -> Got {
    pass_as(asked(false, Version::Http11), rules, accepted, &[reply.as_bytes()], false)
}

fn text(more: &str, body: &str) -> String {
    format!("{TEXT}{more}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_reply_is_compressed_and_its_head_says_so() {
    let (rules, body) = (rules("{}"), "words and words ".repeat(200));
    let reply = text("ETag: \"abc\"\r\nAccept-Ranges: bytes\r\nVary: Origin\r\n", &body);
    for coding in ["gzip", "br", "zstd"] {
        let got = pass(&rules, coding, &reply);
        assert_eq!(got.header("Content-Encoding"), Some(coding));
        assert_eq!(got.header("Transfer-Encoding"), Some("chunked"));
        assert_eq!((got.header("Content-Length"), got.header("Accept-Ranges")), (None, None));
        assert_eq!(got.header("ETag"), Some("W/\"abc\""));
        assert!(got.head.contains("Vary: Origin\r\n") && got.head.contains("Vary: Accept-Encoding\r\n"));
        assert_eq!(got.decoded(), body.as_bytes());
        assert!(got.body.len() < body.len() / 4 && got.stays, "{} bytes of {coding}", got.body.len());
    }
}

#[test]
fn who_cannot_read_it_gets_it_as_it_is_and_caches_are_told() {
    let (rules, body) = (rules("{}"), "words ".repeat(1000));
    let reply = text("ETag: \"abc\"\r\n", &body);
    for accepted in ["", "identity", "gzip;q=0"] {
        let got = pass(&rules, accepted, &reply);
        assert_eq!((got.header("Content-Encoding"), got.header("ETag")), (None, Some("\"abc\"")));
        assert_eq!(got.header("Vary"), Some("Accept-Encoding"));
        assert_eq!(got.body, body.as_bytes());
    }
    // HTTP/1.0 has no chunks.
    let old = pass_as(asked(false, Version::Http10), &rules, "gzip", &[reply.as_bytes()], false);
    assert_eq!((old.header("Content-Encoding"), old.header("Vary")), (None, Some("Accept-Encoding")));
}

#[test]
fn what_must_not_be_touched_is_not() {
    let (rules, body) = (rules("{}"), "words ".repeat(1000));
    for (lines, why) in [
        ("Content-Encoding: br\r\n", "it is compressed already"),
        ("Cache-Control: public, No-Transform\r\n", "its server says so"),
        ("Content-Range: bytes 0-1/2\r\n", "it is a part"),
        ("Content-Digest: sha-256=:AAAA:\r\n", "its bytes are vouched for"),
        ("Repr-Digest: sha-256=:AAAA:\r\n", "its bytes are vouched for"),
        ("Content-MD5: AAAA\r\n", "its bytes are vouched for"),
        ("Content-Type: image/png\r\n", "it has two types"),
    ] {
        let got = pass(&rules, "gzip", &text(lines, &body));
        assert_eq!(got.body, body.as_bytes(), "{why}");
        assert!(!got.head.contains("Accept-Encoding"), "{why}: {}", got.head);
    }
    for (first, why) in [
        ("HTTP/1.1 206 Partial Content\r\nContent-Type: text/plain\r\n", "a part"),
        ("HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n", "its type"),
        ("HTTP/1.1 200 OK\r\n", "no type"),
        ("HTTP/1.1 200 OK\r\nContent-Type: application/jsonx\r\n", "another type"),
    ] {
        let got = pass(&rules, "gzip", &format!("{first}Content-Length: {}\r\n\r\n{body}", body.len()));
        assert_eq!(got.body, body.as_bytes(), "{why}");
    }
    let short = pass(&rules, "gzip", &text("", "short"));
    assert_eq!((short.header("Content-Encoding"), short.header("Vary")), (None, None));
    let must = pass(&rules, "gzip, identity;q=0", &text("", "short"));
    assert_eq!(must.decoded(), b"short", "who cannot read it as it is gets it however short");
    for status in ["204 No Content", "304 Not Modified"] {
        let got = pass(&rules, "gzip", &format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\n\r\n"));
        assert_eq!((got.header("Content-Encoding"), got.body.len()), (None, 0), "{status}");
    }
    let weak = pass(&rules, "gzip", "HTTP/1.1 304 Not Modified\r\nETag: \"abc\"\r\n\r\n");
    assert_eq!((weak.header("ETag"), weak.header("Vary")), (Some("W/\"abc\""), Some("Accept-Encoding")));
    let failed = pass(&rules, "gzip", &text("", &body).replace("200 OK", "500 No"));
    assert_eq!(failed.decoded(), body.as_bytes(), "a failure's page is as long as any");
    assert_eq!(pass(&rules, "gzip", &text("Vary: *\r\n", &body)).header("Vary"), Some("*"));
}

#[test]
fn head_says_what_get_would() {
    let rules = rules("{}");
    let reply = format!("{TEXT}ETag: \"abc\"\r\nContent-Length: 5000\r\n\r\n");
    let got = pass_as(asked(true, Version::Http11), &rules, "gzip", &[reply.as_bytes()], false);
    assert_eq!((got.header("Content-Encoding"), got.header("ETag")), (Some("gzip"), Some("W/\"abc\"")));
    assert_eq!((got.header("Content-Length"), got.body.len(), got.stays), (None, 0, true));
    assert_eq!(got.header("Transfer-Encoding"), None);
}

#[test]
fn a_stream_goes_on_as_it_comes_and_keeps_its_trailers() {
    let rules = rules("{}");
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (limits, edits) = (Limits::default(), Edits::default());
    for coding in ["gzip", "br", "zstd"] {
        let choice = rules.choice([coding.as_bytes()].into_iter());
        let compress = Compress { rules: &rules, choice, encoders_max: 10 };
        let rules = Rules { compress: Some(compress), ..Rules::plain(&limits, &edits) };
        let mut exchange = Exchange::new(asked(false, Version::Http11), Framing::None);
        let (mut input, mut output) = (BytesMut::from(head), Outlet::default());
        exchange.download(&mut input, &mut output, &rules, &mut Fields::default()).expect("a head");
        let begin = output.len();
        for (chunk, so_far) in [("6\r\ndata1\n\r\n", "data1\n"), ("6\r\ndata2\n\r\n", "data1\ndata2\n")] {
            input.extend_from_slice(chunk.as_bytes());
            exchange.download(&mut input, &mut output, &rules, &mut Fields::default()).expect("an event");
            assert!(exchange.pause(&mut output).expect("memory"), "{coding}");
            assert!(!exchange.pause(&mut output).expect("memory"), "nothing more came");
            let body = [&bytes(&output)[begin..], b"0\r\n\r\n"].concat();
            let data = Got { head: String::new(), body, stays: true }.plain().0;
            assert_eq!(read_so_far(coding, &data), so_far, "{coding}");
        }
        input.extend_from_slice(b"0\r\nX-Sum: 7\r\n\r\n");
        exchange.download(&mut input, &mut output, &rules, &mut Fields::default()).expect("the end");
        let got = Got { head: String::new(), body: bytes(&output)[begin..].to_vec(), stays: true };
        let (data, trailers) = got.plain();
        assert_eq!(decoded(coding, &data), b"data1\ndata2\n");
        assert_eq!((trailers.as_str(), exchange.is_answered()), ("X-Sum: 7\r\n\r\n", true));
    }
}

/// What a reader can make of a coding's beginning.
fn read_so_far(coding: &str, data: &[u8]) -> String {
    let mut out = Vec::new();
    match coding {
        "gzip" => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(data).and_then(|()| decoder.flush()).expect("gzip");
            out.clone_from(decoder.get_ref());
        }
        "br" => {
            let mut decoder = brotli::DecompressorWriter::new(Vec::new(), 4096);
            decoder.write_all(data).and_then(|()| decoder.flush()).expect("br");
            out.clone_from(decoder.get_ref());
        }
        _ => {
            let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).expect("zstd");
            decoder.write_all(data).and_then(|()| decoder.flush()).expect("zstd");
            out.clone_from(decoder.get_ref());
        }
    }
    String::from_utf8(out).expect("text")
}

#[test]
fn a_body_that_ends_with_the_connection_ends_well_and_one_that_is_cut_does_not() {
    let rules = rules("{}");
    let reply = format!("{TEXT}\r\n{}", "words ".repeat(500));
    let whole = pass_as(asked(false, Version::Http11), &rules, "gzip", &[reply.as_bytes()], true);
    assert_eq!((whole.decoded().len(), whole.stays), (3000, true));

    let (limits, edits) = (Limits::default(), Edits::default());
    let compress =
        Compress { rules: &rules, choice: rules.choice([&b"gzip"[..]].into_iter()), encoders_max: 1 };
    let rules = Rules { compress: Some(compress), ..Rules::plain(&limits, &edits) };
    let mut exchange = Exchange::new(asked(false, Version::Http11), Framing::None);
    let (mut input, mut output) = (BytesMut::from(&*text("", &"x".repeat(2000))), Outlet::default());
    input.truncate(input.len() - 1);
    exchange.download(&mut input, &mut output, &rules, &mut Fields::default()).expect("most of it");
    exchange.server_closed(&input, &mut output).expect_err("some is missing");
    assert!(!bytes(&output).ends_with(b"0\r\n\r\n"), "half a body does not look like a whole one");
}

#[test]
fn no_more_are_compressed_at_once_than_may_be_and_each_place_is_given_back() {
    let rules = rules("{}");
    let reply = text("", &"words ".repeat(500));
    let (limits, edits) = (Limits::default(), Edits::default());
    let begin = || {
        let choice = rules.choice([&b"gzip"[..]].into_iter());
        let compress = Compress { rules: &rules, choice, encoders_max: 2 };
        let rules = Rules { compress: Some(compress), ..Rules::plain(&limits, &edits) };
        let mut exchange = Exchange::new(asked(false, Version::Http11), Framing::None);
        let (mut input, mut output) = (BytesMut::from(&reply.as_bytes()[..200]), Outlet::default());
        exchange.download(&mut input, &mut output, &rules, &mut Fields::default()).expect("a beginning");
        (exchange, String::from_utf8_lossy(&bytes(&output)).contains("Content-Encoding"))
    };
    let (one, two, three) = (begin(), begin(), begin());
    assert_eq!((one.1, two.1, three.1), (true, true, false));
    assert_eq!(rules.metrics.busy.get(), 1);
    drop(one);
    assert!(begin().1, "there is room again");
}

#[test]
fn much_of_it_is_done_in_turns() {
    let rules = rules("{}");
    let mut encoding = {
        let encoder = Encoder::new(Coding::Gzip, rules.levels).expect("memory");
        let place = rules.encoders.enter(1).expect("room");
        Encoding::new(encoder, Coding::Gzip, place, rules.metrics.clone(), false)
    };
    let mut output = BytesMut::new();
    assert!(!encoding.has_had_its_turn());
    encoding.put(&[7; 64 << 10], &mut output).expect("memory");
    assert!(encoding.has_had_its_turn() && !encoding.has_had_its_turn());
}

proptest! {
    #[test]
    fn what_comes_out_is_what_went_in(
        body in prop::collection::vec(any::<u8>(), 1..3000),
        cuts in prop::collection::vec(1..200_usize, 1..20),
        coding in 0..3_usize,
        chunked in any::<bool>(),
    ) {
        let (rules, coding) = (rules(r#"{"min_length": "1B"}"#), ["gzip", "br", "zstd"][coding]);
        let mut wire = TEXT.as_bytes().to_vec();
        if chunked {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for part in body.chunks(700) {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(&body);
        }
        let (mut pieces, mut rest) = (Vec::new(), &wire[..]);
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        let got = pass_as(asked(false, Version::Http11), &rules, coding, &pieces, false);
        prop_assert_eq!(got.decoded(), body);
    }
}
