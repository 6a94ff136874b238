//! Logging in as with `memcached -Y`: the first command is a `set` of any key whose value is `user password`.
//! Every other command is answered with an error until then.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr;

use super::{Credentials, Heard};

/// A longer line without an end is no command.
const LINE_LEN_MAX: usize = 2048;

/// A user and a password are not longer than this.
const VALUE_LEN_MAX: usize = 2048;

/// Told whoever asks for anything else.
pub(super) const UNAUTHENTICATED: &[u8] = b"CLIENT_ERROR unauthenticated\r\n";
const BAD_END: Bytes = Bytes::from_static(b"CLIENT_ERROR bad command line termination\r\n");
const BAD_FORMAT: Bytes = Bytes::from_static(b"CLIENT_ERROR bad authentication token format\r\n");

/// Told once the credentials were right.
pub(super) const RIGHT: Bytes = Bytes::from_static(b"STORED\r\n");
/// Told when they were not.
pub(super) const WRONG: Bytes = Bytes::from_static(b"CLIENT_ERROR authentication failure\r\n");

/// Takes one command off the front of `input`; `None` if more bytes are needed.
pub(super) fn decode(input: &mut BytesMut) -> Option<Heard> {
    let Some(feed) = memchr(b'\n', input) else {
        return (input.len() > LINE_LEN_MAX).then_some(Heard::Hangup(Bytes::new()));
    };
    let line = input.get(..feed).unwrap_or_default();
    let Some(value_len) = value_len(line) else {
        input.advance(feed + 1);
        return Some(Heard::Told(Bytes::from_static(UNAUTHENTICATED)));
    };
    if value_len > VALUE_LEN_MAX {
        return Some(Heard::Hangup(BAD_FORMAT));
    }
    let end = feed + 1 + value_len + 2;
    if input.len() < end {
        return None;
    }
    let value = input.split_to(end).freeze().slice(feed + 1..);
    let Some(words) = value.strip_suffix(b"\r\n") else { return Some(Heard::Told(BAD_END)) };
    let mut words = words.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    Some(match (words.next(), words.next()) {
        (Some(user), Some(password)) => {
            Heard::Credentials(Credentials { user: copy(user), password: copy(password) })
        }
        (_, _) => Heard::Told(BAD_FORMAT),
    })
}

fn copy(word: &[u8]) -> Bytes {
    Bytes::copy_from_slice(word)
}

/// The length in `set <anything> <anything> <anything> <length>`, whatever follows it.
fn value_len(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    if words.next() != Some(b"set") {
        return None;
    }
    let digits = words.nth(3)?;
    if digits.is_empty() || digits.len() > 10 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> (Option<Heard>, usize) {
        let mut input = BytesMut::from(bytes);
        let heard = decode(&mut input);
        (heard, input.len())
    }

    fn credentials(user: &'static str, password: &'static str) -> Option<Heard> {
        let (user, password) = (Bytes::from(user), Bytes::from(password));
        Some(Heard::Credentials(Credentials { user, password }))
    }

    #[test]
    fn a_set_tells_who_it_is() {
        for text in [
            "set a 0 0 11\r\nshop secret\r\n",
            "set a b c 11\nshop secret\r\n",
            "set a 0 0 11 noreply\r\nshop secret\r\n",
            "set a 0 0 15\r\nshop secret foo\r\n",
            "  set a  0 0 14\r\n shop  secret \r\n",
        ] {
            assert_eq!(heard(text.as_bytes()), (credentials("shop", "secret"), 0), "{text}");
        }
        assert_eq!(heard(b"set a 0 0 3\r\na b\r\nget a\r\n"), (credentials("a", "b"), 7));
    }

    #[test]
    fn nothing_else_is_served() {
        for text in [
            "get a\r\n",
            "mn\r\n",
            "quit\r\n",
            "\r\n",
            "\n",
            "add a 0 0 3\r\n",
            "set a 0 0\r\n",
            "set a 0 0 x\r\n",
            "set a 0 0 -1\r\n",
            "set a 0 0 3x\r\n",
            "set a 0 0 99999999999\r\n",
        ] {
            assert_eq!(
                heard(text.as_bytes()),
                (Some(Heard::Told(Bytes::from_static(UNAUTHENTICATED))), 0),
                "{text}"
            );
        }
        assert_eq!(heard(b"set a 0 0 4\r\nshop\r\n").0, Some(Heard::Told(BAD_FORMAT)));
        assert_eq!(heard(b"set a 0 0 3\r\na bxx").0, Some(Heard::Told(BAD_END)));
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(heard(&[b'x'; 2048]).0, None);
        assert_eq!(heard(&[b'x'; 2049]).0, Some(Heard::Hangup(Bytes::new())));
        assert_eq!(heard(b"set a 0 0 2049\r\n").0, Some(Heard::Hangup(BAD_FORMAT)));
    }

    #[test]
    fn byte_by_byte_is_the_same() {
        let text = b"set a 0 0 11\r\nshop secret\r\n";
        let mut input = BytesMut::new();
        for byte in &text[..text.len() - 1] {
            input.extend_from_slice(&[*byte]);
            assert_eq!(decode(&mut input), None);
        }
        input.extend_from_slice(b"\n");
        assert_eq!(decode(&mut input), credentials("shop", "secret"));
    }
}
