//! What clients ask in meta commands, read as memcached 1.6.18 reads them.
//!
//! All flags are known that it knows, and `E`, `x` and `C` of `mg`, which came later. What a server cannot do
//! it refuses itself, in the words that the client would hear from it directly.

use bytes::{Buf, Bytes, BytesMut};

use super::{Arith, Delete, Get, Mode, Wants, base64};
use crate::wire::decoder::Swallow;
use crate::wire::request::{
    BadFlags, Command, DecodeError, Intent, Key, One, Oversized, Refusal, Request, Store, To,
};
use crate::wire::words::{Span, Words, bytes_of, next_token};
use crate::wire::{KEY_LEN_MAX, Limits, number};

/// Command, key and flags together, as memcached has it. The length of `ms` is one of them.
const WORDS_MAX: usize = 19;

/// What may stand behind `O` of an opaque, and the letter itself.
const OPAQUE_LEN_MAX: usize = 32;

/// A meta command without a value.
///
/// # Errors
///
/// [`DecodeError::Refused`].
pub fn command(line: Bytes) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    match words.get(&line, 0) {
        b"mg" => get(line, &words),
        b"md" => delete(line, &words),
        b"ma" => arith(line, &words),
        b"me" => debug(line, &words),
        b"mn" => Ok(Request::Noop(To::Meta { quiet: false })),
        _ => Err(refused(Refusal::UnknownCommand)),
    }
}

fn get(line: Bytes, words: &Words) -> Result<Request, DecodeError> {
    let flags = Flags::of(&line, words, BadFlags::TooManyForGet).and_then(Flags::without_clear)?;
    let intent = Intent::Get(Get {
        wants: flags.wants_of(Wants::MG),
        touch: flags.touch,
        vivify: flags.vivify,
        recache: flags.recache,
        recache_first: flags.recache_first,
        new_cas: flags.new_cas,
        compare: flags.compare,
        is_peek: flags.is_peek,
    });
    flags.one(Command::MetaGet, line, words, intent)
}

fn delete(line: Bytes, words: &Words) -> Result<Request, DecodeError> {
    let flags = Flags::of(&line, words, BadFlags::TooMany).map_err(unspecific)?;
    let intent = Intent::Delete(Delete {
        compare: flags.compare,
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        touch: flags.touch,
        clear: flags.clear,
        wants: Wants::NOTHING,
    });
    flags.one(Command::MetaDelete, line, words, intent)
}

fn arith(line: Bytes, words: &Words) -> Result<Request, DecodeError> {
    let flags = Flags::of(&line, words, BadFlags::TooMany);
    let flags = flags.and_then(Flags::without_clear).map_err(unspecific)?;
    let decrement = match flags.mode {
        None | Some(b'I' | b'i' | b'+') => false,
        Some(b'D' | b'd' | b'-') => true,
        Some(_) => return Err(refused(Refusal::Flags(BadFlags::ArithMode))),
    };
    let intent = Intent::Arith(Arith {
        delta: flags.delta.unwrap_or(1),
        decrement,
        vivify: flags.vivify,
        initial: flags.initial,
        touch: flags.touch,
        compare: flags.some_cas(),
        new_cas: flags.new_cas,
        wants: flags.wants_of(Wants::MA),
    });
    flags.one(Command::MetaArith, line, words, intent)
}

fn debug(line: Bytes, words: &Words) -> Result<Request, DecodeError> {
    let span = words.span(1);
    if span.is_empty() || span.len() > KEY_LEN_MAX {
        return Err(refused(Refusal::BadFormat));
    }
    let key = match words.get(&line, 2) {
        b"b" => {
            let key = coded_key(&line, span).ok_or(refused(Refusal::BadFormat))?;
            // The answer has the key as the server knows the item, perhaps raw: see `encode`.
            match key.as_bytes().iter().any(|byte| *byte <= b' ' || *byte == 0x7f) {
                true => return Err(refused(Refusal::OneServer)),
                false => Key { is_coded: false, ..key },
            }
        }
        _ => Key { line, span, is_coded: false },
    };
    let (to, flags) = (To::Meta { quiet: false }, Bytes::new());
    Ok(Request::One(One { command: Command::MetaDebug, key, intent: Intent::Debug, to, flags }))
}

