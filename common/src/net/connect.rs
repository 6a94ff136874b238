//! Connecting to a server.

use std::io;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::stream::Stream;
use super::tls::Connector;
use crate::ids::Address;

/// Connects to `address`, TLS handshake included, within `time_max`.
///
/// A host name is resolved by the system; its addresses are tried one after the other.
pub async fn connect(address: &Address, tls: Option<&Connector>, time_max: Duration) -> io::Result<Stream> {
    timeout(time_max, connect_now(address, tls)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer within {time_max:?}"))
    })?
}

async fn connect_now(address: &Address, tls: Option<&Connector>) -> io::Result<Stream> {
    let (stream, host) = match address {
        Address::Tcp { host, port } => {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            socket2::SockRef::from(&tcp).set_tcp_keepalive(&super::keepalive())?;
            (Stream::from(tcp), host.as_str())
        }
        Address::Unix(path) => (Stream::from(UnixStream::connect(path).await?), "localhost"),
    };
    match tls {
        Some(connector) => Box::pin(connector.connect(host, stream)).await,
        None => Ok(stream),
    }
}
