//! Known answers, and the two sides against each other.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use proptest::prelude::*;

use super::scram::{Client, ITERATIONS, Iterations, Keys, ScramError, Server, Verifier, rfc7677};
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
            Keys::derive(rfc7677::PASSWORD, salt, iterations)
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
        Server::challenge(verifier, rfc7677::SERVER_NONCE, rfc7677::FIRST.as_bytes()).unwrap();
    assert_eq!(challenge, rfc7677::CHALLENGE);
    assert_eq!(server.finish(rfc7677::FINAL.as_bytes()).unwrap(), rfc7677::PROOF);
}

fn exchange(verifier: Verifier, password: &str) -> Result<(), ScramError> {
    let (mut client, first) = Client::start("clientnonce");
    let (server, challenge) = Server::challenge(verifier, "servernonce", first.as_bytes())?;
    let last = client.respond(challenge.as_bytes(), |salt, rounds| Keys::derive(password, salt, rounds))?;
    client.verify(server.finish(last.as_bytes())?.as_bytes())
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
fn malformed_messages_are_refused() {
    let verifier = || Verifier::invent(&[0; 32], "");
    let challenge = |first: &str| Server::challenge(verifier(), "s", first.as_bytes()).map(|(_, c)| c).err();
    assert_eq!(challenge("p=tls-server-end-point,,n=,r=x"), Some(ScramError::ChannelBinding));
    for first in ["", "n", "n,a=other,n=,r=x", "n,,r=x", "n,,n=,r=", "n,,m=1,n=,r=x", "n,,n=,r=\u{e9}", "n,é"]
    {
        assert_eq!(challenge(first), Some(ScramError::Malformed), "{first:?}");
    }
    let finish = |last: &str| {
        Server::challenge(verifier(), "s", b"n,,n=,r=x").unwrap().0.finish(last.as_bytes()).unwrap_err()
    };
    assert_eq!(finish("c=biws,r=xs"), ScramError::Malformed);
    assert_eq!(finish("c=eSws,r=xs,p="), ScramError::ChannelBinding);
    assert_eq!(finish("c=biws,r=xy,p="), ScramError::Nonce);
    assert_eq!(finish("c=biws,r=xs,p=AAAA"), ScramError::Malformed);
}

#[test]
fn a_server_cannot_ask_for_endless_work() {
    let (mut client, _) = Client::start("n");
    let keys = |_: &[u8], _| unreachable!("refused before any work");
    assert_eq!(client.respond(b"r=nx,s=AAAA,i=2000000000", keys).err(), Some(ScramError::Malformed));
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
    fn nothing_a_client_says_panics(first in ".{0,40}", last in ".{0,40}") {
        if let Ok((server, _)) = Server::challenge(Verifier::invent(&[0; 32], ""), "s", first.as_bytes()) {
            prop_assert!(server.finish(last.as_bytes()).is_err());
        }
    }

    #[test]
    fn the_right_password_always_passes(password in "\\PC{0,20}", salt in prop::collection::vec(any::<u8>(), 1..20)) {
        let verifier = Verifier::derive(&password, &salt, Iterations::new(1).unwrap());
        prop_assert_eq!(exchange(verifier, &password), Ok(()));
    }
}
