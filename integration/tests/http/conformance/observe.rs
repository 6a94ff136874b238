//! What is seen from outside: of a client's connection, and of a server's.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{PATIENCE, Scripted};

use super::case::{Outcome, expand};
use super::replies::{Fate, Reply};

/// A proxy of which nothing is required is waited for this long.
const QUIET: Duration = Duration::from_millis(400);

/// A server's connection that has to be closed is, however busy the machine.
const CLOSED_WITHIN: Duration = Duration::from_secs(3);

/// What came of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// Of the final replies.
    pub(super) statuses: Vec<u16>,
    /// The client's connection.
    pub(super) closed: bool,
    /// Requests that reached the server.
    pub(super) upstream: usize,
    /// The heads that it got.
    pub(super) seen: String,
}

impl Behaviour {
    pub(super) fn own(statuses: Vec<u16>, closed: bool, upstream: usize) -> Self {
        Self { statuses, closed, upstream, seen: String::new() }
    }
}

impl fmt::Display for Behaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<_> = self.statuses.iter().map(u16::to_string).collect();
        f.write_str(&if statuses.is_empty() { "no reply".to_owned() } else { statuses.join(", ") })?;
        f.write_str(if self.closed { ", closed" } else { "" })?;
        match self.upstream {
            0 => Ok(()),
            1 => f.write_str(", forwarded"),
            more => write!(f, ", forwarded as {more}"),
        }
    }
}

/// What came of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Relayed {
    pub(super) status: Option<u16>,
    /// Ours says why.
    pub(super) code: String,
    /// The client's connection ended before the reply did.
    pub(super) cut: bool,
    /// The proxy closed the server's connection.
    pub(super) server_closed: bool,
}

impl fmt::Display for Relayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("no reply")?,
        }
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        f.write_str(if self.cut { ", cut" } else { "" })?;
        f.write_str(if self.server_closed { ", server closed" } else { ", server kept" })
    }
}

#[derive(Debug, Default)]
struct Seen {
    heads: Vec<String>,
    /// By the number of a reply: whether the proxy closed behind it.
    closed: BTreeMap<usize, bool>,
}

/// The server behind all proxies: it answers everything that it can read with 200, and `/reply/N` with that reply.
pub(super) struct Origin {
    server: Scripted,
    seen: Arc<Mutex<Seen>>,
}

impl Origin {
    pub(super) fn start(replies: Vec<Reply>) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let server = Scripted::start(move |_, stream| serve(stream, &replies, &shared))?;
        Ok(Self { server, seen })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    fn heads(&self) -> Vec<String> {
        self.seen.lock().unwrap().heads.clone()
    }

    fn closed(&self, reply: usize) -> Option<bool> {
        self.seen.lock().unwrap().closed.get(&reply).copied()
    }

    fn forget(&self) {
        *self.seen.lock().unwrap() = Seen::default();
    }
}

fn serve(mut stream: TcpStream, replies: &[Reply], seen: &Mutex<Seen>) {
    let mut held = Vec::new();
    while let Some(head) = take_head(&mut stream, &mut held) {
        seen.lock().unwrap().heads.push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default();
        // As ours is asked.
        let (path, is_patient) = path.strip_suffix("?patient").map_or((path, false), |path| (path, true));
        let number = path.strip_prefix("/reply/").and_then(|number| number.parse::<usize>().ok());
        if let Some((number, reply)) = number.and_then(|number| Some((number, replies.get(number)?))) {
            let _left = stream.write_all(&expand(reply.text));
            if reply.ends {
                let _left = stream.shutdown(std::net::Shutdown::Write);
            }
            // A connection that is kept is none that was closed; nobody waits for its next request.
            let has_to_close = is_patient && !matches!(reply.fate, Fate::Relayed(_, true));
            let _set = stream.set_read_timeout(Some(if has_to_close { CLOSED_WITHIN } else { QUIET }));
            let mut more = [0; 1024];
            let closed = match stream.read(&mut more) {
                Ok(count) => count == 0,
                Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
            };
            seen.lock().unwrap().closed.insert(number, closed);
            return;
        }
        if take_body(&mut stream, &head, &mut held).is_none()
            || stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err()
        {
            return;
        }
    }
}

fn more(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 65536];
    let count = stream.read(&mut part).ok().filter(|count| *count > 0)?;
    held.extend_from_slice(&part[..count]);
    Some(())
}

fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

fn take_head(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(held, b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..end + 4).collect();
            return Some(head.into_iter().map(char::from).collect());
        }
        more(stream, held)?;
    }
}

