//! HTTP/2 (RFC 9113), as streams that speak HTTP/1.1 inside.
//!
//! ```text
//!  client ══ serving ── stream ── head, body, trailers ──► pipe ──► session (as of any HTTP/1.1 client) ──► server
//!             └ meter                                                  │
//!                                                                      └──► pipe ──► stream ── asking ══ server
//! ```
//!
//! A request is written in HTTP/1.1's form into a pipe, at whose other end an ordinary session reads it: routes, queues,
//! edits, checks and pages are the same for both versions because they are the same code. A server that speaks HTTP/2 is
//! asked in the same way: what a session takes for its connection is a pipe, too. What HTTP/1.1 has no word for is put
//! into the nearest: a body without a length is chunked, so that trailers go through; a stream that is reset is a peer
//! that hangs up; an extended CONNECT (RFC 8441) is an Upgrade.

mod alive;
mod asking;
mod head;
mod reading;
mod serving;

#[cfg(test)]
mod tests;

pub use alive::KeepAlive;
pub(crate) use asking::{Connections, ask};
pub(crate) use serving::serve;

use bytes::{Bytes, BytesMut};
use h2::SendStream;
use std::future::poll_fn;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, DuplexStream, WriteHalf};

/// What a client says first that knows us to speak HTTP/2 (RFC 9113, 3.4), as far as it looks like a request.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How much of a connection's data may be on its way, in streams' windows.
const CONNECTION_WINDOWS: u32 = 16;

/// What of a chunk is not data: its size, and two ends of a line.
const CHUNK_HEAD_MAX: usize = 20;

/// Bounds of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Requests at once.
    pub streams: u32,
    /// Bytes of a head's fields, as HTTP/2 counts them.
    pub head_bytes: u32,
    /// Bytes held for a peer that reads slowly, and bytes of a stream that may come unasked.
    pub buffer_bytes: usize,
    /// From the connection's beginning to the end of the handshake.
    pub head_time: Duration,
    /// Between two requests of a client's connection.
    pub keep_alive: Duration,
    /// Between two requests of a server's connection.
    pub server_keep_alive: Duration,
    /// Whether clients are asked if they are there.
    pub ping: Option<KeepAlive>,
    /// Whether servers are.
    pub server_ping: Option<KeepAlive>,
}

impl Bounds {
    /// How much of a stream's data may be on its way unasked.
    fn window(&self) -> u32 {
        u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX).clamp(1 << 14, 1 << 24)
    }
}

/// Sends data as the peer's window opens.
async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        // What there is already is not told once more.
        let mut room = stream.capacity();
        while room == 0 {
            let Some(more) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                return Err(h2::Reason::CANCEL.into());
            };
            room = more?;
        }
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(())
}

/// Writes data into a pipe, as a chunk where it is to be one.
async fn put(pipe: &mut WriteHalf<DuplexStream>, data: &[u8], in_chunks: bool) -> io::Result<()> {
    if !in_chunks || data.is_empty() {
        return pipe.write_all(data).await;
    }
    let mut chunk = BytesMut::with_capacity(data.len() + CHUNK_HEAD_MAX);
    chunk.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    pipe.write_all_buf(&mut chunk).await
}

/// Carries a body into a pipe. A peer whose data is not taken is not given room for more.
async fn receive(
    body: &mut h2::RecvStream,
    pipe: &mut WriteHalf<DuplexStream>,
    in_chunks: bool,
) -> io::Result<()> {
    while let Some(data) = body.data().await {
        let data = data.map_err(io::Error::other)?;
        put(pipe, &data, in_chunks).await?;
        body.flow_control().release_capacity(data.len()).map_err(io::Error::other)?;
    }
    let trailers = body.trailers().await.map_err(io::Error::other)?;
    if in_chunks {
        let mut end = BytesMut::new();
        head::put_trailers(&trailers.unwrap_or_default(), &mut end);
        pipe.write_all_buf(&mut end).await?;
    }
    Ok(())
}
