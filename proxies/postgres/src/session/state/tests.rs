//! A seeded simulation: what a client sees through the machine, over connections it shares with another client,
//! is what it sees from a server of its own.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::{Backend, Bounds, Machine, Mode, Need, Portable, PortableError};
use crate::error::Error;
use crate::reply;
use crate::session::names::NameBounds;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
use crate::session::survey::{Found, Survey};
use crate::sql::Kinds;
use crate::wire::backend::{
    ErrorFields, Status, put_command_complete, put_error, put_parameter_status, put_ready,
};
use crate::wire::frontend::{Parse, Target, bind_names, query_text};
use crate::wire::{Limits, decode, frontend, put, put_cstr};

/// As much of PostgreSQL as the machine deals with: statements, batches, transactions, settings, locks, COPY.
#[derive(Default)]
struct Server {
    statements: HashMap<Vec<u8>, Vec<u8>>,
    by_sql: HashMap<String, String>,
    portal: Option<Vec<u8>>,
    zone: String,
    /// A setting that is not reported, and what it was before the transaction.
    own: String,
    own_before: String,
    locks: usize,
    status: Status,
    skipping: bool,
    /// In COPY FROM STDIN; of an extended query.
    copying: Option<bool>,
}

impl Server {
    fn fail(&mut self, out: &mut BytesMut, code: &str, extended: bool) {
        let fields = ErrorFields { severity: "ERROR", code, message: "", detail: None, hint: None };
        put_error(out, &fields);
        self.failed(extended);
    }

    fn failed(&mut self, extended: bool) {
        self.skipping = extended;
        self.copying = None;
        if self.status == Status::Transaction {
            self.status = Status::Failed;
        }
    }

    fn run(&mut self, text: &[u8], out: &mut BytesMut, extended: bool) {
        self.execute(text, out, extended);
        if self.status == Status::Idle {
            self.own_before.clone_from(&self.own);
        }
    }

    fn execute(&mut self, text: &[u8], out: &mut BytesMut, extended: bool) {
        let text = String::from_utf8(text.to_vec()).unwrap();
        if self.status == Status::Failed && text != "rollback" {
            return self.fail(out, "25P02", extended);
        }
        if let Some(setup) = text.strip_prefix("SET exit_on_error=on;SELECT ") {
            for call in setup.split("pg_catalog.set_config(").skip(1) {
                let mut words = call.split('\'').skip(1);
                let (name, value) = (words.next().unwrap(), words.nth(1));
                match name {
                    "TimeZone" => {
                        value.unwrap().clone_into(&mut self.zone);
                        put_parameter_status(out, "TimeZone", &self.zone);
                    }
                    "my.own" => value.unwrap_or_default().clone_into(&mut self.own),
                    "exit_on_error" => {}
                    other => panic!("{other}"),
                }
            }
            return put_command_complete(out, "SELECT 1");
        }
        if let Some(name) = text.strip_prefix("DEALLOCATE ") {
            let name = name.trim_matches('"');
            let known =
                self.statements.remove(name.as_bytes()).is_some() || self.by_sql.remove(name).is_some();
            return match known {
                true => put_command_complete(out, "DEALLOCATE"),
                false => self.fail(out, "26000", extended),
            };
        }
        if let Some((name, text)) = text.strip_prefix("PREPARE ").and_then(|text| text.split_once(" AS ")) {
            if self.by_sql.contains_key(name) {
                return self.fail(out, "42P05", extended);
            }
            self.by_sql.insert(name.to_owned(), text.to_owned());
            return put_command_complete(out, "PREPARE");
        }
        if let Some(name) = text.strip_prefix("EXECUTE ") {
            let by_protocol =
                self.statements.get(name.as_bytes()).map(|text| String::from_utf8(text.clone()).unwrap());
            return match self.by_sql.get(name).cloned().or(by_protocol) {
                // As by SQL, where nothing else can be prepared.
                Some(text) if text != "one" && text != "two" => self.fail(out, "42601", extended),
                Some(text) => self.run(text.as_bytes(), out, extended),
                None => self.fail(out, "26000", extended),
            };
        }
        match text.as_str() {
            "begin" => self.status = Status::Transaction,
            "commit" => self.status = Status::Idle,
            "rollback" => {
                self.status = Status::Idle;
                self.own.clone_from(&self.own_before);
            }
            "fail" => return self.fail(out, "22012", extended),
            "copy" => {
                self.copying = Some(extended);
                return put(out, b'G', |out| out.put_slice(&[0, 0, 0]));
            }
            "DISCARD ALL" => {
                let zone = std::mem::take(&mut self.zone);
                *self = Server { status: self.status, ..Server::default() };
                if !zone.is_empty() {
                    put_parameter_status(out, "TimeZone", "");
                }
            }
            zone if zone.starts_with("zone") => {
                zone.clone_into(&mut self.zone);
                put_parameter_status(out, "TimeZone", zone);
                return put_command_complete(out, "SET");
            }
            set if set.starts_with("SET my.own = ") => {
                set.split('\'').nth(1).unwrap().clone_into(&mut self.own);
                return put_command_complete(out, "SET");
            }
            "RESET ALL" => {
                self.own.clear();
                if !std::mem::take(&mut self.zone).is_empty() {
                    put_parameter_status(out, "TimeZone", "");
                }
                return put_command_complete(out, "RESET");
            }
            "SELECT pg_advisory_lock(1)" => self.locks += 1,
            "SELECT pg_advisory_unlock(1)" => self.locks = self.locks.saturating_sub(1),
            _ => {
                let row = format!("{text} in {} with {} and {} locks", self.zone, self.own, self.locks);
                put(out, b'D', |out| put_cstr(out, row.as_bytes()));
            }
        }
        put_command_complete(out, &text.to_ascii_uppercase());
    }