/// Reads past the body, as a server does that believes its head.
fn take_body(stream: &mut TcpStream, head: &str, held: &mut Vec<u8>) -> Option<()> {
    let lower = head.to_lowercase();
    if lower.contains("transfer-encoding: chunked") {
        loop {
            if held.starts_with(b"0") && find(held, b"\r\n\r\n").is_some() || find(held, b"\r\n0").is_some() {
                let zero = if held.starts_with(b"0\r\n") { 0 } else { find(held, b"\r\n0").unwrap_or(0) };
                if let Some(end) = find(&held[zero..], b"\r\n\r\n") {
                    held.drain(..zero + end + 4);
                    return Some(());
                }
            }
            more(stream, held)?;
        }
    }
    let length =
        lower.split("\r\ncontent-length:").nth(1).and_then(|rest| rest.lines().next()?.trim().parse().ok());
    let length: usize = length.unwrap_or(0);
    while held.len() < length {
        more(stream, held)?;
    }
    held.drain(..length);
    Some(())
}

/// Sends bytes and sees what comes: what is required soon, anything else until it is quiet.
pub(super) fn ask(
    address: SocketAddr,
    bytes: &[u8],
    origin: &Origin,
    required: Option<Outcome>,
) -> Behaviour {
    origin.forget();
    let (count, closes) = match required {
        Some(Outcome::Refused(_) | Outcome::Closes) => (1, true),
        Some(Outcome::ThenRefused(_)) => (2, true),
        Some(Outcome::Answered(_) | Outcome::Served) => (1, false),
        Some(Outcome::Twice) => (2, false),
        None => (usize::MAX, true),
    };
    let mut client = Client::to(address);
    let _refused_early = client.stream.write_all(bytes);
    let patience = if required.is_some() { PATIENCE } else { QUIET };
    client.read_until(patience, |got, closed| closed || (!closes && statuses(got).len() >= count));
    let mut behaviour = Behaviour {
        statuses: statuses(&client.got),
        closed: client.closed,
        upstream: origin.heads().len(),
        seen: origin.heads().concat(),
    };
    if !behaviour.closed && required.is_some() {
        // Said to stay, it has to serve another.
        let _left = client.stream.write_all(b"GET /next HTTP/1.1\r\nHost: shop.test\r\n\r\n");
        client.read_until(patience, |got, closed| closed || statuses(got).len() > count);
        behaviour.closed = statuses(&client.got).last() != Some(&200) || client.closed;
    }
    behaviour
}

/// Asks for one of the replies and sees what comes of it.
pub(super) fn fetch(
    address: SocketAddr,
    index: usize,
    reply: &Reply,
    origin: &Origin,
    required: Option<Fate>,
) -> Relayed {
    origin.forget();
    let mut client = Client::to(address);
    let patient = if required.is_some() { "?patient" } else { "" };
    let request = format!("{} /reply/{index}{patient} HTTP/1.1\r\nHost: shop.test\r\n\r\n", reply.method);
    client.stream.write_all(request.as_bytes()).unwrap();
    let patience = if required.is_some() { PATIENCE } else { QUIET };
    client.read_until(patience, |got, closed| closed || is_complete(got, reply.method));
    let server_closed =
        harness::eventually("the server's connection", || origin.closed(index)).unwrap_or(false);
    let text = String::from_utf8_lossy(&client.got).into_owned();
    let code = text.split("X-Groove-Code: ").nth(1).and_then(|rest| rest.get(..3)).unwrap_or_default();
    Relayed {
        status: statuses(&client.got).last().copied(),
        code: code.to_owned(),
        cut: client.closed && !is_complete(&client.got, reply.method) && !statuses(&client.got).is_empty(),
        server_closed,
    }
}

struct Client {
    stream: TcpStream,
    got: Vec<u8>,
    closed: bool,
}

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        Self { stream, got: Vec::new(), closed: false }
    }

    fn read_until(&mut self, patience: Duration, enough: impl Fn(&[u8], bool) -> bool) {
        let end = Instant::now() + patience;
        while !enough(&self.got, self.closed) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut part = [0; 65536];
            match self.stream.read(&mut part) {
                Ok(0) => self.closed = true,
                Ok(count) => self.got.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => self.closed = true,
                Err(_) => return,
            }
        }
    }
}

/// The statuses of the final replies, as a client that looks for status lines sees them.
fn statuses(got: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(got).into_owned();
    let lines = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    lines.filter(|status| *status >= 200).collect()
}

/// Whether the last reply is there with all of its body.
fn is_complete(got: &[u8], method: &str) -> bool {
    let text = String::from_utf8_lossy(got).into_owned();
    let Some(start) = text.match_indices("HTTP/1.").map(|(at, _)| at).last() else { return false };
    let Some((head, body)) = text[start..].split_once("\r\n\r\n") else { return false };
    let (head, status) = (head.to_lowercase(), head.get(9..12).unwrap_or_default());
    if status.starts_with('1') {
        return false;
    }
    if method == "HEAD" || matches!(status, "204" | "304") {
        return true;
    }
    if head.contains("transfer-encoding: chunked") {
        return body.starts_with("0\r\n\r\n") || body.contains("\r\n0\r\n");
    }
    let length =
        head.split("\r\ncontent-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse::<usize>().ok());
    length.is_some_and(|length| body.len() >= length)
}
