//! Classic command lines: what each command makes of its words.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memrchr;

use crate::wire::decoder::Swallow;
use crate::wire::meta::{self, Mode, Wants};
use crate::wire::request::{
    Command, DecodeError, Get, Intent, Key, Nodes, One, Oversized, Refusal, Request, Stats, Store, To,
};
use crate::wire::words::{Span, Words, bytes_of, next_token};
use crate::wire::{KEY_LEN_MAX, Limits, number};

/// A `stats` line goes on to the servers as it came, on connections that others share. A server hangs up on a line
/// that is too long for it, so that one client could cut off all.
const STATS_LEN_MAX: usize = 1024;

/// What ElastiCache's servers before 1.4.14 told their configuration under.
const NODES_KEY: &[u8] = b"AmazonElastiCache:cluster";

/// A command without a value.
pub fn command(line: Bytes) -> Result<Request, DecodeError> {
    let name = match next_token(&line, 0) {
        // There are no commands of one letter.
        Some(span) if span.len() >= 2 => span,
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
            Ok(Request::Verbosity { level, to: To::Classic { noreply } })
        }
        b"cache_memlimit" => {
            let (megabytes, noreply) = one_number(&line, Refusal::UnknownCommand)?;
            Ok(Request::MemLimit { megabytes, to: To::Classic { noreply } })
        }
        b"stats" if line.len() > STATS_LEN_MAX => Err(DecodeError::refused(Refusal::UnknownCommand)),
        // Connections of a server are ours, and numbered as they happen to be.
        b"stats" if next_token(&line, name.end).is_some_and(|span| bytes_of(&line, span) == b"conns") => {
            Err(DecodeError::refused(Refusal::OneServer))
        }
        b"stats" => Ok(Request::Stats(Stats { line, at: name.end, to: To::TEXT })),
        b"version" => Ok(Request::Version(To::TEXT)),
        b"config" if is_config_get(&line) => Ok(Request::Nodes(Nodes::Config)),
        b"quit" => Ok(Request::Quit(To::TEXT)),
        b"shutdown" => Err(DecodeError::refused(Refusal::Shutdown)),
        b"slabs" | b"lru" | b"lru_crawler" | b"extstore" | b"watch" | b"refresh_certs" => {
            Err(DecodeError::refused(Refusal::OneServer))
        }
        _ => Err(unknown(&line)),
    }
}

/// `config get cluster`; there is no other configuration to be had.
fn is_config_get(line: &[u8]) -> bool {
    let words = Words::split(line);
    words.count == 3 && words.get(line, 1) == b"get" && words.get(line, 2) == b"cluster"
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
    if let (false, false, Some(only)) = (cas, touches, first)
        && bytes_of(&line, only) == NODES_KEY
        && next_token(&line, only.end).is_none()
    {
        return Ok(Request::Nodes(Nodes::Key));
    }
    if first.is_some_and(|first| has_long_word(&line, first.start)) {
        return Err(DecodeError::refused(Refusal::BadFormat));
    }
    Ok(Request::Get(Get { line, key: first, cas, touch }))
}

/// Is any word from `at` on too long for a key? Looks at a space in each stretch that is as long as a key may be.
fn has_long_word(line: &[u8], mut at: usize) -> bool {
    while let Some(stretch) = line.get(at..=at + KEY_LEN_MAX) {
        match memrchr(b' ', stretch) {
            Some(space) => at += space + 1,
            None => return true,
        }
    }
    false
}

fn arith(line: Bytes, decrement: bool) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    let noreply = count_in(&words, 3..=4)? && is_noreply(&words, &line);
    let span = key_of(&words, noreply)?;
    let delta =
        number::unsigned(words.get(&line, 2)).ok_or(DecodeError::classic(Refusal::InvalidDelta, noreply))?;
    let intent = Intent::Arith(meta::Arith { decrement, ..meta::Arith::up(delta) });
    let command = if decrement { Command::Decr } else { Command::Incr };
    Ok(one(command, Key { line, span, is_coded: false }, intent, noreply))
}

fn touch(line: Bytes) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    let noreply = count_in(&words, 3..=4)? && is_noreply(&words, &line);
    let span = key_of(&words, noreply)?;
    let exptime =
        number::signed(words.get(&line, 2)).ok_or(DecodeError::classic(Refusal::InvalidExptime, noreply))?;
    let intent = Intent::Get(meta::Get { touch: Some(exptime), ..Default::default() });
    Ok(one(Command::Touch, Key { line, span, is_coded: false }, intent, noreply))
}

/// `delete key [0] [noreply]`: the 0 is what is left of a hold time that memcached once had.
fn delete(line: Bytes) -> Result<Request, DecodeError> {
    let words = Words::split(&line);
    count_in(&words, 2..=4)?;
    let noreply = words.count > 2 && is_noreply(&words, &line);
    let hold_is_zero = words.get(&line, 2) == b"0";
    let valid = match words.count {
        2 => true,
        3 => hold_is_zero || noreply,
        _ => hold_is_zero && noreply,
    };
    if !valid {
        return Err(DecodeError::classic(Refusal::DeleteUsage, noreply));
    }
    let span = key_of(&words, noreply)?;
    let intent = Intent::Delete(meta::Delete::default());
    Ok(one(Command::Delete, Key { line, span, is_coded: false }, intent, noreply))
}

