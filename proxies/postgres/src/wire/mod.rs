//! PostgreSQL's frontend/backend protocol as bytes, without IO.
//!
//! A pooler looks at few messages and passes on the rest, so there are two ways in: [`decode`] takes one whole
//! message (handshakes), and [`Splice`] walks a buffer of many, keeping what passes where it lies and copying
//! only around an edit (the data path).
//!
//! Source: the chapter "Frontend/Backend Protocol" of PostgreSQL's documentation.

pub mod backend;
pub mod frontend;
mod splice;
pub mod startup;
#[cfg(test)]
mod tests;

use bytes::{BufMut, Bytes, BytesMut};

pub use splice::Splice;

/// Bytes before a message's body: the type and the length.
pub const HEADER: usize = 5;

/// What a peer may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message that has to be seen whole.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { message: 1 << 20 }
    }
}

/// Bytes that are not the protocol. The wording is PostgreSQL's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type byte no frontend sends.
    #[error("invalid frontend message type {0}")]
    FrontendType(u8),
    /// A length that cannot be.
    #[error("invalid message length")]
    Length,
    /// A startup packet that is too short or too long.
    #[error("invalid length of startup packet")]
    StartupLength,
    /// A startup packet whose list of parameters does not end.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    StartupLayout,
    /// A message that must be held whole and is larger than we hold.
    #[error("message of {bytes} bytes exceeds the proxy's limit of {max}")]
    TooLarge {
        /// What the message announces.
        bytes: usize,
        /// What the configuration allows.
        max: usize,
    },
    /// A body that ends too early or goes on too long.
    #[error("invalid message format")]
    Format,
    /// A string that is not UTF-8 where the proxy has to read it.
    #[error("invalid string in message")]
    Text,
}

impl DecodeError {
    /// The SQLSTATE PostgreSQL gives the same offence.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            DecodeError::TooLarge { .. } => "54000",
            DecodeError::FrontendType(_)
            | DecodeError::Length
            | DecodeError::StartupLength
            | DecodeError::StartupLayout
            | DecodeError::Format
            | DecodeError::Text => "08P01",
        }
    }
}

/// The first five bytes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's type.
    pub tag: u8,
    /// Bytes of the whole message, type and length included.
    pub total: usize,
}

impl Header {
    /// Reads a header; `None` while fewer than five bytes are there.
    pub fn read(bytes: &[u8]) -> Result<Option<Header>, DecodeError> {
        let Some(&[tag, a, b, c, d]) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let length = i32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(length) if length >= 4 => Ok(Some(Header { tag, total: length + 1 })),
            Ok(_) | Err(_) => Err(DecodeError::Length),
        }
    }
}

/// One whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message's type.
    pub tag: u8,
    /// The message as it came, header included.
    pub raw: Bytes,
}

impl Frame {
    /// What follows the header.
    pub fn body(&self) -> &[u8] {
        self.raw.get(HEADER..).unwrap_or_default()
    }
}

/// Takes one whole message off the front of `input`; `None` while it is incomplete.
pub fn decode(input: &mut BytesMut, limits: &Limits) -> Result<Option<Frame>, DecodeError> {
    let Some(header) = Header::read(input)? else { return Ok(None) };
    if header.total > limits.message {
        return Err(DecodeError::TooLarge { bytes: header.total, max: limits.message });
    }
    if input.len() < header.total {
        return Ok(None);
    }
    Ok(Some(Frame { tag: header.tag, raw: input.split_to(header.total).freeze() }))
}

/// Appends one message; `body` writes what follows the length.
pub fn put(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    put_counted(out, body);
}

/// Appends a length that counts itself, and what `body` writes.
fn put_counted(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    body(out);
    let length = i32::try_from(out.len() - start).unwrap_or(i32::MAX);
    if let Some(field) = out.get_mut(start..start + 4) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}

/// Appends a string with its terminator.
pub fn put_cstr(out: &mut BytesMut, text: &[u8]) {
    out.put_slice(text);
    out.put_u8(0);
}

/// Splits a zero-terminated string off the front.
pub fn cstr(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    // Most names are empty.
    let end = if bytes.first() == Some(&0) { 0 } else { memchr::memchr(0, bytes)? };
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}
