//! Which keys a server has: `lru_crawler metadump` (protocol.txt, "LRU Crawler").
//!
//! A server serves one crawl at a time and tells others `BUSY`; it may have its crawler turned off; it writes
//! keys URI-encoded, and some versions say `OK` first. Lines are taken as fast as they come, since the server's
//! crawler waits for its reader.

use groove_common::ids::Address;

use super::line::Line;
use crate::error::Failure;
use crate::upstream::connection::Settings;
use crate::wire::KEY_LEN_MAX;

/// Walks by hash rather than by the lists of ages: an item that goes from one list to another during the walk
/// would be passed over, and whatever stays behind is missed by those who no longer read here while the others
/// still see it.
const CRAWL: &str = "hash";

/// How a crawl ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crawled {
    /// All was listed.
    Done,
    /// Another crawl is under way.
    Busy,
    /// The server lists nothing.
    Off,
}

/// Calls `each` with the true bytes of each key that `address` has.
pub(super) async fn crawl(
    address: &Address,
    settings: &Settings,
    mut each: impl FnMut(&[u8]),
) -> Result<Crawled, Failure> {
    let mut line = Line::open(address, settings).await?;
    line.crawl(CRAWL).await?;
    let mut key = Vec::with_capacity(KEY_LEN_MAX);
    loop {
        let text = line.crawled().await?;
        if let Some(rest) = text.strip_prefix(b"key=") {
            if decode(rest, &mut key) {
                each(&key);
            }
            continue;
        }
        return match &*text {
            b"OK" => continue,
            b"END" => Ok(Crawled::Done),
            text if text.starts_with(b"BUSY") => Ok(Crawled::Busy),
            text if text.starts_with(b"ERROR") || text.starts_with(b"CLIENT_ERROR") => Ok(Crawled::Off),
            _ => Err(Failure::Nonsense),
        };
    }
}

/// Reads an URI-encoded key up to a space. False: it is none.
fn decode(text: &[u8], key: &mut Vec<u8>) -> bool {
    key.clear();
    let mut bytes = text.iter().copied().take_while(|&byte| byte != b' ');
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => match (bytes.next().and_then(digit), bytes.next().and_then(digit)) {
                (Some(high), Some(low)) => high << 4 | low,
                (Some(_) | None, _) => return false,
            },
            byte => byte,
        };
        key.push(byte);
    }
    !key.is_empty() && key.len() <= KEY_LEN_MAX
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_their_true_bytes() {
        let read = |text: &str| {
            let mut key = Vec::new();
            decode(text.as_bytes(), &mut key).then_some(key)
        };
        assert_eq!(read("k1 exp=-1 la=1"), Some(b"k1".to_vec()));
        assert_eq!(read("a%25b%2Fc%00%ff exp=-1"), Some(b"a%b/c\0\xff".to_vec()));
        for bad in ["", " exp=-1", "a%", "a%2", "a%zz", &"x".repeat(251)] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
