//! Heads from one version's form into the other's. Pure.

use crate::wire::{Field, Framing, Name, ReplyHead, RequestHead};
use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::{BufMut, BytesMut};
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, response};

/// How a request's body goes into the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carriage {
    /// There is none.
    None,
    /// As it is: its length was told.
    Plain,
    /// In chunks, so that its end and its trailers can be told.
    Chunks,
    /// What follows the head is another protocol's, once the server has agreed to that.
    Tunnel,
}

/// A request that is no request of HTTP's: RFC 9113, 8.1.1, has its stream reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// Writes a request's head as HTTP/1.1 has it. `key` is the `Sec-WebSocket-Key` should it be asked for.
pub(super) fn put_request(
    parts: &Parts,
    is_whole: bool,
    key: &[u8],
    out: &mut BytesMut,
) -> Result<Carriage, Malformed> {
    let protocol = parts.extensions.get::<Protocol>().map(Protocol::as_str);
    let carriage = match protocol {
        Some(_) => Carriage::Tunnel,
        None if is_whole => Carriage::None,
        None if parts.headers.contains_key(CONTENT_LENGTH) => Carriage::Plain,
        None => Carriage::Chunks,
    };
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let method = if protocol.is_some() { Method::GET.as_str() } else { parts.method.as_str() };
    put(out, &[method.as_bytes(), b" "]);
    match parts.uri.path_and_query() {
        Some(target) if parts.method != Method::CONNECT || protocol.is_some() => {
            out.put_slice(target.as_str().as_bytes());
        }
        Some(_) | None => out.put_slice(authority.ok_or(Malformed)?),
    }
    out.put_slice(b" HTTP/1.1\r\n");
    let host = parts.headers.get(HOST).map(HeaderValue::as_bytes);
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => return Err(Malformed),
        (Some(authority), _) => put_field(out, b"host", authority),
        (None, _) => {}
    }
    put_cookies(&parts.headers, out);
    for (name, value) in &parts.headers {
        // RFC 8441 has no key: who answers for the server makes one for it.
        let is_told = name == COOKIE || (name == HOST && authority.is_some()) || name == "sec-websocket-key";
        // What promises a body would be waited for.
        let is_void = carriage == Carriage::None && (name == EXPECT || is_positive_length(name, value));
        if is_void && name == CONTENT_LENGTH {
            return Err(Malformed);
        }
        if !is_told && !is_void {
            put_field(out, name.as_str().as_bytes(), value.as_bytes());
        }
    }
    match (carriage, protocol) {
        (Carriage::Chunks, _) => put_field(out, b"transfer-encoding", b"chunked"),
        (Carriage::Tunnel, Some(protocol)) => {
            put_field(out, b"connection", b"upgrade");
            put_field(out, b"upgrade", protocol.as_bytes());
            if protocol == "websocket" {
                put_field(out, b"sec-websocket-key", key);
            }
        }
        (Carriage::None | Carriage::Plain | Carriage::Tunnel, _) => {}
    }
    out.put_slice(b"\r\n");
    Ok(carriage)
}

fn is_positive_length(name: &HeaderName, value: &HeaderValue) -> bool {
    name == CONTENT_LENGTH && value.as_bytes().iter().any(|digit| *digit != b'0')
}

/// HTTP/2 may send one cookie a field, HTTP/1.1 knows one field (RFC 9113, 8.2.3).
fn put_cookies(fields: &HeaderMap, out: &mut BytesMut) {
    let mut before: &[u8] = b"cookie: ";
    for cookie in fields.get_all(COOKIE) {
        put(out, &[before, cookie.as_bytes()]);
        before = b"; ";
    }
    if before == b"; " {
        out.put_slice(b"\r\n");
    }
}

/// Writes the end of a chunked body.
pub(super) fn put_trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    out.put_slice(b"0\r\n");
    put_fields(trailers, out);
    out.put_slice(b"\r\n");
}

fn put_field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    put(out, &[name, b": ", value, b"\r\n"]);
}

