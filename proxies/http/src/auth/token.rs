//! What a signed token must say, once its signature is known to be good (RFC 7519). Pure: the time comes in.

use super::identity::find_claim;
use crate::config::auth as written;
use serde_json::{Map, Value};
use std::time::Duration;

/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(60);

/// What a token must say.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Who must have issued it.
    pub issuer: Option<String>,
    /// Whom it must be for, one of these; anybody if empty.
    pub audience: Vec<String>,
    /// How far clocks may be apart, in seconds.
    pub skew_s: u64,
    /// What some claims must be.
    pub require: Vec<(String, Value)>,
    /// Tokens that never expire are taken.
    pub allow_no_expiry: bool,
}

impl Rules {
    /// As written.
    pub fn of(jwt: &written::Jwt) -> Self {
        Self {
            issuer: jwt.issuer.clone(),
            audience: jwt.audience.clone(),
            skew_s: jwt.clock_skew.map_or(SKEW, groove_common::config::Duration::get).as_secs(),
            require: jwt.require.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            allow_no_expiry: jwt.allow_no_expiry,
        }
    }

    /// Holds claims against them at a time, in seconds since 1970.
    pub fn check(&self, claims: &Map<String, Value>, now_s: u64) -> Result<(), &'static str> {
        match claims.get("exp").map(seconds) {
            None if self.allow_no_expiry => {}
            None => return Err("the token never expires"),
            Some(None) => return Err("the token's exp is no time"),
            Some(Some(exp)) if exp.saturating_add(self.skew_s) <= now_s => {
                return Err("the token has expired");
            }
            Some(Some(_)) => {}
        }
        for name in ["nbf", "iat"] {
            match claims.get(name).map(seconds) {
                Some(None) => return Err("the token's nbf or iat is no time"),
                Some(Some(begin)) if begin > now_s.saturating_add(self.skew_s) => {
                    return Err("the token is not good yet");
                }
                Some(Some(_)) | None => {}
            }
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err("the token is of another issuer");
        }
        if !self.audience.is_empty() && !self.is_for_us(claims.get("aud")) {
            return Err("the token is for another audience");
        }
        let is_met = |(name, wanted): &(String, Value)| meets(find_claim(claims, name), wanted);
        if self.require.iter().all(is_met) {
            Ok(())
        } else {
            Err("the token lacks a claim that is asked for")
        }
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let is_ours =
            |value: &Value| value.as_str().is_some_and(|it| self.audience.iter().any(|us| us == it));
        match audience {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        }
    }
}

/// A NumericDate, which may have a fraction.
fn seconds(value: &Value) -> Option<u64> {
    let time = value.as_f64().filter(|time| time.is_finite() && (0.0..1e15).contains(time));
    value.as_u64().or_else(|| time.map(|time| Duration::from_secs_f64(time).as_secs()))
}

/// Whether a claim is what is wanted: the same, or a list with it; anything there is for null.
pub fn meets(claim: Option<&Value>, wanted: &Value) -> bool {
    match claim {
        None | Some(Value::Null) => false,
        Some(_) if wanted.is_null() => true,
        Some(Value::Array(members)) if !wanted.is_array() => members.contains(wanted),
        Some(value) => value == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(rules: &Rules, claims: Value) -> Result<(), &'static str> {
        rules.check(claims.as_object().unwrap(), 1000)
    }

    #[test]
    fn times_are_taken_with_the_skew_and_not_beyond() {
        let rules = Rules { skew_s: 60, ..Rules::default() };
        for (claims, good) in [
            (json!({"exp": 1001}), true),
            (json!({"exp": 941}), true),
            (json!({"exp": 940}), false),
            (json!({"exp": 941.5}), true),
            (json!({}), false),
            (json!({"exp": null}), false),
            (json!({"exp": "2000"}), false),
            (json!({"exp": -1}), false),
            (json!({"exp": 1e300}), false),
            (json!({"exp": 2000, "nbf": 1060}), true),
            (json!({"exp": 2000, "nbf": 1061}), false),
            (json!({"exp": 2000, "iat": 1061}), false),
            (json!({"exp": 2000, "nbf": "soon"}), false),
        ] {
            assert_eq!(check(&rules, claims.clone()).is_ok(), good, "{claims}");
        }
        assert!(check(&Rules { allow_no_expiry: true, ..rules }, json!({})).is_ok());
    }

    #[test]
    fn issuer_and_audience_are_held_to_the_letter() {
        let rules = Rules {
            issuer: Some("https://i.test".into()),
            audience: vec!["us".into(), "we".into()],
            ..Rules::default()
        };
        for (iss, aud, good) in [
            (json!("https://i.test"), json!("us"), true),
            (json!("https://i.test"), json!(["they", "we"]), true),
            (json!("https://i.test/"), json!("us"), false),
            (json!(["https://i.test"]), json!("us"), false),
            (json!("https://i.test"), json!("u"), false),
            (json!("https://i.test"), json!(["they"]), false),
            (json!("https://i.test"), Value::Null, false),
        ] {
            let claims = json!({"exp": 2000, "iss": iss, "aud": aud});
            assert_eq!(check(&rules, claims.clone()).is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn required_claims_are_met_by_the_value_or_by_a_member() {
        for (claim, wanted, good) in [
            (json!("admin"), json!("admin"), true),
            (json!(["a", "admin"]), json!("admin"), true),
            (json!("administrator"), json!("admin"), false),
            (json!(["a"]), json!(null), true),
            (json!(null), json!(null), false),
            (json!(true), json!("true"), false),
            (json!(["a"]), json!(["a"]), true),
        ] {
            assert_eq!(meets(Some(&claim), &wanted), good, "{claim} {wanted}");
        }
        let rules = Rules { require: vec![("realm.roles".into(), json!("x"))], ..Rules::default() };
        assert!(check(&rules, json!({"exp": 2000, "realm": {"roles": ["x", "y"]}})).is_ok());
        assert!(check(&rules, json!({"exp": 2000, "realm": {}})).is_err());
    }
}
