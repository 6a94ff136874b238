//! What the types of `auth:` cannot say.

use super::auth::{Algorithm, ApiKey, Auth, Basic, ForwardAuth, Hmac, Jwks, Jwt, Mtls, Oidc, Places, Way};
use super::edits::header_problem;
use crate::auth::digest::read_digest;
use crate::auth::outbound::Url;
use crate::auth::password::{Hash, read_htpasswd};
use crate::route::PathMatch;
use crate::wire::scan::is_token;
use groove_common::config::{Duration, Issues};

/// Characters of a key that encrypts cookies.
const COOKIE_KEY_LEN_MIN: usize = 32;

/// Checks `auth` under `path`.
pub(super) fn check(path: &[&str], auth: &Auth, issues: &mut Issues) {
    let given = [!auth.any.is_empty(), !auth.all.is_empty(), auth.public];
    match given.into_iter().filter(|given| *given).count() {
        1 => {}
        0 => issues.at(
            path,
            "nobody could be known here",
            Some("write `any: [...]`, `all: [...]` or `public: true`"),
        ),
        _ => issues.at(path, "`any`, `all` and `public` exclude each other", Some("leave one of them")),
    }
    for (key, ways) in [("any", &auth.any), ("all", &auth.all)] {
        for (index, entry) in ways.iter().enumerate() {
            let index = index.to_string();
            way(&[path, &[key, &index]].concat(), entry, issues);
        }
    }
    for (index, pattern) in auth.allow_anonymous.iter().enumerate() {
        let index = index.to_string();
        if let Err(problem) = PathMatch::parse(pattern) {
            let help = "write `/login` for one path, `/public/*` for it and all below it";
            issues.at(&[path, &["allow_anonymous", &index]].concat(), problem, Some(help));
        }
    }
    for name in auth.headers.keys() {
        header(&[path, &["headers", name]].concat(), name, true, issues);
    }
    headers(path, "strip", &auth.strip, issues);
}

fn header(at: &[&str], name: &str, is_key: bool, issues: &mut Issues) {
    let problem = match header_problem(name, "add") {
        None if name.eq_ignore_ascii_case("cookie") => Some(("this header is the client's", "leave it out")),
        problem => problem,
    };
    if let Some((message, help)) = problem {
        if is_key { issues.at_key(at, message, Some(help)) } else { issues.at(at, message, Some(help)) }
    }
}

fn headers(path: &[&str], key: &str, names: &[String], issues: &mut Issues) {
    for (index, name) in names.iter().enumerate() {
        let index = index.to_string();
        header(&[path, &[key, &index]].concat(), name, false, issues);
    }
}

fn way(path: &[&str], way: &Way, issues: &mut Issues) {
    let at = |name: &'static str| [path, &[name]].concat();
    match way {
        Way::Basic(it) => basic(&at("basic"), it, issues),
        Way::ApiKey(it) => api_key(&at("api_key"), it, issues),
        Way::Jwt(it) => jwt(&at("jwt"), it, issues),
        Way::ForwardAuth(it) => forward(&at("forward_auth"), it, issues),
        Way::Hmac(it) => hmac(&at("hmac"), it, issues),
        Way::Mtls(it) => mtls(&at("mtls"), it, issues),
        Way::Oidc(it) => oidc(&at("oidc"), it, issues),
    }
}

fn basic(path: &[&str], basic: &Basic, issues: &mut Issues) {
    if basic.file.is_none() && basic.users.is_empty() {
        issues.at(path, "there are no users", Some("write `file: htpasswd`, or `users: {name: hash}`"));
    }
    if let Some(file) = &basic.file
        && let Err(problem) = read_htpasswd(file)
    {
        let help = "make it with `htpasswd -B FILE NAME`";
        issues.at(&[path, &["file"]].concat(), problem, Some(help));
    }
    for (name, hash) in &basic.users {
        let at = [path, &["users", name]].concat();
        if name.contains(':') {
            issues.at_key(&at, "a name has no colon", Some("the colon stands between name and password"));
        }
        if let Err(problem) = Hash::read(hash.expose()) {
            issues.at(
                &at,
                problem.to_string(),
                Some("write a hash as `htpasswd -nB NAME` shows it behind the colon"),
            );
        }
    }
    if let Some(realm) = &basic.realm {
        realm_text(&[path, &["realm"]].concat(), realm, issues);
    }
    duration(path, "cache", basic.cache, issues);
}

fn realm_text(at: &[&str], realm: &str, issues: &mut Issues) {
    if realm.bytes().any(|byte| !(b' '..=b'~').contains(&byte) || byte == b'"' || byte == b'\\') {
        issues.at(at, "a realm is plain text without quotes", Some("write one like `shop`"));
    }
}

