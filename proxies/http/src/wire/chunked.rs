//! The chunked coding (RFC 9112, 7.1): checked byte for byte, passed on as it came.

use super::{Limits, Malformed, Name};

/// Bytes of extensions one chunk may carry; nobody uses them, so this is generous.
const EXTENSION_BYTES_MAX: u32 = 256;
/// Hexadecimal digits of one chunk's size; sixteen fill a `u64`.
const SIZE_DIGITS_MAX: u8 = 16;
/// Longer than every field name that is refused in a trailer.
const NAME_BYTES_KEPT: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the size, before its first digit.
    SizeFirst,
    /// In the size.
    Size,
    /// In whitespace before a `;`.
    BeforeExtension,
    /// After `;`, before the name.
    ExtensionStart,
    /// In an extension's name.
    ExtensionName,
    /// After `=`.
    ExtensionValueStart,
    /// In a token as the value.
    ExtensionToken,
    /// In a quoted string.
    Quoted,
    /// After a backslash in a quoted string.
    QuotedPair,
    /// After a quoted string.
    ExtensionEnd,
    /// After the CR of the size line.
    SizeNewline,
    /// In the data; how much is missing is in `left`.
    Data,
    /// After the data, before CR.
    DataReturn,
    /// After the data's CR.
    DataNewline,
    /// At the start of a trailer line, or of the blank line.
    TrailerStart,
    /// In a trailer's name.
    TrailerName,
    /// In a trailer's value.
    TrailerValue,
    /// After the CR of a trailer line.
    TrailerNewline,
    /// After the CR of the blank line.
    EndNewline,
    /// The body is complete.
    Done,
}

/// A reader of one chunked body.
#[derive(Debug, Clone)]
pub struct Chunked {
    state: State,
    /// The size being read, then the bytes of data that are missing.
    left: u64,
    digits: u8,
    extension_bytes: u32,
    trailer_bytes: usize,
    name: [u8; NAME_BYTES_KEPT],
    name_bytes: usize,
    /// Data bytes seen so far.
    total: u64,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::SizeFirst,
            left: 0,
            digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            name: [0; NAME_BYTES_KEPT],
            name_bytes: 0,
            total: 0,
        }
    }
}

impl Chunked {
    /// Whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on through `input` and says how many of its bytes belong to this body: all of them, unless it ends
    /// within. `data` is given each run of data, without the coding around it.
    pub fn advance(
        &mut self,
        input: &[u8],
        limits: &Limits,
        data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        self.advance_to(State::Done, input, limits, data)
    }

    /// As [`Self::advance`], but no further than to the trailer section.
    pub fn advance_to_trailers(
        &mut self,
        input: &[u8],
        limits: &Limits,
        data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        self.advance_to(State::TrailerStart, input, limits, data)
    }

