//! One memcached connection that asks now and then: what a quiet client sees, whatever the others do.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::memcached;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The server or proxy.
    pub address: SocketAddr,
    /// Name and password to log in with, if one has to.
    pub login: Option<(&'static str, &'static str)>,
    /// Between two requests.
    pub every: Duration,
    /// How long.
    pub measured: Duration,
}

/// One request and its answer.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    /// When it was sent, or when it was due if the answer before it came too late for that: a stall is seen by every
    /// request it delays.
    pub asked: Instant,
    /// When its answer was there.
    pub answered: Instant,
    /// It was answered as it had to be.
    pub is_right: bool,
}

/// Asks for a key that is not there.
///
/// # Errors
/// When the connection fails.
pub fn run(options: &Options) -> Result<Vec<Exchange>> {
    let mut stream = memcached::connect(options.address, options.login)?;
    stream.set_read_timeout(Some(crate::PATIENCE))?;
    let mut exchanges = Vec::new();
    let begun = Instant::now();
    let (mut due, mut free_at) = (begun, begun);
    while begun.elapsed() < options.measured {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = if free_at > due { due } else { Instant::now() };
        stream.write_all(b"get nothing\r\n")?;
        let mut answer = [0; b"END\r\n".len()];
        stream.read_exact(&mut answer)?;
        free_at = Instant::now();
        exchanges.push(Exchange { asked, answered: free_at, is_right: &answer == b"END\r\n" });
        due += options.every;
    }
    ensure!(!exchanges.is_empty(), "nothing was asked");
    Ok(exchanges)
}
