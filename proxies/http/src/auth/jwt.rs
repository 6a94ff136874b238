//! Signed tokens (RFC 7519): which key and algorithm may have signed one, and what it says.
//!
//! The key decides which algorithms there are, and never the token: a public key is not a secret for an HMAC, and `none` is
//! no algorithm.

use super::api_key::find;
use super::jwks::{Jwks, Key, Keys, NoKey};
use super::pem;
use super::token::Rules;
use super::{Denial, Known, Outcome, Providers, Shown};
use crate::config::auth as written;
use crate::edit::template::claim_text;
use crate::scene::Scene;
use groove_common::app::StartError;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation, decode, decode_header};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// Keys without a name that are tried for one token.
const TRIES_MAX: usize = 8;

/// What tokens an app or a route takes.
#[derive(Debug)]
pub struct Jwt {
    places: written::Places,
    keys: Source,
    algorithms: Vec<Algorithm>,
    rules: Rules,
    user_claim: String,
}

#[derive(Debug)]
enum Source {
    /// Keys of files, which count first, and a set.
    Public(Keys, Option<Arc<Jwks>>),
    Secret(DecodingKey),
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is not good.
    Wrong(&'static str),
    /// Whether it is good cannot be known.
    Unreachable,
}

/// All that a public key can check.
pub const PUBLIC: [Algorithm; 9] = {
    use Algorithm as A;
    [A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512, A::ES256, A::ES384, A::EdDSA]
};

impl Jwt {
    /// Makes ready what is written.
    pub fn new(jwt: &written::Jwt, providers: &mut Providers) -> Result<Self, StartError> {
        let (keys, usual) = match &jwt.secret {
            Some(secret) => {
                (Source::Secret(DecodingKey::from_secret(secret.expose().as_bytes())), vec![Algorithm::HS256])
            }
            None if jwt.jwks.is_none() && jwt.public_keys.is_empty() => {
                return Err("there is no key for tokens".into());
            }
            None => {
                let set = jwt.jwks.as_ref().map(|jwks| providers.jwks(jwks)).transpose()?;
                (Source::Public(pem::read_files(&jwt.public_keys)?, set), PUBLIC.to_vec())
            }
        };
        let algorithms = if jwt.algorithms.is_empty() {
            usual
        } else {
            jwt.algorithms.iter().map(|it| algorithm(*it)).collect()
        };
        let has_place = jwt.places != written::Places::default();
        let usual =
            written::Places { header: Some("Authorization".to_owned()), ..written::Places::default() };
        Ok(Self {
            places: if has_place { jwt.places.clone() } else { usual },
            keys,
            algorithms,
            rules: Rules::of(jwt),
            user_claim: jwt.user_claim.clone().unwrap_or_else(|| "sub".to_owned()),
        })
    }

    /// Holds a request against it.
    pub async fn look(&self, scene: &Scene<'_>) -> Outcome {
        let Some((token, shown)) = find(&self.places, scene) else {
            return Denial::absent(Some("Bearer".to_owned()));
        };
        let now_s = scene.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = match self.claims(&token).await {
            Ok(claims) => self.rules.check(&claims, now_s).map(|()| claims).map_err(Refused::Wrong),
            Err(refused) => Err(refused),
        };
        match claims {
            Ok(claims) => {
                let user = super::identity::find_claim(&claims, &self.user_claim).map(claim_text);
                let (user, shown): (_, Vec<Shown>) = (user.unwrap_or_default(), vec![shown]);
                Outcome::Known(Box::new(Known { user, claims, shown, ..Known::default() }))
            }
            Err(Refused::Wrong(reason)) => {
                Denial::wrong(reason, Some("Bearer error=\"invalid_token\"".to_owned()))
            }
            Err(Refused::Unreachable) => Denial::unreachable("the key set cannot be fetched"),
        }
    }

