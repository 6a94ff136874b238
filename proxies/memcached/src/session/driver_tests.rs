//! Sessions between clients and servers that follow a script.

use groove_common::balance::jump;
use groove_common::testing::ScriptedPeer;
use tokio::task::yield_now;
use xxhash_rust::xxh3::xxh3_64;

use crate::resize::Phase;
use crate::tenant::key::{Head, ROOM};
use crate::testing::{Scene, run, settle};

/// A key of each server of two.
fn keys() -> [String; 2] {
    [0, 1].map(|slot| {
        (0..).map(|n| format!("k{n}")).find(|key| jump(xxh3_64(key.as_bytes()), 2) == Some(slot)).unwrap()
    })
}

#[test]
fn a_session_sends_nothing_elsewhere_before_it_has_its_answers() {
    run(async {
        let scene = Scene::new(2, "");
        let agreement = scene.agreement();
        agreement.publish(scene.plain(1, &[0]));
        settle().await;
        let mut client = scene.client();
        client.send("set a 0 0 1\r\n1\r\n").await;
        let mut old = scene.accept(0).await;
        old.expect("ms a 1\r\n1\r\n").await;
        // The key goes to another server, and the client does not wait.
        agreement.publish(scene.plain(2, &[1]));
        settle().await;
        client.send("get a\r\nset a 0 0 1\r\n2\r\n").await;
        settle().await;
        assert!(scene.nobody_dialled(1));
        // The fence of the worker's own.
        old.expect("mn\r\n").await;
        old.send("HD\r\nMN\r\n").await;
        client.expect("STORED\r\n").await;
        let mut new = scene.accept(1).await;
        new.expect("mg a k f v\r\nms a 1\r\n2\r\n").await;
        new.send("EN\r\nHD\r\n").await;
        client.expect("END\r\nSTORED\r\n").await;
    });
}

#[test]
fn other_clients_do_not_wait() {
    run(async {
        let scene = Scene::new(2, "");
        let agreement = scene.agreement();
        let [first, second] = keys();
        agreement.publish(scene.plain(1, &[0, 1]));
        settle().await;
        let (mut one, mut two) = (scene.client(), scene.client());
        one.send(format!("get {first}\r\n")).await;
        let mut server = scene.accept(0).await;
        server.expect(format!("mg {first} k f v\r\n")).await;
        agreement.publish(scene.plain(2, &[1, 0]));
        settle().await;
        two.send(format!("get {second}\r\n")).await;
        server.expect(format!("mn\r\nmg {second} k f v\r\n")).await;
        server.send("EN\r\nMN\r\nEN\r\n").await;
        one.expect("END\r\n").await;
        two.expect("END\r\n").await;
    });
}