/// `ms`: its line is complete, its value may not be. The line ends before `line_len`, the value begins at
/// `value_at`.
///
/// # Errors
///
/// [`DecodeError::Refused`]. If the length could be understood, so many bytes are thrown away.
pub fn store(
    input: &mut BytesMut,
    line_len: usize,
    value_at: usize,
    limits: &Limits,
    swallow: &mut Swallow,
) -> Result<Option<Request>, DecodeError> {
    let line = input.get(..line_len).unwrap_or_default();
    let words = Words::split(line);
    let value_len = match store_len(line, &words) {
        Ok(len) => len,
        Err(error) => {
            input.advance(value_at);
            return Err(error);
        }
    };
    let flags = Flags::parse(line, words.span(2).end).and_then(|flags| Ok((flags.store_mode()?, flags)));
    let checked = flags.and_then(|(mode, flags)| match flags.clear {
        true => Err(BadFlags::Unknown),
        false => flags.check(line, &words).map(|()| (mode, flags)),
    });
    let (mode, flags) = match checked {
        Ok(checked) => checked,
        Err(bad) => {
            input.advance(value_at);
            swallow.len = value_len + 2;
            return Err(refused(Refusal::Flags(bad)));
        }
    };
    let (span, command, to) = (words.span(1), Command::MetaSet, To::Meta { quiet: flags.is_quiet });
    if value_len > limits.value_len_max {
        let line = input.split_to(value_at).freeze();
        swallow.len = value_len + 2;
        let key = flags.key(line, span).ok_or(refused(Refusal::Flags(BadFlags::Key)))?;
        return Ok(Some(Request::Oversized(Oversized { command, key, deletes: true, to })));
    }
    let end = value_at + value_len + 2;
    let Some(line_end) = input.get(end - 2..end) else {
        input.reserve(end - input.len());
        return Ok(None);
    };
    if line_end != b"\r\n" {
        input.advance(end);
        return Err(refused(Refusal::BadDataChunk));
    }
    let whole = input.split_to(end).freeze();
    let extends = matches!(mode, Mode::Append | Mode::Prepend);
    let store = Store {
        mode,
        flags: flags.client_flags,
        exptime: flags.touch.unwrap_or(0),
        value: whole.slice(value_at..end - 2),
        compare: if extends { flags.some_cas() } else { flags.compare },
        new_cas: flags.new_cas,
        invalidate: flags.invalidate,
        vivify: flags.vivify,
        wants: flags.wants_of(Wants::MS),
    };
    let told = whole.slice(words.span(2).end..line_len);
    let key = flags.key(whole, span).ok_or(refused(Refusal::Flags(BadFlags::Key)))?;
    Ok(Some(Request::One(One { command, key, intent: Intent::Store(store), to, flags: told })))
}

/// The length of the value, if the line is one whose value can be found.
fn store_len(line: &[u8], words: &Words) -> Result<usize, DecodeError> {
    if words.count < 2 {
        return Err(refused(Refusal::UnknownCommand));
    }
    if words.count == 2 || words.span(1).len() > KEY_LEN_MAX {
        return Err(refused(Refusal::BadFormat));
    }
    if words.count > WORDS_MAX {
        return Err(refused(Refusal::Flags(BadFlags::TooMany)));
    }
    number::signed(words.get(line, 2))
        .filter(|len| *len <= i32::MAX - 2)
        .and_then(|len| usize::try_from(len).ok())
        .ok_or(refused(Refusal::BadFormat))
}

fn refused(refusal: Refusal) -> DecodeError {
    DecodeError::Refused { refusal, to: To::Meta { quiet: false } }
}

