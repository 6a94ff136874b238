//! What is noted of statements: their texts, their rows, their ends and their times.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::*;
use crate::session::names::NameBounds;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
use crate::session::state::{Backend, Bounds, Mode};
use crate::wire::backend::{ErrorFields, Status, put_command_complete, put_error, put_ready};
use crate::wire::{put, put_cstr};

/// A session on a connection of its own, and the time, which stands still by itself.
struct Session {
    machine: Machine,
    backend: Backend,
    replies: BytesMut,
    now: Instant,
}

fn session(mode: Mode) -> Session {
    let bounds = Bounds { message: 1 << 20, statements: NameBounds { count: 100, bytes: 1 << 20 } };
    let settings = Arc::new(Settings::default());
    Session {
        machine: Machine::new(mode, bounds, Arc::new(Statements::default()), Arc::clone(&settings)),
        backend: Backend::new(Settings::default(), 10),
        replies: BytesMut::new(),
        now: Instant::now(),
    }
}

impl Session {
    fn sends(&mut self, messages: impl FnOnce(&mut BytesMut)) {
        let (mut input, mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
        messages(&mut input);
        // Byte by byte: what is incomplete is not noted twice.
        let mut arrived = BytesMut::new();
        for byte in input {
            arrived.put_u8(byte);
            self.machine
                .from_client(&mut arrived, &mut self.backend, &mut to_server, &mut to_client)
                .unwrap();
        }
        assert!(arrived.is_empty());
        let now = self.now;
        self.machine.notes().unwrap().sent(|| now);
    }

    /// The server answers, so many milliseconds later.
    fn hears(&mut self, millis: u64, replies: impl FnOnce(&mut BytesMut)) -> Option<Settled> {
        replies(&mut self.replies);
        self.now += Duration::from_millis(millis);
        let mut to_client = BytesMut::new();
        self.machine.from_server(&mut self.replies, &mut self.backend, &mut to_client).unwrap();
        let now = self.now;
        self.machine.notes().unwrap().settle(|| now)
    }
}

fn parse(out: &mut BytesMut, name: &str, text: &str) {
    frontend::put_parse(out, name.as_bytes(), &[text.as_bytes(), &[0, 0, 0]].concat());
}

fn bind(out: &mut BytesMut, portal: &str, name: &str) {
    put(out, b'B', |out| {
        put_cstr(out, portal.as_bytes());
        put_cstr(out, name.as_bytes());
        out.put_slice(&[0; 6]);
    });
}

fn execute(out: &mut BytesMut, portal: &str, rows_max: u32) {
    put(out, b'E', |out| {
        put_cstr(out, portal.as_bytes());
        out.put_u32(rows_max);
    });
}

fn fail(out: &mut BytesMut, code: &str) {
    put_error(out, &ErrorFields { severity: "ERROR", code, message: "", detail: None, hint: None });
}

fn empty(out: &mut BytesMut, tag: u8) {
    put(out, tag, |_| {});
}

/// What was said, how many rows, how it ended.
fn of(settled: &Settled) -> Vec<(String, u64, Outcome)> {
    let text = |finished: &Finished| match &finished.text {
        Text::Sql(content) => {
            let text = crate::wire::cstr(content).map_or(&content[..], |(text, _)| text);
            String::from_utf8_lossy(&text[..text.len().min(40)]).into_owned()
        }
        Text::Call => "call".to_owned(),
        Text::Unknown => "unknown".to_owned(),
    };
    settled.statements.iter().map(|finished| (text(finished), finished.rows, finished.outcome)).collect()
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_query_is_one_statement_with_all_its_rows() {
    let mut session = session(Mode::Transaction);
    session.machine.set_noting(true);
    session.machine.notes().unwrap().leased(session.now, ms(5));
    session.sends(|out| frontend::put_query(out, "SELECT 1; UPDATE t"));
    assert!(session.hears(3, |out| put_command_complete(out, "SELECT 1")).is_none());
    let settled = session.hears(4, |out| {
        put_command_complete(out, "UPDATE 41");
        put_ready(out, Status::Idle);
    });
    let settled = settled.unwrap();
    assert_eq!(of(&settled), [("SELECT 1; UPDATE t".to_owned(), 42, Outcome::Done)]);
    assert_eq!((settled.took, settled.waited), (ms(7), ms(5)));
    // The next one did not wait, and its time is its own.
    session.now += ms(100);
    session.sends(|out| frontend::put_query(out, "two"));
    let settled = session.hears(2, |out| {
        fail(out, "42601");
        put_ready(out, Status::Idle);
    });
    let settled = settled.unwrap();
    assert_eq!(of(&settled), [("two".to_owned(), 0, Outcome::Failed(*b"42601"))]);
    assert_eq!((settled.took, settled.waited), (ms(2), ms(0)));
}

#[test]
fn executions_are_known_by_their_portals_in_every_mode() {
    for mode in [Mode::Transaction, Mode::Session] {
        let mut session = session(mode);
        session.machine.set_noting(true);
        session.sends(|out| {
            parse(out, "a", "one");
            parse(out, "", "two");
            bind(out, "", "a");
            bind(out, "p", "");
            execute(out, "", 0);
            execute(out, "p", 10);
            execute(out, "p", 10);
            execute(out, "q", 0);
            frontend::put_sync(out);
        });
        let settled = session.hears(6, |out| {
            b"1122".iter().for_each(|tag| empty(out, *tag));
            put_command_complete(out, "SELECT 5");
        });
        let settled = settled.unwrap();
        assert_eq!(of(&settled), [("one".to_owned(), 5, Outcome::Done)], "{mode:?}");
        assert_eq!(settled.took, ms(6));
        let settled = session.hears(1, |out| {
            empty(out, b's');
            put_command_complete(out, "SELECT 3");
        });
        let settled = settled.unwrap();
        assert_eq!(
            of(&settled),
            [("two".to_owned(), 10, Outcome::Done), ("two".to_owned(), 3, Outcome::Done)],
            "{mode:?}"
        );
        assert_eq!(settled.took, ms(1), "from the end of the one before");
        let settled = session.hears(1, |out| {
            fail(out, "34000");
            put_ready(out, Status::Idle);
        });
        assert_eq!(of(&settled.unwrap()), [("unknown".to_owned(), 0, Outcome::Failed(*b"34000"))]);
    }
}

#[test]
fn what_an_error_skips_is_not_told() {
    let mut session = session(Mode::Transaction);
    session.machine.set_noting(true);
    session.sends(|out| {
        for text in ["one", "two", "three"] {
            parse(out, "", text);
            bind(out, "", "");
            execute(out, "", 0);
        }
        frontend::put_query(out, "skipped");
        frontend::put_sync(out);
        parse(out, "b", "bad");
        frontend::put_sync(out);
        frontend::put_query(out, "last");
    });
    let settled = session.hears(1, |out| {
        b"12".iter().for_each(|tag| empty(out, *tag));
        put_command_complete(out, "INSERT 0 7");
        empty(out, b'1');
        fail(out, "22012");
        put_ready(out, Status::Idle);
        fail(out, "42P01");
        put_ready(out, Status::Idle);
        put_command_complete(out, "SELECT 0");
        put_ready(out, Status::Idle);
    });
    let failed = |text: &str, code| (text.to_owned(), 0, Outcome::Failed(code));
    assert_eq!(
        of(&settled.unwrap()),
        [
            ("one".to_owned(), 7, Outcome::Done),
            failed("two", *b"22012"),
            failed("bad", *b"42P01"),
            ("last".to_owned(), 0, Outcome::Done),
        ]
    );
    assert!(session.machine.is_free());
}

#[test]
fn what_was_asked_before_is_not_taken_for_what_is_asked_now() {
    let mut session = session(Mode::Transaction);
    session.machine.set_noting(true);
    session.sends(|out| frontend::put_query(out, "before"));
    session.machine.set_noting(false);
    session.machine.set_noting(true);
    session.sends(|out| frontend::put_query(out, "after"));
    let reply = |out: &mut BytesMut| {
        put_command_complete(out, "SELECT 1");
        put_ready(out, Status::Idle);
    };
    assert!(session.hears(3, reply).is_none());
    let settled = session.hears(4, reply).unwrap();
    assert_eq!(of(&settled), [("after".to_owned(), 1, Outcome::Done)]);
    assert_eq!(settled.took, ms(4));
    // Who leaves in the midst of one.
    session.sends(|out| frontend::put_query(out, "last"));
    let left = session.machine.take_notes().unwrap().leave(|| session.now + ms(9)).unwrap();
    assert_eq!(of(&left), [("last".to_owned(), 0, Outcome::Unfinished)]);
    assert_eq!(left.took, ms(9));
}

#[test]
fn long_texts_in_flight_are_bounded() {
    let mut session = session(Mode::Session);
    session.machine.set_noting(true);
    let long = "x".repeat(2 * TEXT_MAX);
    let many = HELD_MAX / TEXT_MAX + 3;
    session.machine.notes().unwrap().leased(session.now, ms(0));
    let (mut input, mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    (0..many).for_each(|_| frontend::put_query(&mut input, &long));
    session.machine.from_client(&mut input, &mut session.backend, &mut to_server, &mut to_client).unwrap();
    let settled = session.hears(1, |out| (0..many).for_each(|_| put_ready(out, Status::Idle))).unwrap();
    let unknown = of(&settled).iter().filter(|(text, ..)| text == "unknown").count();
    assert!((1..=3).contains(&unknown) && settled.statements.len() == many, "{unknown}");
}
