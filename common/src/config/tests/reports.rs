//! Reports as people see them.

use super::*;

#[test]
fn every_error_at_once() {
    insta::assert_snapshot!(bad("# A configuration with much wrong.
listeners:
  - adress: 127.0.0.1:80
    max_connections: 0
  - address: 1.2.3.4
    tls: {certificate: nope.pem}
    backlog: 010
  - {address: ::1:80, mode: 9}
log: {level: verbose, access: yes, format: jsno}
drain: 30
clusters:
  a:
    endpoints: [1.2.3.4:5, {address: 1.2.3.4:6, weigth: 3}]
    health: {probe: {interval: 1, timeout: 5s}}
    eager: yes
  b:
    endpoints: {etcd: groove/b}
    mode: sesion
    prefix: a b
  c:
    endpoints: {dns: cache}
    prefix: true
    on_miss: {ask: {clustre: a}}
  d:
    endpoints: 10.0.0.1:80
  d:
    endpoints: []
  e:
  f: {endpoints: {dns: a:1, embedded: {capacity: lots}}, on_miss: {}}
"));
}

#[test]
fn what_the_types_cannot_say() {
    insta::assert_snapshot!(bad("listeners:
  - {address: 127.0.0.1:80, name: a, mode: \"0660\"}
  - address: 127.0.0.1:80
    name: a
admin: {address: 0.0.0.0:9000}
workers: 0
clusters:
  a:
    endpoints: [10.0.0.1:5, 10.0.0.2:0, 10.0.0.1:5]
    health:
      probe: {interval: 1s, timeout: 5s}
      breaker: {base_ejection: 2m}
  b:
    endpoints: []
  c:
    endpoints:
      - {address: 10.0.0.1:80, weight: 0}
      - {address: 10.0.0.2:80, weight: 0}
  d: {endpoints: {embedded: {capacity: 1KiB}}, shards: 4}
  e: {endpoints: {dns: {name: a, refresh: 0s}}, health: {probe: {interval: 0s, timeout: 0s}}}
"));
}

#[test]
fn what_stands_in_for_an_error_is_not_complained_about() {
    // `b` is checked although `a` is broken; `a` has no further errors though its endpoints are gone.
    insta::assert_snapshot!(bad("listeners: [{address: 127.0.0.1:80}]
clusters:
  a: {endpoints: nothing}
  b: {endpoints: []}
"));
}

#[test]
fn a_type_that_knows_more_than_its_schema_is_heard() {
    insta::assert_snapshot!(bad(&with_cluster("{endpoints: [a:1], shards: 3}")));
}

#[test]
fn texts_that_are_not_yaml() {
    for (name, text) in [
        ("tab", "listeners:\n\t- address: 127.0.0.1:80\n"),
        ("open_list", "listeners: [{address: 127.0.0.1:80}\nlog: {}\n"),
        ("open_quotes", "listeners: [{address: \"127.0.0.1:80}]\n\n\n"),
        ("colon", "log: level: info\n"),
        ("two_documents", "log: {}\n---\nlog: {}\n"),
        ("empty", ""),
        (
            "aliases_and_tags",
            "listeners: *nobody\nlog: !custom {}\nclusters: {a: {<<: 5, endpoints: [a:1]}}\n[a]: b\n",
        ),
        ("list", "- a\n- b\n"),
    ] {
        insta::assert_snapshot!(name, bad(text));
    }
}

#[test]
fn secrets_are_in_no_report() {
    let long = "x".repeat(50);
    for text in [
        with_cluster("{endpoints: [a:1], password: hunter2, modus: 5}"),
        with_cluster("{endpoints: [a:1], pasword: hunter2}"),
        with_cluster("{endpoints: [a:1], password: hunter2, password: hunter2}"),
        with_cluster("{endpoints: [a:1], password: [hunter2]}"),
        with_cluster("{endpoints: [a:1], password: *hunter2}"),
        with_cluster("{endpoints: [a:1], password: !hunter2 x}"),
        with_cluster("{endpoints: [a:1], password: \"hunter2}"),
        with_cluster("{endpoints: [a:1], password: hunter2"),
        with_cluster("{endpoints: [a:1], password: \"hunter2 \\q\"}"),
        with_cluster("{endpoints: [a:1], db_passwd: {value: hunter2}}"),
        with_cluster(&format!("{{endpoints: [a:1], prefix: {long}, password: 'hunter2', eager: no}}")),
        with_cluster(
            "\n    password:\n      hunter2: x\n    endpoints: [a:1]\n    eager: no\n    password: hunter2",
        ),
        with_cluster("\n    password: |\n      hunter2\n    \thunter2\n    endpoints: [a:1]"),
    ] {
        let report = bad(&text);
        let shown = format!("{report}{}{report:?}", report.styled());
        let about_key = text.contains("hunter2: x");
        assert!(about_key || !shown.contains("hunter2"), "{report}");
    }
}

#[test]
fn a_mask_does_not_move_the_place() {
    insta::assert_snapshot!(bad(&with_cluster("{endpoints: [a:1], password: averylongsecret, eager: no}")));
}

#[test]
fn a_secret_that_cannot_be_found() {
    insta::assert_snapshot!(bad(&format!(
        "{}  env: {{endpoints: [a:1], password: {{env: GROOVE_TEST_NOT_SET}}}}
  typo: {{endpoints: [a:1], password: {{fiel: password.txt}}}}
  empty: {{endpoints: [a:1], password: \"\"}}
  bool: {{endpoints: [a:1], password: true}}
",
        with_cluster("{endpoints: [a:1], password: {file: no-such-file}}")
    )));
}

#[test]
fn an_error_in_what_aliases_stand_for_is_said_once() {
    let report = bad("x: &c {endpoints: [nothing]}
listeners: [{address: 127.0.0.1:80}]
clusters: {a: &d {endpoints: [nothing]}, b: *d, c: *d}
");
    let messages: Vec<_> = report.findings().iter().map(|finding| finding.message.as_str()).collect();
    assert_eq!(messages, ["unknown key `x`", "`nothing` is not an address"]);
}

#[test]
fn a_file_that_is_not_there() {
    let report = load::<Sample>(std::path::Path::new("/nowhere/groove.yaml")).unwrap_err();
    insta::assert_snapshot!(report);
}

#[test]
fn a_report_is_bounded() {
    let many: String = (0..500).map(|n| format!("  c{n}: {{endpoints: [{n}]}}\n")).collect();
    let report = bad(&format!("listeners: [{{address: 127.0.0.1:80}}]\nclusters:\n{many}"));
    assert_eq!(report.findings().len(), 200);
    assert!(report.to_string().ends_with("groove.yaml: 500 errors, of which the first are shown"));
}
