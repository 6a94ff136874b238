//! What one session does to a shared connection, and what of it the next one would meet.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::{Backend, Bounds, EXPECTED_MAX, Machine, Mode, Need};
use crate::error::Error;
use crate::session::names::NameBounds;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
use crate::session::survey::Found;
use crate::sql::Kinds;
use crate::wire::backend::{
    ErrorFields, Status, put_command_complete, put_error, put_parameter_status, put_ready,
};
use crate::wire::{frontend, put, put_cstr};

/// A session that holds a connection.
struct Leased {
    machine: Machine,
    backend: Backend,
    seen: BytesMut,
    /// What the server has sent and the machine has not taken.
    replies: BytesMut,
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    for (name, value) in [("TimeZone", "UTC"), ("is_superuser", "on"), ("session_authorization", "admin")] {
        settings.report(name, value);
    }
    settings
}

fn leased(wanted: Settings) -> Leased {
    let bounds = Bounds { message: 1 << 16, statements: NameBounds { count: 100, bytes: 1 << 16 } };
    let mut machine =
        Machine::new(Mode::Transaction, bounds, Arc::new(Statements::default()), Arc::new(wanted));
    let mut backend = Backend::new(settings(), 10);
    let (mut to_server, mut seen) = (BytesMut::new(), BytesMut::new());
    machine.begin(&mut backend, &mut to_server, &mut seen);
    Leased { machine, backend, seen, replies: BytesMut::new() }
}

impl Leased {
    fn query(&mut self, text: &str, reply: impl FnOnce(&mut BytesMut)) -> Result<(), Error> {
        let (mut sent, mut to_server) = (BytesMut::new(), BytesMut::new());
        frontend::put_query(&mut sent, text);
        self.machine.from_client(&mut sent, &mut self.backend, &mut to_server, &mut self.seen)?;
        reply(&mut self.replies);
        put_ready(&mut self.replies, Status::Idle);
        self.machine.from_server(&mut self.replies, &mut self.backend, &mut self.seen)
    }
}

#[test]
fn a_role_does_not_outlive_its_transaction() {
    for (setting, value) in [("is_superuser", "off"), ("session_authorization", "bob")] {
        let mut session = leased(settings());
        session
            .query("SET ROLE bob", |out| {
                put_command_complete(out, "SET");
                put_parameter_status(out, setting, value);
            })
            .unwrap();
        assert_eq!(session.machine.dirt(), Kinds::SETTINGS, "{setting}");
    }
}

#[test]
fn a_reported_setting_needs_no_washing() {
    let mut session = leased(settings());
    session
        .query("SET TimeZone = 'CET'", |out| {
            put_command_complete(out, "SET");
            put_parameter_status(out, "TimeZone", "CET");
        })
        .unwrap();
    assert!(session.machine.survey().is_none());
    session.query("SET LOCAL work_mem = '1MB'", |out| put_command_complete(out, "SET")).unwrap();
    assert!(session.machine.survey().is_none());
}

#[test]
fn a_report_of_something_else_hides_no_set() {
    // The time zone was set locally before; what is reported is that the transaction is over.
    let mut session = leased(settings());
    session
        .query("SET search_path = theirs; COMMIT", |out| {
            put_command_complete(out, "SET");
            put_command_complete(out, "COMMIT");
            put_parameter_status(out, "TimeZone", "UTC");
        })
        .unwrap();
    assert_eq!(session.machine.dirt(), Kinds::SETTINGS);

    let mut session = leased(settings());
    session
        .query("SET LOCAL work_mem = '1MB'; SET search_path = theirs", |out| {
            put_command_complete(out, "SET");
            put_command_complete(out, "SET");
        })
        .unwrap();
    assert_eq!(session.machine.dirt(), Kinds::SETTINGS);
}

#[test]
fn set_config_is_noticed_by_its_column() {
    let mut session = leased(settings());
    session
        .query("SELECT pg_catalog.set_config('search_path', '', false)", |out| {
            put(out, b'T', |out| {
                out.put_i16(1);
                put_cstr(out, b"set_config");
                out.put_slice(&[0; 18]);
            });
            put_command_complete(out, "SELECT 1");
        })
        .unwrap();
    assert_eq!(session.machine.dirt(), Kinds::SETTINGS);
}

