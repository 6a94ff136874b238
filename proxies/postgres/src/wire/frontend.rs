//! Messages a client sends: what each type may be, the few that are read, and those we send to servers.

use bytes::{BufMut, BytesMut};

use super::{DecodeError, HEADER, Header, cstr, put, put_cstr};

/// Types of messages from clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// `B`
    Bind,
    /// `C`
    Close,
    /// `d`
    CopyData,
    /// `c`
    CopyDone,
    /// `f`
    CopyFail,
    /// `D`
    Describe,
    /// `E`
    Execute,
    /// `H`
    Flush,
    /// `F`
    FunctionCall,
    /// `P`
    Parse,
    /// `p`: passwords and SASL, by context
    Password,
    /// `Q`
    Query,
    /// `S`
    Sync,
    /// `X`
    Terminate,
}

/// PostgreSQL's bounds on messages: large ones, and those that are small by nature.
const LARGE: usize = 0x3fff_ffff;
const SMALL: usize = 10_000;

/// Reads and checks a header as PostgreSQL's `SocketBackend` does; `None` while it is incomplete.
pub fn header(bytes: &[u8]) -> Result<Option<(Tag, usize)>, DecodeError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (tag, length_max) = match first {
        b'B' => (Tag::Bind, LARGE),
        b'C' => (Tag::Close, SMALL),
        b'd' => (Tag::CopyData, LARGE),
        b'c' => (Tag::CopyDone, SMALL),
        b'f' => (Tag::CopyFail, SMALL),
        b'D' => (Tag::Describe, SMALL),
        b'E' => (Tag::Execute, SMALL),
        b'H' => (Tag::Flush, SMALL),
        b'F' => (Tag::FunctionCall, LARGE),
        b'P' => (Tag::Parse, LARGE),
        b'p' => (Tag::Password, SMALL),
        b'Q' => (Tag::Query, LARGE),
        b'S' => (Tag::Sync, SMALL),
        b'X' => (Tag::Terminate, SMALL),
        other => return Err(DecodeError::FrontendType(other)),
    };
    match Header::read(bytes)? {
        Some(header) if header.total - 1 <= length_max => Ok(Some((tag, header.total))),
        Some(_) => Err(DecodeError::Length),
        None => Ok(None),
    }
}

/// A whole Parse message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The statement's name; empty is the unnamed one.
    pub name: &'a [u8],
    /// The statement's text.
    pub text: &'a [u8],
    /// Text with its terminator and the parameter types: all that makes a statement what it is.
    pub content: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a whole message.
    pub fn read(message: &'a [u8]) -> Result<Parse<'a>, DecodeError> {
        let (name, content) = cstr(body(message)).ok_or(DecodeError::Format)?;
        let (text, types) = cstr(content).ok_or(DecodeError::Format)?;
        let (count, types) = types.split_first_chunk::<2>().ok_or(DecodeError::Format)?;
        if types.len() != usize::from(u16::from_be_bytes(*count)) * 4 {
            return Err(DecodeError::Format);
        }
        Ok(Parse { name, text, content })
    }
}

/// The head of a Bind message: the two names. What follows may still be on its way.
pub fn bind_names(start: &[u8]) -> Option<(&[u8], &[u8])> {
    let (portal, rest) = cstr(body(start))?;
    let (statement, _) = cstr(rest)?;
    Some((portal, statement))
}

/// What an Execute names: its portal, and how many rows it wants at most (0 is all).
pub fn execution(message: &[u8]) -> Option<(&[u8], u32)> {
    let (portal, rest) = cstr(body(message))?;
    let (rows_max, _) = rest.split_first_chunk::<4>()?;
    Some((portal, u32::from_be_bytes(*rows_max)))
}

/// What Describe and Close point at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `S`: a prepared statement.
    Statement(&'a [u8]),
    /// `P`: a portal.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads a whole Describe or Close message.
    pub fn read(message: &'a [u8]) -> Result<Target<'a>, DecodeError> {
        let (kind, rest) = body(message).split_first().ok_or(DecodeError::Format)?;
        match (kind, cstr(rest)) {
            (b'S', Some((name, []))) => Ok(Target::Statement(name)),
            (b'P', Some((name, []))) => Ok(Target::Portal(name)),
            (_, _) => Err(DecodeError::Format),
        }
    }
}

/// The text of a Query, or as much of it as is there.
pub fn query_text(start: &[u8]) -> &[u8] {
    let body = body(start);
    cstr(body).map_or(body, |(text, _)| text)
}

fn body(message: &[u8]) -> &[u8] {
    message.get(HEADER..).unwrap_or_default()
}

/// Writes a Query.
pub fn put_query(out: &mut BytesMut, text: &str) {
    put_query_bytes(out, text.as_bytes());
}

/// Writes a Query of a client's text, which may be in any encoding.
pub fn put_query_bytes(out: &mut BytesMut, text: &[u8]) {
    put(out, b'Q', |out| put_cstr(out, text));
}

/// Writes a Bind of a statement without parameters, and its Execute.
pub fn put_run(out: &mut BytesMut, portal: &[u8], statement: &[u8]) {
    put(out, b'B', |out| {
        put_cstr(out, portal);
        put_cstr(out, statement);
        // No formats, no parameters, no formats of results.
        out.put_slice(&[0; 6]);
    });
    put(out, b'E', |out| {
        put_cstr(out, portal);
        out.put_i32(0);
    });
}

/// The parameters of a whole Bind message as they are on the wire, without those that are NULL.
pub fn bind_parameters(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    let after_names = cstr(body(message)).and_then(|(_, rest)| cstr(rest)).map(|(_, rest)| rest);
    let mut rest = after_names
        .and_then(|rest| rest.split_first_chunk::<2>())
        .and_then(|(formats, rest)| rest.get(usize::from(u16::from_be_bytes(*formats)) * 2..))
        .and_then(|rest| rest.get(2..))
        .unwrap_or_default();
    std::iter::from_fn(move || {
        loop {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    let (value, tail) = tail.split_at_checked(length)?;
                    rest = tail;
                    return Some(value);
                }
                Err(_) => rest = tail,
            }
        }
    })
}

