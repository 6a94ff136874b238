//! Heads of requests and replies: httparse reads the lines, this room decides what they mean and refuses the rest.

use super::fields::{FIELDS_MAX, tokens};
use super::scan::is_token;
use super::{Fields, Framing, Limits, Malformed, Name};
use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

/// Longer than any registered method.
const METHOD_BYTES_MAX: usize = 32;

/// The version a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0: one exchange a connection unless both ask for more; no chunks, no interim replies.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// A request's head, lying in the bytes it came in.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// The whole head, blank line included.
    pub raw: &'a [u8],
    /// The method as written; methods know case.
    pub method: &'a [u8],
    /// The target in origin form (or `*`): what goes on to the server.
    pub target: &'a [u8],
    /// The host asked for, with its port if it has one; empty for HTTP/1.0 without Host.
    pub host: &'a [u8],
    /// The version.
    pub version: Version,
    /// How the body is delimited: `None`, `Length` or `Chunked`.
    pub framing: Framing,
    /// The fields.
    pub fields: &'a Fields,
}

impl<'a> RequestHead<'a> {
    /// Reads the head that fills `raw` (as long as [`super::scan::HeadScan`] said).
    pub fn parse(raw: &'a [u8], limits: &Limits, fields: &'a mut Fields) -> Result<Self, Malformed> {
        let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let storage = storage.get_mut(..limits.fields.min(FIELDS_MAX)).unwrap_or_default();
        let mut request = httparse::Request::new(&mut []);
        match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, raw, storage)
        {
            Ok(httparse::Status::Complete(length)) if length == raw.len() => {}
            Ok(_) => return Err(Malformed::LineEnd),
            Err(error) => return Err(refused(error, raw)),
        }
        let method = request.method.unwrap_or_default().as_bytes();
        let target = request.path.unwrap_or_default().as_bytes();
        if method.len() > METHOD_BYTES_MAX || !raw.starts_with(method) {
            return Err(Malformed::Method);
        }
        if target.len() > limits.target_bytes {
            return Err(Malformed::TargetTooLong);
        }
        if !target.iter().all(|byte| matches!(byte, b'!'..=b'~') && *byte != b'#') {
            return Err(Malformed::Target);
        }
        let version = if request.version == Some(0) { Version::Http10 } else { Version::Http11 };
        // method SP target SP HTTP/1.x CRLF
        let line_end = method.len() + 1 + target.len() + 1 + 8 + 2;
        if raw.get(line_end.saturating_sub(2)..line_end) != Some(b"\r\n") {
            return Err(Malformed::LineEnd);
        }
        fields.collect(raw, line_end, request.headers)?;
        let framing = request_framing(version, fields)?;
        let named = match fields.host {
            Some(span) => span.of(raw),
            None if version == Version::Http10 => &[],
            None => return Err(Malformed::HostMissing),
        };
        if !is_host(named) {
            return Err(Malformed::HostInvalid);
        }
        let (authority, target) = split_target(method, target)?;
        if let Some(authority) = authority
            && fields.host.is_some()
            && !authority.eq_ignore_ascii_case(named)
        {
            return Err(Malformed::HostMismatch);
        }
        Ok(Self { raw, method, target, host: authority.unwrap_or(named), version, framing, fields })
    }

    /// The path of the target: all before the query.
    pub fn path(&self) -> &'a [u8] {
        match memchr::memchr(b'?', self.target) {
            Some(at) => self.target.get(..at).unwrap_or_default(),
            None => self.target,
        }
    }

    /// Whether the sender will read another reply on this connection (RFC 9112, 9.3).
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, self.fields)
    }

    /// Whether what it expects can be met: `100-continue`, which the server answers, or nothing.
    pub fn expectation_can_be_met(&self) -> bool {
        self.fields.expect.is_none_or(|value| value.of(self.raw).eq_ignore_ascii_case(b"100-continue"))
    }

    /// The protocol asked for in place of HTTP, where the request is one that can be upgraded. `h2c` is not: it
    /// would carry requests past every check this proxy makes.
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        let value = self.fields.upgrade?.of(self.raw);
        let wanted = self.fields.connection.upgrade
            && self.version == Version::Http11
            && self.framing == Framing::None
            && tokens(value).next().is_some()
            && !tokens(value).any(|token| token.eq_ignore_ascii_case(b"h2c"));
        wanted.then_some(value)
    }

    /// Whether doing it twice is doing it once (RFC 9110, 9.2.2).
    pub fn is_idempotent(&self) -> bool {
        matches!(self.method, b"GET" | b"HEAD" | b"OPTIONS" | b"PUT" | b"DELETE" | b"TRACE")
    }

    /// The value of the first field of that name.
    pub fn value(&self, known: Name) -> Option<&'a [u8]> {
        self.fields.find(known).map(|field| field.value.of(self.raw))
    }
}

