//! What may be written, and how those are told who write something else.

use groove_common::config::check_text;

use super::*;
use crate::roles::Wish;

const SMALLEST: &str = "
listeners: [{address: 127.0.0.1:6432}]
admin: {address: 127.0.0.1:9632}
databases:
  shop:
    endpoints: [127.0.0.1:5432]
    pool: {mode: transaction, size: 20}
users: {app: {password: secret}}
";

#[test]
fn the_smallest_file_is_enough() {
    let config: Config = check_text("smallest", SMALLEST).unwrap();
    let shop = &config.databases["shop"];
    assert_eq!((shop.pool.mode, shop.pool.size, shop.pool.min), (PoolMode::Transaction, 20, 0));
    assert_eq!((config.auth, &config.limits), (Auth::Password, &Limits::default()));
    assert_eq!(config.slow_query, None);
    assert_eq!(config.pgbadger.stats, Duration::from_secs(60));
}

#[test]
fn everything_that_can_be_written() {
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let text = format!(
        "
listeners: [{{address: 127.0.0.1:6432}}]
databases:
  shop:
    endpoints: [127.0.0.1:5432, {{address: 127.0.0.1:5433, weight: 2, role: replica}}]
    role: replica
    replicas: {{max_lag: null, or_primary: false}}
    monitor: {{user: monitor, password: secret, interval: 100ms, timeout: 2s}}
    dbname: shop_2026
    connect: 2s
    tls: {{verify: none}}
    channel_binding: require
    health: {{probe: null}}
    pool: {{mode: session, size: 5, min: 1, max_wait: 1s, max_waiters: 10, idle: 1m, lifetime: 1h,
           statements: 50, reset_query: DISCARD TEMP}}
users:
  app: {{password: secret, server_user: owner, server_password: other}}
  md: {{password: md50123456789abcdef0123456789abcdef}}
  scram: {{password: '{verifier}', server_password: secret}}
auth_query: {{database: shop, user: asker, password: ask, query: SELECT name FROM users WHERE name = $1, ttl: 1m}}
console: {{admins: [app], stats: [md, scram], pause_timeout: 5s}}
limits: {{login: 5s, logins: 10, message: 64KiB, statements: 100, pools: 7}}
slow_query: 500ms
"
    );
    let config: Config = check_text("all", &text).unwrap();
    assert_eq!(config.databases["shop"].dbname.as_deref(), Some("shop_2026"));
    assert_eq!(config.databases["shop"].wish(), Wish::Replica { or_primary: false });
    assert_eq!(config.users["app"].server_user.as_deref(), Some("owner"));
    assert_eq!((config.limits.pools, config.limits.message), (7, Size::kib(64)));
    assert_eq!(config.slow_query, Some(Duration::from_millis(500)));
}

#[test]
fn the_next_process_has_to_find_this_one() {
    let with = |path: &str| {
        let text =
            format!("{SMALLEST}handover: {path}\n").replace("6432}", "6432}, {address: 'unix:/run/a.sock'}");
        check_text::<Config>("handover", &text).map_err(|report| report.to_string())
    };
    let config = with("/run/groove.handover").unwrap();
    assert_eq!(config.handover.as_deref(), Some(std::path::Path::new("/run/groove.handover")));
    for (path, complaint) in [
        ("groove.handover", "not an absolute path"),
        ("/run/a.sock", "a listener has this address already"),
        (&*format!("/{}", "x".repeat(100)), "too long for a unix socket"),
    ] {
        let said = with(path).unwrap_err();
        assert!(said.contains(complaint), "{said}");
    }
}

