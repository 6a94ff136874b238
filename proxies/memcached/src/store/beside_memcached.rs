//! The embedded store beside a real memcached: the same requests, every flag of the meta protocol among them,
//! and the same replies.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{DiskMetrics, DiskSettings, Executed, Settings, Store};
use crate::wire::meta::{self, Arith, Decoder, Delete, Get, Mode, Op, Reply, Request, Status, Wants};
use crate::wire::{Limits, Output};
use bytes::{Bytes, BytesMut};
use groove_common::telemetry::Registry;

/// A memcached of Debian's, for one test.
struct Memcached {
    child: Child,
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Memcached {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("memcached")
            // Without the thread that, now and then, holds an item: a counter is then written anew, not in place.
            .args(["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-o", "no_lru_maintainer,no_lru_crawler"])
            .args(["-p", &port.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error}"),
            }
        };
        stream.set_nodelay(true).unwrap();
        Self { child, stream, decoder: Decoder::default(), input: BytesMut::new() }
    }

    fn ask(&mut self, request: &Request<'_>) -> Reply {
        let mut out = Output::new();
        request.encode(&mut out);
        while !out.is_empty() {
            let written = self.stream.write(out.front()).unwrap();
            out.advance(written);
        }
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.input, &Limits::default()).unwrap() {
                return reply;
            }
            let mut bytes = [0; 65536];
            let len = self.stream.read(&mut bytes).unwrap();
            assert!(len > 0, "memcached hung up on {request:?}");
            self.input.extend_from_slice(&bytes[..len]);
        }
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn ask(store: &Store, request: &Request<'_>) -> Reply {
    match store.execute(request) {
        Executed::Now(reply) => reply,
        Executed::Later(reply) => reply.blocking_recv().unwrap(),
    }
}

/// In memory, or with hardly any memory and a disk.
fn store(capacity_len: u64, disk: Option<&std::path::Path>) -> Arc<Store> {
    let disk = disk.map(|path| DiskSettings {
        path: path.to_owned(),
        capacity_len: 256 << 20,
        metrics: DiskMetrics::new(&Registry::new(1), "main"),
    });
    Store::new(&Settings { capacity_len, value_len_max: 1 << 20, workers: 1, disk }).unwrap()
}

/// Numbers that follow from a seed (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn maybe<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        (self.below(3) == 0).then(|| self.of(choices))
    }

    fn wants(&mut self, of: &[Wants]) -> Wants {
        of.iter().fold(Wants::NOTHING, |all, flag| if self.below(2) == 0 { all.and(*flag) } else { all })
    }
}

const LIVES: [i32; 5] = [0, 100, 1000, 2_000_000_000, -1];

/// A request, its CAS token by its place in `tokens`.
fn any_op<'a>(dice: &mut Dice, values: &'a [Bytes], is_coded: bool, compare: Option<u64>) -> Op<'a> {
    // What memcached tells as a key's flag is the item's own, which a stub has not.
    let key = if is_coded { Wants::NOTHING } else { Wants::KEY };
    match dice.below(12) {
        0..=3 => Op::Get(Get {
            wants: dice.wants(&[
                key,
                Wants::FLAGS,
                Wants::CAS,
                Wants::TTL,
                Wants::SIZE,
                Wants::HIT,
                Wants::VALUE,
            ]),
            touch: dice.maybe(&LIVES),
            vivify: dice.maybe(&[30, 0, 500]),
            recache: dice.maybe(&[45, 700, 0, -1]),
            recache_first: dice.below(2) == 0,
            is_peek: dice.below(4) == 0,
            ..Get::default()
        }),
        4..=7 => Op::Store(meta::Store {
            flags: dice.of(&[0, 7, u32::MAX]),
            exptime: dice.of(&LIVES),
            compare: compare.filter(|_| dice.below(2) == 0),
            new_cas: (dice.below(40) == 0).then_some(5),
            invalidate: dice.below(4) == 0,
            vivify: dice.maybe(&[60]),
            wants: dice.wants(&[Wants::KEY, Wants::CAS]),
            ..meta::Store::new(
                dice.of(&[Mode::Set, Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend]),
                &values[dice.below(values.len())],
            )
        }),
        8 | 9 => Op::Delete(Delete {
            compare: compare.filter(|_| dice.below(2) == 0),
            new_cas: (dice.below(40) == 0).then_some(5),
            invalidate: dice.below(2) == 0,
            touch: dice.maybe(&LIVES),
            clear: dice.below(40) == 0,
            wants: dice.wants(&[Wants::KEY]),
        }),
        _ => {
            // Where the number gets longer memcached forgets `T`; we do not.
            let touch = dice.maybe(&LIVES);
            // Numbers stay below 2^63: for larger ones memcached looks for a minus sign, also behind the value, where
            // there may be one of an item that was there before.
            let decrement = dice.below(2) == 0;
            let most = if decrement { u64::MAX } else { 1 << 40 };
            Op::Arith(Arith {
                delta: if touch.is_some() { 0 } else { dice.of(&[0, 1, 95, most]) },
                decrement,
                vivify: dice.maybe(&[60, 0]),
                initial: dice.maybe(&[0, 99, 1 << 40]),
                touch,
                compare: compare.filter(|_| dice.below(2) == 0),
                new_cas: (dice.below(40) == 0).then_some(5),
                wants: dice.wants(&[key, Wants::CAS, Wants::TTL, Wants::VALUE]),
            })
        }
    }
}

