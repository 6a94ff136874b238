//! Edits that depend on the message: what comes out, and what never does.

use super::*;
use crate::config::edits::{Replace, When};
use crate::scene::tests::kept;
use crate::wire::{Fields, Limits};
use proptest::prelude::*;

const HEAD: &str = "GET /users/42/x?q=a%20b&evil=1%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: shop.test\r\n\
                    X-Old: one\r\nx-old: two\r\nCookie: plan=gold\r\nUser-Agent: curl/8\r\n\r\n";

fn headers(yaml: &str) -> Headers {
    let text = format!(
        "listeners: [{{address: 127.0.0.1:1}}]\napps:\n  a:\n    hosts: [a]\n    endpoints: [127.0.0.1:1]\n    request_headers: {yaml}\n"
    );
    let config: crate::config::Config =
        groove_common::config::check_text("http.yaml", &text).unwrap_or_else(|error| panic!("{error}"));
    *config.apps["a"].request_headers.clone().expect("edits")
}

/// What a request gets: names that go, and the lines that come.
fn edited(lists: &[Headers], head: &str) -> (Edits, String) {
    let lists: Vec<&Headers> = lists.iter().collect();
    let program = Program::new(&lists, Side::Request).unwrap();
    let kept = kept(head, false);
    let edits = program.of_request(&kept.scene("shop", None, None), None);
    let lines = String::from_utf8(edits.lines().to_vec()).unwrap();
    (edits, lines)
}

#[test]
fn templates_are_filled_from_the_request() {
    for (value, want) in [
        ("${client} ${scheme} ${host} ${method}", "192.0.2.7 http shop.test GET"),
        ("${path}|${app}", "/users/42/x|shop"),
        ("${query.q}", "a b"),
        ("${cookie.plan}-${header.user-agent}", "gold-curl/8"),
        ("${header.x-old}", "one"),
        ("${request_id} ${time.unix}", "id42 1700000000"),
        ("${time.http}", "Tue, 14 Nov 2023 22:13:20 GMT"),
        ("${time.rfc3339}", "2023-11-14T22:13:20Z"),
        ("${path.id}/${path.2}", "42/x"),
        ("${cookie.none:-free}", "free"),
        ("${tls.version:-plain}", "plain"),
        ("a $${host} $b", "a ${host} $b"),
    ] {
        let list =
            headers(&format!("{{path_pattern: '^/users/(?<id>[0-9]+)/(.*)', set: {{X-Out: '{value}'}}}}"));
        assert_eq!(edited(&[list], HEAD).1, format!("X-Out: {want}\r\n"), "{value}");
    }
}

#[test]
fn what_could_end_a_line_makes_no_line() {
    let list =
        headers("{set: {X-Evil: '${query.evil}', Host: '${query.evil}'}, add: {X-None: '${cookie.none}'}}");
    let (edits, lines) = edited(&[list], HEAD);
    assert_eq!(lines, "");
    // What came under that name does not stay in its place; a Host has to.
    assert!(edits.removes(b"x-evil") && !edits.removes(b"host"));
}

#[test]
fn a_host_may_be_made_if_it_is_one() {
    let list = headers("{set: {Host: '${cookie.plan}.inside.test'}}");
    let (edits, lines) = edited(&[list], HEAD);
    assert_eq!(lines, "Host: gold.inside.test\r\n");
    assert!(edits.sets_host() && edits.removes(b"host"));
    let list = headers("{set: {Host: '${cookie.plan}/x'}}");
    assert_eq!(edited(&[list], HEAD).1, "");
}

#[test]
fn names_and_values_are_moved_and_replaced_in_order() {
    let list = headers(
        "{rename: {X-Old: X-New}, replace: {User-Agent: {pattern: '^(\\w+)/(?<v>\\d+)$', with: '${v} of $1'}}, remove: [Cookie]}",
    );
    let (edits, lines) = edited(&[list], HEAD);
    assert_eq!(lines, "X-New: one\r\nX-New: two\r\nUser-Agent: 8 of curl\r\n");
    for gone in ["x-old", "x-new", "cookie", "user-agent"] {
        assert!(edits.removes(gone.as_bytes()), "{gone}");
    }
    // Nothing to rename or replace: all stays as it came.
    let list = headers("{rename: {X-None: User-Agent}, replace: {X-Old: {pattern: z, with: y}}}");
    let (edits, lines) = edited(&[list], HEAD);
    assert!(lines.is_empty() && !edits.removes(b"user-agent") && !edits.removes(b"x-old"));
}

