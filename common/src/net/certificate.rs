//! The two things of a certificate that neither rustls nor webpki tell: the hash that channel binding ties a login
//! to, and the subject's common name.
//!
//! Whoever walks here has a certificate that was verified, or is our own; even so, nothing is believed about
//! lengths. The shape of a certificate is that of RFC 5280.

use super::der::{INTEGER, OID, SEQUENCE, SET, element, expect};
use aws_lc_rs::digest::{self, Algorithm, SHA224, SHA256, SHA384, SHA512};

/// `[0] EXPLICIT`: a certificate's version, and the hash among the parameters of RSASSA-PSS.
const CONTEXT_0: u8 = 0xa0;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;

/// `pkcs-1` (1.2.840.113549.1.1), `ecdsa-with-…` (1.2.840.10045.4), NIST's hashes (2.16.840.1.101.3.4.2).
const PKCS_1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
const NIST_HASHES: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
/// `id-at-commonName` (2.5.4.3).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The types of RFC 4514, 3, and the serial number that device certificates have.
const SHORT_NAMES: [(&[u8], &str); 10] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19], "DC"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01], "UID"),
];

/// `tls-server-end-point` of RFC 5929: the certificate's hash, by the function its own signature is made with, and by
/// SHA-256 where that is MD5 or SHA-1. `None` for signatures without a hash of their own (Ed25519), for which the RFC
/// says nothing.
pub(super) fn end_point(der: &[u8]) -> Option<Vec<u8>> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (_, rest) = expect(certificate, SEQUENCE)?;
    let (algorithm, _) = expect(rest, SEQUENCE)?;
    Some(digest::digest(hash_of(algorithm)?, der).as_ref().to_vec())
}

/// The first common name of the subject, which is the one that PostgreSQL takes.
pub(super) fn common_name(der: &[u8]) -> Option<String> {
    common_name_of(names_of_subject(der)?)
}

