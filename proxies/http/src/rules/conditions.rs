//! Headers, query parameters and cookies that a request must have for a route to take it.

use crate::config::{Match, ValueMatch};
use crate::wire::RequestHead;
use regex::bytes::{Regex, RegexBuilder};
use std::borrow::Cow;

/// The largest program that an expression may become.
const PATTERN_BYTES_MAX: usize = 256 << 10;

/// An expression that has to match all of a text.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let whole = format!("^(?:{text})$");
    let built =
        RegexBuilder::new(&whole).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| {
        // Of several lines the last says what; those before show a text that nobody wrote.
        let said = error.to_string();
        said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// What is asked of one value.
#[derive(Debug)]
enum Wanted {
    Exact(Box<[u8]>),
    Regex(Box<Regex>),
    Present(bool),
}

impl Wanted {
    fn new(value: &ValueMatch) -> Result<Self, String> {
        Ok(match value {
            ValueMatch::Exact(text) => Self::Exact(text.as_bytes().into()),
            ValueMatch::Regex(text) => Self::Regex(Box::new(pattern(text)?)),
            ValueMatch::Present(present) => Self::Present(*present),
        })
    }

    /// Whether one of the values will do; of no value, whether that will do.
    fn takes<'v>(&self, values: impl Iterator<Item = Cow<'v, [u8]>>) -> bool {
        let mut values = values;
        match self {
            Self::Exact(exact) => values.any(|value| *value == **exact),
            Self::Regex(regex) => values.any(|value| regex.is_match(&value)),
            Self::Present(present) => values.next().is_some() == *present,
        }
    }
}

/// What a route asks of a request beyond its path and method. All of it must hold.
#[derive(Debug)]
pub struct Conditions {
    headers: Vec<(Box<[u8]>, Wanted)>,
    query: Vec<(Box<[u8]>, Wanted)>,
    cookies: Vec<(Box<[u8]>, Wanted)>,
}

impl Conditions {
    /// Those of a match, if it has any.
    pub fn new(matches: &Match) -> Result<Option<Self>, String> {
        let all = |wanted: &std::collections::BTreeMap<String, ValueMatch>| {
            let one =
                |(name, value): (&String, &ValueMatch)| Ok((name.as_bytes().into(), Wanted::new(value)?));
            wanted.iter().map(one).collect::<Result<Vec<_>, String>>()
        };
        let (headers, query, cookies) =
            (all(&matches.headers)?, all(&matches.query)?, all(&matches.cookies)?);
        let any = !(headers.is_empty() && query.is_empty() && cookies.is_empty());
        Ok(any.then_some(Self { headers, query, cookies }))
    }

    /// How many of each there are: with more of them a route is the more specific one.
    pub fn precedence(&self) -> (usize, usize, usize) {
        (self.headers.len(), self.query.len(), self.cookies.len())
    }

    /// Whether all hold.
    pub fn hold(&self, head: &RequestHead<'_>) -> bool {
        let header = |name: &[u8]| {
            let named = head.fields.iter().filter(|field| field.name.of(head.raw).eq_ignore_ascii_case(name));
            named.map(|field| Cow::Borrowed(field.value.of(head.raw))).collect::<Vec<_>>()
        };
        self.headers.iter().all(|(name, wanted)| wanted.takes(header(name).into_iter()))
            && self.query.iter().all(|(name, wanted)| wanted.takes(parameter(head, name).into_iter()))
            && self.cookies.iter().all(|(name, wanted)| wanted.takes(cookie(head, name)))
    }
}

/// A parameter of the query: the first of that name, decoded.
fn parameter<'h>(head: &RequestHead<'h>, name: &[u8]) -> Option<Cow<'h, [u8]>> {
    let at = memchr::memchr(b'?', head.target)?;
    let query = head.target.get(at + 1..).unwrap_or_default();
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (given, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (pair.get(..at).unwrap_or_default(), pair.get(at + 1..).unwrap_or_default()),
            None => (pair, &[][..]),
        };
        (*decoded(given) == *name).then(|| decoded(value))
    })
}

