//! Command lines: words, and what each command makes of them.

use bytes::Bytes;
use memchr::memchr;

use super::{Arith, DecodeError, Delete, Get, Key, Mode, Refusal, Request, Span, Stats, Touch};
use crate::wire::{KEY_LEN_MAX, number};

/// A `stats` line goes on to the servers as it came, on connections that others share. A server hangs up on a line
/// that is too long for it, so that one client could cut off all.
const STATS_LEN_MAX: usize = 1024;

/// A command without a value.
pub(super) fn command(line: Bytes) -> Result<Request, DecodeError> {
    let name = match next_token(&line, 0) {
        // There are no commands of one letter.
        Some(span) if span.end - span.start >= 2 => span,
        Some(_) | None => return Err(DecodeError::refused(Refusal::UnknownCommand)),
    };
    match bytes_of(&line, name) {
        b"get" | b"bget" => get(line, name, false, false),
        b"gets" => get(line, name, true, false),
        b"gat" => get(line, name, false, true),
        b"gats" => get(line, name, true, true),
        b"incr" => arith(line, false),
        b"decr" => arith(line, true),
        b"delete" => delete(line),
        b"touch" => touch(line),
        b"flush_all" => flush_all(&line),
        b"verbosity" => {
            let (level, noreply) = one_number(&line, Refusal::BadFormat)?;
            Ok(Request::Verbosity { level, noreply })
        }
        b"cache_memlimit" => {
            let (megabytes, noreply) = one_number(&line, Refusal::UnknownCommand)?;
            Ok(Request::MemLimit { megabytes, noreply })
        }
        b"stats" if line.len() > STATS_LEN_MAX => Err(DecodeError::refused(Refusal::UnknownCommand)),
        b"stats" => Ok(Request::Stats(Stats { line })),
        b"version" => Ok(Request::Version),
        b"quit" => Ok(Request::Quit),
        b"shutdown" => Err(DecodeError::refused(Refusal::Shutdown)),
        b"slabs" | b"lru" | b"lru_crawler" | b"extstore" | b"watch" | b"refresh_certs" => {
            Err(DecodeError::refused(Refusal::OneServer))
        }
        _ => Err(unknown(&line)),
    }
}

/// Not a command. A browser or a health check that speaks HTTP is hung up on, except where memcached has
/// already decided by the first letter.
fn unknown(line: &[u8]) -> DecodeError {
    let words = Words::split(line);
    let decided =
        matches!(words.get(line, 0), [b'g' | b's' | b'a' | b'c' | b'i' | b'd' | b't', ..] | [b'm', _]);
    match !decided && words.last(line).starts_with(b"HTTP/") {
        true => DecodeError::Http,
        false => DecodeError::refused(Refusal::UnknownCommand),
    }
}

fn get(line: Bytes, name: Span, cas: bool, touches: bool) -> Result<Request, DecodeError> {
    let Some(first) = next_token(&line, name.end) else {
        return Err(DecodeError::refused(Refusal::UnknownCommand));
    };
    let (touch, keys_at) = match touches {
        false => (None, name.end),
        true => {
            let exptime = number::signed(bytes_of(&line, first))
                .ok_or(DecodeError::refused(Refusal::InvalidExptime))?;
            (Some(exptime), first.end)
        }
    };
    let first = next_token(&line, keys_at);
    let mut key = first;
    while let Some(span) = key {
        if span.end - span.start > KEY_LEN_MAX {
            return Err(DecodeError::refused(Refusal::BadFormat));
        }
        key = next_token(&line, span.end);
    }
    Ok(Request::Get(Get { line, key: first, cas, touch }))
}

fn arith(line: Bytes, decrement: bool) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    let noreply = words.count_in(3..=4)? && words.noreply(&line);
    let span = words.key(noreply)?;
    let delta = number::unsigned(words.get(&line, 2))
        .ok_or(DecodeError::Refused { refusal: Refusal::InvalidDelta, noreply })?;
    Ok(Request::Arith(Arith { key: Key { line, span }, delta, decrement, noreply }))
}

fn touch(line: Bytes) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    let noreply = words.count_in(3..=4)? && words.noreply(&line);
    let span = words.key(noreply)?;
    let exptime = number::signed(words.get(&line, 2))
        .ok_or(DecodeError::Refused { refusal: Refusal::InvalidExptime, noreply })?;
    Ok(Request::Touch(Touch { key: Key { line, span }, exptime, noreply }))
}

/// `delete key [0] [noreply]`: the 0 is what is left of a hold time that memcached once had.
fn delete(line: Bytes) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    words.count_in(2..=4)?;
    let noreply = words.count > 2 && words.noreply(&line);
    let hold_is_zero = words.get(&line, 2) == b"0";
    let valid = match words.count {
        2 => true,
        3 => hold_is_zero || noreply,
        _ => hold_is_zero && noreply,
    };
    if !valid {
        return Err(DecodeError::Refused { refusal: Refusal::DeleteUsage, noreply });
    }
    let span = words.key(noreply)?;
    Ok(Request::Delete(Delete { key: Key { line, span }, noreply }))
}

