use std::collections::VecDeque as Queue;

use groove_common::balance::Dice;

use super::*;
use crate::store::Store;
use crate::wire::classic::items;
use crate::wire::meta;
use crate::wire::words::Span;

const LIMITS: Limits = Limits { value_len_max: 1000, line_len_max: 1 << 20 };

fn drain(machine: &mut Machine) -> String {
    let mut text = Vec::new();
    while !machine.output().is_empty() {
        let front = machine.output().front().to_vec();
        machine.output().advance(front.len());
        text.extend(front);
    }
    String::from_utf8(text).unwrap()
}

fn reply(status: meta::Status, line: &'static str, value: &'static str) -> Answer {
    Answer::Reply(Reply::new(
        status,
        Bytes::from_static(line.as_bytes()),
        Bytes::from_static(value.as_bytes()),
    ))
}

/// Sends everything in `text`; the tickets of the steps, which nobody answers.
fn send(machine: &mut Machine, text: &str) -> Vec<Ticket> {
    let (mut input, now, mut tickets) = (BytesMut::from(text), Instant::now(), Vec::new());
    while let Some(next) = machine.step(&mut input, &LIMITS, now).unwrap() {
        tickets.push(next.ticket);
        match next.step {
            Step::Key(_) | Step::Keys { .. } | Step::Version | Step::Nodes(_) => machine.commit(now),
            Step::Everyone(_) => machine.commit_everyone(2, None, now),
        }
    }
    tickets
}

#[test]
fn answers_are_told_in_the_order_of_requests() {
    let mut machine = Machine::new();
    let tickets = send(&mut machine, "get a b\r\nset c 0 0 1\r\nx\r\nfoo\r\nget\r\n");
    assert_eq!(tickets, [0, 1, 3]);
    machine.answer(3, reply(meta::Status::Done, "HD", ""));
    machine.answer(1, reply(meta::Status::Value, "VA 1 kb f2", "y"));
    assert_eq!(drain(&mut machine), "");
    machine.answer(0, reply(meta::Status::Miss, "EN", ""));
    assert_eq!(drain(&mut machine), "VALUE b 2 1\r\ny\r\nEND\r\nSTORED\r\nERROR\r\nERROR\r\n");
    let commands: Vec<_> = machine.finished().map(|finished| (finished.command, finished.hits)).collect();
    let refused = (Command::Refused, 0);
    assert_eq!(commands, [(Command::Get, 1), (Command::Set, 1), refused, refused]);
    assert!(machine.is_settled());
}

#[test]
fn a_value_is_told_as_soon_as_those_before_it_are() {
    let mut machine = Machine::new();
    send(&mut machine, "get a b\r\n");
    machine.answer(0, reply(meta::Status::Value, "VA 1 ka f0", "x"));
    assert_eq!(drain(&mut machine), "VALUE a 0 1\r\nx\r\n");
    machine.answer(1, reply(meta::Status::Miss, "EN", ""));
    assert_eq!(drain(&mut machine), "END\r\n");
}

#[test]
fn the_beginning_of_a_retrieval_waits_for_its_end_unless_it_is_long_or_ends_another() {
    let mut machine = Machine::new();
    send(&mut machine, "get a b\r\nget c d\r\n");
    machine.answer(0, reply(meta::Status::Value, "VA 1 ka f0", "x"));
    assert!(machine.may_wait());
    machine.answer(1, reply(meta::Status::Miss, "EN", ""));
    machine.answer(3, reply(meta::Status::Value, "VA 1 kc f0", "x"));
    assert!(!machine.may_wait(), "the first has ended");
    drain(&mut machine);
    machine.written();
    assert!(machine.may_wait(), "there is nothing to write");
    let long =
        Reply::new(meta::Status::Value, Bytes::from("VA 40000 kd f0"), Bytes::from(vec![b'x'; 40_000]));
    send(&mut machine, "get e\r\n");
    machine.answer(4, Answer::Reply(long));
    assert!(!machine.may_wait());
}

