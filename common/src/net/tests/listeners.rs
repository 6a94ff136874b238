//! Accepting, counting, reloading, draining.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use tempfile::tempdir;

use super::*;

fn unix(path: &std::path::Path) -> config::Listener {
    config::Listener::new(Address::Unix(path.to_owned()))
}

#[tokio::test]
async fn connections_go_to_the_worker_with_the_fewest() {
    let world = World::per_core(4);
    let address = world.listen_tcp(|_| {});
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut one = client(&address).await;
        ping(&mut one).await;
        clients.push(one);
    }
    assert_eq!(world.listeners.connections_by_worker(), [2, 2, 2, 2]);
    assert_eq!(*world.echo.workers.lock(), BTreeSet::from([0, 1, 2, 3]));

    // Whoever lost some gets the next.
    let mut gone = clients.remove(5);
    gone.finish().await;
    gone.expect_end().await;
    world.connections_become(7).await;
    let mut next = client(&address).await;
    ping(&mut next).await;
    assert_eq!(world.listeners.connections_by_worker(), [2, 2, 2, 2]);
}

#[tokio::test]
async fn a_panic_in_one_session_is_no_other_sessions() {
    struct Fragile;
    impl LocalService for Fragile {
        async fn serve(self: Rc<Self>, mut conn: Downstream) {
            let mut buf = BytesMut::new();
            while conn.stream.fill(&mut buf).await.is_ok_and(|read| read > 0) {
                assert!(!buf.starts_with(b"boom"), "as the test wants it");
                conn.stream.send(&mut buf).await.unwrap();
            }
        }
    }
    let world = World::of(Service::per_core(|_| Rc::new(Fragile)), Arc::default(), 1);
    let address = world.listen_tcp(|_| {});
    let (mut one, mut other) = (client(&address).await, client(&address).await);
    ping(&mut one).await;
    other.send("boom").await;
    other.expect_end().await;
    ping(&mut one).await;
    ping(&mut client(&address).await).await;
    // The one that died is no longer counted.
    world.connections_become(1).await;
}

#[tokio::test]
async fn one_client_too_many_is_told_so_and_the_next_finds_room_again() {
    let world = World::shared();
    let address = world.listen_tcp(|listener| listener.max_connections = Some(2));
    let (mut first, mut second) = (client(&address).await, client(&address).await);
    ping(&mut first).await;
    ping(&mut second).await;
    let mut third = client(&address).await;
    third.expect("full").await;
    third.expect_end().await;
    assert_eq!(world.listeners.status()[0].refused, 1);

    drop(second);
    world.connections_become(1).await;
    ping(&mut client(&address).await).await;
    ping(&mut first).await;
}

/// Never done with telling that there is no room.
struct Slow;

impl SharedService for Slow {
    async fn serve(self: Arc<Self>, conn: Downstream) {
        Echo::default().echo(conn).await;
    }

