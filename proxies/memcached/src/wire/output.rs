//! Bytes on their way out: small pieces in one buffer, large ones by reference, written with one call.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// From this size on a value is passed on by reference; below it copying is cheaper than another segment,
/// and a small value never keeps a large read buffer alive.
pub const BY_REFERENCE_LEN_MIN: usize = 8 * 1024;

/// Segments offered to one vectored write.
pub const SEGMENTS_MAX: usize = 32;

/// An empty queue keeps no more memory than this.
const KEPT_LEN_MAX: usize = 64 * 1024;

/// Bytes that go out: their owner's, which may be passed on by reference, or lent ones, which are copied.
pub trait Piece: AsRef<[u8]> {
    /// Appends them to `out`.
    fn push_to(&self, out: &mut Output);
}

impl Piece for Bytes {
    fn push_to(&self, out: &mut Output) {
        out.push(self);
    }
}

impl Piece for &[u8] {
    fn push_to(&self, out: &mut Output) {
        out.extend_from_slice(self);
    }
}

/// A queue of bytes to be written.
#[derive(Debug, Default)]
pub struct Output {
    /// Finished segments, oldest first. Empty as long as everything has been small.
    segments: VecDeque<Bytes>,
    segments_len: usize,
    /// What is being written to.
    tail: BytesMut,
}

impl Output {
    /// An empty queue that holds no memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes not written yet.
    pub fn len(&self) -> usize {
        self.segments_len + self.tail.len()
    }

    /// Is everything written?
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.tail.is_empty()
    }

    /// The buffer small pieces are appended to.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.tail
    }

    /// Appends a copy.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
    }

    /// Appends `bytes`, by reference if they are many.
    pub fn push(&mut self, bytes: &Bytes) {
        if bytes.len() < BY_REFERENCE_LEN_MIN {
            return self.tail.extend_from_slice(bytes);
        }
        if !self.tail.is_empty() {
            self.segments_len += self.tail.len();
            self.segments.push_back(std::mem::take(&mut self.tail).freeze());
        }
        self.segments_len += bytes.len();
        self.segments.push_back(bytes.clone());
    }

    /// The front of the queue, for a plain write.
    pub fn front(&self) -> &[u8] {
        self.segments.front().map_or(&self.tail[..], |segment| &segment[..])
    }

    /// Is the whole queue in [`Self::front`]?
    pub fn is_one_piece(&self) -> bool {
        self.segments.is_empty() || (self.segments.len() == 1 && self.tail.is_empty())
    }

    /// Fills `slices` for a vectored write and answers how many there are.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SEGMENTS_MAX]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.segments.iter().map(|segment| &segment[..]).chain(tail);
        slices.iter_mut().zip(pieces).map(|(slice, piece)| *slice = IoSlice::new(piece)).count()
    }

    /// Takes off what was written. An empty queue keeps the memory of a few answers and gives back what is more.
    pub fn advance(&mut self, mut written: usize) {
        while let Some(segment) = self.segments.front_mut() {
            if written < segment.len() {
                segment.advance(written);
                self.segments_len -= written;
                return;
            }
            written -= segment.len();
            self.segments_len -= segment.len();
            self.segments.pop_front();
        }
        if written >= self.tail.len() && self.tail.capacity() <= KEPT_LEN_MAX {
            self.tail.clear();
        } else if written >= self.tail.len() {
            self.tail = BytesMut::new();
        } else {
            self.tail.advance(written);
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order(
            pieces in prop::collection::vec((any::<u8>(), 0..3 * BY_REFERENCE_LEN_MIN / 2), 0..12),
            step in 1usize..20_000,
        ) {
            let mut output = Output::new();
            let mut expected = Vec::new();
            for (byte, len) in pieces {
                let piece = Bytes::from(vec![byte; len]);
                output.push(&piece);
                expected.extend_from_slice(&piece);
            }
            let mut seen = Vec::new();
            while !output.is_empty() {
                prop_assert_eq!(output.len(), expected.len() - seen.len());
                let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
                let count = output.slices(&mut slices);
                let joined: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                prop_assert!(joined.starts_with(output.front()));
                prop_assert_eq!(output.is_one_piece(), output.front().len() == output.len());
                let taken = step.min(joined.len());
                seen.extend_from_slice(&joined[..taken]);
                output.advance(taken);
            }
            prop_assert_eq!(seen, expected);
        }
    }
}