/// A reply without what two servers cannot have in common: CAS values, and seconds by one.
fn comparable(reply: &Reply, of_disk: bool) -> (Status, Vec<String>, Bytes) {
    let line = String::from_utf8_lossy(reply.line()).into_owned();
    let words = line.split(' ').enumerate().map(|(index, word)| match word.split_at_checked(1) {
        Some(("c", number)) if index > 0 && number != "0" => "c".to_owned(),
        // Their seconds may be others than ours: to ten.
        Some(("t", number)) if index > 0 && number.len() > 6 => "t(long)".to_owned(),
        Some(("t", number)) if index > 0 => {
            format!("t{}", number.parse::<i64>().map_or(0, |left_s| (left_s + 5).div_euclid(10)))
        }
        // Nothing is written to disk only because an item was asked for.
        Some(("h", "0" | "1")) if index > 0 && of_disk => "h".to_owned(),
        _ => word.to_owned(),
    });
    (reply.status, words.collect(), reply.value.clone())
}

fn compare_at_random(store: &Store, real: &mut Memcached, seed: u64, of_disk: bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    // With a digit more at either end the long number is still below 2^63, with two it is beyond 2^64.
    let values: Vec<Bytes> = ["", "5", "99", "hello", "822337203685477579", "a\r\nb", "12 ", " 7", "-3"]
        .map(|text| Bytes::from_static(text.as_bytes()))
        .into();
    let keys: [(&[u8], bool); 4] =
        [(b"a", false), (b"counter", false), (b"\0\xff bin", true), (b"longer-key", false)];
    let mut tokens: Vec<(u64, u64)> = vec![(0, 0), (1, 1), (u64::MAX, u64::MAX)];
    let mut told = Vec::new();
    for step in 0..400 {
        let (key, is_coded) = dice.of(&keys);
        let (theirs, ours) = tokens[tokens.len() - 1 - dice.below(tokens.len().min(12))];
        let op = any_op(&mut dice, &values, is_coded, Some(theirs));
        let request = Request { key, is_coded, op };
        let wanted = real.ask(&request);
        let request = if request.compare().is_some() { request.comparing(ours) } else { request };
        let seen = ask(store, &request);
        let text = |reply: &Reply| String::from_utf8_lossy(reply.line()).into_owned();
        told.push(format!("{request:?}\n   memcached: {:?}\n   store:     {:?}", text(&wanted), text(&seen)));
        let history = || told[told.len().saturating_sub(12)..].join("\n");
        assert_eq!(
            comparable(&seen, of_disk),
            comparable(&wanted, of_disk),
            "seed {seed}, step {step}\n{}",
            history()
        );
        if let (Some(theirs), Some(ours)) = (wanted.cas(), seen.cas())
            && theirs != 0
        {
            tokens.push((theirs, ours));
        }
    }
    for (key, is_coded) in keys {
        let gone = Request { key, is_coded, op: Op::Delete(Delete::default()) };
        real.ask(&gone);
        ask(store, &gone);
    }
}

