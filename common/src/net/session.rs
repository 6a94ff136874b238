//! A connection's first steps on its worker (registration, PROXY header, TLS), and its end at the cut.

use std::future::Future;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use pin_project_lite::pin_project;
use rustix::net::{AddressFamily, sockopt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tracing::{Instrument, debug, debug_span};

use super::downstream::{Admitted, Downstream, Handed, Peer, Permit};
use super::drain::{Drain, Reached};
use super::gather::{Counted, Travelling};
use super::proxy_header;
use super::service::TlsStart;
use super::settings::Settings;
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
///
/// The future of a plain connection is the service's own and a few words: it is what an idle connection costs.
/// Whoever needs more gets it in a box: at the start, and in a log that shows sessions.
pub(super) fn session<S, R>(
    handed: Handed,
    serve: impl FnOnce(Downstream) -> S,
    refuse: impl FnOnce(Downstream) -> R,
) -> UnlessCut<impl Future<Output = ()>>
where
    S: Future<Output = ()>,
    R: Future<Output = ()>,
{
    let span = debug_span!("session", listener = %handed.settings.info.name, peer = %handed.peer);
    let cut = handed.drain.cut();
    let Handed { socket, peer, settings, drain, permit, admitted } = handed;
    let work = match open(socket, peer, settings, drain) {
        Ok(conn) if admitted == Admitted::Yes && !needs_establishing(&conn) && span.is_disabled() => {
            Either::Left(serve(conn))
        }
        opened => Either::Right(Box::pin(establish_and(admitted, opened, serve, refuse).instrument(span))),
    };
    UnlessCut { work, cut, permit }
}

pin_project! {
    /// A session, dropped where it stands when the drain's deadline has passed.
    pub(super) struct UnlessCut<F> {
        #[pin]
        work: F,
        cut: Reached,
        // Dropped after the work: who is counted is served.
        permit: Permit,
    }
}

impl<F: Future<Output = ()>> Future for UnlessCut<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        // First, so that work which finds the drain where it was is woken when it moves on.
        let cut = Pin::new(this.cut).poll(cx);
        match this.work.poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => cut,
        }
    }
}

impl<F: Future<Output = ()> + Send> Counted for UnlessCut<F> {
    fn permit(self: Pin<&mut Self>) -> &mut Permit {
        self.project().permit
    }
}

/// What a connection is served with that comes from another process.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection from another process that nobody serves yet.
pub struct Resuming {
    session: Travelling,
    runtime: Handle,
}

impl Resuming {
    pub(super) fn new(session: UnlessCut<Serving>, runtime: Handle) -> Self {
        Self { session: Travelling::new(session), runtime }
    }

    /// Begins to serve it.
    pub fn begin(self) {
        self.runtime.spawn(self.session);
    }
}

/// As [`session`], for a connection that another process has led in.
pub(super) fn resumed(
    socket: OwnedFd,
    peer: Peer,
    settings: Arc<Settings>,
    drain: Drain,
    permit: Permit,
    serve: impl FnOnce(Downstream) -> Serving,
) -> io::Result<UnlessCut<Serving>> {
    let cut = drain.cut();
    // Who the client is does not tell: a load balancer may have told us of one over a unix socket.
    let is_unix = sockopt::socket_domain(&socket)? == AddressFamily::UNIX;
    let stream = Stream::Plain(if is_unix { register(socket, Peer::Unix)? } else { as_tcp(socket)? });
    let listener = Arc::clone(&settings.info);
    let work = serve(Downstream { stream, peer, listener, tls: None, drain, settings });
    Ok(UnlessCut { work, cut, permit })
}

/// The long way in.
async fn establish_and<S, R>(
    admitted: Admitted,
    opened: Result<Downstream, OpenError>,
    serve: impl FnOnce(Downstream) -> S,
    refuse: impl FnOnce(Downstream) -> R,
) where
    S: Future<Output = ()>,
    R: Future<Output = ()>,
{
    let established = match opened {
        Ok(conn) => establish(conn, admitted).await,
        Err(error) => Err(error),
    };
    match (established, admitted) {
        (Ok(conn), Admitted::Yes) => serve(conn).await,
        // Told in time or not, the connection ends here.
        (Ok(conn), Admitted::Refused) => timeout(REFUSAL, refuse(conn)).await.unwrap_or_default(),
        (Err(error), _) => debug!(%error, "a connection ended before it began"),
    }
}

/// Makes a stream of a socket.
fn open(socket: OwnedFd, peer: Peer, settings: Arc<Settings>, drain: Drain) -> Result<Downstream, OpenError> {
    let stream = Stream::Plain(register(socket, peer).map_err(OpenError::Socket)?);
    let listener = Arc::clone(&settings.info);
    Ok(Downstream { stream, peer, listener, tls: None, drain, settings })
}

fn needs_establishing(conn: &Downstream) -> bool {
    conn.settings.proxy_protocol.is_some() || starts_with_tls(conn)
}

fn starts_with_tls(conn: &Downstream) -> bool {
    conn.settings.tls_start == TlsStart::Immediate && conn.offers_tls()
}

/// Reads the PROXY header, then does the TLS handshake if TLS starts with the first byte. Whoever is refused
/// gets no handshake.
async fn establish(mut conn: Downstream, admitted: Admitted) -> Result<Downstream, OpenError> {
    let listener = Arc::clone(&conn.listener);
    let established = async {
        if let Some(proxy) = &conn.settings.proxy_protocol {
            let read = proxy_header::read(conn.stream.transport(), conn.peer, proxy);
            conn.peer = read.await.map_err(OpenError::ProxyHeader)?;
        }
        match admitted {
            Admitted::Yes if starts_with_tls(&conn) => conn.start_tls(&[]).await.map_err(OpenError::Tls),
            Admitted::Yes | Admitted::Refused => Ok(conn),
        }
    };
    established.await.inspect_err(|_| listener.counters.failed.inc())
}

/// Tells this thread's runtime of the socket.
fn register(socket: OwnedFd, peer: Peer) -> io::Result<Transport> {
    Ok(match peer {
        Peer::Ip(_) => as_tcp(socket)?,
        Peer::Unix => Transport::Unix(UnixStream::from_std(StdUnixStream::from(socket))?),
    })
}

fn as_tcp(socket: OwnedFd) -> io::Result<Transport> {
    Ok(Transport::Tcp(TcpStream::from_std(StdTcpStream::from(socket))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn wait(conn: Downstream) {
        std::future::pending::<()>().await;
        drop(conn);
    }

    fn size<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Millions of idle sessions each pay for every byte here.
    #[test]
    fn a_session_costs_little_beside_its_service() {
        let (service, session) = (size(wait), size(|handed| session(handed, wait, wait)));
        assert!(session <= service + 72, "{session} bytes for a service of {service}");
    }
}
