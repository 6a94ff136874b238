//! Headers that depend on the message, and bodies that are not taken, as an app and a client see them.

use std::io::Write;
use std::net::TcpStream;

use bytes::Bytes;
use harness::{App, Kind, PATIENCE, Proxy, Scripted, http};

use super::auth::echo;
use super::{read_until, request, talk};

#[test]
fn values_are_made_of_the_request() {
    let app = echo();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
trusted: [127.0.0.0/8]
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    request_headers:
      path_pattern: '^/users/(?<id>[0-9]+)'
      set:
        X-User: '${path.id:-nobody}'
        X-Line: '${method} ${scheme}://${host}${target} of ${client}'
        X-Plan: '${cookie.plan:-free}'
        X-Id: '${request_id}'
        X-Evil: '${query.evil}'
        X-When: '${time.http}'
      rename: {X-Trace: X-Old-Trace}
      replace: {User-Agent: {pattern: '/[0-9.]+', with: ''}}
      when:
        - if: {header: X-Debug, matches: '^(1|true)$'}
          set: {X-Level: debug}
        - if: {header: X-Level, absent: true}
          set: {X-Level: info}
    routes:
      - match: {path: /moved/*}
        request_headers: {set: {Host: '${query.to}.inside.test', X-Plan: route}}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let ask = |target: &str, lines: &[(&'static str, &str)]| {
        let mut asked = request("shop.test", target);
        for (name, value) in lines {
            asked.headers_mut().append(*name, value.parse().unwrap());
        }
        http::send(proxy.address(), asked).unwrap().json().unwrap()
    };
    let seen = ask(
        "/users/42/x?evil=1%0d%0aX-Root:%201",
        &[
            ("cookie", "a=b; plan=gold"),
            ("x-debug", "true"),
            ("x-trace", "t1"),
            ("user-agent", "curl/8.1"),
            ("x-request-id", "mine"),
            ("x-forwarded-proto", "https"),
            ("x-evil", "kept?"),
        ],
    );
    for (name, want) in [
        ("x-user", "42"),
        ("x-line", "GET https://shop.test/users/42/x?evil=1%0d%0aX-Root:%201 of 127.0.0.1"),
        ("x-plan", "gold"),
        ("x-id", "mine"),
        ("x-old-trace", "t1"),
        ("user-agent", "curl"),
        ("x-level", "debug"),
    ] {
        assert_eq!(seen[name].as_str(), Some(want), "{name}");
    }
    for name in ["x-evil", "x-root", "x-trace"] {
        assert_eq!(seen.get(name), None, "{name}");
    }
    assert!(seen["x-when"].as_str().unwrap().ends_with(" GMT"));

    let seen = ask("/other", &[]);
    assert_eq!((seen["x-user"].as_str(), seen["x-level"].as_str()), (Some("nobody"), Some("info")));
    assert_eq!(seen["x-id"].as_str().map(str::len), seen["x-request-id"].as_str().map(str::len));
    assert_eq!(seen["x-id"], seen["x-request-id"], "the id is the one that the app gets");
    let seen = ask("/moved/x?to=a", &[]);
    assert_eq!((seen["host"].as_str(), seen["x-plan"].as_str()), (Some("a.inside.test"), Some("route")));
    // What is no host leaves the one that came.
    assert_eq!(ask("/moved/x?to=a%20b/", &[])["host"], "shop.test");
}

#[test]
fn replies_are_edited_by_what_they_say_and_what_was_asked() {
    let app = App::start(|asked| async move {
        let status = asked.uri().path().trim_start_matches('/').parse::<u16>().unwrap_or(200);
        ::http::Response::builder()
            .status(status)
            .header("server", "app/1.2")
            .header("location", "http://inside.test/x")
            .header("x-evil", "a")
            .body(Bytes::from_static(b"ok"))
            .unwrap()
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    response_headers:
      set: {X-Served: '${app} ${path} ${status} ${reply.server}', X-Request-Id: '${request_id}'}
      replace: {Location: {pattern: '^http://inside[.]test', with: 'https://shop.test'}}
      when:
        - {if: {status: [5xx, '404']}, set: {Cache-Control: no-store}}
        - {if: {header: X-Evil, equals: a}, remove: [X-Evil]}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    for (path, cached) in [("/200", ""), ("/404", "no-store"), ("/403", ""), ("/500", "no-store")] {
        let answer = http::send(proxy.address(), request("shop.test", path)).unwrap();
        let status = path.trim_start_matches('/');
        assert_eq!(answer.header("x-served"), format!("shop {path} {status} app/1.2"));
        assert_eq!((answer.header("cache-control"), answer.header("x-evil")), (cached, ""), "{path}");
        assert_eq!(
            (answer.header("location"), answer.header("x-request-id").len()),
            ("https://shop.test/x", 32)
        );
    }
    // Each reply on one connection has its own.
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    for path in ["/404", "/200", "/500"] {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: shop.test\r\n\r\n").as_bytes()).unwrap();
        let answer = read_until(&mut stream, "ok").unwrap();
        assert_eq!(answer.contains("\r\nCache-Control: no-store\r\n"), path != "/200", "{answer}");
    }
}

#[test]
fn bodies_are_taken_by_size_and_type() {
    let app = echo();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
limits: {body: 1MiB}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    body: {types: [application/json, 'image/*']}
    routes:
      - {match: {path: /small}, body: {max: 10B}}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let post = |path: &str, lines: &str, body: &str| {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n{lines}\r\n{body}");
        let answer = talk(proxy.address(), head.as_bytes(), "").unwrap();
        answer.get(9..12).unwrap_or_default().to_owned()
    };
    let json = "Content-Type: application/json\r\n";
    for (path, lines, body, want) in [
        ("/", format!("{json}Content-Length: 20\r\n"), "01234567890123456789", "200"),
        ("/", "Content-Type: image/png\r\nContent-Length: 1\r\n".to_owned(), "1", "200"),
        ("/", "Content-Type: text/plain\r\nContent-Length: 1\r\n".to_owned(), "1", "415"),
        ("/", "Content-Length: 1\r\n".to_owned(), "1", "415"),
        ("/", String::new(), "", "200"),
        ("/small", format!("{json}Content-Length: 10\r\n"), "0123456789", "200"),
        ("/small", format!("{json}Content-Length: 11\r\n"), "01234567890", "413"),
        (
            "/small",
            format!("{json}Transfer-Encoding: chunked\r\n"),
            "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n",
            "200",
        ),
        (
            "/small",
            format!("{json}Transfer-Encoding: chunked\r\n"),
            "5\r\n01234\r\n6\r\n567890\r\n0\r\n\r\n",
            "413",
        ),
    ] {
        assert_eq!(post(path, &lines, body), want, "{path} {lines}{body}");
    }
    assert_eq!(app.received().len(), 5);
    // The connection serves the next request where the body was there to be skipped.
    let two = "POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answer = talk(proxy.address(), two.as_bytes(), "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn trailers_are_held_against_edits_that_depend_on_the_message() {
    let app = Scripted::start(|_, mut stream| {
        let asked = read_until(&mut stream, "X-Sum: 1\r\n\r\n").unwrap().to_lowercase();
        // A probe says nothing.
        if asked.is_empty() {
            return;
        }
        let seen = ["auth_user", "x-debug", "root"].map(|word| asked.contains(word).to_string()).join(" ");
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = format!("{:x}\r\n{seen}\r\n0\r\nX-Gone: 1\r\nX-Kept: 2\r\n\r\n", seen.len());
        stream.write_all((head.to_owned() + &body).as_bytes()).unwrap();
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    request_headers: {when: [{if: {header: X-Any, absent: true}, remove: [X-Debug]}]}
    response_headers: {when: [{if: {status: [2xx]}, remove: [X-Gone]}]}
    routes: [{match: {path: /closed}, auth: &auth {any: [{mtls: {names: ['*']}}]}}]
  plain:
    hosts: [plain.test]
    endpoints: [$APP]
    routes: [{match: {path: /closed}, auth: *auth}]
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let asked = "POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\
                 X-Debug: 1\r\nX_Auth_User: root\r\nX-Auth-Any: root\r\nX-Sum: 1\r\n\r\n";
    let answer = talk(proxy.address(), asked.as_bytes(), "X-Kept: 2\r\n\r\n").unwrap();
    assert!(answer.contains("false false false") && !answer.contains("X-Gone"), "{answer}");
    let asked = asked.replace("shop.test", "plain.test");
    let answer = talk(proxy.address(), asked.as_bytes(), "X-Kept: 2\r\n\r\n").unwrap();
    assert!(answer.contains("false true false") && answer.contains("X-Gone"), "{answer}");
}

#[test]
fn a_body_that_grows_too_long_on_its_way_is_not_taken_either() {
    let (begun, seen) = std::sync::mpsc::channel();
    let app = Scripted::start(move |_, mut stream| {
        if read_until(&mut stream, "01234\r\n").is_ok_and(|asked| !asked.is_empty()) {
            begun.send(()).unwrap();
        }
        let _rest = read_until(&mut stream, "");
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop: {hosts: [shop.test], endpoints: [$APP], body: {max: 10B}}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: shop.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n01234\r\n")
        .unwrap();
    seen.recv_timeout(PATIENCE).unwrap();
    stream.write_all(b"6\r\n567890\r\n0\r\n\r\n").unwrap();
    let answer = read_until(&mut stream, "").unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