#[test]
fn a_part_that_failed_is_missing_and_the_others_are_told() {
    let mut machine = Machine::new();
    let several = |machine: &mut Machine| {
        let (mut input, now) = (BytesMut::from("get a b c\r\n"), Instant::now());
        let next = machine.step(&mut input, &LIMITS, now).unwrap().unwrap();
        let (Step::Keys { get, .. }, ticket) = (next.step, next.ticket) else { panic!("no keys") };
        let spans: Vec<Span> = get.keys().map(|(span, _)| span).collect();
        let span = Span { start: spans[0].start, end: spans[2].end };
        machine.commit_keys(Box::new(Gather::new(span, Owners::from_slice(&[0, 1, 0]), 2, 0)), now);
        ticket
    };
    let store = Store::small();
    let ticket = several(&mut machine);
    machine.hear_part(ticket, 1, Ok(items_of(&store, "", &[b"b"])));
    machine.hear_part(ticket, 1, Err(Failure::Lost));
    assert_eq!(drain(&mut machine), "", "the second word on a part is none");
    machine.hear_part(ticket, 0, Err(Failure::Down));
    assert_eq!(drain(&mut machine), "END\r\n");
    let ticket = several(&mut machine);
    for number in 0..2 {
        machine.hear_part(ticket, number, Err(Failure::Down));
    }
    assert!(drain(&mut machine).starts_with("SERVER_ERROR "));
    let finished: Vec<_> = machine.finished().map(|finished| (finished.misses, finished.failure)).collect();
    assert_eq!(finished, [(1, Some(Failure::Down)), (0, Some(Failure::Down))]);
    assert!(machine.is_settled() && machine.more_values == 0);
}

#[test]
fn many_small_replies_wait_in_one_buffer_of_bounded_size() {
    let mut machine = Machine::new();
    let keys = "k ".repeat(100);
    let value = Reply::new(meta::Status::Value, Bytes::from("VA 1000 kk f0"), Bytes::from("v".repeat(1000)));
    let mut expected = format!("VALUE k 0 1000\r\n{}\r\n", "v".repeat(1000)).repeat(100);
    expected += "END\r\n";
    for round in 0..3 {
        let tickets = send(&mut machine, &format!("get {}\r\n", keys.trim_end()));
        for ticket in tickets.iter().rev() {
            machine.hear(*ticket, &value.lent());
            assert!(machine.small.len() <= held::KEPT_LEN_MAX);
        }
        assert_eq!(drain(&mut machine), expected, "round {round}");
        assert!(machine.small.len() == 0 && machine.is_settled());
    }
}

#[test]
fn keys_of_a_dead_server_are_missing_unless_all_are() {
    let mut machine = Machine::new();
    send(&mut machine, "get a b\r\nget c d\r\nset e 0 0 0\r\n\r\n");
    machine.answer(0, Answer::Failed(Failure::Down));
    machine.answer(1, reply(meta::Status::Miss, "EN", ""));
    assert_eq!(drain(&mut machine), "END\r\n");
    machine.answer(3, Answer::Failed(Failure::Down));
    machine.answer(4, Answer::Failed(Failure::TimedOut));
    machine.answer(6, Answer::Failed(Failure::Lost));
    let heard = drain(&mut machine);
    let lines: Vec<_> = heard.lines().collect();
    assert_eq!(lines.len(), 2, "{heard}");
    assert!(lines.iter().all(|line| line.starts_with("SERVER_ERROR ")), "{heard}");
}

#[test]
fn noreply_is_silent_whatever_comes_of_it() {
    let mut machine = Machine::new();
    let text = "set a 0 0 1 noreply\r\nx\r\nincr a 1 noreply\r\ndelete a noreply\r\ntouch a x noreply\r\n\
                set a 0 0 2000 noreply\r\n";
    let tickets = send(&mut machine, text);
    machine.answer(tickets[0], Answer::Failed(Failure::Down));
    machine.answer(tickets[1], reply(meta::Status::Error, "CLIENT_ERROR x", ""));
    machine.answer(tickets[2], reply(meta::Status::NotFound, "NF", ""));
    machine.answer(tickets[3], reply(meta::Status::NotFound, "NF", ""));
    assert_eq!(drain(&mut machine), "");
    assert_eq!(machine.finished().count(), 5);
}

