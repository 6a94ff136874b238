//! The head of a copy. Pure.

use bytes::{BufMut, BytesMut};

/// What Envoy puts behind the host of a copy.
const MARK: &[u8] = b"-shadow";

/// Writes the head of a copy: what its request's server gets, but for an expectation, which nobody waits for.
pub(super) fn put(head: &[u8], marks_host: bool, out: &mut BytesMut) {
    out.reserve(head.len() + MARK.len());
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"expect") && name.len() < line.len() {
            continue;
        }
        if marks_host && name.eq_ignore_ascii_case(b"host") {
            put_marked(line, out);
        } else {
            out.put_slice(line);
        }
    }
}

/// The mark stands before a port.
fn put_marked(line: &[u8], out: &mut BytesMut) {
    let end = line.strip_suffix(b"\r\n").map_or(line.len(), <[u8]>::len);
    let value_at = memchr::memchr(b':', line).map_or(0, |colon| colon + 1);
    let value = line.get(value_at..end).unwrap_or_default();
    // An IPv6 address has colons of its own; a mark behind it would make no host of it.
    let is_address = value.trim_ascii().first() == Some(&b'[');
    let port = memchr::memchr(b':', value).map_or(value.len(), |colon| colon);
    let at = value_at + if is_address { 0 } else { port };
    out.put_slice(line.get(..at).unwrap_or_default());
    if !is_address {
        out.put_slice(MARK);
    }
    out.put_slice(line.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(head: &str, marks_host: bool) -> String {
        let mut out = BytesMut::new();
        put(head.as_bytes(), marks_host, &mut out);
        String::from_utf8(out.to_vec()).expect("text")
    }

    #[test]
    fn a_copy_says_what_its_request_says_but_expects_nothing() {
        let head = "POST /expect: HTTP/1.1\r\nHost: a.test:80\r\nexpect: 100-continue\r\nX-Expect: 1\r\n\r\n";
        let kept = "POST /expect: HTTP/1.1\r\nHost: a.test:80\r\nX-Expect: 1\r\n\r\n";
        assert_eq!(copied(head, false), kept);
        assert_eq!(copied(head, true), kept.replace("a.test:80", "a.test-shadow:80"));
    }

    #[test]
    fn the_mark_makes_no_nonsense_of_a_host() {
        for (host, marked) in
            [("a.test", "a.test-shadow"), ("a.test:8080", "a.test-shadow:8080"), ("[::1]:80", "[::1]:80")]
        {
            let head = |host: &str| format!("GET / HTTP/1.1\r\nHOST: {host}\r\n\r\n");
            assert_eq!(copied(&head(host), true), head(marked));
        }
    }
}
