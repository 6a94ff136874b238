//! Values with `${...}` in them, read once when the configuration is loaded.
//!
//! A template makes a value, never a line: what comes out is looked at as a whole, and if anything in it could end a line
//! (or it is longer than any head should have) there is no value, and the field is left out.

use crate::scene::{Scene, lines};
use groove_common::net::{ClientCertificate, TlsInfo};
use regex::bytes::Captures;
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};
use thiserror::Error;

/// The longest value that a template may make.
pub const VALUE_BYTES_MAX: usize = 8 * 1024;

/// A reply's head as its rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct ReplyScene<'a> {
    /// The status.
    pub status: u16,
    /// The lines of its fields.
    pub fields: &'a [u8],
}

/// What a value may be made of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The request.
    pub request: &'a Scene<'a>,
    /// The reply, where one is edited.
    pub reply: Option<&'a ReplyScene<'a>>,
    /// What `path_pattern` captured.
    pub captures: Option<&'a Captures<'a>>,
}

/// Which head a template is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A request's.
    Request,
    /// A reply's, where the reply can be asked too.
    Reply,
}

/// A value with places to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<[u8]>),
    Value { source: Source, otherwise: Box<[u8]> },
}

/// Where a part of a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    App,
    Client,
    Host,
    Method,
    Path,
    Query,
    RequestId,
    Scheme,
    Status,
    Target,
    Identity(Known),
    Time(Form),
    Tls(Handshake),
    Capture(Box<str>),
    Cookie(Box<str>),
    Header(Box<str>),
    Parameter(Box<str>),
    ReplyHeader(Box<str>),
}

/// Something that is known of who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Method,
    User,
    Claim(Box<str>),
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Http,
    Rfc3339,
    Unix,
}

/// Something that a TLS handshake told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handshake {
    Cipher,
    ClientFingerprint,
    ClientNames,
    ClientSubject,
    Sni,
    Version,
}

/// What is wrong with a template.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message} (character {at})")]
pub struct TemplateError {
    /// Where it is, in characters from 1.
    pub at: usize,
    /// What it is.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// The values that have no name of their own behind a dot.
const PLAIN: [(&str, Source); 21] = [
    ("app", Source::App),
    ("auth.method", Source::Identity(Known::Method)),
    ("auth.user", Source::Identity(Known::User)),
    ("client", Source::Client),
    ("host", Source::Host),
    ("method", Source::Method),
    ("path", Source::Path),
    ("query", Source::Query),
    ("request_id", Source::RequestId),
    ("scheme", Source::Scheme),
    ("status", Source::Status),
    ("target", Source::Target),
    ("time.http", Source::Time(Form::Http)),
    ("time.rfc3339", Source::Time(Form::Rfc3339)),
    ("time.unix", Source::Time(Form::Unix)),
    ("tls.cipher", Source::Tls(Handshake::Cipher)),
    ("tls.client.fingerprint", Source::Tls(Handshake::ClientFingerprint)),
    ("tls.client.names", Source::Tls(Handshake::ClientNames)),
    ("tls.client.subject", Source::Tls(Handshake::ClientSubject)),
    ("tls.sni", Source::Tls(Handshake::Sni)),
    ("tls.version", Source::Tls(Handshake::Version)),
];

/// Those that have.
const NAMED: &str = "path.NAME, query.NAME, cookie.NAME, header.NAME, claim.NAME, reply.NAME";

impl Template {
    /// Reads `text`: `${source}` or `${source:-otherwise}` anywhere in it, `$${` for a plain `${`.
    pub fn parse(text: &str, side: Side) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, after) = rest.split_at(at);
            let inside = after.get(2..).unwrap_or_default();
            if let Some(escaped) = before.strip_suffix('$') {
                literal.push_str(escaped);
                literal.push_str("${");
                rest = inside;
                continue;
            }
            literal.push_str(before);
            let at = text.chars().count() - after.chars().count() + 1;
            let Some((name, behind)) = inside.split_once('}') else {
                let help = "close it with `}`, or write `$${` for the two characters".to_owned();
                return Err(TemplateError { at, message: "this `${` has no end".to_owned(), help });
            };
            let (name, otherwise) = name.split_once(":-").unwrap_or((name, ""));
            let source =
                Source::parse(name, side).map_err(|(message, help)| TemplateError { at, message, help })?;
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal).into_bytes().into()));
            }
            parts.push(Part::Value { source, otherwise: otherwise.as_bytes().into() });
            rest = behind;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal.into_bytes().into()));
        }
        Ok(Self(parts.into()))
    }

    /// The value, if it is always the same.
    pub fn fixed(&self) -> Option<&[u8]> {
        match &*self.0 {
            [] => Some(&[]),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of captures it asks for.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Value { source: Source::Capture(name), .. } => Some(&**name),
            Part::Value { .. } | Part::Text(_) => None,
        })
    }

    /// The value for one message; `None` if there is nothing in it, or something that no field may have.
    pub fn value(&self, subject: &Subject<'_>) -> Option<Box<[u8]>> {
        let mut out = Vec::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Value { source, otherwise } => {
                    let before = out.len();
                    source.write(subject, &mut out);
                    if out.len() == before {
                        out.extend_from_slice(otherwise);
                    }
                }
            }
            if out.len() > VALUE_BYTES_MAX {
                return None;
            }
        }
        field_value(&out).filter(|value| !value.is_empty()).map(Into::into)
    }
}

