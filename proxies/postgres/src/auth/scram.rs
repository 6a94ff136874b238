//! SCRAM-SHA-256, both sides, from RFC 5802 and RFC 7677.
//!
//! As in PostgreSQL: the user name inside the exchange is ignored (the startup packet names the user), a
//! password that SASLprep refuses is taken as its bytes, and an unknown user is led through the whole exchange
//! with an invented verifier, so that nobody learns who exists.
//!
//! With channel binding (`-PLUS`, RFC 5929's `tls-server-end-point`) the proof holds on one TLS connection only: who
//! shows the client another certificate than the server's cannot pass the client's proof on.

mod client;
mod offence;
mod server;

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use serde::{Deserialize, Serialize};

pub use client::{Binding, Client};
pub use offence::{Detail, ScramError};
pub use server::{Channel, Proven, Server};

/// The mechanism's name.
pub const MECHANISM: &str = "SCRAM-SHA-256";
/// The same with channel binding.
pub const MECHANISM_PLUS: &str = "SCRAM-SHA-256-PLUS";
/// The one kind of channel binding that PostgreSQL knows.
const END_POINT: &str = "tls-server-end-point";
/// SHA-256's length.
pub const KEY_BYTES: usize = 32;
/// PostgreSQL's own number of iterations.
pub const ITERATIONS: Iterations = Iterations(NonZeroU32::MIN.saturating_add(4095));

type Key = [u8; KEY_BYTES];

/// A number of PBKDF2 rounds within reason: a server that asks for more wants our time, not our proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Iterations(NonZeroU32);

impl Iterations {
    const MAX: u32 = 1_000_000;

    /// `None` for zero and for more than a million.
    pub fn new(count: u32) -> Option<Iterations> {
        NonZeroU32::new(count).filter(|count| count.get() <= Iterations::MAX).map(Iterations)
    }
}

impl TryFrom<u32> for Iterations {
    type Error = &'static str;

    fn try_from(count: u32) -> Result<Iterations, &'static str> {
        Iterations::new(count).ok_or("not a number of rounds within reason")
    }
}

impl From<Iterations> for u32 {
    fn from(iterations: Iterations) -> u32 {
        iterations.0.get()
    }
}

/// What a server keeps instead of a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Keys, and what they were derived with: they prove something wherever the same verifier is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaltedKeys {
    /// PBKDF2's salt.
    pub salt: Vec<u8>,
    /// PBKDF2's rounds.
    pub iterations: Iterations,
    /// What came of it.
    pub keys: Keys,
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
        super::Client::start_as(USER, CLIENT_NONCE, super::Binding::None)
    }
}
