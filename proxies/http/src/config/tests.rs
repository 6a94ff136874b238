//! Broken configurations, and what is said of each: the line, the column, and what to write instead.

use super::Config;
use groove_common::config::{check_text, schema};

/// The apps of a document, behind one listener.
fn with_apps(apps: &str) -> String {
    format!("listeners: [{{address: 127.0.0.1:8080}}]\napps:\n{apps}")
}

fn one_app(more: &str) -> String {
    with_apps(&format!("  shop:\n    hosts: [shop.test]\n    endpoints: [127.0.0.1:9001]\n{more}"))
}

/// Text, and for each error its line, its column, its message and the help.
type Broken = (String, &'static [(usize, usize, &'static str, &'static str)]);

fn broken() -> Vec<Broken> {
    vec![
        (
            with_apps("  shop: {host: [shop.test], endpoints: [127.0.0.1:9001]}\n"),
            &[(3, 10, "unknown key `host`", "did you mean `hosts`?")],
        ),
        (
            with_apps("  shop: {hosts: [\"shop.*.test\"], endpoints: [127.0.0.1:9001]}\n"),
            &[(
                3,
                18,
                "`*` stands for whole labels at the start only",
                "write a name like `shop.example.com`",
            )],
        ),
        (
            with_apps(
                "  blog: {hosts: [a.test], endpoints: [127.0.0.1:9001]}\n  shop: {hosts: [b.test, A.test], endpoints: [127.0.0.1:9002]}\n",
            ),
            &[(4, 26, "app `blog` has this host already", "a host belongs to one app")],
        ),
        (
            one_app(
                "    clusters: {api: {endpoints: [127.0.0.1:9002]}}\n    routes:\n      - {match: {path: /api/*}, cluster: apis}\n",
            ),
            &[(8, 42, "the app has no cluster `apis`", "write one of `api`")],
        ),
        (
            format!(
                "limits: {{min_rate: {{rate: 0B, grace: 0s}}}}\nforwarded: {{trace: {{sample: 2}}}}\n{}",
                one_app("")
            ),
            &[
                (1, 27, "everything is as fast as this", "leave `min_rate` out"),
                (1, 38, "no client is never behind", "write a length of time"),
                (2, 29, "`2` is too large", "write 0 to 1"),
            ],
        ),
        (
            one_app(
                "    routes:\n      - {match: {path: api/*}}\n      - {match: {path: /api/*, methods: [post]}}\n",
            ),
            &[
                (7, 24, "a path starts with \"/\"", "write `/login` for one path"),
                (8, 42, "methods know case", "write `POST`"),
            ],
        ),
        (
            one_app(
                "    request_headers:\n      set: {Content-Length: \"5\", \"X Team\": a}\n      remove: [Host]\n",
            ),
            &[
                (7, 13, "this header says where messages end", "leave it out"),
                (7, 34, "this is no header name", "like `X-Team`"),
                (8, 16, "a request has exactly one Host", "use `set` to replace it"),
            ],
        ),
        (
            format!("timeouts: {{first_byte: 0s}}\n{}", one_app("")),
            &[(1, 24, "no time at all would let nothing through", "write a length of time, like `30s`")],
        ),
        (
            format!("limits: {{head: 100B, fields: 1000}}\ntrusted: [10.0.0.0/40]\n{}", one_app("")),
            &[
                (1, 30, "`1000` is too large", "write 8 to 128"),
                (2, 11, "`10.0.0.0/40` is not a network", "a network is written like `10.0.0.0/8`"),
            ],
        ),
        (
            with_apps(
                "  shop: {hosts: [\"http://shop.test\", \"shop.test:80\"], endpoints: {embedded: {capacity: 64MiB}}}\n",
            ),
            &[
                (3, 18, "a host has no scheme and no path", "write a name like"),
                (3, 38, "a host has no port", "write a name like"),
                (3, 67, "this proxy has no store of its own", "write a list of servers"),
            ],
        ),
        (
            one_app("    health: {probe: null}\n    health_path: healthz\n"),
            &[
                (7, 18, "this is no path that can be asked for", "write one like `/healthz`"),
                (7, 5, "there is no probe to ask for it", "leave it out"),
            ],
        ),
        (
            one_app(
                "    routes:\n      - {match: {path_regex: 'a(', path: /a}, cluster: x, split: [{weight: 0, cluster: y}]}\n",
            ),
            &[
                (7, 30, "unclosed group", "write one like"),
                (7, 18, "`path` says already which paths", "leave one of the two out"),
                (7, 56, "the app has no cluster `x`", "add it under"),
                (7, 59, "`cluster` says already who serves this route", "leave one of the two out"),
                (7, 88, "the app has no cluster `y`", "or leave this out"),
                (7, 59, "the weights have no sum to share by", "a weight of 1 or more"),
            ],
        ),
        (
            one_app(
                "    concurrency: {soft: 9, hard: 5}\n    queue: {timeout: 0s, bytes: 1KiB}\n    retry: {on: [503], backoff: {base: 2s}}\n    outlier: {on: [reset]}\n",
            ),
            &[
                (6, 25, "a soft bound above the hard one would never be met", "write no more than `hard`"),
                (7, 22, "no time at all would let nobody wait", "`max: 0` for no queue"),
                (7, 33, "this is too little to wait with", "write at least `64KiB`"),
                (8, 40, "this is longer than `max`", "write no more than `max`"),
                (9, 20, "this counts anyhow", "write statuses only"),
            ],
        ),
        (
            one_app(
                "    routes:\n      - {match: {path: /a}, redirect: {prefix: /b, status: 200}, rewrite: {path: b}}\n      \
                 - {match: {path: /b}, cors: {allow_origins: ['*', shop.test], allow_credentials: true}}\n      \
                 - {match: {path: /c, headers: {X: {regex: '['}}}, respond: {status: 204, body: x}}\n      \
                 - {match: {path: /d}, redirect: {scheme: https}, respond: {status: 200}}\n      \
                 - {match: {path: /e}, redirect: {scheme: https, path: /f}, split: [{weight: 1}]}\n      \
                 - {match: {path: /f}, redirect: {scheme: https}, split: [{weight: 1}]}\n",
            ),
            &[
                (7, 40, "the route has no prefix", "let `match.path` end in `/*`"),
                (7, 60, "this status is no redirect", "write 301"),
                (7, 66, "`redirect` answers already", "leave one of the two out"),
                (7, 82, "this is no path", "write one like `/v2`"),
                (8, 52, "browsers take no `*`", "write each origin"),
                (8, 57, "this is no origin", "write one as browsers do"),
                (9, 49, "unclosed character class", "write one like"),
                (9, 80, "this status has no body", "leave it out"),
                (10, 56, "`redirect` answers already", "leave one of the two out"),
                (11, 66, "`redirect` answers already", "leave one of the two out"),
            ],
        ),
        (
            one_app(
                "    balance: {hash: {header: \"X User\"}}\n    affinity: {by: {path: \"(\"}}\n    concurrency: {hard: 0}\n",
            ),
            &[
                (6, 30, "this is no name", "write letters, digits"),
                (7, 27, "this is no regular expression: unclosed group", "write one like `^/games/([^/]+)`"),
                (8, 25, "`0` is too small", "write 1 to 1000000"),
            ],
        ),
        (
            one_app("    balance: {hash: path}\n    affinity: {by: {segment: 1}}\n"),
            &[(6, 5, "`affinity` says already who gets what", "leave one of the two out")],
        ),
        (
            one_app("    retry: {on: [503, oops]}\n"),
            &[(6, 23, "`oops` is not a good failure", "write `connect-failure`, `reset`, `timeout`, `5xx`")],
        ),
        (
            one_app("    affinity: {by: {cookie: {name: home, generate: true}}}\n    balance: fastest\n"),
            &[
                (6, 29, "a cookie that names an endpoint is made with a secret", "add `secret: {env: NAME}`"),
                (7, 14, "unknown value `fastest`", "write `least_loaded`"),
            ],
        ),
        (
            format!("limits: {{head: 2KiB, target: 4KiB}}\nvia: two words\n{}", one_app("")),
            &[
                (1, 30, "a target of 4KiB cannot stand in a head of 2KiB", "write no more than `head`"),
                (2, 6, "this cannot stand in a Via header", "write one word"),
            ],
        ),
    ]
}

#[test]
fn every_error_has_its_place_and_says_what_to_write_instead() {
    for (text, wanted) in broken() {
        let said = check_text::<Config>("http.yaml", &text).expect_err(&text).to_string();
        for (line, column, message, help) in wanted {
            let place = format!("--> http.yaml:{line}:{column}\n");
            let found = said.split("\n\n").any(|error| {
                error.contains(&format!("error: {message}")) && error.contains(&place) && error.contains(help)
            });
            assert!(found, "{line}:{column} {message} ({help}) is not in\n{said}");
        }
        assert_eq!(said.matches("error: ").count(), wanted.len(), "{said}");
    }
}

#[test]
fn short_forms_are_what_they_stand_for() {
    let app = |more: &str| -> super::Cluster {
        let config: Config = check_text("http.yaml", &one_app(more)).expect("a good configuration");
        config.apps["shop"].servers()
    };
    let adaptive = |more: &str| app(more).concurrency.and_then(|it| it.adaptive());
    assert!(adaptive("    concurrency: {hard: 50, adaptive: false}\n").is_none());
    let on = adaptive("    concurrency: {hard: 50, adaptive: true}\n").expect("it is on");
    assert_eq!((on.min, on.initial, on.max), (1, 20, 50));
    assert_eq!(adaptive("    concurrency: {hard: 5, adaptive: {min: 9}}\n").expect("it is on").min, 5);
    let short = app("    affinity: {by: {cookie: sid}}\n").affinity;
    assert_eq!(short, app("    affinity: {by: {cookie: {name: sid}}, mode: soft}\n").affinity);
    assert!(short.is_some());
}

#[test]
fn defaults_are_what_the_page_says() {
    let config: Config = check_text("http.yaml", &one_app("")).expect("a good configuration");
    assert_eq!(config.timeouts.first_byte.get().as_secs(), 30);
    assert_eq!(config.limits.head.bytes(), 32 * 1024);
    assert_eq!(config.via.as_deref(), Some("groove"));
    assert_eq!(config.apps["shop"].retries, 2);
}

#[test]
fn the_schema_describes_every_key() {
    let schema = schema::<Config>().to_string();
    for key in ["first_byte", "idle_per_endpoint", "health_path", "request_headers"] {
        assert!(schema.contains(&format!("\"{key}\":")), "{key}");
    }
}

#[test]
fn pages_are_read_when_they_are_checked() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let page = folder.path().join("page.html");
    std::fs::write(&page, "{{ statuss }}").expect("a file");
    let page = page.display();
    let text = format!("pages: {{404: {page}, 200: {page}, 5xx: {page}}}\n{}", one_app(""));
    let said = check_text::<Config>("http.yaml", &text).expect_err("no good pages").to_string();
    for wanted in ["there is no `statuss` to show, only status", "`200` names no failure"] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
    let text = one_app(&format!("    maintenance: {{page: {page}}}\n"));
    let said = check_text::<Config>("http.yaml", &text).expect_err("no good page").to_string();
    assert!(said.contains("--> http.yaml:6:25\n") && said.contains("there is no `statuss`"), "{said}");
}
