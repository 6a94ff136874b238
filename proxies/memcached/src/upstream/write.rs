//! Writing an [`Output`] to a stream, with one call where one is enough.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use groove_common::net::{Stream, Transport};
use tokio::io::AsyncWrite;

use crate::wire::Output;
use crate::wire::output::SEGMENTS_MAX;

impl Output {
    /// Writes everything if it is one piece and the socket takes it at once. True when nothing is left.
    pub(crate) fn try_write(&mut self, stream: &Stream) -> bool {
        if self.is_empty() {
            return true;
        }
        let Stream::Plain(transport) = stream else { return false };
        if !self.is_one_piece() {
            return false;
        }
        let written = match transport {
            Transport::Tcp(tcp) => tcp.try_write(self.front()),
            Transport::Unix(unix) => unix.try_write(self.front()),
            Transport::Pipe(_) => return false,
        };
        // An error is met again by the driver, who knows what to make of it.
        self.advance(written.unwrap_or(0));
        self.is_empty()
    }

    /// Writes as much as the stream takes; ready when nothing is left.
    pub(crate) fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let written = match self.is_one_piece() {
                true => ready!(Pin::new(&mut *stream).poll_write(cx, self.front()))?,
                false => {
                    let mut slices = [IoSlice::new(&[]); SEGMENTS_MAX];
                    let count = self.slices(&mut slices);
                    let slices = slices.get(..count).unwrap_or_default();
                    ready!(Pin::new(&mut *stream).poll_write_vectored(cx, slices))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        // Plain sockets have nothing to flush, TLS may hold records back.
        match stream.is_tls() {
            true => Pin::new(stream).poll_flush(cx),
            false => Poll::Ready(Ok(())),
        }
    }
}
