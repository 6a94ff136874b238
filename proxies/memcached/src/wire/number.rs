//! Numbers as memcached reads and writes them: C's `strtol` and its kin, with its own checks on top.

/// Reads an unsigned 64-bit number as `safe_strtoull` does.
///
/// White space may come before it and, with anything behind, after it. A minus sign is taken as C does
/// (`-18446744073709551615` is 1) unless the result looks negative.
pub fn unsigned(token: &[u8]) -> Option<u64> {
    let number = Number::scan(token)?;
    let value = if number.negative { number.magnitude.wrapping_neg() } else { number.magnitude };
    // memcached's cast asks "would this be negative as a signed number?".
    let looks_negative = value > i64::MAX as u64;
    (!looks_negative || !token.contains(&b'-')).then_some(value)
}

/// Reads client flags as `safe_strtoul` does: 64 bits are read, the lower 32 are kept.
pub fn flags(token: &[u8]) -> Option<u32> {
    let bits = unsigned(token)? & u64::from(u32::MAX);
    u32::try_from(bits).ok()
}

/// Reads a signed number as `safe_strtol` does: 64 bits are read, the lower 32 are kept.
pub fn signed(token: &[u8]) -> Option<i32> {
    let number = Number::scan(token)?;
    let value = match number.negative {
        false => i64::try_from(number.magnitude).ok()?,
        true => 0i64.checked_sub_unsigned(number.magnitude)?,
    };
    // The C code stores a long into an int32_t: the upper half is dropped.
    let bytes = value.to_le_bytes();
    Some(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// Writes `value` in decimal at the end of `out`.
pub fn write(value: u64, out: &mut bytes::BytesMut) {
    write_between(b"", value, b"", out);
}

/// The same with what stands before and behind it, all with one append.
pub fn write_between<const B: usize, const A: usize>(
    before: &[u8; B],
    mut value: u64,
    behind: &[u8; A],
    out: &mut bytes::BytesMut,
) {
    const { assert!(A + B <= 12, "there is no room for so much") };
    let mut text = [0u8; 32];
    let mut at = text.len() - A;
    if let Some(place) = text.get_mut(at..) {
        place.copy_from_slice(behind);
    }
    loop {
        at -= 1;
        if let (Some(place), Ok(digit)) = (text.get_mut(at), u8::try_from(value % 10)) {
            *place = b'0' + digit;
        }
        value /= 10;
        if value == 0 {
            break;
        }
    }
    at -= B;
    if let Some(place) = text.get_mut(at..at + B) {
        place.copy_from_slice(before);
    }
    out.extend_from_slice(text.get(at..).unwrap_or_default());
}

struct Number {
    negative: bool,
    magnitude: u64,
}

impl Number {
    /// The part that all the C functions share: space, sign, digits, and an end that is space or nothing.
    fn scan(token: &[u8]) -> Option<Self> {
        let start = token.iter().position(|byte| !is_space(*byte))?;
        let mut rest = token.get(start..)?;
        let negative = match rest.first() {
            Some(b'-') => true,
            Some(b'+') => false,
            _ => {
                return Self::digits(rest, false);
            }
        };
        rest = rest.get(1..)?;
        Self::digits(rest, negative)
    }

    fn digits(text: &[u8], negative: bool) -> Option<Self> {
        let len = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
        if len == 0 || text.get(len).is_some_and(|byte| !is_space(*byte)) {
            return None;
        }
        let mut magnitude = 0u64;
        for digit in text.get(..len)? {
            magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        }
        Some(Self { negative, magnitude })
    }
}

/// C's `isspace`.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_numbers_follow_the_c_library() {
        assert_eq!(unsigned(b"0"), Some(0));
        assert_eq!(unsigned(b"+7"), Some(7));
        assert_eq!(unsigned(b"\t7\tx"), Some(7));
        assert_eq!(unsigned(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(unsigned(b"18446744073709551616"), None);
        assert_eq!(unsigned(b"-1"), None);
        assert_eq!(unsigned(b"-18446744073709551615"), Some(1));
        for bad in [&b""[..], b"-", b"x", b"7x", b" ", b"--7"] {
            assert_eq!(unsigned(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn narrow_numbers_drop_their_upper_half() {
        assert_eq!(flags(b"4294967296"), Some(0));
        assert_eq!(flags(b"18446744073709551615"), Some(u32::MAX));
        assert_eq!(signed(b"2147483648"), Some(i32::MIN));
        assert_eq!(signed(b"-1"), Some(-1));
        assert_eq!(signed(b"99999999999999999"), Some(1_569_325_055));
        assert_eq!(signed(b"9223372036854775808"), None);
        assert_eq!(signed(b"-9223372036854775808"), Some(0));
    }

    #[test]
    fn writing_is_the_inverse_of_reading() {
        for value in [0, 9, 10, 12345, u64::from(u32::MAX), u64::MAX] {
            let mut out = bytes::BytesMut::new();
            write(value, &mut out);
            assert_eq!(out, value.to_string());
            write_between(b" s", value, b"\r\n", &mut out);
            assert_eq!(out, format!("{value} s{value}\r\n"));
        }
    }
}