    /// Answers a survey, as the driver would have it asked.
    fn found(&self, survey: &Survey) -> Found {
        let mut found = Found::default();
        if survey.kinds.contains(Kinds::SETTINGS)
            && !self.own.is_empty()
            && survey.custom == ["my.own".into()]
        {
            found.settings.push(("my.own".into(), self.own.clone().into()));
        }
        if survey.kinds.contains(Kinds::PREPARED) {
            found.prepared = self.by_sql.keys().map(|name| name.as_str().into()).collect();
        }
        if survey.kinds.contains(Kinds::LOCKS) && self.locks > 0 {
            found.others |= Kinds::LOCKS;
        }
        found
    }

    /// Takes one message.
    fn message(&mut self, tag: u8, raw: &[u8], out: &mut BytesMut) {
        if let Some(extended) = self.copying {
            match tag {
                b'c' => {
                    self.copying = None;
                    put_command_complete(out, "COPY 1");
                    if !extended {
                        put_ready(out, self.status);
                    }
                }
                b'f' => {
                    self.fail(out, "57014", extended);
                    if !extended {
                        put_ready(out, self.status);
                    }
                }
                b'd' | b'S' | b'H' => {}
                other => panic!("{} in COPY", other as char),
            }
            return;
        }
        if self.skipping && tag != b'S' {
            return;
        }
        match tag {
            b'Q' => {
                self.statements.remove(&b""[..]);
                self.run(query_text(raw), out, false);
                if self.copying.is_none() {
                    put_ready(out, self.status);
                }
            }
            b'P' => {
                let parse = Parse::read(raw).unwrap();
                self.statements.remove(&b""[..]).filter(|_| !parse.name.is_empty()).map(|text| {
                    // Only an unnamed one takes the place of the unnamed one.
                    self.statements.insert(Vec::new(), text)
                });
                if parse.text == b"bad" {
                    self.fail(out, "42601", true);
                } else if !parse.name.is_empty() && self.statements.contains_key(parse.name) {
                    reply::put_exchange_error(out, &Error::DuplicateStatement(parse.name.into()));
                    self.failed(true);
                } else {
                    self.statements.insert(parse.name.to_vec(), parse.text.to_vec());
                    put(out, b'1', |_| {});
                }
            }
            b'B' => match self.statements.get(bind_names(raw).unwrap().1) {
                Some(text) => {
                    self.portal = Some(text.clone());
                    put(out, b'2', |_| {});
                }
                None => self.fail(out, "26000", true),
            },
            b'D' => match Target::read(raw).unwrap() {
                Target::Statement(name) => match self.statements.get(name) {
                    Some(text) => put(out, b'T', |out| out.put_slice(text)),
                    None => self.fail(out, "26000", true),
                },
                Target::Portal(_) => put(out, b'n', |_| {}),
            },
            b'E' => match self.portal.clone() {
                Some(text) => self.run(&text, out, true),
                None => self.fail(out, "34000", true),
            },
            b'C' => {
                if let Target::Statement(name) = Target::read(raw).unwrap() {
                    self.statements.remove(name);
                    self.by_sql.remove(std::str::from_utf8(name).unwrap());
                }
                put(out, b'3', |_| {});
            }
            b'S' => {
                self.skipping = false;
                self.portal = None;
                put_ready(out, self.status);
            }
            b'H' | b'd' | b'c' | b'f' => {}
            other => panic!("{}", other as char),
        }
    }

