//! A request's head: what is taken is written so that it is taken again and means the same, and however the bytes come
//! in, the verdict is one.
#![no_main]

use bytes::BytesMut;
use groove_http::wire::scan::HeadScan;
use groove_http::wire::{Edits, Fields, Hop, Limits, Malformed, Node, RequestHead, Says, render};
use libfuzzer_sys::fuzz_target;

fn end(bytes: &[u8], step: usize, limits: &Limits) -> Result<Option<usize>, Malformed> {
    let (mut scan, mut seen) = (HeadScan::default(), 0);
    while seen < bytes.len() {
        seen = (seen + step).min(bytes.len());
        if let Some(length) = scan.advance(&bytes[..seen], limits)? {
            return Ok(Some(length));
        }
    }
    Ok(None)
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    let found = end(bytes, bytes.len().max(1), &limits);
    assert_eq!(found, end(bytes, 1, &limits));
    let Ok(Some(length)) = found else { return };
    let mut fields = Fields::default();
    let Ok(head) = RequestHead::parse(&bytes[..length], &limits, &mut fields) else { return };
    let hop = Hop {
        says: &Says {
            forwarded: Some(Node::Address),
            x_real_ip: true,
            x_forwarded_port: true,
            ..Says::default()
        },
        client: b"192.0.2.1",
        real_ip: b"192.0.2.1",
        scheme: b"http",
        port: 80,
        trusted: false,
        via: b"groove",
        is_http2: false,
        request_id: b"1",
        trace: None,
        trace_continues: false,
    };
    let mut out = BytesMut::new();
    render::request(&head, &hop, &Edits::default(), &mut out);
    let wide = Limits { head_bytes: 1 << 20, target_bytes: 1 << 20, fields: 128, ..limits };
    let mut again_fields = Fields::default();
    match RequestHead::parse(&out, &wide, &mut again_fields) {
        Ok(again) => {
            assert_eq!((again.method, again.target), (head.method, head.target));
            assert_eq!(again.framing, head.framing);
        }
        // Our own fields may be one too many for the reader.
        Err(Malformed::HeadTooLong) => {}
        Err(error) => panic!("{error} in {:?}", String::from_utf8_lossy(&out)),
    }
});
