//! What follows a 101: bytes, either way, until both sides have said all.

use bytes::BytesMut;
use groove_common::net::Stream;
use groove_common::net::Timer;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::Instant;

/// One direction.
#[derive(Debug)]
struct Pipe {
    held: BytesMut,
    state: Flow,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// Its sender may send more.
    Open,
    /// Its sender has closed; what is held goes out, and then the word that this was all.
    Closing,
    /// Over.
    Closed,
}

/// How much each side sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    /// From the client to the server.
    pub(super) up: u64,
    /// From the server to the client.
    pub(super) down: u64,
}

/// Carries bytes between the two until both have closed, one fails, or nothing moves for `idle_max`. `up` and `down`
/// are what was read of either before.
pub(super) async fn carry(
    client: &mut Stream,
    server: &mut Stream,
    up: BytesMut,
    down: BytesMut,
    idle_max: Duration,
    timer: &mut Timer,
) -> Carried {
    let mut up = Pipe { bytes: up.len() as u64, held: up, state: Flow::Open };
    let mut down = Pipe { bytes: down.len() as u64, held: down, state: Flow::Open };
    timer.set(Instant::now() + idle_max);
    poll_fn(|cx| {
        let mut moved = false;
        let polled =
            up.poll(cx, client, server, &mut moved).and_then(|()| down.poll(cx, server, client, &mut moved));
        if polled.is_err() || (up.state == Flow::Closed && down.state == Flow::Closed) {
            return Poll::Ready(());
        }
        if moved {
            timer.set(Instant::now() + idle_max);
        }
        timer.poll(cx)
    })
    .await;
    Carried { up: up.bytes, down: down.bytes }
}

impl Pipe {
    /// Moves what can be moved. Nothing is read while something is held, so a slow reader slows its sender.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        moved: &mut bool,
    ) -> io::Result<()> {
        loop {
            if !self.held.is_empty() {
                let before = self.held.len();
                let sent = to.poll_send(cx, &mut self.held);
                *moved |= self.held.len() < before;
                match sent {
                    // Nothing is held while nothing moves.
                    Poll::Ready(sent) => {
                        sent?;
                        self.held = BytesMut::new();
                    }
                    Poll::Pending => return Ok(()),
                }
            }
            match self.state {
                Flow::Open => match from.poll_fill(cx, &mut self.held) {
                    Poll::Ready(read) => {
                        *moved = true;
                        match read? {
                            0 => self.state = Flow::Closing,
                            count => self.bytes += count as u64,
                        }
                    }
                    Poll::Pending => return Ok(()),
                },
                Flow::Closing => match Pin::new(&mut *to).poll_shutdown(cx) {
                    Poll::Ready(shut) => {
                        self.state = Flow::Closed;
                        return shut;
                    }
                    Poll::Pending => return Ok(()),
                },
                Flow::Closed => return Ok(()),
            }
        }
    }
}