/// A reply's head, lying in the bytes it came in.
#[derive(Debug)]
pub struct ReplyHead<'a> {
    /// The whole head, blank line included.
    pub raw: &'a [u8],
    /// The status, 100 to 599.
    pub status: u16,
    /// The reason phrase; may be empty.
    pub reason: &'a [u8],
    /// The version.
    pub version: Version,
    /// How the body is delimited.
    pub framing: Framing,
    /// The fields.
    pub fields: &'a Fields,
}

impl<'a> ReplyHead<'a> {
    /// Reads the head that fills `raw`, of a reply to a request whose method was HEAD or not.
    pub fn parse(
        raw: &'a [u8],
        to_head: bool,
        limits: &Limits,
        fields: &'a mut Fields,
    ) -> Result<Self, Malformed> {
        let mut storage = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let storage = storage.get_mut(..limits.fields.min(FIELDS_MAX)).unwrap_or_default();
        let mut reply = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut reply, raw, storage) {
            Ok(httparse::Status::Complete(length)) if length == raw.len() => {}
            Ok(_) => return Err(Malformed::LineEnd),
            Err(error) => return Err(refused(error, raw)),
        }
        let version = if reply.version == Some(0) { Version::Http10 } else { Version::Http11 };
        let status = reply.code.unwrap_or_default();
        if !(100..=599).contains(&status) {
            return Err(Malformed::Status);
        }
        let line_end = memchr::memchr(b'\n', raw).map_or(raw.len(), |newline| newline + 1);
        let line =
            raw.get(..line_end).and_then(|line| line.strip_suffix(b"\r\n")).ok_or(Malformed::LineEnd)?;
        // HTTP/1.x SP status [SP reason]
        let reason = match line.get(12..) {
            None | Some([]) => &[][..],
            Some([b' ', reason @ ..]) => reason,
            Some(_) => return Err(Malformed::StartLine),
        };
        fields.collect(raw, line_end, reply.headers)?;
        let framing = reply_framing(version, status, to_head, fields)?;
        Ok(Self { raw, status, reason, version, framing, fields })
    }

    /// Whether it is followed by another reply to the same request.
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Whether the server will take another request on this connection.
    pub fn keeps_alive(&self) -> bool {
        keeps_alive(self.version, self.fields) && self.framing != Framing::Close
    }
}

fn keeps_alive(version: Version, fields: &Fields) -> bool {
    match version {
        Version::Http11 => !fields.connection.close,
        Version::Http10 => fields.connection.keep_alive && !fields.connection.close,
    }
}

/// RFC 9112, 6.3, for requests, where what it lets a recipient choose is refused.
fn request_framing(version: Version, fields: &Fields) -> Result<Framing, Malformed> {
    if fields.shadows_framing {
        return Err(Malformed::FieldName);
    }
    match (fields.chunked, fields.content_length) {
        (true, Some(_)) => Err(Malformed::LengthAndCoding),
        (true, None) if version == Version::Http10 => Err(Malformed::CodingMisplaced),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(0) | None) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
    }
}

/// RFC 9112, 6.3, for replies.
fn reply_framing(
    version: Version,
    status: u16,
    to_head: bool,
    fields: &Fields,
) -> Result<Framing, Malformed> {
    if fields.chunked && fields.content_length.is_some() {
        return Err(Malformed::LengthAndCoding);
    }
    if fields.chunked && version == Version::Http10 {
        return Err(Malformed::CodingMisplaced);
    }
    if status < 200 || status == 204 {
        return match (fields.chunked, fields.content_length) {
            (true, _) => Err(Malformed::CodingMisplaced),
            (false, Some(length)) if length > 0 => Err(Malformed::BodyMisplaced),
            (false, _) => Ok(Framing::None),
        };
    }
    if to_head || status == 304 {
        return Ok(Framing::None);
    }
    Ok(match (fields.chunked, fields.content_length) {
        (true, _) => Framing::Chunked,
        (false, Some(0)) => Framing::None,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::Close,
    })
}

