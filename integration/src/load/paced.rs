//! One memcached connection that asks now and then: what a quiet client sees, whatever the others do.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;

use super::{Report, memcached, nanoseconds};

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

/// Asks for a key that is not there.
///
/// A latency counts from when the request was sent, or from when it was due if the answer before it came too late for
/// that: a stall is seen by every request it delays.
///
/// # Errors
/// When the connection fails.
pub fn run(options: &Options) -> Result<Report> {
    let mut stream = memcached::connect(options.address, options.login)?;
    stream.set_read_timeout(Some(crate::PATIENCE))?;
    let (mut operations, mut errors, mut latency_ns) = (0, 0, Histogram::new(3)?);
    let begun = Instant::now();
    let (mut due, mut free_at) = (begun, begun);
    while begun.elapsed() < options.measured {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let sent = if free_at > due { due } else { Instant::now() };
        stream.write_all(b"get nothing\r\n")?;
        let mut answer = [0; b"END\r\n".len()];
        stream.read_exact(&mut answer)?;
        free_at = Instant::now();
        latency_ns.record(nanoseconds(free_at.duration_since(sent)))?;
        operations += 1;
        errors += u64::from(&answer != b"END\r\n");
        due += options.every;
    }
    ensure!(operations > 0, "nothing was asked");
    Ok(Report { operations, errors, elapsed: begun.elapsed(), latency_ns })
}
