//! A request as rules look at it, once its head has been read: what it says, who sent it, who that was found to be.
//! Pure: time and identity come in.
//!
//! The fields are read from the head's own lines. What a peer may not say of itself is not among them: fields of one hop,
//! identity from peers that are not trusted, and the fields that only authentication writes.

use crate::auth::Identity;
use crate::wire::edits::Stripped;
use crate::wire::{Name, RequestHead, tokens};
use groove_common::net::TlsInfo;
use std::borrow::Cow;
use std::time::SystemTime;

/// A request, borrowed for as long as a rule looks at it.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The app that was asked.
    pub app: &'a str,
    /// The method.
    pub method: &'a [u8],
    /// Path and query, as they came.
    pub target: &'a [u8],
    /// The host asked for.
    pub host: &'a [u8],
    /// The lines of its fields, blank line included.
    pub fields: &'a [u8],
    /// The client's address, as X-Forwarded-For has it.
    pub client: &'a str,
    /// `http` or `https`, as the client has it.
    pub scheme: &'a str,
    /// Whether its peer's word on identity counts.
    pub trusted: bool,
    /// Its id.
    pub request_id: &'a [u8],
    /// When it came.
    pub now: SystemTime,
    /// The TLS it came over.
    pub tls: Option<&'a TlsInfo>,
    /// Fields that only authentication writes.
    pub stripped: Option<&'a Stripped>,
    /// Who sends it, where that was asked.
    pub identity: Option<&'a Identity>,
}

impl<'a> Scene<'a> {
    /// All before the query.
    pub fn path(&self) -> &'a [u8] {
        split_target(self.target).0
    }

    /// What follows the question mark.
    pub fn query(&self) -> &'a [u8] {
        split_target(self.target).1
    }

    /// The fields that count, in the order they came.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let scene = *self;
        lines(scene.fields).filter(move |(name, _)| scene.shows(name))
    }

    /// The value of the first field of that name that counts.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers().find_map(|(found, value)| found.eq_ignore_ascii_case(name.as_bytes()).then_some(value))
    }

    /// The values of all fields of that name, as one list (RFC 9110, 5.3): what is said twice is not what either says.
    pub fn list(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let fields = self.headers().filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        let values: Vec<&[u8]> = fields.map(|(_, value)| value).collect();
        match *values {
            [] => None,
            [only] => Some(Cow::Borrowed(only)),
            _ => Some(Cow::Owned(values.join(&b", "[..]))),
        }
    }

    fn shows(&self, name: &[u8]) -> bool {
        let known = Name::of(name);
        if known.is_hop_by_hop() || (known.is_identity() && !self.trusted) {
            return false;
        }
        if self.stripped.is_some_and(|stripped| stripped.takes(name)) {
            return false;
        }
        !lines(self.fields)
            .filter(|(name, _)| Name::of(name) == Name::Connection)
            .any(|(_, value)| tokens(value).any(|token| token.eq_ignore_ascii_case(name)))
    }

    /// Its cookies, as written.
    pub fn cookies(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let fields = self.headers().filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie"));
        fields.flat_map(|(_, value)| cookies(value))
    }

    /// The value of the first cookie of that name.
    pub fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        self.cookies().find_map(|(found, value)| (found == name.as_bytes()).then_some(value))
    }

    /// The decoded value of the first query parameter of that name.
    pub fn parameter(&self, name: &str) -> Option<String> {
        form_urlencoded::parse(self.query())
            .find_map(|(found, value)| (found == name).then(|| value.into_owned()))
    }
}

/// What is kept of a request whose reply is edited by what it asked.
#[derive(Debug, Clone)]
pub struct Kept {
    raw: Box<[u8]>,
    method_len: usize,
    fields_at: usize,
    target: Box<[u8]>,
    host: Box<[u8]>,
    client: Box<str>,
    scheme: &'static str,
    trusted: bool,
    request_id: Box<[u8]>,
    now: SystemTime,
    tls: Option<Box<TlsInfo>>,
}

/// What is known of a request's connection.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// The client's address.
    pub client: &'a str,
    /// `http` or `https`, as the connection has it.
    pub scheme: &'static str,
    /// Whether the peer's word on identity counts.
    pub trusted: bool,
    /// Its TLS.
    pub tls: Option<&'a TlsInfo>,
}