#[test]
fn a_statement_deallocated_behind_our_back_is_not_believed_in() {
    let mut session = leased(settings());
    let missing = ErrorFields {
        severity: "ERROR",
        code: "26000",
        message: "prepared statement \"groove_1\" does not exist",
        detail: None,
        hint: None,
    };
    session.query("EXECUTE groove_1", |out| put_error(out, &missing)).unwrap();
    assert_eq!(session.backend.dirt, Kinds::PREPARED);
}

#[test]
fn what_was_given_at_startup_survives_discard_all() {
    let mut wanted = settings();
    wanted.ask("search_path", "mine");
    let mut session = leased(settings());
    session.machine.settings = Arc::new(wanted.clone());
    session.machine.startup = Arc::new(wanted.clone());
    session.backend.settings = Arc::new(wanted.clone());
    session.query("DISCARD ALL", |out| put_command_complete(out, "DISCARD ALL")).unwrap();
    assert!(session.backend.settings.asks_like(&settings()), "the connection has it no more");
    session.machine.end(&mut session.backend, &mut session.seen);
    assert!(session.machine.settings.asks_like(&wanted), "the session has");
}

#[test]
fn a_setup_that_fails_leaves_what_follows_owed() {
    let mut wanted = settings();
    wanted.ask("role", "dropped");
    let mut session = leased(wanted);
    let failure = ErrorFields { severity: "ERROR", code: "22023", message: "", detail: None, hint: None };
    let outcome = session.query("INSERT", |out| put_error(out, &failure));
    assert!(matches!(outcome, Err(Error::Refused(_))), "{outcome:?}");
    assert!(session.seen.is_empty(), "the client is told by the session, once");
    // The reply to the INSERT is still to come, and the ReadyForQuery of the setup is not it.
    let Leased { mut machine, mut backend, mut seen, mut replies } = session;
    machine.from_server(&mut replies, &mut backend, &mut seen).unwrap();
    assert!(machine.is_busy());
    assert!(backend.settings.asks_like(&settings()), "the connection does not have what it refused");
}

#[test]
fn the_client_hears_what_is_true_once_its_settings_are_there() {
    let mut wanted = settings();
    wanted.report("session_authorization", "bob");
    wanted.report("server_version", "14");
    wanted.ask("session_authorization", "bob");
    let mut session = leased(wanted);
    session.backend.settings = Arc::new({
        let mut settings = Settings::clone(&session.backend.settings);
        settings.report("server_version", "15");
        settings
    });
    assert!(session.seen.is_empty() && session.machine.in_setup());
    put_parameter_status(&mut session.replies, "session_authorization", "bob");
    put_command_complete(&mut session.replies, "SELECT 1");
    put_ready(&mut session.replies, Status::Idle);
    let Leased { mut machine, mut backend, mut seen, mut replies } = session;
    machine.from_server(&mut replies, &mut backend, &mut seen).unwrap();
    let mut told = BytesMut::new();
    put_parameter_status(&mut told, "server_version", "15");
    assert_eq!(seen, told, "and not that it acts as the pool's role");
    assert!(!machine.in_setup() && backend.dirt.is_empty());
}

#[test]
fn a_parse_of_what_is_known_waits_for_its_sync() {
    let statements = Arc::new(Statements::default());
    statements.intern(b"select\0\0\0").prove();
    let bounds = Bounds { message: 1 << 16, statements: NameBounds { count: 9, bytes: 1 << 16 } };
    let mut machine = Machine::new(Mode::Transaction, bounds, statements, Arc::new(settings()));
    let mut batch = BytesMut::new();
    frontend::put_parse(&mut batch, b"s", b"select\0\0\0");
    let parse = batch.len();
    frontend::put_sync(&mut batch);
    for cut in 1..batch.len() {
        let (mut input, mut seen) = (BytesMut::from(&batch[..cut]), BytesMut::new());
        assert_eq!(machine.need(&mut input, &mut seen).unwrap(), Need::More, "{cut} bytes");
        assert!(seen.is_empty() && input.len() == cut);
    }
    let (mut input, mut seen) = (batch.split_to(parse), BytesMut::new());
    frontend::put_describe_statement(&mut input, b"s");
    assert_eq!(machine.need(&mut input, &mut seen).unwrap(), Need::Server);
}

