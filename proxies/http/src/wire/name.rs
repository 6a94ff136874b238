//! Field names that mean something to a proxy. All others pass as they came.

/// A field name this proxy acts on, or `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Name {
    /// `Accept`: which form our own replies take.
    Accept,
    /// `Connection`: options of one hop, and the names of fields of one hop.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Expect`.
    Expect,
    /// `Forwarded` (RFC 7239): identity, believed only from trusted peers.
    Forwarded,
    /// `Host`.
    Host,
    /// `Keep-Alive`: one hop.
    KeepAlive,
    /// `Proxy-Connection`: one hop, never standardized.
    ProxyConnection,
    /// `TE`: one hop.
    Te,
    /// `traceparent`: the trace that the request belongs to (W3C Trace Context).
    TraceParent,
    /// `tracestate`: what tracing systems say about it.
    TraceState,
    /// `Trailer`.
    Trailer,
    /// `Transfer-Encoding`: one hop.
    TransferEncoding,
    /// `Upgrade`: one hop.
    Upgrade,
    /// `Via`.
    Via,
    /// `X-Forwarded-For`: identity.
    XForwardedFor,
    /// `X-Forwarded-Host`: identity.
    XForwardedHost,
    /// `X-Forwarded-Port`: identity.
    XForwardedPort,
    /// `X-Forwarded-Proto`: identity.
    XForwardedProto,
    /// `X-Real-IP`: identity.
    XRealIp,
    /// `X-Request-Id`.
    XRequestId,
    /// Any other name.
    Other,
}

impl Name {
    /// Which name this is, whatever its case.
    pub fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            3 if is("via") => Self::Via,
            4 if is("host") => Self::Host,
            6 if is("accept") => Self::Accept,
            6 if is("expect") => Self::Expect,
            7 if is("trailer") => Self::Trailer,
            7 if is("upgrade") => Self::Upgrade,
            9 if is("forwarded") => Self::Forwarded,
            9 if is_identity(name, b"x-real-ip") => Self::XRealIp,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::KeepAlive,
            10 if is("tracestate") => Self::TraceState,
            11 if is("traceparent") => Self::TraceParent,
            12 if is_identity(name, b"x-request-id") => Self::XRequestId,
            14 if is("content-length") => Self::ContentLength,
            15 if is_identity(name, b"x-forwarded-for") => Self::XForwardedFor,
            16 if is("proxy-connection") => Self::ProxyConnection,
            16 if is_identity(name, b"x-forwarded-host") => Self::XForwardedHost,
            16 if is_identity(name, b"x-forwarded-port") => Self::XForwardedPort,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            17 if is_identity(name, b"x-forwarded-proto") => Self::XForwardedProto,
            _ => Self::Other,
        }
    }

    /// Whether the field belongs to one hop and is never passed on as it came.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Whether the field says who the client is, so that only trusted peers may send it.
    pub fn is_identity(self) -> bool {
        matches!(
            self,
            Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedPort
                | Self::XForwardedProto
                | Self::XRealIp
                | Self::XRequestId
        )
    }
}

/// Like a comparison without case, with `_` for `-`: CGI-like apps cannot tell `X_Forwarded_For` from
/// `X-Forwarded-For`, so neither may be forged.
fn is_identity(name: &[u8], known: &[u8]) -> bool {
    name.len() == known.len()
        && name.iter().zip(known).all(|(a, b)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-'))
}
