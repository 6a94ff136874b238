//! What of a request says where it belongs.

use crate::config::{HashKey, SessionKey};
use crate::wire::RequestHead;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::bytes::Regex;
use serde_json::Value;
use std::borrow::Cow;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// What a request's value is to its endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Key {
    /// It belongs nowhere.
    #[default]
    None,
    /// The hash of the value.
    Hash(u64),
    /// The value names an endpoint; see [`super::Plan::token`].
    Named(u64),
}

/// What tells the tenants of an app apart.
#[derive(Debug)]
pub struct Tenants(Source);

impl From<&HashKey> for Tenants {
    fn from(key: &HashKey) -> Self {
        Self(Source::from(key))
    }
}

/// The flow of an app's request: the app's, or that of its tenant.
pub fn flow(app: &str, tenants: Option<&Tenants>, head: &RequestHead<'_>, client: &[u8]) -> u64 {
    let tenant = match tenants.map(|Tenants(source)| source.key(head, client)) {
        Some(Key::Hash(hash) | Key::Named(hash)) => hash,
        Some(Key::None) | None => 0,
    };
    xxh3_64_with_seed(app.as_bytes(), tenant)
}

/// Where in a request the value stands.
#[derive(Debug)]
pub(super) enum Source {
    Header(Box<[u8]>),
    Cookie(Box<[u8]>),
    Query(Box<[u8]>),
    ClientIp,
    Path,
    PathPart(Regex),
    Segment(usize),
    Claim(String),
    /// The cookie is ours and names an endpoint.
    Named(Box<[u8]>),
}

impl From<&HashKey> for Source {
    fn from(key: &HashKey) -> Self {
        match key {
            HashKey::Header(name) => Self::Header(name.as_bytes().into()),
            HashKey::Cookie(name) => Self::Cookie(name.as_bytes().into()),
            HashKey::Query(name) => Self::Query(name.as_bytes().into()),
            HashKey::ClientIp => Self::ClientIp,
            HashKey::Path => Self::Path,
        }
    }
}

impl Source {
    pub(super) fn of_session(key: &SessionKey) -> Result<Self, regex::Error> {
        Ok(match key {
            SessionKey::Cookie(cookie) if cookie.generate => Self::Named(cookie.name.as_bytes().into()),
            SessionKey::Cookie(cookie) => Self::Cookie(cookie.name.as_bytes().into()),
            SessionKey::Header(name) => Self::Header(name.as_bytes().into()),
            SessionKey::Query(name) => Self::Query(name.as_bytes().into()),
            SessionKey::Path(pattern) => Self::PathPart(Regex::new(pattern)?),
            SessionKey::Segment(number) => Self::Segment(*number),
            SessionKey::JwtClaim(name) => Self::Claim(name.clone()),
        })
    }

    /// The key of a request of a client, whose address is for keys that are not in the head.
    pub(super) fn key(&self, head: &RequestHead<'_>, client: &[u8]) -> Key {
        let value: Option<Cow<'_, [u8]>> = match self {
            Self::Header(name) => field(head, name).map(Cow::Borrowed),
            Self::Cookie(name) => cookie(head, name).map(Cow::Borrowed),
            Self::Query(name) => parameter(head.target, name).map(Cow::Borrowed),
            Self::ClientIp => Some(Cow::Borrowed(client)),
            Self::Path => Some(Cow::Borrowed(head.path())),
            Self::PathPart(pattern) => part(pattern, head.path()).map(Cow::Borrowed),
            Self::Segment(number) => head.path().split(|byte| *byte == b'/').nth(*number).map(Cow::Borrowed),
            Self::Claim(name) => claim(head, name).map(|text| Cow::Owned(text.into_bytes())),
            Self::Named(name) => {
                let token = cookie(head, name).and_then(token_of);
                return token.map_or(Key::None, Key::Named);
            }
        };
        of_value(value.as_deref())
    }
}

/// An empty value is none: clients that do not say who they are do not all belong together.
fn of_value(value: Option<&[u8]>) -> Key {
    value.filter(|value| !value.is_empty()).map_or(Key::None, |value| Key::Hash(xxh3_64(value)))
}

/// The key of a claim.
pub(super) fn of_claim(claim: Option<&Value>) -> Key {
    of_value(claim.and_then(claim_text).as_deref().map(str::as_bytes))
}

/// The first field of that name, whatever its case.
fn field<'h>(head: &RequestHead<'h>, name: &[u8]) -> Option<&'h [u8]> {
    let field = head.fields.iter().find(|field| field.name.of(head.raw).eq_ignore_ascii_case(name))?;
    Some(field.value.of(head.raw))
}

/// The first cookie of that name; names of cookies know case (RFC 6265, 5.4).
fn cookie<'h>(head: &RequestHead<'h>, name: &[u8]) -> Option<&'h [u8]> {
    let fields = head.fields.iter().filter(|field| field.name.of(head.raw).eq_ignore_ascii_case(b"cookie"));
    let mut pairs = fields.flat_map(|field| field.value.of(head.raw).split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
        let unquoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        Some(unquoted.unwrap_or(value))
    })
}

/// The first parameter of that name in the target's query, as it is written.
fn parameter<'h>(target: &'h [u8], name: &[u8]) -> Option<&'h [u8]> {
    let query = target.get(memchr::memchr(b'?', target)? + 1..)?;
    query.split(|byte| *byte == b'&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// What the first group matches, or all of the pattern.
fn part<'h>(pattern: &Regex, path: &'h [u8]) -> Option<&'h [u8]> {
    if pattern.captures_len() < 2 {
        return pattern.find(path).map(|found| found.as_bytes());
    }
    pattern.captures(path)?.get(1).map(|found| found.as_bytes())
}

/// A claim of a bearer's token (RFC 7519). Nobody's word is taken for it: it only says where requests go.
fn claim(head: &RequestHead<'_>, name: &str) -> Option<String> {
    let value = field(head, b"authorization")?;
    let (scheme, token) = value.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        return None;
    }
    let payload = token.split(|byte| *byte == b'.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    claim_text(serde_json::from_slice::<Value>(&payload).ok()?.get(name)?)
}

fn claim_text(claim: &Value) -> Option<String> {
    match claim {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// How a token is written in a cookie.
pub(super) fn token_text(token: u64) -> String {
    format!("{token:016x}")
}

fn token_of(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 16)?;
    u64::from_str_radix(text, 16).ok()
}
