//! Sessions that change from one worker to another while clients talk to them.

use super::tls::{Pki, dial};
use super::*;

/// Answers each line with the worker it is on, and moves when it is told to.
struct Roamer;

impl SharedService for Roamer {
    async fn serve(self: Arc<Self>, mut conn: Downstream) {
        let (mut buf, mut round) = (BytesMut::new(), 0);
        while conn.stream.fill(&mut buf).await.is_ok_and(|read| read > 0) {
            if let Some(to) = due(&mut round) {
                go_on_at(to, &mut conn.stream).await.unwrap();
            }
            let worker = here().map_or(9, |worker| worker.0);
            buf.extend_from_slice(format!("{worker}\n").as_bytes());
            conn.stream.send(&mut buf).await.unwrap();
        }
    }
}

/// The worker that a client is served by, by its own word.
async fn asks(client: &mut ScriptedPeer) -> String {
    client.send("on ").await;
    client.expect("on ").await;
    String::from_utf8(client.expect_until("\n").await.to_vec()).unwrap()
}

/// Moves every client there and back, at an instant when it has asked for something.
async fn wander(world: &World, mut clients: Vec<ScriptedPeer>) {
    let gathering = Arc::clone(world.listeners.workers.gathering.as_ref().unwrap());
    let count = clients.len();
    for client in &mut clients {
        assert_eq!(asks(client).await, "0\n");
    }
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        gathering.order(from, 1, to);
        let (first, others) = clients.split_first_mut().unwrap();
        assert_eq!(asks(first).await, format!("{to}\n"), "the first moves");
        for other in &mut *others {
            assert_eq!(asks(other).await, format!("{from}\n"), "and no other");
        }
        gathering.order(from, u32::MAX, to);
        for client in &mut clients {
            assert_eq!(asks(client).await, format!("{to}\n"), "then all do");
        }
        let mut open = [0, 0];
        open[to] = count;
        assert_eq!(world.listeners.connections_by_worker(), open);
    }
    drop(clients);
    world.connections_become(0).await;
    assert_eq!(world.listeners.connections_by_worker(), [0, 0]);
}

fn world(service: Service) -> World {
    let (registry, runtime) = (Registry::new(2), Handle::current());
    let workers = Workers::unwatched(&service, 2).unwrap();
    let listeners = Listeners::with(workers, service, runtime, Arc::clone(&registry));
    World { echo: Arc::default(), listeners, registry }
}

#[tokio::test]
async fn sessions_move_and_their_clients_do_not_notice() {
    let world = world(Service::shared(Arc::new(Roamer)));
    let address = world.listen_tcp(|_| {});
    let clients = futures_util::future::join_all((0..5).map(|_| client(&address))).await;
    wander(&world, clients).await;
}

#[tokio::test]
async fn so_do_those_with_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let world = world(Service::shared(Arc::new(Roamer)));
    let address = Address::Unix(folder.path().join("socket"));
    let address = world.listen(&[config::Listener::new(address)]).remove(0);
    let clients = futures_util::future::join_all((0..5).map(|_| client(&address))).await;
    wander(&world, clients).await;
}

#[tokio::test]
async fn so_do_those_with_tls() {
    let pki = Pki::new();
    let world = world(Service::shared(Arc::new(Roamer)));
    let address = world.listen_tcp(|listener| listener.tls = Some(pki.server("db.test")));
    let tls = pki.client();
    let clients = futures_util::future::join_all((0..5).map(|_| dial(&address, &tls))).await;
    wander(&world, clients.into_iter().map(Result::unwrap).collect()).await;
}

/// What a client asks for while its session is on the way is not lost, and a drain reaches it where it is.
#[tokio::test]
async fn many_move_at_once_and_a_cut_finds_them() {
    let world = world(Service::shared(Arc::new(Roamer)));
    let address = world.listen_tcp(|_| {});
    let gathering = Arc::clone(world.listeners.workers.gathering.as_ref().unwrap());
    let talks = (0..50).map(|_| {
        let address = address.clone();
        tokio::spawn(async move {
            let mut client = client(&address).await;
            for _ in 0..200 {
                asks(&mut client).await;
            }
            client
        })
    });
    let talks: Vec<_> = talks.collect();
    for turn in 0..100 {
        gathering.order(turn % 2, u32::MAX, (turn + 1) % 2);
        tokio::task::yield_now().await;
    }
    gathering.order(0, u32::MAX, 1);
    let mut clients = Vec::new();
    for talk in talks {
        let mut client = talk.await.unwrap();
        assert_eq!(asks(&mut client).await, "1\n");
        clients.push(client);
    }
    world.listeners.drain();
    world.listeners.cut();
    for client in &mut clients {
        client.expect_end().await;
    }
    world.connections_become(0).await;
}
