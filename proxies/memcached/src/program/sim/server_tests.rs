//! The memcached of the simulation answers as a real one does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use groove_common::testing::Dice;

use super::server::Server;
use crate::wire::meta::{Arith, Decoder, Delete, Get, Mode, Op, Reply, Request, Status, Store, Wants};
use crate::wire::{Limits, Output};

/// A real memcached, ended with the test.
struct Real {
    process: Child,
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Drop for Real {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

impl Real {
    fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut process = Command::new("memcached")
            .args(["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-u", "nobody", "-t", "1"])
            // Its background thread would hold items now and then, and a number that is held is not
            // counted on in place.
            .args(["-o", "no_modern"])
            .stdin(Stdio::null())
            .spawn()
            .expect("memcached is installed");
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(error) => assert!(process.try_wait().unwrap().is_none(), "memcached ended: {error}"),
            }
            std::thread::yield_now();
        };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { process, stream, decoder: Decoder::default(), input: BytesMut::new() }
    }

    fn ask(&mut self, request: &Request<'_>) -> Reply {
        let mut output = Output::new();
        request.encode(&mut output);
        while !output.is_empty() {
            let written = self.stream.write(output.front()).unwrap();
            output.advance(written);
        }
        let limits = Limits { value_len_max: 8 << 20, ..Limits::default() };
        loop {
            if let Some(reply) = self.decoder.decode(&mut self.input, &limits).unwrap() {
                return reply;
            }
            let mut read = [0; 4096];
            let len = self.stream.read(&mut read).unwrap();
            assert!(len > 0, "memcached hung up");
            self.input.extend_from_slice(&read[..len]);
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What programs ask, and what clients' own requests look like on their last step.
fn op<'a>(dice: &mut Dice, value: &'a Bytes, seen: &[u64], now_s: u64) -> Op<'a> {
    let exptimes = [0, 100, 2_592_000, i32::try_from(now_s).unwrap() + 3_000_000, 1_000_000, -1];
    let exptime = *dice.pick(&exptimes).unwrap();
    let lasting = *dice.pick(&exptimes[..5]).unwrap();
    let compare = match dice.below(3) {
        0 => None,
        1 => seen.last().copied(),
        _ => dice.pick(seen).copied(),
    };
    let all = Wants::FLAGS.and(Wants::CAS).and(Wants::TTL).and(Wants::SIZE);
    let wants = if dice.chance(1, 2) { all.and(Wants::VALUE) } else { all };
    match dice.below(8) {
        0 => Op::Get(Get { wants, ..Get::default() }),
        1 | 2 => Op::Get(Get { wants, vivify: Some(30), ..Get::default() }),
        3 | 4 => {
            let mode = *dice
                .pick(&[Mode::Set, Mode::Set, Mode::Add, Mode::Replace, Mode::Append, Mode::Prepend])
                .unwrap();
            // What a replace or an add does with a token no program asks.
            let compare = if matches!(mode, Mode::Add | Mode::Replace) { None } else { compare };
            let flags = if dice.chance(1, 2) { 7 } else { 0 };
            Op::Store(Store { flags, exptime, compare, wants: Wants::CAS, ..Store::new(mode, value) })
        }
        5 | 6 => Op::Delete(Delete { compare, invalidate: dice.chance(1, 6), ..Delete::default() }),
        _ => Op::Arith(Arith {
            decrement: dice.chance(1, 2),
            touch: dice.chance(1, 4).then_some(lasting),
            compare,
            wants: Wants::VALUE.and(Wants::CAS).and(Wants::TTL),
            vivify: dice.chance(1, 4).then_some(lasting),
            initial: Some(10),
            ..Arith::up(3)
        }),
    }
}

/// Status, flags without times and versions, and the value.
fn shape(reply: &Reply) -> (Status, Vec<String>, Bytes) {
    let words = String::from_utf8_lossy(reply.line()).into_owned();
    // Errors are told apart by their kind only.
    let words = words.split(' ').filter(|word| !word.starts_with(['c', 't'])).map(str::to_string).collect();
    (reply.status, words, reply.value.clone())
}

fn flag(reply: &Reply, name: u8) -> Option<i64> {
    let digits = if reply.status == Status::Error { None } else { reply.flag(name) }?;
    Some(std::str::from_utf8(digits).unwrap().parse().unwrap())
}

#[test]
fn it_answers_as_memcached_does() {
    let mut real = Real::start();
    let mut hits = 0;
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut model = Server::new(now_s());
        let key = format!("key{seed}");
        let mut ahead: Option<i64> = None;
        let mut seen: Vec<u64> = Vec::new();
        for step in 0..60 {
            let value = Bytes::from(["", "1", "10", "99", "x", "123456789012345678901"][dice.below(6)]);
            model.now_s = now_s();
            let op = op(&mut dice, &value, &seen, model.now_s);
            let request = Request { key: key.as_bytes(), is_coded: false, op };
            let mine = model.execute(&request);
            // The real one counts on from the keys before.
            let real_request = shifted(&request, ahead.unwrap_or(0));
            let theirs = real.ask(&real_request);
            let at = format!("seed {seed} step {step}: {op:?}\n mine {mine:?}\n real {theirs:?}");
            assert_eq!(shape(&mine), shape(&theirs), "{at}");
            if let (Some(mine), Some(theirs)) = (flag(&mine, b'c'), flag(&theirs, b'c')) {
                assert_eq!(theirs - mine, *ahead.get_or_insert(theirs - mine), "the versions: {at}");
                seen.push(u64::try_from(mine).unwrap());
                hits += 1;
            }
            match (flag(&mine, b't'), flag(&theirs, b't')) {
                (Some(mine), Some(theirs)) if mine > 0 => assert!((mine - theirs).abs() <= 2, "times: {at}"),
                (mine, theirs) => assert_eq!(mine, theirs, "times: {at}"),
            }
        }
    }
    assert!(hits > 5000, "{hits} versions were compared");
}

/// The same request with the version that the real server gave to what the model's has.
fn shifted<'a>(request: &Request<'a>, ahead: i64) -> Request<'a> {
    let shift = |cas: Option<u64>| cas.map(|cas| cas.strict_add_signed(ahead));
    let op = match request.op {
        Op::Store(store) => Op::Store(Store { compare: shift(store.compare), ..store }),
        Op::Delete(delete) => Op::Delete(Delete { compare: shift(delete.compare), ..delete }),
        Op::Arith(arith) => Op::Arith(Arith { compare: shift(arith.compare), ..arith }),
        op @ (Op::Get(_) | Op::Debug) => op,
    };
    Request { op, ..*request }
}

#[test]
fn what_does_not_fit_takes_the_old_value_with_it() {
    let mut real = Real::start();
    let (small, large) = (Bytes::from("x"), Bytes::from(vec![b'x'; 2 << 20]));
    let mut ask = |op| real.ask(&Request { key: b"k", is_coded: false, op }).status;
    assert_eq!(ask(Op::Store(Store::new(Mode::Set, &small))), Status::Done);
    assert_eq!(ask(Op::Store(Store::new(Mode::Set, &large))), Status::Error);
    assert_eq!(ask(Op::Get(Get::default())), Status::Miss);
}
