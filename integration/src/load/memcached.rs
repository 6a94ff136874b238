//! A closed-loop load of get and set in memcached's text protocol, over one epoll.
//!
//! Every connection sends `depth` requests at once, waits for all replies, and sends the next. Each reply is
//! compared with what was asked, so that a proxy that mixes up sessions does not look fast.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};

use super::{Report, nanoseconds};

/// More than this in flight on one connection is not asked for here; it bounds what a batch may weigh.
pub const DEPTH_MAX: usize = 64;

/// More in one get is not asked for here.
pub const KEYS_PER_GET_MAX: u32 = 100;

const KEYS: u32 = 10_000;

/// From one key of a get to the next. Neighbours by name are mostly one server's in a ring of FNV hashes: a proxy with
/// such a ring would be asked for less than one that spreads them.
const STRIDE: u32 = 7_919;

/// `STRIDE * STRIDE_INVERSE` is 1 in a world of [`KEYS`] numbers.
const STRIDE_INVERSE: u32 = 7_679;

/// From this size on values have a hundredth of the keys, which leaves the others their room.
const LARGE_BYTES: usize = 16 * 1024;
const READ_BYTES: usize = 64 * 1024;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The server or proxy.
    pub address: SocketAddr,
    /// Connections, all open from the beginning.
    pub connections: usize,
    /// Requests in flight on each, up to [`DEPTH_MAX`].
    pub depth: usize,
    /// Of a hundred requests, how many are sets.
    pub set_percent: u32,
    /// Bytes of a value. Values of each size have keys of their own.
    pub value_bytes: usize,
    /// Keys of a get, up to [`KEYS_PER_GET_MAX`]. One get is one operation.
    pub keys_per_get: u32,
    /// Of a hundred gets, how many begin with the same key.
    pub hot_percent: u32,
    /// Names and passwords with which connections log in, in turns, as `memcached -Y` has it; none if empty.
    pub logins: &'static [(&'static str, &'static str)],
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub measured: Duration,
}

/// Stores every key the load will ask for, for each login.
///
/// # Errors
/// When the server does not store one.
pub fn fill(options: &Options) -> Result<()> {
    for login in 0..options.logins.len().max(1) {
        let mut stream = open(options, login)?;
        let mut request = Vec::new();
        for key in 0..KEYS {
            request.clear();
            push_set(&mut request, key, options.value_bytes);
            stream.write_all(&request)?;
            expect_stored(&mut stream)?;
        }
    }
    Ok(())
}

fn expect_stored(stream: &mut TcpStream) -> Result<()> {
    let mut answer = [0; b"STORED\r\n".len()];
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"STORED\r\n", "set was answered by {:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

fn open(options: &Options, index: usize) -> Result<TcpStream> {
    let stream = connect(options.address, options.logins.get(index % options.logins.len().max(1)).copied())?;
    // Room for a whole batch, however large its values.
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, 4 << 20)?;
    Ok(stream)
}

/// Connects, and logs in with a name and a password if one has to.
///
/// # Errors
/// When nobody is there, or the login is not right.
pub(super) fn connect(address: SocketAddr, login: Option<(&str, &str)>) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).with_context(|| format!("connecting to {address}"))?;
    stream.set_nodelay(true)?;
    if let Some((name, password)) = login {
        let length = name.len() + 1 + password.len();
        stream.write_all(format!("set auth 0 0 {length}\r\n{name} {password}\r\n").as_bytes())?;
        expect_stored(&mut stream).context("logging in")?;
    }
    Ok(stream)
}

/// Runs the load. `boundary` is called when the measured time begins and again when it ends.
///
/// # Errors
/// When a connection fails, the server closes one, or `boundary` fails.
pub fn run(options: &Options, boundary: &mut dyn FnMut() -> Result<()>) -> Result<Report> {
    ensure!((1..=DEPTH_MAX).contains(&options.depth), "the depth must be 1 to {DEPTH_MAX}");
    let keys = options.keys_per_get;
    ensure!((1..=KEYS_PER_GET_MAX).contains(&keys), "a get must have 1 to {KEYS_PER_GET_MAX} keys");
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut connections = Vec::with_capacity(options.connections);
    for index in 0..options.connections {
        let connection = Connection::open(options, index)?;
        let tag = epoll::EventData::new_u64(u64::try_from(index)?);
        epoll::add(&poll, &connection.stream, tag, epoll::EventFlags::IN)?;
        connections.push(connection);
    }
    for connection in &mut connections {
        connection.send(options, &mut dice)?;
    }

    let mut tally = Tally::new()?;
    let mut phase_ends = Instant::now() + options.warm_up;
    let mut measuring_since = None;
    let mut events = Vec::with_capacity(options.connections);
    let mut scratch = vec![0; READ_BYTES];
    loop {
        events.clear();
        let tick = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&tick))?;
        let now = Instant::now();
        if now >= phase_ends {
            boundary()?;
            if let Some(since) = measuring_since {
                return Ok(tally.report(now.duration_since(since)));
            }
            tally = Tally::new()?;
            let begun = Instant::now();
            measuring_since = Some(begun);
            phase_ends = begun + options.measured;
        }
        for event in &events {
            let index = usize::try_from(event.data.u64())?;
            let connection = connections.get_mut(index).context("an event of no connection")?;
            if connection.receive(&mut scratch, &mut tally)? {
                connection.send(options, &mut dice)?;
            }
        }
    }
}

