//! The CORS protocol of the Fetch standard: preflights are answered, replies say who may read them.

use super::answer::{self, Manner};
use crate::config;
use crate::wire::{Edits, RequestHead};
use bytes::{BufMut, BytesMut};
use std::borrow::Cow;

/// What names the origin that may read a reply.
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";

/// What pages of other origins may do.
#[derive(Debug)]
pub struct Cors {
    /// Who may ask, and the edits that tell them so.
    origins: Vec<(Box<[u8]>, Edits)>,
    /// Who may ask by the end of their host.
    patterns: Box<[Below]>,
    /// The edits for those, but for their names.
    named: Edits,
    any: Option<Edits>,
    /// For all others: that another origin would get another reply.
    none: Edits,
    /// Header lines of a preflight's answer, for those who may ask.
    preflight: Box<[u8]>,
}

/// All hosts below one: `https://*.example.com`, where the star is any number of labels, as Gateway API has it.
#[derive(Debug)]
pub struct Below {
    /// `https://`.
    scheme: Box<[u8]>,
    /// `.example.com`, and a port if there is one.
    end: Box<[u8]>,
}

impl Below {
    /// What is written so; `None` if it is no pattern.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, end) = text.split_once("*")?;
        let is_one = matches!(scheme, "http://" | "https://") && end.starts_with('.') && !end.contains('*');
        is_one.then(|| Self { scheme: scheme.as_bytes().into(), end: end.as_bytes().into() })
    }

    /// Whether an origin is one of those. Its port is part of it.
    pub fn takes(&self, origin: &[u8]) -> bool {
        let labels = origin.strip_prefix(&*self.scheme).and_then(|rest| rest.strip_suffix(&*self.end));
        let is_label = |label: &[u8]| {
            let fits = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(byte);
            !label.is_empty() && label.iter().all(fits)
        };
        labels.is_some_and(|labels| labels.split(|byte| *byte == b'.').all(is_label))
    }
}

impl Cors {
    /// As configured, after the edits that all replies get.
    pub fn new(cors: &config::Cors, reply: &Edits) -> Self {
        let allow = |origin: Option<&str>| {
            let mut set = Vec::new();
            if let Some(origin) = origin {
                set.push((ALLOW_ORIGIN, origin.to_owned()));
            }
            if cors.allow_credentials {
                set.push(("Access-Control-Allow-Credentials", "true".to_owned()));
            }
            if !cors.expose_headers.is_empty() {
                set.push(("Access-Control-Expose-Headers", cors.expose_headers.join(", ")));
            }
            let vary = (origin != Some("*")).then(|| ("Vary", "Origin".to_owned()));
            // What the app itself says of it does not count any more.
            let own = ["Access-Control-Allow-Credentials", "Access-Control-Expose-Headers"];
            reply.then(&Edits::new(own, set, vary))
        };
        let any = cors.allow_origins.iter().any(|origin| origin == "*").then(|| allow(Some("*")));
        let (mut origins, mut patterns) = (Vec::new(), Vec::new());
        for origin in cors.allow_origins.iter().filter(|origin| *origin != "*") {
            match Below::parse(origin) {
                Some(pattern) => patterns.push(pattern),
                None => origins.push((origin.as_bytes().into(), allow(Some(origin)))),
            }
        }
        let refused = ["Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"];
        let none = Edits::new(refused, [], [("Vary", "Origin".to_owned())]);
        let mut preflight = format!("Access-Control-Max-Age: {}\r\n", cors.max_age.get().as_secs());
        for (name, list) in [
            ("Access-Control-Allow-Methods", &cors.allow_methods),
            ("Access-Control-Allow-Headers", &cors.allow_headers),
        ] {
            if !list.is_empty() {
                preflight.push_str(&format!("{name}: {}\r\n", list.join(", ")));
            }
        }
        Self {
            origins,
            patterns: patterns.into(),
            named: allow(None),
            any,
            none: reply.then(&none),
            preflight: preflight.into_bytes().into(),
        }
    }

