//! The client behind the proxies that are trusted: read from the right, as each hop vouches only for the one before it.

use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// The client's address. `hops` are what X-Forwarded-For (or the `for` of Forwarded) lists, the nearest first; they are
/// believed for as long as those who wrote them are `trusted`. `peer` is who is connected to us, trusted itself.
pub fn client<'a>(
    peer: IpAddr,
    hops: impl Iterator<Item = &'a [u8]>,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let mut client = peer;
    for hop in hops {
        // What is no address was hidden on purpose, or is nonsense: nobody behind it can be known.
        let Some(address) = node(hop) else { break };
        client = address;
        if !trusted(address) {
            break;
        }
    }
    client
}

/// An address as X-Forwarded-For and Forwarded write it: bare, with a port, IPv6 in brackets or not.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let address = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().map(IpAddr::V6).ok(),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().map(|socket| socket.ip()).ok()),
    };
    address.map(|address| address.to_canonical())
}

/// The `for` of each element of a Forwarded value (RFC 7239, 4), in the order they stand. An element without one gives
/// nothing that is an address.
pub fn forwarded_for(value: &[u8]) -> SmallVec<[&[u8]; 4]> {
    let mut found = SmallVec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (element, after) = cut(rest, b',');
        rest = after;
        let (mut pairs, mut node) = (element, &b""[..]);
        while !pairs.is_empty() {
            let (pair, after) = cut(pairs, b';');
            pairs = after;
            let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
            let (name, value) = pair.split_at_checked(at).unwrap_or_default();
            if name.trim_ascii().eq_ignore_ascii_case(b"for") {
                let value = value.get(1..).unwrap_or_default().trim_ascii();
                let bare = value.strip_prefix(b"\"").and_then(|it| it.strip_suffix(b"\""));
                node = bare.unwrap_or(value);
            }
        }
        found.push(node);
    }
    found
}

/// What stands before the first `mark` outside of quotes, and what behind it.
fn cut(text: &[u8], mark: u8) -> (&[u8], &[u8]) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            found if *found == mark && !quoted => {
                let (before, after) = text.split_at_checked(at).unwrap_or_default();
                return (before, after.get(1..).unwrap_or_default());
            }
            _ => {}
        }
    }
    (text, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client, where 10.0.0.0/8 and fd00::/8 are trusted and 10.0.0.1 is connected to us.
    fn found(value: &str) -> String {
        let trusted = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 10,
            IpAddr::V6(ip) => ip.octets()[0] == 0xfd,
        };
        client("10.0.0.1".parse().expect("an address"), value.as_bytes().rsplit(|b| *b == b','), trusted)
            .to_string()
    }

    #[test]
    fn the_right_most_that_is_not_trusted_is_the_client() {
        for (value, want) in [
            ("203.0.113.9", "203.0.113.9"),
            ("203.0.113.9, 10.0.0.2", "203.0.113.9"),
            // What the client itself wrote stands further left, and is not looked at.
            ("1.1.1.1, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),
            ("203.0.113.9:4711,10.0.0.2", "203.0.113.9"),
            ("[2001:db8::1]:4711, fd00::1", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            // Hidden, or nonsense: the last that is known.
            ("203.0.113.9, unknown, 10.0.0.2", "10.0.0.2"),
            ("nonsense", "10.0.0.1"),
            ("", "10.0.0.1"),
        ] {
            assert_eq!(found(value), want, "{value}");
        }
    }

    #[test]
    fn the_elements_of_forwarded_are_told_apart() {
        let read = |value: &str| {
            forwarded_for(value.as_bytes())
                .iter()
                .map(|it| String::from_utf8_lossy(it).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(read("for=192.0.2.60;proto=http;by=203.0.113.43"), ["192.0.2.60"]);
        assert_eq!(read("For=\"[2001:db8::1]:47\" , for=_hidden"), ["[2001:db8::1]:47", "_hidden"]);
        assert_eq!(read("host=\"a,for=6.6.6.6\";for=192.0.2.1, proto=http"), ["192.0.2.1", ""]);
        assert_eq!(read("by=\"\\\",\"; for=192.0.2.1"), ["192.0.2.1"]);
        assert!(read("").is_empty());
    }
}