#[test]
fn a_broadcast_is_done_when_everybody_is() {
    let mut machine = Machine::new();
    send(&mut machine, "flush_all\r\nflush_all 10\r\nflush_all noreply\r\nstats\r\nstats reset\r\n");
    machine.answer(0, reply(meta::Status::Classic, "OK", ""));
    assert_eq!(drain(&mut machine), "");
    machine.answer(1, reply(meta::Status::Classic, "OK", ""));
    assert_eq!(drain(&mut machine), "OK\r\n");
    machine.answer(3, reply(meta::Status::Classic, "OK", ""));
    machine.answer(4, Answer::Failed(Failure::TimedOut));
    assert!(drain(&mut machine).starts_with("SERVER_ERROR "));
    machine.answer(6, Answer::Failed(Failure::TimedOut));
    machine.answer(7, Answer::Failed(Failure::TimedOut));
    assert_eq!(drain(&mut machine), "");
    machine.answer(9, reply(meta::Status::End, "", "STAT cmd_get 1\r\n"));
    machine.answer(10, reply(meta::Status::End, "", "STAT cmd_get 2\r\n"));
    assert_eq!(drain(&mut machine), "STAT cmd_get 3\r\nEND\r\n");
    machine.answer(12, reply(meta::Status::Classic, "RESET", ""));
    machine.answer(13, reply(meta::Status::Classic, "RESET", ""));
    assert_eq!(drain(&mut machine), "RESET\r\n");
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut machine = Machine::new();
    let (mut input, now) = (BytesMut::new(), Instant::now());
    let value = "v".repeat(1000);
    let line: &'static str = "VA 1000 ka f0";
    let mut sent = 0;
    while machine.admits() {
        input.extend_from_slice(b"get a\r\n");
        let ticket = machine.step(&mut input, &LIMITS, now).unwrap().unwrap().ticket;
        machine.commit(now);
        let answer = Reply::new(meta::Status::Value, Bytes::from(line), Bytes::from(value.clone()));
        machine.answer(ticket, Answer::Reply(answer));
        sent += 1;
        assert!(sent < 10_000, "nothing stops it");
    }
    assert!(machine.output().len() <= BUFFERED_LEN_MAX + 2000);
    drain(&mut machine);
    assert!(machine.admits());
}

#[test]
fn quit_ends_the_session_behind_what_came_before() {
    let mut machine = Machine::new();
    send(&mut machine, "get a\r\nquit\r\nget b\r\n");
    assert!(machine.is_over() && !machine.is_settled());
    machine.answer(0, reply(meta::Status::Miss, "EN", ""));
    assert_eq!(drain(&mut machine), "END\r\n");
    assert!(machine.is_settled());
}

#[test]
fn a_reply_to_nobody_does_no_harm() {
    let mut machine = Machine::new();
    machine.answer(0, reply(meta::Status::Miss, "EN", ""));
    machine.answer(u64::MAX, Answer::Failed(Failure::Lost));
    send(&mut machine, "get a\r\n");
    machine.answer(7, reply(meta::Status::Miss, "EN", ""));
    machine.answer(0, reply(meta::Status::Miss, "EN", ""));
    assert_eq!(drain(&mut machine), "END\r\n");
}

/// A client's stream of requests, mistakes among them.
fn any_requests(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..30 {
        let keys = ["a", "b", "c", "d", "e"];
        let key = keys[dice.below(keys.len())];
        let noreply = ["", " noreply"][dice.below(2)];
        let number = dice.below(50);
        text += &match dice.below(12) {
            0 => format!("get {}\r\n", keys[..dice.below(5) + 1].join(" ")),
            1 => format!("gets {key} {key}\r\n"),
            2 => format!("gat {} {key}\r\n", 1000 + number),
            3 => format!("add {key} 1 0 2{noreply}\r\n{:02}\r\n", number),
            4 => format!("append {key} 0 0 1{noreply}\r\n7\r\n"),
            5 => format!("incr {key} {number}{noreply}\r\n"),
            6 => format!("delete {key}{noreply}\r\n"),
            7 => format!("touch {key} {}\r\n", 1000 + number),
            8 => format!("cas {key} 0 0 1 {number}{noreply}\r\n5\r\n"),
            9 => "nonsense\r\n".to_owned(),
            10 => format!("set {key} 0 0 1200{noreply}\r\n{}\r\n", "z".repeat(1200)),
            _ => format!("set {key} {number} 0 3{noreply}\r\n{number:03}\r\n"),
        };
    }
    text
}

/// What a server has of these keys, which it knows by their names behind `prefix`.
fn items_of(store: &Store, prefix: &str, keys: &[&[u8]]) -> items::Answer {
    let (mut asked, mut text) = (items::Keys::default(), BytesMut::new());
    for key in keys {
        let op = meta::Op::Get(meta::Get { wants: meta::Wants::ITEM, ..Default::default() });
        let reply = store.ask(&meta::Request { key, is_coded: false, op });
        let name = format!("{prefix}{}", String::from_utf8_lossy(key));
        asked.push(name.as_bytes());
        if reply.status == meta::Status::Value {
            let flags = String::from_utf8_lossy(reply.flag(b'f').unwrap());
            text.extend_from_slice(format!("VALUE {name} {flags} {}\r\n", reply.value.len()).as_bytes());
            text.extend_from_slice(&reply.value);
            text.extend_from_slice(b"\r\n");
        }
    }
    text.extend_from_slice(b"END\r\n");
    items::Decoder::default().decode(&mut text, &asked, &Limits::default()).unwrap().unwrap()
}

enum Told {
    Reply(Reply),
    Part(u8, items::Answer),
}