impl Kept {
    /// Keeps what a head says.
    pub fn new(
        head: &RequestHead<'_>,
        connection: &Connection<'_>,
        request_id: &[u8],
        now: SystemTime,
    ) -> Self {
        let fields_at = first_field(head);
        let told = |name| head.value(name).filter(|_| connection.trusted);
        let is_https = told(Name::XForwardedProto).map(|proto| proto.eq_ignore_ascii_case(b"https"));
        let scheme = match is_https {
            Some(true) => "https",
            Some(false) => "http",
            None => connection.scheme,
        };
        Self {
            raw: head.raw.into(),
            method_len: head.method.len(),
            fields_at,
            target: head.target.into(),
            host: head.host.into(),
            client: connection.client.into(),
            scheme,
            trusted: connection.trusted,
            request_id: told(Name::XRequestId).unwrap_or(request_id).into(),
            now,
            tls: connection.tls.map(|tls| Box::new(tls.clone())),
        }
    }

    /// The request again.
    pub fn scene<'a>(
        &'a self,
        app: &'a str,
        stripped: Option<&'a Stripped>,
        identity: Option<&'a Identity>,
    ) -> Scene<'a> {
        Scene {
            app,
            method: self.raw.get(..self.method_len).unwrap_or_default(),
            target: &self.target,
            host: &self.host,
            fields: self.raw.get(self.fields_at..).unwrap_or_default(),
            client: &self.client,
            scheme: self.scheme,
            trusted: self.trusted,
            request_id: &self.request_id,
            now: self.now,
            tls: self.tls.as_deref(),
            stripped,
            identity,
        }
    }
}

fn first_field(head: &RequestHead<'_>) -> usize {
    head.fields.iter().next().map_or(head.raw.len().saturating_sub(2), |field| field.line.start())
}

/// Path and query of a target.
pub fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'?', target) {
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..).unwrap_or_default()),
        None => (target, &[]),
    }
}

/// Names and values of the field lines of a head that was read and found valid.
pub fn lines(fields: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    fields.split(|byte| *byte == b'\n').filter_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        Some((line.get(..colon)?, line.get(colon + 1..)?.trim_ascii()))
    })
}

/// Names and values of a Cookie field.
fn cookies(value: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    value.split(|byte| *byte == b';').filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = memchr::memchr(b'=', pair)?;
        Some((pair.get(..equals)?, pair.get(equals + 1..)?))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::wire::{Fields, Limits};

    /// A request from a peer that is not trusted.
    pub(crate) fn kept(head: &str, trusted: bool) -> Kept {
        let mut fields = Fields::default();
        let head = RequestHead::parse(head.as_bytes(), &Limits::default(), &mut fields).expect("a good head");
        let connection = Connection { client: "192.0.2.7", scheme: "http", trusted, tls: None };
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        Kept::new(&head, &connection, b"id42", now)
    }

    #[test]
    fn what_a_peer_may_not_say_is_not_seen() {
        let head = "GET /a?x=1%0a&y=2 HTTP/1.1\r\nHost: shop.test\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
                    X-Forwarded-Proto: https\r\nX_Auth_User: root\r\nX-Plain: yes\r\nCookie: a=1; b=2=3\r\n\r\n";
        let stripped = Stripped::new::<&str>(&[]);
        let stranger = kept(head, false);
        let scene = stranger.scene("shop", Some(&stripped), None);
        for hidden in ["connection", "x-hop", "x-forwarded-proto", "x_auth_user"] {
            assert_eq!(scene.header(hidden), None, "{hidden}");
        }
        assert_eq!((scene.header("x-plain"), scene.scheme), (Some(b"yes".as_slice()), "http"));
        assert_eq!((scene.cookie("a"), scene.cookie("b")), (Some(b"1".as_slice()), Some(b"2=3".as_slice())));
        assert_eq!((scene.parameter("x").as_deref(), scene.parameter("z")), (Some("1\n"), None));
        assert_eq!(
            (scene.method, scene.path(), scene.query()),
            (&b"GET"[..], &b"/a"[..], &b"x=1%0a&y=2"[..])
        );
        let friend = kept(head, true);
        let scene = friend.scene("shop", None, None);
        assert_eq!((scene.header("x-forwarded-proto"), scene.scheme), (Some(b"https".as_slice()), "https"));
        assert_eq!(scene.header("x_auth_user"), Some(b"root".as_slice()));
        let twice = kept("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\n\r\n", true);
        assert_eq!(twice.scene("shop", None, None).list("X-A").as_deref(), Some(b"1, 2".as_slice()));
    }
}
