//! HTTP/1.1 on the wire (RFC 9110, RFC 9112): bytes to heads and bodies, and heads to bytes. No IO.
//!
//! The rule of this room is *reject, never repair*. Two parties that read one message differently are how requests
//! are smuggled, so whatever a careful reader could take in two ways is refused here, from clients and servers alike.

pub mod body;
pub mod chunked;
pub mod edits;
pub mod fields;
pub mod head;
pub mod hop;
pub mod malformed;
pub mod name;
pub mod outlet;
pub mod render;
pub mod scan;

pub use body::{Body, Framing};
pub use edits::Edits;
pub use fields::{Field, Fields, Span, tokens};
pub use head::{ReplyHead, RequestHead, Version, is_host};
pub use hop::{Hop, Node, Says};
pub use malformed::Malformed;
pub use name::Name;
pub use outlet::{Outlet, Output};

/// The most a peer may make us hold or count for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one head, from the first byte of its first line through the blank line.
    pub head_bytes: usize,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Header fields of one head (at most [`fields::FIELDS_MAX`]).
    pub fields: usize,
    /// Bytes of one chunked body's trailer section.
    pub trailer_bytes: usize,
    /// Bytes of one request's body; replies are not bounded, they are streamed.
    pub body_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 32 * 1024,
            target_bytes: 8 * 1024,
            fields: 100,
            trailer_bytes: 8 * 1024,
            body_bytes: u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests;
