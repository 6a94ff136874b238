//! The contents of keys: no two writes leave the same, and a content tells its own history.
//!
//! A key's shape follows from its number. Texts are lists of the writes they are made of, `12;15;` after an append
//! of 15 to 12, turned around where the key is prepended to. Numbers hold the write that set them in their upper
//! bits and how often they were counted up (or down) in the lower ones.

use super::history::Version;

/// What may be done to a key besides reading and writing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Appended to.
    Append,
    /// Prepended to.
    Prepend,
    /// Incremented.
    Up,
    /// Decremented.
    Down,
}

/// Bits of a number that count.
const STEP_BITS: u32 = 20;
const STEP_MASK: u64 = (1 << STEP_BITS) - 1;

impl Shape {
    /// The shape of a key.
    #[must_use]
    pub(super) fn of(key: u32) -> Self {
        match key % 4 {
            0 => Self::Append,
            1 => Self::Prepend,
            2 => Self::Up,
            _ => Self::Down,
        }
    }

    /// What the write with this id puts there.
    #[must_use]
    pub(super) fn content(self, id: u32) -> String {
        match self {
            Self::Append | Self::Prepend => format!("{id};"),
            Self::Up => (u64::from(id) << STEP_BITS).to_string(),
            Self::Down => ((u64::from(id) << STEP_BITS) | STEP_MASK).to_string(),
        }
    }

    /// Reads a content: its writes from the first to the last, and how often it was counted. `None` is a content
    /// that nobody can have written.
    #[must_use]
    pub(super) fn read(self, content: &[u8]) -> Option<(Vec<u32>, u32)> {
        let text = std::str::from_utf8(content).ok()?;
        match self {
            Self::Append | Self::Prepend => {
                let mut writes = text
                    .strip_suffix(';')?
                    .split(';')
                    .map(|id| id.parse().ok())
                    .collect::<Option<Vec<u32>>>()?;
                if self == Self::Prepend {
                    writes.reverse();
                }
                Some((writes, 0))
            }
            Self::Up | Self::Down => {
                // A number that became shorter by a decrement keeps its length with spaces (memcached's protocol.txt).
                let number: u64 = text.trim_end().parse().ok()?;
                let version = self.counted(number)?;
                Some((vec![version.write], version.step))
            }
        }
    }

    /// The version that a number stands for, such as the answer to an increment.
    #[must_use]
    pub(super) fn counted(self, number: u64) -> Option<Version> {
        let low = number & STEP_MASK;
        let step = if self == Self::Down { STEP_MASK - low } else { low };
        Some(Version { write: u32::try_from(number >> STEP_BITS).ok()?, step: u32::try_from(step).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_read_back() {
        for shape in [0, 1, 2, 3].map(Shape::of) {
            assert_eq!(shape.read(shape.content(7).as_bytes()), Some((vec![7], 0)));
        }
        assert_eq!(Shape::Append.read(b"7;8;9;"), Some((vec![7, 8, 9], 0)));
        assert_eq!(Shape::Prepend.read(b"9;8;7;"), Some((vec![7, 8, 9], 0)));
        let up: u64 = Shape::Up.content(7).parse().unwrap();
        assert_eq!(Shape::Up.read((up + 3).to_string().as_bytes()), Some((vec![7], 3)));
        let down: u64 = Shape::Down.content(7).parse().unwrap();
        assert_eq!(Shape::Down.read(format!("{} ", down - 3).as_bytes()), Some((vec![7], 3)));
        assert_eq!(Shape::Append.read(b""), None);
        assert_eq!(Shape::Append.read(b"7;8"), None);
        assert_eq!(Shape::Up.read(b"x"), None);
    }
}
