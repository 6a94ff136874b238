//! What one session does to a shared connection, and what of it the next one would meet.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::{Backend, Bounds, EXPECTED_MAX, Machine, Mode};
use crate::error::Error;
use crate::session::prepared::Statements;
use crate::session::settings::Settings;
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
    let bounds = Bounds { message: 1 << 16, statements: 100 };
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
        assert!(session.backend.dirt.settings, "{setting}");
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
    assert!(!session.backend.dirt.settings);
    session.query("SET LOCAL work_mem = '1MB'", |out| put_command_complete(out, "SET")).unwrap();
    assert!(!session.backend.dirt.settings);
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
    assert!(session.backend.dirt.settings);

    let mut session = leased(settings());
    session
        .query("SET LOCAL work_mem = '1MB'; SET search_path = theirs", |out| {
            put_command_complete(out, "SET");
            put_command_complete(out, "SET");
        })
        .unwrap();
    assert!(session.backend.dirt.settings);
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
    assert!(session.backend.dirt.settings);
}

#[test]
fn a_statement_deallocated_behind_our_back_is_not_believed_in() {
    let mut session = leased(settings());
    session.query("DEALLOCATE groove_1", |out| put_command_complete(out, "DEALLOCATE")).unwrap();
    assert!(session.backend.dirt.prepared);

    let mut session = leased(settings());
    let missing = ErrorFields {
        severity: "ERROR",
        code: "26000",
        message: "prepared statement \"groove_1\" does not exist",
        detail: None,
        hint: None,
    };
    session.query("EXECUTE groove_1", |out| put_error(out, &missing)).unwrap();
    assert!(session.backend.dirt.prepared);
}

#[test]
fn what_was_given_at_startup_survives_discard_all() {
    let mut wanted = settings();
    wanted.ask("search_path", "mine");
    let mut session = leased(settings());
    session.machine.settings = Arc::new(wanted.clone());
    session.backend.settings = Arc::new(wanted.clone());
    session.query("DISCARD ALL", |out| put_command_complete(out, "DISCARD ALL")).unwrap();
    assert!(session.backend.settings.asks_like(&settings()), "the connection has it no more");
    session.machine.end(&session.backend);
    assert!(session.machine.settings.asks_like(&wanted), "the session has");
}

#[test]
fn a_setup_that_fails_leaves_what_follows_owed() {
    let mut wanted = settings();
    wanted.ask("role", "dropped");
    let mut session = leased(wanted);
    let failure = ErrorFields { severity: "ERROR", code: "22023", message: "", detail: None, hint: None };
    let outcome = session.query("INSERT", |out| put_error(out, &failure));
    assert!(matches!(outcome, Err(Error::Setup)));
    // The reply to the INSERT is still to come, and the ReadyForQuery of the setup is not it.
    let Leased { mut machine, mut backend, mut seen, mut replies } = session;
    let _ = machine.from_server(&mut replies, &mut backend, &mut seen);
    assert!(machine.is_busy());
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
