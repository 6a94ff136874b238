//! One type for every byte stream: TCP, unix and TLS on either, from either end.
//!
//! Besides tokio's traits it reads with [`Stream::poll_fill`], which holds no buffer while nothing is
//! readable: bytes land in a scratch area of the thread and only then in the session's buffer. An idle
//! connection therefore costs its socket and its state, nothing else.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::has_budget_remaining;
use tokio_rustls::{client, server};
use tokio_util::sync::CancellationToken;

use super::certificate::end_point;

/// The most one [`Stream::poll_fill`] brings in.
pub const FILL_BYTES_MAX: usize = 64 * 1024;

/// With this much room in the session's own buffer the detour over the scratch area does not pay.
const DIRECT_BYTES_MIN: usize = 4 * 1024;

/// Slices given to one vectored write.
const SLICES_MAX: usize = 64;

/// Whether a task that has found nothing to read will be woken once there is something: what
/// [`Stream::poll_fill_watched`] remembers between two looks.
#[derive(Debug, Default)]
pub struct Watch(bool);

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; FILL_BYTES_MAX].into_boxed_slice());
}

/// A plain socket, without TLS.
#[derive(Debug)]
pub enum Transport {
    /// TCP, Nagle's algorithm off.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
    /// No socket at all: the other end is in this program, which speaks another protocol to its peer.
    Pipe(Pipe),
}

/// An end of a pipe in memory, see [`Stream::piped`].
#[derive(Debug)]
pub struct Pipe {
    end: DuplexStream,
    gone: CancellationToken,
}

/// A byte stream to a client or to a server.
#[derive(Debug)]
pub enum Stream {
    /// Without TLS.
    Plain(Transport),
    /// TLS, we are the server.
    ServerTls(Box<server::TlsStream<Transport>>),
    /// TLS, we are the client.
    ClientTls(Box<client::TlsStream<Transport>>),
}

impl Stream {
    /// An end of a pipe in memory. Whoever has the other cancels `gone` when its peer has left: [`Self::closed`] hears it.
    pub fn piped(end: DuplexStream, gone: CancellationToken) -> Self {
        Self::Plain(Transport::Pipe(Pipe { end, gone }))
    }

    /// Is it an end of a pipe in memory?
    pub fn is_piped(&self) -> bool {
        matches!(self, Self::Plain(Transport::Pipe(_)))
    }

