//! What routes look at beyond the path, and what they do besides choosing servers.

use bytes::Bytes;
use harness::http::Response;
use harness::{App, Kind, Proxy, http};

use super::{ONE_APP, talk};

fn proxy(routes: &str, app: &App, other: &App) -> Proxy {
    let config = format!(
        "{ONE_APP}    clusters: {{other: {{endpoints: [$OTHER], health: {{probe: null}}}}}}\n    routes:\n{routes}"
    );
    Proxy::of(Kind::Http)
        .config(&config)
        .set("APP", app.address())
        .set("OTHER", other.address())
        .start()
        .unwrap()
}

fn ask(proxy: &Proxy, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = ::http::Request::builder().method(method).uri(path).header("host", "shop.test");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    http::send(proxy.address(), request.body(Bytes::new()).unwrap()).unwrap()
}

fn both() -> (App, App) {
    (App::start(|request| async move { http::echo(&request) }).unwrap(), App::saying("other").unwrap())
}

#[test]
fn routes_look_at_headers_queries_cookies_and_expressions() {
    let (app, other) = both();
    let routes = "
      - {match: {headers: {X-Env: canary}}, cluster: other}
      - {match: {path: /q/*, query: {version: {regex: '[23]'}}}, cluster: other}
      - {match: {path: /c/*, cookies: {beta: {present: true}}}, cluster: other}
      - {match: {path_regex: '/v[0-9]+/.*', methods: [GET]}, cluster: other}
";
    let proxy = proxy(routes, &app, &other);
    let reaches = |path: &str, headers: &[(&str, &str)]| ask(&proxy, "GET", path, headers).text() == "other";
    assert!(
        reaches("/", &[("x-env", "canary")]) && !reaches("/", &[("x-env", "prod")]) && !reaches("/", &[])
    );
    assert!(reaches("/q?version=2", &[]) && !reaches("/q?version=4", &[]) && !reaches("/q", &[]));
    assert!(reaches("/c/x", &[("cookie", "a=b; beta=")]) && !reaches("/c/x", &[("cookie", "a=b")]));
    assert!(reaches("/v12/x", &[]) && !reaches("/v/x", &[]) && !reaches("/x/v1/x", &[]));
    assert_ne!(ask(&proxy, "PUT", "/v12/x", &[]).text(), "other");
}

#[test]
fn a_split_follows_its_weights() {
    let (app, other) = both();
    let routes = "      - {match: {path: /*}, split: [{weight: 1}, {cluster: other, weight: 3}]}\n";
    let proxy = proxy(routes, &app, &other);
    // All in one go: their answers come in order.
    let count = 800;
    let request = "GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let answers = talk(proxy.address(), (request.repeat(count - 1) + last).as_bytes(), "").unwrap();
    let (others, own) =
        (answers.matches("\r\n\r\nother").count(), answers.matches("\r\n\r\nGET / 0").count());
    assert_eq!(others + own, count);
    // Three quarters of 800 are 600, with a standard deviation of 12: six of them are one in a billion.
    assert!((528..=672).contains(&others), "{others} of {count}");
}

#[test]
fn redirects_answers_and_rewrites_do_what_they_say() {
    let (app, other) = both();
    let routes = "
      - {match: {path: /old/*}, redirect: {scheme: https, prefix: /new, status: 301}}
      - {match: {path: /robots.txt}, respond: {status: 200, headers: {Content-Type: text/plain}, body: 'no'}}
      - {match: {path: /api/*}, rewrite: {prefix: /, host: inner.test}}
      - {match: {path: /one}, rewrite: {path: /two}}
      - {match: {path: /plain/*}, redirect: {scheme: http}, cluster: other}
      - {match: {path: /safe/*}, redirect: {scheme: https, port: 8443}, auth: {any: [{api_key: {in: {header: X-Key}, keys: {}}}]}}
";
    let proxy = proxy(routes, &app, &other);
    let answer = ask(&proxy, "GET", "/old/x?y=1", &[]);
    assert_eq!((answer.status.as_u16(), answer.header("location")), (301, "https://shop.test/new/x?y=1"));
    // For those who do not speak it; and for them before they say who they are.
    assert_eq!(ask(&proxy, "GET", "/plain/x", &[]).text(), "other");
    let answer = ask(&proxy, "GET", "/safe/x", &[]);
    assert_eq!((answer.status.as_u16(), answer.header("location")), (302, "https://shop.test:8443/safe/x"));
    let answer = ask(&proxy, "GET", "/robots.txt", &[]);
    assert_eq!((answer.text().as_str(), answer.header("content-type")), ("no", "text/plain"));
    let answer = ask(&proxy, "HEAD", "/robots.txt", &[]);
    assert_eq!((answer.text().as_str(), answer.header("content-length")), ("", "2"));
    assert_eq!(app.received().len(), 0, "no server was asked");
    assert_eq!(ask(&proxy, "GET", "/api/x?y=/api", &[]).text(), "GET /x?y=/api 0");
    assert_eq!(ask(&proxy, "GET", "/api", &[]).text(), "GET / 0");
    assert_eq!(ask(&proxy, "GET", "/one?q", &[]).text(), "GET /two?q 0");
    let received = app.received();
    let host = |index: usize| received[index].headers().get_all("host").iter().cloned().collect::<Vec<_>>();
    assert!(host(0) == ["inner.test"] && host(2) == ["shop.test"], "{:?} {:?}", host(0), host(2));
    // The connection goes on, with a body that was there and without.
    let two = "POST /old/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\nabcGET /one HTTP/1.1\r\nHost: shop.test\r\n\r\n";
    let answer = talk(proxy.address(), two.as_bytes(), "GET /two 0").unwrap();
    assert!(answer.starts_with("HTTP/1.1 301 ") && answer.ends_with("GET /two 0"), "{answer}");
    // A body that is still to come is not read: the client is told.
    let begun = "POST /old/x HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 3\r\n\r\na";
    let answer = talk(proxy.address(), begun.as_bytes(), "\r\n\r\n").unwrap();
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
}

#[test]
fn preflights_are_answered_and_replies_say_who_may_read_them() {
    let mut app = App::start(|_| async move {
        ::http::Response::builder()
            .header("access-control-allow-origin", "https://own.test")
            .header("access-control-allow-credentials", "true")
            .body(Bytes::from_static(b"ok"))
            .unwrap()
    })
    .unwrap();
    let other = App::saying("other").unwrap();
    let routes = "
      - match: {path: /api/*}
        cors: {allow_origins: ['https://shop.test'], allow_methods: [PUT], allow_headers: [X-A], max_age: 1m, allow_credentials: true}
      - {match: {path: /open/*}, cors: {allow_origins: ['*']}}
";
    let proxy = proxy(routes, &app, &other);
    let preflight = |path: &str, origin: &str| {
        ask(&proxy, "OPTIONS", path, &[("origin", origin), ("access-control-request-method", "PUT")])
    };
    let answer = preflight("/api/x", "https://shop.test");
    let header = |name: &str| answer.header(&format!("access-control-{name}")).to_owned();
    assert_eq!(answer.status.as_u16(), 204);
    assert_eq!(
        (header("allow-origin"), header("allow-methods"), header("allow-headers"), header("max-age")),
        ("https://shop.test".into(), "PUT".into(), "X-A".into(), "60".into())
    );
    assert_eq!((header("allow-credentials").as_str(), answer.header("vary")), ("true", "Origin"));
    let answer = preflight("/api/x", "https://evil.test");
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), ("", "Origin"));
    assert_eq!(preflight("/open/x", "https://evil.test").header("access-control-allow-origin"), "*");
    assert_eq!(app.received().len(), 0, "no server was asked");

    let answer = ask(&proxy, "GET", "/api/x", &[("origin", "https://shop.test")]);
    assert_eq!(
        answer.headers.get_all("access-control-allow-origin").iter().collect::<Vec<_>>(),
        ["https://shop.test"]
    );
    let answer = ask(&proxy, "GET", "/api/x", &[("origin", "https://evil.test")]);
    assert_eq!(
        (answer.header("access-control-allow-origin"), answer.header("access-control-allow-credentials")),
        ("", "")
    );
    assert_eq!(answer.header("vary"), "Origin");
    let answer = ask(&proxy, "GET", "/open/x", &[("origin", "https://evil.test")]);
    assert_eq!((answer.header("access-control-allow-origin"), answer.header("vary")), ("*", ""));
    // OPTIONS that is no preflight is the app's.
    assert_eq!(ask(&proxy, "OPTIONS", "/api/x", &[]).text(), "ok");
    // What the proxy itself says is for those who may read what the app says.
    app.crash();
    let shown = |path: &str, origin: &str| {
        let answer = ask(&proxy, "GET", path, &[("origin", origin)]);
        let header = |name: &str| answer.header(name).to_owned();
        (answer.status.as_u16(), header("access-control-allow-origin"), header("vary"))
    };
    let origin = "Origin".to_owned();
    assert_eq!(shown("/api/x", "https://shop.test"), (502, "https://shop.test".into(), origin.clone()));
    assert_eq!(shown("/api/x", "https://evil.test"), (502, String::new(), origin));
    assert_eq!(shown("/open/x", "https://evil.test"), (502, "*".into(), String::new()));
    assert_eq!(shown("/closed", "https://shop.test").1, "");
}
