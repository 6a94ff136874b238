//! Bytes of a client: no panic, no request lost or invented by the way the bytes are cut, and whatever is
//! understood takes bytes away.
#![no_main]

use bytes::BytesMut;
use groove_memcached::wire::request::DecodeError;
use groove_memcached::wire::{Decoder, Limits, Request};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { value_len_max: 300, line_len_max: 4096 };

fn decode(text: &[u8], step: usize) -> Vec<Result<Request, DecodeError>> {
    let (mut decoder, mut input, mut seen) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in text.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        loop {
            let before = input.len();
            match decoder.decode(&mut input, &LIMITS) {
                Ok(None) => break,
                Ok(Some(request)) => {
                    assert!(input.len() < before, "a request out of nothing");
                    seen.push(Ok(request));
                }
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

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    // Beyond this memcached itself looks at how the bytes were cut.
    if text.len() <= 2048 {
        assert_eq!(decode(text, usize::from(step)), decode(text, text.len()));
    } else {
        decode(text, usize::from(step));
    }
});
