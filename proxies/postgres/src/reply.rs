//! Errors as a client gets them: the only place that turns one into wire bytes.

use bytes::{BufMut, BytesMut};
use groove_common::error::Classified;

use crate::console::Refusal;
use crate::error::Error;
use crate::wire::backend::{ErrorFields, put_error};
use crate::wire::{cstr, put, put_cstr};

/// Writes an error that ends the exchange; the session goes on.
pub fn put_exchange_error(out: &mut BytesMut, error: &Error) {
    put_with(out, "ERROR", error);
}

/// Writes an error that ends the session.
pub fn put_session_error(out: &mut BytesMut, error: &Error) {
    put_with(out, "FATAL", error);
}

/// Writes why a command of an operator's is not carried out; the session goes on.
pub(crate) fn put_refusal(out: &mut BytesMut, refusal: &Refusal) {
    let Refusal { code, message, hint } = refusal;
    put_error(out, &ErrorFields { severity: "ERROR", code, message, detail: None, hint: *hint });
}

/// Writes a server's error, and what its client can do about where it came from.
pub(crate) fn put_hinted(out: &mut BytesMut, body: &[u8], hint: &str) {
    put(out, b'E', |out| {
        out.put_slice(body.strip_suffix(&[0]).unwrap_or(body));
        out.put_u8(b'H');
        put_cstr(out, hint.as_bytes());
        out.put_u8(0);
    });
}

fn put_with(out: &mut BytesMut, severity: &'static str, error: &Error) {
    if let Error::Refused(body) = error {
        return put_relayed(out, severity, body);
    }
    let detail = error.detail();
    let fields = ErrorFields {
        severity,
        code: error.sqlstate(),
        message: &error.client_message(),
        detail: detail.as_deref(),
        hint: error.hint(),
    };
    put_error(out, &fields);
}

/// A server's error about our login or the client's settings is the client's affair: it is passed on in the
/// server's words, with the severity it has for the client.
fn put_relayed(out: &mut BytesMut, severity: &str, body: &[u8]) {
    put(out, b'E', |out| {
        let mut rest = body;
        while let Some((kind, tail)) = rest.split_first()
            && let Some((value, tail)) = cstr(tail)
        {
            let value = if matches!(kind, b'S' | b'V') { severity.as_bytes() } else { value };
            out.put_u8(*kind);
            put_cstr(out, value);
            rest = tail;
        }
        out.put_u8(0);
    });
}