/// `md` and `ma` have one error for most of what can be wrong with flags.
fn unspecific(error: DecodeError) -> DecodeError {
    match error {
        DecodeError::Refused { refusal: Refusal::Flags(bad), to } => {
            let bad = match bad {
                BadFlags::TooMany | BadFlags::TooManyForGet | BadFlags::Opaque => bad,
                BadFlags::Duplicate
                | BadFlags::Unknown
                | BadFlags::Any
                | BadFlags::Format
                | BadFlags::Number
                | BadFlags::Key
                | BadFlags::ModeLength
                | BadFlags::StoreMode
                | BadFlags::ArithMode
                | BadFlags::Initial
                | BadFlags::Delta => BadFlags::Any,
            };
            DecodeError::Refused { refusal: Refusal::Flags(bad), to }
        }
        DecodeError::Refused { .. }
        | DecodeError::HangUp { .. }
        | DecodeError::LineTooLong
        | DecodeError::Garbage
        | DecodeError::Http
        | DecodeError::Tls
        | DecodeError::BadMagic => error,
    }
}

/// The flags of one command. Each letter may be there once, known to this command or not.
#[derive(Debug, Default)]
struct Flags {
    wants: Wants,
    touch: Option<i32>,
    vivify: Option<i32>,
    recache: Option<i32>,
    recache_first: bool,
    compare: Option<u64>,
    new_cas: Option<u64>,
    delta: Option<u64>,
    initial: Option<u64>,
    client_flags: u32,
    mode: Option<u8>,
    is_quiet: bool,
    is_coded: bool,
    is_peek: bool,
    invalidate: bool,
    clear: bool,
    is_opaque_too_long: bool,
    /// Where the flags begin in the line.
    at: usize,
}

impl Flags {
    /// The flags of a command whose key is the second word and whose flags follow it.
    fn of(line: &[u8], words: &Words, too_many: BadFlags) -> Result<Self, DecodeError> {
        if words.count < 2 {
            return Err(refused(Refusal::UnknownCommand));
        }
        if words.span(1).len() > KEY_LEN_MAX {
            return Err(refused(Refusal::BadFormat));
        }
        if words.count > WORDS_MAX {
            return Err(refused(Refusal::Flags(too_many)));
        }
        let flags = Self::parse(line, words.span(1).end);
        let checked = flags.and_then(|flags| flags.check(line, words).map(|()| flags));
        checked.map_err(|bad| refused(Refusal::Flags(bad)))
    }

    /// All words from `at` on. What is no flag ends it; of other mistakes the last is told, as by memcached.
    fn parse(line: &[u8], at: usize) -> Result<Self, BadFlags> {
        let mut flags = Self { at, ..Self::default() };
        let (mut seen, mut bad, mut next) = (0u128, None, at);
        while let Some(span) = next_token(line, next) {
            next = span.end;
            let Some((&letter, argument)) = bytes_of(line, span).split_first() else { break };
            if letter >= 127 || seen & (1 << letter) != 0 {
                return Err(BadFlags::Duplicate);
            }
            seen |= 1 << letter;
            bad = flags.take(letter, argument)?.or(bad);
        }
        match bad {
            Some(bad) => Err(bad),
            None => Ok(flags),
        }
    }