/// Writes a Parse of `content` (text, terminator and types) under another name.
pub fn put_parse(out: &mut BytesMut, name: &[u8], content: &[u8]) {
    put(out, b'P', |out| {
        put_cstr(out, name);
        out.put_slice(content);
    });
}

/// Writes the head of a Bind whose statement has another name; `total` is the original's length, of which
/// `portal` and `statement` are the names. The rest of the original follows unchanged.
pub fn put_bind_head(out: &mut BytesMut, total: usize, portal: &[u8], statement: &[u8], renamed: &[u8]) {
    let length = total - 1 - statement.len() + renamed.len();
    out.put_u8(b'B');
    out.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
    put_cstr(out, portal);
    put_cstr(out, renamed);
}

/// Writes a Bind of the unnamed statement to the unnamed portal, with these texts.
pub fn put_bind_text(out: &mut BytesMut, values: &[&str]) {
    put(out, b'B', |out| {
        put_cstr(out, b"");
        put_cstr(out, b"");
        out.put_i16(0);
        out.put_i16(i16::try_from(values.len()).unwrap_or(i16::MAX));
        for value in values {
            out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
            out.put_slice(value.as_bytes());
        }
        out.put_i16(0);
    });
}

/// Writes an Execute of the unnamed portal for so many rows.
pub fn put_execute(out: &mut BytesMut, rows_max: i32) {
    put(out, b'E', |out| {
        put_cstr(out, b"");
        out.put_i32(rows_max);
    });
}

/// Writes a Describe of a statement.
pub fn put_describe_statement(out: &mut BytesMut, name: &[u8]) {
    put_target(out, b'D', b'S', name);
}

/// Writes a Close of a statement.
pub fn put_close_statement(out: &mut BytesMut, name: &[u8]) {
    put_target(out, b'C', b'S', name);
}

/// Writes a Close of a portal.
pub fn put_close_portal(out: &mut BytesMut, name: &[u8]) {
    put_target(out, b'C', b'P', name);
}

fn put_target(out: &mut BytesMut, tag: u8, kind: u8, name: &[u8]) {
    put(out, tag, |out| {
        out.put_u8(kind);
        put_cstr(out, name);
    });
}

/// Writes a Sync.
pub fn put_sync(out: &mut BytesMut) {
    put(out, b'S', |_| {});
}

/// Writes a CopyFail.
pub fn put_copy_fail(out: &mut BytesMut, reason: &str) {
    put(out, b'f', |out| put_cstr(out, reason.as_bytes()));
}

/// Writes a Terminate.
pub fn put_terminate(out: &mut BytesMut) {
    put(out, b'X', |_| {});
}

/// Writes a PasswordMessage, clear or md5.
pub fn put_password(out: &mut BytesMut, password: &[u8]) {
    put(out, b'p', |out| put_cstr(out, password));
}

/// Writes a SASLInitialResponse.
pub fn put_sasl_initial(out: &mut BytesMut, mechanism: &str, first: &[u8]) {
    put(out, b'p', |out| {
        put_cstr(out, mechanism.as_bytes());
        out.put_i32(i32::try_from(first.len()).unwrap_or(i32::MAX));
        out.put_slice(first);
    });
}

/// Writes a SASLResponse.
pub fn put_sasl_response(out: &mut BytesMut, response: &[u8]) {
    put(out, b'p', |out| out.put_slice(response));
}

/// A SASLInitialResponse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaslInitial<'a> {
    /// What the client chose.
    pub mechanism: &'a [u8],
    /// Its first message, if it does not wait for the server's.
    pub first: Option<&'a [u8]>,
}

/// Reads a SASLInitialResponse.
pub fn sasl_initial(body: &[u8]) -> Result<SaslInitial<'_>, DecodeError> {
    let (mechanism, rest) = cstr(body).ok_or(DecodeError::Text)?;
    let (length, first) = rest.split_first_chunk::<4>().ok_or(DecodeError::Format)?;
    match i32::from_be_bytes(*length) {
        -1 if first.is_empty() => Ok(SaslInitial { mechanism, first: None }),
        length if usize::try_from(length) == Ok(first.len()) => {
            Ok(SaslInitial { mechanism, first: Some(first) })
        }
        _ => Err(DecodeError::Format),
    }
}
