//! The other end of a connection, in a test's hands.

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::time::{Duration, timeout};

use crate::net::Stream;

/// What a script waits for comes within this time, or the test has failed. Costs nothing under paused time.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends and expects, step by step; whatever goes otherwise is a panic that says what came instead.
#[derive(Debug)]
pub struct ScriptedPeer {
    stream: Stream,
    read: BytesMut,
}

#[allow(clippy::panic, reason = "for tests: a panic is the report")]
impl ScriptedPeer {
    /// Takes one end of a connection.
    pub fn new(stream: impl Into<Stream>) -> Self {
        Self { stream: stream.into(), read: BytesMut::new() }
    }

    /// Sends all of it.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        if let Err(error) = self.stream.send(&mut &*bytes).await {
            panic!("{} could not be sent: {error}", bytes.escape_ascii());
        }
    }

    /// Reads as many bytes as `expected` has, which must be those.
    pub async fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let expected = expected.as_ref();
        while self.read.len() < expected.len() {
            if self.fill("expected", expected).await == 0 {
                panic!("expected {}, got {} and the end", expected.escape_ascii(), self.read.escape_ascii());
            }
        }
        let got = self.read.split_to(expected.len());
        assert!(got == expected, "expected {}, got {}", expected.escape_ascii(), got.escape_ascii());
    }

    /// Reads up to and with `end`, whatever comes before it.
    pub async fn expect_until(&mut self, end: impl AsRef<[u8]>) -> BytesMut {
        let end = end.as_ref();
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, end) {
                return self.read.split_to(at + end.len());
            }
            if self.fill("expected", end).await == 0 {
                panic!("expected {}, got {} and the end", end.escape_ascii(), self.read.escape_ascii());
            }
        }
    }

    /// Has nothing come that was not expected, so far?
    pub fn is_silent(&mut self) -> bool {
        self.read.is_empty() && self.stream.fill(&mut self.read).now_or_never().is_none()
    }

    /// The other end closes, and sends nothing before that.
    pub async fn expect_end(&mut self) {
        while self.fill("expected the end", b"").await > 0 {}
        assert!(self.read.is_empty(), "expected the end, got {}", self.read.escape_ascii());
    }

    /// Says that nothing more will be sent; reading goes on.
    pub async fn finish(&mut self) {
        // A peer that has closed already needs no telling.
        self.stream.shutdown().await.unwrap_or_default();
    }

    /// The stream, for what no script has words for.
    pub fn stream(&mut self) -> &mut Stream {
        &mut self.stream
    }

    async fn fill(&mut self, what: &str, bytes: &[u8]) -> usize {
        let Ok(read) = timeout(PATIENCE, self.stream.fill(&mut self.read)).await else {
            panic!("{what} {}, got {} and then nothing", bytes.escape_ascii(), self.read.escape_ascii());
        };
        // A connection that breaks off ends like any other.
        read.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_script_is_followed() {
        let (a, b) = crate::testing::stream_pair().unwrap();
        let (mut left, mut right) = (ScriptedPeer::new(a), ScriptedPeer::new(b));
        left.send("one two\r\nthree").await;
        right.expect("one").await;
        assert_eq!(right.expect_until("\r\n").await, " two\r\n");
        left.finish().await;
        right.expect("three").await;
        right.expect_end().await;
        right.send("still heard").await;
        left.expect("still heard").await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "expected a, got  and then nothing")]
    async fn silence_fails_the_script() {
        let (a, _b) = crate::testing::stream_pair().unwrap();
        ScriptedPeer::new(a).expect("a").await;
    }

    #[tokio::test]
    #[should_panic(expected = "expected a, got b")]
    async fn other_bytes_fail_the_script() {
        let (a, b) = crate::testing::stream_pair().unwrap();
        ScriptedPeer::new(a).send("b").await;
        ScriptedPeer::new(b).expect("a").await;
    }
}
