//! The first words on a connection: is this a memcached that is awake, and which one?

use std::io;

use bytes::BytesMut;
use groove_common::ids::Address;
use groove_common::net::Stream;
use memchr::memchr;

use crate::wire::{Epoch, number};

/// The first word on a connection, and its answer: the server is awake and speaks meta.
pub(super) const GREETING: &[u8] = b"mn\r\n";
const GREETING_REPLY: &[u8] = b"MN\r\n";

/// The greeting, and a question that tells who is there.
const INTRODUCTION: &[u8] = b"mn\r\nstats\r\n";

/// The most that a server may say about itself.
const INTRODUCTION_LEN_MAX: usize = 64 << 10;

/// `E`, a client's own CAS value, is understood from this version on.
const NEW_CAS_SINCE: [u64; 3] = [1, 6, 27];

/// Who answers on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// For the tokens that clients see.
    pub epoch: Epoch,
    /// Does it know the meta flag `E`?
    pub takes_new_cas: bool,
}

/// Sends the greeting and waits for the answer that only a memcached with the meta protocol gives.
pub(in crate::upstream) async fn greet(stream: &mut Stream) -> io::Result<()> {
    stream.send(&mut &*GREETING).await?;
    let mut answer = BytesMut::new();
    while answer.len() < GREETING_REPLY.len() {
        fill(stream, &mut answer).await?;
    }
    match answer == GREETING_REPLY {
        true => Ok(()),
        false => Err(not_memcached()),
    }
}

/// Greets, and learns who it is. A server that has no `stats` is known by its address alone.
pub(super) async fn introduce(stream: &mut Stream, address: &Address) -> io::Result<Identity> {
    stream.send(&mut &*INTRODUCTION).await?;
    let mut answer = BytesMut::new();
    let mut read_len = 0;
    loop {
        if let Some(said) = answer.get(..answer.len().min(GREETING_REPLY.len()))
            && !GREETING_REPLY.starts_with(said)
        {
            return Err(not_memcached());
        }
        if let Some(told) = answer.get(GREETING_REPLY.len()..)
            && let Some(about) = About::read(told)
        {
            return match about.is_memcached {
                true => Ok(about.identity(address)),
                false => Err(not_memcached()),
            };
        }
        read_len += fill(stream, &mut answer).await?;
        if read_len > INTRODUCTION_LEN_MAX {
            return Err(not_memcached());
        }
    }
}

async fn fill(stream: &mut Stream, answer: &mut BytesMut) -> io::Result<usize> {
    match stream.fill(answer).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        len => Ok(len),
    }
}

fn not_memcached() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a memcached with the meta protocol")
}

/// What a server says about itself in `stats`.
#[derive(Debug, Default, PartialEq, Eq)]
struct About {
    is_memcached: bool,
    pid: u64,
    /// `time` and `uptime` tick together, so that their difference is when it started.
    time: u64,
    uptime: u64,
    version: [u64; 3],
}

impl About {
    /// `None` while the last line has not come.
    fn read(mut text: &[u8]) -> Option<Self> {
        let mut about = Self::default();
        loop {
            let feed = memchr(b'\n', text)?;
            let (line, rest) = text.split_at_checked(feed)?;
            text = rest.get(1..)?;
            let mut words = line.trim_ascii_end().split(|byte| *byte == b' ');
            let (first, name, value) = (words.next()?, words.next(), words.next());
            match (first, name, value) {
                (b"STAT", Some(name), Some(value)) => about.take(name, value),
                (b"STAT", _, _) => (),
                (b"END" | b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR", _, _) => {
                    about.is_memcached = true;
                    return Some(about);
                }
                (_, _, _) => return Some(Self::default()),
            }
        }
    }

    fn take(&mut self, name: &[u8], value: &[u8]) {
        let number = || number::unsigned(value).unwrap_or_default();
        match name {
            b"pid" => self.pid = number(),
            b"time" => self.time = number(),
            b"uptime" => self.uptime = number(),
            b"version" => {
                let parts = value.split(|byte| !byte.is_ascii_digit());
                for (place, part) in self.version.iter_mut().zip(parts) {
                    *place = number::unsigned(part).unwrap_or_default();
                }
            }
            _ => (),
        }
    }

    fn identity(&self, address: &Address) -> Identity {
        let started = self.time.saturating_sub(self.uptime);
        let incarnation = (self.pid << 40) ^ started;
        Identity {
            epoch: Epoch::new(address.to_string().as_bytes(), incarnation),
            takes_new_cas: self.version >= NEW_CAS_SINCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn a_server_tells_when_it_started_and_what_it_knows() {
        let said = "STAT pid 9\r\nSTAT uptime 5\r\nSTAT time 105\r\nSTAT version 1.6.18\r\nEND\r\n";
        let about = About::read(said.as_bytes()).unwrap();
        let later = said.replace("uptime 5", "uptime 8").replace("time 105", "time 108");
        let later = About::read(later.as_bytes()).unwrap();
        let a = address("a:1");
        assert_eq!(about.identity(&a), later.identity(&a));
        assert!(!about.identity(&a).takes_new_cas);
        let restarted = About::read(said.replace("time 105", "time 106").as_bytes()).unwrap();
        assert_ne!(about.identity(&a), restarted.identity(&a));
        assert_ne!(about.identity(&a), about.identity(&address("b:1")));
        for (version, takes_it) in [("1.6.27", true), ("1.6.26", false), ("1.10.0-rc1", true), ("x", false)] {
            let about = About::read(said.replace("1.6.18", version).as_bytes()).unwrap();
            assert_eq!(about.identity(&a).takes_new_cas, takes_it, "{version}");
        }
        for cut in 0..said.len() {
            assert_eq!(About::read(&said.as_bytes()[..cut]), None);
        }
    }

    #[test]
    fn a_server_without_statistics_is_known_by_its_address() {
        let about = About::read(b"ERROR\r\n").unwrap();
        assert_eq!(about.identity(&address("a:1")).epoch, Epoch::new(b"a:1", 0));
        assert!(!About::read(b"HTTP/1.1 400 Bad Request\r\n").unwrap().is_memcached);
    }
}
