//! Known answers, and the two sides against each other.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;

use super::scram::{
    Binding, Channel, Client, Detail, ITERATIONS, Iterations, Keys, ScramError, Server, Verifier, rfc7677,
};
use super::{Stored, md5};

fn rfc_salt() -> Vec<u8> {
    BASE64.decode(rfc7677::SALT).unwrap()
}

#[test]
fn the_client_says_what_rfc_7677_says() {
    let (mut client, first) = rfc7677::client();
    assert_eq!(first, rfc7677::FIRST);
    let last = client
        .respond(rfc7677::CHALLENGE.as_bytes(), |salt, iterations| {
            assert_eq!(salt, rfc_salt());
            Some(Keys::derive(rfc7677::PASSWORD, salt, iterations))
        })
        .unwrap();
    assert_eq!(last, rfc7677::FINAL);
    assert_eq!(client.verify(rfc7677::PROOF.as_bytes()), Ok(()));
    assert_eq!(client.verify(b"v=AAAA"), Err(ScramError::Server));
    assert_eq!(client.verify(b"e=other-error"), Err(ScramError::Server));
}

#[test]
fn the_server_says_what_rfc_7677_says() {
    let verifier = Verifier::derive(rfc7677::PASSWORD, &rfc_salt(), ITERATIONS);
    let (server, challenge) =
        Server::challenge(verifier, rfc7677::SERVER_NONCE, rfc7677::FIRST.as_bytes(), Channel::Unbound)
            .unwrap();
    assert_eq!(challenge, rfc7677::CHALLENGE);
    let proven = server.finish(rfc7677::FINAL.as_bytes()).unwrap();
    assert_eq!(proven.proof, rfc7677::PROOF);
    // What the client derived is what the password gives: enough to prove it elsewhere.
    assert!(proven.keys.keys == Keys::derive(rfc7677::PASSWORD, &rfc_salt(), ITERATIONS));
}

fn exchange(verifier: Verifier, password: &str) -> Result<(), ScramError> {
    exchange_over(verifier, password, Binding::None, Channel::Unbound)
}

fn exchange_over(
    verifier: Verifier,
    password: &str,
    binding: Binding,
    channel: Channel<'_>,
) -> Result<(), ScramError> {
    let (mut client, first) = Client::start("clientnonce", binding);
    let (server, challenge) = Server::challenge(verifier, "servernonce", first.as_bytes(), channel)?;
    let keys = |salt: &[u8], rounds| Some(Keys::derive(password, salt, rounds));
    let last = client.respond(challenge.as_bytes(), keys)?;
    client.verify(server.finish(last.as_bytes())?.proof.as_bytes())
}

#[test]
fn a_bound_exchange_holds_on_its_own_channel_alone() {
    let verifier = || Verifier::derive("right", b"salt", Iterations::new(2).unwrap());
    let over = |binding, channel| exchange_over(verifier(), "right", binding, channel);
    let bound = || Binding::EndPoint(vec![7; 48]);
    assert_eq!(over(bound(), Channel::Bound(&[7; 48])), Ok(()));
    assert_eq!(over(bound(), Channel::Bound(&[8; 48])), Err(ScramError::BindingCheck));
    assert_eq!(over(bound(), Channel::Declined), Err(ScramError::Malformed(Detail::BindingUnasked)));
    assert_eq!(over(bound(), Channel::Unbound), Err(ScramError::Malformed(Detail::BindingUnasked)));
    assert_eq!(over(Binding::None, Channel::Bound(&[7])), Err(ScramError::Malformed(Detail::BindingMissing)));
    assert_eq!(over(Binding::None, Channel::Declined), Ok(()));
    // Somebody took our offer away on its way to the client.
    assert_eq!(over(Binding::Unoffered, Channel::Declined), Err(ScramError::BindingNegotiation));
    assert_eq!(over(Binding::Unoffered, Channel::Unbound), Ok(()));
}

#[test]
fn the_data_of_a_bound_exchange_is_rfc_5929s() {
    // RFC 5802, section 7: the GS2 header, then the channel's data, in base64.
    let (mut client, first) = Client::start("c", Binding::EndPoint(b"hash".to_vec()));
    assert_eq!(first, "p=tls-server-end-point,,n=,r=c");
    let keys = |salt: &[u8], rounds| Some(Keys::derive("", salt, rounds));
    let last = client.respond(b"r=cs,s=AAAA,i=1", keys).unwrap();
    let data = last.strip_prefix("c=").unwrap().split(',').next().unwrap();
    assert_eq!(BASE64.decode(data).unwrap(), b"p=tls-server-end-point,,hash");
}

#[test]
fn another_password_and_an_invented_verifier_fail_alike() {
    let verifier = Verifier::derive("right", b"salt", Iterations::new(2).unwrap());
    assert_eq!(exchange(verifier.clone(), "right"), Ok(()));
    assert_eq!(exchange(verifier, "wrong"), Err(ScramError::Proof));
    let invented = Verifier::invent(&[7; 32], "nobody");
    assert_eq!(exchange(invented.clone(), "anything"), Err(ScramError::Proof));
    // The same question gets the same salt, or the second try would tell.
    assert_eq!(invented.salt, Verifier::invent(&[7; 32], "nobody").salt);
    assert_ne!(invented.salt, Verifier::invent(&[7; 32], "somebody").salt);
}

