//! Connecting to a server.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{sleep, timeout};

use super::stream::Stream;
use super::tls::Connector;
use crate::ids::Address;

/// The head start of each address of a name before the next one is tried beside it (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Connects to `address`, TLS handshake included, within `time_max`.
///
/// A host name is resolved by the system. Its addresses are tried in turns of the two families, each begun when the
/// one before has failed or has had its head start (RFC 8305), so that one that swallows packets costs little.
pub async fn connect(address: &Address, tls: Option<&Connector>, time_max: Duration) -> io::Result<Stream> {
    connect_saying(address, &[], tls, time_max).await
}

/// As [`connect`], with bytes that go before everything else, TLS included: a PROXY header.
pub async fn connect_saying(
    address: &Address,
    first: &[u8],
    tls: Option<&Connector>,
    time_max: Duration,
) -> io::Result<Stream> {
    timeout(time_max, connect_now(address, first, tls)).await.map_err(|_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{address} did not answer within {time_max:?}"))
    })?
}

async fn connect_any(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<TcpStream> {
    first_of(in_turns(addresses), TcpStream::connect).await
}

/// The addresses by turns of the families, the first one's family first.
fn in_turns(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.collect();
    let leads = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == leads);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut turns = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) => return turns,
            (one, other) => turns.extend(one.into_iter().chain(other)),
        }
    }
}

/// The first attempt that succeeds; the others are dropped. The last error if none does.
async fn first_of<T, F, C>(addresses: Vec<SocketAddr>, connect: C) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
    C: Fn(SocketAddr) -> F,
{
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => attempts.push(connect(address)),
            None if attempts.is_empty() => return Err(last),
            None => (),
        }
        let may_wait = waiting.len() == 0;
        tokio::select! {
            Some(result) = attempts.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            },
            () = sleep(HEAD_START), if !may_wait => (),
        }
    }
}

async fn connect_now(address: &Address, first: &[u8], tls: Option<&Connector>) -> io::Result<Stream> {
    let (mut stream, host) = match address {
        Address::Tcp { host, port } => {
            let tcp = connect_any(lookup_host((host.as_str(), *port)).await?).await?;
            tcp.set_nodelay(true)?;
            socket2::SockRef::from(&tcp).set_tcp_keepalive(&super::keepalive())?;
            (Stream::from(tcp), host.as_str())
        }
        Address::Unix(path) => (Stream::from(UnixStream::connect(path).await?), "localhost"),
    };
    if !first.is_empty() {
        stream.send(&mut { first }).await?;
    }
    match tls {
        Some(connector) => Box::pin(connector.connect(host, stream)).await,
        None => Ok(stream),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    fn addresses(hosts: &[&str]) -> Vec<SocketAddr> {
        hosts.iter().map(|host| SocketAddr::new(host.parse().unwrap(), 1)).collect()
    }

    /// `10.0.0.x` swallows packets, `10.1.x.x` refuses, others accept.
    async fn dial(address: SocketAddr) -> io::Result<SocketAddr> {
        let host = address.ip().to_string();
        match host {
            silent if silent.starts_with("10.0.") => pending().await,
            refusing if refusing.starts_with("10.1.") => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(address),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_swallows_packets_costs_its_head_start() {
        let begun = Instant::now();
        let found = first_of(addresses(&["10.0.0.1", "10.0.0.2", "192.0.2.1"]), dial).await.unwrap();
        assert_eq!((found, begun.elapsed()), (addresses(&["192.0.2.1"])[0], HEAD_START * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing() {
        let begun = Instant::now();
        let found = first_of(addresses(&["10.1.0.1", "192.0.2.1"]), dial).await.unwrap();
        assert_eq!((found, begun.elapsed()), (addresses(&["192.0.2.1"])[0], Duration::ZERO));
        let none = first_of(addresses(&["10.1.0.1", "10.1.0.2"]), dial).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first_of(Vec::new(), dial).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_families_take_turns() {
        let listed = addresses(&["::1", "::2", "::3", "10.0.0.1"]);
        assert_eq!(in_turns(listed.into_iter()), addresses(&["::1", "10.0.0.1", "::2", "::3"]));
    }
}
