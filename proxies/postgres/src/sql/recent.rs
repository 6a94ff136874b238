//! Texts that came by lately and leave nothing behind: those of unnamed statements, which drivers send again and again,
//! with their values apart from them.

use std::hash::BuildHasher;

use bytes::Bytes;
use parking_lot::Mutex;

/// How many are kept, by their hashes: one that comes puts another out.
const PLACES: usize = 256;
/// The largest that is kept, in bytes.
const LENGTH_MAX: usize = 1 << 10;

/// What has been seen. Nobody waits for it: who finds it in use reads the text.
#[derive(Debug, Default)]
pub struct Recent {
    hasher: foldhash::fast::RandomState,
    places: Mutex<Vec<Bytes>>,
}

impl Recent {
    fn place(&self, content: &[u8]) -> Option<usize> {
        let is_small = content.len() <= LENGTH_MAX;
        is_small.then(|| usize::try_from(self.hasher.hash_one(content) % PLACES as u64).ok()).flatten()
    }

    /// The same bytes as `content` (text, terminator, types of parameters), if they are known.
    pub fn recall(&self, content: &[u8]) -> Option<Bytes> {
        let place = self.place(content)?;
        self.places.try_lock()?.get(place).filter(|known| **known == content).cloned()
    }

    /// Keeps what was read, and leaves nothing behind.
    pub fn remember(&self, content: &Bytes) {
        if let (Some(place), Some(mut places)) = (self.place(content), self.places.try_lock()) {
            places.resize(PLACES, Bytes::new());
            places.get_mut(place).into_iter().for_each(|known| *known = content.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_by_its_bytes_alone() {
        let (recent, content) = (Recent::default(), Bytes::from_static(b"select $1\0\0\0"));
        assert_eq!(recent.recall(&content), None);
        recent.remember(&content);
        assert_eq!(recent.recall(b"select $1\0\0\0"), Some(content));
        assert_eq!(recent.recall(b"select $1\0\0\x01\0\0\0\x17"), None);
        let long = Bytes::from(vec![b'x'; LENGTH_MAX + 1]);
        recent.remember(&long);
        assert_eq!(recent.recall(&long), None);
    }
}
