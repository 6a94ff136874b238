//! Bytes of a client through a whole session machine: no panic, and the server gets the same however they are cut.
#![no_main]

use std::sync::Arc;

use bytes::BytesMut;
use groove_postgres::session::names::NameBounds;
use groove_postgres::session::prepared::Statements;
use groove_postgres::session::settings::Settings;
use groove_postgres::session::state::{Backend, Bounds, Machine, Mode};
use libfuzzer_sys::fuzz_target;

/// What a server gets, and what the client is answered, if all of it is the protocol.
fn drive(text: &[u8], step: usize) -> Option<(BytesMut, BytesMut)> {
    let bounds = Bounds { message: 4096, statements: NameBounds { count: 4, bytes: 1 << 16 } };
    let settings = Arc::new(Settings::default());
    let mut machine = Machine::new(Mode::Transaction, bounds, Arc::<Statements>::default(), settings);
    let mut backend = Backend::new(Settings::default(), 2);
    let (mut input, mut server, mut client) = (BytesMut::new(), BytesMut::new(), BytesMut::new());
    machine.begin(&mut backend, &mut server, &mut client);
    for piece in text.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        machine.from_client(&mut input, &mut backend, &mut server, &mut client).ok()?;
    }
    Some((server, client))
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    if let Some((server, client)) = drive(text, text.len()) {
        // Cut in pieces, an incomplete message may have gone on in part already: never more, never other bytes.
        if let Some((server_cut, client_cut)) = drive(text, usize::from(step)) {
            assert!(server.starts_with(&server_cut) || server_cut.starts_with(&server));
            assert_eq!(client, client_cut);
        }
    }
});
