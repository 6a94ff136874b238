//! Seeded simulations of the exchange: whatever order two peers speak in, each gets what the other sent.

use super::state::{Asked, Exchange, Fault, Phase, Rules};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::table::Table;
use crate::wire::scan::HeadScan;
use crate::wire::{Body, Edits, Fields, Framing, Limits, Malformed, Outlet, ReplyHead, Version};
use crate::worker::{Shared, Worker};
use bytes::BytesMut;
use groove_common::config::check_text;
use groove_common::telemetry::{AccessLog, Registry};
use groove_common::testing::{Dice, downstream, simulate};
use std::sync::Arc;

const ASKED: Asked = Asked {
    version: Version::Http11,
    is_head: false,
    keeps_alive: true,
    may_replay: true,
    is_idempotent: true,
    offered: None,
};

/// What a peer sends for a body: on the wire, and what it means.
struct Message {
    wire: Vec<u8>,
    data: Vec<u8>,
    framing: Framing,
}

fn message(dice: &mut Dice, may_close: bool) -> Message {
    let data: Vec<u8> = (0..dice.below(200)).map(|_| dice.roll().to_le_bytes()[0]).collect();
    match dice.below(if may_close { 4 } else { 3 }) {
        0 => Message { wire: Vec::new(), data: Vec::new(), framing: Framing::None },
        1 => Message { wire: data.clone(), framing: Framing::Length(data.len() as u64), data },
        2 => {
            let mut wire = Vec::new();
            for part in data.chunks(dice.below(60) + 1) {
                wire.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
                wire.extend_from_slice(part);
                wire.extend_from_slice(b"\r\n");
            }
            let trailer = if dice.chance(1, 2) { "X-Sum: 1\r\n" } else { "" };
            wire.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            Message { wire, data, framing: Framing::Chunked }
        }
        _ => Message { wire: data.clone(), data, framing: Framing::Close },
    }
}

fn head(framing: Framing) -> String {
    let fields = match framing {
        Framing::None => "Content-Length: 0\r\n".to_owned(),
        Framing::Length(length) => format!("Content-Length: {length}\r\n"),
        Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
        Framing::Close => String::new(),
    };
    format!("HTTP/1.1 200 OK\r\nX-Order: 1\r\n{fields}\r\n")
}

/// The interim heads, the final head and the data of what a client was sent.
fn understood(mut bytes: &[u8]) -> (Vec<u16>, u16, Vec<u8>, bool) {
    let (limits, mut interims) = (Limits::default(), Vec::new());
    loop {
        let mut fields = Fields::default();
        let length = HeadScan::default().advance(bytes, &limits).expect("a head").expect("a whole head");
        let head = ReplyHead::parse(&bytes[..length], false, &limits, &mut fields).expect("a good head");
        bytes = &bytes[length..];
        if head.is_interim() {
            interims.push(head.status);
            continue;
        }
        let (mut data, mut body) = (Vec::new(), Body::new(head.framing));
        let taken = body.advance(bytes, &limits, |run| data.extend_from_slice(run)).expect("a good body");
        assert_eq!(taken, bytes.len(), "nothing follows the reply");
        assert!(body.closed(), "the body is complete");
        return (interims, head.status, data, head.keeps_alive());
    }
}

#[test]
fn each_side_gets_what_the_other_sent_in_whatever_order() {
    simulate(2000, |dice| {
        let limits = Limits::default();
        let (request, reply) = (message(dice, false), message(dice, true));
        let version = if dice.chance(1, 4) { Version::Http10 } else { Version::Http11 };
        let asked = Asked { version, keeps_alive: dice.chance(3, 4), ..ASKED };
        let interims = dice.below(3);
        let mut from_server = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(interims);
        from_server.extend_from_slice(head(reply.framing).as_bytes());
        from_server.extend_from_slice(&reply.wire);
        let mut from_client = request.wire.clone();
        from_client.extend_from_slice(b"GET /next");

        let mut exchange = Exchange::new(asked.clone(), request.framing);
        let (mut inbox, mut to_server) = (BytesMut::new(), BytesMut::new());
        let (mut incoming, mut to_client) = (BytesMut::new(), Outlet::default());
        let (mut sent_up, mut sent_down) = (0, 0);
        let (edits, mut fields) = (Edits::default(), Fields::default());
        let rules = Rules::plain(&limits, &edits);
        let mut early = false;
        while sent_down < from_server.len() || sent_up < from_client.len() {
            if dice.chance(1, 2) {
                let end = (sent_up + dice.below(50)).min(from_client.len());
                inbox.extend_from_slice(&from_client[sent_up..end]);
                sent_up = end;
                exchange
                    .upload(&mut inbox, &mut to_server, &limits, &Edits::default())
                    .expect("a good upload");
            } else {
                let end = (sent_down + dice.below(50)).min(from_server.len());
                incoming.extend_from_slice(&from_server[sent_down..end]);
                sent_down = end;
                let was_begun = exchange.is_begun();
                exchange.download(&mut incoming, &mut to_client, &rules, &mut fields).expect("a good reply");
                early |= exchange.is_begun() && !was_begun && !exchange.is_uploaded();
            }
        }
        if reply.framing == Framing::Close {
            exchange.server_closed(&incoming, &mut to_client).expect("the close is the end");
        }
        assert!(exchange.is_uploaded() && exchange.is_answered());
        assert_eq!(&to_server[..], &request.wire[..], "the request's body goes on as it came");
        assert_eq!(&inbox[..], b"GET /next", "what follows it stays");
        let (seen_interims, status, data, said_keep) = understood(&whole(&to_client));
        assert_eq!((status, &data), (200, &reply.data));
        assert_eq!(seen_interims.len(), if version == Version::Http11 { interims } else { 0 });
        assert_eq!(exchange.keeps_client(), said_keep, "what is done is what was said");
        assert!(!exchange.keeps_client() || (asked.keeps_alive && !early));
        assert_eq!(exchange.keeps_server(), reply.framing != Framing::Close);
    });
}

