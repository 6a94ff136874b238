use super::*;
use crate::wire::meta::Status;
use bytes::Bytes;

fn classic(kind: Kind) -> Question<'static> {
    Question { to: To::TEXT, kind: Some(kind), key: b"", is_coded: false, flags: b"" }
}

fn reply(status: Status, line: &'static str, value: &'static str) -> Reply {
    Reply::new(status, Bytes::from_static(line.as_bytes()), Bytes::from_static(value.as_bytes()))
}

fn written(output: &Output) -> String {
    String::from_utf8_lossy(output.front()).into_owned()
}

#[test]
fn a_value_is_told_as_memcached_tells_it() {
    let mut out = Output::new();
    let hit = reply(Status::Value, "VA 3 ka f7 c12", "xyz");
    assert_eq!(value(&hit, b"a", false, &mut out), Outcome::Good);
    assert_eq!(value(&hit, b"a", true, &mut out), Outcome::Good);
    assert_eq!(value(&reply(Status::Miss, "EN", ""), b"a", true, &mut out), Outcome::Miss);
    assert_eq!(written(&out), "VALUE a 7 3\r\nxyz\r\nVALUE a 7 3 12\r\nxyz\r\n");
}

#[test]
fn a_reply_to_another_request_is_nonsense_and_writes_nothing() {
    let mut out = Output::new();
    let nonsense = Outcome::Unfit(Failure::Nonsense);
    assert_eq!(value(&reply(Status::Done, "HD", ""), b"a", false, &mut out), nonsense);
    assert_eq!(value(&reply(Status::Value, "VA 0", ""), b"a", false, &mut out), nonsense);
    assert_eq!(one(&classic(Kind::Store), &reply(Status::Miss, "EN", ""), &mut out), nonsense);
    assert_eq!(one(&classic(Kind::Arith), &reply(Status::Done, "HD", ""), &mut out), nonsense);
    assert!(out.is_empty());
}

#[test]
fn every_line_ends_as_a_line() {
    let refusals = [
        Refusal::UnknownCommand,
        Refusal::BadFormat,
        Refusal::BadDataChunk,
        Refusal::InvalidExptime,
        Refusal::InvalidDelta,
        Refusal::DeleteUsage,
        Refusal::Shutdown,
        Refusal::OneServer,
        Refusal::TooLarge,
        Refusal::KeyTooLong,
        Refusal::Flags(BadFlags::Duplicate),
        Refusal::Flags(BadFlags::Any),
        Refusal::Flags(BadFlags::Opaque),
    ];
    let mut failures = Output::new();
    for reason in Failure::ALL {
        failure(reason, &mut failures);
    }
    let lines = failures.front().split_inclusive(|byte| *byte == b'\n').chain(refusals.map(line));
    for line in lines {
        assert_eq!(line.iter().position(|byte| *byte == b'\r'), Some(line.len() - 2));
        assert!(line.ends_with(b"\r\n"));
    }
}