    fn take(&mut self, input: &mut BytesMut, out: &mut BytesMut) {
        while let Some(frame) = decode(input, &Limits::default()).unwrap() {
            self.message(frame.tag, &frame.raw, out);
        }
    }
}

/// xorshift64*: the seed is all there is to know.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33).unwrap() % sides
    }
}

/// One exchange of a client: ends with a Query or a Sync.
fn exchange(dice: &mut Dice, out: &mut BytesMut) {
    const TEXTS: [&str; 18] = [
        "begin",
        "begin",
        "commit",
        "commit",
        "fail",
        "one",
        "two",
        "rollback",
        "zoneA",
        "zoneB",
        "SET my.own = '1'",
        "SET my.own = '2'",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_advisory_unlock(1)",
        "PREPARE p AS one",
        "EXECUTE p",
        "EXECUTE a",
        "DEALLOCATE p",
    ];
    const NAMES: [&str; 4] = ["", "a", "b", "c"];
    if dice.roll(3) == 0 {
        let text = match dice.roll(24) {
            0 => "DISCARD ALL",
            1 => "RESET ALL",
            2 | 3 => "PREPARE p AS two",
            _ => TEXTS[dice.roll(TEXTS.len())],
        };
        return frontend::put_query(out, text);
    }
    if dice.roll(8) == 0 {
        return copy(dice, out);
    }
    for _ in 0..=dice.roll(6) {
        let name = NAMES[dice.roll(NAMES.len())].as_bytes();
        match dice.roll(8) {
            0 | 1 => {
                let text = if dice.roll(8) == 0 { "bad" } else { TEXTS[dice.roll(TEXTS.len())] };
                frontend::put_parse(out, name, &[text.as_bytes(), &[0, 0, 0]].concat());
            }
            2..5 => {
                put(out, b'B', |out| {
                    put_cstr(out, b"");
                    put_cstr(out, name);
                    out.put_slice(&[0; 6]);
                });
                put(out, b'E', |out| out.put_slice(&[0; 5]));
            }
            5 => frontend::put_describe_statement(out, name),
            // One that SQL has prepared, too.
            6 if dice.roll(4) == 0 => frontend::put_close_statement(out, b"p"),
            6 => frontend::put_close_statement(out, name),
            _ => put(out, b'H', |_| {}),
        }
    }
    put(out, b'S', |_| {});
}

