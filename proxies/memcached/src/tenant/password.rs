//! Passwords as configured: the words themselves, or their argon2 hash.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};

/// What to write instead of a password that cannot be.
pub const HELP: &str = "write a password, or a hash as `argon2 SALT -id -e` makes it: `$argon2id$v=19$m=…`";

/// What one verification may take, in KiB: several may run at once.
const MEMORY_KIB_MAX: u32 = 256 << 10;

/// Passes over that memory.
const PASSES_MAX: u32 = 64;

/// A configured password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// The password itself.
    Plain(String),
    /// Its argon2 hash, in the form of PHC strings.
    Argon2(String),
}

/// Why a password cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing, or a NUL in it.
    #[error("this is no password")]
    None,
    /// It begins like a hash and is none.
    #[error("this begins like an argon2 hash and is none")]
    BadHash,
    /// A guess would cost us too much.
    #[error("this hash needs more than 256 MiB or 64 passes for each check")]
    TooDear,
}

impl Password {
    /// Reads what was configured.
    ///
    /// # Errors
    ///
    /// See [`PasswordError`].
    pub fn read(text: &str) -> Result<Self, PasswordError> {
        if text.is_empty() || text.contains('\0') {
            return Err(PasswordError::None);
        }
        if !text.starts_with("$argon2") {
            return Ok(Self::Plain(text.to_owned()));
        }
        let hash = PasswordHash::new(text).map_err(|_| PasswordError::BadHash)?;
        let params = Params::try_from(&hash).map_err(|_| PasswordError::BadHash)?;
        if hash.hash.is_none() || hash.salt.is_none() {
            return Err(PasswordError::BadHash);
        }
        if params.m_cost() > MEMORY_KIB_MAX || params.t_cost() > PASSES_MAX {
            return Err(PasswordError::TooDear);
        }
        Ok(Self::Argon2(text.to_owned()))
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Does `password` have this argon2 hash? Takes tens of milliseconds and megabytes: not for a worker's thread.
pub fn verify(password: &[u8], hash: &str) -> bool {
    Argon2::default().verify_password(password, hash).is_ok()
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher;

    use super::*;

    /// A hash that costs next to nothing.
    pub(crate) fn cheap_hash(password: &str) -> String {
        let params = Params::new(8, 1, 1, None).unwrap();
        Argon2::from(params).hash_password_with_salt(password.as_bytes(), b"some salt").unwrap().to_string()
    }

    #[test]
    fn a_hash_is_told_from_a_password() {
        assert_eq!(Password::read("secret"), Ok(Password::Plain("secret".to_owned())));
        let hash = cheap_hash("secret");
        assert_eq!(Password::read(&hash), Ok(Password::Argon2(hash.clone())));
        assert!(verify(b"secret", &hash) && !verify(b"Secret", &hash));
        assert_eq!(Password::read(""), Err(PasswordError::None));
        assert_eq!(Password::read("$argon2id$nonsense"), Err(PasswordError::BadHash));
        assert_eq!(Password::read(hash.rsplit_once('$').unwrap().0), Err(PasswordError::BadHash));
        let dear =
            "$argon2id$v=19$m=4194304,t=3,p=1$c29tZSBzYWx0$q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4k";
        assert_eq!(Password::read(dear), Err(PasswordError::TooDear));
    }
}
