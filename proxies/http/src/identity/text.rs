//! An address as it is written, with no memory of its own: each request names its client, and nobody keeps the text.

use std::fmt::{self, Write};
use std::net::IpAddr;

/// `[xxxx:xxxx:xxxx:xxxx:xxxx:xxxx:255.255.255.255]` without the brackets.
const TEXT_BYTES_MAX: usize = 45;

/// The text of an address.
#[derive(Debug, Clone, Copy)]
pub struct IpText {
    bytes: [u8; TEXT_BYTES_MAX],
    len: usize,
}

impl IpText {
    /// Of an address, or of one that nobody knows.
    pub fn of(ip: Option<IpAddr>) -> Self {
        let mut text = Self { bytes: [0; TEXT_BYTES_MAX], len: 0 };
        match ip {
            // Most are of this kind, and by hand it takes a tenth of the time.
            Some(IpAddr::V4(ip)) => {
                let mut before: &[u8] = b"";
                for octet in ip.octets() {
                    text.put(before);
                    text.put_octet(octet);
                    before = b".";
                }
            }
            // It fits.
            Some(IpAddr::V6(ip)) => write!(text, "{ip}").unwrap_or_default(),
            None => text.put(b"unknown"),
        }
        text
    }

    /// As bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// As text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }

    fn put_octet(&mut self, octet: u8) {
        let digits = [octet / 100, octet / 10 % 10, octet % 10].map(|digit| b'0' + digit);
        let zeros = if octet >= 100 { 0 } else { 1 + usize::from(octet < 10) };
        self.put(digits.get(zeros..).unwrap_or_default());
    }
}

impl fmt::Write for IpText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn it_is_what_the_library_writes() {
        for octet in 0..=255 {
            let ip = Ipv4Addr::new(octet, 255 - octet, 0, octet);
            assert_eq!(IpText::of(Some(ip.into())).text(), ip.to_string());
        }
        for text in ["::", "::1", "2001:db8::ff00:42:8329", "::ffff:255.255.255.255"] {
            let ip: Ipv6Addr = text.parse().expect("an address");
            assert_eq!(IpText::of(Some(ip.into())).text(), text);
        }
        let longest = Ipv6Addr::from([0xffff; 8]);
        assert_eq!(IpText::of(Some(longest.into())).text(), longest.to_string());
        assert_eq!(IpText::of(None).text(), "unknown");
    }
}
