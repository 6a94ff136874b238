//! The plainest client: bytes out, bytes in.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};
use harness::PATIENCE;

/// A command whose answer is like no other: what stands before it has been answered when it has.
const MARK: &[u8] = b"set the-mark 0 0 0 noreply\r\n\r\nget the-mark\r\n";
const MARK_ANSWER: &[u8] = b"VALUE the-mark 0 0\r\n\r\nEND\r\n";

pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("sending")
    }

    /// One line without its end. An error when the connection ends before or in it.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut scanned = 0;
        loop {
            let fresh = self.unread.get(scanned..).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=scanned + end).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            scanned = self.unread.len();
            if self.fill()? == 0 {
                bail!("closed after {:?}", String::from_utf8_lossy(&self.unread));
            }
        }
    }

    /// Sends and hears one line.
    pub(crate) fn ask(&mut self, request: &str) -> Result<String> {
        self.send(request.as_bytes())?;
        self.line()
    }

    /// Sends and hears lines up to one that ends an answer to `get` or `stats`.
    pub(crate) fn ask_all(&mut self, request: &str) -> Result<Vec<String>> {
        self.send(request.as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let line = self.line()?;
            let is_last = line == "END" || line.contains("ERROR");
            lines.push(line);
            if is_last {
                return Ok(lines);
            }
        }
    }

    /// All that is answered to `bytes`, and whether the connection is closed then.
    pub(crate) fn exchange(self, bytes: &[u8]) -> Result<(Vec<u8>, bool)> {
        self.exchange_up_to(bytes, MARK, MARK_ANSWER)
    }

    /// The same, with another request behind `bytes` whose answer is like no other.
    pub(crate) fn exchange_up_to(
        mut self,
        bytes: &[u8],
        mark: &[u8],
        answer: &[u8],
    ) -> Result<(Vec<u8>, bool)> {
        // A server that hangs up in the middle of a long request makes writing fail: that is an answer too.
        let sent = self.stream.write_all(&[bytes, mark].concat());
        loop {
            if self.unread.ends_with(answer) && sent.is_ok() {
                self.unread.truncate(self.unread.len() - answer.len());
                return Ok((self.unread, false));
            }
            if self.fill()? == 0 {
                return Ok((self.unread, true));
            }
        }
    }

    /// Reads once; 0 at the end of the stream, however it ended.
    pub(crate) fn fill(&mut self) -> Result<usize> {
        let mut part = vec![0; 64 * 1024];
        match self.stream.read(&mut part) {
            Ok(count) => {
                self.unread.extend_from_slice(part.get(..count).unwrap_or_default());
                Ok(count)
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            Err(error) => Err(error).context(String::from_utf8_lossy(&self.unread).into_owned()),
        }
    }

    /// So many bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        while self.unread.len() < len {
            if self.fill()? == 0 {
                bail!("closed after {:?}", String::from_utf8_lossy(&self.unread));
            }
        }
        Ok(self.unread.drain(..len).collect())
    }

    /// What was read and not yet taken.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.unread
    }
}