    /// Is the stream encrypted?
    pub fn is_tls(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// What channel binding ties a login to, where we are TLS's client: `tls-server-end-point` (RFC 5929) of the
    /// certificate that the server showed, if that has one.
    pub fn server_end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::ClientTls(tls) => end_point(tls.get_ref().1.peer_certificates()?.first()?),
            Self::ServerTls(_) | Self::Plain(_) => None,
        }
    }

    /// The protocol that TLS agreed on (ALPN, RFC 7301), where we are its client.
    pub fn agreed_protocol(&self) -> Option<&[u8]> {
        match self {
            Self::ClientTls(tls) => tls.get_ref().1.alpn_protocol(),
            Self::ServerTls(_) | Self::Plain(_) => None,
        }
    }

    /// Our end, for TCP.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self.transport() {
            Transport::Tcp(tcp) => tcp.local_addr().ok(),
            Transport::Unix(_) | Transport::Pipe(_) => None,
        }
    }

    /// The socket below whatever is on top.
    pub fn transport(&self) -> &Transport {
        match self {
            Self::Plain(transport) => transport,
            Self::ServerTls(tls) => tls.get_ref().0,
            Self::ClientTls(tls) => tls.get_ref().0,
        }
    }

    /// The address by which the other end reached us, or we it; a unix socket has none.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self.transport() {
            Transport::Tcp(stream) => stream.local_addr().ok(),
            Transport::Unix(_) | Transport::Pipe(_) => None,
        }
    }

    /// Reads what is there, at most [`FILL_BYTES_MAX`], to the end of `buf`. 0 is the end of the stream.
    ///
    /// `buf` grows only once bytes have arrived, and by no more than those bytes.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        if buf.capacity() - buf.len() >= DIRECT_BYTES_MIN {
            return pin!(self.read_buf(buf)).poll(cx);
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(self).poll_read(cx, &mut read))?;
            buf.extend_from_slice(read.filled());
            Poll::Ready(Ok(read.filled().len()))
        })
    }

    /// As [`Self::poll_fill`], for a task that reads from this stream again and again and is woken by other things, too:
    /// while nothing has come since it last looked, that is found out at a tenth of the cost. `watch` is this task's and
    /// this stream's, for all that the task reads of it; another task, or a stream [registered](Self::register_here)
    /// anew, begins with a new one.
    pub fn poll_fill_watched(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        watch: &mut Watch,
    ) -> Poll<io::Result<usize>> {
        if watch.0 && !self.has_news() {
            return Poll::Pending;
        }
        let filled = self.poll_fill(cx, buf);
        // A task that has had its share for now is put off without having been noted.
        watch.0 = filled.is_pending() && has_budget_remaining();
        filled
    }

    /// Whether the runtime has heard anything of the socket since it was last read to its end. Asks no system. TLS may
    /// hold bytes back: of that it is not known.
    pub fn has_news(&self) -> bool {
        // What would be done is not, unless there are; that it goes well leaves the runtime's knowledge as it is.
        let news = match self {
            Self::Plain(Transport::Tcp(tcp)) => tcp.try_io(Interest::READABLE, || Ok(())),
            Self::Plain(Transport::Unix(unix)) => unix.try_io(Interest::READABLE, || Ok(())),
            Self::Plain(Transport::Pipe(_)) | Self::ServerTls(_) | Self::ClientTls(_) => return true,
        };
        news.is_ok()
    }

    /// May there be something to read? Reads nothing; of TLS, which may hold bytes back, it is not known.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let ready = match self {
            Self::Plain(Transport::Tcp(tcp)) => tcp.poll_read_ready(cx),
            Self::Plain(Transport::Unix(unix)) => unix.poll_read_ready(cx),
            Self::Plain(Transport::Pipe(_)) => return Poll::Ready(()),
            Self::ServerTls(_) | Self::ClientTls(_) => return Poll::Ready(()),
        };
        // An error is met again by whoever reads.
        ready.map(|_| ())
    }

    /// Waits until the peer has closed its sending side, or the connection is broken. Reads nothing, and sees it
    /// behind bytes that nobody has read yet.
    pub async fn closed(&self) {
        // A socket that is not asked for urgent data is ready for it only when it is closed.
        let ready = match self.transport() {
            Transport::Tcp(tcp) => tcp.ready(Interest::PRIORITY).await,
            Transport::Unix(unix) => unix.ready(Interest::PRIORITY).await,
            Transport::Pipe(pipe) => return pipe.gone.cancelled().await,
        };
        if ready.is_ok_and(|ready| !ready.is_read_closed()) {
            std::future::pending().await
        }
    }

    /// As [`Self::poll_fill`], awaited.
    pub async fn fill(&mut self, buf: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fill(cx, buf)).await
    }

    /// Writes all of `buf`, vectored, and flushes. May be called again with more in `buf` while it is pending.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, buf: &mut impl Buf) -> Poll<io::Result<()>> {
        while buf.has_remaining() {
            let written = if buf.chunk().len() == buf.remaining() {
                // One piece, as mostly: the system's plain call costs less than the vectored one.
                ready!(Pin::new(&mut *self).poll_write(cx, buf.chunk()))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES_MAX];
                let count = buf.chunks_vectored(&mut slices);
                let slices = slices.get(..count).unwrap_or_default();
                ready!(Pin::new(&mut *self).poll_write_vectored(cx, slices))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buf.advance(written);
        }
        // A plain socket has nothing to flush; TLS may hold records that the socket did not take.
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::ServerTls(_) | Self::ClientTls(_) => Pin::new(self).poll_flush(cx),
        }
    }

    /// As [`Self::poll_send`], awaited.
    pub async fn send(&mut self, buf: &mut impl Buf) -> io::Result<()> {
        poll_fn(|cx| self.poll_send(cx, buf)).await
    }

    /// Has the calling thread's runtime watch the socket, in place of the one that does.
    ///
    /// # Errors
    /// The system gives no second descriptor for the socket: all is as before.
    pub fn register_here(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(transport) => transport.register_here(),
            Self::ServerTls(tls) => tls.get_mut().0.register_here(),
            Self::ClientTls(tls) => tls.get_mut().0.register_here(),
        }
    }

    /// Has the peer hung up (or sent what it should not have)? Reads nothing. For connections parked in a pool.
    pub fn is_stale(&mut self, cx: &mut Context<'_>) -> bool {
        let mut byte = [0];
        let mut read = ReadBuf::new(&mut byte);
        Pin::new(self).poll_read(cx, &mut read).is_ready()
    }
}

