//! Walking through DER (X.690): certificates, public keys. Nothing is believed about lengths.

/// A sequence.
pub const SEQUENCE: u8 = 0x30;
/// A set.
pub const SET: u8 = 0x31;
/// An object identifier.
pub const OID: u8 = 0x06;
/// An integer.
pub const INTEGER: u8 = 0x02;
/// A string of bits, the first byte of which says how many of the last are none.
pub const BIT_STRING: u8 = 0x03;

/// The content of the element that `der` begins with if it has this tag, and what follows the element.
pub fn expect(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    element(der).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

/// Tag, content and what follows. Lengths take up to four bytes: no certificate is longer.
pub fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, short], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
