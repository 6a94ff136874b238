//! Hot keys between clients and servers that follow a script, and stamps under any order of events.

use std::fmt::Write as _;

use groove_common::testing::{Dice, ScriptedPeer, simulate};

use super::stamps::{Stamp, Stamps, Writing};
use super::*;
use crate::testing::{Scene, run, settle};

/// What makes a key hot in these tests, on one worker.
const RATE: usize = 10;

/// The question that brings a hot key's value.
const FILL: &str = "mg a k f t v\r\n";

fn scene(options: &str) -> Scene {
    Scene::new(1, &format!("    hot_keys: {{ttl: 10s, rate: {RATE}}}\n{options}"))
}

fn value(text: &str) -> String {
    format!("VA {} ka f0 t-1\r\n{text}\r\n", text.len())
}

async fn told(client: &mut ScriptedPeer, text: &str) {
    client.expect(format!("VALUE a 0 {}\r\n{text}\r\nEND\r\n", text.len())).await;
}

/// Makes the key `a` hot: so many gets are sent to the server one by one, the next would be a fill.
async fn heat(scene: &Scene) -> (ScriptedPeer, ScriptedPeer) {
    let mut client = scene.client();
    client.send("get a\r\n").await;
    let mut server = scene.accept(0).await;
    for _ in 1..RATE {
        server.expect("mg a k f v\r\n").await;
        server.send("EN\r\n").await;
        client.expect("END\r\n").await;
        client.send("get a\r\n").await;
    }
    (client, server)
}

/// The same, with `text` being kept.
async fn kept(scene: &Scene, text: &str) -> (ScriptedPeer, ScriptedPeer) {
    let (mut client, mut server) = heat(scene).await;
    server.expect(FILL).await;
    server.send(value(text)).await;
    told(&mut client, text).await;
    (client, server)
}

#[test]
fn what_is_kept_needs_no_server_and_a_cold_key_does() {
    run(async {
        let scene = scene("");
        let (mut client, mut server) = kept(&scene, "one").await;
        let mut other = scene.client();
        other.send("get a b\r\nmg a v\r\nmg a f k O1\r\nmg a f v k q O2\r\n").await;
        server.expect("mg b k f v\r\nmg a k f\r\n").await;
        server.send("EN\r\nHD ka f0\r\n").await;
        told(&mut other, "one").await;
        other.expect("VA 3\r\none\r\nHD f0 ka O1\r\nVA 3 f0 ka O2\r\none\r\n").await;
        // Whoever wants more than the value asks the server.
        client.send("gets a\r\nmg a t v\r\nme a\r\n").await;
        server.expect("mg a k f c v\r\nmg a k t v\r\nme a\r\n").await;
        server.send("EN\r\nEN\r\nEN\r\n").await;
        client.expect("END\r\nEN\r\nEN\r\n").await;
    });
}

#[test]
fn those_who_ask_at_once_are_told_what_one_question_brings() {
    run(async {
        let scene = scene("");
        let (mut client, mut server) = heat(&scene).await;
        server.expect(FILL).await;
        let mut others: Vec<_> = (0..5).map(|_| scene.client()).collect();
        for other in &mut others {
            other.send("get a\r\nget a\r\n").await;
        }
        settle().await;
        // Nothing there: told to all, and not kept.
        server.send("EN\r\n").await;
        client.expect("END\r\n").await;
        for other in &mut others {
            other.expect("END\r\nEND\r\n").await;
        }
        client.send("get a\r\n").await;
        server.expect(FILL).await;
        others[0].send("get a\r\n").await;
        settle().await;
        // Nor is a failure, and there is nobody who hears nothing.
        drop(server);
        for client in [&mut client, &mut others[0]] {
            client.expect("SERVER_ERROR the connection to the server for this key broke\r\n").await;
        }
    });
}