fn put(out: &mut BytesMut, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// A reply's head as HTTP/2 has it: without what belongs to a hop of HTTP/1.1. The answer to an extended CONNECT is 200
/// where an Upgrade's is 101 (RFC 8441, 5).
pub(super) fn response(head: &ReplyHead<'_>) -> Option<Response<()>> {
    let switched = head.status == 101;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(if switched { 200 } else { head.status }).ok()?;
    let fields = response.headers_mut();
    fields.reserve(head.fields.len());
    for field in head.fields.iter() {
        let name = field.name.of(head.raw);
        let is_hops = field.known.is_hop_by_hop() && field.known != Name::Trailer;
        if is_hops || (switched && name.eq_ignore_ascii_case(b"sec-websocket-accept")) {
            continue;
        }
        fields.append(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(field.value.of(head.raw)).ok()?,
        );
    }
    Some(response)
}

/// The fields of a trailer section, blank line included.
pub(super) fn trailers(section: &[u8]) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in section.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        fields.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(fields)
}

/// A request for a server, and what of it decides how the reply is read.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) request: Request<()>,
    pub(super) to_head: bool,
    pub(super) framing: Framing,
    /// It asks for a WebSocket: what `Sec-WebSocket-Accept` is to say once the server agrees.
    pub(super) accept: Option<Box<[u8]>>,
}

/// A session's request as HTTP/2 has it. An Upgrade is one only to WebSockets, and if the server knows of RFC 8441: any
/// other is ignored, as any server may (RFC 9110, 7.8).
pub(super) fn request(head: &RequestHead<'_>, scheme: &str, speaks_websockets: bool) -> Option<Asking> {
    let key = head.fields.iter().find(|field| is_named(head.raw, field, b"sec-websocket-key"));
    let wants_websocket = head.upgrade().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
    let accept =
        key.filter(|_| wants_websocket && speaks_websockets).map(|key| accept(key.value.of(head.raw)));
    let uri = Uri::builder().scheme(scheme).authority(head.host).path_and_query(head.target).build().ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(head.method).ok()?;
    *request.uri_mut() = uri;
    if accept.is_some() {
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    let fields = request.headers_mut();
    fields.reserve(head.fields.len());
    for field in head.fields.iter() {
        let is_keys = accept.is_some() && is_named(head.raw, field, b"sec-websocket-key");
        if field.known.is_hop_by_hop() || field.known == Name::Host || is_keys {
            continue;
        }
        let name = HeaderName::from_bytes(field.name.of(head.raw)).ok()?;
        fields.append(name, HeaderValue::from_bytes(field.value.of(head.raw)).ok()?);
    }
    // We pass trailers on; gRPC's servers insist on hearing that.
    fields.insert(TE, HeaderValue::from_static("trailers"));
    Some(Asking { request, to_head: head.method == b"HEAD", framing: head.framing, accept })
}

fn is_named(raw: &[u8], field: &Field, name: &[u8]) -> bool {
    field.known == Name::Other && field.name.of(raw).eq_ignore_ascii_case(name)
}

/// RFC 6455, 4.2.2.
fn accept(key: &[u8]) -> Box<[u8]> {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(hash.finish()).into_bytes().into()
}

/// Writes an interim reply's head.
pub(super) fn put_interim(response: &Response<()>, out: &mut BytesMut) {
    put_status(response.status(), out);
    put_fields(response.headers(), out);
    out.put_slice(b"\r\n");
}

/// Writes the head that answers an Upgrade.
pub(super) fn put_switched(parts: &response::Parts, accept: &[u8], out: &mut BytesMut) {
    put_status(StatusCode::SWITCHING_PROTOCOLS, out);
    put(out, &[b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ", accept, b"\r\n"]);
    put_fields(&parts.headers, out);
    out.put_slice(b"\r\n");
}

/// Writes a reply's head; the pipe ends with the reply. Whether its body is to come in chunks.
pub(super) fn put_reply(parts: &response::Parts, to_head: bool, is_whole: bool, out: &mut BytesMut) -> bool {
    put_status(parts.status, out);
    put_fields(&parts.headers, out);
    let is_void =
        to_head || parts.status == StatusCode::NO_CONTENT || parts.status == StatusCode::NOT_MODIFIED;
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    let in_chunks = !is_void && !has_length && !is_whole;
    if in_chunks {
        out.put_slice(b"transfer-encoding: chunked\r\n");
    } else if is_whole && !is_void && !has_length {
        out.put_slice(b"content-length: 0\r\n");
    }
    out.put_slice(b"connection: close\r\n\r\n");
    in_chunks
}

fn put_status(status: StatusCode, out: &mut BytesMut) {
    let reason = status.canonical_reason().unwrap_or_default();
    put(out, &[b"HTTP/1.1 ", status.as_str().as_bytes(), b" ", reason.as_bytes(), b"\r\n"]);
}

fn put_fields(fields: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in fields {
        put_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}
