//! Messages a server sends: the few that are read, and those we send to clients.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{DecodeError, cstr, put, put_cstr};

/// Where a session stands between queries, from ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// `I`: not in a transaction.
    #[default]
    Idle,
    /// `T`: in a transaction.
    Transaction,
    /// `E`: in a transaction that failed.
    Failed,
}

impl Status {
    /// Reads the body of a ReadyForQuery.
    pub fn read(body: &[u8]) -> Result<Status, DecodeError> {
        match body {
            b"I" => Ok(Status::Idle),
            b"T" => Ok(Status::Transaction),
            b"E" => Ok(Status::Failed),
            _ => Err(DecodeError::Format),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Status::Idle => b'I',
            Status::Transaction => b'T',
            Status::Failed => b'E',
        }
    }
}

/// An Authentication message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Done.
    Ok,
    /// The password as it is.
    Cleartext,
    /// md5 with this salt.
    Md5([u8; 4]),
    /// SASL with one of these mechanisms.
    Sasl(Vec<String>),
    /// The server's challenge.
    SaslContinue(Bytes),
    /// The server's proof.
    SaslFinal(Bytes),
    /// Something we do not speak (Kerberos, SSPI, ...), by its number.
    Other(i32),
}

impl Authentication {
    /// Reads the body of an `R` message.
    pub fn read(mut body: Bytes) -> Result<Authentication, DecodeError> {
        if body.len() < 4 {
            return Err(DecodeError::Format);
        }
        match body.get_i32() {
            0 => Ok(Authentication::Ok),
            3 => Ok(Authentication::Cleartext),
            5 => body.first_chunk::<4>().copied().map(Authentication::Md5).ok_or(DecodeError::Format),
            10 => {
                let mut mechanisms = Vec::new();
                let mut rest: &[u8] = &body;
                loop {
                    let (name, tail) = cstr(rest).ok_or(DecodeError::Format)?;
                    if name.is_empty() {
                        return Ok(Authentication::Sasl(mechanisms));
                    }
                    mechanisms.push(String::from_utf8_lossy(name).into_owned());
                    rest = tail;
                }
            }
            11 => Ok(Authentication::SaslContinue(body)),
            12 => Ok(Authentication::SaslFinal(body)),
            other => Ok(Authentication::Other(other)),
        }
    }
}

/// Name and value of a ParameterStatus.
pub fn parameter_status(body: &[u8]) -> Result<(&str, &str), DecodeError> {
    let (name, rest) = cstr(body).ok_or(DecodeError::Format)?;
    let (value, _) = cstr(rest).ok_or(DecodeError::Format)?;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|_| DecodeError::Text);
    Ok((text(name)?, text(value)?))
}

/// Channel and payload of a NotificationResponse.
pub fn notification(body: &[u8]) -> Result<(&[u8], &[u8]), DecodeError> {
    // The process that sent it.
    let rest = body.get(4..).ok_or(DecodeError::Format)?;
    let (channel, rest) = cstr(rest).ok_or(DecodeError::Format)?;
    let (payload, _) = cstr(rest).ok_or(DecodeError::Format)?;
    Ok((channel, payload))
}

/// The values of a DataRow; `None` is NULL.
pub fn data_row(body: &Bytes) -> Result<Vec<Option<Bytes>>, DecodeError> {
    let mut rest = body.clone();
    let take = |rest: &mut Bytes, length: usize| {
        if rest.len() < length { Err(DecodeError::Format) } else { Ok(rest.split_to(length)) }
    };
    let count = take(&mut rest, 2)?.get_u16();
    let mut values = Vec::new();
    for _ in 0..count {
        let length = take(&mut rest, 4)?.get_i32();
        values.push(match usize::try_from(length) {
            Ok(length) => Some(take(&mut rest, length)?),
            Err(_) => None,
        });
    }
    Ok(values)
}

/// One field of an ErrorResponse or NoticeResponse, by its letter.
pub fn error_field(body: &[u8], field: u8) -> Option<&[u8]> {
    let mut rest = body;
    loop {
        let (kind, tail) = rest.split_first()?;
        if *kind == 0 {
            return None;
        }
        let (value, tail) = cstr(tail)?;
        if *kind == field {
            return Some(value);
        }
        rest = tail;
    }
}

/// An error as the protocol tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `ERROR` ends the statement, `FATAL` the session.
    pub severity: &'static str,
    /// SQLSTATE.
    pub code: &'a str,
    /// One line.
    pub message: &'a str,
    /// What more there is to know.
    pub detail: Option<&'a str>,
    /// What to do about it.
    pub hint: Option<&'a str>,
}

