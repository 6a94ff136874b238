//! The untyped packets a connection opens with: startup, SSLRequest, GSSENCRequest, CancelRequest.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{DecodeError, cstr, put_counted, put_cstr};

/// PostgreSQL's MAX_STARTUP_PACKET_LENGTH.
const PACKET_MAX: usize = 10_000;
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// The bounds of a cancellation key: four bytes up to protocol 3.0, at most 256 from 3.2 on.
pub const CANCEL_KEY_BYTES: std::ops::RangeInclusive<usize> = 4..=256;

/// A protocol's version, as in "3.2".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The part that must match.
    pub major: u16,
    /// The part that is negotiated.
    pub minor: u16,
}

impl Version {
    /// What every server speaks.
    pub const V3_0: Version = Version { major: 3, minor: 0 };
    /// Longer cancellation keys; PostgreSQL 18.
    pub const V3_2: Version = Version { major: 3, minor: 2 };

    /// As it stands on the wire.
    pub fn code(self) -> u32 {
        (u32::from(self.major) << 16) | u32::from(self.minor)
    }

    fn from_code(code: u32) -> Version {
        let [a, b, c, d] = code.to_be_bytes();
        Version { major: u16::from_be_bytes([a, b]), minor: u16::from_be_bytes([c, d]) }
    }
}

impl CancelKey {
    /// As one process tells another of it.
    pub fn to_word(&self) -> Vec<u8> {
        [&self.pid.to_be_bytes()[..], &self.secret].concat()
    }

    /// What [`CancelKey::to_word`] has made, if it is that.
    pub fn of_word(word: &[u8]) -> Option<CancelKey> {
        let (pid, secret) = word.split_first_chunk()?;
        let secret = CANCEL_KEY_BYTES.contains(&secret.len()).then(|| Bytes::copy_from_slice(secret))?;
        Some(CancelKey { pid: i32::from_be_bytes(*pid), secret })
    }
}

/// What the first packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// TLS before anything else.
    Ssl,
    /// GSSAPI encryption, which is always declined.
    GssEnc,
    /// Cancel what another connection runs.
    Cancel(CancelKey),
    /// A session.
    Startup(Startup),
}

/// Names a session to cancel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id announced in BackendKeyData.
    pub pid: i32,
    /// The secret announced with it.
    pub secret: Bytes,
}

/// A startup packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// The version asked for.
    pub version: Version,
    /// Names and values in the order given.
    pub parameters: Vec<(String, String)>,
}

impl Startup {
    /// A parameter's value; the last one counts, as in PostgreSQL.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Takes the opening packet off the front of `input`; `None` while it is incomplete.
pub fn decode(input: &mut BytesMut) -> Result<Option<Opening>, DecodeError> {
    let Some(&length) = input.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| DecodeError::StartupLength)?;
    if !(8..=PACKET_MAX).contains(&length) {
        return Err(DecodeError::StartupLength);
    }
    if input.len() < length {
        return Ok(None);
    }
    let mut packet = input.split_to(length).freeze();
    packet.advance(4);
    match packet.get_u32() {
        SSL => Ok(Some(Opening::Ssl)),
        GSSENC => Ok(Some(Opening::GssEnc)),
        CANCEL => {
            if packet.len() < 4 || !CANCEL_KEY_BYTES.contains(&(packet.len() - 4)) {
                return Err(DecodeError::StartupLength);
            }
            let pid = packet.get_i32();
            Ok(Some(Opening::Cancel(CancelKey { pid, secret: packet })))
        }
        code => Ok(Some(Opening::Startup(parameters(Version::from_code(code), &packet)?))),
    }
}

fn parameters(version: Version, mut rest: &[u8]) -> Result<Startup, DecodeError> {
    let mut parameters = Vec::new();
    // A version of another major may have another layout: it is refused by its number.
    if version.major != Version::V3_0.major {
        return Ok(Startup { version, parameters });
    }
    loop {
        let (name, tail) = cstr(rest).ok_or(DecodeError::StartupLayout)?;
        if name.is_empty() {
            if !tail.is_empty() {
                return Err(DecodeError::StartupLayout);
            }
            return Ok(Startup { version, parameters });
        }
        let (value, tail) = cstr(tail).ok_or(DecodeError::StartupLayout)?;
        rest = tail;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| DecodeError::Text);
        parameters.push((text(name)?, text(value)?));
    }
}

/// Writes a startup packet.
pub fn put_startup<'a>(
    out: &mut BytesMut,
    version: Version,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    put_counted(out, |out| {
        out.put_u32(version.code());
        for (name, value) in parameters {
            put_cstr(out, name.as_bytes());
            put_cstr(out, value.as_bytes());
        }
        out.put_u8(0);
    });
}

/// Writes an SSLRequest.
pub fn put_ssl_request(out: &mut BytesMut) {
    put_counted(out, |out| out.put_u32(SSL));
}

/// Writes a CancelRequest.
pub fn put_cancel(out: &mut BytesMut, key: &CancelKey) {
    put_counted(out, |out| {
        out.put_u32(CANCEL);
        out.put_i32(key.pid);
        out.put_slice(&key.secret);
    });
}