#[test]
fn a_client_that_is_owed_enough_is_not_read() {
    let mut session = leased(settings());
    let (mut sent, mut to_server) = (BytesMut::new(), BytesMut::new());
    for _ in 0..EXPECTED_MAX + 1 {
        frontend::put_sync(&mut sent);
    }
    session.machine.from_client(&mut sent, &mut session.backend, &mut to_server, &mut session.seen).unwrap();
    assert_eq!(sent.len(), 5, "one is left");
    assert!(!session.machine.takes_more());
    let mut replies = BytesMut::new();
    put_ready(&mut replies, Status::Idle);
    session.machine.from_server(&mut replies, &mut session.backend, &mut session.seen).unwrap();
    assert!(session.machine.takes_more());
}

#[test]
fn a_survey_takes_the_unnamed_statement_with_it() {
    let Leased { mut machine, mut backend, mut seen, .. } = leased(settings());
    machine.pinned = Kinds::LOCKS;
    let (mut sent, mut to_server, mut replies) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    frontend::put_parse(&mut sent, b"", b"SELECT 1\0\0\0");
    frontend::put_sync(&mut sent);
    machine.from_client(&mut sent, &mut backend, &mut to_server, &mut seen).unwrap();
    put(&mut replies, b'1', |_| {});
    put_ready(&mut replies, Status::Idle);
    machine.from_server(&mut replies, &mut backend, &mut seen).unwrap();
    let found = Found { others: Kinds::LOCKS, ..Found::default() };
    machine.surveyed(Kinds::LOCKS, Some(&found), &mut backend);
    machine.end(&mut backend, &mut seen);
    assert!(machine.keeps_server());
    to_server.clear();
    frontend::put_run(&mut sent, b"", b"");
    machine.from_client(&mut sent, &mut backend, &mut to_server, &mut seen).unwrap();
    assert_eq!(to_server.first(), Some(&b'P'), "it is parsed again before it is bound");
}

#[test]
fn a_message_that_is_not_there_whole_needs_no_server_yet() {
    let bounds = Bounds { message: 1 << 10, statements: NameBounds { count: 9, bytes: 1 << 16 } };
    let statements = Arc::new(Statements::default());
    let mut machine = Machine::new(Mode::Transaction, bounds, statements, Arc::new(settings()));
    let mut seen = BytesMut::new();
    let mut messages = [BytesMut::new(), BytesMut::new(), BytesMut::new()];
    frontend::put_query(&mut messages[0], "SELECT 1");
    frontend::put_run(&mut messages[1], b"portal", b"statement");
    frontend::put_query(&mut messages[2], &"x".repeat(2 << 10));
    for (message, least) in messages.iter().zip([messages[0].len(), 28, bounds.message + 1]) {
        for cut in 1..least {
            let mut input = BytesMut::from(&message[..cut]);
            assert_eq!(machine.need(&mut input, &mut seen).unwrap(), Need::More, "{cut} bytes");
        }
        let mut input = BytesMut::from(&message[..least]);
        assert_eq!(machine.need(&mut input, &mut seen).unwrap(), Need::Server);
    }
}

#[test]
fn what_is_set_again_after_its_reset_stays() {
    for (value, told) in [("UTC", "CET"), ("EST", "")] {
        let mut wanted = settings();
        wanted.report("TimeZone", "CET");
        let mut session = leased(settings());
        session.machine.startup = Arc::new(wanted);
        let text = "RESET TimeZone; SET TimeZone = 'EST'";
        session
            .query(text, |out| {
                put_command_complete(out, "RESET");
                put_command_complete(out, "SET");
                put_parameter_status(out, "TimeZone", value);
            })
            .unwrap();
        session.seen.clear();
        session.machine.end(&mut session.backend, &mut session.seen);
        let mut expected = BytesMut::new();
        if !told.is_empty() {
            put_parameter_status(&mut expected, "TimeZone", told);
        }
        assert_eq!(session.seen, expected, "{value}");
    }
}
