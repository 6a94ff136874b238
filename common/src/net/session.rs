//! A connection's first steps on its worker (registration, PROXY header, TLS), and its end at the cut.

use std::future::Future;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tracing::{Instrument, debug, debug_span};

use super::downstream::{Admitted, Downstream, Handed, Peer};
use super::proxy_header;
use super::service::TlsStart;
use super::stream::{Stream, Transport};

/// A client that was told there is no room has this long to read it.
const REFUSAL: Duration = Duration::from_secs(1);

/// Why a connection ended before its first protocol byte.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("socket: {0}")]
    Socket(io::Error),
    #[error("PROXY protocol: {0}")]
    ProxyHeader(proxy_header::HeaderError),
    #[error("TLS handshake: {0}")]
    Tls(io::Error),
}

/// Serves one connection from hand-off to its end or the cut.
pub(super) async fn session<S, R>(
    handed: Handed,
    serve: impl FnOnce(Downstream) -> S,
    refuse: impl FnOnce(Downstream) -> R,
) where
    S: Future<Output = ()>,
    R: Future<Output = ()>,
{
    let cut = handed.drain.cut();
    let span = debug_span!("session", listener = %handed.settings.info.name, peer = %handed.peer);
    let work = async {
        let (admitted, settings) = (handed.admitted, Arc::clone(&handed.settings));
        match (admitted, open(handed).await) {
            (Admitted::Yes, Ok(conn)) => serve(conn).await,
            (Admitted::Refused, Ok(conn)) => {
                // Told in time or not, the connection ends here.
                timeout(REFUSAL, refuse(conn)).await.unwrap_or_default();
            }
            (_, Err(error)) => {
                settings.info.counters.failed.inc();
                debug!(%error, "a connection ended before it began");
            }
        }
    };
    tokio::select! {
        biased;
        () = work.instrument(span) => (),
        () = cut => (),
    }
}

/// Makes a stream of a socket: the PROXY header is read first, then TLS if it starts with the first byte.
///
/// The futures of both are boxed: a plain connection does not carry their size.
async fn open(handed: Handed) -> Result<Downstream, OpenError> {
    let Handed { socket, mut peer, settings, drain, permit, admitted } = handed;
    let transport = register(socket, peer).map_err(OpenError::Socket)?;
    if let Some(proxy) = &settings.proxy_protocol {
        let read = Box::pin(proxy_header::read(&transport, peer, proxy));
        peer = read.await.map_err(OpenError::ProxyHeader)?;
    }
    let listener = Arc::clone(&settings.info);
    let mut conn = Downstream {
        stream: Stream::Plain(transport),
        peer,
        listener,
        tls: None,
        drain,
        settings,
        _permit: permit,
    };
    let immediate = conn.settings.tls_start == TlsStart::Immediate && admitted == Admitted::Yes;
    if immediate && conn.offers_tls() {
        conn = Box::pin(conn.start_tls(&[])).await.map_err(OpenError::Tls)?;
    }
    Ok(conn)
}

/// Tells this thread's runtime of the socket.
fn register(socket: OwnedFd, peer: Peer) -> io::Result<Transport> {
    Ok(match peer {
        Peer::Ip(_) => Transport::Tcp(TcpStream::from_std(StdTcpStream::from(socket))?),
        Peer::Unix => Transport::Unix(UnixStream::from_std(StdUnixStream::from(socket))?),
    })
}