#[test]
fn a_write_takes_what_is_kept_away_before_it_is_acknowledged() {
    run(async {
        for (write, sent, said, told_so) in [
            ("set a 0 0 1\r\n2\r\n", "ms a 1\r\n2\r\n", "HD\r\n", "STORED\r\n"),
            ("delete a\r\n", "md a\r\n", "HD\r\n", "DELETED\r\n"),
            ("mg a T30\r\n", "mg a T30\r\n", "HD\r\n", "HD\r\n"),
        ] {
            let scene = scene("");
            let (mut client, mut server) = kept(&scene, "one").await;
            let mut other = scene.client();
            // A client's own get, behind its write, is behind it at the server too.
            client.send(format!("{write}get a\r\n")).await;
            server.expect(format!("{sent}mg a k f v\r\n")).await;
            // And so is anybody's.
            other.send("get a\r\n").await;
            server.expect("mg a k f v\r\n").await;
            server.send(format!("{said}{}{}", value("two"), value("two"))).await;
            client.expect(told_so).await;
            told(&mut client, "two").await;
            told(&mut other, "two").await;
            other.send("get a\r\n").await;
            server.expect(FILL).await;
            server.send(value("two")).await;
            told(&mut other, "two").await;
            client.send("get a\r\n").await;
            told(&mut client, "two").await;
        }
    });
}

#[test]
fn what_was_asked_before_a_write_does_not_come_back_after_it() {
    run(async {
        // Two connections: their answers may come in any order.
        let scene = scene("    connections: 2\n");
        let (mut client, mut server) = heat(&scene).await;
        server.expect(FILL).await;
        let mut writer = scene.client();
        writer.send("set a 0 0 3\r\nnew\r\n").await;
        let mut other_server = scene.accept(0).await;
        other_server.expect("ms a 3\r\nnew\r\n").await;
        other_server.send("HD\r\n").await;
        writer.expect("STORED\r\n").await;
        // The old question is on its way still. Who asks now does not wait for it.
        let mut late = scene.client();
        late.send("get a\r\n").await;
        server.expect(FILL).await;
        server.send(format!("{}{}", value("old"), value("new"))).await;
        told(&mut client, "old").await;
        told(&mut late, "new").await;
        client.send("get a\r\n").await;
        told(&mut client, "new").await;

        // The same without anybody who asks anew.
        writer.send("delete a\r\n").await;
        other_server.expect("md a\r\n").await;
        other_server.send("HD\r\n").await;
        writer.expect("DELETED\r\n").await;
        client.send("get a\r\n").await;
        server.expect(FILL).await;
        writer.send("set a 0 0 3\r\nnxt\r\n").await;
        other_server.expect("ms a 3\r\nnxt\r\n").await;
        other_server.send("HD\r\n").await;
        writer.expect("STORED\r\n").await;
        server.send("EN\r\n").await;
        client.expect("END\r\n").await;
        client.send("get a\r\n").await;
        server.expect(FILL).await;
        writer.send("append a 0 0 1\r\n!\r\n").await;
        other_server.expect("ms a 1 MA\r\n!\r\n").await;
        other_server.send("HD\r\n").await;
        writer.expect("STORED\r\n").await;
        server.send(value("nxt")).await;
        told(&mut client, "nxt").await;
        client.send("get a\r\n").await;
        server.expect(FILL).await;
    });
}

#[test]
fn flush_all_takes_everything_away() {
    run(async {
        let scene = scene("");
        let (mut client, mut server) = kept(&scene, "one").await;
        client.send("flush_all\r\nget a\r\n").await;
        server.expect("flush_all\r\nmg a k f v\r\n").await;
        server.send("OK\r\nEN\r\n").await;
        client.expect("OK\r\nEND\r\n").await;
        client.send("get a\r\n").await;
        server.expect(FILL).await;
    });
}

#[test]
fn what_is_large_soon_over_or_to_be_renewed_is_not_kept() {
    run(async {
        let scene = scene("");
        let (mut client, mut server) = heat(&scene).await;
        let large = "x".repeat((64 << 10) + 1);
        let said = [value(&large), value("x").replace("t-1", "t1"), value("x").replace("t-1", "t-1 W")];
        for said in said {
            server.expect(FILL).await;
            server.send(&said).await;
            client.expect_until("END\r\n").await;
            client.send("get a\r\n").await;
        }
        server.expect(FILL).await;
        server.send(value("x").replace("t-1", "t9")).await;
        told(&mut client, "x").await;
        client.send("get a\r\n").await;
        told(&mut client, "x").await;
    });
}

fn hot(section: &Section, from: Option<Instant>) -> Arc<Hot> {
    Hot::new(section, None, from, 1, &Registry::new(1), "main")
}