    /// At a trailer section, its length in `input`, blank line included; the body is complete with it. `None` while
    /// some of it is missing, or the body is not there yet.
    pub fn trailers(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Malformed> {
        if self.state != State::TrailerStart {
            return Ok(None);
        }
        let mut ahead = self.clone();
        let length = ahead.advance(input, limits, |_| {})?;
        if !ahead.is_done() {
            return Ok(None);
        }
        *self = ahead;
        Ok(Some(length))
    }

    fn advance_to(
        &mut self,
        goal: State,
        input: &[u8],
        limits: &Limits,
        mut data: impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(rest) = input.get(at..)
            && let Some(byte) = rest.first()
        {
            if self.state == goal || self.state == State::Done {
                break;
            }
            if self.state == State::Data {
                let run = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                data(rest.get(..run).unwrap_or_default());
                at += run;
                self.left -= run as u64;
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                continue;
            }
            self.state = self.step(*byte, limits)?;
            at += 1;
        }
        Ok(at)
    }

    /// One byte of the coding itself.
    fn step(&mut self, byte: u8, limits: &Limits) -> Result<State, Malformed> {
        match self.state {
            State::SizeFirst | State::Size => self.size(byte),
            State::BeforeExtension
            | State::ExtensionStart
            | State::ExtensionName
            | State::ExtensionValueStart
            | State::ExtensionToken
            | State::Quoted
            | State::QuotedPair
            | State::ExtensionEnd => self.extension(byte),
            State::SizeNewline => match byte {
                b'\n' => self.chunk_begins(limits),
                _ => Err(Malformed::LineEnd),
            },
            State::DataReturn if byte == b'\r' => Ok(State::DataNewline),
            State::DataNewline if byte == b'\n' => {
                self.digits = 0;
                Ok(State::SizeFirst)
            }
            State::DataReturn | State::DataNewline => Err(Malformed::ChunkEnd),
            State::TrailerStart
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerNewline
            | State::EndNewline => self.trailer(byte, limits),
            State::Data | State::Done => Ok(self.state),
        }
    }

    fn size(&mut self, byte: u8) -> Result<State, Malformed> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if self.state == State::Size => return Ok(State::SizeNewline),
            b';' if self.state == State::Size => return Ok(State::ExtensionStart),
            b' ' | b'\t' if self.state == State::Size => return Ok(State::BeforeExtension),
            b'\n' if self.state == State::Size => return Err(Malformed::LineEnd),
            _ => return Err(Malformed::ChunkSize),
        };
        if self.state == State::SizeFirst {
            self.left = 0;
            self.extension_bytes = 0;
        }
        self.digits += 1;
        if self.digits > SIZE_DIGITS_MAX {
            return Err(Malformed::ChunkSize);
        }
        self.left = (self.left << 4) | u64::from(digit);
        Ok(State::Size)
    }

    fn extension(&mut self, byte: u8) -> Result<State, Malformed> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(Malformed::ChunkExtension);
        }
        let token = super::scan::is_token(byte);
        match (self.state, byte) {
            (State::BeforeExtension, b' ' | b'\t') => Ok(State::BeforeExtension),
            (
                State::BeforeExtension | State::ExtensionName | State::ExtensionToken | State::ExtensionEnd,
                b';',
            ) => Ok(State::ExtensionStart),
            (State::ExtensionName | State::ExtensionToken | State::ExtensionEnd, b'\r') => {
                Ok(State::SizeNewline)
            }
            (State::ExtensionStart | State::ExtensionName, _) if token => Ok(State::ExtensionName),
            (State::ExtensionName, b'=') => Ok(State::ExtensionValueStart),
            (State::ExtensionValueStart, b'"') => Ok(State::Quoted),
            (State::ExtensionValueStart | State::ExtensionToken, _) if token => Ok(State::ExtensionToken),
            (State::Quoted, b'"') => Ok(State::ExtensionEnd),
            (State::Quoted, b'\\') => Ok(State::QuotedPair),
            (State::Quoted, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Quoted),
            (State::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::Quoted),
            _ => Err(Malformed::ChunkExtension),
        }
    }

    /// The size line is complete.
    fn chunk_begins(&mut self, limits: &Limits) -> Result<State, Malformed> {
        if self.left == 0 {
            return Ok(State::TrailerStart);
        }
        self.total = self.total.checked_add(self.left).ok_or(Malformed::ChunkSize)?;
        if self.total > limits.body_bytes {
            return Err(Malformed::BodyTooLarge);
        }
        Ok(State::Data)
    }

    fn trailer(&mut self, byte: u8, limits: &Limits) -> Result<State, Malformed> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > limits.trailer_bytes {
            return Err(Malformed::TrailerTooLong);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndNewline),
            (State::TrailerStart, _) => {
                self.name_bytes = 0;
                self.trailer_name(byte)
            }
            (State::TrailerName, b':') => {
                let name = self.name.get(..self.name_bytes).unwrap_or_default();
                if is_framing(name) { Err(Malformed::TrailerField) } else { Ok(State::TrailerValue) }
            }
            (State::TrailerName, _) => self.trailer_name(byte),
            (State::TrailerValue, b'\r') => Ok(State::TrailerNewline),
            (State::TrailerValue, b'\n') => Err(Malformed::LineEnd),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerValue, _) => Err(Malformed::FieldValue),
            (State::TrailerNewline, b'\n') => Ok(State::TrailerStart),
            (State::EndNewline, b'\n') => Ok(State::Done),
            _ => Err(Malformed::LineEnd),
        }
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, Malformed> {
        if !super::scan::is_token(byte) {
            return Err(Malformed::FieldName);
        }
        // A name too long to keep is none that is refused; its place stays filled, so it cannot look like one.
        if let Some(place) = self.name.get_mut(self.name_bytes) {
            *place = byte;
            self.name_bytes += 1;
        }
        Ok(State::TrailerName)
    }
}

/// Fields that would change how the message is framed, routed or trusted, were they merged into the head.
fn is_framing(name: &[u8]) -> bool {
    let known = Name::of(name);
    known.is_hop_by_hop()
        || known.is_identity()
        || matches!(known, Name::Host | Name::ContentLength | Name::Expect | Name::Trailer)
}