/// Writes an ErrorResponse.
pub fn put_error(out: &mut BytesMut, error: &ErrorFields<'_>) {
    put_fields(out, b'E', error);
}

/// Writes a NoticeResponse.
pub fn put_notice(out: &mut BytesMut, notice: &ErrorFields<'_>) {
    put_fields(out, b'N', notice);
}

fn put_fields(out: &mut BytesMut, tag: u8, error: &ErrorFields<'_>) {
    put(out, tag, |out| {
        let mut field = |kind: u8, value: &str| {
            out.put_u8(kind);
            put_cstr(out, value.as_bytes());
        };
        field(b'S', error.severity);
        field(b'V', error.severity);
        field(b'C', error.code);
        field(b'M', error.message);
        if let Some(detail) = error.detail {
            field(b'D', detail);
        }
        if let Some(hint) = error.hint {
            field(b'H', hint);
        }
        out.put_u8(0);
    });
}

/// Writes an Authentication message.
pub fn put_authentication(out: &mut BytesMut, message: &Authentication) {
    put(out, b'R', |out| match message {
        Authentication::Ok => out.put_i32(0),
        Authentication::Cleartext => out.put_i32(3),
        Authentication::Md5(salt) => {
            out.put_i32(5);
            out.put_slice(salt);
        }
        Authentication::Sasl(mechanisms) => {
            out.put_i32(10);
            for mechanism in mechanisms {
                put_cstr(out, mechanism.as_bytes());
            }
            out.put_u8(0);
        }
        Authentication::SaslContinue(data) => {
            out.put_i32(11);
            out.put_slice(data);
        }
        Authentication::SaslFinal(data) => {
            out.put_i32(12);
            out.put_slice(data);
        }
        Authentication::Other(code) => out.put_i32(*code),
    });
}

/// Writes a ParameterStatus.
pub fn put_parameter_status(out: &mut BytesMut, name: &str, value: &str) {
    put(out, b'S', |out| {
        put_cstr(out, name.as_bytes());
        put_cstr(out, value.as_bytes());
    });
}

/// Writes a BackendKeyData.
pub fn put_key(out: &mut BytesMut, pid: i32, secret: &[u8]) {
    put(out, b'K', |out| {
        out.put_i32(pid);
        out.put_slice(secret);
    });
}

/// Writes a NegotiateProtocolVersion.
pub fn put_negotiate(out: &mut BytesMut, version: u32, unknown: &[&str]) {
    put(out, b'v', |out| {
        out.put_u32(version);
        out.put_i32(i32::try_from(unknown.len()).unwrap_or(i32::MAX));
        for option in unknown {
            put_cstr(out, option.as_bytes());
        }
    });
}

/// Writes a ReadyForQuery.
pub fn put_ready(out: &mut BytesMut, status: Status) {
    put(out, b'Z', |out| out.put_u8(status.byte()));
}

/// Writes a ParseComplete.
pub fn put_parse_complete(out: &mut BytesMut) {
    put(out, b'1', |_| {});
}

/// Writes a CloseComplete.
pub fn put_close_complete(out: &mut BytesMut) {
    put(out, b'3', |_| {});
}

/// Writes an EmptyQueryResponse.
pub fn put_empty_query(out: &mut BytesMut) {
    put(out, b'I', |_| {});
}

/// Writes a RowDescription of columns in text format that no table has: name, type, and the type's size.
pub fn put_row_description<'a>(
    out: &mut BytesMut,
    columns: impl ExactSizeIterator<Item = (&'a str, u32, i16)>,
) {
    put(out, b'T', |out| {
        out.put_u16(u16::try_from(columns.len()).unwrap_or(u16::MAX));
        for (name, kind, size) in columns {
            put_cstr(out, name.as_bytes());
            // No table, no column of one.
            out.put_u32(0);
            out.put_u16(0);
            out.put_u32(kind);
            out.put_i16(size);
            // No modifier; text.
            out.put_i32(-1);
            out.put_u16(0);
        }
    });
}

/// Writes a DataRow; `None` is NULL.
pub fn put_data_row<'a>(out: &mut BytesMut, values: impl ExactSizeIterator<Item = Option<&'a str>>) {
    put(out, b'D', |out| {
        out.put_u16(u16::try_from(values.len()).unwrap_or(u16::MAX));
        for value in values {
            match value {
                Some(value) => {
                    out.put_i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
                    out.put_slice(value.as_bytes());
                }
                None => out.put_i32(-1),
            }
        }
    });
}

/// Writes a CommandComplete.
pub fn put_command_complete(out: &mut BytesMut, tag: &str) {
    put(out, b'C', |out| put_cstr(out, tag.as_bytes()));
}
