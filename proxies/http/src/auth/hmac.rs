//! Requests that are signed with a shared key.
//!
//! ```text
//! Authorization: HMAC-SHA256 KeyId=ci, Timestamp=1764312000, SignedHeaders=content-type;x-team, Signature=<hex>
//! ```
//!
//! The signature is HMAC-SHA256 over these lines, joined by a line feed: `HMAC-SHA256`; the timestamp (seconds since
//! 1970); the method; the host in small letters, with its port if it has one; path and query as they are sent; for each
//! signed header `name:value`, the name in small letters, the values of several joined by a comma; the list of signed
//! headers as above; and the SHA-256 of the body in hexadecimal digits, or `-` where bodies are not signed.

use super::digest::{Digest, hex, read_digest, sha256};
use super::{Denial, Known, Outcome, Shown};
use crate::config::auth as written;
use crate::scene::Scene;
use aws_lc_rs::hmac;
use moka::sync::Cache;
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

/// The scheme, and the first line that is signed.
const SCHEME: &str = "HMAC-SHA256";
/// How far clocks may be apart.
const SKEW: Duration = Duration::from_secs(300);
/// Headers that one request may sign.
const SIGNED_MAX: usize = 32;
/// Signatures that are remembered, where each counts once.
const SEEN_MAX: u64 = 100_000;

/// The keys of an app or a route.
#[derive(Debug)]
pub struct Hmac {
    keys: BTreeMap<String, hmac::Key>,
    skew: Duration,
    required: Vec<String>,
    body_bytes_max: Option<u64>,
    seen: Option<Cache<Digest, ()>>,
}

/// What the Authorization header says.
#[derive(Debug, PartialEq, Eq)]
struct Signed<'a> {
    key_id: &'a str,
    timestamp: &'a str,
    headers: &'a str,
    signature: Digest,
}

impl Hmac {
    /// Makes ready what is written.
    pub fn new(written: &written::Hmac) -> Self {
        let key = |secret: &groove_common::config::Secret| {
            hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes())
        };
        let skew = written.clock_skew.map_or(SKEW, groove_common::config::Duration::get);
        Self {
            keys: written.keys.iter().map(|(id, secret)| (id.clone(), key(secret))).collect(),
            skew,
            required: written.headers.iter().map(|name| name.to_ascii_lowercase()).collect(),
            body_bytes_max: written.body.map(|size| size.0),
            // A signature is good from one skew before our time to one after it.
            seen: written
                .once
                .then(|| Cache::builder().max_capacity(SEEN_MAX).time_to_live(skew * 2).build()),
        }
    }

    /// How long the body of a request may be that has to be there whole; `None` if it has not.
    pub fn body_bytes_max(&self, scene: &Scene<'_>) -> Option<u64> {
        self.body_bytes_max.filter(|_| signature(scene).is_some())
    }

    /// Holds a request against the keys.
    pub fn look(&self, scene: &Scene<'_>, body: Option<&[u8]>) -> Outcome {
        let challenge = || Some(SCHEME.to_owned());
        let Some(value) = signature(scene) else { return Denial::absent(challenge()) };
        match self.judge(value, scene, body) {
            Ok(user) => {
                let shown = vec![Shown::Header("Authorization".to_owned())];
                Outcome::Known(Box::new(Known { user, shown, ..Known::default() }))
            }
            Err(reason) => Denial::wrong(reason, challenge()),
        }
    }

    fn judge(&self, value: &str, scene: &Scene<'_>, body: Option<&[u8]>) -> Result<String, &'static str> {
        let signed = Signed::read(value).ok_or("the signature is not of the form that is asked for")?;
        let time = signed
            .timestamp
            .parse()
            .ok()
            .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        let time = time.ok_or("the timestamp is none")?;
        let apart = scene.now.duration_since(time).unwrap_or_else(|error| error.duration());
        if apart > self.skew {
            return Err("the timestamp is too far from our time");
        }
        let names: Vec<&str> = signed.headers.split(';').filter(|name| !name.is_empty()).collect();
        if names.len() > SIGNED_MAX || self.required.iter().any(|name| !names.contains(&name.as_str())) {
            return Err("a header that has to be signed is not");
        }
        let key = self.keys.get(signed.key_id).ok_or("there is no key with this id")?;
        let digest = match (self.body_bytes_max, body) {
            (Some(_), body) => hex(&sha256(body.unwrap_or_default())),
            (None, _) => "-".to_owned(),
        };
        let text = canonical(scene, signed.timestamp, &names, signed.headers, &digest);
        hmac::verify(key, &text, &signed.signature).map_err(|_| "the signature does not match")?;
        if let Some(seen) = &self.seen {
            // Whoever comes second finds it there, whatever the two threads do.
            let entry = seen.entry(signed.signature).or_insert(());
            if !entry.is_fresh() {
                return Err("the signature was used before");
            }
        }
        Ok(signed.key_id.to_owned())
    }
}

