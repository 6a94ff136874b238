//! Reading a PROXY header from a socket, and not one byte more.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::time::timeout;

use super::downstream::Peer;
use super::proxy_protocol::{Header, ParseError, parse};
use super::settings::TrustedProxies;
use super::stream::Transport;

/// A load balancer sends the header first and at once.
const TIME_MAX: Duration = Duration::from_secs(5);

/// How much is looked at in one go.
const PEEK_BYTES: usize = 512;

/// Why a connection on a listener with the PROXY protocol goes no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    /// Only the configured networks may speak for others, and on such a listener nobody speaks for himself.
    #[error("{0} is not in a trusted network")]
    Untrusted(IpAddr),
    #[error(transparent)]
    Malformed(#[from] ParseError),
    #[error("no header within {TIME_MAX:?}")]
    Late,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads the header and tells whose connection it is. Processes on a unix socket are trusted.
pub(super) async fn read(
    transport: &Transport,
    peer: Peer,
    trusted: &TrustedProxies,
) -> Result<Peer, HeaderError> {
    if let Some(ip) = peer.ip().map(|ip| ip.to_canonical())
        && !trusted.0.iter().any(|network| network.contains(&ip))
    {
        return Err(HeaderError::Untrusted(ip));
    }
    match timeout(TIME_MAX, header(transport)).await.map_err(|_| HeaderError::Late)?? {
        Header::Own => Ok(peer),
        Header::Client(address) => Ok(Peer::Ip(address)),
    }
}

/// Looks at what is there before taking it: what follows the header belongs to TLS or to the protocol.
async fn header(transport: &Transport) -> Result<Header, HeaderError> {
    let mut seen = Vec::new();
    loop {
        let taken = seen.len();
        let mut window = [0; PEEK_BYTES];
        let peeked = transport.receive(&mut window, RecvFlags::PEEK).await?;
        if peeked == 0 {
            return Err(HeaderError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        seen.extend(window.iter().take(peeked));
        let (found, end) = match parse(&seen)? {
            Some((header, end)) => (Some(header), end),
            // All of it belongs to the header.
            None => (None, seen.len()),
        };
        let mut rest = end - taken;
        while rest > 0 {
            let part = window.get_mut(..rest.min(PEEK_BYTES)).unwrap_or_default();
            rest -= transport.receive(part, RecvFlags::empty()).await?;
        }
        if let Some(header) = found {
            return Ok(header);
        }
    }
}

impl Transport {
    /// recv(2) with flags, which tokio has for TCP only.
    async fn receive(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let receive = |fd: BorrowedFd<'_>| Ok(rustix::net::recv(fd, &mut *buf, flags)?.0);
        match self {
            Self::Tcp(tcp) => tcp.async_io(Interest::READABLE, with(tcp.as_fd(), receive)).await,
            Self::Unix(unix) => unix.async_io(Interest::READABLE, with(unix.as_fd(), receive)).await,
            // Nobody speaks for others in here.
            Self::Pipe(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn with<'a>(
    fd: BorrowedFd<'a>,
    mut receive: impl FnMut(BorrowedFd<'a>) -> io::Result<usize>,
) -> impl FnMut() -> io::Result<usize> {
    move || receive(fd)
}
