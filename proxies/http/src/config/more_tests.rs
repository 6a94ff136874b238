//! Broken mirrors, compression, outliers, pings and the like, and what is said of each: the line, the column, and what to
//! write instead.

use super::Config;
use groove_common::config::check_text;

fn one_app(more: &str) -> String {
    format!(
        "listeners: [{{address: 127.0.0.1:8080}}]\napps:\n  shop:\n    hosts: [shop.test]\n    endpoints: [127.0.0.1:9001]\n{more}"
    )
}

fn route(more: &str) -> String {
    one_app(&format!(
        "    clusters: {{b: {{endpoints: [127.0.0.1:9002]}}}}\n    routes:\n      - match: {{path: /*}}\n        {more}\n"
    ))
}

/// A text, and each error in it: its line and column, what it says, what helps.
type Case = (String, &'static [(u32, u32, &'static str, &'static str)]);

#[test]
fn every_error_has_its_place_and_says_what_to_write_instead() {
    let cases: [Case; 11] = [
        (
            route("mirror: {cluster: c, body: 1GiB, bytes: 1KiB, timeout: 0s}"),
            &[
                (9, 27, "the app has no cluster `c`", "under the app's `clusters`"),
                (9, 36, "this is no amount to hold", "up to `16MiB`"),
                (9, 49, "this is too little to copy with", "no less than `body`"),
                (9, 64, "no time at all would let no copy arrive", "`10s`"),
            ],
        ),
        (
            route("redirect: {path: /a}\n        mirror: {cluster: b}"),
            &[(10, 9, "`redirect` answers already", "leave one of the two out")],
        ),
        (route("mirror: {cluster: b, percent: 101}"), &[(9, 39, "101", "100")]),
        (
            one_app("    compression: {types: [text], codings: [gzip, br, gzip]}\n"),
            &[
                (6, 27, "this is no media type", "`image/*` for all of a kind"),
                (6, 54, "this coding is there already", "once"),
            ],
        ),
        (route("compression: {br: 11}"), &[(9, 27, "11", "6")]),
        (
            route(
                "cors: {allow_origins: ['https://*', 'https://a*.test', 'https://*.a.test/', 'https://*.a.test', 'https://*.A.test']}",
            ),
            &[
                (9, 32, "this is no origin", "`https://*.example.com`"),
                (9, 45, "this is no origin", "`https://*.example.com`"),
                (9, 64, "this is no origin", "`https://*.example.com`"),
                (9, 105, "this is no origin", "`https://*.example.com`"),
            ],
        ),
        (
            one_app("    outlier: {success_rate: {minimum_hosts: 1}}\n"),
            &[(6, 45, "`1` is too small", "write 2 to 65536")],
        ),
        (
            one_app("    outlier: {on: [reset], success_rate: {interval: 10ms}}\n"),
            &[(6, 20, "this counts anyhow", "statuses"), (6, 53, "this is too short", "`100ms`")],
        ),
        (
            one_app("    queue: {max_per_endpoint: 5}\n"),
            &[(6, 13, "nobody waits for one endpoint here", "`mode: strict`")],
        ),
        (
            format!("{}http2: {{ping: {{interval: 10ms}}, server_ping: {{timeout: 1h}}}}\n", one_app("")),
            &[
                (6, 26, "10ms is out of range", "from `1s` to `1h`"),
                (6, 56, "1h is out of range", "from `100ms` to `10m`"),
            ],
        ),
        (
            one_app(
                "    auth: {any: [{jwt: {public_keys: [Cargo.toml], secret: 0123456789abcdef0123456789abcdef}}]}\n",
            ),
            &[
                (6, 24, "public keys and a secret exclude each other", "leave one"),
                (6, 39, "there is no `PUBLIC KEY` in it", "openssl pkey -pubout"),
            ],
        ),
    ];
    let mut wrong = String::new();
    for (text, wanted) in cases {
        let said = check_text::<Config>("http.yaml", &text).expect_err(&text).to_string();
        for (line, column, message, help) in wanted {
            let place = format!("--> http.yaml:{line}:{column}\n");
            let found = said.split("\n\n").any(|error| {
                error.contains("error: ")
                    && error.contains(message)
                    && error.contains(&place)
                    && error.contains(help)
            });
            if !found {
                wrong += &format!("{line}:{column} {message} ({help}) is not in\n{said}\n");
            }
        }
        if said.matches("error: ").count() != wanted.len() {
            wrong += &format!("more is said than wanted:\n{said}\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_left_out_is_what_the_field_does() {
    let text = route("mirror: {cluster: b}")
        + "http2: {ping: {}}\n"
        + &one_app("").lines().skip(5).collect::<String>();
    let config: Config = check_text("http.yaml", &text).expect("a good configuration");
    let mirror = config.apps["shop"].routes[0].mirror.as_deref().expect("a mirror");
    assert_eq!((mirror.percent, mirror.shadow_host, mirror.in_flight), (100.0, false, 100));
    assert!(config.http2.server_ping.is_none() && config.http2.ping.is_some());
    assert!(config.apps["shop"].compression.is_none());
}
