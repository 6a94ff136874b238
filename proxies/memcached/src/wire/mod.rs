//! The codecs: three protocols towards clients, one towards servers. No IO.
//!
//! | room | what it is for |
//! |---|---|
//! | [`decoder`] | a client's bytes become requests; its first byte says which protocol it speaks |
//! | [`request`] | the request that all protocols make |
//! | [`classic`] | `get`, `set` and their kin |
//! | [`meta`] | `mg`, `ms` and their kin: the language of servers, and of clients that like it |
//! | [`binary`] | packets |
//! | [`words`], [`number`], [`output`] | what they are made of |
//!
//! Decoders take bytes off the front of a buffer and answer `None` while something is missing. Frames keep
//! the raw bytes and the places of their parts in them, so that nothing is copied on the way through.
//! The grammar is memcached 1.6.18's, quirks included (`doc/protocol.txt` and `proto_text.c` there).

pub mod binary;
pub mod classic;
pub mod decoder;
mod epoch;
pub mod meta;
pub mod number;
pub mod output;
pub mod request;
pub mod words;

pub use decoder::Decoder;
pub use epoch::Epoch;
pub use output::Output;
pub use request::Request;

/// The longest key, in bytes.
pub const KEY_LEN_MAX: usize = 250;

/// What a peer may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The longest value of one item, in bytes.
    pub value_len_max: usize,
    /// The longest command line, in bytes. Only `get` and `gets` may be longer than [`COMMAND_LEN_MAX`].
    pub line_len_max: usize,
}

/// Where memcached gives up on a line whose end it has not seen, unless it is a `get` or `gets`.
pub const COMMAND_LEN_MAX: usize = 2048;

impl Default for Limits {
    fn default() -> Self {
        Self { value_len_max: 1 << 20, line_len_max: 1 << 20 }
    }
}
