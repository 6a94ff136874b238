//! Passwords as they are configured: plain, PostgreSQL's md5, or a SCRAM verifier from `pg_authid`.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde::{Deserialize, Serialize};

use super::scram::{Iterations, KEY_BYTES, Verifier};

/// A configured password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stored {
    /// The password itself.
    Plain(String),
    /// `md5` and 32 hexadecimal digits.
    Md5(String),
    /// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
    Scram(Verifier),
}

/// A password that begins like a verifier and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("begins like a SCRAM verifier, but is not SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>")]
pub struct StoredError;

impl Stored {
    /// Tells the three kinds apart as PostgreSQL's `get_password_type` does.
    pub fn read(text: &str) -> Result<Stored, StoredError> {
        if let Some(rest) = text.strip_prefix("SCRAM-SHA-256$") {
            return verifier(rest).map(Stored::Scram).ok_or(StoredError);
        }
        let hexadecimal = |digits: &str| {
            digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        match text.strip_prefix("md5") {
            Some(digits) if hexadecimal(digits) => Ok(Stored::Md5(text.to_owned())),
            Some(_) | None => Ok(Stored::Plain(text.to_owned())),
        }
    }
}

fn verifier(text: &str) -> Option<Verifier> {
    let (parameters, keys) = text.split_once('$')?;
    let (iterations, salt) = parameters.split_once(':')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let key = |text: &str| <[u8; KEY_BYTES]>::try_from(BASE64.decode(text).ok()?).ok();
    Some(Verifier {
        iterations: Iterations::new(iterations.parse().ok()?)?,
        salt: BASE64.decode(salt).ok()?,
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    })
}
