//! Who may ask: between route and lease, the one place where a request is held against what `auth:` wants.
//!
//! ```text
//!             ┌─ absent ────┐
//!  scene ─► way ─ wrong ────┤ any: the first that knows it     ┌─ Admitted(Identity) ─► edits ─► app
//!             ├─ forbidden ─┤ all: each has to        ─► verdict ─ Denied(Error) ─► 401, 403, 503
//!             ├─ unreachable┘                                  └─ Answered ─► redirects, the answer of who was asked
//!             └─ known, or an answer of its own
//! ```
//!
//! What decides is pure and has its own files: passwords, token rules, signatures, sealed cookies, which of many outcomes
//! counts ([`combine`]). Around it are the three that ask others: key sets, forward authentication, OpenID.

pub mod api_key;
pub mod basic;
pub mod combine;
pub mod digest;
pub mod forward;
pub mod hmac;
pub mod identity;
pub mod jwks;
pub mod jwt;
pub mod mtls;
pub mod oidc;
pub mod outbound;
pub mod password;
pub mod pem;
pub mod providers;
pub mod token;

pub use identity::{Identity, Known};
pub use providers::Providers;

use crate::config::auth as written;
use crate::error::Error;
use crate::route::PathMatch;
use crate::scene::Scene;
use combine::Seen;
use groove_common::app::StartError;
use std::sync::Arc;

/// What a client was known by, so that it can be kept from the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// A header.
    Header(String),
    /// A query parameter.
    Query(String),
    /// A cookie.
    Cookie(String),
    /// A cookie that this proxy made for itself.
    OwnCookie(String),
}

/// What one way makes of a request.
#[derive(Debug)]
pub enum Outcome {
    /// It knows who sends it.
    Known(Box<Known>),
    /// It does not let it in.
    Denied(Denial),
    /// It does not let it in, and has an answer of its own for that: a login page, what the one who was asked said.
    Instead(Box<Answer>),
    /// The request was for this way itself: the end of a login, a logout.
    Taken(Box<Answer>),
}

/// Why a way does not let a request in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// What it comes to.
    pub kind: Denied,
    /// For the log. Nothing of what the client showed is in it.
    pub reason: &'static str,
    /// What WWW-Authenticate is to say.
    pub challenge: Option<String>,
}

/// What a denial comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// Nothing was shown.
    Absent,
    /// What was shown is not good.
    Wrong,
    /// Who it is is known, and may not.
    Forbidden,
    /// Who would know cannot be reached.
    Unreachable,
}

impl Denial {
    /// Nothing was shown.
    pub fn absent(challenge: Option<String>) -> Outcome {
        Outcome::Denied(Self { kind: Denied::Absent, reason: "nothing was shown", challenge })
    }

    /// What was shown is not good.
    pub fn wrong(reason: &'static str, challenge: Option<String>) -> Outcome {
        Outcome::Denied(Self { kind: Denied::Wrong, reason, challenge })
    }

    /// Who it is is known, and may not.
    pub fn forbidden(reason: &'static str) -> Outcome {
        Outcome::Denied(Self { kind: Denied::Forbidden, reason, challenge: None })
    }

    /// Who would know cannot be reached.
    pub fn unreachable(reason: &'static str) -> Outcome {
        Outcome::Denied(Self { kind: Denied::Unreachable, reason, challenge: None })
    }
}

/// A whole reply that is not an error of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, but for those that frame it.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Its body.
    pub body: bytes::Bytes,
    /// Why, for the log.
    pub reason: &'static str,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Admitted(Box<Identity>),
    /// It does not.
    Denied(Error),
    /// It is answered here.
    Answered(Box<Answer>),
}

/// What `auth:` wants of an app or a route.
#[derive(Debug)]
pub struct Auth {
    ways: Vec<Way>,
    needs_all: bool,
    anonymous: Vec<PathMatch>,
    headers: Vec<(String, String)>,
    forwards_credentials: bool,
}

#[derive(Debug)]
enum Way {
    Basic(Box<basic::Basic>),
    ApiKey(api_key::ApiKey),
    Jwt(jwt::Jwt),
    Forward(Arc<forward::Forward>),
    Hmac(hmac::Hmac),
    Mtls(mtls::Mtls),
    Oidc(Box<oidc::Oidc>),
}

impl Way {
    fn name(&self) -> &'static str {
        match self {
            Self::Basic(_) => "basic",
            Self::ApiKey(_) => "api_key",
            Self::Jwt(_) => "jwt",
            Self::Forward(_) => "forward_auth",
            Self::Hmac(_) => "hmac",
            Self::Mtls(_) => "mtls",
            Self::Oidc(_) => "oidc",
        }
    }

    async fn look(&self, scene: &Scene<'_>, body: Option<&[u8]>) -> Outcome {
        match self {
            Self::Basic(way) => way.look(scene).await,
            Self::ApiKey(way) => way.look(scene),
            Self::Jwt(way) => way.look(scene).await,
            Self::Forward(way) => way.look(scene).await,
            Self::Hmac(way) => way.look(scene, body),
            Self::Mtls(way) => way.look(scene),
            Self::Oidc(way) => way.look(scene).await,
        }
    }
}

