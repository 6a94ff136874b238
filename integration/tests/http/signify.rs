//! Why a request was not served: codes, pages, and apps that are closed for a while.

use std::io::Write;

use bytes::Bytes;
use harness::{App, Kind, Port, Proxy, Scripted, Signal, http};

use super::{read_until, request, talk};

/// A server that reads a request and sends this; nothing leaves the client waiting.
fn saying(said: &'static str, ends: bool) -> Scripted {
    Scripted::start(move |_, mut stream| {
        let asked = read_until(&mut stream, "\r\n\r\n").unwrap_or_default();
        if asked.is_empty() {
            return;
        }
        let _left = stream.write_all(said.as_bytes());
        if !ends {
            let _end = read_until(&mut stream, "");
        }
    })
    .unwrap()
}

#[test]
fn every_failure_has_its_code_in_a_header_the_body_the_log_and_a_metric() {
    let (mute, gone, broken, wide) = (
        saying("", false),
        saying("", true),
        saying("HTTP/1.1 abc\r\n\r\n", false),
        saying(
            Box::leak(format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(40_000)).into_boxed_str()),
            false,
        ),
    );
    let closed = Port::reserve().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    std::fs::write(folder.path().join("none.yaml"), "[]\n").unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
log: {access: {sample: 0}}
timeouts: {first_byte: 300ms}
apps:
  mute: {hosts: [mute.test], endpoints: [$MUTE], health: {probe: null}}
  gone: {hosts: [gone.test], endpoints: [$GONE], health: {probe: null}}
  broken: {hosts: [broken.test], endpoints: [$BROKEN], health: {probe: null}}
  wide: {hosts: [wide.test], endpoints: [$WIDE], health: {probe: null}}
  down: {hosts: [down.test], endpoints: [$CLOSED], health: {probe: null}}
  off: {hosts: [off.test], endpoints: {file: none.yaml}}
  sick: {hosts: [sick.test], endpoints: [$CLOSED], health: {probe: {interval: 100ms, timeout: 100ms, failures: 1}}}
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .folder(folder)
        .set("MUTE", mute.address())
        .set("GONE", gone.address())
        .set("BROKEN", broken.address())
        .set("WIDE", wide.address())
        .set("CLOSED", closed.address())
        .alive_is_enough()
        .start()
        .unwrap();
    let ask = |host: &str| {
        let mut asked = request(host, "/");
        asked.headers_mut().insert("accept", "application/json".parse().unwrap());
        http::send(proxy.address(), asked).unwrap()
    };
    // Until the probe has seen it, its only server is tried.
    harness::eventually("a server that is down", || {
        (ask("sick.test").header("x-groove-code") == "H10").then_some(())
    })
    .unwrap();
    for (host, status, code, owner) in [
        ("mute.test", 504, "H12", "app"),
        ("gone.test", 502, "H13", "app"),
        ("broken.test", 502, "H17", "app"),
        ("wide.test", 502, "H25", "app"),
        ("down.test", 502, "H21", "app"),
        ("off.test", 503, "H14", "app"),
        ("sick.test", 503, "H10", "app"),
        ("nobody.test", 404, "H30", "client"),
    ] {
        let mark = proxy.log().mark();
        let answer = ask(host);
        assert_eq!((answer.status.as_u16(), answer.header("x-groove-code")), (status, code), "{host}");
        let body = answer.json().unwrap();
        assert_eq!((&body["code"], &body["owner"]), (&code.into(), &owner.into()), "{host}");
        let id = body["request_id"].as_str().unwrap();
        assert_eq!(id.len(), 32, "{host}");
        let line = proxy.log().after(mark, id).unwrap();
        assert!(line.contains(&format!("\"code\":\"{code}\"")) && line.contains(host), "{line}");
        assert!(proxy.metrics().unwrap().sum("groove_http_codes_total", &[("code", code)]).unwrap() >= 1.0);
    }
    let text = talk(proxy.address(), b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "").unwrap();
    assert!(text.contains("\r\nX-Groove-Code: H26\r\n"), "{text}");
}

