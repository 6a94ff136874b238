//! Heads as they go on: the fields that stay are copied in runs, in the order and the case they came in.

use super::edits::put_line;
use super::{Edits, Field, Framing, Hop, Name, ReplyHead, RequestHead, Version};
use bytes::{BufMut, BytesMut};

/// Bytes that this hop's own fields may take beyond the head's: reserved at once, so that a head is one allocation.
const OWN_FIELDS_BYTES: usize = 256;

/// Writes the head of a request for the server.
pub fn request(head: &RequestHead<'_>, hop: &Hop<'_>, edits: &Edits, out: &mut BytesMut) {
    out.reserve(head.raw.len() + edits.lines().len() + OWN_FIELDS_BYTES);
    out.put_slice(head.method);
    out.put_slice(b" ");
    out.put_slice(head.target);
    out.put_slice(b" HTTP/1.1\r\n");
    if head.fields.host.is_none() && !edits.sets_host() {
        put_line(out, b"Host", head.host);
    }
    copy_fields(head.raw, head.fields.iter(), out, |field| keeps_in_request(head, hop, edits, field));
    hop.put(head, edits, out);
    if !hop.via.is_empty() && !edits.removes(b"Via") {
        out.put_slice(b"Via: ");
        // The version in which it came (RFC 9110, 7.6.3).
        out.put_slice(match head.version {
            _ if hop.is_http2 => b"2.0 ",
            Version::Http10 => b"1.0 ",
            Version::Http11 => b"1.1 ",
        });
        out.put_slice(hop.via);
        out.put_slice(b"\r\n");
    }
    if head.framing == Framing::Chunked {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if let Some(protocol) = head.upgrade() {
        out.put_slice(b"Connection: upgrade\r\n");
        put_line(out, b"Upgrade", protocol);
    }
    out.put_slice(edits.lines());
    out.put_slice(b"\r\n");
}

fn keeps_in_request(head: &RequestHead<'_>, hop: &Hop<'_>, edits: &Edits, field: &Field) -> bool {
    let known = field.known;
    let stays = if known.is_hop_by_hop() || hop.replaces(known) {
        false
    } else if known.is_identity() {
        hop.trusted
    } else {
        matches!(known, Name::Host | Name::ContentLength | Name::Expect)
            || !named_by_connection(head.raw, head.fields, field)
    };
    stays && !edits.removes(field.name.of(head.raw))
}

/// How a reply leaves towards a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Leaving {
    /// The connection ends after it.
    pub close: bool,
    /// The client speaks HTTP/1.0 and is told that the connection stays.
    pub say_keep_alive: bool,
    /// The client cannot read chunks: the body goes out bare, and the connection's end is its end.
    pub unchunk: bool,
    /// The server's close was to be the body's end: it goes out in chunks instead, so that the client's connection
    /// stays.
    pub chunk: bool,
}

/// Writes the head of a final reply for the client.
pub fn reply(head: &ReplyHead<'_>, leaving: &Leaving, edits: &Edits, out: &mut BytesMut) {
    out.reserve(head.raw.len() + edits.lines().len() + OWN_FIELDS_BYTES);
    status_line(head, out);
    if head.fields.has_special || !edits.is_empty() || head.status == 204 {
        copy_fields(head.raw, head.fields.iter(), out, |field| keeps_in_reply(head, edits, field));
    } else {
        copy_fields(head.raw, head.fields.iter(), out, |_| true);
    }
    if (head.fields.chunked && !leaving.unchunk) || leaving.chunk {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if leaving.close {
        out.put_slice(b"Connection: close\r\n");
    } else if leaving.say_keep_alive {
        out.put_slice(b"Connection: keep-alive\r\n");
    }
    out.put_slice(edits.lines());
    out.put_slice(b"\r\n");
}

/// Writes the head of an interim reply (1xx), or of the 101 that ends HTTP on this connection. `lines` come too.
pub fn interim(head: &ReplyHead<'_>, lines: &[u8], out: &mut BytesMut) {
    status_line(head, out);
    copy_fields(head.raw, head.fields.iter(), out, |field| keeps_in_reply(head, &Edits::default(), field));
    if head.status == 101
        && let Some(protocol) = head.fields.upgrade
    {
        out.put_slice(b"Connection: upgrade\r\n");
        put_line(out, b"Upgrade", protocol.of(head.raw));
    }
    out.put_slice(lines);
    out.put_slice(b"\r\n");
}

fn status_line(head: &ReplyHead<'_>, out: &mut BytesMut) {
    let first_field =
        head.fields.iter().next().map_or(head.raw.len().saturating_sub(2), |field| field.line.start());
    out.put_slice(b"HTTP/1.1");
    out.put_slice(head.raw.get(8..first_field).unwrap_or_default());
}

fn keeps_in_reply(head: &ReplyHead<'_>, edits: &Edits, field: &Field) -> bool {
    let stays = if field.known.is_hop_by_hop() {
        false
    } else if field.known == Name::ContentLength {
        head.status >= 200 && head.status != 204
    } else {
        !named_by_connection(head.raw, head.fields, field)
    };
    stays && !edits.removes(field.name.of(head.raw))
}

fn named_by_connection(raw: &[u8], fields: &super::Fields, field: &Field) -> bool {
    fields.connection.names_fields && fields.connection_names(raw, field.name.of(raw))
}

/// Copies the lines of the fields that stay; neighbours go in one piece.
fn copy_fields<'a>(
    raw: &[u8],
    fields: impl Iterator<Item = &'a Field>,
    out: &mut BytesMut,
    stays: impl Fn(&Field) -> bool,
) {
    let mut run: Option<(usize, usize)> = None;
    for field in fields {
        if stays(field) {
            run = Some((run.map_or(field.line.start(), |(start, _)| start), field.line.end()));
        } else if let Some((start, end)) = run.take() {
            out.put_slice(raw.get(start..end).unwrap_or_default());
        }
    }
    if let Some((start, end)) = run {
        out.put_slice(raw.get(start..end).unwrap_or_default());
    }
}
