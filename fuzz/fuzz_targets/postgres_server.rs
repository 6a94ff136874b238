//! Bytes of a server through a session machine that owes it replies: no panic, and the client sees the same however
//! they are cut.
#![no_main]

use std::sync::Arc;

use bytes::BytesMut;
use groove_postgres::session::names::NameBounds;
use groove_postgres::session::prepared::Statements;
use groove_postgres::session::settings::Settings;
use groove_postgres::session::state::{Backend, Bounds, Machine, Mode};
use libfuzzer_sys::fuzz_target;

/// Parse a; Bind a; Execute; Close a; Sync; a simple query; COPY's end.
const ASKED: &[u8] = b"P\0\0\0\x09a\0x\0\0\0B\0\0\0\x0d\0a\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0C\0\0\0\x07Sa\0\
                       S\0\0\0\x04Q\0\0\0\x06x\0c\0\0\0\x04";

fn drive(text: &[u8], step: usize) -> Option<BytesMut> {
    let bounds = Bounds { message: 4096, statements: NameBounds { count: 4, bytes: 1 << 16 } };
    let settings = Arc::new(Settings::default());
    let mut machine = Machine::new(Mode::Transaction, bounds, Arc::<Statements>::default(), settings);
    let mut backend = Backend::new(Settings::default(), 2);
    let (mut asked, mut input) = (BytesMut::from(ASKED), BytesMut::new());
    let (mut server, mut client) = (BytesMut::new(), BytesMut::new());
    machine.from_client(&mut asked, &mut backend, &mut server, &mut client).ok()?;
    for piece in text.chunks(step.max(1)) {
        input.extend_from_slice(piece);
        machine.from_server(&mut input, &mut backend, &mut client).ok()?;
    }
    Some(client)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    if let (Some(whole), Some(cut)) = (drive(text, text.len()), drive(text, usize::from(step))) {
        assert_eq!(whole, cut);
    }
});
