//! The log's bytes. Pure.
//!
//! ```text
//! header: magic (8) · version (4) · the log's id (8) · base (8) · xxh3 of all that (8)
//! record: magic (4) · length (4) · durable (8) · xxh3 of length, durable and payload (8) · payload
//! ```
//!
//! `durable` is the place up to which everything was on the disk when this was written. So a record that does not read
//! is one of two things: what a crash has left of records that nobody was told of, or, if one behind it says that it was
//! durable, damage. The first is cut off, the second is an error: a decision would be lost.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

const FILE_MAGIC: [u8; 8] = *b"groovedl";
const RECORD_MAGIC: [u8; 4] = *b"GRVR";
const VERSION: u32 = 1;
/// Bytes of a file's header.
pub(super) const HEADER: usize = 36;
/// Bytes before a record's payload.
const PREFIX: usize = 24;
/// The largest payload.
pub const PAYLOAD_MAX: usize = 128 << 20;

/// A file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Of this log and of no other: its members know it by this.
    pub id: u64,
    /// Transactions of lower numbers are on all members that were in when this file began.
    pub base: u64,
}

/// What the log says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// All members were found equal, and belong to the group from here on.
    Founded,
    /// A process leads the group from here on.
    Epoch(u64),
    /// A transaction is committed.
    Commit(Commit),
}

/// A transaction's writes, as every member carries them out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Its number, which is unique in the log.
    pub number: u64,
    /// The role on the servers.
    pub user: String,
    /// The session's settings when it began.
    pub settings: Vec<(String, String)>,
    /// Its statements.
    pub entries: Vec<Entry>,
}

/// One statement, rewritten so that it does the same wherever it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its text.
    pub text: String,
    /// Types of its parameters, 0 where the server finds out.
    pub types: Vec<u32>,
    /// Its parameters with their formats, as in a Bind.
    pub parameters: Vec<u8>,
    /// What it did on the leader, if that is compared.
    pub effect: Option<Effect>,
}

/// What a statement did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The command's tag.
    pub tag: String,
    /// How many rows it gave.
    pub rows: u64,
    /// The sum of the hashes of these rows' images, in whatever order they came.
    pub images: u128,
}

/// What cannot be a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not one of ours.
    #[error("this is not the beginning of a log")]
    Header,
    /// Another version's.
    #[error("the log is of version {0}, which this program does not know")]
    Version(u32),
    /// Decisions are lost.
    #[error("the log is damaged at byte {at}: a decision would be lost")]
    Record {
        /// Where it begins.
        at: u64,
    },
}

/// A header's bytes.
pub(super) fn put_header(header: Header) -> Vec<u8> {
    let mut bytes = FILE_MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&header.id.to_be_bytes());
    bytes.extend_from_slice(&header.base.to_be_bytes());
    let sum = xxh3_64(&bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
    bytes
}

/// Reads a header.
pub(super) fn header(bytes: &[u8]) -> Result<Header, Damage> {
    let mut rest = bytes;
    let magic = take::<8>(&mut rest).ok_or(Damage::Header)?;
    let version = take::<4>(&mut rest).map(u32::from_be_bytes).ok_or(Damage::Header)?;
    let mut number = || take::<8>(&mut rest).map(u64::from_be_bytes).ok_or(Damage::Header);
    let (id, base, sum) = (number()?, number()?, number()?);
    let signed = bytes.get(..HEADER - 8).unwrap_or_default();
    if magic != FILE_MAGIC || sum != xxh3_64(signed) {
        return Err(Damage::Header);
    }
    if version != VERSION {
        return Err(Damage::Version(version));
    }
    Ok(Header { id, base })
}

/// A record's bytes. `durable` is the end of what is on the disk.
pub(super) fn put_record(out: &mut Vec<u8>, payload: &[u8], durable: u64) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&RECORD_MAGIC);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&durable.to_be_bytes());
    out.extend_from_slice(&sum(length, durable, payload).to_be_bytes());
    out.extend_from_slice(payload);
}

/// One record in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// Where its payload begins.
    pub at: u64,
    /// Its payload's length.
    pub length: u32,
    /// What it says.
    pub record: Record,
}

