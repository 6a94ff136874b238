//! The certificate that a client showed, which the listener has verified already: whether it is one of those that may.
//! Pure.

use super::digest::{Digest, read_digest, sha256};
use super::{Denial, Known, Outcome};
use crate::config::auth as written;
use crate::scene::Scene;
use groove_common::app::StartError;
use groove_common::net::ClientCertificate;
use serde_json::{Map, Value};

/// The certificates that may.
#[derive(Debug)]
pub struct Mtls {
    subjects: Vec<String>,
    names: Vec<String>,
    fingerprints: Vec<Digest>,
}

impl Mtls {
    /// Makes ready what is written.
    pub fn new(mtls: &written::Mtls) -> Result<Self, StartError> {
        let fingerprints = mtls.fingerprints.iter().map(|text| read_digest(text));
        Ok(Self {
            subjects: mtls.subjects.clone(),
            names: mtls.names.clone(),
            fingerprints: fingerprints.collect::<Option<_>>().ok_or("a fingerprint is no SHA-256")?,
        })
    }

    /// Holds a request's connection against them.
    pub fn look(&self, scene: &Scene<'_>) -> Outcome {
        let Some(certificate) = scene.tls.and_then(|tls| tls.certificate.as_ref()) else {
            return Denial::absent(Some("Certificate".to_owned()));
        };
        if !self.admits(certificate) {
            return Denial::forbidden("this certificate is not on the list");
        }
        let text = |text: &Option<String>| Value::from(text.clone().unwrap_or_default());
        let claims: Map<String, Value> = [
            ("cn", text(&certificate.common_name)),
            ("subject", text(&certificate.subject)),
            ("names", Value::from(certificate.names.clone())),
            ("fingerprint", Value::from(certificate.fingerprint())),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let name = certificate.common_name.clone().filter(|name| !name.is_empty());
        let user =
            name.or_else(|| certificate.names.first().cloned()).unwrap_or_else(|| certificate.fingerprint());
        Outcome::Known(Box::new(Known { user, claims, ..Known::default() }))
    }

    fn admits(&self, certificate: &ClientCertificate) -> bool {
        let subjects = [&certificate.common_name, &certificate.subject];
        let by_subject =
            self.subjects.iter().any(|known| subjects.iter().any(|it| it.as_ref() == Some(known)));
        let fits = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == pattern,
        };
        let is_anybodys = self.names.iter().any(|pattern| pattern == "*");
        let by_name =
            self.names.iter().any(|pattern| certificate.names.iter().any(|name| fits(pattern, name)));
        by_subject || is_anybodys || by_name || self.fingerprints.contains(&sha256(&certificate.der))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> ClientCertificate {
        ClientCertificate {
            der: vec![1, 2, 3].into(),
            names: vec!["spiffe://mesh/ns/shop/sa/web".into(), "web.test".into()],
            common_name: Some("web".into()),
            subject: Some("CN=web,O=shop".into()),
        }
    }

    fn admits(subjects: &[&str], names: &[&str], fingerprints: &[String]) -> bool {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (subjects, names) = (owned(subjects), owned(names));
        let mtls = written::Mtls { subjects, names, fingerprints: fingerprints.to_vec() };
        Mtls::new(&mtls).unwrap().admits(&certificate())
    }

    #[test]
    fn a_certificate_is_known_by_any_list_it_is_on() {
        assert!(admits(&["web"], &[], &[]) && admits(&["CN=web,O=shop"], &[], &[]));
        assert!(admits(&[], &["web.test"], &[]) && admits(&[], &["spiffe://mesh/ns/shop/*"], &[]));
        assert!(admits(&[], &["*"], &[]));
        assert!(admits(&[], &[], &[certificate().fingerprint()]));
        assert!(!admits(&["webs", "O=shop"], &["eb.test", "spiffe://mesh/ns/bank/*"], &["00".repeat(32)]));
    }
}