fn duration(path: &[&str], key: &'static str, value: Option<Duration>, issues: &mut Issues) {
    if value.is_some_and(Duration::is_zero) {
        issues.at(
            &[path, &[key]].concat(),
            "no time at all is too short",
            Some("write a length of time, like `30s`"),
        );
    }
}

fn places(path: &[&str], places: &Places, is_required: bool, issues: &mut Issues) {
    let at = |key: &'static str| [path, &["in", key]].concat();
    if is_required && places.header.is_none() && places.query.is_none() && places.cookie.is_none() {
        issues.at(path, "where is the key?", Some("write `in: {header: X-Api-Key}`"));
    }
    if let Some(name) = &places.header {
        header(&at("header"), name, false, issues);
    }
    if places.query.as_ref().is_some_and(String::is_empty) {
        issues.at(&at("query"), "a parameter has a name", Some("write one like `api_key`"));
    }
    if places.cookie.as_ref().is_some_and(|name| name.is_empty() || !name.bytes().all(is_token)) {
        issues.at(&at("cookie"), "this is no cookie's name", Some("write one like `token`"));
    }
}

fn api_key(path: &[&str], api_key: &ApiKey, issues: &mut Issues) {
    places(path, &api_key.places, true, issues);
    digests(path, "keys", api_key.keys.iter().map(|(name, digest)| (name.clone(), digest)), issues);
}

fn digests<'a>(
    path: &[&str],
    key: &'static str,
    digests: impl Iterator<Item = (String, &'a String)>,
    issues: &mut Issues,
) {
    for (name, text) in digests {
        if read_digest(text).is_none() {
            let help = "write its 64 hexadecimal digits, as `printf %s KEY | sha256sum` shows them";
            issues.at(&[path, &[key, &name]].concat(), "this is no SHA-256", Some(help));
        }
    }
}

fn jwt(path: &[&str], jwt: &Jwt, issues: &mut Issues) {
    places(path, &jwt.places, false, issues);
    for (index, file) in jwt.public_keys.iter().enumerate() {
        let index = index.to_string();
        if let Err(problem) = crate::auth::pem::read_file(file) {
            let help = "write a file as `openssl pkey -pubout` makes it";
            issues.at(&[path, &["public_keys", &index]].concat(), problem, Some(help));
        }
    }
    match (&jwt.jwks, &jwt.secret) {
        (Some(jwks), None) => key_set(&[path, &["jwks"]].concat(), jwks, issues),
        (None, None) if !jwt.public_keys.is_empty() => {}
        (None, Some(_)) if !jwt.public_keys.is_empty() => {
            let help = "leave one of `public_keys` and `secret`";
            issues.at(path, "public keys and a secret exclude each other", Some(help));
        }
        (None, Some(secret)) if secret.expose().len() < 32 => {
            let help = "write at least 32 characters: whoever guesses it is everybody";
            issues.at(&[path, &["secret"]].concat(), "this secret is too short", Some(help));
        }
        (None, Some(_)) => {}
        (None, None) => issues.at(
            path,
            "there is no key",
            Some("write `jwks: {url: ...}`, `jwks: {file: ...}`, `public_keys` or `secret`"),
        ),
        (Some(_), Some(_)) => {
            issues.at(
                path,
                "public keys and a secret exclude each other",
                Some("leave one of `jwks` and `secret`"),
            );
        }
    }
    for (index, algorithm) in jwt.algorithms.iter().enumerate() {
        let index = index.to_string();
        let is_shared = matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512);
        if is_shared != jwt.secret.is_some() {
            let help = "HS algorithms go with `secret`, all others with `jwks` and `public_keys`";
            issues.at(
                &[path, &["algorithms", &index]].concat(),
                "this algorithm does not go with the key",
                Some(help),
            );
        }
    }
    if jwt.audience.iter().any(String::is_empty) {
        issues.at(&[path, &["audience"]].concat(), "an audience has a name", Some("leave it out for any"));
    }
}

fn key_set(path: &[&str], jwks: &Jwks, issues: &mut Issues) {
    match (&jwks.url, &jwks.file) {
        (Some(text), None) => url(path, "url", text, issues),
        (None, Some(file)) => {
            if let Err(problem) = crate::auth::jwks::read_file(file) {
                issues.at(
                    &[path, &["file"]].concat(),
                    problem,
                    Some("write a JSON object with `keys` (RFC 7517)"),
                );
            }
        }
        (None, None) | (Some(_), Some(_)) => {
            issues.at(path, "keys come from one place", Some("write either `url` or `file`"));
        }
    }
    duration(path, "refresh", jwks.refresh, issues);
    duration(path, "timeout", jwks.timeout, issues);
}