#[test]
fn a_server_that_leaves_early_is_never_taken_for_done() {
    simulate(1000, |dice| {
        let limits = Limits::default();
        let reply = message(dice, false);
        let mut from_server = head(reply.framing).into_bytes();
        from_server.extend_from_slice(&reply.wire);
        let cut = dice.below(from_server.len());
        let mut exchange = Exchange::new(ASKED, Framing::None);
        let (mut incoming, mut to_client) = (BytesMut::from(&from_server[..cut]), Outlet::default());
        let (edits, mut fields) = (Edits::default(), Fields::default());
        let rules = Rules::plain(&limits, &edits);
        exchange.download(&mut incoming, &mut to_client, &rules, &mut fields).expect("good so far");
        let fault = exchange.server_closed(&incoming, &mut to_client);
        assert_eq!(fault, Err(if cut == 0 { Fault::Unanswered } else { Fault::Cut }));
        assert_eq!(exchange.may_replay(), !exchange.is_begun());
    });
}

fn whole(outlet: &Outlet) -> Vec<u8> {
    [&outlet.head[..], &outlet.body[..]].concat()
}

fn answered(asked: Asked, reply: &str, draining: bool) -> (Result<(), Fault>, Exchange, String) {
    let mut exchange = Exchange::new(asked, Framing::None);
    let (mut incoming, mut out, mut fields) = (BytesMut::from(reply), Outlet::default(), Fields::default());
    let (limits, edits) = (Limits::default(), Edits::default());
    let rules = Rules { draining, ..Rules::plain(&limits, &edits) };
    let result = exchange.download(&mut incoming, &mut out, &rules, &mut fields);
    (result, exchange, String::from_utf8_lossy(&whole(&out)).into_owned())
}

#[test]
fn a_drain_says_goodbye_with_the_reply() {
    let (_, exchange, text) = answered(ASKED, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na", true);
    assert!(
        text.contains("\r\nConnection: close\r\n") && !exchange.keeps_client() && exchange.keeps_server()
    );
}

#[test]
fn what_follows_a_reply_spoils_the_servers_connection_only() {
    let (result, exchange, text) =
        answered(ASKED, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\n\r\n", false);
    assert_eq!(result, Ok(()));
    assert!(text.ends_with("\r\n\r\na"), "{text}");
    assert!(exchange.keeps_client() && !exchange.keeps_server());
}

#[test]
fn a_switch_must_have_been_asked_for() {
    let reply = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nping";
    let offering = |offered: &str| Asked { offered: Some(offered.as_bytes().into()), ..ASKED };
    for asked in [ASKED, offering("h3"), offering("web, socket")] {
        let (result, _, _) = answered(asked, reply, false);
        assert_eq!(result, Err(Fault::Reply(Malformed::UpgradeMisplaced)));
    }
    let nothing = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: ,\r\n\r\n";
    assert_eq!(answered(offering("h3"), nothing, false).0, Err(Fault::Reply(Malformed::UpgradeMisplaced)));
    let (result, exchange, text) = answered(offering("h3, WebSocket"), reply, false);
    assert_eq!(result, Ok(()));
    assert!(exchange.is_switched() && exchange.is_answered());
    assert!(text.ends_with("Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"), "{text}");
}

#[test]
fn interim_replies_are_counted() {
    let endless = "HTTP/1.1 102 Processing\r\n\r\n".repeat(40);
    let (result, exchange, _) = answered(ASKED, &endless, false);
    assert_eq!(result, Err(Fault::Reply(Malformed::InterimMisplaced)));
    assert!(!exchange.is_begun() && !exchange.may_replay());
}

#[test]
fn the_phases_follow_the_messages() {
    let mut exchange = Exchange::new(ASKED, Framing::Length(2));
    assert_eq!(exchange.phase(), Phase::Upload);
    let (mut inbox, mut out) = (BytesMut::from("ab"), BytesMut::new());
    exchange.upload(&mut inbox, &mut out, &Limits::default(), &Edits::default()).expect("two bytes");
    assert_eq!(exchange.phase(), Phase::FirstByte);
    let (_, exchange, _) = answered(ASKED, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", false);
    assert_eq!(exchange.phase(), Phase::Download);
}

#[tokio::test]
async fn a_session_that_waits_is_small() {
    let (conn, _client, _drain) = downstream().expect("a connection");
    let registry = Registry::new(1);
    let access = AccessLog::start(&registry, std::io::sink()).expect("a log");
    let text = "listeners: [{address: 127.0.0.1:1}]\napps: {a: {hosts: [a.test], endpoints: [127.0.0.1:9]}}";
    let config: Config = check_text("http.yaml", text).expect("a good configuration");
    let shared = Shared::new(
        Table::build(&config, None, &registry).expect("a table"),
        Arc::default(),
        Metrics::new(&registry),
        access,
    );
    let session = super::driver::serve(Worker::new(Arc::new(shared)), conn);
    let bytes = std::mem::size_of_val(&session);
    assert!(bytes <= 336, "{bytes} bytes for each idle client");
}