/// COPY FROM STDIN as libpq does it: in an extended query there is a Sync before the data and one after.
fn copy(dice: &mut Dice, out: &mut BytesMut) {
    let extended = dice.roll(2) == 0;
    if extended {
        frontend::put_parse(out, b"", b"copy\0\0\0");
        put(out, b'B', |out| out.put_slice(&[0; 8]));
        put(out, b'E', |out| out.put_slice(&[0; 5]));
        put(out, b'S', |_| {});
    } else {
        frontend::put_query(out, "copy");
    }
    for _ in 0..dice.roll(3) {
        put(out, b'd', |out| out.put_slice(b"row"));
    }
    if dice.roll(3) == 0 {
        put(out, b'f', |out| put_cstr(out, b"no"));
    } else {
        put(out, b'c', |_| {});
    }
    if extended {
        put(out, b'S', |_| {});
        // Or a later Bind could run it again, without data.
        frontend::put_query(out, "one");
    }
}

struct Connection {
    server: Server,
    backend: Backend,
    to_server: BytesMut,
    from_server: BytesMut,
}

struct Client {
    machine: Machine,
    direct: Server,
    unsent: BytesMut,
    input: BytesMut,
    expected: BytesMut,
    seen: BytesMut,
    lease: Option<usize>,
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.report("TimeZone", "");
    settings
}

fn client(statements: &Arc<Statements>) -> Client {
    let bounds = Bounds { message: 1 << 16, statements: NameBounds { count: 100, bytes: 1 << 16 } };
    Client {
        machine: Machine::new(Mode::Transaction, bounds, Arc::clone(statements), Arc::new(settings())),
        direct: Server::default(),
        unsent: BytesMut::new(),
        input: BytesMut::new(),
        expected: BytesMut::new(),
        seen: BytesMut::new(),
        lease: None,
    }
}

/// Moves a random part of `from`, as a socket would.
fn some(dice: &mut Dice, from: &mut BytesMut) -> BytesMut {
    let most = from.len().min(1 + dice.roll(40));
    from.split_to(most)
}

fn step(dice: &mut Dice, client: &mut Client, connections: &mut [Connection], free: &mut Vec<usize>) {
    let arrived = some(dice, &mut client.unsent);
    client.input.extend_from_slice(&arrived);
    let lease = match client.lease {
        Some(lease) => lease,
        None if client.machine.need(&mut client.input, &mut client.seen).unwrap() == Need::Server
            && !free.is_empty() =>
        {
            let lease = free.swap_remove(dice.roll(free.len()));
            let Connection { backend, to_server, .. } = &mut connections[lease];
            client.machine.begin(backend, to_server, &mut client.seen);
            client.lease = Some(lease);
            lease
        }
        None => return,
    };
    // Who wants to know comes and goes; what is noted fits what is owed (`check_notes`).
    if dice.roll(20) == 0 {
        client.machine.set_noting(dice.roll(3) > 0);
    }
    let Connection { server, backend, to_server, from_server } = &mut connections[lease];
    client.machine.from_client(&mut client.input, backend, to_server, &mut client.seen).unwrap();
    let mut sent = some(dice, to_server);
    // The model takes whole messages; what is cut off stays for the next turn.
    sent.unsplit(std::mem::take(to_server));
    server.take(&mut sent, from_server);
    *to_server = sent;
    let mut part = some(dice, from_server);
    client.machine.from_server(&mut part, backend, &mut client.seen).unwrap();
    part.unsplit(std::mem::take(from_server));
    *from_server = part;
    if client.machine.is_free() && client.input.is_empty() {
        assert!(to_server.is_empty() && from_server.is_empty(), "nothing may be left on a shared connection");
        if let Some(survey) = client.machine.survey() {
            // It is a simple query.
            server.statements.remove(&b""[..]);
            let found = server.found(&survey);
            client.machine.surveyed(survey.kinds, Some(&found), backend);
        }
        client.machine.end(backend, &mut client.seen);
        assert!(backend.dirt.is_empty());
        if client.machine.keeps_server() {
            return client.machine.begin(backend, to_server, &mut client.seen);
        }
        assert_eq!(server.locks, 0);
        client.lease = None;
        free.push(lease);
    }
}

