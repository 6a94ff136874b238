//! Where a head ends, found once over the bytes however they trickle in.

use super::{Limits, Malformed};
use memchr::memchr;

/// Remembers how far the search has come, so that a head that arrives byte by byte is read once, not once a byte.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScan {
    /// Where the line being read begins.
    line: usize,
    /// How far that line has been searched for its end.
    searched: usize,
}

impl HeadScan {
    /// The length of the head (through its blank line) at the front of `bytes`, or `None` while it is incomplete.
    ///
    /// `bytes` must begin with the same bytes as in the call before. A line that ends in anything but CRLF is
    /// refused at once: its sender would otherwise wait for a reply to what it takes for a whole request.
    pub fn advance(&mut self, bytes: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        // What cannot begin a first line never becomes one: a TLS hello on a plain listener is told so now.
        if bytes.first().is_some_and(|first| !is_token(*first) && *first != b'\r') {
            return Err(Malformed::StartLine);
        }
        loop {
            let rest = bytes.get(self.searched..).unwrap_or_default();
            let Some(found) = memchr(b'\n', rest) else {
                self.searched = bytes.len();
                return if bytes.len() < limits.head_bytes {
                    Ok(None)
                } else {
                    Err(self.too_long(self.line == 0))
                };
            };
            let newline = self.searched + found;
            let line = bytes.get(self.line..newline).unwrap_or_default();
            let Some((b'\r', content)) = line.split_last() else { return Err(Malformed::LineEnd) };
            let first = self.line == 0;
            // HTTP/0.9 has no second line: its sender would wait for a reply that does not come.
            if first && !has_version(content) {
                return Err(Malformed::StartLine);
            }
            self.line = newline + 1;
            self.searched = newline + 1;
            if self.line > limits.head_bytes {
                return Err(self.too_long(first));
            }
            if content.is_empty() {
                return Ok(Some(self.line));
            }
        }
    }

    fn too_long(&self, first_line: bool) -> Malformed {
        if first_line { Malformed::TargetTooLong } else { Malformed::HeadTooLong }
    }
}

/// Whether a first line ends in a version, as a request's does, or begins with one, as a reply's does.
fn has_version(line: &[u8]) -> bool {
    let last = line.len().checked_sub(8).and_then(|at| line.get(at..)).unwrap_or_default();
    last.starts_with(b"HTTP/") || line.starts_with(b"HTTP/")
}

/// Whether a byte may stand in a token (RFC 9110, 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