    async fn refuse(self: Arc<Self>, mut conn: Downstream) {
        conn.stream.send(&mut &b"full"[..]).await.unwrap();
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn clients_that_are_told_there_is_no_room_take_none() {
    let world = World::of(Service::shared(Arc::new(Slow)), Arc::default(), 0);
    let address = world.listen_tcp(|listener| listener.max_connections = Some(1));
    let mut first = client(&address).await;
    ping(&mut first).await;
    let mut second = client(&address).await;
    second.expect("full").await;
    first.finish().await;
    first.expect_end().await;
    ping(&mut client(&address).await).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_that_there_is_no_room_has_a_second_to_hear_it() {
    let world = World::of(Service::shared(Arc::new(Slow)), Arc::default(), 0);
    let address = world.listen_tcp(|listener| listener.max_connections = Some(0));
    let mut late = client(&address).await;
    late.expect("full").await;
    let told = tokio::time::Instant::now();
    late.expect_end().await;
    assert_eq!(told.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn an_address_that_overlaps_with_one_that_leaves_takes_its_place_at_once() {
    let world = World::shared();
    let before = world.listen_tcp(|_| {});
    let Address::Tcp { port, .. } = before else { panic!("{before}") };
    let (narrow, wide) = (Address::tcp("127.0.0.1", port), Address::tcp("0.0.0.0", port));
    let mut stays = client(&before).await;
    ping(&mut stays).await;
    for next in [&wide, &narrow, &wide] {
        let listener = config::Listener::new(next.clone());
        let change = world.listeners.prepare(std::slice::from_ref(&listener)).unwrap();
        let mut early = client(&narrow).await;
        world.listeners.apply(change, PATIENCE);
        // It was let in by one or the other.
        early.send("ping").await;
        soon(async {
            while world.listeners.status().iter().any(|listener| listener.leaving) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let mut late = client(&narrow).await;
        ping(&mut late).await;
        assert!(std::net::TcpListener::bind(("0.0.0.0", port)).is_err(), "the port is nobody else's");
    }
    stays.expect("bye").await;
    // Beside one that stays there is no room, and nothing has changed.
    let both = [config::Listener::new(wide), config::Listener::new(narrow.clone())];
    assert!(world.listeners.prepare(&both).is_err());
    ping(&mut client(&narrow).await).await;
}

#[tokio::test]
async fn a_unix_socket_has_its_mode_and_leaves_nothing_behind() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let world = World::shared();
    let mut listener = unix(&path);
    listener.mode = Some(config::Mode(0o622));
    let address = world.listen(&[listener]).remove(0);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o622);
    let mut client = client(&address).await;
    ping(&mut client).await;
    assert_eq!(world.echo.met.lock()[0].0, Peer::Unix);

    world.listeners.drain();
    client.expect("bye").await;
    soon(async {
        while path.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_socket_file_that_another_has_put_in_its_place_stays() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("echo.sock");
    let world = World::shared();
    world.listen(&[unix(&path)]);
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    world.listeners.drain();
    soon(world.listeners.ended()).await;
    assert!(path.exists());
}

#[tokio::test]
async fn a_socket_file_is_taken_over_only_if_nobody_answers_on_it() {
    let folder = tempdir().unwrap();
    let (stale, live, other) =
        (folder.path().join("stale"), folder.path().join("live"), folder.path().join("file"));
    drop(UnixListener::bind(&stale).unwrap());
    let _live = UnixListener::bind(&live).unwrap();
    fs::write(&other, "precious").unwrap();

    let world = World::shared();
    let address = world.listen(&[unix(&stale)]).remove(0);
    ping(&mut client(&address).await).await;

    let errors = world.listeners.prepare(&[unix(&live), unix(&other)]).err().unwrap();
    let said: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert!(said[0].contains("another process listens here"), "{}", said[0]);
    assert!(said[1].contains("a file that is not a socket is here"), "{}", said[1]);
    assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
}

#[tokio::test]
async fn a_reload_keeps_adds_and_removes() {
    let folder = tempdir().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| unix(&folder.path().join(name)));
    let world = World::shared();
    world.listen(&[a.clone(), b.clone()]);
    let (mut at_a, mut at_b) = (client(&a.address).await, client(&b.address).await);
    ping(&mut at_a).await;
    ping(&mut at_b).await;

    let mut renamed = a.clone();
    renamed.max_connections = Some(1);
    world.listen(&[renamed, c.clone()]);
    at_b.expect("bye").await;
    at_b.expect_end().await;
    ping(&mut at_a).await;
    ping(&mut client(&c.address).await).await;
    // What stayed has its new settings: the one place is taken.
    client(&a.address).await.expect("full").await;
    world.refuses(&b.address).await;
    soon(async {
        // What was taken away is shown until it has ended, and no longer.
        while world.listeners.status().iter().any(|listener| listener.leaving) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reload_keeps_two_listeners_that_let_the_system_choose_their_ports() {
    let world = World::shared();
    let before = world.listen(&[tcp(), tcp()]);
    assert_eq!(world.listen(&[tcp(), tcp()]), before);
    for address in &before {
        ping(&mut client(address).await).await;
    }
}

#[tokio::test]
async fn a_reload_that_cannot_be_changes_nothing() {
    let folder = tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let [kept, fresh] = ["kept", "fresh"].map(|name| unix(&folder.path().join(name)));
    let world = World::shared();
    world.listen(std::slice::from_ref(&kept));
    let mut client = client(&kept.address).await;
    ping(&mut client).await;

    let impossible = config::Listener::new(Address::tcp("127.0.0.1", port));
    let errors = world.listeners.prepare(&[fresh.clone(), impossible]).err().unwrap();
    assert_eq!(errors.len(), 1);
    assert!(errors[0].to_string().contains(&format!("127.0.0.1:{port}")), "{}", errors[0]);
    ping(&mut client).await;
    ping(&mut super::client(&kept.address).await).await;
    assert!(!folder.path().join("fresh").exists(), "what had been bound is let go");
}

#[tokio::test]
async fn a_drain_says_goodbye_to_the_idle_and_waits_for_the_busy() {
    let world = World::shared();
    let address = world.listen_tcp(|_| {});
    let (mut idle, mut busy) = (client(&address).await, client(&address).await);
    ping(&mut idle).await;
    ping(&mut busy).await;
    busy.send("hang").await;
    busy.expect("begun").await;
    world.listeners.drain();
    idle.expect("bye").await;
    idle.expect_end().await;
    world.connections_become(1).await;
    world.refuses(&address).await;

    world.listeners.cut();
    busy.expect_end().await;
    soon(world.listeners.ended()).await;
}

/// The kernel has accepted for us by the time a drain begins: such a client must not be reset.
#[tokio::test]
async fn a_client_that_waits_when_the_drain_begins_is_still_served() {
    let world = World::shared();
    let address = world.listen_tcp(|_| {});
    // Nothing else runs on this thread between the connect, which blocks, and the drain.
    let Address::Tcp { port, .. } = &address else { panic!("{address}") };
    let waiting = std::net::TcpStream::connect(("127.0.0.1", *port)).unwrap();
    waiting.set_nonblocking(true).unwrap();
    world.listeners.drain();
    let mut waiting = ScriptedPeer::new(tokio::net::TcpStream::from_std(waiting).unwrap());
    // Nor may the drain be over before it has been.
    soon(world.listeners.ended()).await;
    assert_eq!(world.echo.served.load(Ordering::SeqCst), 1);
    waiting.expect("bye").await;
}

#[tokio::test]
async fn what_is_counted_can_be_read() {
    let world = World::shared();
    let address = world.listen_tcp(|listener| listener.name = Some("front".to_owned()));
    let mut one = client(&address).await;
    ping(&mut one).await;
    ping(&mut client(&address).await).await;
    let text = world.registry.render().unwrap();
    assert!(text.contains("groove_connections_accepted_total{listener=\"front\"} 2\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn sessions_of_a_removed_listener_are_cut_after_a_while() {
    let folder = tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| unix(&folder.path().join(name)));
    let world = World::shared();
    world.listen(std::slice::from_ref(&a));
    let mut busy = client(&a.address).await;
    busy.send("hang").await;
    busy.expect("begun").await;
    let change = world.listeners.prepare(&[b]).unwrap();
    let before = tokio::time::Instant::now();
    world.listeners.apply(change, Duration::from_secs(7));
    busy.expect_end().await;
    assert_eq!(before.elapsed().as_secs(), 7);
}

#[tokio::test]
async fn a_service_that_cannot_be_made_fails_the_start() {
    let service = Service::per_core(|id| -> Rc<OnCore> {
        panic!("worker {} has no service, as the test wants it", id.0)
    });
    let made = Listeners::new(service, 2, Handle::current(), Registry::new(2));
    assert!(made.is_err());
}

/// A service may take a connection apart: it is counted, and waited for in a drain, until it has been served.
#[tokio::test]
async fn a_connection_is_counted_while_it_is_served_whatever_the_service_keeps_of_it() {
    struct Keeper;
    impl SharedService for Keeper {
        async fn serve(self: Arc<Self>, conn: Downstream) {
            let Downstream { mut stream, .. } = conn;
            let mut buf = BytesMut::new();
            while stream.fill(&mut buf).await.is_ok_and(|read| read > 0) {
                stream.send(&mut buf).await.unwrap();
            }
        }
    }
    let world = World::of(Service::shared(Arc::new(Keeper)), Arc::default(), 0);
    let address = world.listen_tcp(|_| {});
    let mut client = client(&address).await;
    ping(&mut client).await;
    assert_eq!(world.listeners.connections(), 1);
    client.finish().await;
    world.connections_become(0).await;
}