const PAGES: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
trusted: [127.0.0.0/8]
pages: {5xx: all.html, 404: missing.json}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    pages: {maintenance: closed.html}
    maintenance: {enabled: true, allow: [10.0.0.0/8], retry_after: 2m}
    routes:
      - {match: {path: /health}, maintenance: {enabled: false}}
      - {match: {path: /api/*}, maintenance: {enabled: true, page: api.json}}
  open:
    hosts: [open.test]
    endpoints: [$APP]
    routes: [{match: {path: /closed/*}, maintenance: {enabled: true}}]
";

#[test]
fn apps_and_routes_close_for_a_while_and_pages_say_so() {
    let app = App::saying("ok").unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("all.html", "<i>{{ code }} {{ status }}</i>");
    write("missing.json", "{\"host\": \"{{ host }}\", \"id\": \"{{ request_id }}\"}");
    write("closed.html", "<b>{{ app }} {{ client }} {{ retry_after }}</b>");
    write("api.json", "{\"closed\": \"{{ app }}\"}");
    let path = folder.path().to_owned();
    let proxy = Proxy::of(Kind::Http).config(PAGES).folder(folder).set("APP", app.address()).start().unwrap();
    let ask = |host: &str, path: &str, client: &str, accept: &str| {
        let mut asked = request(host, path);
        for (name, value) in [("x-forwarded-for", client), ("accept", accept)] {
            asked.headers_mut().insert(name, value.parse().unwrap());
        }
        http::send(proxy.address(), asked).unwrap()
    };
    let answer = ask("shop.test", "/", "192.0.2.1", "text/html");
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-groove-code"), answer.header("retry-after")),
        (503, "H80", "120")
    );
    assert_eq!(answer.text(), "<b>shop 192.0.2.1 120</b>");
    // Programs get what they read; who does not say, the page.
    assert_eq!(ask("shop.test", "/", "192.0.2.1", "application/json").json().unwrap()["code"], "H80");
    assert_eq!(ask("shop.test", "/", "192.0.2.1", "*/*").text(), "<b>shop 192.0.2.1 120</b>");
    // Who is let in, and which routes stay open.
    assert_eq!(ask("shop.test", "/", "10.1.2.3", "*/*").text(), "ok");
    assert_eq!(ask("shop.test", "/health", "192.0.2.1", "*/*").text(), "ok");
    assert_eq!(ask("shop.test", "/api/x", "192.0.2.1", "*/*").json().unwrap()["closed"], "shop");
    assert_eq!(ask("open.test", "/", "192.0.2.1", "*/*").text(), "ok");
    assert_eq!(ask("open.test", "/closed/x", "192.0.2.1", "text/html").text(), "<i>H80 503</i>");
    let missing = ask(
        "evil\u{22}.test".trim_matches('"').replace('"', "").as_str(),
        "/",
        "192.0.2.1",
        "application/json",
    );
    assert_eq!(missing.json().unwrap()["host"], "evil.test");
    assert_eq!(missing.header("content-type"), "application/json");
    // A page is read again when its file changes.
    std::fs::write(path.join("closed.html"), "<b>soon</b>").unwrap();
    harness::eventually("the new page", || {
        (ask("shop.test", "/", "192.0.2.1", "text/html").text() == "<b>soon</b>").then_some(())
    })
    .unwrap();
    // A bad one changes nothing and the log says why.
    let mark = proxy.log().mark();
    std::fs::write(path.join("closed.html"), "{{ nothing }}").unwrap();
    proxy.log().after(mark, "there is no `nothing` to show").unwrap();
    assert_eq!(ask("shop.test", "/", "192.0.2.1", "text/html").text(), "<b>soon</b>");
}

#[test]
fn an_app_is_opened_by_a_reload_and_a_posts_connection_outlives_its_refusal() {
    let app = App::saying("ok").unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    for name in ["all.html", "missing.json", "closed.html", "api.json"] {
        std::fs::write(folder.path().join(name), "closed").unwrap();
    }
    let proxy = Proxy::of(Kind::Http).config(PAGES).folder(folder).set("APP", app.address()).start().unwrap();
    let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
    let post = b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\nab";
    stream.write_all(post).unwrap();
    assert!(read_until(&mut stream, "closed").unwrap().starts_with("HTTP/1.1 503 "));
    stream.write_all(post).unwrap();
    assert!(read_until(&mut stream, "closed").unwrap().starts_with("HTTP/1.1 503 "));
    let text = std::fs::read_to_string(proxy.config_file()).unwrap();
    let open = text.replace("{enabled: true, allow: [10.0.0.0/8], retry_after: 2m}", "{enabled: false}");
    std::fs::write(proxy.config_file(), open).unwrap();
    proxy.signal(Signal::HUP).unwrap();
    harness::eventually("the app", || {
        let answer = http::send(proxy.address(), request("shop.test", "/")).ok()?;
        (answer.text() == "ok").then_some(())
    })
    .unwrap();
    stream.write_all(post).unwrap();
    assert!(read_until(&mut stream, "ok").unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(app.received().pop().unwrap().body(), &Bytes::from_static(b"ab"));
}