fn connection() -> Connection {
    Connection {
        server: Server::default(),
        // Room for two statements only: they keep making place for each other.
        backend: Backend::new(settings(), 2),
        to_server: BytesMut::new(),
        from_server: BytesMut::new(),
    }
}

/// A process: its pool's statements, its server connections, and which of them nobody has.
struct Process {
    statements: Arc<Statements>,
    connections: Vec<Connection>,
    free: Vec<usize>,
}

impl Process {
    fn new() -> Process {
        let connections = vec![connection(), connection()];
        Process { statements: Arc::default(), connections, free: vec![0, 1] }
    }
}

/// Moves a client that is at rest on to another process, as bytes; false if it has to stay.
fn hand_over(client: &mut Client, next: &Process) -> bool {
    if client.lease.is_some() {
        return false;
    }
    let Some(portable) = client.machine.portable() else { return false };
    let bytes = postcard::to_stdvec(&portable).unwrap();
    let read: Portable = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(read, portable);
    let (mode, bounds, statements) =
        (client.machine.mode, client.machine.bounds, Arc::clone(&next.statements));
    client.machine = Machine::resumed(read, mode, bounds, statements).unwrap();
    assert_eq!(client.machine.portable().as_ref(), Some(&portable), "and so on to a third one");
    true
}

/// How many clients have moved, and what they had with them.
#[derive(Default)]
struct Moved {
    all: usize,
    in_transactions: usize,
    with_part_of_a_message: usize,
}

fn simulate(seed: u64, moved: &mut Moved) {
    let mut dice = Dice(seed.wrapping_mul(2).wrapping_add(1));
    let mut processes = vec![Process::new()];
    let begin = client(&processes[0].statements);
    let mut clients = [begin, client(&processes[0].statements), client(&processes[0].statements)];
    let mut homes = [0; 3];
    for round in 0..200 {
        // Half of the runs restart now and then, and others wait until they can follow.
        if seed % 2 == 1 && dice.roll(20) == 0 {
            processes.push(Process::new());
        }
        for (client, home) in clients.iter_mut().zip(&mut homes) {
            let last = processes.len() - 1;
            if *home < last && hand_over(client, &processes[last]) {
                *home = last;
                moved.all += 1;
                moved.in_transactions += usize::from(client.machine.status() != Status::Idle);
                moved.with_part_of_a_message += usize::from(!client.input.is_empty());
            }
            if client.unsent.is_empty() && client.input.is_empty() && client.lease.is_none() {
                let mut messages = BytesMut::new();
                exchange(&mut dice, &mut messages);
                client.unsent.extend_from_slice(&messages);
                client.direct.take(&mut messages, &mut client.expected);
            }
            let Process { connections, free, .. } = &mut processes[*home];
            step(&mut dice, client, connections, free);
        }
        for client in &mut clients {
            let common = client.seen.len().min(client.expected.len());
            assert_eq!(
                Bytes::copy_from_slice(&client.seen[..common]),
                Bytes::copy_from_slice(&client.expected[..common]),
                "seed {seed}, round {round}"
            );
        }
    }
}

#[test]
fn a_shared_connection_looks_like_ones_own() {
    let mut moved = Moved::default();
    for seed in 0..2500 {
        simulate(seed, &mut moved);
    }
    let Moved { all, in_transactions, with_part_of_a_message } = moved;
    let seen = format!("{all}, {in_transactions}, {with_part_of_a_message}");
    assert!(all > 5000 && in_transactions > 50 && with_part_of_a_message > 1000, "{seen} moved");
}