#[test]
fn a_token_of_another_life_of_the_server_is_no_good() {
    run(async {
        let scene = Scene::new(1, "");
        let mut client = scene.client();
        client.send("gets a\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("mg a k f c v\r\n").await;
        server.send("VA 1 ka f0 c7\r\nx\r\n").await;
        let line = client.expect_until("\r\n").await;
        client.expect("x\r\nEND\r\n").await;
        let token = String::from_utf8(line.to_vec()).unwrap();
        let token = token.trim_end().rsplit(' ').next().unwrap().to_owned();
        assert!(token.parse::<u64>().unwrap() > 1 << 46, "{token}");
        client.send(format!("cas a 0 0 1 {token}\r\ny\r\n")).await;
        server.expect("ms a 1 C7\r\ny\r\n").await;
        server.send("HD\r\n").await;
        client.expect("STORED\r\n").await;
        drop(server);
        settle().await;
        // The session waits for who answers before it sends the token, and what comes after that behind it.
        client.send(format!("cas a 0 0 1 {token}\r\nz\r\nget a\r\n")).await;
        let mut server = scene.accept_as(0, 99).await;
        server.expect(format!("ms a 1 C{}\r\nz\r\nmg a k f v\r\n", u64::MAX)).await;
        server.send("EX\r\nEN\r\n").await;
        client.expect("EXISTS\r\nEND\r\n").await;
    });
}

#[test]
fn keys_of_one_get_are_one_question_a_server_and_one_answer() {
    run(async {
        let scene = Scene::new(2, "");
        let agreement = scene.agreement();
        let [first, second] = keys();
        agreement.publish(scene.plain(1, &[0, 1]));
        settle().await;
        let mut client = scene.client();
        client.send(format!("get {first} {second}  {first}\r\nget {first}\r\n")).await;
        let (mut one, mut two) = (scene.accept(0).await, scene.accept(1).await);
        one.expect(format!("get {first} {first}\r\nmg {first} k f v\r\n")).await;
        two.expect(format!("get {second}\r\n")).await;
        one.send(format!("VALUE {first} 7 1\r\nx\r\nVALUE {first} 7 1\r\nx\r\nEND\r\nEN\r\n")).await;
        settle().await;
        two.send("END\r\n").await;
        let value = format!("VALUE {first} 7 1\r\nx\r\n");
        client.expect(format!("{value}{value}END\r\nEND\r\n")).await;
    });
}

#[test]
fn a_tenants_keys_of_one_get_are_one_question_within_its_bounds() {
    run(async {
        let scene = Scene::new(1, "tenants: {shop: {limits: {in_flight: 2}}}\ndefault_tenant: shop\n");
        let mut client = scene.client();
        // Five keys are as much as two requests.
        client.send("get a b c d a\r\nget e\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("get shop/0:a shop/0:b shop/0:c shop/0:d shop/0:a\r\n").await;
        settle().await;
        assert!(server.is_silent());
        server.send("VALUE shop/0:a 7 1\r\nx\r\nVALUE shop/0:a 7 1\r\nx\r\nEND\r\n").await;
        server.expect("mg shop/0:e k f v\r\n").await;
        client.expect("VALUE a 7 1\r\nx\r\nVALUE a 7 1\r\nx\r\nEND\r\n").await;
        client.send("get f g\r\nget h\r\n").await;
        server.expect("get shop/0:f shop/0:g\r\n").await;
        settle().await;
        assert!(server.is_silent());
        server.send("EN\r\nEND\r\n").await;
        server.expect("mg shop/0:h k f v\r\n").await;
        server.send("EN\r\n").await;
        client.expect("END\r\nEND\r\nEND\r\n").await;
        client.send("get a b c d\r\nget e\r\n").await;
        server.expect("get shop/0:a shop/0:b shop/0:c shop/0:d\r\nmg shop/0:e k f v\r\n").await;
        server.send("END\r\nEN\r\n").await;
        client.expect("END\r\nEND\r\n").await;
    });
}

#[test]
fn a_key_that_has_to_be_hashed_is_asked_for_by_itself_among_a_tenants_others() {
    run(async {
        let scene = Scene::new(1, "tenants: {shop: {}}\ndefault_tenant: shop\n");
        let (mut client, long, mut room) = (scene.client(), "k".repeat(250), ROOM);
        let hashed = Head::new("shop", 0).map(long.as_bytes(), &mut room).key;
        let hashed = std::str::from_utf8(hashed).unwrap();
        client.send(format!("get a b {long} c d\r\n")).await;
        let mut server = scene.accept(0).await;
        server
            .expect(format!("get shop/0:a shop/0:b\r\nmg {hashed} k f v\r\nget shop/0:c shop/0:d\r\n"))
            .await;
        server.send("VALUE shop/0:a 0 1\r\nx\r\nEND\r\n").await;
        server.send(format!("VA 1 k{hashed} f0\r\ny\r\n")).await;
        server.send("VALUE shop/0:d 0 1\r\nz\r\nEND\r\n").await;
        client
            .expect(format!("VALUE a 0 1\r\nx\r\nVALUE {long} 0 1\r\ny\r\nVALUE d 0 1\r\nz\r\nEND\r\n"))
            .await;
    });
}

/// A quiet tenant's client that has asked once, and six of another that have four requests on their way, which is half
/// of the window, and two in line.
async fn crowd() -> (Scene, ScriptedPeer, Vec<ScriptedPeer>, ScriptedPeer) {
    let tenant = |name: &str| format!("{name}: {{credentials: [{{user: {name}, password: secret}}]}}");
    let (news, shop) = (tenant("news"), tenant("shop"));
    let scene = Scene::new(1, &format!("tenants: {{{news}, {shop}}}\nfairness: {{window: 8}}\n"));
    let client = async |name: &str| {
        let mut client = scene.client();
        client.send(format!("set auth 0 0 11\r\n{name} secret\r\n")).await;
        client.expect("STORED\r\n").await;
        client
    };
    let mut quiet = client("shop").await;
    quiet.send("get q\r\n").await;
    let mut server = scene.accept(0).await;
    server.expect("mg shop/0:q k f v\r\n").await;
    server.send("EN\r\n").await;
    quiet.expect("END\r\n").await;
    let mut busy = Vec::new();
    for _ in 0..6 {
        busy.push(client("news").await);
    }
    for client in &mut busy {
        client.send("get b\r\n").await;
    }
    server.expect("mg news/0:b k f v\r\n".repeat(4)).await;
    settle().await;
    (scene, quiet, busy, server)
}

#[test]
fn answers_of_who_wants_more_than_its_part_come_after_others() {
    run(async {
        let (_scene, mut quiet, mut busy, mut server) = crowd().await;
        quiet.send("get q\r\n").await;
        server.expect("mg shop/0:q k f v\r\n").await;
        server.send("EN\r\n".repeat(5)).await;
        quiet.expect("END\r\n").await;
        assert!(
            busy[2].is_silent() && busy[3].is_silent(),
            "the worker has looked at its sockets once since"
        );
        server.expect("mg news/0:b k f v\r\n".repeat(2)).await;
        server.send("EN\r\n".repeat(2)).await;
        for client in &mut busy {
            client.expect("END\r\n").await;
        }
    });
}

#[test]
fn requests_of_who_wants_more_than_its_part_come_after_others() {
    // So often are the sockets looked at between an answer that makes room for one in line, and a quiet one's request:
    // that one has its turn, reads, and sends.
    let is_before = async |looks: usize| {
        let (_scene, mut quiet, _busy, mut server) = crowd().await;
        server.send("EN\r\n").await;
        for _ in 0..looks {
            yield_now().await;
        }
        quiet.send("get q\r\n").await;
        server.expect_until("\r\n").await.starts_with(b"mg shop/")
    };
    run(async {
        for looks in 0..=2 {
            assert!(is_before(looks).await, "{looks} looks after the answer");
        }
    });
}

#[test]
fn keys_that_fail_at_once_leave_their_tenant_its_room() {
    run(async {
        let scene = Scene::new(1, "tenants: {shop: {limits: {in_flight: 1}}}\ndefault_tenant: shop\n");
        let mut client = scene.client();
        client.send("get a b\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("get shop/0:a shop/0:b\r\n").await;
        drop(server);
        client.expect("SERVER_ERROR the connection to the server for this key broke\r\n").await;
        // It has not been dialled again.
        client.send("get a b\r\n").await;
        client.expect("SERVER_ERROR the server for this key is down\r\n").await;
        let mut server = scene.accept(0).await;
        client.send("get a b\r\n").await;
        server.expect("get shop/0:a shop/0:b\r\n").await;
        server.send("END\r\n").await;
        client.expect("END\r\n").await;
    });
}

#[test]
fn keys_that_cost_their_tenant_something_are_asked_for_one_by_one() {
    run(async {
        let limits = "{requests_per_second: 1000}";
        let scene =
            Scene::new(1, &format!("tenants: {{shop: {{limits: {limits}}}}}\ndefault_tenant: shop\n"));
        let mut client = scene.client();
        client.send("get a b\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("mg shop/0:a k f v\r\nmg shop/0:b k f v\r\n").await;
        server.send("EN\r\nEN\r\n").await;
        client.expect("END\r\n").await;
    });
}

#[test]
fn what_is_left_of_a_value_over_the_limit_is_no_part_of_the_next_answer() {
    run(async {
        let scene = Scene::new(1, "limits: {value: 1KiB}\n");
        let mut client = scene.client();
        client.send("get a\r\nget b c\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("mg a k f v\r\nget b c\r\n").await;
        let large = "VALUE b 0 1\r\nx\r\nEND\r\n".repeat(60);
        server.send(format!("VA {} ka f0\r\n{}", large.len(), &large[..1000])).await;
        settle().await;
        server.send(format!("{}\r\nVALUE c 0 1\r\ny\r\nEND\r\n", &large[1000..])).await;
        let heard = client.expect_until("\r\n").await;
        assert!(heard.starts_with(b"SERVER_ERROR "), "{heard:?}");
        client.expect("VALUE c 0 1\r\ny\r\nEND\r\n").await;
    });
}

#[test]
fn a_server_that_gives_another_keys_value_is_not_believed() {
    run(async {
        let scene = Scene::new(1, "");
        let mut client = scene.client();
        client.send("get a b\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("get a b\r\n").await;
        server.send("VALUE a 0 1\r\nx\r\nVALUE c 0 1\r\nx\r\nEND\r\n").await;
        let heard = client.expect_until("\r\n").await;
        assert!(heard.starts_with(b"SERVER_ERROR "), "{heard:?}");
    });
}

#[test]
fn a_client_that_does_not_read_gets_no_more_when_all_leave_too_much() {
    run(async {
        let scene = Scene::new(1, "");
        let value = "x".repeat(400_000);
        let (mut lazy, mut other) = (scene.client(), scene.client());
        lazy.send("get a\r\n").await;
        let mut server = scene.accept(0).await;
        server.expect("mg a k f v\r\n").await;
        server.send(format!("VA 400000 ka f0\r\n{value}\r\n")).await;
        settle().await;
        // As if others had left as much as may be.
        scene.worker.unread.change(0, 256 << 20);
        lazy.send("get b\r\n").await;
        settle().await;
        other.send("get c\r\n").await;
        server.expect("mg c k f v\r\n").await;
        server.send("EN\r\n").await;
        other.expect("END\r\n").await;
        lazy.expect(format!("VALUE a 0 400000\r\n{value}\r\nEND\r\n")).await;
        server.expect("mg b k f v\r\n").await;
        server.send("EN\r\n").await;
        lazy.expect("END\r\n").await;
        drop((lazy, other));
        settle().await;
        scene.worker.unread.change(256 << 20, 0);
        assert!(!scene.worker.unread.is_too_much());
    });
}

#[test]
fn who_found_a_connection_full_is_woken_when_there_is_room() {
    run(async {
        let scene = Scene::new(1, "");
        // As many requests as a connection takes, of clients that send as many as a new one may.
        let mut clients: Vec<_> = (0..64).map(|_| scene.client()).collect();
        for client in &mut clients {
            client.send("delete a\r\n".repeat(64)).await;
        }
        let mut server = scene.accept(0).await;
        for _ in 0..4096 {
            server.expect("md a\r\n").await;
        }
        let (mut late, mut later) = (scene.client(), scene.client());
        late.send("delete b\r\n").await;
        later.send("delete b\r\n").await;
        settle().await;
        server.send("HD\r\n").await;
        server.expect("md b\r\n").await;
        server.send("HD\r\n".repeat(4095)).await;
        server.expect("md b\r\n").await;
        server.send("NF\r\n".repeat(2)).await;
        late.expect("NOT_FOUND\r\n").await;
        later.expect("NOT_FOUND\r\n").await;
        for client in &mut clients {
            for _ in 0..64 {
                client.expect("DELETED\r\n").await;
            }
        }
    });
}

#[test]
fn copies_are_written_together_and_read_in_turn() {
    run(async {
        let scene = Scene::copied("{clusters: [copy]}");
        let mut client = scene.client();
        // Both requests for the key: the second waits for the first.
        client.send("set a 0 0 1\r\n1\r\nget a\r\n").await;
        let (mut main, mut copy) = tokio::join!(scene.accept(0), scene.accept(1));
        main.expect("ms a 1\r\n1\r\n").await;
        copy.expect("ms a 1\r\n1\r\n").await;
        main.send("HD\r\n").await;
        settle().await;
        copy.send("HD\r\n").await;
        client.expect("STORED\r\n").await;
        main.expect("mg a k f v\r\n").await;
        main.send("EN\r\n").await;
        copy.expect("mg a k f v\r\n").await;
        copy.send("VA 1 ka f0\r\n1\r\n").await;
        client.expect("VALUE a 0 1\r\n1\r\nEND\r\n").await;
        // What the main copy decides, the other forgets; a broadcast comes after all of it.
        client.send("incr a 1\r\nflush_all\r\n").await;
        main.expect_until("D1\r\n").await;
        main.send("VA 1\r\n2\r\n").await;
        copy.expect("md a\r\n").await;
        copy.send("HD\r\n").await;
        client.expect("2\r\n").await;
        for server in [&mut main, &mut copy] {
            server.expect("flush_all\r\n").await;
            server.send("OK\r\n").await;
        }
        client.expect("OK\r\n").await;
    });
}

#[test]
fn a_late_answer_is_asked_of_the_copy() {
    run(async {
        let scene = Scene::copied("{clusters: [copy], hedge: 90}");
        let mut client = scene.client();
        client.send("get a\r\n").await;
        let mut main = scene.accept(0).await;
        for _ in 0..100 {
            main.expect("mg a k f v\r\n").await;
            main.send("VA 1 ka f0\r\n1\r\n").await;
            client.expect("VALUE a 0 1\r\n1\r\nEND\r\n").await;
            client.send("get a\r\n").await;
        }
        main.expect("mg a k f v\r\n").await;
        main.send("VA 1 ka f0\r\n1\r\n").await;
        client.expect("VALUE a 0 1\r\n1\r\nEND\r\n").await;
        client.send("get a\r\n").await;
        main.expect("mg a k f v\r\n").await;
        let mut copy = scene.accept(1).await;
        copy.expect("mg a k f v\r\n").await;
        copy.send("VA 1 ka f0\r\n1\r\n").await;
        client.expect("VALUE a 0 1\r\n1\r\nEND\r\n").await;
        // The answer that came too late is nobody's.
        main.send("EN\r\n").await;
    });
}

#[test]
fn a_key_that_moves_is_dealt_with_on_both_servers_one_request_at_a_time() {
    run(async {
        let scene = Scene::new(2, "");
        let agreement = scene.agreement();
        agreement.publish(scene.changing(1, Phase::F, &[0], &[1]));
        settle().await;
        let mut client = scene.client();
        client.send("set a 0 0 1\r\n1\r\nset a 0 0 1\r\n2\r\nflush_all\r\n").await;
        let mut old = scene.accept(0).await;
        let mut new = None;
        for value in ["1", "2"] {
            old.expect("md a\r\n").await;
            settle().await;
            assert!(
                new.is_some() || scene.nobody_dialled(1),
                "nothing is stored before the other copy is gone"
            );
            old.send("NF\r\n").await;
            let mut server = match new.take() {
                None => scene.accept(1).await,
                Some(server) => server,
            };
            server.expect_until(format!("\r\n{value}\r\n")).await;
            server.send("HD\r\n").await;
            client.expect("STORED\r\n").await;
            new = Some(server);
        }
        let mut new = new.unwrap();
        // All are flushed, and when all have said so each once more; what the client sends meanwhile waits.
        client.send("mn\r\n").await;
        old.expect("flush_all\r\n").await;
        new.expect("flush_all\r\n").await;
        old.send("OK\r\n").await;
        settle().await;
        new.send("OK\r\n").await;
        for server in [&mut old, &mut new] {
            server.expect("flush_all\r\n").await;
        }
        old.send("OK\r\n").await;
        settle().await;
        agreement.publish(scene.changing(2, Phase::F, &[0], &[1]));
        new.expect("mn\r\n").await;
        settle().await;
        assert_eq!(agreement.acknowledged(), 1);
        new.send("OK\r\nMN\r\n").await;
        client.expect("OK\r\nMN\r\n").await;
        // A token of the new server comes back as it was.
        client.send("gets a\r\n").await;
        new.expect("mg a k f c s v\r\n").await;
        new.send("VA 1 ka f0 c7 s1\r\nx\r\n").await;
        let line = client.expect_until("\r\n").await;
        client.expect("x\r\nEND\r\n").await;
        let token = String::from_utf8(line.to_vec()).unwrap();
        let token = token.trim_end().rsplit(' ').next().unwrap().to_owned();
        assert!(token.parse::<u64>().unwrap() > 1 << 46, "{token}");
        client.send(format!("cas a 0 0 1 {token}\r\ny\r\n")).await;
        old.expect("md a\r\n").await;
        old.send("NF\r\n").await;
        let sent = new.expect_until("y\r\n").await;
        assert!(String::from_utf8_lossy(&sent).contains(" C7"), "{sent:?}");
        new.send("HD\r\n").await;
        client.expect("STORED\r\n").await;
        // The next step waits for what was begun in this one.
        client.send("delete a\r\n").await;
        old.expect("md a\r\n").await;
        agreement.publish(scene.plain(3, &[1]));
        settle().await;
        assert_eq!(agreement.acknowledged(), 2);
        old.send("HD\r\nMN\r\n").await;
        new.expect_until("md a\r\n").await;
        new.send("HD\r\n").await;
        client.expect("DELETED\r\n").await;
        settle().await;
        assert_eq!(agreement.acknowledged(), 3);
    });
}

/// Every idle client pays for each byte here. With what the runtime and the listener add, the task must not need more
/// than 256 bytes: the runtime would make it 384.
#[test]
fn an_idle_session_is_small() {
    run(async {
        let scene = Scene::new(1, "");
        let (conn, _client, _drain) = groove_common::testing::downstream().unwrap();
        let session = super::serve(std::rc::Rc::clone(&scene.worker), conn, None, bytes::BytesMut::new());
        assert!(size_of_val(&session) <= 72, "{} bytes", size_of_val(&session));
        let mailbox = size_of::<crate::session::mailbox::Mailbox>();
        assert!(mailbox <= 184, "{mailbox} bytes");
    });
}

#[test]
fn a_session_with_nothing_to_do_holds_nothing() {
    run(async {
        let scene = Scene::new(1, "");
        let mut client = scene.client();
        client.send("get a\r\nset b 0 0 5\r\nhel").await;
        let mut server = scene.accept(0).await;
        server.expect("mg a k f v\r\n").await;
        server.send("EN\r\n").await;
        client.expect("END\r\n").await;
        settle().await;
        assert_eq!(scene.worker.spare.count(), 0, "half a request is something");
        client.send("lo\r\n").await;
        server.expect("ms b 5\r\nhello\r\n").await;
        assert_eq!(scene.worker.spare.count(), 0, "so is a whole one");
        server.send("HD\r\n").await;
        client.expect("STORED\r\n").await;
        settle().await;
        assert_eq!(scene.worker.spare.count(), 1);
        // Whoever comes next takes the same.
        client.send("get a\r\n").await;
        server.expect("mg a k f v\r\n").await;
        assert_eq!(scene.worker.spare.count(), 0);
        server.send("EN\r\n").await;
        client.expect("END\r\n").await;
    });
}