struct Tally {
    operations: u64,
    errors: u64,
    latency_ns: Histogram<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self { operations: 0, errors: 0, latency_ns: Histogram::new(3)? })
    }

    fn report(self, elapsed: Duration) -> Report {
        Report { operations: self.operations, errors: self.errors, elapsed, latency_ns: self.latency_ns }
    }
}

#[derive(Clone, Copy)]
enum Asked {
    /// So many keys from the first, a stride apart, whose values have so many bytes.
    Get {
        first: u32,
        keys: u32,
        value_bytes: usize,
    },
    Set,
}

struct Connection {
    stream: TcpStream,
    sent_at: Instant,
    /// What is in flight, in order; the first `answered` of it has been answered.
    asked: Vec<Asked>,
    answered: usize,
    request: Vec<u8>,
    /// The beginning of a reply whose end has not come yet.
    rest: Vec<u8>,
}

impl Connection {
    fn open(options: &Options, index: usize) -> Result<Self> {
        let stream = open(options, index)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            sent_at: Instant::now(),
            asked: Vec::with_capacity(DEPTH_MAX),
            answered: 0,
            request: Vec::new(),
            rest: Vec::new(),
        })
    }

    fn send(&mut self, options: &Options, dice: &mut Dice) -> Result<()> {
        self.request.clear();
        self.asked.clear();
        self.answered = 0;
        for _ in 0..options.depth {
            let mut key = dice.below(if options.value_bytes < LARGE_BYTES { KEYS } else { KEYS / 100 });
            let is_set = dice.below(100) < options.set_percent;
            if !is_set && options.hot_percent > 0 && dice.below(100) < options.hot_percent {
                key = 0;
            }
            if is_set {
                push_set(&mut self.request, key, options.value_bytes);
                self.asked.push(Asked::Set);
            } else {
                self.request.extend_from_slice(b"get");
                for number in 0..options.keys_per_get {
                    self.request.push(b' ');
                    push_key(&mut self.request, (key + number * STRIDE) % KEYS, options.value_bytes);
                }
                self.request.extend_from_slice(b"\r\n");
                let (keys, value_bytes) = (options.keys_per_get, options.value_bytes);
                self.asked.push(Asked::Get { first: key, keys, value_bytes });
            }
        }
        self.sent_at = Instant::now();
        // A batch is small and the one before has been answered: the socket has room for all of it.
        self.stream.write_all(&self.request).context("sending a batch")
    }

    /// Reads what is there; true when the whole batch has been answered.
    fn receive(&mut self, scratch: &mut [u8], tally: &mut Tally) -> Result<bool> {
        let count = match self.stream.read(scratch) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let latency = nanoseconds(self.sent_at.elapsed());
        let fresh = scratch.get(..count).unwrap_or_default();
        if self.rest.is_empty() {
            let used = self.count_replies(fresh, latency, tally)?;
            self.rest.extend_from_slice(fresh.get(used..).unwrap_or_default());
        } else {
            let mut joined = std::mem::take(&mut self.rest);
            joined.extend_from_slice(fresh);
            let used = self.count_replies(&joined, latency, tally)?;
            self.rest.extend_from_slice(joined.get(used..).unwrap_or_default());
        }
        Ok(self.answered == self.asked.len())
    }

    fn count_replies(&mut self, bytes: &[u8], latency_ns: u64, tally: &mut Tally) -> Result<usize> {
        let mut used = 0;
        while let Some(asked) = self.asked.get(self.answered) {
            let rest = bytes.get(used..).unwrap_or_default();
            let Some((length, right)) = reply(rest, *asked) else { break };
            used += length;
            self.answered += 1;
            tally.operations += 1;
            tally.errors += u64::from(!right);
            tally.latency_ns.record(latency_ns)?;
        }
        Ok(used)
    }
}

