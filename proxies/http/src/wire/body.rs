//! Where a body ends.

use super::chunked::Chunked;
use super::{Edits, Limits, Malformed, Output};
use bytes::{Buf, BytesMut};

/// How a message's body is delimited (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked coding says.
    Chunked,
    /// The server closes after it; replies only.
    Close,
}

/// A body on its way through.
#[derive(Debug, Clone)]
pub enum Body {
    /// All of it has passed.
    Done,
    /// So many bytes are missing.
    Length(u64),
    /// The chunked coding is being read.
    Chunked(Box<Chunked>),
    /// It ends when its sender closes.
    Close,
}

impl Body {
    /// A body of that framing, of which nothing has passed yet.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::Close => Self::Close,
        }
    }

    /// Whether all of it has passed.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// How many bytes at the front of `input` belong to the body, coding included. `data` is given each run of its
    /// data without the coding.
    pub fn advance(
        &mut self,
        input: &[u8],
        limits: &Limits,
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        match self {
            Self::Done => Ok(0),
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                data(input.get(..taken).unwrap_or_default());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::Chunked(chunked) => {
                let taken = chunked.advance(input, limits, data)?;
                if chunked.is_done() {
                    *self = Self::Done;
                }
                Ok(taken)
            }
            Self::Close => {
                data(input);
                Ok(input.len())
            }
        }
    }

    /// Moves what belongs to the body from the front of `input` to the end of `output`, as it came but for trailers
    /// that `edits` remove. Where there are such edits, a trailer section stays in `input` until all of it is there.
    pub fn pass(
        &mut self,
        input: &mut BytesMut,
        output: &mut impl Output,
        limits: &Limits,
        edits: &Edits,
    ) -> Result<(), Malformed> {
        let Self::Chunked(chunked) = self else {
            let taken = self.advance(input, limits, |_| {})?;
            output.shift(input, taken);
            return Ok(());
        };
        if edits.removes_something() {
            let taken = chunked.advance_to_trailers(input, limits, |_| {})?;
            output.shift(input, taken);
            if let Some(length) = chunked.trailers(input, limits)? {
                put_trailers(input.get(..length).unwrap_or_default(), edits, output.tail());
                input.advance(length);
            }
        } else {
            let taken = chunked.advance(input, limits, |_| {})?;
            output.shift(input, taken);
        }
        if chunked.is_done() {
            *self = Self::Done;
        }
        Ok(())
    }

    /// Takes what belongs to the body from the front of `input`. `data` is given each run of its data without the coding;
    /// `trailers` gets the trailer section, blank line included, without what `edits` remove, once all of it is there.
    pub fn decode(
        &mut self,
        input: &mut BytesMut,
        trailers: &mut BytesMut,
        limits: &Limits,
        edits: &Edits,
        data: impl FnMut(&[u8]),
    ) -> Result<(), Malformed> {
        let Self::Chunked(chunked) = self else {
            let taken = self.advance(input, limits, data)?;
            input.advance(taken);
            return Ok(());
        };
        let taken = chunked.advance_to_trailers(input, limits, data)?;
        input.advance(taken);
        if let Some(length) = chunked.trailers(input, limits)? {
            put_trailers(input.get(..length).unwrap_or_default(), edits, trailers);
            input.advance(length);
        }
        if chunked.is_done() {
            *self = Self::Done;
        }
        Ok(())
    }

    /// Its sender has closed. Whether that was its end, rather than a loss.
    pub fn closed(&mut self) -> bool {
        match self {
            Self::Done => true,
            Self::Close => {
                *self = Self::Done;
                true
            }
            Self::Length(_) | Self::Chunked(_) => false,
        }
    }
}

/// Copies the lines of a trailer section, but those that are removed.
fn put_trailers(section: &[u8], edits: &Edits, output: &mut BytesMut) {
    for line in section.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        if !edits.removes(name) {
            output.extend_from_slice(line);
        }
    }
}