fn reply(flags: &str) -> Reply {
    let mut line = "VA 1".to_owned();
    write!(line, "{flags}").unwrap();
    Reply::new(Status::Value, Bytes::from(line), Bytes::from_static(b"x"))
}

#[test]
fn what_is_kept_is_kept_from_the_question_on_and_not_beyond_its_own_life() {
    let hot =
        hot(&Section { ttl: groove_common::config::Duration::from_secs(5), ..Section::default() }, None);
    let (asked, second) = (Instant::now(), Duration::from_secs(1));
    let stamp = hot.stamps.read(7).unwrap();
    for (flags, lives_s) in [(" t-1", 5), (" t3", 2)] {
        hot.keep(b"a", 7, stamp, asked, &reply(flags));
        let just = Duration::from_millis(1);
        assert!(hot.find(b"a", stamp, asked + second * lives_s - just).is_some());
        assert!(hot.find(b"a", stamp, asked + second * lives_s).is_none());
    }
    assert_eq!((hot.counted.fills.get(), hot.counted.hits.get()), (2, 2));
    drop(hot.stamps.write(7));
    assert!(hot.find(b"a", hot.stamps.read(7).unwrap(), asked).is_none());
    assert_eq!(hot.counted.invalidations.get(), 1);
}

#[test]
fn nothing_is_kept_while_writes_may_be_on_their_way_that_left_no_stamp() {
    let from = Instant::now() + Duration::from_secs(1);
    let first = hot(&Section::default(), Some(from));
    assert!(!first.may_keep(from - Duration::from_millis(1)) && first.may_keep(from));
    // A reload that changes the section knows what is on its way.
    let writing = first.stamps.write(7);
    let section = Section { rate: 7, ..Section::default() };
    let second = Hot::new(&section, Some(&first), None, 1, &Registry::new(1), "main");
    assert!(second.stamps.read(7).is_none());
    drop(writing);
    assert!(second.stamps.read(7).is_some() && !second.may_keep(from - Duration::from_millis(1)));
}

/// A key at a server, its readers and writers, whose questions and answers take any time.
#[derive(Default)]
struct World {
    stamps: Arc<Stamps>,
    server: u64,
    /// The latest value of which the writer knows that it is there.
    acknowledged: u64,
    kept: Option<(u64, Stamp)>,
    /// Reads on their way: the stamp, and what the server said if it has.
    reads: Vec<(Stamp, Option<u64>)>,
    /// Writes on their way: the value, and whether the server has it.
    writes: Vec<(Writing, u64, bool)>,
    written: u64,
}

impl World {
    fn step(&mut self, dice: &mut Dice) {
        match dice.below(6) {
            0 => {
                self.written += 1;
                self.writes.push((self.stamps.write(7), self.written, false));
            }
            1 if !self.writes.is_empty() => {
                let index = dice.below(self.writes.len());
                let (_, value, is_done) = &mut self.writes[index];
                if !*is_done {
                    (self.server, *is_done) = (*value, true);
                }
            }
            2 if !self.writes.is_empty() => {
                let index = dice.below(self.writes.len());
                if self.writes[index].2 {
                    // What is at the server now is this value, or one that was written over it.
                    self.acknowledged = self.server;
                    drop(self.writes.swap_remove(index));
                }
            }
            3 => {
                let Some(stamp) = self.stamps.read(7) else { return };
                match self.kept {
                    Some((value, kept)) if kept == stamp => {
                        assert_eq!(value, self.acknowledged, "older than what was acknowledged");
                    }
                    Some(_) | None => self.reads.push((stamp, None)),
                }
            }
            4 if !self.reads.is_empty() => {
                let index = dice.below(self.reads.len());
                self.reads[index].1.get_or_insert(self.server);
            }
            5 if !self.reads.is_empty() => {
                let index = dice.below(self.reads.len());
                if let (stamp, Some(value)) = self.reads[index] {
                    self.reads.swap_remove(index);
                    self.kept = Some((value, stamp));
                }
            }
            _ => (),
        }
    }
}

#[test]
fn whatever_comes_when_nothing_older_than_the_last_acknowledged_write_is_kept() {
    simulate(300, |dice| {
        let mut world = World::default();
        for _ in 0..300 {
            world.step(dice);
        }
    });
}