fn flush_all(line: &[u8]) -> Result<Request, DecodeError> {
    let words = Words::split(line);
    words.count_in(1..=3)?;
    let noreply = words.noreply(line);
    let delay = match words.count - usize::from(noreply) {
        1 => 0,
        _ => number::signed(words.get(line, 1))
            .ok_or(DecodeError::Refused { refusal: Refusal::InvalidExptime, noreply })?,
    };
    Ok(Request::FlushAll { delay: delay.max(0), noreply })
}

/// A command with one number, and whether it wants no answer.
fn one_number(line: &[u8], otherwise: Refusal) -> Result<(u32, bool), DecodeError> {
    let words = Words::split(line);
    let noreply = words.count_in(2..=3)? && words.noreply(line);
    let number =
        number::flags(words.get(line, 1)).ok_or(DecodeError::Refused { refusal: otherwise, noreply })?;
    Ok((number, noreply))
}

/// A storage command's line.
pub(super) struct StoreHead {
    pub(super) mode: Mode,
    pub(super) key: Span,
    pub(super) flags: u32,
    pub(super) exptime: i32,
    pub(super) value_len: usize,
    pub(super) noreply: bool,
}

impl StoreHead {
    pub(super) fn parse(line: &[u8]) -> Result<Self, DecodeError> {
        let words = Words::split(line);
        let is_cas = words.get(line, 0) == b"cas";
        words.count_in(if is_cas { 6..=7 } else { 5..=6 })?;
        let noreply = words.noreply(line);
        let bad = DecodeError::Refused { refusal: Refusal::BadFormat, noreply };
        let key = words.key(noreply)?;
        let flags = number::flags(words.get(line, 2)).ok_or(bad)?;
        let exptime = number::signed(words.get(line, 3)).ok_or(bad)?;
        let value_len = number::signed(words.get(line, 4)).ok_or(bad)?;
        let mode = match words.get(line, 0) {
            b"cas" => Mode::Cas(number::unsigned(words.get(line, 5)).ok_or(bad)?),
            b"add" => Mode::Add,
            b"replace" => Mode::Replace,
            b"append" => Mode::Append,
            b"prepend" => Mode::Prepend,
            _ => Mode::Set,
        };
        // memcached adds the line end to the length and wants the sum to stay an int.
        if value_len > i32::MAX - 2 {
            return Err(bad);
        }
        let value_len = usize::try_from(value_len).map_err(|_| bad)?;
        Ok(Self { mode, key, flags, exptime, value_len, noreply })
    }
}

/// A line in words, as `tokenize_command` has them: up to 23, of which a command needs 7 at the most.
struct Words {
    spans: [Span; Self::KEPT],
    last: Span,
    count: usize,
}

impl Words {
    const KEPT: usize = 7;
    const COUNT_MAX: usize = 23;

    fn split(line: &[u8]) -> Self {
        let nothing = Span { start: 0, end: 0 };
        let mut words = Self { spans: [nothing; Self::KEPT], last: nothing, count: 0 };
        while words.count < Self::COUNT_MAX {
            let Some(span) = next_token(line, words.last.end) else { break };
            if let Some(place) = words.spans.get_mut(words.count) {
                *place = span;
            }
            words.last = span;
            words.count += 1;
        }
        words
    }

    fn get<'a>(&self, line: &'a [u8], index: usize) -> &'a [u8] {
        self.spans.get(index).map_or(&[], |span| bytes_of(line, *span))
    }

    fn last<'a>(&self, line: &'a [u8]) -> &'a [u8] {
        bytes_of(line, self.last)
    }

    fn noreply(&self, line: &[u8]) -> bool {
        self.last(line) == b"noreply"
    }

    /// True if the number of words is allowed.
    fn count_in(&self, allowed: std::ops::RangeInclusive<usize>) -> Result<bool, DecodeError> {
        match allowed.contains(&self.count) {
            true => Ok(true),
            false => Err(DecodeError::refused(Refusal::UnknownCommand)),
        }
    }

    /// The second word, if it can be a key.
    fn key(&self, noreply: bool) -> Result<Span, DecodeError> {
        let [_, key, ..] = self.spans;
        match key.end - key.start {
            1..=KEY_LEN_MAX => Ok(key),
            _ => Err(DecodeError::Refused { refusal: Refusal::BadFormat, noreply }),
        }
    }
}

/// The next run of bytes that are not spaces, from `at` on.
pub(super) fn next_token(line: &[u8], at: usize) -> Option<Span> {
    let rest = line.get(at..)?;
    let start = at + rest.iter().position(|byte| *byte != b' ')?;
    let len = memchr(b' ', line.get(start..)?).unwrap_or(line.len() - start);
    Some(Span { start, end: start + len })
}

pub(super) fn bytes_of(line: &[u8], span: Span) -> &[u8] {
    line.get(span.start..span.end).unwrap_or_default()
}
