//! Cookies that only this proxy can read, cut into pieces that a browser takes.
//!
//! AES-256-GCM under keys derived from the configured ones (HKDF), for one app and its provider, and one end. The first key seals, all
//! open: a key is rotated by putting a new one before it, and taken away when the last login made under it has ended.

use crate::auth::digest::{base64_url, from_base64_url};
use crate::scene::Scene;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use groove_common::app::StartError;
use groove_common::config::Secret;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Browsers take 4096 bytes a cookie, its name and attributes included.
const CHUNK_BYTES: usize = 3500;
/// Pieces of one cookie: all of them go with every request, and servers bound their heads.
const CHUNKS_MAX: usize = 4;

/// The keys of one app's cookies.
#[derive(Debug)]
pub struct Sealer(Vec<RandomizedNonceKey>);

struct KeyBytes;

impl KeyType for KeyBytes {
    fn len(&self) -> usize {
        32
    }
}

impl Sealer {
    /// Derives the keys for what these texts name: an app and its provider.
    pub fn new(names: &[&str], secrets: &[Secret]) -> Result<Self, StartError> {
        let keys = secrets.iter().map(|secret| {
            let mut bytes = [0; 32];
            let salt = Salt::new(HKDF_SHA256, b"groove-http oidc cookie 1");
            let key = salt.extract(secret.expose().as_bytes());
            let info = [names.join("\n").into_bytes()];
            let info = info.each_ref().map(Vec::as_slice);
            let derived = key.expand(&info, KeyBytes).and_then(|it| it.fill(&mut bytes));
            derived.map_err(|_| "a cookie key cannot be used")?;
            RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| "a cookie key cannot be used")
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// Seals a value for one end, so that no cookie is ever taken for one of another kind.
    pub fn seal(&self, end: &str, value: &impl Serialize) -> Option<String> {
        let mut bytes = serde_json::to_vec(value).ok()?;
        let nonce = self.0.first()?.seal_in_place_append_tag(Aad::from(end.as_bytes()), &mut bytes).ok()?;
        Some(base64_url(&[&nonce.as_ref()[..], &bytes].concat()))
    }

    /// Opens what was sealed for that end.
    pub fn open<T: DeserializeOwned>(&self, end: &str, text: &[u8]) -> Option<T> {
        let sealed = from_base64_url(text)?;
        let (nonce, bytes) = sealed.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let mut bytes = bytes.to_vec();
            let plain = key.open_in_place(nonce, Aad::from(end.as_bytes()), &mut bytes).ok()?;
            serde_json::from_slice(plain).ok()
        })
    }
}

/// A cookie's name, and whether it may be sent over TLS alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jar {
    name: String,
    is_secure: bool,
}

impl Jar {
    /// A cookie for a site that is asked over `scheme`. Over TLS its name has the prefix that keeps other hosts of the same
    /// domain from setting it.
    pub fn new(name: &str, scheme: &str) -> Self {
        let is_secure = scheme == "https";
        Self { name: if is_secure { format!("__Host-{name}") } else { name.to_owned() }, is_secure }
    }

    /// The names of its pieces.
    pub fn names(&self) -> impl Iterator<Item = String> {
        (0..CHUNKS_MAX).map(|index| self.piece(index))
    }

    fn piece(&self, index: usize) -> String {
        if index == 0 { self.name.clone() } else { format!("{}.{index}", self.name) }
    }

    /// The whole value that a request brings.
    pub fn read(&self, scene: &Scene<'_>) -> Option<Vec<u8>> {
        let pieces: Vec<&[u8]> = self.names().map_while(|name| scene.cookie(&name)).collect();
        (!pieces.is_empty()).then(|| pieces.concat())
    }

