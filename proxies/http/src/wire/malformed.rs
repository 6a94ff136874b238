//! Every reason for which a message is refused.

use thiserror::Error;

/// Why a message is not HTTP as this proxy reads it. The text says what is wrong in words its sender can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// A line ends in LF alone, or CR stands where no line ends (RFC 9112, 2.2).
    #[error("a line does not end in CRLF")]
    LineEnd,
    /// The request line or status line is not of the form the grammar gives.
    #[error("the first line is not a valid HTTP/1.x line")]
    StartLine,
    /// The method is not a token, or longer than any method.
    #[error("the method is not a token")]
    Method,
    /// The request target has bytes no target may have, or a form we do not take.
    #[error("the request target is not valid")]
    Target,
    /// The version is one, but neither HTTP/1.0 nor HTTP/1.1.
    #[error("the version is not HTTP/1.0 or HTTP/1.1")]
    Version,
    /// A field name is empty, has whitespace before its colon, or is no token; or a line is folded.
    #[error("a header name is not a token followed by a colon")]
    FieldName,
    /// A field value has NUL or another control character.
    #[error("a header value has a control character")]
    FieldValue,
    /// HTTP/1.1 without Host (RFC 9112, 3.2).
    #[error("the Host header is missing")]
    HostMissing,
    /// More than one Host field.
    #[error("there is more than one Host header")]
    HostDuplicate,
    /// Host is not a host with an optional port.
    #[error("the Host header is not a host name with an optional port")]
    HostInvalid,
    /// An absolute-form target names another authority than Host does.
    #[error("the request target and the Host header name different hosts")]
    HostMismatch,
    /// Content-Length is not a plain decimal number, or too large to count.
    #[error("Content-Length is not a decimal number")]
    LengthInvalid,
    /// Content-Length more than once.
    #[error("there is more than one Content-Length")]
    LengthDuplicate,
    /// Content-Length beside Transfer-Encoding (RFC 9112, 6.3).
    #[error("Content-Length and Transfer-Encoding stand in one message")]
    LengthAndCoding,
    /// Transfer-Encoding is anything but exactly `chunked`, once.
    #[error("Transfer-Encoding is not exactly \"chunked\"")]
    Coding,
    /// Transfer-Encoding names a coding besides `chunked` that exists, but that nobody here decodes.
    #[error("only the transfer coding \"chunked\" is offered")]
    CodingUnknown,
    /// Transfer-Encoding in HTTP/1.0, or in a message that has no body.
    #[error("Transfer-Encoding stands where it must not")]
    CodingMisplaced,
    /// A body was announced for a status that has none.
    #[error("a reply without a body announces one")]
    BodyMisplaced,
    /// The chunk size is not hexadecimal, or too large to count.
    #[error("a chunk size is not a hexadecimal number")]
    ChunkSize,
    /// A chunk extension is not of the form the grammar gives, or too long.
    #[error("a chunk extension is not valid")]
    ChunkExtension,
    /// A chunk's data is not followed by CRLF.
    #[error("a chunk's data is not followed by CRLF")]
    ChunkEnd,
    /// A trailer field that may not stand in a trailer section (RFC 9110, 6.5.1).
    #[error("a trailer names a field that must stand in the head")]
    TrailerField,
    /// The trailer section is over its limit.
    #[error("the trailer section is too long")]
    TrailerTooLong,
    /// The head is over its limit, in bytes or in fields.
    #[error("the head is too long")]
    HeadTooLong,
    /// The request target is over its limit.
    #[error("the request target is too long")]
    TargetTooLong,
    /// The body is over its limit.
    #[error("the body is too large")]
    BodyTooLarge,
    /// The status is not three digits from 100 to 599.
    #[error("the status is not a number from 100 to 599")]
    Status,
    /// More interim replies than anyone needs.
    #[error("there are too many interim replies")]
    InterimMisplaced,
    /// An upgrade that was not asked for, or to a protocol that was not offered (RFC 9110, 7.8).
    #[error("a 101 switches to what was not offered")]
    UpgradeMisplaced,
}

impl Malformed {
    /// The status with which a request is refused for this.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLong | Self::TrailerTooLong => 431,
            Self::TargetTooLong => 414,
            Self::BodyTooLarge => 413,
            Self::CodingUnknown => 501,
            Self::Version => 505,
            Self::LineEnd
            | Self::StartLine
            | Self::Method
            | Self::Target
            | Self::FieldName
            | Self::FieldValue
            | Self::HostMissing
            | Self::HostDuplicate
            | Self::HostInvalid
            | Self::HostMismatch
            | Self::LengthInvalid
            | Self::LengthDuplicate
            | Self::LengthAndCoding
            | Self::Coding
            | Self::CodingMisplaced
            | Self::BodyMisplaced
            | Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkEnd
            | Self::TrailerField
            | Self::Status
            | Self::InterimMisplaced
            | Self::UpgradeMisplaced => 400,
        }
    }
}
