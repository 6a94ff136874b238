//! What this hop says to the server about a request: X-Forwarded-*, Forwarded, X-Real-IP, X-Request-Id, traceparent.

use super::edits::put_line;
use super::{Edits, Name, RequestHead};
use bytes::{BufMut, BytesMut};

/// Digits of a request's id that make a hidden `for`.
const HIDDEN_DIGITS: usize = 16;

/// Which fields are written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "switches, each of one header")]
pub struct Says {
    /// X-Forwarded-For.
    pub x_forwarded_for: bool,
    /// X-Forwarded-Proto.
    pub x_forwarded_proto: bool,
    /// X-Forwarded-Host.
    pub x_forwarded_host: bool,
    /// X-Forwarded-Port.
    pub x_forwarded_port: bool,
    /// X-Real-IP.
    pub x_real_ip: bool,
    /// Forwarded, and whom it names.
    pub forwarded: Option<Node>,
    /// X-Request-Id.
    pub request_id: bool,
    /// traceparent is ours to write.
    pub trace: bool,
}

impl Default for Says {
    fn default() -> Self {
        Self {
            x_forwarded_for: true,
            x_forwarded_proto: true,
            x_forwarded_host: true,
            x_forwarded_port: false,
            x_real_ip: false,
            forwarded: None,
            request_id: true,
            trace: false,
        }
    }
}

/// Whom Forwarded names as `for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// The peer's address.
    Address,
    /// An identifier that says nothing.
    Hidden,
}

/// What is known of a request besides its head.
#[derive(Debug, Clone, Copy)]
pub struct Hop<'a> {
    /// Which fields are written.
    pub says: &'a Says,
    /// The peer's address, as X-Forwarded-For writes it.
    pub client: &'a [u8],
    /// The client's behind all trusted proxies, as X-Real-IP writes it.
    pub real_ip: &'a [u8],
    /// `http` or `https`.
    pub scheme: &'a [u8],
    /// The listener's port.
    pub port: u16,
    /// Whether the peer's own identity fields are believed.
    pub trusted: bool,
    /// The name in Via, or nothing for no Via.
    pub via: &'a [u8],
    /// The peer speaks HTTP/2.
    pub is_http2: bool,
    /// The id of this request, if the peer's is not kept.
    pub request_id: &'a [u8],
    /// The `traceparent` for the server, if it gets one of ours.
    pub trace: Option<&'a [u8]>,
    /// It belongs to the peer's trace, whose `tracestate` stays.
    pub trace_continues: bool,
}

impl Hop<'_> {
    /// Whether what the peer sent of a field is not copied: it is written anew, behind what is believed of it.
    pub(super) fn replaces(&self, known: Name) -> bool {
        let says = self.says;
        (known == Name::XForwardedFor && says.x_forwarded_for)
            || (known == Name::Forwarded && says.forwarded.is_some())
            || (known == Name::XRealIp && says.x_real_ip)
            || (known == Name::TraceParent && says.trace)
            || (known == Name::TraceState && says.trace && !self.trace_continues)
    }

    /// Writes the fields, but those that an edit removes or replaces: an app that reads the first of two would be told
    /// ours.
    pub(super) fn put(&self, head: &RequestHead<'_>, edits: &Edits, out: &mut BytesMut) {
        if self.says.x_forwarded_for && !edits.removes(b"X-Forwarded-For") {
            out.put_slice(b"X-Forwarded-For: ");
            self.put_believed(head, Name::XForwardedFor, out);
            out.put_slice(self.client);
            out.put_slice(b"\r\n");
        }
        let kept = |known| self.trusted && head.fields.find(known).is_some();
        let mut put = |says: bool, known, name: &[u8], value: &[u8]| {
            if says && !kept(known) && !edits.removes(name) {
                put_line(out, name, value);
            }
        };
        let says = self.says;
        put(says.x_forwarded_proto, Name::XForwardedProto, b"X-Forwarded-Proto", self.scheme);
        put(
            says.x_forwarded_host && !head.host.is_empty(),
            Name::XForwardedHost,
            b"X-Forwarded-Host",
            head.host,
        );
        put(says.request_id, Name::XRequestId, b"X-Request-Id", self.request_id);
        if says.x_forwarded_port {
            put(true, Name::XForwardedPort, b"X-Forwarded-Port", self.port.to_string().as_bytes());
        }
        if says.x_real_ip && !edits.removes(b"X-Real-IP") {
            put_line(out, b"X-Real-IP", self.real_ip);
        }
        if let Some(node) = says.forwarded
            && !edits.removes(b"Forwarded")
        {
            self.put_forwarded(head, node, out);
        }
        if let Some(trace) = self.trace
            && !edits.removes(b"traceparent")
        {
            put_line(out, b"traceparent", trace);
        }
    }

    /// What a trusted peer says, in front of what we add.
    fn put_believed(&self, head: &RequestHead<'_>, known: Name, out: &mut BytesMut) {
        if self.trusted {
            for field in head.fields.iter().filter(|field| field.known == known) {
                out.put_slice(field.value.of(head.raw));
                out.put_slice(b", ");
            }
        }
    }

    /// Forwarded (RFC 7239): what is no token is quoted, IPv6 in brackets besides.
    fn put_forwarded(&self, head: &RequestHead<'_>, node: Node, out: &mut BytesMut) {
        out.put_slice(b"Forwarded: ");
        self.put_believed(head, Name::Forwarded, out);
        out.put_slice(b"for=");
        match node {
            Node::Hidden => {
                out.put_slice(b"_");
                out.put_slice(self.request_id.get(..HIDDEN_DIGITS).unwrap_or_default());
            }
            Node::Address if self.client.contains(&b':') => {
                out.put_slice(b"\"[");
                out.put_slice(self.client);
                out.put_slice(b"]\"");
            }
            Node::Address => out.put_slice(self.client),
        }
        if !head.host.is_empty() {
            out.put_slice(b";host=\"");
            out.put_slice(head.host);
            out.put_slice(b"\"");
        }
        out.put_slice(b";proto=");
        out.put_slice(self.scheme);
        out.put_slice(b"\r\n");
    }
}