/// What forms write with `%` and `+`. What is no such sequence stays as it is.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let both = digit(text.get(at + 1)).zip(digit(text.get(at + 2)));
        match (byte, both) {
            (b'%', Some((high, low))) => {
                out.extend(u8::try_from(high * 16 + low));
                at += 2;
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

/// The values of the cookies of that name (RFC 6265, 5.4).
fn cookie<'h>(head: &RequestHead<'h>, name: &[u8]) -> impl Iterator<Item = Cow<'h, [u8]>> {
    let raw = head.raw;
    let fields = head.fields.iter().filter(|field| field.name.of(raw).eq_ignore_ascii_case(b"cookie"));
    let pairs = fields.flat_map(|field| field.value.of(raw).split(|byte| *byte == b';'));
    pairs
        .filter_map(move |pair| {
            let pair = pair.trim_ascii();
            let value = pair.strip_prefix(name)?.strip_prefix(b"=")?;
            Some(Cow::Borrowed(value))
        })
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Fields, Limits};

    fn conditions(text: &str) -> Conditions {
        let matches: Match = serde_json::from_str(text).expect("a match");
        Conditions::new(&matches).expect("good expressions").expect("conditions")
    }

    fn holds(conditions: &Conditions, target: &str, fields_text: &str) -> bool {
        let raw = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n{fields_text}\r\n");
        let mut fields = Fields::default();
        let head = RequestHead::parse(raw.as_bytes(), &Limits::default(), &mut fields).expect("a good head");
        conditions.hold(&head)
    }

    #[test]
    fn headers_are_matched_by_value_expression_and_presence() {
        let exact = conditions(r#"{"headers": {"X-Env": "canary"}}"#);
        assert!(
            holds(&exact, "/", "x-env: canary\r\n") && holds(&exact, "/", "X-Env: a\r\nX-Env: canary\r\n")
        );
        assert!(!holds(&exact, "/", "X-Env: canary2\r\n") && !holds(&exact, "/", ""));
        let regex = conditions(r#"{"headers": {"X-Env": {"regex": "can|dev[0-9]+"}}}"#);
        assert!(holds(&regex, "/", "X-Env: dev12\r\n") && holds(&regex, "/", "X-Env: can\r\n"));
        assert!(!holds(&regex, "/", "X-Env: canary\r\n"), "all of the value is meant");
        let present = conditions(r#"{"headers": {"X-Env": {"present": true}, "X-No": {"present": false}}}"#);
        assert!(holds(&present, "/", "X-Env:\r\n") && !holds(&present, "/", ""));
        assert!(!holds(&present, "/", "X-Env: 1\r\nX-No: 1\r\n"));
    }

    #[test]
    fn queries_are_decoded_and_the_first_of_a_name_counts() {
        let query = conditions(r#"{"query": {"v": "a b"}}"#);
        for target in ["/?v=a+b", "/?v=a%20b", "/?x=1&v=a+b&v=c", "/?%76=a+b"] {
            assert!(holds(&query, target, ""), "{target}");
        }
        for target in ["/", "/?v=a", "/?v=c&v=a+b", "/?vv=a+b", "/?v=a%2", "/v=a+b"] {
            assert!(!holds(&query, target, ""), "{target}");
        }
    }

    #[test]
    fn cookies_are_found_wherever_they_stand() {
        let beta = conditions(r#"{"cookies": {"beta": "1"}}"#);
        assert!(
            holds(&beta, "/", "Cookie: a=b; beta=1; c\r\n")
                && holds(&beta, "/", "cookie: a=b\r\nCookie: beta=1\r\n")
        );
        assert!(!holds(&beta, "/", "Cookie: xbeta=1; beta=12; beta\r\n"));
    }

    #[test]
    fn an_expression_that_is_none_or_too_large_is_refused() {
        assert!(pattern("a(").is_err() && pattern("(a{1000}){1000}").is_err());
        assert!(pattern("a|b").expect("a good one").is_match(b"b"));
    }
}