    async fn claims(&self, token: &[u8]) -> Result<Map<String, Value>, Refused> {
        match &self.keys {
            Source::Public(own, set) => {
                let header = header(token, &self.algorithms)?;
                match (own_claims(token, own, &header), set) {
                    (Some(claims), _) => Ok(claims),
                    (None, Some(set)) => signed_claims(token, set, &self.algorithms).await,
                    (None, None) => Err(Refused::Wrong("no key that is known has signed this token")),
                }
            }
            Source::Secret(key) => {
                let header = header(token, &self.algorithms)?;
                verify(token, key, header.alg).ok_or(Refused::Wrong("the signature does not match"))
            }
        }
    }
}

/// The claims of a token that a key of a set has signed with one of these algorithms.
pub async fn signed_claims(
    token: &[u8],
    jwks: &Jwks,
    algorithms: &[Algorithm],
) -> Result<Map<String, Value>, Refused> {
    let header = header(token, algorithms)?;
    let id = header.kid.as_deref();
    let fits = |keys: &Keys| keys.find(id, header.alg).next().is_some();
    let keys = jwks.keys(fits).await.map_err(|no| match no {
        NoKey::Unknown => Refused::Wrong("no key of the set could have signed this token"),
        NoKey::Unreachable => Refused::Unreachable,
    })?;
    own_claims(token, &keys, &header).ok_or(Refused::Wrong("the signature does not match"))
}

/// The claims of a token that one of these keys has signed.
fn own_claims(token: &[u8], keys: &Keys, header: &Header) -> Option<Map<String, Value>> {
    let mut candidates = keys.find(header.kid.as_deref(), header.alg).take(TRIES_MAX);
    candidates.find_map(|Key { key, .. }| verify(token, key, header.alg))
}

/// A token's header, if its algorithm is allowed and it asks for nothing that is not understood here.
fn header(token: &[u8], algorithms: &[Algorithm]) -> Result<Header, Refused> {
    let header = decode_header(token).map_err(|_| Refused::Wrong("this is no token"))?;
    if !algorithms.contains(&header.alg) {
        return Err(Refused::Wrong("the token's algorithm is not allowed"));
    }
    // RFC 7515, 4.1.11: what must be understood, and is not.
    if header.crit.as_ref().is_some_and(|names| !names.is_empty()) {
        return Err(Refused::Wrong("the token asks for an extension"));
    }
    Ok(header)
}

/// Claims, if the signature is good. What they have to say is looked at elsewhere.
fn verify(token: &[u8], key: &DecodingKey, algorithm: Algorithm) -> Option<Map<String, Value>> {
    let mut rules = Validation::new(algorithm);
    rules.required_spec_claims.clear();
    rules.validate_exp = false;
    rules.validate_nbf = false;
    rules.validate_aud = false;
    decode(token, key, &rules).ok().map(|data| data.claims)
}

fn algorithm(written: written::Algorithm) -> Algorithm {
    use written::Algorithm as W;
    match written {
        W::RS256 => Algorithm::RS256,
        W::RS384 => Algorithm::RS384,
        W::RS512 => Algorithm::RS512,
        W::PS256 => Algorithm::PS256,
        W::PS384 => Algorithm::PS384,
        W::PS512 => Algorithm::PS512,
        W::ES256 => Algorithm::ES256,
        W::ES384 => Algorithm::ES384,
        W::EdDsa => Algorithm::EdDSA,
        W::HS256 => Algorithm::HS256,
        W::HS384 => Algorithm::HS384,
        W::HS512 => Algorithm::HS512,
    }
}

#[cfg(test)]
mod tests {
    use super::super::digest::base64_url;
    use super::*;
    use jsonwebtoken::{EncodingKey, encode};
    use serde_json::json;

    const SECRET: &[u8] = b"a secret of at least thirty-two characters";

    fn token(algorithm: Algorithm, secret: &[u8]) -> String {
        let claims = json!({"sub": "ann"});
        encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    #[test]
    fn the_key_says_which_algorithms_there_are() {
        let key = DecodingKey::from_secret(SECRET);
        let good = token(Algorithm::HS256, SECRET);
        let header = |token: &str, allowed| header(token.as_bytes(), allowed).map(|it| it.alg);
        assert_eq!(header(&good, &[Algorithm::HS256]), Ok(Algorithm::HS256));
        assert!(verify(good.as_bytes(), &key, Algorithm::HS256).is_some());
        assert!(verify(token(Algorithm::HS256, b"other").as_bytes(), &key, Algorithm::HS256).is_none());
        // Of another kind than what is allowed: never, whatever signed it.
        assert!(header(&good, &PUBLIC).is_err());
        assert!(header(&token(Algorithm::HS512, SECRET), &[Algorithm::HS256]).is_err());
        let (_, rest) = good.split_once('.').unwrap();
        let with = |head: &str| format!("{}.{rest}", base64_url(head.as_bytes()));
        for head in [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"typ":"JWT"}"#,
            r#"{"alg":"HS256","crit":["exp"],"exp":1}"#,
            "{}",
            "",
        ] {
            assert!(header(&with(head), &[Algorithm::HS256]).is_err(), "{head}");
        }
        let tampered = with(r#"{"alg":"HS256","typ":"jwt"}"#);
        assert!(verify(tampered.as_bytes(), &key, Algorithm::HS256).is_none());
        for text in ["", ".", "..", "a.b", "a.b.c.d", &good[..good.len() - 1]] {
            let is_good = header(text, &[Algorithm::HS256]).is_ok()
                && verify(text.as_bytes(), &key, Algorithm::HS256).is_some();
            assert!(!is_good, "{text}");
        }
    }
}
