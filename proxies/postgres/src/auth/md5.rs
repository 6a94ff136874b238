//! PostgreSQL's md5 authentication: `"md5" + hex(md5(hex(md5(password + user)) + salt))`.

use md5::{Digest, Md5};

/// The inner hash, as PostgreSQL stores it: `md5` and 32 hexadecimal digits.
pub fn stored(user: &str, password: &str) -> String {
    let mut hash = Md5::new();
    hash.update(password.as_bytes());
    hash.update(user.as_bytes());
    format!("md5{}", hex(&hash.finalize()))
}

/// What a client answers to the challenge `salt`, from what [`stored`] gives.
pub fn response(stored: &str, salt: [u8; 4]) -> String {
    let mut hash = Md5::new();
    hash.update(stored.strip_prefix("md5").unwrap_or(stored).as_bytes());
    hash.update(salt);
    format!("md5{}", hex(&hash.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