#[test]
fn malformed_messages_are_refused_in_postgresqls_words() {
    let verifier = || Verifier::invent(&[0; 32], "");
    let told = |error: ScramError| (error.to_string(), error.detail().unwrap_or_default());
    let challenge = |first: &str, channel| {
        told(Server::challenge(verifier(), "s", first.as_bytes(), channel).map(|(_, c)| c).unwrap_err())
    };
    for (first, detail) in [
        ("", "The message is empty."),
        ("n,,n=,r=\0", "Message length does not match input length."),
        ("n", "Comma expected, but found character \"0x00\"."),
        ("n;", "Comma expected, but found character \"';'\"."),
        ("x,,n=,r=x", "Unexpected channel-binding flag \"'x'\"."),
        ("\u{e9}", "Unexpected channel-binding flag \"0xc3\"."),
        ("n,b=", "Unexpected attribute \"'b'\" in client-first-message."),
        ("n,,r=x", "Expected attribute \"n\" but found \"'r'\"."),
        ("n,,n=", "Expected attribute \"r\" but found \"0x00\"."),
        ("n,,n,r=x", "Expected character \"=\" for attribute \"n\"."),
        ("n,,n=,r=x,5=y", "Attribute expected, but found invalid character \"'5'\"."),
    ] {
        let message = "malformed SCRAM message".to_owned();
        assert_eq!(challenge(first, Channel::Unbound), (message, detail.to_owned()), "{first:?}");
    }
    for (first, message) in [
        ("n,a=other,n=,r=x", "client uses authorization identity, but it is not supported"),
        ("n,,m=1,n=,r=x", "client requires an unsupported SCRAM extension"),
        ("n,,n=,r=\u{e9}", "non-printable characters in SCRAM nonce"),
        ("p=tls-unique,,n=,r=x", "unsupported SCRAM channel-binding type \"tls-unique\""),
    ] {
        let channel = if first.starts_with('p') { Channel::Bound(b"x") } else { Channel::Unbound };
        assert_eq!(challenge(first, channel).0, message, "{first:?}");
    }
    let finish = |last: &str| {
        let server = Server::challenge(verifier(), "s", b"n,,n=,r=x", Channel::Unbound).unwrap().0;
        server.finish(last.as_bytes()).map(|proven| proven.proof).unwrap_err()
    };
    assert_eq!(finish("c=biws,r=xs"), ScramError::Malformed(Detail::End));
    assert_eq!(finish("c=eSws,r=xs,p="), ScramError::BindingAttribute);
    let zeros = BASE64.encode([0; 32]);
    assert_eq!(finish(&format!("c=biws,r=xy,p={zeros}")), ScramError::Nonce);
    assert_eq!(finish("c=biws,r=xs,p=AAAA"), ScramError::Malformed(Detail::Proof));
    assert_eq!(finish(&format!("c=biws,r=xs,p={zeros},q=")), ScramError::Malformed(Detail::Garbage));
    assert_eq!(finish(&format!("c=biws,r=xs,x=extension,p={zeros}")), ScramError::Proof);
}

#[test]
fn a_server_cannot_ask_for_endless_work() {
    let (mut client, _) = Client::start("n", Binding::None);
    let keys = |_: &[u8], _| unreachable!("refused before any work");
    let malformed = Some(ScramError::Malformed(Detail::Challenge));
    assert_eq!(client.respond(b"r=nx,s=AAAA,i=2000000000", keys).err(), malformed);
    assert_eq!(client.respond(b"r=other,s=AAAA,i=4096", keys).err(), Some(ScramError::Nonce));
    assert_eq!(client.respond(b"r=n,s=AAAA,i=4096", keys).err(), Some(ScramError::Nonce));
}

#[test]
fn md5_matches_postgres() {
    // select 'md5' || md5('secret' || 'app')
    let stored = md5::stored("app", "secret");
    assert_eq!(stored, "md56a422f785c9e20873908ce25d1736ae2");
    assert_eq!(md5::response(&stored, [1, 2, 3, 4]), "md5911f527656472583a006e7727877b33e");
}

#[test]
fn kinds_of_stored_passwords() {
    assert!(matches!(Stored::read("secret"), Ok(Stored::Plain(_))));
    assert!(matches!(Stored::read("md5secret"), Ok(Stored::Plain(_))));
    assert!(matches!(Stored::read("md50123456789abcdef0123456789abcdef"), Ok(Stored::Md5(_))));
    let zero = BASE64.encode([0; 32]);
    assert!(matches!(Stored::read(&format!("SCRAM-SHA-256$4096:AAAA${zero}:{zero}")), Ok(Stored::Scram(_))));
    for broken in ["SCRAM-SHA-256$", "SCRAM-SHA-256$0:AAAA$x:y", "SCRAM-SHA-256$4096:AAAA$AAAA:AAAA"] {
        assert!(Stored::read(broken).is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn nothing_a_client_says_panics(first in "([nyp](=[a-z-]{0,22})?,)?.{0,40}", last in ".{0,40}") {
        for channel in [Channel::Unbound, Channel::Declined, Channel::Bound(b"hash")] {
            let verifier = Verifier::invent(&[0; 32], "");
            if let Ok((server, _)) = Server::challenge(verifier, "s", first.as_bytes(), channel) {
                prop_assert!(server.finish(last.as_bytes()).is_err());
            }
        }
    }

    #[test]
    fn the_right_password_always_passes(password in "\\PC{0,20}", salt in prop::collection::vec(any::<u8>(), 1..20)) {
        let verifier = Verifier::derive(&password, &salt, Iterations::new(1).unwrap());
        prop_assert_eq!(exchange(verifier, &password), Ok(()));
    }
}
