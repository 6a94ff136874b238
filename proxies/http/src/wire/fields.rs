//! The header section: where each field lies in the head's bytes, and what the fields say about framing and hops.

use super::{Malformed, Name};
use httparse::Header;

/// The most fields a head can have, whatever the configuration says.
pub const FIELDS_MAX: usize = 128;

/// A range of a head's bytes. Heads are bounded far below 4 GiB, so four bytes each do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), end: u32::try_from(end).unwrap_or(u32::MAX) }
    }

    /// The bytes of the span.
    pub fn of(self, raw: &[u8]) -> &[u8] {
        raw.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// One past where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }
}

/// One field line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// What it is, to a proxy.
    pub known: Name,
    /// Its name as written.
    pub name: Span,
    /// Its value without the whitespace around it.
    pub value: Span,
    /// The whole line, CRLF included.
    pub line: Span,
}

/// What the connection-level fields ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connection {
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Connection: upgrade`.
    pub upgrade: bool,
    /// It names fields that belong to this hop.
    pub names_fields: bool,
}

/// The fields of one head, and what was learnt on the way through them. Reused from head to head.
#[derive(Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    /// The connection options.
    pub connection: Connection,
    /// The value of Content-Length.
    pub content_length: Option<u64>,
    /// Whether Transfer-Encoding is there (and is exactly `chunked`).
    pub chunked: bool,
    /// The value of Host.
    pub host: Option<Span>,
    /// The value of Expect.
    pub expect: Option<Span>,
    /// The value of Upgrade.
    pub upgrade: Option<Span>,
    /// Some field is one this proxy removes or reads as identity, so that a copy of the whole section will not do.
    pub has_special: bool,
    /// Some field is named like one that frames a message, but for `_`: CGI-like apps cannot tell the two apart.
    pub shadows_framing: bool,
}

impl Fields {
    /// The fields in the order they came.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Field> {
        self.list.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first field of that name.
    pub fn find(&self, known: Name) -> Option<&Field> {
        self.list.iter().find(|field| field.known == known)
    }

    /// Whether a Connection field names `name` as one of this hop's.
    pub fn connection_names(&self, raw: &[u8], name: &[u8]) -> bool {
        self.list
            .iter()
            .filter(|field| field.known == Name::Connection)
            .flat_map(|field| tokens(field.value.of(raw)))
            .any(|token| token.eq_ignore_ascii_case(name))
    }

    /// Takes the fields that httparse found in `raw`, whose first line ends at `start` (after its CRLF).
    ///
    /// What httparse lets pass is refused here: a bare LF, and every reading of the framing but one.
    pub(super) fn collect(
        &mut self,
        raw: &[u8],
        start: usize,
        headers: &[Header<'_>],
    ) -> Result<(), Malformed> {
        *self = Self { list: std::mem::take(&mut self.list), ..Self::default() };
        self.list.clear();
        let base = raw.as_ptr() as usize;
        let mut line = start;
        for (index, header) in headers.iter().enumerate() {
            let name_end = line + header.name.len();
            let next = match headers.get(index + 1) {
                Some(next) => next.name.as_ptr() as usize - base,
                None => raw.len().saturating_sub(2),
            };
            let value = if header.value.is_empty() {
                Span::new(name_end + 1, name_end + 1)
            } else {
                let at = header.value.as_ptr() as usize - base;
                Span::new(at, at + header.value.len())
            };
            if !ends_in_crlf(raw, value.end(), next) {
                return Err(Malformed::LineEnd);
            }
            let known = Name::of(header.name.as_bytes());
            self.shadows_framing |= known == Name::Other && shadows_framing(header.name.as_bytes());
            let field = Field { known, name: Span::new(line, name_end), value, line: Span::new(line, next) };
            self.note(&field, header.value)?;
            self.list.push(field);
            line = next;
        }
        if raw.get(line..) != Some(b"\r\n") {
            return Err(Malformed::LineEnd);
        }
        Ok(())
    }

    fn note(&mut self, field: &Field, value: &[u8]) -> Result<(), Malformed> {
        match field.known {
            Name::Host => {
                if self.host.replace(field.value).is_some() {
                    return Err(Malformed::HostDuplicate);
                }
            }
            Name::ContentLength => self.note_length(value)?,
            Name::TransferEncoding => {
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(other_coding(value));
                }
                if self.chunked {
                    return Err(Malformed::Coding);
                }
                self.chunked = true;
            }
            Name::Connection => self.note_connection(value),
            Name::Expect => {
                // Said twice, what cannot be met counts.
                if self.expect.is_none() || !value.eq_ignore_ascii_case(b"100-continue") {
                    self.expect = Some(field.value);
                }
            }
            Name::Upgrade => self.upgrade = Some(field.value),
            Name::Accept
            | Name::Forwarded
            | Name::KeepAlive
            | Name::ProxyConnection
            | Name::Te
            | Name::TraceParent
            | Name::TraceState
            | Name::Trailer
            | Name::Via
            | Name::XForwardedFor
            | Name::XForwardedHost
            | Name::XForwardedPort
            | Name::XForwardedProto
            | Name::XRealIp
            | Name::XRequestId
            | Name::Other => {}
        }
        self.has_special |= field.known.is_hop_by_hop() || field.known.is_identity();
        Ok(())
    }

    /// Said twice is refused even where both agree: the next hop may not be as sure (RFC 9110, 8.6).
    fn note_length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let length = match decimal(value) {
            Some(length) => length,
            None if value.contains(&b',') => return Err(Malformed::LengthDuplicate),
            None => return Err(Malformed::LengthInvalid),
        };
        match self.content_length.replace(length) {
            Some(_) => Err(Malformed::LengthDuplicate),
            None => Ok(()),
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for token in tokens(value) {
            match token.len() {
                5 if token.eq_ignore_ascii_case(b"close") => self.connection.close = true,
                10 if token.eq_ignore_ascii_case(b"keep-alive") => self.connection.keep_alive = true,
                7 if token.eq_ignore_ascii_case(b"upgrade") => self.connection.upgrade = true,
                2 if token.eq_ignore_ascii_case(b"te") => {}
                _ => self.connection.names_fields = true,
            }
        }
    }
}

fn shadows_framing(name: &[u8]) -> bool {
    match name.len() {
        14 => name.eq_ignore_ascii_case(b"content_length"),
        17 => name.eq_ignore_ascii_case(b"transfer_encoding"),
        _ => false,
    }
}

/// What is wrong with a Transfer-Encoding that is not `chunked`: it names real codings before it, which nobody here
/// decodes (RFC 9112, 6.1: 501), or nobody can know where the body ends (6.3: 400).
fn other_coding(value: &[u8]) -> Malformed {
    const REAL: [&str; 5] = ["gzip", "x-gzip", "deflate", "compress", "x-compress"];
    let is_real = |token: &[u8]| REAL.iter().any(|it| token.eq_ignore_ascii_case(it.as_bytes()));
    let mut members = value.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let ends_in_chunked = members.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    if ends_in_chunked && members.all(is_real) { Malformed::CodingUnknown } else { Malformed::Coding }
}

/// The members of a comma-separated list.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// A number of decimal digits only, that fits.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether only whitespace and then CRLF lie between a value's end and the next line's start.
fn ends_in_crlf(raw: &[u8], value_end: usize, next: usize) -> bool {
    let Some(gap) = raw.get(value_end..next) else { return false };
    gap == b"\r\n"
        || gap
            .strip_suffix(b"\r\n")
            .is_some_and(|space| space.iter().all(|byte| matches!(byte, b' ' | b'\t')))
}
