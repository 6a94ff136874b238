//! What one side writes into a pipe, read in parts. Pure.

use super::head;
use crate::wire::chunked::Chunked;
use crate::wire::fields::FIELDS_MAX;
use crate::wire::scan::HeadScan;
use crate::wire::{Body, Fields, Framing, Limits, Malformed, ReplyHead};
use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response};

/// What is read has been read and written by a session: no bound is stricter than those it went by.
pub(super) const LIMITS: Limits = Limits {
    head_bytes: usize::MAX,
    target_bytes: usize::MAX,
    fields: FIELDS_MAX,
    trailer_bytes: usize::MAX,
    body_bytes: u64::MAX,
};

/// A part of a body.
#[derive(Debug)]
pub(super) enum Part {
    /// Some of it.
    Data(Bytes),
    /// The fields after it; nothing more comes.
    Trailers(HeaderMap),
    /// Nothing more comes.
    End,
}

/// A body, and where in it we are.
#[derive(Debug)]
pub(super) enum BodyReading {
    /// The chunked coding is read.
    Chunks(Box<Chunked>),
    /// As it is.
    Plain(Body),
    /// Bytes of another protocol, until their sender has closed.
    Switched,
    /// Over.
    Done,
}

impl BodyReading {
    /// A body of that framing.
    pub(super) fn new(framing: Framing) -> Self {
        match Body::new(framing) {
            Body::Chunked(chunked) => Self::Chunks(chunked),
            body @ (Body::Done | Body::Length(_) | Body::Close) => Self::Plain(body),
        }
    }

    /// Whether all of it was read.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next part from the front of `input`. None while it is missing.
    pub(super) fn next(&mut self, input: &mut BytesMut) -> Result<Option<Part>, Malformed> {
        match self {
            // Chunks -> Done
            Self::Chunks(chunked) => {
                let mut data = BytesMut::new();
                let taken = chunked.advance_to_trailers(input, &LIMITS, |run| data.extend_from_slice(run))?;
                input.advance(taken);
                if !data.is_empty() {
                    return Ok(Some(Part::Data(data.freeze())));
                }
                let Some(length) = chunked.trailers(input, &LIMITS)? else { return Ok(None) };
                let section = input.split_to(length);
                *self = Self::Done;
                let trailers = head::trailers(&section).ok_or(Malformed::FieldName)?;
                Ok(Some(if trailers.is_empty() { Part::End } else { Part::Trailers(trailers) }))
            }
            // Plain -> Done
            Self::Plain(body) => {
                if body.is_done() {
                    *self = Self::Done;
                    return Ok(Some(Part::End));
                }
                let taken = body.advance(input, &LIMITS, |_| {})?;
                Ok(data(input, taken))
            }
            Self::Switched => {
                let all = input.len();
                Ok(data(input, all))
            }
            Self::Done => Ok(None),
        }
    }

    /// Its sender has closed. Whether that was its end, rather than a loss.
    pub(super) fn closed(&mut self) -> bool {
        let is_end = match self {
            Self::Plain(body) => body.closed(),
            Self::Switched => true,
            Self::Chunks(_) | Self::Done => false,
        };
        if is_end {
            *self = Self::Done;
        }
        is_end
    }
}

fn data(input: &mut BytesMut, count: usize) -> Option<Part> {
    (count > 0).then(|| Part::Data(input.split_to(count).freeze()))
}

/// A reply's head.
#[derive(Debug)]
pub(super) enum Head {
    /// Another follows.
    Interim(Response<()>),
    /// The last, and its body.
    Final(Response<()>, BodyReading),
}

/// Reads the heads of one reply.
#[derive(Debug, Default)]
pub(super) struct HeadReading {
    scan: HeadScan,
    fields: Fields,
}

impl HeadReading {
    /// Takes the next head from the front of `input`. None while some of it is missing.
    pub(super) fn next(&mut self, input: &mut BytesMut, to_head: bool) -> Result<Option<Head>, Malformed> {
        let Some(length) = self.scan.advance(input, &LIMITS)? else { return Ok(None) };
        self.scan = HeadScan::default();
        let raw = input.split_to(length);
        let head = ReplyHead::parse(&raw, to_head, &LIMITS, &mut self.fields)?;
        let response = head::response(&head).ok_or(Malformed::FieldName)?;
        Ok(Some(if head.is_interim() {
            Head::Interim(response)
        } else if head.status == 101 {
            Head::Final(response, BodyReading::Switched)
        } else {
            Head::Final(response, BodyReading::new(head.framing))
        }))
    }
}
