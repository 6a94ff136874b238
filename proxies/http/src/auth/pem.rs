//! Public keys as PEM has them (RFC 7468, 13): `-----BEGIN PUBLIC KEY-----`, as `openssl pkey -pubout` writes it.
//!
//! Which algorithms a key may check is told by its kind, as it is of a key set's.

use super::jwks::{Key, Keys};
use groove_common::net::der::{BIT_STRING, INTEGER, OID, SEQUENCE, expect};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use std::path::Path;

/// Keys of a file that are looked at.
const KEYS_MAX: usize = 100;
/// Shorter ones are broken by who wants to (NIST SP 800-131A).
const RSA_BITS_MIN: usize = 2048;

/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.3.132.0.34
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The keys of files, one after the other.
pub fn read_files<P: AsRef<Path>>(files: &[P]) -> Result<Keys, String> {
    let mut keys = Vec::new();
    for file in files {
        keys.extend(read_file(file.as_ref())?);
    }
    Ok(Keys::from(keys))
}

/// The keys of a file.
pub fn read_file(path: &Path) -> Result<Vec<Key>, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    read(&text).map_err(|problem| format!("{}: {problem}", path.display()))
}

fn read(text: &[u8]) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    for section in SubjectPublicKeyInfoDer::pem_slice_iter(text).take(KEYS_MAX) {
        let der = section.map_err(|error| format!("this is no PEM: {error}"))?;
        let (algorithms, key) = key(&der)?;
        keys.push(Key::of_anybody(algorithms, key));
    }
    if keys.is_empty() { Err("there is no `PUBLIC KEY` in it".to_owned()) } else { Ok(keys) }
}