/// Runs one method on whichever stream it is.
macro_rules! each {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Plain($inner) => $call,
            Stream::ServerTls($inner) => $call,
            Stream::ClientTls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, stream => stream.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Transport {
    /// By a second descriptor, so that there is no instant without any.
    fn register_here(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => *tcp = TcpStream::from_std(tcp.as_fd().try_clone_to_owned()?.into())?,
            Self::Unix(unix) => *unix = UnixStream::from_std(unix.as_fd().try_clone_to_owned()?.into())?,
            Self::Pipe(_) => {}
        }
        Ok(())
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Pipe(pipe) => Pin::new(&mut pipe.end).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Pipe(pipe) => Pin::new(&mut pipe.end).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Self::Pipe(pipe) => Pin::new(&mut pipe.end).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Pipe(pipe) => Pin::new(&mut pipe.end).poll_shutdown(cx),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(Transport::Tcp(tcp))
    }
}

impl From<UnixStream> for Stream {
    fn from(unix: UnixStream) -> Self {
        Self::Plain(Transport::Unix(unix))
    }
}

impl From<DuplexStream> for Stream {
    fn from(pipe: DuplexStream) -> Self {
        Self::piped(pipe, CancellationToken::new())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::testing::stream_pair;

    /// One look, without waiting.
    async fn look(stream: &mut Stream, buf: &mut BytesMut) -> Poll<usize> {
        poll_fn(|cx| Poll::Ready(stream.poll_fill(cx, buf).map(Result::unwrap))).await
    }

    #[tokio::test]
    async fn nothing_is_held_while_nothing_is_there() {
        let (mut ours, mut theirs) = stream_pair().unwrap();
        let mut buf = BytesMut::new();
        assert_eq!(look(&mut ours, &mut buf).await, Poll::Pending);
        assert_eq!(buf.capacity(), 0);
        theirs.send(&mut &b"hello"[..]).await.unwrap();
        assert_eq!(ours.fill(&mut buf).await.unwrap(), 5);
        assert_eq!(buf, "hello");
        assert!(buf.capacity() < DIRECT_BYTES_MIN, "no more than what came");
    }

    /// Two streams, one task, and one that echoes: who is woken by the one stream still hears of the other.
    #[tokio::test]
    async fn a_watched_stream_is_heard_whatever_woke_its_task() {
        let pairs = [stream_pair().unwrap(), stream_pair().unwrap()];
        let [(mut first, mut far_first), (mut second, mut far_second)] = pairs;
        let reader = tokio::spawn(async move {
            let (mut watches, mut buf) = ([Watch::default(), Watch::default()], BytesMut::new());
            let [one, two] = &mut watches;
            poll_fn(|cx| {
                // Each is looked at twice, and seldom has news.
                for _ in 0..2 {
                    let first = first.poll_fill_watched(cx, &mut buf, one).map(Result::unwrap);
                    let second = second.poll_fill_watched(cx, &mut buf, two).map(Result::unwrap);
                    if first == Poll::Ready(0) || second == Poll::Ready(0) {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending
            })
            .await;
            buf
        });
        let sends = async {
            for round in 0..100 {
                let far = if round % 3 == 0 { &mut far_first } else { &mut far_second };
                far.send(&mut &b"x"[..]).await.unwrap();
                tokio::task::yield_now().await;
            }
            far_first.shutdown().await.unwrap();
            reader.await.unwrap()
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), sends).await.expect("a wake-up was lost");
        assert!(heard.len() >= 34, "{} of the first stream's", heard.len());
    }

    /// Such a poll says that there is nothing, and has not noted who wants to hear.
    #[tokio::test]
    async fn a_task_that_had_its_share_is_noted_at_its_next_look() {
        let (mut ours, mut theirs) = stream_pair().unwrap();
        let reader = tokio::spawn(async move {
            let (mut watch, mut buf) = (Watch::default(), BytesMut::new());
            let mut is_first = true;
            poll_fn(|cx| {
                while std::mem::take(&mut is_first) && has_budget_remaining() {
                    is_first = pin!(tokio::task::coop::consume_budget()).poll(cx).is_ready();
                }
                ours.poll_fill_watched(cx, &mut buf, &mut watch).map(Result::unwrap)
            })
            .await
        });
        tokio::task::yield_now().await;
        theirs.send(&mut &b"x"[..]).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(5), reader).await.expect("a wake-up was lost");
        assert_eq!(heard.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_buffer_with_room_is_read_into_without_a_detour() {
        let (mut ours, mut theirs) = stream_pair().unwrap();
        let mut buf = BytesMut::with_capacity(2 * DIRECT_BYTES_MIN);
        buf.extend_from_slice(b"start ");
        let place = buf.as_ptr();
        theirs.send(&mut &b"end"[..]).await.unwrap();
        ours.fill(&mut buf).await.unwrap();
        assert_eq!(buf, "start end");
        assert_eq!(buf.as_ptr(), place);
    }

    #[tokio::test]
    async fn the_end_is_zero_bytes() {
        let (mut ours, mut theirs) = stream_pair().unwrap();
        theirs.shutdown().await.unwrap();
        let mut buf = BytesMut::new();
        assert_eq!(ours.fill(&mut buf).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_close_is_seen_behind_bytes_that_nobody_read() {
        let (ours, mut theirs) = stream_pair().unwrap();
        theirs.send(&mut &b"a body"[..]).await.unwrap();
        let mut closed = Box::pin(ours.closed());
        for _ in 0..3 {
            tokio::task::yield_now().await;
            assert!(poll_fn(|cx| Poll::Ready(closed.as_mut().poll(cx))).await.is_pending());
        }
        theirs.shutdown().await.unwrap();
        closed.await;
    }

    #[tokio::test]
    async fn many_pieces_are_sent_whatever_the_socket_takes() {
        let (mut ours, mut theirs) = stream_pair().unwrap();
        let piece = vec![b'x'; 100_000];
        let mut pieces = Buf::chain(&piece[..], &piece[..]).chain(&b"end"[..]);
        let mut got = BytesMut::new();
        let (sent, ()) = tokio::join!(ours.send(&mut pieces), async {
            while got.len() < 200_003 {
                theirs.fill(&mut got).await.unwrap();
            }
        });
        sent.unwrap();
        assert!(got.ends_with(b"xend"));
    }

    #[tokio::test]
    async fn a_parked_connection_is_stale_once_the_peer_says_anything() {
        let (mut ours, mut theirs) = stream_pair().unwrap();
        let stale = async |stream: &mut Stream| poll_fn(|cx| Poll::Ready(stream.is_stale(cx))).await;
        assert!(!stale(&mut ours).await);
        theirs.shutdown().await.unwrap();
        // The runtime learns of it when it next looks at its sockets.
        tokio::task::yield_now().await;
        assert!(stale(&mut ours).await);
    }
}
