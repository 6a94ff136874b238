//! What the file of a value holds: a line that tells revision, length and checksum, then the value itself.

use std::path::Path;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::super::{Entry, Revision, StoreError, VALUE_LEN_MAX};

/// Does a value stay, or go with its process?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Kept,
    Leased,
}

/// What a file of `data` holds.
pub(super) struct Found {
    pub(super) entry: Entry,
    pub(super) kind: Kind,
}

/// The first line of a value's file.
const FORMAT: &str = "groove-store-1";

pub(super) fn header(revision: Revision, value: &[u8], kind: Kind) -> Vec<u8> {
    let kind = match kind {
        Kind::Kept => "kept",
        Kind::Leased => "leased",
    };
    format!("{FORMAT} {} {} {:016x} {kind}\n", revision.0, value.len(), xxh3_64(value)).into_bytes()
}

pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Found, StoreError> {
    let damaged = |reason| StoreError::Damaged { place: path.display().to_string(), reason };
    let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(damaged("its first line has no end"))?;
    let (line, value) = bytes.split_at(end);
    let value = value.get(1..).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| damaged("its first line is no text"))?;
    let mut words = line.split(' ');
    if words.next() != Some(FORMAT) {
        return Err(damaged("it is not a value of a store"));
    }
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    let (revision, len) = (number(words.next()), number(words.next()));
    let sum = words.next().and_then(|word| u64::from_str_radix(word, 16).ok());
    let kind = match words.next() {
        Some("kept") => Kind::Kept,
        Some("leased") => Kind::Leased,
        Some(_) | None => return Err(damaged("its first line is not whole")),
    };
    let (Some(revision), Some(len), Some(sum)) = (revision, len, sum) else {
        return Err(damaged("its first line is not whole"));
    };
    if len != value.len() as u64 || value.len() > VALUE_LEN_MAX || sum != xxh3_64(value) {
        return Err(damaged("it is not as long as it says, or its checksum is wrong"));
    }
    Ok(Found { entry: Entry { value: Bytes::copy_from_slice(value), revision: Revision(revision) }, kind })
}
