//! The chunked coding: the verdict and the data are the same however the bytes come in, and what is taken as whole
//! has no byte too many.
#![no_main]

use groove_http::wire::chunked::Chunked;
use groove_http::wire::{Limits, Malformed};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], step: usize) -> Result<(usize, bool, Vec<u8>), Malformed> {
    let (mut chunked, mut taken, mut data) = (Chunked::default(), 0, Vec::new());
    for part in bytes.chunks(step) {
        taken += chunked.advance(part, &Limits::default(), |run| data.extend_from_slice(run))?;
    }
    Ok((taken, chunked.is_done(), data))
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    assert_eq!(whole, read(bytes, 1));
    if let Ok((taken, true, data)) = whole {
        assert!(bytes[..taken].ends_with(b"\r\n"));
        assert_eq!(read(&bytes[..taken], 3), Ok((taken, true, data)));
    }
});
