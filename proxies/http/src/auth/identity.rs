//! Who a client was found to be, and what of it the app and the client get to see. Pure.

use super::Shown;
use crate::edit::Draft;
use crate::edit::template::claim_text;
use crate::scene::{Scene, split_target};
use serde_json::{Map, Value};

/// What one way to be known has found out.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The name of the user, key or certificate.
    pub user: String,
    /// What is known beside it.
    pub claims: Map<String, Value>,
    /// What the client was known by.
    pub shown: Vec<Shown>,
    /// Header lines for the app.
    pub request: Vec<(String, Vec<u8>)>,
    /// Header lines for the client.
    pub reply: Vec<(String, Vec<u8>)>,
}

/// A client that is known, or let in as nobody.
#[derive(Debug, Clone, Default)]
pub struct Identity {
    /// How it was known; empty for nobody.
    pub method: &'static str,
    /// Its name; empty for nobody.
    pub user: String,
    /// What is known beside it.
    pub claims: Map<String, Value>,
    /// The target without the credentials in its query, if there were any.
    pub target: Option<Box<[u8]>>,
    /// The id that its request has had since it was asked about.
    pub request_id: Option<[u8; 32]>,
    lines: Vec<(String, Vec<u8>)>,
    reply: Vec<(String, Vec<u8>)>,
    dropped: Vec<Box<[u8]>>,
}

impl Identity {
    /// Adds what one way found out. Of two that name a user, the first counts.
    pub fn learn(&mut self, method: &'static str, known: &Known) {
        if self.user.is_empty() {
            self.method = method;
            self.user.clone_from(&known.user);
        }
        for (name, value) in &known.claims {
            self.claims.entry(name.clone()).or_insert_with(|| value.clone());
        }
        self.lines.extend(known.request.iter().cloned());
        self.reply.extend(known.reply.iter().cloned());
    }

    /// What the app is told: X-Auth-Method and -User, and the claims that were asked for by header.
    pub fn tell(&mut self, headers: &[(String, String)]) {
        if self.method.is_empty() {
            return;
        }
        self.lines.push(("X-Auth-Method".to_owned(), self.method.into()));
        self.lines.push(("X-Auth-User".to_owned(), self.user.clone().into_bytes()));
        for (name, claim) in headers {
            let value = self.claim(claim).map(claim_text).filter(|value| !value.is_empty());
            if let Some(value) = value {
                self.lines.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
                self.lines.push((name.clone(), value.into_bytes()));
            }
        }
    }

    /// Keeps from the app what the client was known by: all of it, or with `only_query` what stood in the query, which
    /// would be logged on its way.
    pub fn hide(&mut self, shown: &[Shown], scene: &Scene<'_>, only_query: bool) {
        let (mut names, mut parameters) = (Vec::new(), Vec::new());
        for one in shown {
            match one {
                Shown::Query(name) => parameters.push(name.as_str()),
                Shown::Header(name) if !only_query => self.dropped.push(name.as_bytes().into()),
                Shown::Cookie(name) if !only_query => names.push(name.as_str()),
                // Nobody but this proxy can read it.
                Shown::OwnCookie(name) => names.push(name.as_str()),
                Shown::Header(_) | Shown::Cookie(_) => {}
            }
        }
        if !parameters.is_empty() {
            self.target = Some(without_parameters(scene.target, &parameters));
        }
        if !names.is_empty() {
            self.dropped.push((*b"Cookie").into());
            let left = other_cookies(scene, &names);
            if !left.is_empty() {
                self.lines.push(("Cookie".to_owned(), left));
            }
        }
    }

    /// The claim of that name; where there is none, `a.b` is `b` in `a`.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        find_claim(&self.claims, name)
    }

    /// Puts what the app is told into its request's edits.
    pub fn write(&self, draft: &mut Draft<'_>) {
        self.dropped.iter().for_each(|name| draft.remove(name));
        for (name, value) in &self.lines {
            draft.add(name.as_bytes(), value);
        }
    }

    /// Whether the client is told something too.
    pub fn has_reply(&self) -> bool {
        !self.reply.is_empty()
    }

    /// Puts what the client is told into its reply's edits.
    pub fn write_reply(&self, draft: &mut Draft<'_>) {
        for (name, value) in &self.reply {
            draft.add(name.as_bytes(), value);
        }
    }
}

/// See [`Identity::claim`].
pub fn find_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let (first, rest) = name.split_once('.')?;
    find_claim(claims.get(first)?.as_object()?, rest)
}

/// A target without these query parameters; the others stay as they were written.
pub fn without_parameters(target: &[u8], names: &[&str]) -> Box<[u8]> {
    let (path, query) = split_target(target);
    let stays = |pair: &&[u8]| {
        let mut name = form_urlencoded::parse(pair);
        !name.next().is_some_and(|(name, _)| names.contains(&&*name))
    };
    let left: Vec<&[u8]> = query.split(|byte| *byte == b'&').filter(stays).collect();
    let left = left.join(&b'&');
    if left.is_empty() { path.into() } else { [path, b"?", &left].concat().into() }
}

/// The request's cookies but these, as one field.
fn other_cookies(scene: &Scene<'_>, names: &[&str]) -> Vec<u8> {
    let others = scene.cookies().filter(|(name, _)| !names.iter().any(|gone| gone.as_bytes() == *name));
    others.map(|(name, value)| [name, b"=", value].concat()).collect::<Vec<_>>().join(&b"; "[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::kept;
    use serde_json::json;

    #[test]
    fn claims_are_found_by_their_whole_name_and_then_by_its_parts() {
        let claims = json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}}, "https://x.test/y": 4});
        let claims = claims.as_object().expect("an object");
        for (name, want) in [("a.b", 1), ("a.c.d", 3), ("https://x.test/y", 4)] {
            assert_eq!(find_claim(claims, name), Some(&json!(want)), "{name}");
        }
        assert_eq!(find_claim(claims, "a.d"), None);
        assert_eq!(find_claim(claims, "a.b.c"), None);
    }

    #[test]
    fn credentials_leave_the_query_and_nothing_else_does() {
        for (target, want) in [
            ("/a?key=1&x=%20&key=2", "/a?x=%20"),
            ("/a?key=1", "/a"),
            ("/a?k%65y=1&&y", "/a?&y"),
            ("/a?keys=1", "/a?keys=1"),
            ("/a", "/a"),
        ] {
            let left = without_parameters(target.as_bytes(), &["key"]);
            assert_eq!(String::from_utf8_lossy(&left), want, "{target}");
        }
    }

    #[test]
    fn cookies_of_others_stay() {
        let kept = kept("GET / HTTP/1.1\r\nHost: a\r\nCookie: s=1; b=2\r\nCookie: s.1=3; c=4\r\n\r\n", false);
        let scene = kept.scene("a", None, None);
        assert_eq!(other_cookies(&scene, &["s", "s.1"]), b"b=2; c=4");
    }
}
