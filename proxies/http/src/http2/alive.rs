//! Whether a peer is still there: a PING every so often, and an answer within a while (RFC 9113, 6.7). A peer that
//! vanished without a word would otherwise hold its streams until their own times are over.

use groove_common::net::Timer;
use h2::{Ping, PingPong};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Instant;

/// How a peer is asked whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Between an answer and the next question.
    pub interval: Duration,
    /// For an answer.
    pub timeout: Duration,
}

/// One connection's questions.
pub(super) struct Alive {
    pings: PingPong,
    rules: KeepAlive,
    timer: Timer,
    /// A question has no answer yet.
    is_asked: bool,
}

impl Alive {
    /// The first question is due after an interval.
    pub(super) fn new(pings: PingPong, rules: KeepAlive) -> Box<Self> {
        Box::new(Self { pings, rules, timer: Timer::new(Instant::now() + rules.interval), is_asked: false })
    }

    /// Ready when the peer owes an answer for too long. To be polled before the connection, which sends the questions.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.is_asked {
                match self.pings.poll_pong(cx) {
                    Poll::Ready(Ok(_)) => {
                        self.is_asked = false;
                        self.timer.set(Instant::now() + self.rules.interval);
                    }
                    // The connection ends by itself.
                    Poll::Ready(Err(_)) => return Poll::Pending,
                    Poll::Pending => return self.timer.poll(cx),
                }
            }
            ready!(self.timer.poll(cx));
            if self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Pending;
            }
            self.is_asked = true;
            self.timer.set(Instant::now() + self.rules.timeout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    const RULES: KeepAlive =
        KeepAlive { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) };

    /// Serves a connection, and says when its client was found to be gone.
    async fn lost_after(io: DuplexStream) -> Duration {
        let mut connection = h2::server::Builder::new().handshake::<_, Bytes>(io).await.expect("a handshake");
        let mut alive = Alive::new(connection.ping_pong().expect("the first to ask"), RULES);
        let begun = Instant::now();
        poll_fn(|cx| {
            if alive.poll(cx).is_ready() {
                return Poll::Ready(());
            }
            connection.poll_accept(cx).map(|_| panic!("the connection ended"))
        })
        .await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_gone() {
        let (near, mut far) = duplex(1 << 16);
        let silent = async {
            far.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("room");
            let mut heard = Vec::new();
            loop {
                far.read_buf(&mut heard).await.expect("frames");
                // A PING without an acknowledgement: eight bytes, type 6.
                if heard.windows(9).any(|it| it == b"\0\0\x08\x06\0\0\0\0\0") {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            lost = lost_after(near) => assert_eq!(lost.as_secs(), 50),
            () = silent => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_is_there() {
        let (near, far) = duplex(1 << 16);
        let (requests, connection) =
            h2::client::Builder::new().handshake::<_, Bytes>(far).await.expect("one");
        tokio::spawn(connection);
        let lost = tokio::time::timeout(Duration::from_secs(3600), lost_after(near)).await;
        assert!(lost.is_err(), "it was taken for gone after {lost:?}");
        drop(requests);
    }
}
