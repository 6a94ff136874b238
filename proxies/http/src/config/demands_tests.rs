//! Broken edits, body rules and authentication, and what is said of each: the line, the column, and what to write instead.

use super::Config;
use groove_common::config::check_text;

fn one_app(more: &str) -> String {
    format!(
        "listeners: [{{address: 127.0.0.1:8080}}]\napps:\n  shop:\n    hosts: [shop.test]\n    endpoints: [127.0.0.1:9001]\n{more}"
    )
}

fn auth(way: &str) -> String {
    one_app(&format!("    auth:\n      any:\n        - {way}\n"))
}

#[test]
fn every_error_has_its_place_and_says_what_to_write_instead() {
    for (text, wanted) in [
        (
            one_app("    request_headers: {set: {X-A: 'a ${hots}', X-B: '${path.id}'}}\n"),
            &[
                (6, 34, "there is no value `hots` (character 3)", "write one of app"),
                (6, 52, "nothing captures `id` of the path", "`path_pattern`"),
            ][..],
        ),
        (
            one_app("    request_headers: {path_pattern: '(', set: {X-B: '${status}'}}\n"),
            &[
                (6, 37, "this is no regular expression: unclosed group", "no look-around"),
                (6, 53, "a request has no status (character 1)", "`response_headers`"),
            ],
        ),
        (
            one_app(
                "    request_headers: {rename: {X-A: Content_Length}, replace: {Host: {pattern: a, with: b}}}\n",
            ),
            &[
                (6, 37, "this header says where messages end", "leave it out"),
                (6, 64, "a request has exactly one Host", "use `set`"),
            ],
        ),
        (
            one_app(
                "    response_headers: {when: [{if: {status: [6xx]}, set: {A: b}}, {if: {equals: b}}, {if: {}}]}\n",
            ),
            &[
                (6, 46, "this is no status", "write one like `404`, or `5xx`"),
                (6, 68, "which header?", "write `header: NAME`"),
                (6, 91, "nothing is asked here", "write `header: NAME`"),
            ],
        ),
        (
            one_app("    body: {max: 1MiB, types: [json, 'image/*']}\n"),
            &[(6, 31, "this is no media type", "write one like `application/json`")],
        ),
        (one_app("    auth: {}\n"), &[(6, 11, "nobody could be known here", "write `any: [...]`")]),
        (
            one_app("    auth: {public: true, any: [{mtls: {}}]}\n"),
            &[
                (6, 11, "`any`, `all` and `public` exclude each other", "leave one of them"),
                (6, 39, "no certificate would do", "write `subjects`"),
            ],
        ),
        (auth("passwd: {}"), &[(8, 11, "unknown key `passwd`", "basic")]),
        (
            auth("basic: {users: {ann: {env: PATH}, bob: '{SHA}x'}}"),
            &[
                (8, 32, "this is neither a bcrypt nor an argon2 hash", "htpasswd -nB"),
                (8, 50, "hashes of this kind are guessed too easily", "htpasswd -nB"),
            ],
        ),
        (
            auth("api_key: {keys: {ci: abc}}"),
            &[
                (8, 20, "where is the key?", "write `in: {header: X-Api-Key}`"),
                (8, 32, "this is no SHA-256", "sha256sum"),
            ],
        ),
        (
            auth("jwt: {jwks: {url: 'ftp://a'}, algorithms: [HS256], audience: ['']}"),
            &[
                (8, 29, "a URL begins with `https://`", "write one like"),
                (8, 54, "this algorithm does not go with the key", "HS algorithms go with `secret`"),
                (8, 72, "an audience has a name", "leave it out for any"),
            ],
        ),
        (auth("jwt: {secret: short}"), &[(8, 25, "this secret is too short", "at least 32")]),
        (auth("jwt: {}"), &[(8, 16, "there is no key", "write `jwks: {url: ...}`")]),
        (
            auth("forward_auth: {url: 'http://a/', copy: [Connection], cache: {by: [':body'], ttl: 0s}}"),
            &[
                (8, 51, "this header says where messages end", "leave it out"),
                (8, 77, "this is no header name", "`:path`"),
                (8, 92, "no time at all is too short", "`30s`"),
            ],
        ),
        (
            auth("hmac: {keys: {ci: short}, body: 1GiB}"),
            &[
                (8, 29, "this key is too short", "at least 16"),
                (8, 43, "this is no amount to hold", "up to `64MiB`"),
            ],
        ),
        (
            auth(
                "oidc: {issuer: 'https://a.test', client_id: a, callback: x, emails: [a], cookie: {keys: [short]}}",
            ),
            &[
                (8, 68, "this is no path", "/oauth2/callback"),
                (8, 80, "this is no address", "`*@example.com`"),
                (8, 100, "this key is too short", "openssl rand -hex 32"),
            ],
        ),
    ] {
        let said = check_text::<Config>("http.yaml", &text).expect_err(&text).to_string();
        for (line, column, message, help) in wanted {
            let place = format!("--> http.yaml:{line}:{column}\n");
            let found = said.split("\n\n").any(|error| {
                error.contains(&format!("error: {message}")) && error.contains(&place) && error.contains(help)
            });
            assert!(found, "{line}:{column} {message} ({help}) is not in\n{said}");
        }
        assert_eq!(said.matches("error: ").count(), wanted.len(), "{said}");
        assert!(!said.contains("short]") && !said.contains("ci: short"), "a secret is shown:\n{said}");
    }
}
