//! PROXY headers on real sockets.

use super::*;

fn trusting(network: &str) -> impl FnOnce(&mut config::Listener) {
    let trusted = vec![network.parse().unwrap()];
    move |listener| listener.proxy_protocol = Some(config::ProxyProtocol { trusted })
}

const HEADER: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n";

#[tokio::test]
async fn the_header_names_the_client_and_what_follows_is_untouched() {
    let world = World::shared();
    let address = world.listen_tcp(trusting("127.0.0.0/8"));
    let mut client = client(&address).await;
    client.send(format!("{HEADER}hello")).await;
    client.expect("hello").await;
    ping(&mut client).await;
    assert_eq!(world.echo.met.lock()[0].0, Peer::Ip("192.0.2.7:12345".parse().unwrap()));
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let world = World::shared();
    let address = world.listen_tcp(trusting("127.0.0.0/8"));
    let mut client = client(&address).await;
    let (start, end) = HEADER.split_at(17);
    client.send(start).await;
    // The session has taken the first piece when nothing is left to do but wait.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    client.send(end).await;
    ping(&mut client).await;
    assert_eq!(world.echo.met.lock()[0].0, Peer::Ip("192.0.2.7:12345".parse().unwrap()));
}

#[tokio::test]
async fn the_load_balancers_own_connection_is_its_own() {
    let world = World::shared();
    let address = world.listen_tcp(trusting("127.0.0.0/8"));
    let mut client = client(&address).await;
    client.send(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").await;
    ping(&mut client).await;
    assert!(world.echo.met.lock()[0].0.is_local());
}

#[tokio::test]
async fn a_header_longer_than_a_look_is_read_whole() {
    let world = World::shared();
    let address = world.listen_tcp(trusting("127.0.0.0/8"));
    let mut client = client(&address).await;
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend(3012_u16.to_be_bytes());
    header.extend([192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80]);
    header.extend([0xea; 3000]);
    header.extend(b"after");
    client.send(header).await;
    client.expect("after").await;
    assert_eq!(world.echo.met.lock()[0].0, Peer::Ip("192.0.2.7:12345".parse().unwrap()));
}

#[tokio::test]
async fn strangers_and_the_headless_are_shown_the_door() {
    let world = World::shared();
    let untrusting = world.listen_tcp(trusting("192.0.2.0/24"));
    let mut stranger = client(&untrusting).await;
    stranger.send(HEADER).await;
    stranger.expect_end().await;

    let world = World::shared();
    let address = world.listen_tcp(trusting("127.0.0.0/8"));
    let mut headless = client(&address).await;
    headless.send("GET / HTTP/1.1\r\n").await;
    headless.expect_end().await;
    world.connections_become(0).await;
    assert_eq!(world.listeners.status()[0].failed, 1);
    assert_eq!(world.echo.served.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_header_that_does_not_come_is_not_waited_for_long() {
    let world = World::shared();
    let address = world.listen_tcp(trusting("127.0.0.0/8"));
    let before = tokio::time::Instant::now();
    let mut silent = client(&address).await;
    silent.expect_end().await;
    assert_eq!(before.elapsed().as_secs(), 5);
}
