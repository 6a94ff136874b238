//! Texts that came by lately and leave nothing behind: those of unnamed statements, which drivers send again and again,
//! with their values apart from them.

use std::cell::RefCell;
use std::hash::BuildHasher;

use bytes::Bytes;

/// How many each thread keeps, by their hashes: one that comes puts another out.
const PLACES: usize = 256;
/// The largest that is kept, in bytes.
const LENGTH_MAX: usize = 1 << 10;

/// What one thread has seen.
struct Recent {
    hasher: foldhash::fast::RandomState,
    places: Vec<Bytes>,
}

thread_local! {
    static RECENT: RefCell<Recent> = RefCell::new(Recent {
        hasher: foldhash::fast::RandomState::default(),
        places: vec![Bytes::new(); PLACES],
    });
}

impl Recent {
    fn place(&mut self, content: &[u8]) -> Option<&mut Bytes> {
        let hash = usize::try_from(self.hasher.hash_one(content) % PLACES as u64).ok()?;
        self.places.get_mut(hash)
    }
}

/// The same bytes as `content` (text, terminator, types of parameters), if they are known.
pub fn recall(content: &[u8]) -> Option<Bytes> {
    if content.len() > LENGTH_MAX {
        return None;
    }
    RECENT.with_borrow_mut(|recent| {
        recent.place(content).filter(|known| **known == content).map(|known| known.clone())
    })
}

/// Keeps what was read, and leaves nothing behind.
pub fn remember(content: &Bytes) {
    if content.len() <= LENGTH_MAX {
        RECENT.with_borrow_mut(|recent| {
            if let Some(place) = recent.place(content) {
                *place = content.clone();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_by_its_bytes_alone() {
        let content = Bytes::from_static(b"select $1\0\0\0");
        assert_eq!(recall(&content), None);
        remember(&content);
        assert_eq!(recall(b"select $1\0\0\0"), Some(content));
        assert_eq!(recall(b"select $1\0\0\x01\0\0\0\x17"), None);
        let long = Bytes::from(vec![b'x'; LENGTH_MAX + 1]);
        remember(&long);
        assert_eq!(recall(&long), None);
    }
}