/// A machine that has something of everything that goes with it.
fn rich() -> Portable {
    let mut client = client(&Arc::default());
    let (mut process, mut dice) = (Process::new(), Dice(7));
    let mut run = |client: &mut Client, text: &str| {
        frontend::put_query(&mut client.unsent, text);
        for turn in 0.. {
            if client.unsent.is_empty() && client.input.is_empty() && client.lease.is_none() {
                break;
            }
            assert!(turn < 1000, "{text} does not end: {client:?}", client = client.machine);
            step(&mut dice, client, &mut process.connections, &mut process.free);
        }
    };
    run(&mut client, "zoneA");
    run(&mut client, "SET my.own = '1'");
    run(&mut client, "PREPARE p AS one");
    frontend::put_parse(&mut client.unsent, b"a", b"one\0\0\0");
    put(&mut client.unsent, b'S', |_| {});
    run(&mut client, "one");
    run(&mut client, "begin");
    client.machine.portable().unwrap()
}

#[test]
fn a_state_that_is_cut_off_or_garbled_is_refused_or_harmless() {
    let whole = postcard::to_stdvec(&rich()).unwrap();
    for length in 0..whole.len() {
        assert!(postcard::from_bytes::<Portable>(&whole[..length]).is_err(), "{length} bytes");
    }
    let bounds = Bounds { message: 1 << 16, statements: NameBounds { count: 100, bytes: 1 << 16 } };
    let mut dice = Dice(11);
    for _ in 0..20_000 {
        let mut garbled = whole.clone();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(garbled.len());
            garbled[at] = u8::try_from(dice.roll(256)).unwrap();
        }
        if let Ok(portable) = postcard::from_bytes::<Portable>(&garbled)
            && let Ok(machine) = Machine::resumed(portable, Mode::Transaction, bounds, Arc::default())
        {
            machine.check_invariants();
        }
    }
}

/// A client's query, what the server answers, and then its farewell in the same packet.
fn farewell_after(answer: impl Fn(&mut BytesMut)) -> (Client, Backend, BytesMut) {
    let mut client = client(&Arc::default());
    let mut backend = Backend::new(settings(), 10);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    frontend::put_query(&mut client.input, "select 1");
    assert_eq!(client.machine.need(&mut client.input, &mut to_client).unwrap(), Need::Server);
    client.machine.begin(&mut backend, &mut to_server, &mut to_client);
    client.machine.from_client(&mut client.input, &mut backend, &mut to_server, &mut to_client).unwrap();
    let mut from_server = BytesMut::new();
    answer(&mut from_server);
    let fields = ErrorFields { severity: "FATAL", code: "57P01", message: "", detail: None, hint: None };
    put_error(&mut from_server, &fields);
    client.machine.from_server(&mut from_server, &mut backend, &mut to_client).unwrap();
    assert!(from_server.is_empty());
    (client, backend, to_client)
}

#[test]
fn what_a_server_has_not_read_is_sent_to_another() {
    let farewell = |code: &str| {
        let mut out = BytesMut::new();
        put_error(&mut out, &ErrorFields { severity: "FATAL", code, message: "", detail: None, hint: None });
        out
    };
    let statements = Arc::<Statements>::default();
    let mut client = client(&statements);
    let fresh = || Backend::new(settings(), 10);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    client.machine.set_noting(true);
    frontend::put_query(&mut client.input, "begin");
    assert_eq!(client.machine.need(&mut client.input, &mut to_client).unwrap(), Need::More);
    frontend::put_parse(&mut client.input, b"one", b"select 1\0\0\0");
    // The invariants hold only if what is not sent after all is not noted either.
    put(&mut client.input, b'E', |out| out.put_slice(&[0; 5]));
    frontend::put_sync(&mut client.input);
    to_client.clear();
    let mut sent = Vec::new();
    for _ in 0..3 {
        assert_eq!(client.machine.need(&mut client.input, &mut to_client).unwrap(), Need::Server);
        let (before, mut backend, mut input) = (client.machine.before(), fresh(), client.input.clone());
        client.machine.begin(&mut backend, &mut to_server, &mut to_client);
        client.machine.from_client(&mut input, &mut backend, &mut to_server, &mut to_client).unwrap();
        assert!(input.is_empty() && to_client.is_empty());
        sent.push(std::mem::take(&mut to_server));
        assert!(!client.machine.is_unheard(&before, &farewell("57014")), "only a server that goes");
        assert!(!client.machine.is_unheard(&before, b"1\0\0\0\x04"), "it has read some of it");
        assert!(client.machine.is_unheard(&before, &farewell("57P01")));
        client.machine.unsend(before, &mut backend);
        assert_eq!(client.machine.status(), Status::Transaction);
    }
    assert!(sent[0] == sent[1] && sent[1] == sent[2], "the same each time, its BEGIN included");

    // A query alone may have run to its end, for all its client knows.
    let mut client = self::client(&statements);
    frontend::put_query(&mut client.input, "update kept set n = n + 1");
    let (before, mut backend) = (client.machine.before(), fresh());
    client.machine.begin(&mut backend, &mut to_server, &mut to_client);
    client.machine.from_client(&mut client.input, &mut backend, &mut to_server, &mut to_client).unwrap();
    assert!(!client.machine.is_unheard(&before, &farewell("57P01")));
}

