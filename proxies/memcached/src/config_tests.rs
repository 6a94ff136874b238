use groove_common::config::check_text;

use super::*;

const SMALLEST: &str = "
listeners: [{address: 127.0.0.1:11311}]
admin: {address: 127.0.0.1:9311}
clusters:
  main:
    endpoints: [127.0.0.1:11211]
";

#[test]
fn the_smallest_file_is_enough() {
    let config: Config = check_text("smallest", SMALLEST).unwrap();
    assert_eq!(config.default_cluster(), Some("main"));
    let main = &config.clusters["main"];
    assert_eq!(
        (main.connections, &main.failover, main.timeout),
        (1, &Failover::None, Duration::from_secs(1))
    );
    assert_eq!(config.limits(), Limits::default());
}

#[test]
fn everything_that_can_be_written() {
    let text = "
listeners: [{address: 127.0.0.1:11311}]
workers: 2
drain: 5s
clusters:
  users:
    endpoints: [127.0.0.1:11211, 127.0.0.1:11212]
    connections: 2
    timeout: 250ms
    connect_timeout: 100ms
    failover: rehash
    health: {probe: null}
  pages:
    endpoints: {embedded: {capacity: 64MiB}}
routes: [{prefix: 'user:', cluster: users}]
default_cluster: pages
limits: {value: 8MiB, line: 64KiB}
";
    let config: Config = check_text("all", text).unwrap();
    assert_eq!(config.default_cluster(), Some("pages"));
    assert_eq!(config.cluster_number("users"), Some(1));
    assert_eq!(config.clusters["users"].failover, Failover::Rehash);
    assert_eq!(config.limits().value_len_max, 8 << 20);
}

/// A broken file, where the error is shown, and what it says.
struct Broken {
    text: &'static str,
    at: (usize, usize),
    says: [&'static str; 2],
}

const BROKEN: [Broken; 13] = [
    Broken { text: "clusters: {main: {endpoints: [a:1]}}\n", at: (1, 1), says: ["listeners", ""] },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclustres: {main: {endpoints: [a:1]}}\nclusters: {main: {endpoints: [a:1]}}\n",
        at: (2, 1),
        says: ["clustres", "clusters"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a]}}\n",
        at: (2, 31),
        says: ["port", "a:PORT"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: []}}\n",
        at: (2, 30),
        says: ["", ""],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a:1], timeout: 5}}\n",
        at: (2, 46),
        says: ["", "5s"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a:1], timeout: 0s}}\n",
        at: (2, 46),
        says: ["no server answers in no time", "write `1s`"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a:1], failover: rehahs}}\n",
        at: (2, 47),
        says: ["rehahs", "rehash"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a:1]}}\nroutes: [{prefix: x, cluster: users}]\n",
        at: (3, 31),
        says: ["there is no cluster `users`", "write one of `main`"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {one: {endpoints: [a:1]}, two: {endpoints: [b:1]}}\n",
        at: (2, 1),
        says: ["which of the clusters", "default_cluster: NAME"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: {embedded: {capacity: 1KiB}}}}\n",
        at: (2, 52),
        says: ["too small for a store", "at least `1MiB`"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [{address: a:1, weight: 2}]}}\n",
        at: (2, 46),
        says: ["every server the same share", "leave `weight` out"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a:1], connections: 0}}\n",
        at: (2, 50),
        says: ["0", "1"],
    },
    Broken {
        text: "listeners: [{address: 127.0.0.1:1}]\nclusters: {main: {endpoints: [a:1]}}\nlimits: {value: 2GiB}\n",
        at: (3, 17),
        says: ["memcached takes from 1KiB to 1GiB", "write `1MiB`"],
    },
];

#[test]
fn broken_files_are_told_where_and_what_to_write_instead() {
    for Broken { text, at, says } in BROKEN {
        let report = check_text::<Config>("groove.yaml", text).unwrap_err();
        let [finding, ..] = report.findings() else { panic!("{text}: no finding") };
        assert_eq!((finding.line, finding.column), at, "{text}{report}");
        let told = report.to_string();
        assert!(says.iter().all(|words| told.contains(words)), "{text}{told}");
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let text = "
listeners: [{address: 127.0.0.1:1}]
clusters: {main: {endpoints: [a:1], timeout: 0s}}
routes: [{prefix: x, cluster: nobody}, {prefix: x, cluster: main}]
default_cluster: none
";
    let report = check_text::<Config>("groove.yaml", text).unwrap_err();
    assert_eq!(report.findings().len(), 4, "{report}");
}

#[test]
fn hot_keys_are_checked() {
    let config = |cluster: &str| {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nclusters: {{main: {{endpoints: [a:1], {cluster}}}}}\n"
        );
        check_text::<Config>("hot", &text)
    };
    let plain = config("hot_keys: {}").unwrap();
    assert_eq!(plain.clusters["main"].hot_keys, Some(crate::hot::Section::default()));
    assert!(config("hot_keys: {ttl: 10s, capacity: 1GiB, value: 1MiB, rate: 50000}").is_ok());
    for (cluster, column, says) in [
        ("hot_keys: {ttl: 11s}", 53, "kept from 1ms to 10s"),
        ("hot_keys: {ttl: 0s}", 53, "kept from 1ms to 10s"),
        ("hot_keys: {capacity: 1KiB, value: 1KiB}", 58, "too small"),
        ("hot_keys: {capacity: 1MiB, value: 2MiB}", 71, "larger than all that is kept"),
        ("hot_keys: {rate: 1}", 54, "10"),
        ("hot_keys: {tll: 1s}", 48, "ttl"),
        ("hot_keys: {}, resize: {policy: immediate}", 37, "no read may be older"),
    ] {
        let report = config(cluster).unwrap_err();
        let [finding] = report.findings() else { panic!("{cluster}: {report}") };
        assert_eq!((finding.line, finding.column), (2, column), "{cluster}: {report}");
        assert!(report.to_string().contains(says), "{cluster}: {report}");
    }
}

