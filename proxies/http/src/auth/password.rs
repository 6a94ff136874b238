//! Password hashes as `htpasswd -B` and `argon2` make them, and files of them.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, Params, PasswordVerifier};
use std::collections::BTreeMap;
use std::path::Path;
use thiserror::Error;

/// bcrypt's work grows with two to its cost; 2^16 rounds are seconds.
const BCRYPT_COST_MAX: u32 = 15;
/// What one verification may take, in KiB: several may run at once.
const ARGON2_KIB_MAX: u32 = 256 << 10;
/// Passes over that memory.
const ARGON2_PASSES_MAX: u32 = 64;
/// The most users a file may have.
const USERS_MAX: usize = 100_000;
/// The longest password that is hashed; bcrypt looks at no more of it.
const PASSWORD_BYTES_MAX: usize = 1024;

/// A password's hash.
#[derive(Clone, PartialEq, Eq)]
pub enum Hash {
    /// `$2y$...`
    Bcrypt(String),
    /// `$argon2id$...`
    Argon2(String),
}

/// Why a hash is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HashError {
    /// No form that is known, or none that is safe.
    #[error("this is neither a bcrypt nor an argon2 hash")]
    Unknown,
    /// MD5, SHA-1 or DES.
    #[error("hashes of this kind are guessed too easily")]
    Weak,
    /// A guess would cost us too much.
    #[error("each check of this hash would cost too much")]
    TooDear,
}

impl Hash {
    /// Reads one.
    pub fn read(text: &str) -> Result<Self, HashError> {
        if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|_| HashError::Unknown)?;
            let params = Params::try_from(&hash).map_err(|_| HashError::Unknown)?;
            if hash.hash.is_none() || hash.salt.is_none() {
                return Err(HashError::Unknown);
            }
            if params.m_cost() > ARGON2_KIB_MAX || params.t_cost() > ARGON2_PASSES_MAX {
                return Err(HashError::TooDear);
            }
            return Ok(Self::Argon2(text.to_owned()));
        }
        if ["$2a$", "$2b$", "$2y$"].iter().any(|kind| text.starts_with(kind)) {
            let parts = text.parse::<bcrypt::HashParts>().map_err(|_| HashError::Unknown)?;
            if parts.get_cost() > BCRYPT_COST_MAX {
                return Err(HashError::TooDear);
            }
            return Ok(Self::Bcrypt(text.to_owned()));
        }
        let is_weak = ["$apr1$", "{SHA}", "$1$", "$5$", "$6$"].iter().any(|kind| text.starts_with(kind));
        Err(if is_weak { HashError::Weak } else { HashError::Unknown })
    }

    /// Whether this is the password's. Takes tens of milliseconds: not for a worker's thread.
    pub fn verify(&self, password: &[u8]) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, hash.as_str()).is_ok(),
        }
    }

    /// The hash itself.
    pub fn text(&self) -> &str {
        match self {
            Self::Bcrypt(hash) | Self::Argon2(hash) => hash,
        }
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Reads a file of `name:hash` lines. The problem says on which line, and shows nothing of it.
pub fn read_htpasswd(path: &Path) -> Result<BTreeMap<String, Hash>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let mut users = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = |problem: &str| format!("{}, line {}: {problem}", path.display(), index + 1);
        let (name, hash) = line.split_once(':').ok_or_else(|| at("there is no colon"))?;
        let hash = Hash::read(hash).map_err(|problem| at(&problem.to_string()))?;
        if users.insert(name.to_owned(), hash).is_some() {
            return Err(at("this user is there twice"));
        }
        if users.len() > USERS_MAX {
            return Err(at("there are more users than 100,000"));
        }
    }
    if users.is_empty() { Err(format!("{}: there is no user in it", path.display())) } else { Ok(users) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use argon2::PasswordHasher;

    /// Hashes that cost next to nothing.
    pub(crate) fn cheap(password: &str) -> [String; 2] {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::from(params).hash_password_with_salt(password.as_bytes(), b"some salt").unwrap();
        [bcrypt::hash(password, 4).unwrap().replace("$2b$", "$2y$"), argon2.to_string()]
    }

    #[test]
    fn both_kinds_know_their_password_and_no_other() {
        for hash in cheap("secret") {
            let hash = Hash::read(&hash).unwrap();
            assert!(hash.verify(b"secret") && !hash.verify(b"Secret") && !hash.verify(b""));
            assert!(!hash.verify(&[b'a'; 2000]));
            assert_eq!(format!("{hash:?}"), "***");
        }
    }

    #[test]
    fn what_is_no_good_hash_is_told() {
        let dear = cheap("a")[0].replace("$04$", "$20$");
        for (text, want) in [
            ("secret", HashError::Unknown),
            ("$2y$10$short", HashError::Unknown),
            ("$argon2id$v=19$m=8", HashError::Unknown),
            ("$apr1$0adzfifo$14o4fMw/Pm2L34SvyyA2r.", HashError::Weak),
            ("{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", HashError::Weak),
            (dear.as_str(), HashError::TooDear),
        ] {
            assert_eq!(Hash::read(text).unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn a_file_is_read_and_its_bad_line_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        let [hash, other] = cheap("secret");
        std::fs::write(&file, format!("# people\n\nann:{hash}\nbob:{other}\r\n")).unwrap();
        assert_eq!(read_htpasswd(&file).unwrap().into_keys().collect::<Vec<_>>(), ["ann", "bob"]);
        for (text, want) in [
            ("", "no user"),
            ("ann\n", "line 1: there is no colon"),
            ("ann:$apr1$x\n", "line 1: hashes of this kind"),
        ] {
            std::fs::write(&file, text).unwrap();
            let problem = read_htpasswd(&file).unwrap_err();
            assert!(problem.contains(want), "{problem}");
        }
    }
}