#[test]
fn a_farewell_after_the_answer_is_not_for_the_client() {
    let answered = |out: &mut BytesMut| {
        put_command_complete(out, "SELECT 1");
        put_ready(out, Status::Idle);
    };
    let (client, backend, to_client) = farewell_after(answered);
    let mut answer = BytesMut::new();
    answered(&mut answer);
    assert_eq!(to_client, answer);
    assert!(backend.is_over && client.machine.is_free() && !client.machine.was_told_fatal());

    let (client, backend, to_client) = farewell_after(|_| {});
    assert!(client.machine.was_told_fatal() && !backend.is_over, "in the midst of the query it is");
    assert!(to_client.first() == Some(&b'E'));

    let (client, _, to_client) = farewell_after(|out| {
        put_command_complete(out, "BEGIN");
        put_ready(out, Status::Transaction);
    });
    assert!(client.machine.was_told_fatal() && to_client.ends_with(b"\0\0"), "and within a transaction");
}

#[test]
fn what_is_left_of_an_unwanted_message_is_dropped_by_the_next_process() {
    let mut client = client(&Arc::default());
    // A COPY that its server has ended with an error: nobody wants the rest of it.
    let (one, other) = b"d\0\0\0\x0aa longS\0\0\0\x04".split_at(8);
    client.input.extend_from_slice(one);
    assert_eq!(client.machine.need(&mut client.input, &mut client.seen).unwrap(), Need::More);
    assert!(client.input.is_empty() && hand_over(&mut client, &Process::new()));
    client.input.extend_from_slice(other);
    assert_eq!(client.machine.need(&mut client.input, &mut client.seen).unwrap(), Need::More);
    assert_eq!((&client.seen[..], &client.input[..]), (&b"Z\0\0\0\x05I"[..], &b""[..]));
}

#[test]
fn a_session_goes_on_only_where_there_is_room_and_the_same_mode() {
    let bounds = Bounds { message: 1 << 16, statements: NameBounds { count: 100, bytes: 1 << 16 } };
    let resumed = |mode, bounds| Machine::resumed(rich(), mode, bounds, Arc::default());
    resumed(Mode::Transaction, bounds).unwrap();
    for mode in [Mode::Session, Mode::Statement] {
        assert!(matches!(resumed(mode, bounds), Err(PortableError::Mode)));
    }
    let narrow = Bounds { statements: NameBounds { count: 0, bytes: 1 << 16 }, ..bounds };
    assert!(matches!(resumed(Mode::Transaction, narrow), Err(PortableError::Bounds(_))));
    let short = Bounds { statements: NameBounds { count: 100, bytes: 10 }, ..bounds };
    assert!(resumed(Mode::Transaction, short).is_err());
}
