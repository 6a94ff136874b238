//! SCRAM-SHA-256, both sides, from RFC 5802 and RFC 7677.
//!
//! As in PostgreSQL: the user name inside the exchange is ignored (the startup packet names the user), a
//! password that SASLprep refuses is taken as its bytes, and an unknown user is led through the whole exchange
//! with an invented verifier, so that nobody learns who exists.

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use std::num::NonZeroU32;

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// SHA-256's length.
pub const KEY_BYTES: usize = 32;
/// PostgreSQL's own number of iterations.
pub const ITERATIONS: Iterations = Iterations(NonZeroU32::MIN.saturating_add(4095));

type Key = [u8; KEY_BYTES];

/// A number of PBKDF2 rounds within reason: a server that asks for more wants our time, not our proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Iterations(NonZeroU32);

impl Iterations {
    const MAX: u32 = 1_000_000;

    /// `None` for zero and for more than a million.
    pub fn new(count: u32) -> Option<Iterations> {
        NonZeroU32::new(count).filter(|count| count.get() <= Iterations::MAX).map(Iterations)
    }
}

/// Why an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// The peer's message is not SCRAM.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The peer wants channel binding, which was not offered.
    #[error("channel binding was asked for, but not offered")]
    ChannelBinding,
    /// The nonce is not the one of this exchange.
    #[error("invalid SCRAM response: nonce does not match")]
    Nonce,
    /// The proof is wrong: another password.
    #[error("password authentication failed")]
    Proof,
    /// The server refused us, or could not prove that it knows the password.
    #[error("the server could not prove that it knows the password")]
    Server,
}

/// What a server keeps instead of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// PBKDF2's rounds.
    pub iterations: Iterations,
    /// PBKDF2's salt.
    pub salt: Vec<u8>,
    /// H(ClientKey).
    pub stored_key: Key,
    /// HMAC(SaltedPassword, "Server Key").
    pub server_key: Key,
}

impl Verifier {
    /// Derives a verifier from a password.
    pub fn derive(password: &str, salt: &[u8], iterations: Iterations) -> Verifier {
        let keys = Keys::derive(password, salt, iterations);
        Verifier {
            iterations,
            salt: salt.to_vec(),
            stored_key: sha256(&keys.client),
            server_key: keys.server,
        }
    }

    /// Invents one for a user that does not exist: always the same for the same name, and unlike any real one.
    pub fn invent(secret: &Key, user: &str) -> Verifier {
        let seed = mac(secret, user.as_bytes());
        Verifier {
            iterations: ITERATIONS,
            salt: seed.get(..16).unwrap_or(&seed).to_vec(),
            stored_key: mac(secret, &seed),
            server_key: mac(&seed, secret),
        }
    }
}

/// What a client derives from its password, a salt and a number of rounds.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    client: Key,
    server: Key,
}

impl Keys {
    /// Derives them; this takes as long as the rounds say, about a millisecond at PostgreSQL's number.
    pub fn derive(password: &str, salt: &[u8], iterations: Iterations) -> Keys {
        let prepared = stringprep::saslprep(password);
        let password = prepared.as_deref().unwrap_or(password);
        let mut salted = [0; KEY_BYTES];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations.0, salt, password.as_bytes(), &mut salted);
        Keys { client: mac(&salted, b"Client Key"), server: mac(&salted, b"Server Key") }
    }
}

/// The server's side, after its challenge.
pub struct Server {
    verifier: Verifier,
    gs2: String,
    nonce: String,
    first_bare: String,
    challenge: String,
}

impl Server {
    /// Answers the client's first message. `nonce` is ours, printable and without commas.
    pub fn challenge(verifier: Verifier, nonce: &str, first: &[u8]) -> Result<(Server, String), ScramError> {
        let first = std::str::from_utf8(first).map_err(|_| ScramError::Malformed)?;
        let bare_at = match first.get(..2) {
            Some("n," | "y,") => 3,
            Some("p=") => return Err(ScramError::ChannelBinding),
            Some(_) | None => return Err(ScramError::Malformed),
        };
        // The third byte ends the header: an authorization identity (`a=`) is not supported.
        let (gs2, bare) = first.split_at_checked(bare_at).ok_or(ScramError::Malformed)?;
        if !gs2.ends_with(',') {
            return Err(ScramError::Malformed);
        }
        let mut attributes = bare.split(',');
        attribute(&mut attributes, "n=")?;
        let client_nonce = attribute(&mut attributes, "r=")?;
        if client_nonce.is_empty() || !client_nonce.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ScramError::Malformed);
        }
        let nonce = format!("{client_nonce}{nonce}");
        let challenge = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations.0);
        let server = Server {
            verifier,
            gs2: BASE64.encode(gs2),
            nonce,
            first_bare: bare.to_owned(),
            challenge: challenge.clone(),
        };
        Ok((server, challenge))
    }

    /// Checks the client's proof and gives ours.
    pub fn finish(self, last: &[u8]) -> Result<String, ScramError> {
        let last = std::str::from_utf8(last).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut attributes = without_proof.split(',');
        if attribute(&mut attributes, "c=")? != self.gs2 {
            return Err(ScramError::ChannelBinding);
        }
        if attribute(&mut attributes, "r=")? != self.nonce {
            return Err(ScramError::Nonce);
        }
        let proof: Key =
            BASE64.decode(proof).ok().and_then(|p| p.try_into().ok()).ok_or(ScramError::Malformed)?;
        let message = format!("{},{},{without_proof}", self.first_bare, self.challenge);
        let signature = mac(&self.verifier.stored_key, message.as_bytes());
        let client_key = xor(proof, signature);
        constant_time::verify_slices_are_equal(&sha256(&client_key), &self.verifier.stored_key)
            .map_err(|_| ScramError::Proof)?;
        Ok(format!("v={}", BASE64.encode(mac(&self.verifier.server_key, message.as_bytes()))))
    }
}

