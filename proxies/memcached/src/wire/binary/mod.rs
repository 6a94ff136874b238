//! The binary protocol, for clients that speak nothing else (protocol_binary.txt; what is said of memcached is
//! what 1.6.18 does in `proto_bin.c`).
//!
//! ```text
//!   0        1        2        4        5        6        8        12       16       24
//!   magic    opcode   key len  extras   type     status   body     opaque   cas      extras, key, value
//! ```

mod answer;
mod decode;

pub use answer::{Head, write_head, write_stats, write_status, write_value};
pub use decode::decode;

/// How a request begins.
pub const REQUEST_MAGIC: u8 = 0x80;

/// How an answer begins.
pub const ANSWER_MAGIC: u8 = 0x81;

/// What stands before extras, key and value.
pub const HEAD_LEN: usize = 24;

/// The end of all statistics, and the lines before it.
pub const STAT: u8 = 0x10;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Well.
    Done,
    /// The key is not there.
    NotFound,
    /// The key is there, or its CAS value is another.
    Exists,
    /// The value is over the limit.
    TooLarge,
    /// Lengths that the opcode does not go with.
    Invalid,
    /// Nothing to append to.
    NotStored,
    /// The value is no number.
    NotNumeric,
    /// No such opcode.
    UnknownCommand,
    /// The server has no memory left.
    OutOfMemory,
    /// The server's answer cannot be told.
    Internal,
    /// No server answered.
    Temporary,
}

impl Status {
    /// Its number.
    pub fn code(self) -> u16 {
        match self {
            Self::Done => 0x00,
            Self::NotFound => 0x01,
            Self::Exists => 0x02,
            Self::TooLarge => 0x03,
            Self::Invalid => 0x04,
            Self::NotStored => 0x05,
            Self::NotNumeric => 0x06,
            Self::UnknownCommand => 0x81,
            Self::OutOfMemory => 0x82,
            Self::Internal => 0x84,
            Self::Temporary => 0x86,
        }
    }

    /// memcached's words for it.
    pub fn words(self) -> &'static [u8] {
        match self {
            Self::Done => b"",
            Self::NotFound => b"Not found",
            Self::Exists => b"Data exists for key.",
            Self::TooLarge => b"Too large.",
            Self::Invalid => b"Invalid arguments",
            Self::NotStored => b"Not stored.",
            Self::NotNumeric => b"Non-numeric server-side value for incr or decr",
            Self::UnknownCommand => b"Unknown command",
            Self::OutOfMemory => b"Out of memory",
            Self::Internal => b"Internal error",
            Self::Temporary => b"Temporary failure",
        }
    }
}

/// Does this opcode want to hear nothing of what is to be expected: hits of all but retrievals, misses of
/// retrievals?
pub fn is_quiet(opcode: u8) -> bool {
    matches!(opcode, 0x09 | 0x0d | 0x11..=0x1a | 0x1e | 0x24)
}

/// Does the answer to this opcode carry the key?
pub fn tells_key(opcode: u8) -> bool {
    matches!(opcode, 0x0c | 0x0d | 0x23 | 0x24)
}

/// What a store that was not done on its own condition is called for this opcode.
pub fn not_stored(opcode: u8) -> Status {
    match opcode {
        0x02 | 0x12 => Status::Exists,
        0x03 | 0x13 => Status::NotFound,
        _ => Status::NotStored,
    }
}

/// Does this opcode tell whether a key is there, and leave its value out?
pub fn is_touch(opcode: u8) -> bool {
    opcode == 0x1c
}

#[cfg(test)]
mod tests;