fn flush_all(line: &[u8]) -> Result<Request, DecodeError> {
    let words = Words::split(line);
    count_in(&words, 1..=3)?;
    let noreply = is_noreply(&words, line);
    let delay = match words.count - usize::from(noreply) {
        1 => 0,
        _ => number::signed(words.get(line, 1))
            .ok_or(DecodeError::classic(Refusal::InvalidExptime, noreply))?,
    };
    Ok(Request::FlushAll { delay: delay.max(0), to: To::Classic { noreply } })
}

/// A command with one number, and whether it wants no answer.
fn one_number(line: &[u8], otherwise: Refusal) -> Result<(u32, bool), DecodeError> {
    let words = Words::split(line);
    let noreply = count_in(&words, 2..=3)? && is_noreply(&words, line);
    let number = number::flags(words.get(line, 1)).ok_or(DecodeError::classic(otherwise, noreply))?;
    Ok((number, noreply))
}

/// A storage command: its line is complete, its value may not be. The line ends before `line_len`, the value
/// begins at `value_at`.
pub fn store(
    input: &mut BytesMut,
    line_len: usize,
    value_at: usize,
    limits: &Limits,
    swallow: &mut Swallow,
) -> Result<Option<Request>, DecodeError> {
    let head = match Head::parse(input.get(..line_len).unwrap_or_default()) {
        Ok(head) => head,
        Err(error) => {
            input.advance(value_at);
            return Err(error);
        }
    };
    let Head { command, mode, compare, key: span, flags, exptime, value_len, noreply } = head;
    let to = To::Classic { noreply };
    if value_len > limits.value_len_max {
        let key = Key { line: input.split_to(value_at).freeze(), span, is_coded: false };
        swallow.len = value_len + 2;
        let deletes = command == Command::Set;
        return Ok(Some(Request::Oversized(Oversized { command, key, deletes, to })));
    }
    let end = value_at + value_len + 2;
    let Some(line_end) = input.get(end - 2..end) else {
        // The line is looked at again once more bytes are here, but its end is known to be near.
        input.reserve(end - input.len());
        return Ok(None);
    };
    if line_end != b"\r\n" {
        input.advance(end);
        return Err(DecodeError::classic(Refusal::BadDataChunk, noreply));
    }
    let line = input.split_to(end).freeze();
    let value = line.slice(value_at..end - 2);
    let store = Store {
        mode,
        flags,
        exptime,
        value,
        compare,
        new_cas: None,
        invalidate: false,
        vivify: None,
        wants: Wants::NOTHING,
    };
    let key = Key { line, span, is_coded: false };
    Ok(Some(one(command, key, Intent::Store(store), noreply)))
}

fn one(command: Command, key: Key, intent: Intent, noreply: bool) -> Request {
    Request::One(One { command, key, intent, to: To::Classic { noreply }, flags: Bytes::new() })
}

/// A storage command's line.
struct Head {
    command: Command,
    mode: Mode,
    compare: Option<u64>,
    key: Span,
    flags: u32,
    exptime: i32,
    value_len: usize,
    noreply: bool,
}

impl Head {
    fn parse(line: &[u8]) -> Result<Self, DecodeError> {
        let words = Words::split(line);
        let (command, mode) = match words.get(line, 0) {
            b"cas" => (Command::Cas, Mode::Set),
            b"add" => (Command::Add, Mode::Add),
            b"replace" => (Command::Replace, Mode::Replace),
            b"append" => (Command::Append, Mode::Append),
            b"prepend" => (Command::Prepend, Mode::Prepend),
            _ => (Command::Set, Mode::Set),
        };
        let is_cas = command == Command::Cas;
        count_in(&words, if is_cas { 6..=7 } else { 5..=6 })?;
        let noreply = is_noreply(&words, line);
        let bad = DecodeError::classic(Refusal::BadFormat, noreply);
        let key = key_of(&words, noreply)?;
        let flags = number::flags(words.get(line, 2)).ok_or(bad)?;
        let exptime = number::signed(words.get(line, 3)).ok_or(bad)?;
        let value_len = number::signed(words.get(line, 4)).ok_or(bad)?;
        let compare = match is_cas {
            true => Some(number::unsigned(words.get(line, 5)).ok_or(bad)?),
            false => None,
        };
        // memcached adds the line end to the length and wants the sum to stay an int.
        if value_len > i32::MAX - 2 {
            return Err(bad);
        }
        let value_len = usize::try_from(value_len).map_err(|_| bad)?;
        Ok(Self { command, mode, compare, key, flags, exptime, value_len, noreply })
    }
}

fn is_noreply(words: &Words, line: &[u8]) -> bool {
    words.last(line) == b"noreply"
}

/// True if the number of words is allowed.
fn count_in(words: &Words, allowed: std::ops::RangeInclusive<usize>) -> Result<bool, DecodeError> {
    match allowed.contains(&words.count) {
        true => Ok(true),
        false => Err(DecodeError::refused(Refusal::UnknownCommand)),
    }
}

/// The second word, if it can be a key.
fn key_of(words: &Words, noreply: bool) -> Result<Span, DecodeError> {
    let key = words.span(1);
    match key.len() {
        1..=KEY_LEN_MAX => Ok(key),
        _ => Err(DecodeError::classic(Refusal::BadFormat, noreply)),
    }
}