/// The authority (absolute form) and the origin form of a target.
fn split_target<'a>(method: &[u8], target: &'a [u8]) -> Result<(Option<&'a [u8]>, &'a [u8]), Malformed> {
    // What CONNECT asks for is no place here, whatever its form: the session says so.
    if target.first() == Some(&b'/') || (target == b"*" && method == b"OPTIONS") || method == b"CONNECT" {
        return Ok((None, target));
    }
    let scheme = target.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"http://")).map(<[u8]>::len);
    let scheme =
        scheme.or_else(|| target.get(..8).filter(|it| it.eq_ignore_ascii_case(b"https://")).map(<[u8]>::len));
    let rest = scheme.and_then(|length| target.get(length..)).ok_or(Malformed::Target)?;
    let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).ok_or(Malformed::Target)?;
    if authority.is_empty() || !is_host(authority) {
        return Err(Malformed::Target);
    }
    match path.first() {
        // RFC 9112, 3.2.4: what asks the whole server asks it in its own form.
        None if method == b"OPTIONS" => Ok((Some(authority), b"*")),
        None => Ok((Some(authority), b"/")),
        Some(b'/') => Ok((Some(authority), path)),
        // `http://host?query` has no path to send in origin form without repairing it.
        Some(_) => Err(Malformed::Target),
    }
}

/// A host name, IPv4 address or bracketed IPv6 address, with an optional port; or nothing at all.
pub fn is_host(host: &[u8]) -> bool {
    let (name, port) = match host {
        [b'[', rest @ ..] => {
            let Some(close) = memchr::memchr(b']', rest) else { return false };
            let (address, after) = rest.split_at_checked(close).unwrap_or_default();
            let is_address = std::str::from_utf8(address).is_ok_and(|it| it.parse::<Ipv6Addr>().is_ok());
            if !is_address {
                return false;
            }
            match after {
                [b']'] => return true,
                [b']', b':', port @ ..] => (address, Some(port)),
                _ => return false,
            }
        }
        _ => match memchr::memchr(b':', host) {
            Some(colon) => (host.get(..colon).unwrap_or_default(), host.get(colon + 1..)),
            None => (host, None),
        },
    };
    if host.first() != Some(&b'[')
        && !name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
    {
        return false;
    }
    match port {
        None => true,
        Some(port) => {
            !name.is_empty()
                && port.len() <= 5
                && port.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
        }
    }
}

/// What httparse's refusal is in our words.
fn refused(error: httparse::Error, raw: &[u8]) -> Malformed {
    match error {
        httparse::Error::HeaderName => Malformed::FieldName,
        httparse::Error::HeaderValue => Malformed::FieldValue,
        httparse::Error::NewLine => Malformed::LineEnd,
        httparse::Error::Status => Malformed::Status,
        httparse::Error::TooManyHeaders => Malformed::HeadTooLong,
        httparse::Error::Version => version(raw),
        httparse::Error::Token => start_line(raw),
    }
}

/// A version that exists is one that we do not speak; anything else is no first line at all.
fn version(raw: &[u8]) -> Malformed {
    let line = raw.split(|byte| *byte == b'\r').next().unwrap_or_default();
    // A reply's stands first, and whichever it is makes a 502.
    if line.starts_with(b"HTTP/") {
        return Malformed::Version;
    }
    let mut words = line.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some(_), Some(_), Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Malformed::Version
        }
        _ => Malformed::StartLine,
    }
}

/// Which part of the request line is wrong: httparse says `Token` for the method and for the target.
fn start_line(raw: &[u8]) -> Malformed {
    let method = raw.split(|byte| *byte == b' ').next().unwrap_or_default();
    if method.is_empty() || !method.iter().copied().all(is_token) {
        Malformed::Method
    } else {
        Malformed::Target
    }
}
