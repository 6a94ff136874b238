//! Unix sockets, TLS, the PROXY protocol, and what happens when there are too many.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use harness::{Authority, Kind, certs::Issued, eventually, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::block_on;
use crate::subject::{Server, before, exchange, exchange_at, is_refused, open};

crate::for_each_proxy!(
    a_unix_socket_has_its_mode_and_serves,
    tls_serves_and_takes_a_new_certificate,
    clients_must_show_a_certificate,
    the_proxy_protocol_is_taken_from_trusted_networks,
    connections_over_the_cap_are_closed,
    running_out_of_descriptors_is_survived,
);

fn a_unix_socket_has_its_mode_and_serves(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let listeners = "{address: $LISTEN}, {address: \"unix:$DIR/app.sock\", mode: \"0660\"}";
    let proxy = before(kind, &server, listeners).start()?;
    let socket = proxy.folder().join("app.sock");
    assert_eq!(std::fs::metadata(&socket)?.permissions().mode() & 0o777, 0o660);
    block_on(async { exchange(kind, UnixStream::connect(&socket).await?).await })
}

/// Asks for TLS in the protocol's way and shakes hands.
async fn shake_hands(
    kind: Kind,
    address: SocketAddr,
    authority: &Authority,
    identity: Option<&Issued>,
) -> Result<TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    if kind == Kind::Postgres {
        // SSLRequest (protocol page "Message Formats"): its length and its code.
        stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
        ensure!(stream.read_u8().await? == b'S', "TLS was refused");
    }
    tls::connect(stream, "localhost", &authority.certificate(), identity).await
}

const TLS: &str = "{address: $LISTEN, tls: {certificate: $DIR/server.pem, key: $DIR/server.key}}";

fn tls_serves_and_takes_a_new_certificate(kind: Kind) -> Result<()> {
    let (server, folder) = (Server::start(kind)?, tempfile::tempdir()?);
    let authority = Authority::new(folder.path())?;
    authority.issue("server", &["localhost"])?;
    let proxy = before(kind, &server, TLS).folder(folder).start()?;
    let shown = || {
        block_on(async {
            let stream = shake_hands(kind, proxy.address(), &authority, None).await?;
            let shown = tls::certificate_of(&stream);
            exchange(kind, stream).await?;
            anyhow::Ok(shown)
        })
    };
    let first = shown()?;
    authority.issue("server", &["localhost"])?;
    eventually("the new certificate", || shown().ok().filter(|now| *now != first))?;
    Ok(())
}

fn clients_must_show_a_certificate(kind: Kind) -> Result<()> {
    let (server, folder) = (Server::start(kind)?, tempfile::tempdir()?);
    let authority = Authority::new(folder.path())?;
    authority.issue("server", &["localhost"])?;
    let client = authority.issue("client", &["app"])?;
    let listener = TLS.replace("server.key}", "server.key, client_ca: $DIR/ca.pem}");
    let proxy = before(kind, &server, &listener).folder(folder).start()?;
    block_on(async {
        let known = shake_hands(kind, proxy.address(), &authority, Some(&client)).await?;
        exchange(kind, known).await.context("with a certificate")?;
        // TLS 1.3 tells the refusal with the first read.
        if let Ok(unknown) = shake_hands(kind, proxy.address(), &authority, None).await {
            ensure!(exchange(kind, unknown).await.is_err(), "served without a certificate");
        }
        Ok(())
    })
}

fn the_proxy_protocol_is_taken_from_trusted_networks(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let listeners = "{address: $LISTEN, proxy_protocol: {trusted: [127.0.0.0/8]}}, \
                     {address: $STRICT, proxy_protocol: {trusted: [192.0.2.0/24]}}";
    let proxy = before(kind, &server, listeners).port("STRICT").start()?;
    let version_one = b"PROXY TCP4 203.0.113.7 127.0.0.1 40000 80\r\n".to_vec();
    let mut version_two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    version_two.extend_from_slice(&[203, 0, 113, 7, 127, 0, 0, 1, 0x9c, 0x40, 0, 80]);
    block_on(async {
        for header in [&version_one, &version_two] {
            let mut stream = TcpStream::connect(proxy.address()).await?;
            stream.write_all(header).await?;
            exchange(kind, stream).await?;

            let mut stream = TcpStream::connect(proxy.at("STRICT")).await?;
            stream.write_all(header).await?;
            ensure!(exchange(kind, stream).await.is_err(), "a header was taken from an unknown network");
        }
        ensure!(is_refused(kind, proxy.address()).await, "served without the header");
        Ok(())
    })
}

fn connections_over_the_cap_are_closed(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let proxy = before(kind, &server, "{address: $LISTEN, max_connections: 2}").start()?;
    block_on(async {
        let first = open(kind, proxy.address()).await?;
        let _second = open(kind, proxy.address()).await?;
        ensure!(is_refused(kind, proxy.address()).await, "a third was let in");
        drop(first);
        anyhow::Ok(())
    })?;
    eventually("room again", || block_on(exchange_at(kind, proxy.address())).ok())
}

fn running_out_of_descriptors_is_survived(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let proxy = before(kind, &server, "{address: $LISTEN}").open_files_max(96).start()?;
    let crowd: Vec<std::net::TcpStream> =
        (0..200).map(|_| std::net::TcpStream::connect(proxy.address())).collect::<Result<_, _>>()?;
    eventually("the limit", || proxy.usage().ok().filter(|usage| usage.descriptors >= 90))?;
    drop(crowd);
    eventually("service again", || block_on(exchange_at(kind, proxy.address())).ok())
}