#[test]
fn every_meta_request_is_answered_as_by_memcached() {
    let (store, mut real) = (store(1 << 20, None), Memcached::start());
    (1..=60).for_each(|seed| compare_at_random(&store, &mut real, seed, false));
}

#[test]
fn from_disk_every_meta_request_is_answered_as_by_memcached() {
    let folder = tempfile::tempdir().unwrap();
    // Room for one item or two: nearly every request needs the disk.
    let (store, mut real) = (store(450, Some(folder.path())), Memcached::start());
    (1..=20).for_each(|seed| compare_at_random(&store, &mut real, seed, true));
    let stats = String::from_utf8(store.stats().to_vec()).unwrap();
    assert!(!stats.contains("disk_hits 0\r\n"), "{stats}");
}

#[test]
fn what_is_too_large_is_refused_and_what_was_there_goes_or_stays_as_in_memcached() {
    let (store, mut real) = (store(64 << 20, None), Memcached::start());
    let (large, half, small) =
        (Bytes::from(vec![b'x'; 2 << 20]), Bytes::from(vec![b'y'; 600 << 10]), Bytes::from_static(b"s"));
    let get = Op::Get(Get { wants: Wants::SIZE, ..Get::default() });
    let storing = |mode, value| Op::Store(meta::Store::new(mode, value));
    for op in [
        storing(Mode::Set, &small),
        storing(Mode::Set, &large),
        get,
        storing(Mode::Set, &small),
        storing(Mode::Add, &large),
        get,
        storing(Mode::Set, &half),
        storing(Mode::Append, &half),
        get,
        storing(Mode::Append, &small),
        get,
    ] {
        let request = Request { key: b"k", is_coded: false, op };
        assert_eq!(comparable(&ask(&store, &request), false), comparable(&real.ask(&request), false));
    }
}

fn set(store: &Store, key: &str, value: &Bytes, exptime: i32) -> Reply {
    let op = Op::Store(meta::Store { exptime, wants: Wants::CAS, ..meta::Store::new(Mode::Set, value) });
    ask(store, &Request { key: key.as_bytes(), is_coded: false, op })
}

fn get(store: &Store, key: &str) -> Option<Bytes> {
    let op = Op::Get(Get { wants: Wants::VALUE, ..Get::default() });
    let reply = ask(store, &Request { key: key.as_bytes(), is_coded: false, op });
    (reply.status == Status::Value).then_some(reply.value)
}

fn delete(store: &Store, key: &str) -> Status {
    let op = Op::Delete(Delete::default());
    ask(store, &Request { key: key.as_bytes(), is_coded: false, op }).status
}

/// The value of a key in one of its rounds; some are long.
fn value_of(number: usize, round: usize) -> Bytes {
    let len = if number.is_multiple_of(50) { 20_000 } else { 100 + number % 700 };
    Bytes::from(format!("{number}/{round}/").into_bytes().into_iter().cycle().take(len).collect::<Vec<_>>())
}

const KEYS: usize = 12_000;
const MEMORY: u64 = 2 << 20;

#[test]
fn several_times_the_memory_is_found_again_and_never_an_old_value() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(MEMORY, Some(folder.path()));
    let write = |round: usize, every: usize| {
        (0..KEYS).step_by(every).for_each(|number| {
            assert_eq!(
                set(&store, &format!("key{number}"), &value_of(number, round), 0).status,
                Status::Done
            );
        });
    };
    write(1, 1);
    write(2, 3);
    (0..KEYS).step_by(7).for_each(|number| assert_eq!(delete(&store, &format!("key{number}")), Status::Done));
    for number in 0..KEYS {
        let round = if number % 3 == 0 { 2 } else { 1 };
        let wanted = (number % 7 != 0).then(|| value_of(number, round));
        assert_eq!(get(&store, &format!("key{number}")), wanted, "key{number}");
    }
    assert!(store.held_len() <= MEMORY, "{}", store.held_len());
    store.flush_all(0);
    assert!((0..KEYS).all(|number| get(&store, &format!("key{number}")).is_none()));
}