    /// The edits of a reply to a request.
    pub fn edits(&self, head: &RequestHead<'_>) -> Cow<'_, Edits> {
        self.edits_for(field(head, b"origin"))
    }

    /// The edits of a reply to a page of that origin.
    pub fn edits_for(&self, origin: Option<&[u8]>) -> Cow<'_, Edits> {
        origin.and_then(|origin| self.allowed(origin)).unwrap_or(Cow::Borrowed(&self.none))
    }

    /// Whether a request only asks what may be asked.
    pub fn is_preflight(&self, head: &RequestHead<'_>) -> bool {
        head.method == b"OPTIONS"
            && field(head, b"origin").is_some()
            && field(head, b"access-control-request-method").is_some()
    }

    /// Writes the answer to a preflight, but for [`Self::edits`].
    pub fn write(&self, head: &RequestHead<'_>, manner: Manner, out: &mut BytesMut) {
        answer::begin(204, out);
        if field(head, b"origin").is_some_and(|origin| self.allowed(origin).is_some()) {
            out.put_slice(&self.preflight);
        }
        answer::end(204, &[], false, manner, out);
    }

    fn allowed(&self, origin: &[u8]) -> Option<Cow<'_, Edits>> {
        let named = self.origins.iter().find(|(allowed, _)| **allowed == *origin);
        let named = named.map(|(_, edits)| Cow::Borrowed(edits));
        named.or_else(|| self.below(origin).map(Cow::Owned)).or(self.any.as_ref().map(Cow::Borrowed))
    }

    fn below(&self, origin: &[u8]) -> Option<Edits> {
        self.patterns.iter().find(|pattern| pattern.takes(origin))?;
        let origin = std::str::from_utf8(origin).ok()?;
        let none = std::iter::empty::<&str>();
        Some(self.named.then(&Edits::new(none, [(ALLOW_ORIGIN, origin)], [])))
    }
}

fn field<'h>(head: &RequestHead<'h>, name: &[u8]) -> Option<&'h [u8]> {
    let found = head.fields.iter().find(|field| field.name.of(head.raw).eq_ignore_ascii_case(name))?;
    Some(found.value.of(head.raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_hosts_below_and_nothing_else() {
        let pattern = Below::parse("https://*.example.com").expect("a pattern");
        for origin in ["https://a.example.com", "https://a.b.example.com", "https://x-1.example.com"] {
            assert!(pattern.takes(origin.as_bytes()), "{origin}");
        }
        for origin in [
            "https://example.com",
            "https://.example.com",
            "https://a..example.com",
            "http://a.example.com",
            "https://a.example.com:8443",
            "https://evil.test/.example.com",
            "https://evil.test:80@a.example.com",
            "https://a.example.com.evil.test",
            "https://evilexample.com",
            "https://A.example.com",
            "null",
            "",
        ] {
            assert!(!pattern.takes(origin.as_bytes()), "{origin}");
        }
        let with_port = Below::parse("http://*.a.test:8080").expect("a pattern");
        assert!(with_port.takes(b"http://x.a.test:8080") && !with_port.takes(b"http://x.a.test"));
        for text in
            ["*", "https://*", "https://a*.test", "https://*.*.test", "ftp://*.a.test", "https://a.test"]
        {
            assert!(Below::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn who_matches_is_named_and_others_are_not() {
        let text =
            r#"{"allow_origins": ["https://one.test", "https://*.many.test"], "allow_credentials": true}"#;
        let cors = Cors::new(&serde_json::from_str(text).expect("rules"), &Edits::default());
        let lines = |origin: &str| {
            let edits = cors.edits_for(Some(origin.as_bytes()));
            String::from_utf8(edits.lines().to_vec()).expect("text")
        };
        for origin in ["https://one.test", "https://a.many.test"] {
            let lines = lines(origin);
            assert!(lines.contains(&format!("Access-Control-Allow-Origin: {origin}\r\n")), "{lines}");
            assert!(lines.contains("Vary: Origin\r\n") && lines.contains("Credentials: true\r\n"), "{lines}");
        }
        assert_eq!(lines("https://many.test"), "Vary: Origin\r\n");
    }
}
