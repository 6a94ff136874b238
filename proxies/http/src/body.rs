//! What request bodies are taken: how long, and of which types. Pure.

use crate::config::body::BodyRules;
use crate::error::Error;
use crate::wire::{Framing, Limits, Malformed, RequestHead};

/// The rules of a route.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    /// Media types in small letters; those of a whole kind end in `/`.
    types: Box<[Box<str>]>,
    bytes_max: Option<u64>,
}

impl Bodies {
    /// The rules of a route, or else of its app.
    pub fn new(app: Option<&BodyRules>, route: Option<&BodyRules>) -> Option<Self> {
        let max = route.and_then(|rules| rules.max).or_else(|| app.and_then(|rules| rules.max));
        let own = route.map(|rules| &rules.types).filter(|types| !types.is_empty());
        let types = own.or_else(|| app.map(|rules| &rules.types)).map(Vec::as_slice).unwrap_or_default();
        let types: Box<[Box<str>]> =
            types.iter().map(|text| text.trim_end_matches('*').to_ascii_lowercase().into()).collect();
        let bytes_max = max.map(|max| max.0);
        (max.is_some() || !types.is_empty()).then_some(Self { types, bytes_max })
    }

    /// The limits, with these rules' own bound of bodies.
    pub fn limits(&self, limits: &Limits) -> Limits {
        Limits { body_bytes: limits.body_bytes.min(self.bytes_max.unwrap_or(u64::MAX)), ..*limits }
    }

    /// Refuses a request whose body is not taken.
    pub fn check(&self, head: &RequestHead<'_>, limits: &Limits) -> Result<(), Error> {
        match head.framing {
            Framing::None => return Ok(()),
            Framing::Length(length) if length > self.limits(limits).body_bytes => {
                return Err(Error::Request(Malformed::BodyTooLarge));
            }
            Framing::Length(_) | Framing::Chunked | Framing::Close => {}
        }
        if self.types.is_empty() {
            return Ok(());
        }
        let mut given =
            head.fields.iter().filter(|field| field.name.of(head.raw).eq_ignore_ascii_case(b"content-type"));
        // Two of them could be read in two ways.
        let given = match (given.next(), given.next()) {
            (Some(field), None) => field.value.of(head.raw),
            (None, _) | (Some(_), Some(_)) => return Err(Error::MediaType),
        };
        let given =
            given.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        let fits = |known: &str| {
            given == known.as_bytes() || (known.ends_with('/') && given.starts_with(known.as_bytes()))
        };
        if self.types.iter().any(|known| fits(known)) { Ok(()) } else { Err(Error::MediaType) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Fields;
    use groove_common::config::Size;

    fn check(rules: &BodyRules, lines: &str) -> Result<(), u16> {
        let (bodies, limits) = (Bodies::new(Some(rules), None), Limits::default());
        let raw = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let mut fields = Fields::default();
        let head = RequestHead::parse(raw.as_bytes(), &limits, &mut fields).expect("a good head");
        bodies.expect("rules").check(&head, &limits).map_err(|error| error.status())
    }

    #[test]
    fn bodies_are_told_by_length_and_type() {
        let rules =
            BodyRules { max: Some(Size(10)), types: vec!["application/JSON".into(), "image/*".into()] };
        for (lines, want) in [
            ("Content-Length: 10\r\nContent-Type: application/json; charset=utf-8\r\n", Ok(())),
            ("Content-Length: 1\r\ncontent-type: Image/PNG\r\n", Ok(())),
            ("Transfer-Encoding: chunked\r\nContent-Type: application/json\r\n", Ok(())),
            ("Content-Length: 11\r\nContent-Type: application/json\r\n", Err(413)),
            ("Content-Length: 1\r\nContent-Type: application/jsonx\r\n", Err(415)),
            ("Content-Length: 1\r\nContent-Type: text/plain\r\n", Err(415)),
            ("Content-Length: 1\r\n", Err(415)),
            ("Content-Length: 1\r\nContent-Type: image/png\r\nContent-Type: text/html\r\n", Err(415)),
            ("", Ok(())),
        ] {
            assert_eq!(check(&rules, lines), want, "{lines}");
        }
    }

    #[test]
    fn a_routes_word_counts_before_its_apps() {
        let app = BodyRules { max: Some(Size(10)), types: vec!["a/b".into()] };
        let route = BodyRules { max: Some(Size(20)), types: vec![] };
        let limits = Limits { body_bytes: 15, ..Limits::default() };
        let bodies = Bodies::new(Some(&app), Some(&route)).expect("rules");
        assert_eq!((bodies.limits(&limits).body_bytes, bodies.types.len()), (15, 1));
        assert!(Bodies::new(None, None).is_none());
    }
}
