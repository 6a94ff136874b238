//! Why a client does not get what it asked for.

use bytes::{Bytes, BytesMut};

use super::statement::Refusal;
use crate::error::Error;
use crate::wire::backend::{ErrorFields, put_error};
use crate::wire::{HEADER, put};

/// What ends a statement, or a session.
#[derive(Debug)]
pub enum Trouble {
    /// The leader's error: the body of its ErrorResponse.
    Said(Bytes),
    /// It cannot be replicated.
    Refused(Refusal),
    /// An error of ours.
    Own {
        /// SQLSTATE.
        code: &'static str,
        /// What it is.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The session ends.
    Fatal(Error),
}

impl From<Refusal> for Trouble {
    fn from(refusal: Refusal) -> Trouble {
        Trouble::Refused(refusal)
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Trouble {
        Trouble::Fatal(error)
    }
}

impl Trouble {
    /// An error of ours.
    pub fn own(code: &'static str, message: impl Into<String>, hint: &'static str) -> Trouble {
        Trouble::Own { code, message: message.into(), hint }
    }

    /// The leader is another one by now; what the transaction did there is rolled back.
    pub fn leader_lost() -> Trouble {
        Trouble::own(
            "40001",
            "the group's leader has changed: the transaction is rolled back",
            "Run the transaction again.",
        )
    }

    /// Writes the ErrorResponse; a fatal one is not for here.
    pub fn put(&self, out: &mut BytesMut) {
        match self {
            Trouble::Said(body) => put(out, b'E', |out| out.extend_from_slice(body)),
            Trouble::Refused(refusal) => put_error(out, &fields("0A000", &refusal.message, refusal.hint)),
            Trouble::Own { code, message, hint } => put_error(out, &fields(code, message, hint)),
            Trouble::Fatal(error) => crate::reply::put_exchange_error(out, error),
        }
        debug_assert!(out.len() > HEADER);
    }
}

fn fields<'a>(code: &'a str, message: &'a str, hint: &'a str) -> ErrorFields<'a> {
    ErrorFields { severity: "ERROR", code, message, detail: None, hint: Some(hint) }
}
