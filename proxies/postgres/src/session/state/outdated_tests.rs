//! Who hears of a plan that is outdated, and who does not.

use std::sync::Arc;

use bytes::BufMut;

use super::*;
use crate::session::names::NameBounds;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
use crate::session::state::{Bounds, Mode, Need};
use crate::wire::backend::{ErrorFields, put_command_complete, put_error, put_ready};
use crate::wire::{put, put_cstr};

const OUTDATED: ErrorFields<'static> = ErrorFields {
    severity: "ERROR",
    code: "0A000",
    message: "cached plan must not change result type",
    detail: None,
    hint: None,
};

/// Two clients of a pool, and the connection that both use.
struct Scene {
    clients: [Machine; 2],
    backend: Backend,
}

impl Scene {
    fn new() -> Scene {
        let statements = Arc::new(Statements::default());
        let bounds = Bounds { message: 1 << 16, statements: NameBounds { count: 100, bytes: 1 << 16 } };
        let settings = Arc::new(Settings::default());
        let client =
            || Machine::new(Mode::Transaction, bounds, Arc::clone(&statements), Arc::clone(&settings));
        let clients = [client(), client()].map(|mut client| {
            client.set_noting(true);
            client
        });
        Scene { clients, backend: Backend::new(Settings::default(), 10) }
    }

    /// What a client sends at once, and what of it comes to the server.
    fn sends(&mut self, client: usize, message: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let (machine, mut input) = (&mut self.clients[client], BytesMut::new());
        let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
        message(&mut input);
        if !machine.is_busy() && machine.need(&mut input, &mut to_client).unwrap() == Need::Server {
            machine.begin(&mut self.backend, &mut to_server, &mut to_client);
        }
        machine.from_client(&mut input, &mut self.backend, &mut to_server, &mut to_client).unwrap();
        to_server
    }

    /// The types of the messages that a client hears of what the server says.
    fn hears(&mut self, client: usize, say: impl FnOnce(&mut BytesMut)) -> String {
        let (mut replies, mut to_client) = (BytesMut::new(), BytesMut::new());
        say(&mut replies);
        self.clients[client].from_server(&mut replies, &mut self.backend, &mut to_client).unwrap();
        assert!(replies.is_empty());
        types(&to_client)
    }

    /// The batch that is to be sent again, and what comes of it to the server.
    fn again(&mut self, client: usize) -> Option<BytesMut> {
        let mut to_server = BytesMut::new();
        let batch = self.clients[client].take_outdated(&mut to_server)?;
        to_server.unsplit(self.sends(client, |out| out.extend_from_slice(&batch)));
        Some(to_server)
    }
}

fn types(mut messages: &[u8]) -> String {
    let mut types = String::new();
    while let Ok(Some(header)) = crate::wire::Header::read(messages) {
        types.push(header.tag.into());
        messages = &messages[header.total..];
    }
    types
}

fn parse(out: &mut BytesMut) {
    frontend::put_parse(out, b"a", b"select * from t\0\0\0");
}

fn run(out: &mut BytesMut) {
    put(out, b'B', |out| {
        put_cstr(out, b"");
        put_cstr(out, b"a");
        out.put_slice(&[0; 6]);
    });
    put(out, b'E', |out| out.put_slice(&[0; 5]));
    frontend::put_sync(out);
}

fn is_run(out: &mut BytesMut) {
    put(out, b'2', |_| {});
    put_command_complete(out, "SELECT 1");
    put_ready(out, Status::Idle);
}

fn is_parsed_and_run(out: &mut BytesMut) {
    put(out, b'1', |_| {});
    is_run(out);
}

fn is_outdated(out: &mut BytesMut) {
    put_error(out, &OUTDATED);
    put_ready(out, Status::Idle);
}

/// The first client has prepared and run the statement.
fn prepared_by_the_first() -> Scene {
    let mut scene = Scene::new();
    let sent = scene.sends(0, |out| {
        parse(out);
        run(out);
    });
    assert_eq!((types(&sent).as_str(), scene.hears(0, is_parsed_and_run).as_str()), ("PBES", "12CZ"));
    scene
}

#[test]
fn who_parses_after_a_change_does_not_hear_of_it() {
    let mut scene = prepared_by_the_first();
    let sent = scene.sends(1, |out| {
        parse(out);
        run(out);
    });
    assert_eq!(types(&sent), "BES", "the connection has it");
    assert_eq!(scene.hears(1, is_outdated), "");
    assert_eq!(types(&scene.again(1).unwrap()), "PBES");
    assert_eq!(scene.hears(1, is_parsed_and_run), "2CZ");
    assert!(scene.clients[1].is_free() && scene.again(1).is_none());
    assert_eq!(scene.clients[1].take_queries(), 1, "it was run once");
    assert_eq!(types(&scene.sends(1, run)), "BES", "and is parsed now");
}