/// The length of the first reply and whether it is what was asked for; `None` while it is incomplete.
fn reply(bytes: &[u8], asked: Asked) -> Option<(usize, bool)> {
    let line = line(bytes)?;
    match asked {
        Asked::Set => Some((line.len(), line == b"STORED\r\n")),
        Asked::Get { first, keys, value_bytes } => {
            // Values may come in any order; a key that was not asked for, or is missing, is wrong.
            let (mut used, mut seen, mut right) = (0, 0, true);
            loop {
                let rest = bytes.get(used..)?;
                let line = self::line(rest)?;
                used += line.len();
                let Some(header) = line.strip_prefix(b"VALUE ") else {
                    let is_end = line == b"END\r\n";
                    // A miss of everything is right enough: servers may forget.
                    return Some((used, right && is_end && (seen == keys || seen == 0)));
                };
                let (number, is_one) = key_of(header, value_bytes);
                right &= is_one && (number + KEYS - first) % KEYS * STRIDE_INVERSE % KEYS < keys;
                seen += 1;
                used += value_bytes + 2;
                right &= bytes.get(..used)?.ends_with(b"\r\n");
            }
        }
    }
}

/// The first line, its end included.
fn line(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    bytes.get(..end)
}

/// The number of a key in `key:00042 0 64`, and whether that is what the header should look like.
fn key_of(header: &[u8], value_bytes: usize) -> (u32, bool) {
    let number = header
        .get(4..9)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(KEYS);
    let mut wanted = Vec::with_capacity(24);
    push_key(&mut wanted, number % KEYS, value_bytes);
    wanted.extend_from_slice(format!(" 0 {value_bytes}\r\n").as_bytes());
    (number, header == wanted)
}

/// Values of different sizes stand side by side: `key:` for those below 1 KiB, `big:` for large ones, `kib:` for others.
fn push_key(to: &mut Vec<u8>, key: u32, value_bytes: usize) {
    let mut digits = match value_bytes {
        ..1024 => *b"key:00000",
        1024..LARGE_BYTES => *b"kib:00000",
        LARGE_BYTES.. => *b"big:00000",
    };
    let mut rest = key;
    for digit in digits.iter_mut().skip(4).rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
    }
    to.extend_from_slice(&digits);
}

fn push_set(to: &mut Vec<u8>, key: u32, value_bytes: usize) {
    to.extend_from_slice(b"set ");
    push_key(to, key, value_bytes);
    to.extend_from_slice(format!(" 0 0 {value_bytes}\r\n").as_bytes());
    to.resize(to.len() + value_bytes, b'x');
    to.extend_from_slice(b"\r\n");
}

/// xorshift64: the same load in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 % u64::from(bound)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, length: usize) -> Vec<u8> {
        format!("VALUE {key} 0 {length}\r\n{}\r\n", "x".repeat(length)).into_bytes()
    }

    #[test]
    fn replies_are_compared_with_what_was_asked() {
        let get = |first, keys, value_bytes| Asked::Get { first, keys, value_bytes };
        let hit = [value("key:00042", 64), b"END\r\n".to_vec()].concat();
        for cut in 0..hit.len() {
            assert_eq!(reply(&hit[..cut], get(42, 1, 64)), None, "cut at {cut}");
        }
        assert_eq!(reply(&hit, get(42, 1, 64)), Some((hit.len(), true)));
        assert_eq!(reply(&hit, get(43, 1, 64)), Some((hit.len(), false)), "another's value");
        assert_eq!(reply(b"END\r\nEND\r\n", get(1, 1, 64)), Some((5, true)));
        assert_eq!(reply(b"STORED\r\n", Asked::Set), Some((8, true)));
        assert_eq!(reply(b"SERVER_ERROR x\r\n", Asked::Set), Some((16, false)));
        // Three keys around the end of the numbers, in any order; two of them are not enough.
        let two = [value("kib:07918", 1024), value("kib:09999", 1024)].concat();
        let three = [two.clone(), value("kib:05837", 1024), b"END\r\n".to_vec()].concat();
        assert_eq!(reply(&three, get(9999, 3, 1024)), Some((three.len(), true)));
        let two = [two, b"END\r\n".to_vec()].concat();
        assert_eq!(reply(&two, get(9999, 3, 1024)), Some((two.len(), false)));
        let other = [value("kib:00000", 1024), b"END\r\n".to_vec()].concat();
        assert_eq!(reply(&other, get(9999, 1, 1024)), Some((other.len(), false)), "a neighbour's value");
    }
}