/// What follows the scheme in Authorization.
fn signature<'a>(scene: &Scene<'a>) -> Option<&'a str> {
    let mut values = scene.headers().filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"));
    let (Some((_, value)), None) = (values.next(), values.next()) else { return None };
    let value = std::str::from_utf8(value).ok()?;
    value.strip_prefix(SCHEME)?.strip_prefix(' ')
}

impl<'a> Signed<'a> {
    fn read(value: &'a str) -> Option<Self> {
        let (mut key_id, mut timestamp, mut headers, mut signature) = (None, None, None, None);
        for part in value.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            let place = match name {
                "KeyId" => &mut key_id,
                "Timestamp" => &mut timestamp,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return None,
            };
            // Said twice, it could be read in two ways.
            if place.replace(value).is_some() {
                return None;
            }
        }
        Some(Self {
            key_id: key_id?,
            timestamp: timestamp?,
            headers: headers.unwrap_or_default(),
            signature: read_digest(signature?)?,
        })
    }
}

fn canonical(scene: &Scene<'_>, timestamp: &str, names: &[&str], list: &str, digest: &str) -> Vec<u8> {
    let host = scene.host.to_ascii_lowercase();
    let mut lines: Vec<Vec<u8>> = vec![
        SCHEME.as_bytes().to_vec(),
        timestamp.as_bytes().to_vec(),
        scene.method.to_vec(),
        host,
        scene.target.to_vec(),
    ];
    for name in names {
        let values = scene.headers().filter(|(found, _)| found.eq_ignore_ascii_case(name.as_bytes()));
        let values: Vec<&[u8]> = values.map(|(_, value)| value).collect();
        lines.push([name.to_ascii_lowercase().as_bytes(), b":", &values.join(&b','), b""].concat());
    }
    lines.push(list.as_bytes().to_vec());
    lines.push(digest.as_bytes().to_vec());
    lines.join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Denied;
    use crate::scene::tests::kept;
    use groove_common::config::{Secret, Size};

    const KEY: &str = "a key of sixteen";
    const NOW: u64 = 1_700_000_000;

    fn way(body: Option<u64>, once: bool) -> Hmac {
        Hmac::new(&written::Hmac {
            keys: [("ci".to_owned(), Secret::new(KEY))].into(),
            clock_skew: None,
            headers: vec!["X-Team".into()],
            body: body.map(Size),
            once,
        })
    }

    fn sign(text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
        hex(hmac::sign(&key, text.as_bytes()).as_ref())
    }

    fn head(authorization: &str) -> String {
        format!(
            "POST /a?b HTTP/1.1\r\nHost: Shop.test:81\r\nX-Team: x\r\nAuthorization: {authorization}\r\n\r\n"
        )
    }

    fn look(way: &Hmac, authorization: &str, body: Option<&[u8]>) -> Result<String, Denial> {
        match way.look(&kept(&head(authorization), false).scene("a", None, None), body) {
            Outcome::Known(known) => Ok(known.user),
            Outcome::Denied(denial) => Err(denial),
            other @ (Outcome::Instead(_) | Outcome::Taken(_)) => panic!("{other:?}"),
        }
    }

    fn authorization(time: u64, headers: &str, digest: &str) -> String {
        let text = format!("HMAC-SHA256\n{time}\nPOST\nshop.test:81\n/a?b\nx-team:x\n{headers}\n{digest}");
        format!("HMAC-SHA256 KeyId=ci, Timestamp={time}, SignedHeaders={headers}, Signature={}", sign(&text))
    }

    #[test]
    fn a_signature_counts_for_what_it_was_made_of_and_for_its_time() {
        let way = way(None, false);
        for time in [NOW, NOW - 299, NOW + 299] {
            assert_eq!(look(&way, &authorization(time, "x-team", "-"), None), Ok("ci".to_owned()), "{time}");
        }
        let good = authorization(NOW, "x-team", "-");
        for (bad, reason) in [
            (authorization(NOW - 301, "x-team", "-"), "too far"),
            (authorization(NOW + 301, "x-team", "-"), "too far"),
            (good.replace("SignedHeaders=x-team", "SignedHeaders="), "has to be signed"),
            (good.replace("KeyId=ci", "KeyId=cd"), "no key"),
            (good.replace("Timestamp=1700000000", "Timestamp=1700000001"), "does not match"),
            (good.replace("Timestamp", "KeyId"), "form"),
            (authorization(NOW, "x-team", "00"), "does not match"),
        ] {
            let denial = look(&way, &bad, None).unwrap_err();
            assert!(denial.kind == Denied::Wrong && denial.reason.contains(reason), "{bad}: {denial:?}");
        }
        assert_eq!(look(&way, "Bearer x", None).unwrap_err().kind, Denied::Absent);
    }

    #[test]
    fn a_body_is_signed_and_a_signature_used_once() {
        let way = way(Some(100), true);
        let signed = authorization(NOW, "x-team", &hex(&sha256(b"body")));
        assert!(look(&way, &signed, Some(b"other")).is_err());
        assert!(look(&way, &signed, Some(b"body")).is_ok());
        assert!(look(&way, &signed, Some(b"body")).unwrap_err().reason.contains("used before"));
    }
}
