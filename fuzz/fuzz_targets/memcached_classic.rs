//! Bytes of a memcached heard by a classic client: no panic, and the same frames however they are cut.
#![no_main]

use bytes::BytesMut;
use groove_memcached::wire::Limits;
use groove_memcached::wire::classic::{DecodeError, Frame, decode};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { value_len_max: 300, line_len_max: 4096 };

fn frames(text: &[u8], step: usize) -> Result<Vec<Frame>, DecodeError> {
    let (mut input, mut frames) = (BytesMut::new(), Vec::new());
    for piece in text.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        while let Some(frame) = decode(&mut input, &LIMITS)? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    if let Ok(whole) = frames(text, text.len()) {
        assert_eq!(frames(text, usize::from(step)), Ok(whole));
    }
});