/// What stands where the lines of [`SMALLEST`] stood, where the error is shown, and what it says.
struct Broken {
    line: usize,
    instead: &'static str,
    at: (usize, usize),
    says: [&'static str; 2],
}

const BROKEN: [Broken; 38] = [
    Broken { line: 7, instead: "    role: master", at: (7, 11), says: ["master", "primary"] },
    Broken {
        line: 6,
        instead: "    endpoints: [{address: 127.0.0.1:5432, role: primary}]",
        at: (6, 43),
        says: ["nothing depends on it", "give the database a `role`"],
    },
    Broken {
        line: 6,
        instead: "    endpoints: [{address: 127.0.0.1:5432, role: replica}]\n    role: primary",
        at: (6, 16),
        says: ["none of these can be the primary", "servers change theirs"],
    },
    Broken {
        line: 6,
        instead: "    endpoints: [{address: a:1, role: primary}, {address: b:1, role: primary}]\n    role: primary",
        at: (6, 69),
        says: ["another endpoint is the primary", "the servers are asked"],
    },
    Broken {
        line: 7,
        instead: "    monitor: {user: app}",
        at: (7, 5),
        says: ["servers are not asked", "`role: primary`"],
    },
    Broken {
        line: 7,
        instead: "    role: primary\n    monitor: {password: secret}",
        at: (8, 15),
        says: ["not said whose this is", "add `user`"],
    },
    Broken {
        line: 7,
        instead: "    role: replica\n    monitor: {interval: 0s}",
        at: (8, 25),
        says: ["no time at all", "`500ms`"],
    },
    Broken {
        line: 7,
        instead: "    role: replica\n    replicas: {max_lag: 0s}",
        at: (8, 25),
        says: ["no replica is never behind", "`null`"],
    },
    Broken { line: 4, instead: "databses:", at: (4, 1), says: ["databses", "databases"] },
    Broken { line: 6, instead: "    endpoints: []", at: (6, 16), says: ["no endpoint", "at least one"] },
    Broken { line: 6, instead: "    endpoints: [127.0.0.1]", at: (6, 17), says: ["port", "127.0.0.1:PORT"] },
    Broken {
        line: 6,
        instead: "    endpoints: {embedded: {capacity: 1MiB}}",
        at: (6, 17),
        says: ["no store of its own", "list of servers"],
    },
    Broken {
        line: 7,
        instead: "    pool: {mode: transactoin}",
        at: (7, 18),
        says: ["transactoin", "transaction"],
    },
    Broken { line: 7, instead: "    pool: {size: 0}", at: (7, 18), says: ["0", "1"] },
    Broken {
        line: 7,
        instead: "    pool: {size: 5, min: 6}",
        at: (7, 26),
        says: ["more connections are kept", "`5`"],
    },
    Broken { line: 7, instead: "    pool: {max_wait: 30}", at: (7, 22), says: ["30", "30s"] },
    Broken { line: 7, instead: "    pool: {size: many}", at: (7, 18), says: ["many", ""] },
    Broken {
        line: 8,
        instead: "users: {app: {}}",
        at: (8, 14),
        says: ["without a password", "password: {env: NAME}"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: SCRAM-SHA-256$4096}}",
        at: (8, 25),
        says: ["begins like a SCRAM verifier", "pg_authid"],
    },
    Broken { line: 8, instead: "users: {}", at: (8, 8), says: ["nobody may log in", "auth: trust"] },
    Broken {
        line: 8,
        instead: "users: {app: {certificates: [app.internal]}}",
        at: (8, 29),
        says: ["no listener asks", "client_ca"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: x, certificates: ['*.*']}}",
        at: (8, 43),
        says: ["more than one `*`", "CN=NAME"],
    },
    Broken {
        line: 7,
        instead: "    channel_binding: require",
        at: (7, 22),
        says: ["no TLS to bind to", "tls: {}"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: x}}\npgbadger: {statements: slow.log}",
        at: (9, 24),
        says: ["slow without a limit", "slow_query: 500ms"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: x}}\nslow_query: 1s\npgbadger: {sessions: a.log, statements: a.log}",
        at: (10, 41),
        says: ["a form of its own", "another file"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: x}}\npgbadger: {stats: 0s}",
        at: (9, 19),
        says: ["less than a second", "60s"],
    },
    Broken {
        line: 8,
        instead: "auth_query: {database: none, user: asker}",
        at: (8, 24),
        says: ["there is no database `none`", "one of `databases`"],
    },
    Broken {
        line: 8,
        instead: "auth_query: {database: shop, user: asker, query: SELECT 1}",
        at: (8, 50),
        says: ["finds the same for everybody", "`$1`"],
    },
    Broken {
        line: 8,
        instead: "auth_query: {database: shop, user: asker, ttl: 2h}",
        at: (8, 48),
        says: ["outside of what makes sense", "`1h`"],
    },
    Broken {
        line: 2,
        instead: "auth: passthrough\nlisteners: [{address: 0.0.0.0:6432}]",
        at: (3, 23),
        says: ["in the clear", "add `tls`"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: x}}\nconsole: {admins: [app, bos]}",
        at: (9, 25),
        says: ["there is no user `bos`", "one of `users`"],
    },
    Broken {
        line: 8,
        instead: "auth: passthrough\nusers: {app: {}}\nconsole: {stats: [app]}",
        at: (10, 19),
        says: ["no server that could say", "add `password`"],
    },
    Broken {
        line: 8,
        instead: "users: {app: {password: x}}\nconsole: {pause_timeout: 0s}",
        at: (9, 26),
        says: ["paused in no time", "`30s`"],
    },
    Broken {
        line: 7,
        instead: "    split: {read_your_writes: true}",
        at: (7, 5),
        says: ["same servers", "`role: split`"],
    },
    Broken {
        line: 7,
        instead: "    role: split\n    pool: {mode: session}",
        at: (8, 18),
        says: ["one server connection", "`mode: transaction`"],
    },
    Broken {
        line: 7,
        instead: "    role: split\n    split: {read_only_functions: [price, a.b.c]}",
        at: (8, 42),
        says: ["not a function's name", "`schema.name`"],
    },
    Broken {
        line: 7,
        instead: "    role: split\n    split: {read_your_write: true}",
        at: (8, 13),
        says: ["read_your_write", "read_your_writes"],
    },
    Broken { line: 8, instead: "auth: trusted", at: (8, 7), says: ["trusted", "trust"] },
];

#[test]
fn broken_files_are_told_where_and_what_to_write_instead() {
    for Broken { line, instead, at, says } in BROKEN {
        let mut lines: Vec<&str> = SMALLEST.lines().collect();
        lines[line - 1] = instead;
        let text = lines.join("\n");
        let report = check_text::<Config>("groove.yaml", &text).unwrap_err();
        let told = report.to_string();
        let places: Vec<_> = report.findings().iter().map(|finding| (finding.line, finding.column)).collect();
        assert!(places.contains(&at), "{at:?}: {places:?}\n{told}");
        assert!(says.iter().all(|words| told.contains(words)), "{says:?}\n{told}");
    }
}

#[test]
fn trust_is_for_this_machine_only() {
    let text = "
listeners: [{address: 127.0.0.1:6432}, {address: unix:/run/groove.sock}, {address: 0.0.0.0:6433}]
databases: {shop: {endpoints: [127.0.0.1:5432]}}
auth: trust
";
    let report = check_text::<Config>("groove.yaml", text).unwrap_err();
    let [finding] = report.findings() else { panic!("{report}") };
    assert_eq!((finding.line, finding.column), (2, 84), "{report}");
    assert!(report.to_string().contains("anyone who reaches this address"), "{report}");
}