/// Reads a whole file: its header, its records, and where they end. What is behind that was never acknowledged.
pub(super) fn read(bytes: &[u8]) -> Result<(Header, Vec<Found>, u64), Damage> {
    let header = header(bytes)?;
    let (mut at, mut found) = (HEADER, Vec::new());
    while let Some((_, payload)) = bytes.get(at..).and_then(record) {
        let Ok(record) = postcard::from_bytes(payload) else { break };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        found.push(Found { at: (at + PREFIX) as u64, length, record });
        at += PREFIX + payload.len();
    }
    // A record behind what does not read, that was written when this was durable already?
    let tail = bytes.get(at..).unwrap_or_default();
    let later = memchr::memmem::find_iter(tail, &RECORD_MAGIC);
    let is_damaged =
        later.filter_map(|offset| record(tail.get(offset..)?)).any(|(durable, _)| durable > at as u64);
    if is_damaged {
        return Err(Damage::Record { at: at as u64 });
    }
    Ok((header, found, at as u64))
}

/// The record that begins here, if it is whole: what was durable when it was written, and its payload.
fn record(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = bytes;
    let magic = take::<4>(&mut rest)?;
    let length = take::<4>(&mut rest).map(u32::from_be_bytes)?;
    let durable = take::<8>(&mut rest).map(u64::from_be_bytes)?;
    let expected = take::<8>(&mut rest).map(u64::from_be_bytes)?;
    let payload = rest.get(..usize::try_from(length).ok()?)?;
    (magic == RECORD_MAGIC && payload.len() <= PAYLOAD_MAX && sum(length, durable, payload) == expected)
        .then_some((durable, payload))
}

fn sum(length: u32, durable: u64, payload: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(&length.to_be_bytes());
    hasher.update(&durable.to_be_bytes());
    hasher.update(payload);
    hasher.digest()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn commit(number: u64) -> Record {
        let entry = Entry { text: format!("UPDATE t SET a = {number}"), ..Entry::default() };
        Record::Commit(Commit { number, user: "app".to_owned(), settings: Vec::new(), entries: vec![entry] })
    }

    /// A file of so many records, each durable before the next is written, and where each ends.
    fn file(count: u64) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = put_header(Header { id: 7, base: 1 });
        let mut ends = vec![bytes.len()];
        for number in 0..count {
            let durable = bytes.len() as u64;
            put_record(&mut bytes, &postcard::to_stdvec(&commit(number)).unwrap(), durable);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn a_write_that_is_torn_anywhere_loses_itself_and_nothing_before() {
        let (bytes, ends) = file(5);
        for end in HEADER..=bytes.len() {
            let whole = ends.iter().filter(|whole| **whole <= end).count() - 1;
            let (header, found, valid) = read(&bytes[..end]).unwrap();
            assert_eq!((header.id, found.len()), (7, whole), "cut at {end}");
            assert_eq!(valid, ends[whole] as u64);
            // Room that was allotted and not written; where zeros are all that is missing nothing is.
            let padded = [&bytes[..end], &[0; 300][..]].concat();
            let count = read(&padded).unwrap().1.len();
            assert!(
                count == whole || padded[..ends[count]] == bytes[..ends[count]],
                "padded at {end}: {count}"
            );
        }
        for end in 0..HEADER {
            assert_eq!(read(&bytes[..end]), Err(Damage::Header));
        }
    }

    #[test]
    fn damage_before_what_was_durable_is_an_error() {
        let (bytes, ends) = file(3);
        for at in HEADER..ends[2] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let error = read(&damaged).unwrap_err();
            assert!(matches!(error, Damage::Record { .. }), "at {at}: {error:?}");
        }
        // Of the last one nobody knows whether anybody was told.
        for at in ends[2]..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(read(&damaged).unwrap().1.len(), 2);
        }
    }

    #[test]
    fn a_torn_batch_is_not_damage() {
        let mut bytes = put_header(Header { id: 7, base: 1 });
        let durable = bytes.len() as u64;
        for number in 0..3 {
            put_record(&mut bytes, &postcard::to_stdvec(&commit(number)).unwrap(), durable);
        }
        // The first of a batch did not get to the disk, the others did.
        bytes[HEADER + PREFIX] ^= 1;
        assert_eq!(read(&bytes).unwrap().1, Vec::new());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let _refused = read(&bytes);
            let (mut file, _) = file(2);
            let end = (at + bytes.len()).min(file.len());
            if at < end {
                file[at..end].copy_from_slice(&bytes[..end - at]);
            }
            let _read = read(&file);
        }
    }
}