/// A SubjectPublicKeyInfo (RFC 5280, 4.1.2.7).
fn key(der: &[u8]) -> Result<(Vec<Algorithm>, DecodingKey), String> {
    use Algorithm as A;
    let malformed = || "this public key is malformed".to_owned();
    let (all, rest) = expect(der, SEQUENCE).ok_or_else(malformed)?;
    let (algorithm, bits) = expect(all, SEQUENCE).ok_or_else(malformed)?;
    let (bits, tail) = expect(bits, BIT_STRING).ok_or_else(malformed)?;
    let (kind, parameters) = expect(algorithm, OID).ok_or_else(malformed)?;
    // Before the bits stands how many of the last byte are none.
    let key = bits.strip_prefix(&[0]).filter(|_| rest.is_empty() && tail.is_empty()).ok_or_else(malformed)?;
    match kind {
        RSA => {
            let modulus = expect(key, SEQUENCE).and_then(|(numbers, _)| expect(numbers, INTEGER));
            let (modulus, _) = modulus.ok_or_else(malformed)?;
            let bytes = modulus.strip_prefix(&[0]).unwrap_or(modulus);
            let short = bytes.first().map_or(0, |first| first.leading_zeros() as usize);
            if bytes.len() * 8 - short < RSA_BITS_MIN {
                return Err(format!("an RSA key has at least {RSA_BITS_MIN} bits"));
            }
            let algorithms = vec![A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512];
            Ok((algorithms, DecodingKey::from_rsa_der(key)))
        }
        EC => {
            let (curve, _) = expect(parameters, OID).ok_or_else(malformed)?;
            // A point is both its coordinates, written out (SEC 1, 2.3.3).
            let (algorithm, bytes) = match curve {
                P256 => (A::ES256, 65),
                P384 => (A::ES384, 97),
                _ => return Err("this curve is neither P-256 nor P-384".to_owned()),
            };
            if key.len() != bytes || key.first() != Some(&4) {
                return Err(malformed());
            }
            Ok((vec![algorithm], DecodingKey::from_ec_der(key)))
        }
        ED25519 if key.len() == 32 => Ok((vec![A::EdDSA], DecodingKey::from_ed_der(key))),
        ED25519 => Err(malformed()),
        _ => Err("this is neither an RSA, an EC nor an Ed25519 key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair,
    };
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use jsonwebtoken::{EncodingKey, Header, Validation, decode, encode};

    /// Made with `openssl genpkey` and `openssl pkey -pubout`.
    const KEYS: [(&str, Algorithm); 3] = [
        (include_str!("testdata/p256.pem"), Algorithm::ES256),
        (include_str!("testdata/ed25519.pem"), Algorithm::EdDSA),
        (include_str!("testdata/rsa2048.pem"), Algorithm::PS256),
    ];

    #[test]
    fn a_keys_kind_says_what_it_checks_and_any_name_may_mean_it() {
        for (text, algorithm) in KEYS {
            let keys = Keys::from(read(text.as_bytes()).expect("a key"));
            for id in [None, Some("any")] {
                assert_eq!(keys.find(id, algorithm).count(), 1, "{algorithm:?}");
                // A public key is never the secret of an HMAC.
                assert_eq!(keys.find(id, Algorithm::HS256).count(), 0);
            }
            let others = [Algorithm::ES384, Algorithm::ES256, Algorithm::EdDSA, Algorithm::RS256];
            let fits = others.iter().filter(|it| keys.find(None, **it).next().is_some()).count();
            assert_eq!(fits, 1, "{algorithm:?}");
        }
        let all = KEYS.map(|(text, _)| text).concat();
        assert_eq!(read(all.as_bytes()).expect("keys").len(), 3);
    }

    #[test]
    fn what_is_no_public_key_is_said_to_be_none() {
        assert!(read(b"").unwrap_err().contains("no `PUBLIC KEY`"));
        assert!(read(include_bytes!("testdata/rsa1024.pem")).unwrap_err().contains("at least 2048 bits"));
        assert!(read(include_bytes!("testdata/p521.pem")).unwrap_err().contains("neither P-256 nor P-384"));
        let private = KEYS[0].0.replace("PUBLIC KEY", "PRIVATE KEY");
        assert!(read(private.as_bytes()).unwrap_err().contains("no `PUBLIC KEY`"));
        for (text, _) in KEYS {
            let der = SubjectPublicKeyInfoDer::from_pem_slice(text.as_bytes()).expect("DER");
            for length in 0..der.len() {
                assert!(key(&der[..length]).is_err(), "{length}");
            }
            assert!(key(&[&der[..], &[0]].concat()).is_err(), "bytes behind it");
        }
    }

    fn pem(der: &[u8]) -> String {
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
    }

    /// A private key in PKCS #8 and its public one in PEM.
    fn pair(algorithm: Algorithm) -> (EncodingKey, String) {
        let ec = |kind| {
            let pair = EcdsaKeyPair::generate(kind).expect("a key");
            let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
            let own = pair.to_pkcs8v1().expect("PKCS #8");
            (EncodingKey::from_ec_der(own.as_ref()), pem(der.as_ref()))
        };
        if algorithm == Algorithm::ES256 {
            return ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
        }
        if algorithm == Algorithm::ES384 {
            return ec(&ECDSA_P384_SHA384_FIXED_SIGNING);
        }
        let pair = Ed25519KeyPair::generate().expect("a key");
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
        let own = pair.to_pkcs8v1().expect("PKCS #8");
        (EncodingKey::from_ed_der(own.as_ref()), pem(der.as_ref()))
    }

    #[test]
    fn what_a_key_has_signed_its_pem_checks_and_nothing_else() {
        for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
            let ((private, public), (_, other)) = (pair(algorithm), pair(algorithm));
            let claims = serde_json::json!({"sub": "ann"});
            let token = encode(&Header::new(algorithm), &claims, &private).expect("a token");
            let checks = |public: &str| {
                let keys = Keys::from(read(public.as_bytes()).expect("a key"));
                let mut rules = Validation::new(algorithm);
                rules.required_spec_claims.clear();
                let known = keys.find(None, algorithm).next().expect("it fits");
                decode::<serde_json::Value>(token.as_bytes(), &known.key, &rules).is_ok()
            };
            assert!(checks(&public) && !checks(&other), "{algorithm:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = (key(&bytes), read(&bytes));
        }
    }
}