/// The client's side.
pub struct Client {
    nonce: String,
    first_bare: String,
    server_signature: Option<Key>,
}

impl Client {
    /// Starts an exchange; gives the first message. `nonce` is printable and without commas.
    pub fn start(nonce: &str) -> (Client, String) {
        Client::start_as("", nonce)
    }

    fn start_as(user: &str, nonce: &str) -> (Client, String) {
        let first_bare = format!("n={user},r={nonce}");
        let first = format!("n,,{first_bare}");
        (Client { nonce: nonce.to_owned(), first_bare, server_signature: None }, first)
    }

    /// Answers the server's challenge; `keys` derives (or remembers) what the password gives.
    pub fn respond(
        &mut self,
        challenge: &[u8],
        keys: impl FnOnce(&[u8], Iterations) -> Keys,
    ) -> Result<String, ScramError> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| ScramError::Malformed)?;
        let mut attributes = challenge.split(',');
        let nonce = attribute(&mut attributes, "r=")?;
        let salt = BASE64.decode(attribute(&mut attributes, "s=")?).map_err(|_| ScramError::Malformed)?;
        let iterations = attribute(&mut attributes, "i=")?.parse().ok().and_then(Iterations::new);
        let iterations = iterations.ok_or(ScramError::Malformed)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let keys = keys(&salt, iterations);
        let without_proof = format!("c={},r={nonce}", BASE64.encode("n,,"));
        let message = format!("{},{challenge},{without_proof}", self.first_bare);
        let signature = mac(&sha256(&keys.client), message.as_bytes());
        self.server_signature = Some(mac(&keys.server, message.as_bytes()));
        Ok(format!("{without_proof},p={}", BASE64.encode(xor(keys.client, signature))))
    }

    /// Checks the server's proof.
    pub fn verify(&self, last: &[u8]) -> Result<(), ScramError> {
        let given = last.strip_prefix(b"v=").and_then(|v| BASE64.decode(v).ok()).ok_or(ScramError::Server)?;
        let expected = self.server_signature.ok_or(ScramError::Server)?;
        constant_time::verify_slices_are_equal(&given, &expected).map_err(|_| ScramError::Server)
    }
}

fn attribute<'a>(attributes: &mut std::str::Split<'a, char>, name: &str) -> Result<&'a str, ScramError> {
    attributes.next().and_then(|a| a.strip_prefix(name)).ok_or(ScramError::Malformed)
}

fn mac(key: &[u8], message: &[u8]) -> Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(tag.as_ref());
    out
}

fn sha256(message: &[u8]) -> Key {
    let mut out = [0; KEY_BYTES];
    out.copy_from_slice(digest::digest(&digest::SHA256, message).as_ref());
    out
}

fn xor(mut a: Key, b: Key) -> Key {
    a.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    a
}

#[cfg(test)]
pub(super) mod rfc7677 {
    //! The example of RFC 7677, section 3.
    pub(in crate::auth) const USER: &str = "user";
    pub(in crate::auth) const PASSWORD: &str = "pencil";
    pub(in crate::auth) const CLIENT_NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    pub(in crate::auth) const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    pub(in crate::auth) const SALT: &str = "W22ZaJ0SNY7soEsUEjb6gQ==";
    pub(in crate::auth) const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    pub(in crate::auth) const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    pub(in crate::auth) const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                                p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    pub(in crate::auth) const PROOF: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    /// The client as the example names it.
    pub(in crate::auth) fn client() -> (super::Client, String) {
        super::Client::start_as(USER, CLIENT_NONCE)
    }
}
