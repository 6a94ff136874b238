//! SCRAM from both sides: no panic, and nobody who does not know the password is let in.
#![no_main]

use groove_postgres::auth::scram::{Binding, Channel, Client, Server, Verifier};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let at = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
    let (first, rest) = text.split_at(at);
    let last = rest.get(1..).unwrap_or_default();
    for channel in [Channel::Unbound, Channel::Declined, Channel::Bound(b"hash")] {
        let verifier = Verifier::invent(&[7; 32], "nobody");
        if let Ok((server, challenge)) = Server::challenge(verifier, "ours", first, channel) {
            assert!(challenge.contains("ours,s="));
            assert!(server.finish(last).is_err());
        }
    }
    // What a server says, to a client that has no keys for it: no work is done for it.
    let (mut client, _) = Client::start("ours", Binding::None);
    assert!(client.respond(first, |_, _| None).is_err());
    assert!(client.verify(last).is_err());
});
