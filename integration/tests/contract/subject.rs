//! What the contract needs to know of each protocol: a server, the smallest configuration, one exchange.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::{App, Kind, Memcached, PATIENCE, Postgres, Proxy, ProxyBuilder};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes to and from a proxy, whatever carries them.
pub(crate) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

/// The server behind a proxy.
pub(crate) enum Server {
    Memcached(Memcached),
    Postgres(Box<Postgres>),
    Http(App),
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Memcached => Self::Memcached(Memcached::start()?),
            Kind::Postgres => Self::Postgres(Box::new(Postgres::start()?)),
            Kind::Http => Self::Http(App::saying("hello")?),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        match self {
            Self::Memcached(server) => server.address(),
            Self::Postgres(server) => server.address(),
            Self::Http(server) => server.address(),
        }
    }
}

/// The smallest configuration with these listeners: a YAML list's inside.
pub(crate) fn config(kind: Kind, listeners: &str) -> String {
    let rest = match kind {
        Kind::Memcached => "clusters:\n  main:\n    endpoints: [$SERVER]\n",
        Kind::Postgres => {
            "databases:\n  shop:\n    endpoints: [$SERVER]\n    pool: {mode: transaction, size: 20}\n\
             users:\n  app: {password: secret}\n"
        }
        Kind::Http => "apps:\n  shop:\n    hosts: [shop.example.test]\n    endpoints: [$SERVER]\n",
    };
    format!("listeners: [{listeners}]\nadmin: {{address: $ADMIN}}\n{rest}")
}

/// A proxy before a server of its kind, not started yet.
pub(crate) fn before(kind: Kind, server: &Server, listeners: &str) -> ProxyBuilder {
    Proxy::of(kind).config(&config(kind, listeners)).set("SERVER", server.address())
}

/// The usual proxy.
pub(crate) fn plain(kind: Kind, server: &Server) -> Result<Proxy> {
    before(kind, server, "{address: $LISTEN}").start()
}

/// One exchange over a connection of its own.
pub(crate) async fn exchange_at(kind: Kind, address: SocketAddr) -> Result<()> {
    exchange(kind, TcpStream::connect(address).await?).await
}

/// Logs in where the protocol has it, asks the server behind the proxy something, and hangs up.
pub(crate) async fn exchange(kind: Kind, wire: impl Wire) -> Result<()> {
    let done = async {
        match kind {
            Kind::Memcached => talk(wire, "get nothing\r\n", "END\r\n").await.map(drop),
            Kind::Http => {
                let request = "GET / HTTP/1.1\r\nHost: shop.example.test\r\n\r\n";
                talk(wire, request, "HTTP/1.1 200").await.map(drop)
            }
            Kind::Postgres => {
                let session = login(wire).await?;
                let rows = session.simple_query("SELECT 41 + 1").await?;
                ensure!(!rows.is_empty(), "no answer to a query");
                Ok(())
            }
        }
    };
    tokio::time::timeout(PATIENCE, done).await.with_context(|| format!("no exchange within {PATIENCE:?}"))?
}

/// A session that has done one exchange and is still open.
pub(crate) enum Session {
    Plain(#[allow(dead_code, reason = "held open")] Box<dyn Wire>),
    Postgres(tokio_postgres::Client),
}

/// Opens a session and does one exchange on it.
pub(crate) async fn open(kind: Kind, address: SocketAddr) -> Result<Session> {
    let wire = TcpStream::connect(address).await?;
    let opened = async {
        Ok(match kind {
            Kind::Memcached => Session::Plain(talk(wire, "get nothing\r\n", "END\r\n").await?),
            Kind::Http => {
                let request = "GET / HTTP/1.1\r\nHost: shop.example.test\r\n\r\n";
                Session::Plain(talk(wire, request, "HTTP/1.1 200").await?)
            }
            Kind::Postgres => Session::Postgres(login(wire).await?),
        })
    };
    tokio::time::timeout(PATIENCE, opened).await.with_context(|| format!("no session within {PATIENCE:?}"))?
}

impl Session {
    /// Waits until the proxy has ended it.
    pub(crate) async fn ended(self) -> Result<()> {
        let end = async {
            match self {
                Self::Plain(mut wire) => {
                    let mut rest = Vec::new();
                    // A reset is an end as well.
                    let _reset = wire.read_to_end(&mut rest).await;
                }
                Self::Postgres(client) => {
                    while !client.is_closed() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
            }
        };
        tokio::time::timeout(PATIENCE, end).await.context("the session was not ended")
    }
}

/// Whether the proxy hangs up on a connection without serving it.
pub(crate) async fn is_refused(kind: Kind, address: SocketAddr) -> bool {
    matches!(tokio::time::timeout(PATIENCE, exchange_at(kind, address)).await, Ok(Err(_)))
}

async fn talk(mut wire: impl Wire, request: &str, wanted: &str) -> Result<Box<dyn Wire>> {
    wire.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; wanted.len()];
    wire.read_exact(&mut answer).await.context("the proxy hung up")?;
    let answer = String::from_utf8_lossy(&answer);
    ensure!(answer == wanted, "{request:?} was answered by {answer:?}");
    Ok(Box::new(wire))
}

async fn login(wire: impl Wire) -> Result<tokio_postgres::Client> {
    let mut config = tokio_postgres::Config::new();
    config.user("app").password("secret").dbname("shop").ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect_raw(wire, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
