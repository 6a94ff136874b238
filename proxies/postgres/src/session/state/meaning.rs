//! What a message of a server's means for the pool, by its words.

use crate::session::prepared::SERVER_NAME_PREFIX;
use crate::wire::backend::error_field;

pub(super) fn is_fatal(error: Option<&[u8]>) -> bool {
    matches!(error.and_then(|body| error_field(body, b'V')), Some(b"FATAL" | b"PANIC"))
}

pub(super) fn has_code(error: Option<&[u8]>, code: &[u8]) -> bool {
    error.and_then(|body| error_field(body, b'C')) == Some(code)
}

/// Whether a statement was parsed when tables or types were others than they are.
pub(crate) fn is_outdated(error: Option<&[u8]>) -> bool {
    let says = |what: &[u8]| {
        let message = error.and_then(|body| error_field(body, b'M'));
        message.is_some_and(|message| memchr::memmem::find(message, what).is_some())
    };
    (has_code(error, b"0A000") && says(b"cached plan must not change result type"))
        || (has_code(error, b"XX000") && says(b"cache lookup failed"))
}

/// Whether a command, by its tag, may change what statements are made of.
pub(super) fn alters(tag: &[u8]) -> bool {
    [&b"ALTER "[..], b"DROP ", b"CREATE VIEW", b"CREATE FUNCTION"].iter().any(|start| tag.starts_with(start))
}

/// Whether a statement of the pool is gone: somebody has deallocated it behind our back.
pub(super) fn misses_ours(error: Option<&[u8]>) -> bool {
    let names_ours = |message| memchr::memmem::find(message, SERVER_NAME_PREFIX.as_bytes()).is_some();
    has_code(error, b"26000") && error.and_then(|body| error_field(body, b'M')).is_some_and(names_ours)
}

/// Whether a setting that is reported says as whom a session acts.
pub(super) fn is_identity(name: &str) -> bool {
    matches!(name, "is_superuser" | "session_authorization")
}