/// A process that is killed leaves its files as they are: a copy of them while the store goes on.
fn crash_image(from: &std::path::Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to.path()).status().unwrap();
    assert!(status.success());
    to
}

#[test]
fn a_restart_finds_everything_and_a_crash_nothing_old() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(MEMORY, Some(folder.path()));
    for number in 0..KEYS {
        set(&first, &format!("key{number}"), &value_of(number, 1), 0);
    }
    let last_cas = set(&first, "short", &Bytes::from_static(b"lived"), 1).cas().unwrap();
    drop(first);
    let second = store(MEMORY, Some(folder.path()));
    assert!(set(&second, "token", &Bytes::new(), 0).cas().unwrap() > last_cas, "no token is used twice");
    let found =
        (0..KEYS).filter(|number| get(&second, &format!("key{number}")) == Some(value_of(*number, 1)));
    assert_eq!(found.count(), KEYS);
    for number in (0..KEYS).step_by(2) {
        set(&second, &format!("key{number}"), &value_of(number, 2), 0);
    }
    (1..KEYS).step_by(10).for_each(|number| _ = delete(&second, &format!("key{number}")));
    let image = crash_image(folder.path());
    let third = store(MEMORY, Some(image.path()));
    let mut found = 0;
    for number in 0..KEYS {
        let key = format!("key{number}");
        let Some(value) = get(&third, &key) else { continue };
        found += 1;
        assert!(number % 10 != 1, "{key} was deleted");
        let round = if number % 2 == 0 { 2 } else { 1 };
        assert_eq!(value, value_of(number, round), "{key}: an old value is back");
    }
    assert!(found > KEYS / 2, "only {found} of {KEYS} outlived the crash");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(get(&third, "short"), None);
    second.flush_all(0);
    let image = crash_image(folder.path());
    let fourth = store(MEMORY, Some(image.path()));
    assert!((0..KEYS).all(|number| get(&fourth, &format!("key{number}")).is_none()), "flushed for good");
}

#[test]
fn torn_files_cost_what_was_in_them_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let first = store(MEMORY, Some(folder.path()));
    for number in 0..KEYS {
        set(&first, &format!("key{number}"), &value_of(number, 1), 0);
    }
    for torn in 0..4 {
        let image = crash_image(folder.path());
        // The end of the newest journal, as if the last write had been cut off.
        let journals = std::fs::read_dir(image.path().join("groove-store")).unwrap().flatten();
        let mut journals: Vec<_> = journals
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "jnl"))
            .collect();
        journals.sort();
        let journal = journals.last().expect("a journal");
        let len = std::fs::metadata(journal).unwrap().len();
        let file = std::fs::OpenOptions::new().write(true).open(journal).unwrap();
        file.set_len(len.saturating_sub(7 + torn * 1000)).unwrap();
        let second = store(MEMORY, Some(image.path()));
        for number in 0..KEYS {
            if let Some(value) = get(&second, &format!("key{number}")) {
                assert_eq!(value, value_of(number, 1));
            }
        }
        assert_eq!(set(&second, "new", &Bytes::from_static(b"v"), 0).status, Status::Done);
    }
}

#[test]
fn many_threads_lose_no_count_through_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(3000, Some(folder.path()));
    let keys: Vec<String> = (0..40).map(|number| format!("counter{number}")).collect();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (store, keys) = (&store, &keys);
            scope.spawn(move || {
                let mut dice = Dice(thread * 77 + 1);
                for _ in 0..4000 {
                    let key = keys[dice.below(keys.len())].as_bytes();
                    let op = Op::Arith(Arith { vivify: Some(0), initial: Some(1), ..Arith::up(1) });
                    assert_eq!(ask(store, &Request { key, is_coded: false, op }).status, Status::Value);
                }
            });
        }
    });
    let counted = keys.iter().map(|key| String::from_utf8(get(&store, key).unwrap().to_vec()).unwrap());
    assert_eq!(counted.map(|number| number.trim().parse::<usize>().unwrap()).sum::<usize>(), 16_000);
}
