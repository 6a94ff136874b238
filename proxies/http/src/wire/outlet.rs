//! What goes to a client: heads and small things in one buffer, and behind it a body in the buffer that it was read into.

use bytes::{Buf, BytesMut};

/// Less of a body is copied: behind its head it then goes in one piece.
const BULK_BYTES_MIN: usize = 8 * 1024;

/// Where bytes on their way through are put.
pub trait Output {
    /// Where small things are written: behind all that is there.
    fn tail(&mut self) -> &mut BytesMut;

    /// Moves `count` bytes from the front of `from` behind all that is there.
    fn shift(&mut self, from: &mut BytesMut, count: usize);
}

impl Output for BytesMut {
    fn tail(&mut self) -> &mut BytesMut {
        self
    }

    /// Much, and all of it, into an empty buffer is a swap: a body in transit is not copied here. Little does not keep a
    /// large buffer.
    fn shift(&mut self, from: &mut BytesMut, count: usize) {
        if count >= BULK_BYTES_MIN && count == from.len() && self.is_empty() {
            std::mem::swap(from, self);
            from.clear();
        } else {
            self.extend_from_slice(from.get(..count).unwrap_or_default());
            from.advance(count);
        }
    }
}

/// Bytes for a client, in their order: the head, then the body.
#[derive(Debug, Default)]
pub struct Outlet {
    /// What was written here.
    pub head: BytesMut,
    /// What was taken over from where it was read.
    pub body: BytesMut,
}

impl Outlet {
    /// Bytes that have yet to go.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.body.is_empty()
    }
}

impl Output for Outlet {
    fn tail(&mut self) -> &mut BytesMut {
        if self.body.is_empty() { &mut self.head } else { &mut self.body }
    }

    /// Much of a body is taken over with its buffer.
    fn shift(&mut self, from: &mut BytesMut, count: usize) {
        if self.body.is_empty() && count < BULK_BYTES_MIN {
            self.head.extend_from_slice(from.get(..count).unwrap_or_default());
            from.advance(count);
        } else {
            self.body.shift(from, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_out_in_the_order_they_came_and_much_is_not_copied() {
        let mut outlet = Outlet::default();
        outlet.tail().extend_from_slice(b"head ");
        let mut small = BytesMut::from("little rest");
        outlet.shift(&mut small, 7);
        assert_eq!((&outlet.head[..], &small[..]), (b"head little ".as_slice(), b"rest".as_slice()));

        let mut large = BytesMut::from(&[b'x'; BULK_BYTES_MIN][..]);
        let place = large.as_ptr();
        outlet.shift(&mut large, BULK_BYTES_MIN);
        assert!(large.is_empty() && outlet.body.as_ptr() == place, "the buffer itself was taken");
        // Behind a body all goes into its buffer, however little it is.
        outlet.tail().extend_from_slice(b"1");
        outlet.shift(&mut small, 4);
        assert!(outlet.body.ends_with(b"x1rest"));
        assert_eq!(outlet.len(), b"head little ".len() + BULK_BYTES_MIN + 5);
    }
}
