use proptest::prelude::*;

use super::*;
use crate::ids::Address;

#[test]
fn the_smallest_configuration_holds() {
    let document = good(
        "listeners: [{address: 127.0.0.1:11311}]\nadmin: {address: 127.0.0.1:9311}\nclusters:\n  main:\n    endpoints: [127.0.0.1:11211]\n",
    );
    assert_eq!(document.listeners, [Listener::new(Address::tcp("127.0.0.1", 11311))]);
    let list = vec![Endpoint::from(Address::tcp("127.0.0.1", 11211))];
    assert_eq!(document.clusters["main"].endpoints, Endpoints::Static(list));
    assert_eq!(document.clusters["main"].health, Health::default());
    assert_eq!(document.log, Log::default());
}

#[test]
fn every_form_of_endpoints_is_read() {
    let endpoints = |text: &str| {
        good(&with_cluster(&format!("{{endpoints: {text}}}"))).clusters["main"].endpoints.clone()
    };
    let Endpoints::Static(list) =
        endpoints("[\"[::1]:1\", {address: unix:/run/a.sock, weight: 2, zone: b, metadata: {rack: 007}}]")
    else {
        panic!("a list is static");
    };
    assert_eq!(list[0].address, Address::tcp("::1", 1));
    assert_eq!((list[1].weight, list[1].zone.as_deref()), (2, Some("b")));
    assert_eq!(list[1].metadata["rack"], "007", "a text stays as it is written");

    let refresh = Duration::from_secs(30);
    assert_eq!(
        endpoints("{dns: db.internal:5432}"),
        Endpoints::Dns(Dns { name: "db.internal".into(), port: Some(5432), refresh })
    );
    assert_eq!(
        endpoints("{dns: _pg._tcp.internal}"),
        Endpoints::Dns(Dns { name: "_pg._tcp.internal".into(), port: None, refresh })
    );
    assert_eq!(
        endpoints("{dns: {name: db, port: 1, refresh: 5s}}"),
        Endpoints::Dns(Dns { name: "db".into(), port: Some(1), refresh: Duration::from_secs(5) })
    );
    assert_eq!(
        endpoints("{embedded: {capacity: 64MiB}}"),
        Endpoints::Embedded(Embedded { capacity: Size::mib(64), disk: None })
    );
}

#[test]
fn enums_with_content_are_read() {
    let on_miss = |text: &str| {
        let cluster = format!("{{endpoints: [a:1], on_miss: {text}}}");
        good(&with_cluster(&cluster)).clusters["main"].on_miss.clone()
    };
    assert_eq!(on_miss("fail"), Some(OnMiss::Fail));
    assert_eq!(on_miss("{ask: {cluster: other}}"), Some(OnMiss::Ask { cluster: "other".into() }));
    assert_eq!(on_miss("{wait: 5s}"), Some(OnMiss::Wait(Duration::from_secs(5))));
    assert_eq!(on_miss("null"), None);
}

#[test]
fn anchors_and_merge_keys() {
    let document = good(
        "x-defaults: &defaults {mode: session, eager: true, password: first}
x-more: &more {password: second, prefix: p}
listeners: [{address: 127.0.0.1:80}]
clusters:
  own: {<<: *defaults, endpoints: &list [a:1], eager: false}
  both:
    endpoints: *list
    <<: [*defaults, *more]
",
    );
    let (own, both) = (&document.clusters["own"], &document.clusters["both"]);
    assert!(!own.eager, "its own key wins");
    assert_eq!((own.mode, both.mode, both.eager), (PoolMode::Session, PoolMode::Session, true));
    assert_eq!(own.endpoints, both.endpoints);
    assert_eq!(both.password.as_ref().map(Secret::expose), Some("first"), "the first mapping named wins");
    assert_eq!(both.prefix.as_deref(), Some("p"));
}

#[test]
fn an_alias_bomb_is_refused_quickly() {
    let mut text = "x-0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("x-{level}: &a{level} [{items}]\n"));
    }
    let report = bad(&text);
    assert_eq!(report.findings()[0].message, "aliases make the configuration too large");
    assert_eq!(report.findings()[0].line, 6);
}

