//! What may be wrong with a peer's SCRAM messages, in the words and under the codes of PostgreSQL's `auth-scram.c`.

use std::fmt;

/// Why an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The peer's message is not SCRAM.
    #[error("malformed SCRAM message")]
    Malformed(Detail),
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response")]
    Nonce,
    /// The client's nonce has bytes that it may not have.
    #[error("non-printable characters in SCRAM nonce")]
    NoncePrintable,
    /// The client wants to act as somebody else than the one who proves it.
    #[error("client uses authorization identity, but it is not supported")]
    Authzid,
    /// The client insists on an extension.
    #[error("client requires an unsupported SCRAM extension")]
    Extension,
    /// The client binds to something else than the server's certificate.
    #[error("unsupported SCRAM channel-binding type \"{0}\"")]
    BindingType(String),
    /// The client believes that channel binding was not offered. It was: somebody between us took the offer away.
    #[error("SCRAM channel binding negotiation error")]
    BindingNegotiation,
    /// The client was shown another certificate.
    #[error("SCRAM channel binding check failed")]
    BindingCheck,
    /// The client's two messages disagree about channel binding.
    #[error("unexpected SCRAM channel-binding attribute in client-final-message")]
    BindingAttribute,
    /// The proof is wrong: another password.
    #[error("password authentication failed")]
    Proof,
    /// The server refused us, or could not prove that it knows the password.
    #[error("the server could not prove that it knows the password")]
    Server,
    /// We have no password, only what a client derived for another verifier than the server's.
    #[error(
        "the server keeps another SCRAM verifier for this role than the one that the client's proof was for"
    )]
    OtherVerifier,
}

impl ScramError {
    /// The SQLSTATE that PostgreSQL gives it.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            ScramError::Authzid | ScramError::Extension => "0A000",
            ScramError::BindingNegotiation | ScramError::BindingCheck => "28000",
            ScramError::Proof => "28P01",
            ScramError::Malformed(_)
            | ScramError::Nonce
            | ScramError::NoncePrintable
            | ScramError::BindingType(_)
            | ScramError::BindingAttribute
            | ScramError::Server
            | ScramError::OtherVerifier => "08P01",
        }
    }

    /// What PostgreSQL adds to the message.
    pub fn detail(&self) -> Option<String> {
        match self {
            ScramError::Malformed(detail) => Some(detail.to_string()),
            ScramError::Nonce => Some("Nonce does not match.".to_owned()),
            ScramError::BindingNegotiation => Some(
                "The client supports SCRAM channel binding but thinks the server does not.  \
                 However, this server does support channel binding."
                    .to_owned(),
            ),
            ScramError::NoncePrintable
            | ScramError::Authzid
            | ScramError::Extension
            | ScramError::BindingType(_)
            | ScramError::BindingCheck
            | ScramError::BindingAttribute
            | ScramError::Proof
            | ScramError::Server
            | ScramError::OtherVerifier => None,
        }
    }
}

/// Where a message stops being SCRAM. A byte of 0 is the message's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Nothing at all.
    Empty,
    /// A zero byte, or no UTF-8.
    Length,
    /// No comma after the channel binding's flag.
    Comma(u8),
    /// No flag of channel binding.
    Flag(u8),
    /// Something else where the first message goes on.
    FirstAttribute(u8),
    /// Another attribute than the next one.
    Attribute {
        /// What has to come.
        expected: char,
        /// What came.
        found: u8,
    },
    /// No `=` after an attribute's letter.
    Equals(char),
    /// An attribute that is no letter.
    NoAttribute(u8),
    /// The message ends where an attribute has to come.
    End,
    /// `-PLUS`, without the data for it.
    BindingMissing,
    /// Data of channel binding, without `-PLUS`.
    BindingUnasked,
    /// A proof that is not 32 bytes in base64.
    Proof,
    /// More after the proof.
    Garbage,
    /// Not what a server's message has to be. PostgreSQL has no words for it, as it is never told to a client.
    Challenge,
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Empty => f.write_str("The message is empty."),
            Detail::Length => f.write_str("Message length does not match input length."),
            Detail::Comma(found) => write!(f, "Comma expected, but found character \"{}\".", Shown(*found)),
            Detail::Flag(found) => write!(f, "Unexpected channel-binding flag \"{}\".", Shown(*found)),
            Detail::FirstAttribute(found) => {
                write!(f, "Unexpected attribute \"{}\" in client-first-message.", Shown(*found))
            }
            Detail::Attribute { expected, found } => {
                write!(f, "Expected attribute \"{expected}\" but found \"{}\".", Shown(*found))
            }
            Detail::Equals(attribute) => write!(f, "Expected character \"=\" for attribute \"{attribute}\"."),
            Detail::NoAttribute(found) => {
                write!(f, "Attribute expected, but found invalid character \"{}\".", Shown(*found))
            }
            Detail::End => f.write_str("Attribute expected, but found end of string."),
            Detail::BindingMissing => f.write_str(
                "The client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data.",
            ),
            Detail::BindingUnasked => f.write_str(
                "The client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel \
                 binding data.",
            ),
            Detail::Proof => f.write_str("Malformed proof in client-final-message."),
            Detail::Garbage => f.write_str("Garbage found at the end of client-final-message."),
            Detail::Challenge => f.write_str("Malformed challenge of the server."),
        }
    }
}

/// A byte of a message that may be anything, as PostgreSQL's `sanitize_char` shows it.
struct Shown(u8);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            byte @ 0x21..=0x7e => write!(f, "'{}'", char::from(byte)),
            byte => write!(f, "0x{byte:02x}"),
        }
    }
}
