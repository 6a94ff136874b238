//! Where what a client sends goes, by its bytes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::*;
use crate::session::names::NameBounds;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
use crate::session::state::{Backend, Bounds, Mode};
use crate::wire::frontend::{
    put_bind_head, put_describe_statement, put_execute, put_parse, put_query, put_sync,
};

fn settings(asked: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::default();
    settings.report("standard_conforming_strings", "on");
    settings.report("default_transaction_read_only", "off");
    asked.iter().for_each(|(name, value)| settings.ask(name, value));
    settings
}

fn machine_with(settings: Settings) -> Machine {
    let bounds = Bounds { message: 4096, statements: NameBounds { count: 100, bytes: 1 << 20 } };
    Machine::new(Mode::Transaction, bounds, Arc::new(Statements::default()), Arc::new(settings))
}

fn machine() -> Machine {
    machine_with(settings(&[]))
}

fn parse(out: &mut BytesMut, name: &str, text: &str) {
    put_parse(out, name.as_bytes(), &[text.as_bytes(), &[0, 0, 0]].concat());
}

fn run(out: &mut BytesMut, name: &str) {
    // Formats, parameters, formats: none of each.
    let head = 5 + 1 + name.len() + 1;
    put_bind_head(out, head + 6, b"", name.as_bytes(), name.as_bytes());
    out.extend_from_slice(&[0; 6]);
    put_execute(out, 0);
}

/// A batch that parses and runs these, without names.
fn batch(texts: &[&str]) -> BytesMut {
    let mut out = BytesMut::new();
    for text in texts {
        parse(&mut out, "", text);
        run(&mut out, "");
    }
    put_sync(&mut out);
    out
}

fn query(text: &str) -> BytesMut {
    let mut out = BytesMut::new();
    put_query(&mut out, text);
    out
}

fn placed(machine: &Machine, input: &[u8]) -> Placement {
    machine.placement(input, &Judge::new(&[]))
}

fn reads(groups: u8, bytes: usize) -> Placement {
    Placement::Replica(Grant { groups, bytes, in_transaction: false })
}

fn transaction(bytes: usize) -> Placement {
    Placement::Replica(Grant { groups: 1, bytes, in_transaction: true })
}

#[test]
fn a_batch_is_whole_before_it_is_placed() {
    let batch = batch(&["SELECT 1", "SELECT $1"]);
    for cut in 0..batch.len() {
        assert_eq!(placed(&machine(), &batch[..cut]), Placement::Unknown, "{cut} bytes of it");
    }
    assert_eq!(placed(&machine(), &batch), reads(1, batch.len()));
    // What writes need not be waited for.
    let mut writes = BytesMut::new();
    parse(&mut writes, "", "DELETE FROM t");
    assert_eq!(placed(&machine(), &writes), Placement::Primary);
    let mut flushed = batch.clone();
    flushed.truncate(batch.len() - 5);
    assert_eq!(placed(&machine(), &flushed), Placement::Unknown);
    flushed.extend_from_slice(b"H\0\0\0\x04");
    assert_eq!(placed(&machine(), &flushed), Placement::Primary, "its client goes on by what it hears");
    let long = "SELECT '".to_owned() + &"x".repeat(5000) + "'";
    assert_eq!(placed(&machine(), &query(&long)), Placement::Primary, "what is not held whole");
}

#[test]
fn as_much_as_reads_is_placed_and_no_more() {
    let (read, write) = (query("SELECT 1"), query("DELETE FROM t"));
    let both = [&read[..], &batch(&["SELECT 1"]), &write, &read].concat();
    assert_eq!(placed(&machine(), &both), reads(2, both.len() - write.len() - read.len()));
    assert_eq!(placed(&machine(), &[&read[..], &read[..3]].concat()), reads(1, read.len()));
    assert_eq!(placed(&machine(), &batch(&["SELECT 1", "DELETE FROM t"])), Placement::Primary);
    let many = read.repeat(200);
    assert_eq!(placed(&machine(), &many), reads(GROUPS_MAX, read.len() * usize::from(GROUPS_MAX)));
    // A query within a batch, and a function call.
    let mut within = BytesMut::new();
    parse(&mut within, "", "SELECT 1");
    put_query(&mut within, "SELECT 1");
    assert_eq!(placed(&machine(), &within), Placement::Primary);
    assert_eq!(placed(&machine(), b"F\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0"), Placement::Primary);
}

#[test]
fn a_prepared_statement_is_what_its_text_is() {
    let mut machine = machine();
    let mut backend = Backend::new(settings(&[]), 10);
    let mut input = BytesMut::new();
    parse(&mut input, "reads", "SELECT 1");
    parse(&mut input, "writes", "DELETE FROM t");
    parse(&mut input, "", "SELECT 2");
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    machine.from_client(&mut input, &mut backend, &mut to_server, &mut to_client).unwrap();
    let run_and_sync = |name: &str| {
        let mut out = BytesMut::new();
        run(&mut out, name);
        put_sync(&mut out);
        out
    };
    for (name, is_read) in [("reads", true), ("", true), ("writes", false), ("unknown", false)] {
        let input = run_and_sync(name);
        let expected = if is_read { reads(1, input.len()) } else { Placement::Primary };
        assert_eq!(placed(&machine, &input), expected, "{name}");
    }
    let mut described = BytesMut::new();
    put_describe_statement(&mut described, b"writes");
    put_sync(&mut described);
    assert_eq!(placed(&machine, &described), Placement::Primary);
    // Under a name that was another's a moment ago.
    let mut renamed = BytesMut::new();
    parse(&mut renamed, "writes", "SELECT 1");
    run(&mut renamed, "writes");
    put_sync(&mut renamed);
    assert_eq!(placed(&machine, &renamed), reads(1, renamed.len()));
    machine.misjudged(&run_and_sync("reads"), &Judge::new(&[]));
    assert_eq!(placed(&machine, &run_and_sync("reads")), Placement::Primary, "a replica has refused it");
}

