//! What the two processes say, as bytes: a length, whether a socket goes with it, and the message.
//!
//! postcard's form is not self-describing: messages keep their places and fields as long as [`PROTOCOL`] stays, and the
//! first one of each side stays for ever, so that any two versions can at least refuse each other.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use serde::{Deserialize, Serialize};

/// Changes with the messages.
pub(super) const PROTOCOL: u32 = 1;
/// A session whose state is longer stays where it is.
pub const STATE_BYTES_MAX: usize = 24 << 20;
/// A message with such a state, and what is around it.
const MESSAGE_BYTES_MAX: usize = STATE_BYTES_MAX + (64 << 10);
/// Length and flag.
const HEAD_BYTES: usize = 5;

/// Something one process says to the other.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Message {
    /// The new one's first.
    Hello { protocol: u32, program: String, version: String, sessions: Option<u32> },
    /// The old one's first, if it will not.
    Refused { why: String },
    /// The old one's first.
    Welcome { version: String, pid: u32 },
    /// A listening socket goes with it.
    Socket { address: String, is_admin: bool },
    /// There are no more.
    SocketsEnd,
    /// The new one accepts.
    Ready { pid: u32 },
    /// A client, whose socket goes with it.
    Client { id: u64, address: String, peer: Option<SocketAddr>, state: Vec<u8> },
    /// The new one serves it.
    Taken { id: u64 },
    /// The new one does not want it.
    Kept { id: u64, why: String },
    /// Something of the proxy's own.
    Word { bytes: Vec<u8> },
}

/// Why bytes are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Its length says so.
    #[error("a message of {0} bytes")]
    TooLong(usize),
    /// It does not read as one.
    #[error("no message of this protocol")]
    Unknown,
}

/// The bytes of a message.
pub(super) fn encode(message: &Message, has_socket: bool) -> Result<Vec<u8>, MessageError> {
    let body = postcard::to_stdvec(message).map_err(|_| MessageError::Unknown)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MESSAGE_BYTES_MAX);
    let length = length.ok_or(MessageError::TooLong(body.len()))?;
    Ok([&length.to_le_bytes()[..], &[u8::from(has_socket)], &body].concat())
}

/// The next message, and whether a socket goes with it; `None` if it is not all there.
pub(super) fn decode(input: &mut BytesMut) -> Result<Option<(Message, bool)>, MessageError> {
    let Some((&[a, b, c, d, flag], rest)) = input.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong(length));
    }
    let Some(body) = rest.get(..length) else { return Ok(None) };
    let (message, rest) = postcard::take_from_bytes(body).map_err(|_| MessageError::Unknown)?;
    if !rest.is_empty() || flag > 1 {
        return Err(MessageError::Unknown);
    }
    input.advance(HEAD_BYTES + length);
    Ok(Some((message, flag == 1)))
}
