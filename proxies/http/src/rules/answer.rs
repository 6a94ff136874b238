//! Answers that no server is asked for: redirects and static ones.

use super::cors::Cors;
use super::rewrite::Place;
use crate::config;
use crate::mirror::Mirror;
use crate::wire::RequestHead;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;

/// What a route does besides choosing servers.
#[derive(Debug, Default)]
pub struct Action {
    /// What is asked of the server instead.
    pub rewrite: Option<Place>,
    /// What the client is told instead.
    pub answer: Option<Answer>,
    /// What pages of other origins may do.
    pub cors: Option<Cors>,
    /// Who else gets the requests.
    pub mirror: Option<Arc<Mirror>>,
}

impl Action {
    /// Whether there is anything to do.
    pub fn is_some(&self) -> bool {
        self.rewrite.is_some() || self.answer.is_some() || self.cors.is_some() || self.mirror.is_some()
    }
}

/// An answer that no server is asked for.
#[derive(Debug)]
pub enum Answer {
    /// Somewhere else.
    Redirect(Redirect),
    /// This.
    Fixed {
        /// The status.
        status: u16,
        /// Its header lines.
        lines: Box<[u8]>,
        /// Its body.
        body: Box<[u8]>,
    },
}

/// Sends the client elsewhere.
#[derive(Debug)]
pub struct Redirect {
    status: u16,
    scheme: Option<Box<str>>,
    host: Option<Box<str>>,
    port: Option<u16>,
    path: Option<Place>,
}

/// What of the connection decides how an answer is written.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The client's connection ends with it.
    pub close: bool,
    /// The client speaks HTTP/1.0.
    pub is_http10: bool,
}

impl Answer {
    /// A redirect of a route that matched so many bytes of the path.
    pub fn redirect(redirect: &config::Redirect, matched: usize) -> Self {
        Self::Redirect(Redirect {
            status: redirect.status,
            scheme: redirect.scheme.as_deref().map(Into::into),
            host: redirect.host.as_deref().map(Into::into),
            port: redirect.port,
            path: Place::new(redirect.path.as_deref(), redirect.prefix.as_deref(), matched),
        })
    }

    /// A static answer.
    pub fn fixed(respond: &config::Respond) -> Self {
        let mut lines = Vec::new();
        for (name, value) in &respond.headers {
            lines.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        Self::Fixed { status: respond.status, lines: lines.into(), body: respond.body.as_bytes().into() }
    }

    /// The status that a client sees.
    pub fn status(&self) -> u16 {
        match self {
            Self::Redirect(redirect) => redirect.status,
            Self::Fixed { status, .. } => *status,
        }
    }

    /// Whether it only asks for another scheme: who speaks that already is served, or would go round in circles.
    pub fn wants_scheme(&self) -> Option<&str> {
        match self {
            Self::Redirect(Redirect { scheme, host: None, path: None, .. }) => scheme.as_deref(),
            Self::Redirect(_) | Self::Fixed { .. } => None,
        }
    }

    /// Writes it.
    pub fn write(&self, head: &RequestHead<'_>, scheme: &str, manner: Manner, out: &mut BytesMut) {
        let (status, is_head) = (self.status(), head.method == b"HEAD");
        match self {
            Self::Redirect(redirect) => {
                begin(status, out);
                out.put_slice(b"Location: ");
                redirect.location(head, scheme, out);
                out.put_slice(b"\r\n");
                end(status, &[], is_head, manner, out);
            }
            Self::Fixed { lines, body, .. } => {
                begin(status, out);
                out.put_slice(lines);
                end(status, body, is_head, manner, out);
            }
        }
    }
}

/// Writes a status line.
pub(super) fn begin(status: u16, out: &mut BytesMut) {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    out.put_slice(format!("HTTP/1.1 {status} {}\r\n", reason.unwrap_or_default()).as_bytes());
}

/// Writes what follows the lines of an answer's own.
pub(super) fn end(status: u16, body: &[u8], is_head: bool, manner: Manner, out: &mut BytesMut) {
    let has_body = !matches!(status, 204 | 304);
    if has_body {
        out.put_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    if manner.close {
        out.put_slice(b"Connection: close\r\n");
    } else if manner.is_http10 {
        out.put_slice(b"Connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
    if has_body && !is_head {
        out.put_slice(body);
    }
}

impl Redirect {
    /// Always absolute: who reads it need not know what it asked for.
    fn location(&self, head: &RequestHead<'_>, scheme: &str, out: &mut BytesMut) {
        let asked_scheme = scheme;
        let scheme = self.scheme.as_deref().unwrap_or(asked_scheme);
        let (asked_host, asked_port) = split_port(head.host);
        out.put_slice(scheme.as_bytes());
        out.put_slice(b"://");
        out.put_slice(self.host.as_deref().map_or(asked_host, str::as_bytes));
        // Another scheme has its own usual port, as Gateway API has it.
        let kept = asked_port.filter(|_| self.scheme.is_none() && self.host.is_none());
        let usual = if scheme == "https" { 443 } else { 80 };
        match self.port {
            Some(port) if port != usual => out.put_slice(format!(":{port}").as_bytes()),
            Some(_) => {}
            None => {
                if let Some(port) = kept {
                    out.put_slice(b":");
                    out.put_slice(port);
                }
            }
        }
        match &self.path {
            Some(place) => out.put_slice(&place.of(head.target)),
            None => out.put_slice(head.target),
        }
    }
}

fn split_port(host: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memrchr(b':', host) {
        Some(colon) if host.last() != Some(&b']') => {
            (host.get(..colon).unwrap_or_default(), host.get(colon + 1..))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fields, Limits};

    fn location(redirect: &str, matched: &str, host: &str, target: &str) -> String {
        let redirect: config::Redirect = serde_json::from_str(redirect).expect("a redirect");
        let raw = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (mut fields, mut out) = (Fields::default(), BytesMut::new());
        let head = RequestHead::parse(raw.as_bytes(), &Limits::default(), &mut fields).expect("a good head");
        let manner = Manner { close: false, is_http10: false };
        Answer::redirect(&redirect, matched.len()).write(&head, "http", manner, &mut out);
        let text = String::from_utf8(out.to_vec()).expect("text");
        text.lines().find_map(|line| line.strip_prefix("Location: ")).expect("a location").to_owned()
    }

    #[test]
    fn a_redirect_changes_what_it_names_and_keeps_the_rest() {
        for (redirect, host, want) in [
            (r#"{"scheme": "https"}"#, "a.test", "https://a.test/api/x?y"),
            (r#"{"scheme": "https"}"#, "a.test:8080", "https://a.test/api/x?y"),
            (r#"{"scheme": "https", "port": 8443}"#, "a.test:8080", "https://a.test:8443/api/x?y"),
            (r#"{"port": 80}"#, "a.test:8080", "http://a.test/api/x?y"),
            (r#"{"prefix": "/v2"}"#, "a.test:8080", "http://a.test:8080/v2/x?y"),
            (r#"{"path": "/"}"#, "[::1]:81", "http://[::1]:81/?y"),
            (r#"{"host": "b.test"}"#, "a.test:8080", "http://b.test/api/x?y"),
        ] {
            assert_eq!(location(redirect, "/api", host, "/api/x?y"), want, "{redirect} {host}");
        }
    }
}