fn url(path: &[&str], key: &'static str, text: &str, issues: &mut Issues) {
    if let Err(problem) = Url::parse(text) {
        issues.at(&[path, &[key]].concat(), problem, Some("write one like `https://login.example.com/keys`"));
    }
}

fn forward(path: &[&str], forward: &ForwardAuth, issues: &mut Issues) {
    url(path, "url", &forward.url, issues);
    duration(path, "timeout", forward.timeout, issues);
    if let Some(tls) = &forward.tls {
        tls.check(&[path, &["tls"]].concat(), issues);
    }
    headers(path, "copy", &forward.copy, issues);
    if let Some(name) = &forward.user_header {
        header(&[path, &["user_header"]].concat(), name, false, issues);
    }
    let Some(cache) = &forward.cache else { return };
    duration(&[path, &["cache"]].concat(), "ttl", Some(cache.ttl), issues);
    for (index, name) in cache.by.iter().enumerate() {
        let index = index.to_string();
        if !matches!(name.as_str(), ":method" | ":path" | ":query") && !name.bytes().all(is_token) {
            let help = "write a header's name, or `:method`, `:path`, `:query`";
            issues.at(&[path, &["cache", "by", &index]].concat(), "this is no header name", Some(help));
        }
    }
}

fn hmac(path: &[&str], hmac: &Hmac, issues: &mut Issues) {
    for (id, secret) in &hmac.keys {
        let at = [path, &["keys", id]].concat();
        if id.is_empty() || !id.bytes().all(is_token) {
            issues.at_key(&at, "this is no key id", Some("write letters, digits and `-`"));
        }
        if secret.expose().len() < 16 {
            issues.at(&at, "this key is too short", Some("write at least 16 characters"));
        }
    }
    headers(path, "headers", &hmac.headers, issues);
    duration(path, "clock_skew", hmac.clock_skew, issues);
    if hmac.body.is_some_and(|size| size.0 == 0 || size.0 > 64 << 20) {
        let help = "write an amount up to `64MiB`: each such body is held in memory";
        issues.at(&[path, &["body"]].concat(), "this is no amount to hold", Some(help));
    }
}

fn mtls(path: &[&str], mtls: &Mtls, issues: &mut Issues) {
    if mtls.subjects.is_empty() && mtls.names.is_empty() && mtls.fingerprints.is_empty() {
        let help = "write `subjects`, `names` or `fingerprints`; `names: ['*']` for any certificate of the listener's authority";
        issues.at(path, "no certificate would do", Some(help));
    }
    digests(
        path,
        "fingerprints",
        mtls.fingerprints.iter().enumerate().map(|(index, text)| (index.to_string(), text)),
        issues,
    );
}

fn oidc(path: &[&str], oidc: &Oidc, issues: &mut Issues) {
    url(path, "issuer", &oidc.issuer, issues);
    if let Some(text) = &oidc.external_url {
        url(path, "external_url", text, issues);
    }
    for (key, text) in [("callback", &oidc.callback), ("logout", &oidc.logout)] {
        let fits = PathMatch::parse(text).is_ok_and(|it| matches!(it, PathMatch::Exact(_)))
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !fits {
            issues.at(&[path, &[key]].concat(), "this is no path", Some("write one like `/oauth2/callback`"));
        }
    }
    if oidc.callback == oidc.logout {
        issues.at(&[path, &["logout"]].concat(), "this is the callback's path", Some("write another"));
    }
    for (index, key) in oidc.cookie.keys.iter().enumerate() {
        let index = index.to_string();
        if key.expose().len() < COOKIE_KEY_LEN_MIN {
            let help = "write at least 32 characters, like those of `openssl rand -hex 32`";
            issues.at(&[path, &["cookie", "keys", &index]].concat(), "this key is too short", Some(help));
        }
    }
    let name = &oidc.cookie.name;
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_token) {
        issues.at(
            &[path, &["cookie", "name"]].concat(),
            "this is no cookie's name",
            Some("write one like `session`"),
        );
    }
    duration(&[path, &["cookie"]].concat(), "max_age", oidc.cookie.max_age, issues);
    duration(path, "timeout", oidc.timeout, issues);
    for (index, email) in oidc.emails.iter().enumerate() {
        let index = index.to_string();
        let fits = email.split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty());
        if !fits {
            let help = "write `a@example.com`, or `*@example.com` for all of a domain";
            issues.at(&[path, &["emails", &index]].concat(), "this is no address", Some(help));
        }
    }
}
