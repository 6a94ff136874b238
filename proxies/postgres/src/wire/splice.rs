//! Editing a stream of messages without copying what passes.

use bytes::{Buf, BytesMut};

/// Moves bytes from `input` to `out`, in order: some kept, some cut, some put in between.
///
/// What is kept stays where it lies until an edit or the end forces a decision; if everything was kept and
/// `out` is empty, the two buffers change places and nothing is copied at all.
pub struct Splice<'a> {
    input: &'a mut BytesMut,
    out: &'a mut BytesMut,
    kept: usize,
}

impl<'a> Splice<'a> {
    /// Starts at the front of `input`. Call [`Splice::finish`] at the end.
    pub fn new(input: &'a mut BytesMut, out: &'a mut BytesMut) -> Splice<'a> {
        Splice { input, out, kept: 0 }
    }

    /// What has not been decided yet.
    pub fn rest(&self) -> &[u8] {
        self.input.get(self.kept..).unwrap_or_default()
    }

    /// Passes the next `count` bytes on (as many of them as are there).
    pub fn keep(&mut self, count: usize) {
        self.kept = self.input.len().min(self.kept + count);
    }

    /// Drops the next `count` bytes (as many of them as are there).
    pub fn cut(&mut self, count: usize) {
        self.settle();
        self.input.advance(count.min(self.input.len()));
    }

    /// Where to write what is put in at this place.
    pub fn out(&mut self) -> &mut BytesMut {
        self.settle();
        self.out
    }

    /// Hands over what was kept.
    pub fn finish(mut self) {
        if self.out.is_empty() && self.kept == self.input.len() {
            std::mem::swap(self.input, self.out);
            self.kept = 0;
        } else {
            self.settle();
        }
    }

    fn settle(&mut self) {
        if self.kept > 0 {
            self.out.extend_from_slice(self.input.get(..self.kept).unwrap_or_default());
            self.input.advance(self.kept);
            self.kept = 0;
        }
    }
}