    /// Set-Cookie values that keep a value, and take away pieces that it does not need; `None` if it is too long.
    pub fn write(&self, scene: &Scene<'_>, value: &str, age_s: u64) -> Option<Vec<Vec<u8>>> {
        let pieces: Vec<&[u8]> = value.as_bytes().chunks(CHUNK_BYTES).collect();
        if pieces.len() > CHUNKS_MAX {
            return None;
        }
        let mut lines: Vec<Vec<u8>> = Vec::new();
        for (index, name) in self.names().enumerate() {
            match pieces.get(index) {
                Some(piece) => lines.push(self.line(&name, piece, age_s)),
                None if scene.cookie(&name).is_some() => lines.push(self.line(&name, b"", 0)),
                None => {}
            }
        }
        Some(lines)
    }

    /// Set-Cookie values that take it away.
    pub fn clear(&self, scene: &Scene<'_>) -> Vec<Vec<u8>> {
        self.names()
            .filter(|name| scene.cookie(name).is_some())
            .map(|name| self.line(&name, b"", 0))
            .collect()
    }

    fn line(&self, name: &str, value: &[u8], age_s: u64) -> Vec<u8> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let rest = format!("; Path=/; Max-Age={age_s}; HttpOnly; SameSite=Lax{secure}");
        [name.as_bytes(), b"=", value, rest.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scene::tests::kept;

    fn sealer(app: &str, keys: &[&str]) -> Sealer {
        let keys: Vec<Secret> = keys.iter().map(|key| Secret::new(key.repeat(32))).collect();
        Sealer::new(&[app, "https://issuer.test"], &keys).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_any_of_the_keys_and_for_its_end_alone() {
        let old = sealer("shop", &["a"]).seal("session", &"ann").unwrap();
        let rotated = sealer("shop", &["b", "a"]);
        let open = |sealer: &Sealer, end: &str, text: &str| sealer.open::<String>(end, text.as_bytes());
        assert_eq!(open(&rotated, "session", &old).as_deref(), Some("ann"));
        let new = rotated.seal("session", &"bob").unwrap();
        assert_eq!(open(&sealer("shop", &["b"]), "session", &new).as_deref(), Some("bob"));
        assert_eq!(open(&sealer("shop", &["a"]), "session", &new), None);
        assert_eq!(open(&rotated, "login", &new), None);
        assert_eq!(open(&sealer("bank", &["b", "a"]), "session", &new), None);
        assert_ne!(rotated.seal("session", &"bob").unwrap(), new, "a nonce is used twice");
        for at in 0..new.len() {
            let mut bytes = new.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(bytes).unwrap();
            // The last character of base64 has bits that mean nothing; they have to be zero.
            assert_eq!(open(&rotated, "session", &text), None, "{at}");
            assert_eq!(open(&rotated, "session", &new[..at]), None, "{at}");
        }
    }

    #[test]
    fn a_long_value_comes_in_pieces_and_a_longer_one_not_at_all() {
        let nobody = kept("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false);
        let jar = Jar::new("s", "https");
        let long = "x".repeat(CHUNK_BYTES * 2 + 1);
        let lines = jar.write(&nobody.scene("a", None, None), &long, 60).unwrap();
        let lines: Vec<String> = lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() < 4096 && line.ends_with("SameSite=Lax; Secure")));
        let pairs: Vec<&str> = lines.iter().map(|line| line.split(';').next().unwrap()).collect();
        let back = kept(&format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", pairs.join("; ")), false);
        let scene = back.scene("a", None, None);
        assert_eq!(jar.read(&scene).unwrap(), long.as_bytes());
        // A shorter one takes the pieces away that it does not need.
        let lines = jar.write(&scene, "short", 60).unwrap();
        assert_eq!(
            lines.iter().filter(|line| String::from_utf8_lossy(line).contains("Max-Age=0")).count(),
            2
        );
        assert_eq!(jar.clear(&scene).len(), 3);
        assert_eq!(jar.write(&scene, &"x".repeat(CHUNK_BYTES * CHUNKS_MAX + 1), 60), None);
    }
}