#[test]
fn deep_nesting_is_refused() {
    let brackets = format!("x-deep: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(bad(&brackets).findings()[0].help.is_some());
    // Each alias as deep as is allowed, one in the other.
    let mut text = String::new();
    for level in 0..10 {
        let inner = if level == 0 { "1".to_owned() } else { format!("*a{}", level - 1) };
        text.push_str(&format!("x-{level}: &a{level} {}{inner}{}\n", "[".repeat(20), "]".repeat(20)));
    }
    assert_eq!(bad(&text).findings()[0].message, "aliases make the configuration too large");
}

#[test]
fn secrets_come_from_where_they_are_said_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    let path = folder.path().join("groove.yaml");
    let text = "listeners: [{address: 127.0.0.1:80}]\nadmin: {address: 127.0.0.1:81, token: {env: CARGO_MANIFEST_DIR}}
clusters: {main: {endpoints: [a:1], password: {file: password}}, number: {endpoints: [a:1], password: 0123}}\n";
    std::fs::write(&path, text).unwrap();

    let loaded = load::<Sample>(&path).unwrap_or_else(|report| panic!("{report}"));
    let password = |name: &str| loaded.document.clusters[name].password.clone();
    assert_eq!(password("main").unwrap().expose(), "hunter2", "the last line break is no part of it");
    assert_eq!(password("number").unwrap().expose(), "0123");
    let token = loaded.document.admin.as_ref().and_then(|admin| admin.token.as_ref());
    assert_eq!(token.map(Secret::expose), Some(env!("CARGO_MANIFEST_DIR")));
    assert_eq!(loaded.files, [path, folder.path().join("password")]);

    let shown = format!("{:?} {}", loaded.document, serde_json::to_string(&loaded.document).unwrap());
    for secret in ["hunter2", "0123", env!("CARGO_MANIFEST_DIR")] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn certificates_are_found_beside_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("cert.pem"), pair.cert.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
    let path = folder.path().join("groove.yaml");
    let listener = |certificate: &str, key: &str| {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:80, tls: {{certificate: {certificate}, key: {key}}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        load::<Sample>(&path)
    };

    let loaded = listener("cert.pem", "key.pem").unwrap_or_else(|report| panic!("{report}"));
    let tls = loaded.document.listeners[0].tls.clone().unwrap();
    assert_eq!(&*tls.certificate, folder.path().join("cert.pem"));
    assert_eq!(tls.client_auth(), ClientAuth::None);
    assert_eq!(loaded.files.len(), 3);

    let messages: Vec<_> =
        listener("key.pem", "cert.pem").unwrap_err().findings().iter().map(|f| f.message.clone()).collect();
    assert!(messages[0].ends_with("key.pem holds no certificate in PEM"), "{messages:?}");
    assert!(messages[1].ends_with("cert.pem holds no private key in PEM"), "{messages:?}");
}

#[test]
fn a_file_of_endpoints_is_read_as_strictly() {
    let folder = tempfile::tempdir().unwrap();
    let (path, list) = (folder.path().join("groove.yaml"), folder.path().join("list.yaml"));
    std::fs::write(&path, with_cluster("{endpoints: {file: list.yaml}}")).unwrap();
    std::fs::write(&list, "- 10.0.0.1:80\n- {address: 10.0.0.2:80, weight: 3}\n").unwrap();
    let loaded = load::<Sample>(&path).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.document.clusters["main"].endpoints, Endpoints::File(InputFile(list.clone())));
    assert_eq!(loaded.files, std::slice::from_ref(&path), "discovery watches the list itself");
    assert_eq!(read::<Vec<Endpoint>>(&list).unwrap().len(), 2);

    std::fs::write(&list, "- 10.0.0.1:80\n- {adress: 10.0.0.2:80}\n").unwrap();
    let report = load::<Sample>(&path).unwrap_err();
    let finding = &report.findings()[0];
    assert_eq!((finding.line, finding.help.as_deref()), (3, Some("did you mean `address`?")));
    assert!(finding.message.ends_with("list.yaml:2: unknown key `adress`"), "{}", finding.message);
}

#[test]
fn the_effective_configuration_is_a_configuration() {
    let document = good(&with_cluster(
        "{endpoints: [a:1, {address: b:2, zone: z}], prefix: \"0123\", health: {probe: null}, on_miss: {wait: 1m 30s}}",
    ));
    let written = serde_json::to_string(&document).unwrap();
    assert_eq!(good(&written), document, "JSON is YAML: {written}");
    assert_eq!(good(&serde_yaml::to_string(&document).unwrap()), document);
}

#[test]
fn the_schema_names_every_format_that_is_checked() {
    let schema = schema::<Sample>().to_string();
    for format in
        ["address", "duration-text", "size", "mode", "certificate-file", "secret", "key-prefix", "network"]
    {
        assert!(schema.contains(&format!("\"format\":\"{format}\"")), "{format} is not in the schema");
    }
}

#[test]
fn a_mark_in_front_of_the_text_is_no_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groove.yaml");
    std::fs::write(&path, "\u{feff}listeners: [{address: 127.0.0.1:80}]\n").unwrap();
    assert!(load::<Sample>(&path).is_ok());
}

/// Pieces that a configuration is made of, right and wrong.
const PIECES: [&str; 40] = [
    "listeners",
    "address",
    "clusters",
    "endpoints",
    "password",
    "tls",
    "log",
    "level",
    "drain",
    ":",
    ": ",
    "- ",
    "\n",
    "\n  ",
    "\n    ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "\"",
    "'",
    "&a ",
    "*a",
    "<<: ",
    "|",
    ">",
    "# ",
    "!x ",
    "127.0.0.1:80",
    "5",
    "-1",
    "0x",
    "1e999",
    "yes",
    "null",
    "\t",
    "é",
    "\u{1f600}",
    "\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_breaks_the_loader(text in ".{0,200}") {
        survives(&text);
    }

    #[test]
    fn no_heap_of_pieces_breaks_the_loader(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..60)) {
        survives(&pieces.concat());
    }

    #[test]
    fn no_damage_breaks_the_loader(at in 0usize..400, removed in 0usize..10, put in prop::sample::select(&PIECES[..])) {
        let text = include_str!("good.yaml");
        let boundary = |mut at: usize| { at = at.min(text.len()); while !text.is_char_boundary(at) { at -= 1 } at };
        let (start, end) = (boundary(at), boundary(at + removed));
        survives(&format!("{}{put}{}", &text[..start], &text[end.max(start)..]));
    }
}

#[test]
fn the_text_that_is_damaged_holds() {
    good(include_str!("good.yaml"));
}

/// Whatever the text is, there is a document or a report that points into the text.
fn survives(text: &str) {
    if let Err(report) = check_text::<Sample>("groove.yaml", text) {
        assert!(!report.findings().is_empty());
        for finding in report.findings() {
            let line =
                text.split('\n').nth(finding.line - 1).unwrap_or_else(|| panic!("no line {}", finding.line));
            assert!(finding.column <= line.chars().count() + 1, "{finding:?}");
        }
        assert!(report.to_string().contains("groove.yaml"));
    }
}
