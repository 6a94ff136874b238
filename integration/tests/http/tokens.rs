//! Tokens: keys of PEM files, signed by openssl, and sessions by a claim that was verified.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use harness::{Kind, Proxy, http, paths};
use tempfile::TempDir;

use super::fleet::{Fleet, ok};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APPS]
    health: {probe: null}
    affinity: {by: {jwt_claim: game}}
    auth:
      any: [{jwt: {public_keys: [$DIR/rsa.pub, $DIR/ed.pub]}}]
      allow_anonymous: [/healthz]
  open:
    hosts: [open.test]
    endpoints: [$APPS]
    health: {probe: null}
    affinity: {by: {jwt_claim: game}}
";

fn openssl(arguments: &[&str]) {
    let output = harness::run(Command::new(paths::program("openssl").unwrap()).args(arguments)).unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}

fn make_keys(folder: &Path) {
    let at = |name: &str| path(folder, name);
    openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &at("rsa.key")]);
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &at("ed.key")]);
    openssl(&["genpkey", "-algorithm", "ed25519", "-out", &at("other.key")]);
    for name in ["rsa", "ed", "other"] {
        let (key, public) = (at(&format!("{name}.key")), at(&format!("{name}.pub")));
        openssl(&["pkey", "-in", &key, "-pubout", "-out", &public]);
    }
}

/// A token that is good for a minute.
fn token(folder: &Path, key: &str, game: &str) -> String {
    let algorithm = if key == "rsa" { "RS256" } else { "EdDSA" };
    let encoded = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let until = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 60;
    let head = encoded(format!("{{\"alg\":\"{algorithm}\",\"kid\":\"any\"}}"));
    let signed =
        format!("{head}.{}", encoded(format!("{{\"sub\":\"ann\",\"game\":\"{game}\",\"exp\":{until}}}")));
    let (text, signature, key) =
        (path(folder, "text"), path(folder, "signature"), path(folder, &format!("{key}.key")));
    std::fs::write(&text, &signed).unwrap();
    if algorithm == "RS256" {
        openssl(&["dgst", "-sha256", "-sign", &key, "-out", &signature, &text]);
    } else {
        openssl(&["pkeyutl", "-sign", "-rawin", "-inkey", &key, "-in", &text, "-out", &signature]);
    }
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(std::fs::read(&signature).unwrap()))
}

#[test]
fn keys_of_files_check_tokens_and_sessions_go_by_what_was_checked() {
    let folder = TempDir::new().unwrap();
    make_keys(folder.path());
    let fleet = Fleet::start(8, |server, _| async move { ok(&server.index.to_string()) }).unwrap();
    let tokens =
        |key: &str| (0..6).map(|game| token(folder.path(), key, &format!("g{game}"))).collect::<Vec<_>>();
    let (rsa, ed, other) = (tokens("rsa"), tokens("ed"), tokens("other"));
    let proxy =
        Proxy::of(Kind::Http).config(CONFIG).folder(folder).set("APPS", fleet.addresses()).start().unwrap();
    let ask = |host: &str, path: &str, token: &str| {
        let asked = ::http::Request::get(path).header("host", host);
        let asked =
            asked.header("authorization", format!("Bearer {token}")).body(bytes::Bytes::new()).unwrap();
        let reply = http::send(proxy.address(), asked).unwrap();
        (reply.status.as_u16(), reply.text())
    };
    let homes: Vec<_> = rsa.iter().map(|token| ask("shop.test", "/", token)).collect();
    assert!(homes.iter().all(|(status, _)| *status == 200), "{homes:?}");
    let distinct: std::collections::BTreeSet<_> = homes.iter().collect();
    assert!(distinct.len() > 2, "sessions are spread: {homes:?}");
    for (index, home) in homes.iter().enumerate() {
        // The same game is the same session, whichever key has signed that; and where nobody checks, too.
        for _ in 0..3 {
            assert_eq!(ask("shop.test", "/", &ed[index]), *home);
        }
        assert_eq!(ask("open.test", "/", &other[index]), *home);
        assert_eq!(ask("shop.test", "/", &other[index]).0, 401);
    }
    // Who is let in with a token that is not good belongs nowhere: it cannot choose a server.
    let anonymous: std::collections::BTreeSet<_> =
        (0..40).map(|_| ask("shop.test", "/healthz", &other[0])).collect();
    assert!(anonymous.iter().all(|(status, _)| *status == 200) && anonymous.len() > 1, "{anonymous:?}");
}