#[test]
fn conditions_see_what_the_edits_before_have_left() {
    for (condition, holds) in [
        ("header: X-Old", true),
        ("{header: X-Old, equals: two}", true),
        ("{header: X-Old, equals: tw}", false),
        ("{header: X-Old, matches: '^t'}", true),
        ("{header: X-Set, equals: 'yes'}", true),
        ("{header: Cookie, absent: true}", true),
        ("{header: X-Old, absent: true}", false),
        ("header: X-None", false),
    ] {
        let condition =
            if condition.starts_with('{') { condition.to_owned() } else { format!("{{{condition}}}") };
        let list = headers(&format!(
            "{{remove: [Cookie], set: {{X-Set: 'yes'}}, when: [{{if: {condition}, set: {{X-Then: 'y'}}}}]}}"
        ));
        assert_eq!(edited(&[list], HEAD).1.contains("X-Then"), holds, "{condition}");
    }
}

#[test]
fn a_routes_word_counts_after_its_apps() {
    let app = headers("{set: {X-A: 'a ${method}', X-B: b}}");
    let route = headers("{set: {X-A: r}, remove: [X-B]}");
    assert_eq!(edited(&[app, route], HEAD).1, "X-A: r\r\n");
}

#[test]
fn replies_are_edited_by_status_and_by_what_was_asked() {
    let list: Headers = Headers {
        set: [("X-For".to_owned(), "${path} ${status} ${reply.server}".to_owned())].into(),
        when: vec![When {
            condition: crate::config::edits::Condition {
                status: vec!["5xx".into(), "404".into()],
                ..Default::default()
            },
            set: [("Cache-Control".to_owned(), "no-store".to_owned())].into(),
            add: Default::default(),
            remove: vec![],
            rename: Default::default(),
            replace: [("Location".to_owned(), Replace { pattern: "^http:".into(), with: "https:".into() })]
                .into(),
        }],
        ..Headers::default()
    };
    let program = Program::new(&[&list], Side::Reply).unwrap();
    let request = kept(HEAD, false);
    let reply = ReplyProgram { app: "shop", program: &program, request, stripped: None, identity: None };
    let with = |status: u16, fixed: &Edits| {
        let raw =
            format!("HTTP/1.1 {status} X\r\nServer: s\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n");
        let mut fields = Fields::default();
        let head = ReplyHead::parse(raw.as_bytes(), false, &Limits::default(), &mut fields).unwrap();
        String::from_utf8(reply.edits(&head, fixed).lines().to_vec()).unwrap()
    };
    let lines = |status: u16| with(status, &Edits::default());
    assert_eq!(lines(200), "X-For: /users/42/x 200 s\r\n");
    let all = "X-For: /users/42/x 404 s\r\nLocation: https://a/\r\nCache-Control: no-store\r\n";
    assert_eq!((lines(404), lines(403)), (all.to_owned(), "X-For: /users/42/x 403 s\r\n".to_owned()));
    // What all replies get comes behind, and its word counts.
    let fixed = Edits::new(["X-For"], [], [("Set-Cookie", "home=1")]);
    assert_eq!(with(200, &fixed), "Set-Cookie: home=1\r\n");
}

#[test]
fn mistakes_are_told_with_their_place() {
    for (text, at, message) in [
        ("a ${hots}", 3, "no value `hots`"),
        ("${host", 1, "no end"),
        ("é ${header.}", 3, "wants a name"),
        ("${status}", 1, "no status"),
        ("${reply.server}", 1, "no reply yet"),
    ] {
        let error = Template::parse(text, Side::Request).unwrap_err();
        assert!(error.at == at && error.message.contains(message), "{text}: {error:?}");
    }
}

proptest! {
    /// Whatever a client sends, a template makes one line or none.
    #[test]
    fn no_value_is_ever_two_lines(value in prop::collection::vec(any::<u8>(), 0..80)) {
        let encoded: String = form_urlencoded::byte_serialize(&value).collect();
        let head = format!("GET /?x={encoded} HTTP/1.1\r\nHost: a\r\n\r\n");
        let list = Headers {
            set: [("X-A".to_owned(), "${query.x}".to_owned()), ("Host".to_owned(), "${query.x}".to_owned())].into(),
            ..Headers::default()
        };
        let (edits, _) = {
            let program = Program::new(&[&list], Side::Request).unwrap();
            let kept = kept(&head, false);
            (program.of_request(&kept.scene("a", None, None), None), ())
        };
        let lines = edits.lines();
        let plain = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r\n").expect("a whole line");
            prop_assert!(line.iter().all(plain));
            prop_assert!(line.starts_with(b"X-A: ") || line.starts_with(b"Host: "));
        }
        prop_assert!(lines.iter().filter(|byte| **byte == b'\n').count() <= 2);
    }

    /// No text of a configuration panics.
    #[test]
    fn any_text_is_a_template_or_a_mistake(text in "[${}:a-z.-]{0,30}") {
        let _either = Template::parse(&text, Side::Reply);
    }
}