/// A field's value without outer whitespace (RFC 9110, 5.5); `None` if a byte of it could be taken for the end of a line
/// or of a text, or if it is too long.
pub fn field_value(bytes: &[u8]) -> Option<&[u8]> {
    let is_plain = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    (bytes.len() <= VALUE_BYTES_MAX && bytes.iter().all(is_plain)).then(|| bytes.trim_ascii())
}

impl Source {
    fn parse(name: &str, side: Side) -> Result<Self, (String, String)> {
        if let Some((_, source)) = PLAIN.into_iter().find(|(known, _)| *known == name) {
            if source == Self::Status && side == Side::Request {
                let help = "use it under `response_headers`".to_owned();
                return Err(("a request has no status".to_owned(), help));
            }
            return Ok(source);
        }
        let (kind, rest) = name.split_once('.').unwrap_or((name, ""));
        let of: fn(Box<str>) -> Self = match kind {
            "path" => Self::Capture,
            "claim" => |name| Self::Identity(Known::Claim(name)),
            "cookie" => Self::Cookie,
            "header" => Self::Header,
            "query" => Self::Parameter,
            "reply" if side == Side::Reply => Self::ReplyHeader,
            "reply" => {
                let help = "use it under `response_headers`".to_owned();
                return Err(("there is no reply yet when a request is edited".to_owned(), help));
            }
            _ => {
                let known = PLAIN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
                return Err((
                    format!("there is no value `{name}`"),
                    format!("write one of {known}, {NAMED}"),
                ));
            }
        };
        if rest.is_empty() {
            return Err((format!("`{kind}.` wants a name"), format!("write `${{{kind}.NAME}}`")));
        }
        Ok(of(rest.into()))
    }

    fn write(&self, subject: &Subject<'_>, out: &mut Vec<u8>) {
        let request = subject.request;
        match self {
            Self::App => out.extend_from_slice(request.app.as_bytes()),
            Self::Client => out.extend_from_slice(request.client.as_bytes()),
            Self::Host => out.extend_from_slice(request.host),
            Self::Method => out.extend_from_slice(request.method),
            Self::Path => out.extend_from_slice(request.path()),
            Self::Query => out.extend_from_slice(request.query()),
            Self::RequestId => out.extend_from_slice(request.request_id),
            Self::Scheme => out.extend_from_slice(request.scheme.as_bytes()),
            Self::Target => out.extend_from_slice(request.target),
            Self::Status => {
                if let Some(reply) = subject.reply {
                    out.extend_from_slice(reply.status.to_string().as_bytes());
                }
            }
            Self::Identity(known) => known.write(request, out),
            Self::Time(form) => out.extend_from_slice(form.text(request.now).as_bytes()),
            Self::Tls(part) => {
                let text = request.tls.and_then(|tls| part.text(tls));
                out.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
            Self::Capture(name) => {
                let found = subject.captures.and_then(|captures| match name.parse::<usize>() {
                    Ok(index) => captures.get(index),
                    Err(_) => captures.name(name),
                });
                out.extend_from_slice(found.map(|found| found.as_bytes()).unwrap_or_default());
            }
            Self::Cookie(name) => out.extend_from_slice(request.cookie(name).unwrap_or_default()),
            Self::Header(name) => out.extend_from_slice(request.header(name).unwrap_or_default()),
            Self::Parameter(name) => {
                out.extend_from_slice(request.parameter(name).unwrap_or_default().as_bytes());
            }
            Self::ReplyHeader(name) => {
                let fields = subject.reply.map(|reply| reply.fields).unwrap_or_default();
                let found = lines(fields).find(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
                out.extend_from_slice(found.map(|(_, value)| value).unwrap_or_default());
            }
        }
    }
}

impl Known {
    fn write(&self, request: &Scene<'_>, out: &mut Vec<u8>) {
        let Some(identity) = request.identity else { return };
        match self {
            Self::Method => out.extend_from_slice(identity.method.as_bytes()),
            Self::User => out.extend_from_slice(identity.user.as_bytes()),
            Self::Claim(name) => {
                let text = identity.claim(name).map(claim_text);
                out.extend_from_slice(text.unwrap_or_default().as_bytes());
            }
        }
    }
}

impl Form {
    fn text(self, now: SystemTime) -> String {
        match self {
            Self::Http => httpdate::fmt_http_date(now),
            Self::Rfc3339 => humantime::format_rfc3339_seconds(now).to_string(),
            Self::Unix => now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string(),
        }
    }
}

impl Handshake {
    fn text(self, tls: &TlsInfo) -> Option<String> {
        let certificate = tls.certificate.as_ref();
        match self {
            Self::Cipher => tls.cipher.map(str::to_owned),
            Self::ClientFingerprint => certificate.map(ClientCertificate::fingerprint),
            Self::ClientNames => certificate.map(|it| it.names.join(",")),
            Self::ClientSubject => certificate.and_then(|it| it.subject.clone()),
            Self::Sni => tls.sni.clone(),
            Self::Version => tls.version.map(str::to_owned),
        }
    }
}

/// A claim as a field shows it: texts as they are, members of a list between commas, anything else as JSON.
pub fn claim_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(claim_text).collect::<Vec<_>>().join(","),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}