#[test]
fn parts_of_values_go_with_nothing_that_moves_or_copies_keys() {
    let text = |options: &str, value: &str| {
        format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nclusters:\n  a:\n    endpoints: [127.0.0.1:1]\n    \
             chunks: {{size: 1000KiB}}\n{options}\ndefault_cluster: a\nlimits: {{value: {value}}}\n"
        )
    };
    let config: Config = check_text("chunks", &text("", "64MiB")).unwrap();
    assert_eq!(config.clusters["a"].chunks, Some(Chunks::default()));
    for (options, value, wanted) in [
        ("", "1000KiB", "from 1KiB to `limits.value`"),
        ("    failover: rehash", "64MiB", "cannot fail over"),
        ("  b: {endpoints: [127.0.0.1:2], failover: {gutter: a}}", "64MiB", "cannot fail over"),
        ("    resize: {policy: immediate, state: /tmp/x}", "64MiB", "the parts of a value cannot be moved"),
        ("  b: {endpoints: [127.0.0.1:2], replicas: {clusters: [a]}}", "64MiB", "copies or parts"),
        ("  b: {endpoints: [127.0.0.1:2], overflow: {cluster: a}}", "64MiB", "tiers or parts"),
        ("    overflow: {cluster: b}\n  b: {endpoints: [127.0.0.1:2]}", "64MiB", "tiers or parts"),
    ] {
        let report = check_text::<Config>("chunks", &text(options, value)).unwrap_err();
        let [finding, ..] = report.findings() else { panic!("{options}: no finding") };
        assert_eq!((finding.line, finding.column), (5, 5), "{report}");
        assert!(report.to_string().contains(wanted), "{wanted}: {report}");
    }
    let many = text("", "1GiB").replace("1000KiB", "1KiB");
    let report = check_text::<Config>("chunks", &many).unwrap_err();
    assert_eq!((report.findings()[0].line, report.findings()[0].column), (5, 20), "{report}");
    assert!(report.to_string().contains("more than 4096 parts"), "{report}");
}

#[test]
fn copies_are_checked() {
    let text = "
listeners: [{address: 127.0.0.1:11311}]
clusters:
  a:
    endpoints: [127.0.0.1:1]
    replicas: {clusters: [a, b, d, e]}
  b: {endpoints: [127.0.0.1:2], replicas: {clusters: [c, c]}}
  c: {endpoints: [127.0.0.1:3], failover: rehash}
  d: {endpoints: {embedded: {capacity: 64MiB}}}
default_cluster: a
";
    let report = check_text::<Config>("copies", text).unwrap_err().to_string();
    for wanted in [
        "named already",
        "a copy has no copies",
        "copies take the place of `failover`",
        "the embedded store holds no copies",
        "there is no such cluster",
    ] {
        assert!(report.contains(wanted), "{wanted}: {report}");
    }
}

#[test]
fn standby_servers_are_checked() {
    let file = |standby: &str, more: &str| {
        format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nclusters:\n  main:\n    endpoints: [a:1, a:2]\n{more}    \
             standby:\n{standby}"
        )
    };
    let resize = "    resize: {state: /tmp/x}\n";
    let good = "      endpoints: [b:1]\n      join: {evictions_per_second: 5, for: 30s}\n      \
                leave: {below_percent: 50, after: 5m}\n      settle: 10s\n";
    let config: Config = check_text("good", &file(good, resize)).unwrap();
    let standby = config.clusters["main"].standby.as_ref().unwrap();
    assert_eq!((standby.join.evictions_per_second, standby.leave.below_percent), (5, 50));
    let one = "      endpoints: [b:1]\n";
    let immediate = "    resize: {policy: immediate, state: /tmp/x}\n";
    for (standby, more, at, says) in [
        (one, "", (5, 5), "join through a transparent resize"),
        (one, immediate, (6, 5), "add `resize: {state: FOLDER}`"),
        ("      endpoints: []\n", resize, (7, 18), ""),
        ("      endpoints: [b:1, a:2]\n", resize, (7, 24), "in service all the time"),
        ("      endpoints: [b:1, b:1]\n", resize, (7, 24), "has this address already"),
        ("      endpoints: [{address: b:1, weight: 2}]\n", resize, (7, 34), "the same share"),
        ("      endpoints: [b:1]\n      join: {for: 500ms}\n", resize, (8, 19), "write `1m`"),
        ("      endpoints: [b:1]\n      leave: {below_percent: 99}\n", resize, (8, 30), "95"),
    ] {
        let text = file(standby, more);
        let report = check_text::<Config>("groove.yaml", &text).unwrap_err();
        let [finding, ..] = report.findings() else { panic!("{text}: no finding") };
        assert_eq!((finding.line, finding.column), at, "{text}{report}");
        assert!(report.to_string().contains(says), "{text}{report}");
    }
}

#[test]
fn servers_may_be_changed_with_any_distribution() {
    for distribution in ["modula", "ketama", "dalli", "rendezvous"] {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nclusters:\n  main:\n    endpoints: [a:1, a:2]\n    \
             hash: {{distribution: {distribution}}}\n    resize: {{state: /tmp/x}}\n"
        );
        check_text::<Config>("any", &text).unwrap();
    }
}