/// Asks for several keys at once: those of each server together, which knows them by names behind `prefix`.
fn ask_for_several(
    store: &Store,
    prefix: &str,
    keys: &[(Span, &[u8])],
) -> (Gather, Vec<(usize, u8, items::Answer)>) {
    let mut parts: Vec<(usize, Vec<&[u8]>)> = Vec::new();
    let mut owners = Owners::new();
    for (_, key) in keys {
        let server = usize::from(key[0]) % 3;
        let known = parts.iter().position(|(known, _)| *known == server);
        let number = known.unwrap_or(parts.len());
        if known.is_none() {
            parts.push((server, Vec::new()));
        }
        parts[number].1.push(key);
        owners.push(u8::try_from(number).unwrap());
    }
    let items = |keys| items_of(store, prefix, keys);
    let told = parts.iter().zip(0..).map(|((server, keys), number)| (*server, number, items(keys)));
    let span = Span { start: keys[0].0.start, end: keys[keys.len() - 1].0.end };
    (Gather::new(span, owners, parts.len(), prefix.len()), told.collect())
}

/// Runs `text` through a machine in front of three servers that answer each in its own order but when they
/// like, with the client's bytes cut anywhere. With one piece and no delay it is the simple truth.
fn simulate(text: &str, dice: Option<&mut Dice>) -> (String, usize) {
    let store = Store::small();
    let mut servers: [Queue<(Ticket, Told)>; 3] = Default::default();
    let (mut machine, mut input, mut output) = (Machine::new(), BytesMut::new(), String::new());
    let (now, mut unsent, mut straight) = (Instant::now(), text.as_bytes(), Dice::seeded(0));
    let is_straight = dice.is_none();
    let dice = dice.unwrap_or(&mut straight);
    while !(unsent.is_empty() && input.is_empty() && machine.is_settled()) {
        if is_straight || dice.below(3) == 0 {
            let len = if is_straight { unsent.len() } else { dice.below(60).min(unsent.len()) };
            input.extend_from_slice(&unsent[..len]);
            unsent = &unsent[len..];
        }
        while machine.admits() && (is_straight || dice.below(4) > 0) {
            let Some(next) = machine.step(&mut input, &LIMITS, now).unwrap() else { break };
            let ticket = next.ticket;
            let request = match next.step {
                Step::Keys { get, max, .. } if !is_straight && dice.below(4) > 0 => {
                    let keys: Vec<_> = get.keys().take(max.min(2 + dice.below(4))).collect();
                    let prefix = if dice.below(2) == 0 { "" } else { "shop/0:" };
                    let (gather, parts) = ask_for_several(&store, prefix, &keys);
                    machine.commit_keys(Box::new(gather), now);
                    for (server, number, told) in parts {
                        servers[server].push_back((ticket, Told::Part(number, told)));
                    }
                    continue;
                }
                Step::Key(request) | Step::Keys { first: request, .. } => request,
                Step::Everyone(_) | Step::Version | Step::Nodes(_) => panic!("no such step here"),
            };
            let server = usize::from(request.key[0]) % 3;
            let reply = store.ask(&request);
            machine.commit(now);
            match is_straight {
                true => machine.answer(ticket, Answer::Reply(reply)),
                false => servers[server].push_back((ticket, Told::Reply(reply))),
            }
        }
        match servers[dice.below(3)].pop_front() {
            Some((ticket, Told::Reply(reply))) if dice.below(2) == 0 => machine.hear(ticket, &reply.lent()),
            Some((ticket, Told::Reply(reply))) => machine.answer(ticket, Answer::Reply(reply)),
            Some((ticket, Told::Part(number, told))) => machine.hear_part(ticket, number, Ok(told)),
            None => (),
        }
        if is_straight || dice.below(5) == 0 {
            output += &drain(&mut machine);
        }
    }
    (output, machine.finished().count())
}

/// With CAS values counted from the first that is told: a store begins at what the clock says.
fn since_the_first(heard: &str) -> Vec<String> {
    let mut first = None;
    let word = |word: &str| match word.parse::<u64>() {
        Ok(token) if token > 1 << 32 => token.wrapping_sub(*first.get_or_insert(token)).to_string(),
        Ok(_) | Err(_) => word.to_owned(),
    };
    heard.split(['\r', '\n', ' ']).map(word).collect()
}

#[test]
fn whatever_the_schedule_the_client_hears_the_same() {
    for seed in 0..300 {
        let mut dice = Dice::seeded(seed);
        let text = any_requests(&mut dice);
        let (heard, exchanges) = simulate(&text, Some(&mut dice));
        let straight = simulate(&text, None).0;
        assert_eq!((since_the_first(&heard), exchanges), (since_the_first(&straight), 30), "seed {seed}");
    }
}
