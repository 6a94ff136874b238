//! What a login decides, without a network: whose tokens are good, who may come in, and where people are sent. Pure.

use crate::auth::token::{Rules, meets};
use crate::scene::Scene;
use serde_json::{Map, Value};

/// The longest place to come back to that is remembered.
const RETURN_BYTES_MAX: usize = 2048;

/// Whom a login lets in.
#[derive(Debug, Clone, Default)]
pub struct Allowed {
    /// Addresses, or `*@domain`; all if empty.
    pub emails: Vec<String>,
    /// Groups of which one is needed; none if empty.
    pub groups: Vec<String>,
    /// The claim that lists them.
    pub groups_claim: String,
}

impl Allowed {
    /// Whether these claims may come in.
    pub fn check(&self, claims: &Map<String, Value>) -> Result<(), &'static str> {
        if !self.emails.is_empty() {
            let email = claims.get("email").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
            // A provider that does not say so has not looked: then anybody could have written this address.
            if claims.get("email_verified") != Some(&Value::Bool(true)) {
                return Err("the address is not verified");
            }
            let fits = |known: &String| match known.to_ascii_lowercase().strip_prefix('*') {
                Some(domain) => email.len() > domain.len() && email.ends_with(domain),
                None => email == known.to_ascii_lowercase(),
            };
            if !self.emails.iter().any(fits) {
                return Err("the address is not on the list");
            }
        }
        let groups = crate::auth::identity::find_claim(claims, &self.groups_claim);
        let is_member = |group: &String| meets(groups, &Value::from(group.as_str()));
        if self.groups.is_empty() || self.groups.iter().any(is_member) {
            Ok(())
        } else {
            Err("none of the groups is on the list")
        }
    }
}

/// Holds the claims of an id_token whose signature is good against what was asked (OpenID Connect Core, 3.1.3.7).
pub fn check_id_token(
    claims: &Map<String, Value>,
    issuer: &str,
    client_id: &str,
    nonce: Option<&str>,
    now_s: u64,
) -> Result<(), &'static str> {
    let rules = Rules {
        issuer: Some(issuer.to_owned()),
        audience: vec![client_id.to_owned()],
        skew_s: 60,
        ..Rules::default()
    };
    rules.check(claims, now_s)?;
    let is_for_several = claims.get("aud").and_then(Value::as_array).is_some_and(|all| all.len() > 1);
    match claims.get("azp") {
        Some(azp) if azp.as_str() != Some(client_id) => return Err("the token was made for another client"),
        None if is_for_several => return Err("the token does not say for which client it was made"),
        Some(_) | None => {}
    }
    if nonce.is_some_and(|nonce| claims.get("nonce").and_then(Value::as_str) != Some(nonce)) {
        return Err("the token is of another login");
    }
    match claims.get("sub").and_then(Value::as_str) {
        Some(sub) if !sub.is_empty() => Ok(()),
        Some(_) | None => Err("the token says nothing of whose it is"),
    }
}

/// Where somebody is sent after a login: to what was asked for, which is on this site. What a browser could take for another
/// one (`//elsewhere`, `/\elsewhere`) is not gone to.
pub fn return_to(target: &[u8]) -> String {
    let is_local = target.first() == Some(&b'/')
        && !matches!(target.get(1), Some(b'/' | b'\\'))
        && target.len() <= RETURN_BYTES_MAX
        && target.iter().all(|byte| matches!(byte, b'!'..=b'~'));
    if is_local { String::from_utf8_lossy(target).into_owned() } else { "/".to_owned() }
}

/// Whether a person is behind a request, who can be sent to a login. A program is told 401.
pub fn is_navigation(scene: &Scene<'_>) -> bool {
    let reads = matches!(scene.method, b"GET" | b"HEAD");
    let header = |name: &str| scene.header(name).unwrap_or_default();
    let mode = header("sec-fetch-mode");
    let accepts = memchr::memmem::find(header("accept"), b"text/html").is_some();
    reads && if mode.is_empty() { accepts } else { mode.eq_ignore_ascii_case(b"navigate") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::kept;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn nobody_is_sent_elsewhere() {
        for (target, want) in [
            ("/a?b=https://evil.test/", "/a?b=https://evil.test/"),
            ("/", "/"),
            ("//evil.test", "/"),
            ("/\\evil.test", "/"),
            ("https://evil.test/", "/"),
            ("/\t/evil.test", "/"),
            ("*", "/"),
            ("", "/"),
        ] {
            assert_eq!(return_to(target.as_bytes()), want, "{target}");
        }
        assert_eq!(return_to(format!("/{}", "a".repeat(3000)).as_bytes()), "/");
    }

    #[test]
    fn addresses_are_believed_only_if_they_were_verified() {
        let allowed = Allowed { emails: vec!["Ann@a.test".into(), "*@b.test".into()], ..Allowed::default() };
        for (email, verified, good) in [
            ("ann@A.test", json!(true), true),
            ("ann@a.test", json!("true"), false),
            ("ann@a.test", json!(null), false),
            ("bob@a.test", json!(true), false),
            ("bob@b.test", json!(true), true),
            ("@b.test", json!(true), false),
            ("bob@x.b.test", json!(true), false),
            ("bob@evilb.test", json!(true), false),
        ] {
            let claims = map(json!({"email": email, "email_verified": verified}));
            assert_eq!(allowed.check(&claims).is_ok(), good, "{email} {verified}");
        }
    }

    #[test]
    fn one_group_of_the_list_will_do() {
        let allowed = Allowed {
            groups: vec!["ops".into(), "dev".into()],
            groups_claim: "groups".into(),
            ..Allowed::default()
        };
        for (claims, good) in [
            (json!({"groups": ["x", "dev"]}), true),
            (json!({"groups": "ops"}), true),
            (json!({"groups": ["opsx"]}), false),
            (json!({"groups": []}), false),
            (json!({}), false),
        ] {
            assert_eq!(allowed.check(&map(claims.clone())).is_ok(), good, "{claims}");
        }
    }

    #[test]
    fn an_id_token_is_of_this_login_and_for_this_client() {
        let good = json!({"iss": "i", "aud": "c", "exp": 2000, "sub": "ann", "nonce": "n"});
        let check = |change: Value| {
            let mut claims = map(good.clone());
            claims.extend(map(change));
            check_id_token(&claims, "i", "c", Some("n"), 1000)
        };
        for (change, is_good) in [
            (json!({}), true),
            (json!({"azp": "c"}), true),
            (json!({"aud": ["c", "d"], "azp": "c"}), true),
            (json!({"aud": ["c", "d"]}), false),
            (json!({"azp": "d"}), false),
            (json!({"nonce": "m"}), false),
            (json!({"nonce": null}), false),
            (json!({"iss": "j"}), false),
            (json!({"aud": "d"}), false),
            (json!({"exp": 900}), false),
            (json!({"sub": ""}), false),
        ] {
            assert_eq!(check(change.clone()).is_ok(), is_good, "{change}");
        }
    }

    #[test]
    fn people_are_sent_to_a_login_and_programs_are_not() {
        for (method, line, want) in [
            ("GET", "Accept: text/html,*/*;q=0.8", true),
            ("GET", "Accept: */*", false),
            ("GET", "Accept: text/html\r\nSec-Fetch-Mode: cors", false),
            ("GET", "Sec-Fetch-Mode: navigate", true),
            ("POST", "Accept: text/html", false),
        ] {
            let kept = kept(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n"), false);
            assert_eq!(is_navigation(&kept.scene("a", None, None)), want, "{method} {line}");
        }
    }
}
