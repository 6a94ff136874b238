//! One HTTP connection that asks at fixed times, whatever the load beside it does.
//!
//! Latency counts from when a request was due, not from when it could be sent, so that a stall is seen by
//! every request it delays (a closed-loop generator such as wrk stops asking meanwhile).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{Report, nanoseconds};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server or proxy.
    pub address: SocketAddr,
    /// The Host header.
    pub host: String,
    /// The path to GET.
    pub path: String,
    /// Between two requests.
    pub every: Duration,
}

/// Asks until `stop` is set.
///
/// # Errors
/// When the connection fails or an answer is not HTTP with a Content-Length.
pub fn run(options: &Options, stop: &AtomicBool) -> Result<Report> {
    let mut stream =
        TcpStream::connect(options.address).with_context(|| format!("connecting to {}", options.address))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(crate::PATIENCE))?;
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", options.path, options.host);
    let (mut operations, mut errors) = (0, 0);
    let mut latency_ns = Histogram::new(3)?;
    let mut answer = Vec::new();
    let begun = Instant::now();
    let mut due = begun;
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request.as_bytes())?;
        let ok = receive(&mut stream, &mut answer)?;
        latency_ns.record(nanoseconds(due.elapsed()))?;
        operations += 1;
        errors += u64::from(!ok);
        due += options.every;
    }
    Ok(Report { operations, errors, elapsed: begun.elapsed(), latency_ns })
}

/// Reads one answer; whether it was a success.
fn receive(stream: &mut TcpStream, answer: &mut Vec<u8>) -> Result<bool> {
    answer.clear();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "the server closed the probe's connection");
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let Some(head_end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(answer.get(..head_end).unwrap_or_default()).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("an answer without Content-Length")?.trim().parse()?;
        if answer.len() >= head_end + 4 + length {
            return Ok(head.starts_with("http/1.1 2"));
        }
    }
}
