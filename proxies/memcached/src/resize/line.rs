//! A connection of the control side's own: one question at a time, beside the workers' pipelines.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use groove_common::ids::Address;
use groove_common::net::{Stream, connect};
use memchr::memchr;
use tokio::time::timeout;

use crate::error::Failure;
use crate::upstream::connection::Settings;
use crate::wire::Output;
use crate::wire::meta::{Decoder, Reply, Request};

/// A crawler that pauses is not dead; one that says nothing for so long is.
const CRAWL_QUIET_MAX: Duration = Duration::from_secs(30);

/// The longest line of a crawl: a key of 250 bytes, each written with three, and some numbers.
const LINE_LEN_MAX: usize = 2048;

/// A connection. After an error it is of no more use.
pub(super) struct Line {
    stream: Stream,
    input: BytesMut,
    decoder: Decoder,
}

impl Line {
    /// Connects.
    pub(super) async fn open(address: &Address, settings: &Settings) -> Result<Self, Failure> {
        let stream = connect(address, settings.tls.as_ref(), settings.connect_timeout).await;
        let stream = stream.map_err(|_| Failure::Down)?;
        Ok(Self { stream, input: BytesMut::new(), decoder: Decoder::default() })
    }

    /// A request and its reply.
    pub(super) async fn ask(&mut self, request: &Request<'_>, settings: &Settings) -> Result<Reply, Failure> {
        let mut out = Output::new();
        request.encode(&mut out);
        self.exchange(out, settings).await
    }

    async fn exchange(&mut self, out: Output, settings: &Settings) -> Result<Reply, Failure> {
        let exchange = async {
            self.write(out).await?;
            loop {
                let reply = self.decoder.decode(&mut self.input, &settings.limits);
                if let Some(reply) = reply.map_err(|_| Failure::Nonsense)? {
                    return Ok(reply.detached());
                }
                self.fill().await?;
            }
        };
        timeout(settings.timeout, exchange).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Does it answer at all?
    pub(super) async fn greet(&mut self, settings: &Settings) -> Result<(), Failure> {
        let mut out = Output::new();
        out.extend_from_slice(b"mn\r\n");
        self.exchange(out, settings).await.map(|_| ())
    }

    /// A statistic of the server.
    pub(super) async fn statistic(
        &mut self,
        name: &str,
        settings: &Settings,
    ) -> Result<Option<u64>, Failure> {
        let mut found = None;
        let find = |known: &str, value: &str| {
            if known == name {
                found = value.parse().ok();
            }
        };
        self.statistics(settings, find).await?;
        Ok(found)
    }

    /// Calls `each` with the name and the value of every statistic of the server.
    pub(super) async fn statistics(
        &mut self,
        settings: &Settings,
        mut each: impl FnMut(&str, &str),
    ) -> Result<(), Failure> {
        self.write_line(b"stats\r\n").await?;
        loop {
            let line = timeout(settings.timeout, self.line()).await.unwrap_or(Err(Failure::TimedOut))?;
            let line = std::str::from_utf8(&line).map_err(|_| Failure::Nonsense)?;
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("STAT"), Some(name), Some(value)) => each(name, value),
                (Some("STAT"), _, _) => {}
                (Some("END"), None, None) => return Ok(()),
                (Some(_) | None, _, _) => return Err(Failure::Nonsense),
            }
        }
    }

    /// Begins a crawl, whose lines are read by [`Self::crawled`].
    pub(super) async fn crawl(&mut self, what: &str) -> Result<(), Failure> {
        self.write_line(format!("lru_crawler metadump {what}\r\n").as_bytes()).await
    }

    /// The next line of a crawl.
    pub(super) async fn crawled(&mut self) -> Result<Bytes, Failure> {
        timeout(CRAWL_QUIET_MAX, self.line()).await.unwrap_or(Err(Failure::TimedOut))
    }

    async fn line(&mut self) -> Result<Bytes, Failure> {
        loop {
            if let Some(end) = memchr(b'\n', &self.input) {
                let line = self.input.split_to(end + 1).freeze();
                let line = line.strip_suffix(b"\n").unwrap_or_default();
                return Ok(Bytes::copy_from_slice(line.strip_suffix(b"\r").unwrap_or(line)));
            }
            if self.input.len() > LINE_LEN_MAX {
                return Err(Failure::Nonsense);
            }
            self.fill().await?;
        }
    }

    async fn write_line(&mut self, mut line: &[u8]) -> Result<(), Failure> {
        self.stream.send(&mut line).await.map_err(|_| Failure::Lost)
    }

    async fn write(&mut self, mut out: Output) -> Result<(), Failure> {
        while !out.is_empty() {
            let mut piece = out.front();
            let len = piece.len();
            self.stream.send(&mut piece).await.map_err(|_| Failure::Lost)?;
            out.advance(len);
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Failure> {
        match self.stream.fill(&mut self.input).await {
            Ok(0) | Err(_) => Err(Failure::Lost),
            Ok(_) => Ok(()),
        }
    }
}
