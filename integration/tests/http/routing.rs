//! Which app a request reaches, over which sockets, and what is edited on the way.

use std::io::Write;
use std::net::TcpStream;

use bytes::Bytes;
use harness::{App, Authority, Kind, Nginx, Proxy, http};

use super::{ONE_APP, read_until, request};

#[test]
fn requests_are_routed_by_host_path_and_method() {
    let (own, api, writes, wild, rest) = (
        App::saying("own").unwrap(),
        App::saying("api").unwrap(),
        App::saying("writes").unwrap(),
        App::saying("wild").unwrap(),
        App::saying("rest").unwrap(),
    );
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$OWN]
    clusters:
      api: {endpoints: [$API]}
      writes: {endpoints: [$WRITES]}
    routes:
      - {match: {path: /api/*}, cluster: api}
      - {match: {path: /api/*, methods: [POST]}, cluster: writes}
  wild: {hosts: ['*.shop.test'], endpoints: [$WILD]}
  rest: {hosts: ['*'], endpoints: [$REST]}
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .set("OWN", own.address())
        .set("API", api.address())
        .set("WRITES", writes.address())
        .set("WILD", wild.address())
        .set("REST", rest.address())
        .start()
        .unwrap();
    let ask = |method: &str, host: &str, path: &str| {
        let request = ::http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
            .body(Bytes::new())
            .unwrap();
        http::send(proxy.address(), request).unwrap().text()
    };
    assert_eq!(ask("GET", "shop.test", "/"), "own");
    assert_eq!(ask("GET", "SHOP.test:8080", "/apix"), "own");
    assert_eq!(ask("GET", "shop.test", "/api"), "api");
    assert_eq!(ask("GET", "shop.test", "/api/x?y"), "api");
    assert_eq!(ask("POST", "shop.test", "/api/x"), "writes");
    assert_eq!(ask("GET", "a.b.shop.test", "/"), "wild");
    assert_eq!(ask("GET", "elsewhere.test", "/"), "rest");
}

#[test]
fn headers_are_edited_and_the_app_learns_who_asks() {
    let app = App::start(|_| async move {
        ::http::Response::builder()
            .header("x-internal", "secret")
            .header("x-kept", "1")
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
    request_headers: {set: {X-Team: a}, add: {X-More: b}, remove: [X-Debug]}
    response_headers: {set: {X-Frame-Options: DENY}, remove: [X-Internal]}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let mut asked = request("shop.test", "/");
    for (name, value) in
        [("x-team", "mine"), ("x-debug", "1"), ("x-forwarded-for", "6.6.6.6"), ("x-request-id", "mine")]
    {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = http::send(proxy.address(), asked).unwrap();
    assert_eq!(
        (answer.header("x-frame-options"), answer.header("x-internal"), answer.header("x-kept")),
        ("DENY", "", "1")
    );
    let seen = &app.received()[0];
    let header = |name: &str| seen.headers().get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!((header("x-team"), header("x-more"), header("x-debug")), ("a", "b", ""));
    assert_eq!(
        (header("x-forwarded-for"), header("x-forwarded-proto"), header("x-forwarded-host")),
        ("127.0.0.1", "http", "shop.test")
    );
    assert_eq!((header("via"), header("x-request-id").len()), ("1.1 groove", 32));
}

#[test]
fn identity_of_trusted_peers_is_kept() {
    let app = App::saying("ok").unwrap();
    let proxy = Proxy::of(Kind::Http)
        .config(&format!("trusted: [127.0.0.0/8]\nvia: null{ONE_APP}"))
        .set("APP", app.address())
        .start()
        .unwrap();
    let mut asked = request("shop.test", "/");
    for (name, value) in
        [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https"), ("x-request-id", "mine")]
    {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    http::send(proxy.address(), asked).unwrap();
    let seen = &app.received()[0];
    let header = |name: &str| seen.headers().get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(header("x-forwarded-for"), "6.6.6.6, 127.0.0.1");
    assert_eq!((header("x-forwarded-proto"), header("x-request-id"), header("via")), ("https", "mine", ""));
}

#[test]
fn tls_unix_sockets_and_the_proxy_protocol_come_together() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    authority.issue("server", &["shop.test"]).unwrap();
    let app = App::saying("ok").unwrap();
    let config = "
listeners:
  - {address: $LISTEN, tls: {certificate: $DIR/server.pem, key: $DIR/server.key}}
  - {address: '$DIR/groove.sock'}
  - {address: $PROXIED, proxy_protocol: {trusted: [127.0.0.0/8]}}
admin: {address: $ADMIN}
apps:
  shop: {hosts: [shop.test], endpoints: [$APP]}
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .folder(folder)
        .port("PROXIED")
        .set("APP", app.address())
        .start()
        .unwrap();
    let curl = |arguments: &[&str]| {
        let output = harness::run(
            std::process::Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments),
        )
        .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let port = proxy.address().port();
    let ca = proxy.folder().join("ca.pem").display().to_string();
    let resolve = format!("shop.test:{port}:127.0.0.1");
    assert_eq!(curl(&["--cacert", &ca, "--resolve", &resolve, &format!("https://shop.test:{port}/")]), "ok");
    let socket = proxy.folder().join("groove.sock").display().to_string();
    assert_eq!(curl(&["--unix-socket", &socket, "http://shop.test/"]), "ok");
    let mut stream = TcpStream::connect(proxy.at("PROXIED")).unwrap();
    stream
        .write_all(b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        .unwrap();
    assert!(read_until(&mut stream, "ok").unwrap().starts_with("HTTP/1.1 200 "));
    let seen = app.received();
    let header =
        |index: usize, name: &str| seen[index].headers().get(name).unwrap().to_str().unwrap().to_owned();
    assert_eq!(
        (header(0, "x-forwarded-proto"), header(1, "x-forwarded-for")),
        ("https".into(), "unknown".into())
    );
    assert_eq!(header(2, "x-forwarded-for"), "203.0.113.9");
}

#[test]
fn nginx_behind_tls_is_reached_and_checked() {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    authority.issue("server", &["inside.test"]).unwrap();
    let here = folder.path().display().to_string();
    let nginx = Nginx::configured(1, |listen| {
        format!(
            "server {{ listen {listen} ssl; ssl_certificate {here}/server.pem; ssl_certificate_key {here}/server.key; \
             location / {{ return 200 'over tls'; }} }}"
        )
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  good: {hosts: [good.test], endpoints: [$APP], tls: {ca: $DIR/ca.pem, server_name: inside.test}}
  bad: {hosts: [bad.test], endpoints: [$APP], tls: {ca: $DIR/ca.pem, server_name: other.test}}
";
    let proxy =
        Proxy::of(Kind::Http).config(config).folder(folder).set("APP", nginx.address()).start().unwrap();
    let answer = http::send(proxy.address(), request("good.test", "/")).unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "over tls"));
    assert_eq!(http::send(proxy.address(), request("bad.test", "/")).unwrap().status.as_u16(), 502);
}
