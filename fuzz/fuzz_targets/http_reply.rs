//! An exchange with a server that sends anything: no panic, nothing beyond the bounds, and the same outcome however
//! the bytes come in.
#![no_main]

use bytes::BytesMut;
use groove_http::session::state::{Asked, Exchange, Fault, Rules};
use groove_http::wire::{Edits, Fields, Framing, Limits, Version};
use libfuzzer_sys::fuzz_target;

fn outcome(bytes: &[u8], step: usize, asked: Asked) -> (Result<(), Fault>, Vec<u8>, Option<u16>) {
    let (limits, edits, mut fields) = (Limits::default(), Edits::default(), Fields::default());
    let rules = Rules::plain(&limits, &edits);
    let mut exchange = Exchange::new(asked, Framing::None);
    let (mut incoming, mut out) = (BytesMut::new(), BytesMut::new());
    for part in bytes.chunks(step) {
        incoming.extend_from_slice(part);
        if let Err(fault) = exchange.download(&mut incoming, &mut out, &rules, &mut fields) {
            return (Err(fault), Vec::new(), exchange.status());
        }
    }
    let closed = exchange.server_closed(&incoming, &mut out);
    (closed, out.to_vec(), exchange.status())
}

fuzz_target!(|input: (bool, &[u8])| {
    let (is_head, bytes) = input;
    // A body that ends with the connection is chunked as it comes in, so only HTTP/1.0 gets it in the same bytes.
    let asked = Asked {
        version: Version::Http10,
        is_head,
        keeps_alive: true,
        may_replay: true,
        is_idempotent: true,
        offered: None,
    };
    assert_eq!(outcome(bytes, bytes.len().max(1), asked.clone()), outcome(bytes, 1, asked));
});