#[test]
fn who_had_it_before_the_change_hears_of_it_once() {
    let mut scene = prepared_by_the_first();
    scene.sends(0, run);
    assert_eq!(scene.hears(0, is_outdated), "EZ");
    assert!(scene.again(0).is_none());
    assert_eq!(types(&scene.sends(0, run)), "PBES");
    assert_eq!(scene.hears(0, is_parsed_and_run), "2CZ");
}

#[test]
fn what_the_server_took_once_is_not_kept_again() {
    let mut scene = prepared_by_the_first();
    scene.sends(1, parse);
    for round in 0..2 {
        scene.sends(1, run);
        assert_eq!(scene.clients[1].suspect.is_some(), round == 0);
        scene.hears(1, is_run);
    }
}

#[test]
fn a_description_comes_whole_or_again() {
    let describe = |out: &mut BytesMut| {
        parse(out);
        frontend::put_describe_statement(out, b"a");
        frontend::put_sync(out);
    };
    let parameters = |out: &mut BytesMut| put(out, b't', |out| out.put_slice(&[0; 2]));
    let columns = |out: &mut BytesMut| {
        put(out, b'T', |out| out.put_slice(&[0; 2]));
        put_ready(out, Status::Idle);
    };
    let mut scene = prepared_by_the_first();
    assert_eq!(types(&scene.sends(1, describe)), "DS");
    assert_eq!(scene.hears(1, parameters), "", "nobody knows yet");
    assert_eq!(scene.hears(1, columns), "tTZ");

    let mut scene = prepared_by_the_first();
    scene.sends(1, describe);
    scene.hears(1, parameters);
    assert_eq!(scene.hears(1, is_outdated), "");
    assert_eq!(types(&scene.again(1).unwrap()), "PDS");
    let again = |out: &mut BytesMut| {
        put(out, b'1', |_| {});
        parameters(out);
        columns(out);
    };
    assert_eq!(scene.hears(1, again), "tTZ");

    let mut scene = prepared_by_the_first();
    scene.sends(1, describe);
    scene.hears(1, parameters);
    let other = |out: &mut BytesMut| put_error(out, &ErrorFields { code: "XX000", message: "", ..OUTDATED });
    assert_eq!(scene.hears(1, other), "tE", "what fails otherwise is told as it is");
}

#[test]
fn who_only_flushes_does_not_hear_of_it_either() {
    let mut scene = prepared_by_the_first();
    scene.sends(1, |out| {
        parse(out);
        frontend::put_describe_statement(out, b"a");
        put(out, b'H', |_| {});
    });
    let parameters = |out: &mut BytesMut| put(out, b't', |out| out.put_slice(&[0; 2]));
    let error = |out: &mut BytesMut| {
        parameters(out);
        put_error(out, &OUTDATED);
    };
    assert_eq!(scene.hears(1, error), "");
    assert_eq!(types(&scene.again(1).unwrap()), "SPDH", "the server is told that its error is over");
    let again = |out: &mut BytesMut| {
        put_ready(out, Status::Idle);
        put(out, b'1', |_| {});
        parameters(out);
        put(out, b'T', |out| out.put_slice(&[0; 2]));
    };
    assert_eq!(scene.hears(1, again), "tT");
    scene.sends(1, frontend::put_sync);
    assert_eq!(scene.hears(1, |out| put_ready(out, Status::Idle)), "Z");
    assert!(scene.clients[1].is_free());
}

#[test]
fn what_is_more_than_one_use_is_told() {
    // More behind it, in a transaction, or more before it.
    let behind: fn(&mut BytesMut) = |out| {
        run(out);
        run(out);
    };
    let within: fn(&mut BytesMut) = |out| {
        frontend::put_query(out, "begin");
        run(out);
    };
    for batch in [behind, within] {
        let mut scene = prepared_by_the_first();
        scene.sends(1, |out| {
            parse(out);
            batch(out);
        });
        assert!(scene.clients[1].suspect.is_none());
    }
    let mut scene = prepared_by_the_first();
    scene.sends(1, |out| {
        parse(out);
        run(out);
    });
    scene.sends(1, |out| frontend::put_query(out, "select 2"));
    assert_eq!(scene.hears(1, is_outdated), "EZ", "the next is under way");

    let mut scene = prepared_by_the_first();
    scene.sends(1, |out| {
        frontend::put_query(out, "begin");
        frontend::put_query(out, "select 2");
    });
    let begun = |out: &mut BytesMut| {
        put(out, b'1', |_| {});
        put(out, b'2', |_| {});
        put_command_complete(out, "BEGIN");
        put_command_complete(out, "SELECT 1");
        put_ready(out, Status::Transaction);
    };
    assert_eq!(scene.hears(1, begun), "CZ");
    scene.sends(1, |out| {
        parse(out);
        run(out);
    });
    assert!(scene.clients[1].suspect.is_none(), "a transaction cannot go on after it");
}