#[test]
fn a_transaction_that_is_begun_by_protocol_is_known_by_its_begin() {
    for (texts, is_read) in [
        (&["BEGIN READ ONLY", "SELECT 1"][..], true),
        (&["BEGIN", "SET TRANSACTION READ ONLY", "SELECT 1"], true),
        (&["BEGIN READ ONLY", "SELECT f()"], true),
        (&["BEGIN READ ONLY"], true),
        (&["BEGIN"], false),
        (&["BEGIN", "SELECT 1"], false),
        (&["SELECT 1", "BEGIN READ ONLY"], false),
        (&["BEGIN READ ONLY", "SET TRANSACTION READ WRITE"], false),
        (&["BEGIN READ ONLY ISOLATION LEVEL SERIALIZABLE"], false),
        (&["SET TRANSACTION READ ONLY", "SELECT 1"], false),
    ] {
        let input = batch(texts);
        let expected = if is_read { transaction(input.len()) } else { Placement::Primary };
        assert_eq!(placed(&machine(), &input), expected, "{texts:?}");
    }
}

#[test]
fn a_transaction_that_no_server_knows_of_goes_with_its_first_statement() {
    for (begin, first, is_read) in [
        ("BEGIN READ ONLY", "SELECT 1", true),
        ("BEGIN READ ONLY", "SELECT f()", true),
        ("BEGIN", "SET TRANSACTION READ ONLY", true),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION READ ONLY", false),
        ("BEGIN READ ONLY", "SET TRANSACTION READ WRITE", false),
        ("BEGIN", "SELECT 1", false),
    ] {
        let (mut machine, mut told) = (machine(), BytesMut::new());
        let need = machine.need(&mut query(begin), &mut told).unwrap();
        assert!(need == super::super::Need::More && !told.is_empty());
        let input = query(first);
        let expected = if is_read { transaction(input.len()) } else { Placement::Primary };
        assert_eq!(placed(&machine, &input), expected, "{begin}; {first}");
    }
}

#[test]
fn a_session_has_a_say() {
    let (read, write) = (query("SELECT 1"), query("DELETE FROM t"));
    let whatever = transaction(0);
    for (asked, of_read, of_write) in [
        (&[("groove.role", "primary")][..], Placement::Primary, Placement::Primary),
        (&[("groove.role", "replica")], whatever, whatever),
        (&[("groove.role", "auto")], reads(1, read.len()), Placement::Primary),
        (&[("groove.role", "nonsense")], reads(1, read.len()), Placement::Primary),
        (&[("default_transaction_isolation", "serializable")], Placement::Primary, Placement::Primary),
    ] {
        let machine = machine_with(settings(asked));
        assert_eq!((placed(&machine, &read), placed(&machine, &write)), (of_read, of_write), "{asked:?}");
    }
    let mut escaping = settings(&[]);
    escaping.report("standard_conforming_strings", "off");
    assert_eq!(placed(&machine_with(escaping), &query("SELECT 'a\\'")), Placement::Primary);
}

#[test]
fn what_is_behind_the_fence_waits_for_another_server() {
    let mut machine = machine();
    let mut backend = Backend::new(settings(&[]), 10);
    let (read, write) = (query("SELECT 1"), query("DELETE FROM t"));
    let mut input = BytesMut::from(&[&read[..], &write, &read].concat()[..]);
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    machine.set_fence(Some(1));
    machine.from_client(&mut input, &mut backend, &mut to_server, &mut to_client).unwrap();
    assert_eq!((&to_server[..], input.len()), (&read[..], write.len() + read.len()));
    assert!(machine.has_sent_all());
    let answer = |machine: &mut Machine, backend: &mut Backend, status: u8| {
        let mut said = BytesMut::from(&b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05"[..]);
        said.extend_from_slice(&[status]);
        machine.from_server(&mut said, backend, &mut BytesMut::new()).unwrap();
    };
    // Within a transaction it is this server's, one after the other.
    answer(&mut machine, &mut backend, b'T');
    to_server.clear();
    machine.from_client(&mut input, &mut backend, &mut to_server, &mut to_client).unwrap();
    assert_eq!((&to_server[..], input.len()), (&write[..], read.len()));
    answer(&mut machine, &mut backend, b'I');
    to_server.clear();
    machine.from_client(&mut input, &mut backend, &mut to_server, &mut to_client).unwrap();
    assert!(to_server.is_empty() && machine.is_free());
    machine.end(&mut backend, &mut BytesMut::new());
    assert_eq!(Bytes::from(input), Bytes::from(read));
}