impl Auth {
    /// Makes ready what is written; `None` where nobody is asked.
    pub fn new(
        app: &str,
        auth: &written::Auth,
        providers: &mut Providers,
    ) -> Result<Option<Self>, StartError> {
        if auth.public {
            return Ok(None);
        }
        let (written, needs_all) = auth.ways();
        let mut ways = Vec::with_capacity(written.len());
        for way in written {
            ways.push(match way {
                written::Way::Basic(it) => Way::Basic(Box::new(basic::Basic::new(app, it, providers)?)),
                written::Way::ApiKey(it) => Way::ApiKey(api_key::ApiKey::new(app, it)?),
                written::Way::Jwt(it) => Way::Jwt(jwt::Jwt::new(it, providers)?),
                written::Way::ForwardAuth(it) => Way::Forward(providers.forward(it)?),
                written::Way::Hmac(it) => Way::Hmac(hmac::Hmac::new(it)),
                written::Way::Mtls(it) => Way::Mtls(mtls::Mtls::new(it)?),
                written::Way::Oidc(it) => {
                    Way::Oidc(Box::new(oidc::Oidc::new(app, it, auth.headers.values(), providers)?))
                }
            });
        }
        let anonymous = auth.allow_anonymous.iter().map(|path| PathMatch::parse(path));
        Ok(Some(Self {
            ways,
            needs_all,
            anonymous: anonymous.collect::<Result<_, _>>()?,
            headers: auth.headers.iter().map(|(name, claim)| (name.clone(), claim.clone())).collect(),
            forwards_credentials: auth.forward_credentials,
        }))
    }

    /// Whether one of the ways is a signed token.
    pub fn asks_tokens(&self) -> bool {
        self.ways.iter().any(|way| matches!(way, Way::Jwt(_) | Way::Oidc(_)))
    }

    /// How much of a body has to be there before anything can be said; `None` if none of it.
    pub fn body_bytes_max(&self, scene: &Scene<'_>) -> Option<u64> {
        self.ways
            .iter()
            .filter_map(|way| match way {
                Way::Hmac(hmac) => hmac.body_bytes_max(scene),
                Way::Basic(_)
                | Way::ApiKey(_)
                | Way::Jwt(_)
                | Way::Forward(_)
                | Way::Mtls(_)
                | Way::Oidc(_) => None,
            })
            .max()
    }

    /// Holds a request against what is wanted.
    pub async fn verdict(&self, scene: &Scene<'_>, body: Option<&[u8]>) -> Verdict {
        let is_anonymous = self.lets_anybody(scene.path());
        let mut seen = Seen::default();
        let mut identity = Identity::default();
        let mut shown = Vec::new();
        for way in &self.ways {
            // A path for anybody has to work where nobody can be asked.
            if is_anonymous && matches!(way, Way::Forward(_)) {
                continue;
            }
            match way.look(scene, body).await {
                Outcome::Known(known) => {
                    identity.learn(way.name(), &known);
                    shown.extend(known.shown);
                    if !self.needs_all {
                        return self.admit(identity, &shown, scene);
                    }
                }
                Outcome::Taken(answer) => return Verdict::Answered(answer),
                Outcome::Denied(_) | Outcome::Instead(_) if is_anonymous => {}
                Outcome::Denied(denial) => seen.denied(way.name(), denial),
                Outcome::Instead(answer) => seen.instead(answer),
            }
            if self.needs_all && !seen.is_clean() {
                break;
            }
        }
        if is_anonymous || (self.needs_all && seen.is_clean()) {
            return self.admit(identity, &shown, scene);
        }
        seen.verdict()
    }

    fn admit(&self, mut identity: Identity, shown: &[Shown], scene: &Scene<'_>) -> Verdict {
        identity.hide(shown, scene, self.forwards_credentials);
        identity.tell(&self.headers);
        Verdict::Admitted(Box::new(identity))
    }

    /// Whether a path needs no identity. A path that an app might take for another needs one, whatever it looks like.
    fn lets_anybody(&self, path: &[u8]) -> bool {
        self.anonymous.iter().any(|pattern| pattern.matches(path)) && is_plain(path)
    }
}

/// Whether all readers agree on what a path names: no dot segments, empty segments or backslashes, written out or encoded.
fn is_plain(path: &[u8]) -> bool {
    let is_dots = |segment: &[u8]| {
        matches!(segment, b"." | b"..") || segment.starts_with(b".;") || segment.starts_with(b"..;")
    };
    let lower = path.to_ascii_lowercase();
    let is_encoded = [&b"%2e"[..], b"%2f", b"%5c", b"%25", b"%00"]
        .iter()
        .any(|code| memchr::memmem::find(&lower, code).is_some());
    !is_encoded
        && !path.contains(&b'\\')
        && memchr::memmem::find(path, b"//").is_none()
        && !path.split(|byte| *byte == b'/').any(is_dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_be_another_is_not_anybodys() {
        for path in ["/public", "/public/a.b/..c", "/", "/public/a%20b"] {
            assert!(is_plain(path.as_bytes()), "{path}");
        }
        for path in [
            "/public/../admin",
            "/public/%2E%2e/admin",
            "/public/..",
            "/public/.",
            "/public/..;/admin",
            "/public//admin",
            "/public/..%2fadmin",
            "/public\\..\\admin",
            "/public/%252e%252e/admin",
        ] {
            assert!(!is_plain(path.as_bytes()), "{path}");
        }
    }
}
