//! Digests and random bytes, and comparisons whose time tells nothing. aws-lc does the work.

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use aws_lc_rs::{constant_time, hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A SHA-256.
pub type Digest = [u8; SHA256_OUTPUT_LEN];

/// The SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// Hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |digits, byte| digits + &format!("{byte:02x}"))
}

/// Reads the 64 hexadecimal digits of a SHA-256.
pub fn read_digest(text: &str) -> Option<Digest> {
    let mut out = [0; SHA256_OUTPUT_LEN];
    if text.len() != 2 * out.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(out)
}

/// Whether two texts are the same, in a time that depends on their lengths alone.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// A key that nobody outside of this process knows, for tables that clients fill: what they are filed under cannot be
/// chosen, nor turned back into what it was made of.
pub struct FilingKey(hmac::Key);

impl FilingKey {
    /// A fresh one.
    pub fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()))
    }

    /// What some parts are filed under. Each part counts with its length, so that no two lists of parts are the same.
    pub fn file(&self, parts: &[&[u8]]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut out = [0; SHA256_OUTPUT_LEN];
        out.copy_from_slice(context.sign().as_ref());
        out
    }
}

impl Default for FilingKey {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for FilingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FilingKey")
    }
}

/// Random bytes.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The system has no randomness: aws-lc itself would abort. Then nothing made of it is ever accepted either, since
    // zeros are the same for everybody; it cannot be reached on Linux.
    if rand::fill(&mut bytes).is_err() {
        tracing::error!("the system has no randomness");
    }
    bytes
}

/// Random text of 43 characters that may stand in a URL.
pub fn random_text() -> String {
    base64_url(&random::<32>())
}

/// Base64 as URLs have it (RFC 4648, 5), without padding.
pub fn base64_url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of such a text.
pub fn from_base64_url(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_written_and_read() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&sha256(b"")), empty);
        assert_eq!(read_digest(empty), Some(sha256(b"")));
        assert_eq!(read_digest(&empty.to_uppercase()), Some(sha256(b"")));
        for bad in ["", &empty[1..], &empty.replace('e', "+"), &format!("{empty}0")] {
            assert_eq!(read_digest(bad), None, "{bad}");
        }
    }

    #[test]
    fn parts_are_filed_apart() {
        let key = FilingKey::new();
        assert_eq!(key.file(&[b"ab", b"c"]), key.file(&[b"ab", b"c"]));
        assert_ne!(key.file(&[b"ab", b"c"]), key.file(&[b"a", b"bc"]));
        assert_ne!(key.file(&[b"ab"]), FilingKey::new().file(&[b"ab"]));
    }
}
