//! Bytes of a server: no panic, and the same replies however the bytes are cut.
#![no_main]

use bytes::BytesMut;
use groove_memcached::wire::Limits;
use groove_memcached::wire::classic::{self, items};
use groove_memcached::wire::meta::{DecodeError, Decoder, Reply};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { value_len_max: 300, line_len_max: 4096 };

fn decode(text: &[u8], step: usize) -> Result<Vec<Reply>, DecodeError> {
    let (mut decoder, mut input, mut replies) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in text.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        while let Some(reply) = decoder.decode(&mut input, &LIMITS)? {
            for name in b"kfcst" {
                let _argument = reply.flag(*name);
            }
            replies.push(reply);
        }
    }
    Ok(replies)
}

/// The answer to a retrieval of several keys.
fn decode_items(text: &[u8], step: usize) -> Result<Option<items::Answer>, classic::DecodeError> {
    let (mut decoder, mut input, mut keys) =
        (items::Decoder::default(), BytesMut::new(), items::Keys::default());
    [&b"a"[..], b"b", b"a"].into_iter().for_each(|key| keys.push(key));
    for piece in text.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        if let Some(answer) = decoder.decode(&mut input, &keys, &LIMITS)? {
            return Ok(Some(answer));
        }
    }
    Ok(None)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    if let Ok(Some(answer)) = decode_items(text, text.len())
        && text.len() <= 2048
    {
        assert_eq!(decode_items(text, usize::from(step)), Ok(Some(answer)));
    }
    if let Ok(replies) = decode(text, text.len()) {
        if text.len() <= 2048 {
            assert_eq!(decode(text, usize::from(step)).as_ref(), Ok(&replies));
        }
        for reply in replies {
            assert_eq!(reply.clone().detached(), reply);
        }
    }
});
