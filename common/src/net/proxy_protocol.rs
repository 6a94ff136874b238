//! The PROXY protocol's header, versions 1 and 2: bytes to addresses, without IO.
//!
//! After <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. Strict where the text allows a
//! choice: a load balancer that writes anything else is misconfigured, or is not the load balancer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// Version 1: "worst case" of section 2.1, line end included.
const V1_BYTES_MAX: usize = 107;
const V1_START: &[u8] = b"PROXY ";

/// Version 2 begins with this (section 2.2).
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;
/// The text allows 64 KiB of TLVs; known senders stay below 1 KiB.
const V2_BYTES_MAX: usize = 4096;

/// What a header says of the connection behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// It is the load balancer's own (LOCAL: a health check), or of a kind without addresses (UNKNOWN).
    Own,
    /// It belongs to this client.
    Client(SocketAddr),
}

/// How a header is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// The header of a connection that is made for a client: from its address to the one it came to. Without both, or where
/// they are of two families, the connection is our own: UNKNOWN in version 1, LOCAL in version 2.
pub fn header(version: ProxyVersion, client: Option<SocketAddr>, to: Option<SocketAddr>) -> Vec<u8> {
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let pair = client.map(plain).zip(to.map(plain));
    match (version, pair) {
        (ProxyVersion::V1, Some((from, to))) if from.is_ipv4() == to.is_ipv4() => {
            let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
            format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
        }
        (ProxyVersion::V1, _) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyVersion::V2, Some((SocketAddr::V4(from), SocketAddr::V4(to)))) => {
            v2(0x21, 0x11, &from.ip().octets(), &to.ip().octets(), from.port(), to.port())
        }
        (ProxyVersion::V2, Some((SocketAddr::V6(from), SocketAddr::V6(to)))) => {
            v2(0x21, 0x21, &from.ip().octets(), &to.ip().octets(), from.port(), to.port())
        }
        (ProxyVersion::V2, _) => [V2_START, &[0x20, 0, 0, 0]].concat(),
    }
}

fn v2(command: u8, family: u8, from: &[u8], to: &[u8], from_port: u16, to_port: u16) -> Vec<u8> {
    let body = [from, to, &from_port.to_be_bytes(), &to_port.to_be_bytes()].concat();
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX).to_be_bytes();
    [V2_START, &[command, family], &length, &body].concat()
}

/// Why bytes are not a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ParseError {
    #[error("the connection does not start with a header")]
    Missing,
    #[error("a version 1 line that is malformed or longer than 107 bytes")]
    Version1,
    #[error("version 2 with an unknown version or command ({0:#04x})")]
    Command(u8),
    #[error("version 2 with a family or transport that is not a TCP or unix stream ({0:#04x})")]
    Family(u8),
    #[error("version 2 with a length of {0} bytes, too short for its addresses or over 4096")]
    Length(usize),
}

/// Reads the header at the start of `bytes`: what it says and how long it is; `None` if it goes on.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ParseError> {
    if common(bytes, V2_START) {
        return parse_v2(bytes);
    }
    if common(bytes, V1_START) {
        return parse_v1(bytes);
    }
    Err(ParseError::Missing)
}

/// Is one the start of the other?
fn common(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, ParseError> {
    let window = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = memchr::memchr(b'\n', window) else {
        return if bytes.len() < V1_BYTES_MAX { Ok(None) } else { Err(ParseError::Version1) };
    };
    let line = window.get(..end).and_then(|line| line.strip_suffix(b"\r")).ok_or(ParseError::Version1)?;
    let line = std::str::from_utf8(line).map_err(|_| ParseError::Version1)?;
    let header = v1_header(line).ok_or(ParseError::Version1)?;
    Ok(Some((header, end + 1)))
}

fn v1_header(line: &str) -> Option<Header> {
    let mut words = line.strip_prefix("PROXY ")?.split(' ');
    let client = match words.next()? {
        // What follows is to be ignored.
        "UNKNOWN" => return Some(Header::Own),
        "TCP4" => v1_client::<Ipv4Addr>(&mut words)?,
        "TCP6" => v1_client::<Ipv6Addr>(&mut words)?,
        _ => return None,
    };
    words.next().is_none().then_some(Header::Client(client))
}

/// Source and destination address, source and destination port.
fn v1_client<'a, A: FromStr + Into<IpAddr>>(words: &mut impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let source: A = words.next()?.parse().ok()?;
    let _destination: A = words.next()?.parse().ok()?;
    let port = v1_port(words.next()?)?;
    let _destination_port = v1_port(words.next()?)?;
    Some(SocketAddr::new(source.into(), port))
}

/// A decimal number without a sign or heading zeroes.
fn v1_port(word: &str) -> Option<u16> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = digits && (word == "0" || !word.starts_with('0'));
    if canonical { word.parse().ok() } else { None }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<(Header, usize)>, ParseError> {
    // Refused with the byte that is wrong, not when the rest has come.
    let command = match bytes.get(12) {
        None => return Ok(None),
        Some(command @ (0x20 | 0x21)) => *command,
        Some(other) => return Err(ParseError::Command(*other)),
    };
    let Some(&[family, high, low]) = bytes.get(13..V2_FIXED_BYTES) else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_BYTES_MAX - V2_FIXED_BYTES {
        return Err(ParseError::Length(length));
    }
    let Some(body) = bytes.get(V2_FIXED_BYTES..V2_FIXED_BYTES + length) else { return Ok(None) };
    let header = match command {
        0x20 => Header::Own,
        _ => v2_client(family, body)?,
    };
    Ok(Some((header, V2_FIXED_BYTES + length)))
}

/// The source of a version 2 address block. What follows the block are TLVs, which are not read.
fn v2_client(family: u8, body: &[u8]) -> Result<Header, ParseError> {
    const UNIX_BLOCK_BYTES: usize = 216;
    let too_short = ParseError::Length(body.len());
    match family {
        // AF_UNSPEC: nothing is known of the client.
        0x00 => Ok(Header::Own),
        // source address, destination address, source port, destination port
        0x11 => match body {
            &[a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                Ok(client(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
            }
            _ => Err(too_short),
        },
        0x21 => match (body.first_chunk::<16>(), body.get(32..36)) {
            (Some(source), Some(&[high, low, _, _])) => {
                Ok(client(Ipv6Addr::from(*source), u16::from_be_bytes([high, low])))
            }
            _ => Err(too_short),
        },
        0x31 if body.len() >= UNIX_BLOCK_BYTES => Ok(Header::Own),
        0x31 => Err(too_short),
        other => Err(ParseError::Family(other)),
    }
}

fn client(ip: impl Into<IpAddr>, port: u16) -> Header {
    Header::Client(SocketAddr::new(ip.into(), port))
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
