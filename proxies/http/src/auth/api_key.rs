//! Keys that name who has them. Only their digests are kept, and what a client shows is looked for by its digest, so that
//! neither the configuration nor the time of a look-up tells a key. Pure.

use super::digest::{Digest, read_digest, sha256};
use super::{Denial, Known, Outcome, Shown};
use crate::config::auth as written;
use crate::scene::Scene;
use groove_common::app::StartError;
use std::collections::HashMap;

/// The keys of an app or a route.
#[derive(Debug)]
pub struct ApiKey {
    places: written::Places,
    names: HashMap<Digest, String>,
    challenge: String,
}

impl ApiKey {
    /// Makes ready what is written.
    pub fn new(app: &str, api_key: &written::ApiKey) -> Result<Self, StartError> {
        let read = |(name, text): (&String, &String)| Some((read_digest(text)?, name.clone()));
        let names = api_key.keys.iter().map(read).collect::<Option<_>>().ok_or("a key is no SHA-256")?;
        Ok(Self { places: api_key.places.clone(), names, challenge: format!("ApiKey realm=\"{app}\"") })
    }

    /// Holds a request against them.
    pub fn look(&self, scene: &Scene<'_>) -> Outcome {
        let Some((key, shown)) = find(&self.places, scene) else {
            return Denial::absent(Some(self.challenge.clone()));
        };
        match self.names.get(&sha256(&key)) {
            Some(name) => {
                Outcome::Known(Box::new(Known { user: name.clone(), shown: vec![shown], ..Known::default() }))
            }
            None => Denial::wrong("nobody has this key", Some(self.challenge.clone())),
        }
    }
}

/// What stands at the first of some places where something does.
pub fn find(places: &written::Places, scene: &Scene<'_>) -> Option<(Vec<u8>, Shown)> {
    // A key may come in `X-Auth-Token`, which is stripped like all that begins so.
    let scene = &Scene { stripped: None, ..*scene };
    if let Some(name) = &places.header
        && let Some(value) = scene.list(name)
    {
        let is_bearer = name.eq_ignore_ascii_case("authorization");
        let value = if is_bearer { bearer(&value) } else { Some(&*value) };
        if let Some(value) = value {
            return Some((value.to_vec(), Shown::Header(name.clone())));
        }
    }
    if let Some(name) = &places.query
        && let Some(value) = scene.parameter(name)
    {
        return Some((value.into_bytes(), Shown::Query(name.clone())));
    }
    let name = places.cookie.as_ref()?;
    let found = scene.cookies().filter(|(found, _)| *found == name.as_bytes());
    let found: Vec<&[u8]> = found.map(|(_, value)| value).collect();
    // Two are none: the app might take the other.
    (!found.is_empty()).then(|| (found.join(&b','), Shown::Cookie(name.clone())))
}

/// What follows `Bearer` (RFC 6750, 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::digest::hex;
    use crate::scene::tests::kept;

    fn look(head: &str) -> Result<(String, Vec<Shown>), Denial> {
        let places = written::Places {
            header: Some("X-Key".into()),
            query: Some("key".into()),
            cookie: Some("key".into()),
        };
        let keys = [("ci".to_owned(), hex(&sha256(b"s3cret")))].into();
        let way = ApiKey::new("a", &written::ApiKey { places, keys }).unwrap();
        match way.look(&kept(head, false).scene("a", None, None)) {
            Outcome::Known(known) => Ok((known.user, known.shown)),
            Outcome::Denied(denial) => Err(denial),
            other @ (Outcome::Instead(_) | Outcome::Taken(_)) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_is_found_where_it_may_be() {
        let head = |target: &str, line: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n{line}\r\n");
        for (target, line, shown) in [
            ("/", "x-key: s3cret\r\n", Shown::Header("X-Key".into())),
            ("/?key=s3cret", "", Shown::Query("key".into())),
            ("/?key=%733cret", "", Shown::Query("key".into())),
            ("/", "Cookie: a=b; key=s3cret\r\n", Shown::Cookie("key".into())),
        ] {
            assert_eq!(look(&head(target, line)), Ok(("ci".to_owned(), vec![shown])), "{target} {line}");
        }
        let kind = |target: &str, line: &str| look(&head(target, line)).unwrap_err().kind;
        assert_eq!(kind("/", ""), crate::auth::Denied::Absent);
        // The first place counts: a wrong key there is not made good by another.
        assert_eq!(kind("/?key=s3cret", "X-Key: no\r\n"), crate::auth::Denied::Wrong);
        // Of two, the app might take the other.
        for line in ["X-Key: s3cret\r\nX-Key: s3cret\r\n", "Cookie: key=s3cret; key=s3cret\r\n"] {
            assert_eq!(kind("/", line), crate::auth::Denied::Wrong, "{line}");
        }
        assert_eq!(kind("/?key=", ""), crate::auth::Denied::Wrong);
    }
}