/// The subject as RFC 4514 writes it, the most specific name first. Types without a short name there are written as numbers.
pub(super) fn subject(der: &[u8]) -> Option<String> {
    let mut names = names_of_subject(der)?;
    let mut shown = Vec::new();
    while !names.is_empty() {
        let (mut set, tail) = expect(names, SET)?;
        names = tail;
        let mut parts = Vec::new();
        while !set.is_empty() {
            let (attribute, tail) = expect(set, SEQUENCE)?;
            set = tail;
            let (kind, value) = expect(attribute, OID)?;
            match SHORT_NAMES.iter().find(|(oid, _)| *oid == kind) {
                Some((_, short)) => parts.push(format!("{short}={}", escaped(&text(value)?))),
                None => parts.push(format!("{}=#{}", dotted(kind), hexadecimal(value))),
            }
        }
        shown.push(parts.join("+"));
    }
    shown.reverse();
    Some(shown.join(","))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// An object identifier as numbers between dots (X.690, 8.19).
fn dotted(oid: &[u8]) -> String {
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc = 0_u64;
    for byte in oid {
        arc = (arc << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if arcs.is_empty() {
                let first = (arc / 40).min(2);
                arcs.extend([first, arc - 40 * first]);
            } else {
                arcs.push(arc);
            }
            arc = 0;
        }
    }
    arcs.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// RFC 4514, 2.4.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        let outer = (index == 0 && matches!(character, ' ' | '#')) || (index == last && character == ' ');
        if outer || matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

fn names_of_subject(der: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if let Some((_, tail)) = expect(rest, CONTEXT_0) {
        rest = tail;
    }
    // Serial number, signature, issuer, validity; then the subject.
    for tag in [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE] {
        (_, rest) = expect(rest, tag)?;
    }
    expect(rest, SEQUENCE).map(|(subject, _)| subject)
}

fn common_name_of(mut names: &[u8]) -> Option<String> {
    while !names.is_empty() {
        let (mut set, tail) = expect(names, SET)?;
        names = tail;
        while !set.is_empty() {
            let (attribute, tail) = expect(set, SEQUENCE)?;
            set = tail;
            let (kind, value) = expect(attribute, OID)?;
            if kind == COMMON_NAME {
                return text(value);
            }
        }
    }
    None
}

/// A name's text. A zero byte in it would be an attack on those who read names in C.
fn text(value: &[u8]) -> Option<String> {
    let (tag, content, _) = element(value)?;
    match tag {
        UTF8_STRING | PRINTABLE_STRING | IA5_STRING => std::str::from_utf8(content).ok(),
        _ => None,
    }
    .filter(|text| !text.contains('\0'))
    .map(str::to_owned)
}

/// What an AlgorithmIdentifier of a signature hashes with.
fn hash_of(algorithm: &[u8]) -> Option<&'static Algorithm> {
    const RSASSA_PSS: u8 = 10;
    let (oid, parameters) = expect(algorithm, OID)?;
    if let Some(kind) = oid.strip_prefix(PKCS_1) {
        return match *kind {
            [4 | 5 | 11] => Some(&SHA256),
            [12] => Some(&SHA384),
            [13] => Some(&SHA512),
            [14] => Some(&SHA224),
            [RSASSA_PSS] => pss_hash(parameters),
            _ => None,
        };
    }
    match *oid.strip_prefix(ECDSA)? {
        [1] | [3, 2] => Some(&SHA256),
        [3, 1] => Some(&SHA224),
        [3, 3] => Some(&SHA384),
        [3, 4] => Some(&SHA512),
        _ => None,
    }
}

/// The hash among the parameters of RSASSA-PSS (RFC 4055); SHA-1 if it is left out.
fn pss_hash(parameters: &[u8]) -> Option<&'static Algorithm> {
    let (parameters, _) = expect(parameters, SEQUENCE)?;
    let Some((explicit, _)) = expect(parameters, CONTEXT_0) else { return Some(&SHA256) };
    let (hash, _) = expect(explicit, SEQUENCE)?;
    let (oid, _) = expect(hash, OID)?;
    match oid.strip_prefix(NIST_HASHES) {
        Some([1]) => Some(&SHA256),
        Some([2]) => Some(&SHA384),
        Some([3]) => Some(&SHA512),
        Some([4]) => Some(&SHA224),
        // SHA-1 written out.
        None => Some(&SHA256),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SignatureAlgorithm};

    use super::*;

    fn certificate(algorithm: &'static SignatureAlgorithm, names: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        names.iter().for_each(|name| params.distinguished_name.push(DnType::CommonName, *name));
        params.distinguished_name.push(DnType::OrganizationName, "somebody");
        let key = KeyPair::generate_for(algorithm).unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &SHA384),
            (&rcgen::PKCS_RSA_SHA512, &SHA512),
        ] {
            let der = certificate(algorithm, &[]);
            assert_eq!(end_point(&der).unwrap(), digest::digest(hash, &der).as_ref());
        }
        assert_eq!(end_point(&certificate(&rcgen::PKCS_ED25519, &[])), None);
    }

    #[test]
    fn old_hashes_give_way_to_sha_256() {
        let algorithm = |oid: &[u8], parameters: &[u8]| {
            let length = u8::try_from(oid.len()).unwrap();
            hash_of(&[&[OID, length], oid, parameters].concat()).map(|hash| hash.output_len)
        };
        let rsa = |kind: u8| [PKCS_1, &[kind]].concat();
        for (kind, bytes) in [(4, 32), (5, 32), (11, 32), (12, 48), (13, 64), (14, 28)] {
            assert_eq!(algorithm(&rsa(kind), &[5, 0]), Some(bytes), "{kind}");
        }
        assert_eq!(algorithm(&[ECDSA, &[1]].concat(), &[]), Some(32));
        // RSASSA-PSS with nothing said is SHA-1; with SHA-384 as RFC 4055 writes it.
        assert_eq!(algorithm(&rsa(10), &[SEQUENCE, 0]), Some(32));
        let sha384 = [&[SEQUENCE, 15, CONTEXT_0, 13, SEQUENCE, 11, OID, 9], NIST_HASHES, &[2]].concat();
        assert_eq!(algorithm(&rsa(10), &sha384), Some(48));
        assert_eq!(algorithm(&rsa(99), &[]), None);
    }

    #[test]
    fn the_common_name_is_the_subjects_first() {
        let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
        assert_eq!(common_name(&certificate(algorithm, &["jürgen"])).as_deref(), Some("jürgen"));
        assert_eq!(common_name(&certificate(algorithm, &["nul\0byte"])), None);
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let key = KeyPair::generate_for(algorithm).unwrap();
        assert_eq!(common_name(params.self_signed(&key).unwrap().der()), None);
        let one = |name: u8| [SET, 10, SEQUENCE, 8, OID, 3, 0x55, 4, 3, UTF8_STRING, 1, name];
        assert_eq!(common_name_of(&[one(b'a'), one(b'b')].concat()).as_deref(), Some("a"));
        // In an encoding that nobody writes any more it is no name, and neither is the next.
        let old = [SET, 10, SEQUENCE, 8, OID, 3, 0x55, 4, 3, 0x14, 1, b'a'];
        assert_eq!(common_name_of(&[old, one(b'b')].concat()), None);
    }

    #[test]
    fn the_subject_is_written_as_in_rfc_4514() {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "DE");
        params.distinguished_name.push(DnType::OrganizationName, "Smith, Sons + Co");
        params.distinguished_name.push(DnType::CommonName, " a");
        params.distinguished_name.push(DnType::CustomDnType(vec![1, 2, 840, 113549, 1, 9, 1]), "x");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let want = r"1.2.840.113549.1.9.1=#0c0178,CN=\ a,O=Smith\, Sons \+ Co,C=DE";
        assert_eq!(subject(&der).as_deref(), Some(want));
        for length in 0..der.len() {
            let _ = subject(&der[..length]);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), at in 0..400_usize) {
            let _ = (end_point(&bytes), common_name(&bytes));
            // Nor a certificate that has been tampered with.
            let mut der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["name"]);
            der.iter_mut().skip(at).zip(&bytes).for_each(|(byte, other)| *byte = *other);
            let _ = (end_point(&der), common_name(&der));
        }
    }

    #[test]
    fn a_certificate_cut_short_is_none() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256, &["name"]);
        for length in 0..der.len() {
            assert_eq!(end_point(&der[..length]), None, "{length}");
            assert_eq!(common_name(&der[..length]), None, "{length}");
        }
    }
}
