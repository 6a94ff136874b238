//! Keys in base64, as lenient as memcached is about them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest key whose base64 is still a key.
pub const KEY_LEN_MAX: usize = super::super::KEY_LEN_MAX / 4 * 3;

/// Appends a key in base64.
pub fn encode(key: &[u8], out: &mut impl for<'a> Extend<&'a u8>) {
    let mut text = [0; KEY_LEN_MAX.div_ceil(3) * 4];
    match STANDARD.encode_slice(key, &mut text) {
        Ok(len) => out.extend(text.get(..len).unwrap_or_default()),
        // Longer than any key that is let in.
        Err(_) => out.extend(STANDARD.encode(key).as_bytes()),
    }
}

/// The bytes of a key. Letters that are none are passed over, and padding ends it.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let letters = text.iter().filter_map(|byte| Some((*byte, sextet(*byte)?)));
    let count = letters.clone().count();
    if count == 0 || !count.is_multiple_of(4) {
        return None;
    }
    let mut key = Vec::with_capacity(count / 4 * 3);
    let (mut block, mut filled, mut padding) = (0u32, 0, 0);
    for (byte, bits) in letters {
        padding += usize::from(byte == b'=');
        block = block << 6 | u32::from(bits);
        filled += 1;
        if filled == 4 {
            let [_, bytes @ ..] = block.to_be_bytes();
            key.extend_from_slice(bytes.get(..3usize.checked_sub(padding).filter(|len| *len > 0)?)?);
            if padding > 0 {
                break;
            }
            (block, filled) = (0, 0);
        }
    }
    Some(key)
}

fn sextet(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        b'=' => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_memcached_takes_for_base64() {
        assert_eq!(decode(b"Zm9v").as_deref(), Some(&b"foo"[..]));
        assert_eq!(decode(b"Zm8=").as_deref(), Some(&b"fo"[..]));
        assert_eq!(decode(b"Zg==").as_deref(), Some(&b"f"[..]));
        assert_eq!(decode(b"Zm\t9v!").as_deref(), Some(&b"foo"[..]));
        assert_eq!(decode(b"Zg==Zm9v").as_deref(), Some(&b"f"[..]));
        for bad in [&b""[..], b"Z", b"Zm9", b"Z===", b"====", b"!!"] {
            assert_eq!(decode(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_is_the_inverse_of_encoding(key in prop::collection::vec(any::<u8>(), 1..=KEY_LEN_MAX)) {
            let mut text = BytesMut::new();
            encode(&key, &mut text);
            prop_assert!(text.len() <= crate::wire::KEY_LEN_MAX);
            prop_assert_eq!(decode(&text), Some(key));
        }
    }
}