    /// Takes one flag. The inner value is a mistake that does not end the reading.
    fn take(&mut self, letter: u8, argument: &[u8]) -> Result<Option<BadFlags>, BadFlags> {
        fn number<T>(read: Option<T>, place: &mut Option<T>, bad: BadFlags) -> Option<BadFlags> {
            let is_bad = read.is_none();
            *place = read;
            is_bad.then_some(bad)
        }
        let time = || number::signed(argument);
        let long = || number::unsigned(argument);
        let mut mistake = None;
        match letter {
            b'b' => self.is_coded = true,
            b'N' => mistake = number(time(), &mut self.vivify, BadFlags::Number),
            b'T' => mistake = number(time(), &mut self.touch, BadFlags::Number),
            b'R' => {
                self.recache_first = self.touch.is_none();
                mistake = number(time(), &mut self.recache, BadFlags::Number);
            }
            b'C' => mistake = number(long(), &mut self.compare, BadFlags::Number),
            b'E' => mistake = number(long(), &mut self.new_cas, BadFlags::Number),
            b'J' => mistake = number(long(), &mut self.initial, BadFlags::Initial),
            b'D' => mistake = number(long(), &mut self.delta, BadFlags::Delta),
            b'F' => match number::flags(argument) {
                Some(flags) => self.client_flags = flags,
                None => mistake = Some(BadFlags::Format),
            },
            b'M' => match argument {
                [mode] => self.mode = Some(*mode),
                _ => mistake = Some(BadFlags::ModeLength),
            },
            b'O' => self.is_opaque_too_long = argument.len() >= OPAQUE_LEN_MAX,
            b't' => {
                let is_new = self.touch.is_some() || self.vivify.is_some();
                self.wants = self.wants.and(if is_new { Wants::NEW_TTL } else { Wants::TTL });
            }
            b'k' => self.wants = self.wants.and(Wants::KEY),
            b's' => self.wants = self.wants.and(Wants::SIZE),
            b'c' => self.wants = self.wants.and(Wants::CAS),
            b'f' => self.wants = self.wants.and(Wants::FLAGS),
            b'l' => self.wants = self.wants.and(Wants::LAST),
            b'h' => self.wants = self.wants.and(Wants::HIT),
            b'v' => self.wants = self.wants.and(Wants::VALUE),
            b'u' => self.is_peek = true,
            b'q' => self.is_quiet = true,
            b'I' => self.invalidate = true,
            b'x' => self.clear = true,
            // For memcached's own proxy.
            b'P' | b'L' => (),
            _ => return Err(BadFlags::Unknown),
        }
        Ok(mistake)
    }

    /// What can only be told with all flags known.
    fn check(&self, line: &[u8], words: &Words) -> Result<(), BadFlags> {
        if self.is_coded && base64::decode(bytes_of(line, words.span(1))).is_none() {
            return Err(BadFlags::Key);
        }
        if self.is_opaque_too_long {
            return Err(BadFlags::Opaque);
        }
        Ok(())
    }

    /// `x` is a flag of `md` only.
    fn without_clear(self) -> Result<Self, DecodeError> {
        if self.clear { Err(refused(Refusal::Flags(BadFlags::Unknown))) } else { Ok(self) }
    }

    /// The CAS value to compare with, where 0 is none.
    fn some_cas(&self) -> Option<u64> {
        self.compare.filter(|cas| *cas != 0)
    }

    fn store_mode(&self) -> Result<Mode, BadFlags> {
        match self.mode {
            None | Some(b'S' | b's') => Ok(Mode::Set),
            Some(b'E' | b'e') => Ok(Mode::Add),
            Some(b'A' | b'a') => Ok(Mode::Append),
            Some(b'P' | b'p') => Ok(Mode::Prepend),
            Some(b'R' | b'r') => Ok(Mode::Replace),
            Some(_) => Err(BadFlags::StoreMode),
        }
    }

    /// What the command can tell, of what the client would like to know. The key it knows itself; asked for
    /// with a value, it shows that the answer belongs to the question.
    fn wants_of(&self, possible: Wants) -> Wants {
        let key = if self.wants.has(Wants::VALUE) { Wants::KEY } else { Wants::NOTHING };
        self.wants.and(key).only(possible)
    }

    fn one(
        &self,
        command: Command,
        line: Bytes,
        words: &Words,
        intent: Intent,
    ) -> Result<Request, DecodeError> {
        let (flags, to) = (line.slice(self.at..), To::Meta { quiet: self.is_quiet });
        let key = self.key(line, words.span(1)).ok_or(refused(Refusal::Flags(BadFlags::Key)))?;
        Ok(Request::One(One { command, key, intent, to, flags }))
    }

    fn key(&self, line: Bytes, span: Span) -> Option<Key> {
        match self.is_coded {
            true => coded_key(&line, span),
            false => Some(Key { line, span, is_coded: false }),
        }
    }
}

fn coded_key(line: &[u8], span: Span) -> Option<Key> {
    let line = Bytes::from(base64::decode(bytes_of(line, span))?);
    let span = Span { start: 0, end: line.len() };
    Some(Key { line, span, is_coded: true })
}
