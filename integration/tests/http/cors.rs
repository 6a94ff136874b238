//! CORS by patterns, and that what the proxy itself answers is edited as the app's replies are.

use bytes::Bytes;
use harness::{App, Kind, Proxy, http};

use super::request;

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    health: {probe: null}
    response_headers:
      set: {Strict-Transport-Security: max-age=1, Cache-Control: 'public', X-Status: '${status}', X-For: '${header.X-Who:-nobody}'}
      remove: [X-Internal]
    routes:
      - {match: {path: /old}, redirect: {path: /new}}
      - {match: {path: /said}, respond: {status: 200, headers: {X-Internal: '1'}, body: said}, response_headers: {add: {X-Route: said}}}
      - {match: {path: /closed}, maintenance: {enabled: true}}
      - {match: {path: /asks}, auth: {any: [{api_key: {in: {header: X-Key}, keys: {k: $DIGEST}}}]}, cors: $CORS}
      - {match: {path: /api/*}, cors: $CORS}
      - {match: {path: /down}, cluster: down, cors: $CORS}
    clusters: {down: {endpoints: [$DOWN], health: {probe: null}}}
";

const CORS: &str = "{allow_origins: ['https://one.test', 'https://*.many.test'], allow_credentials: true, allow_methods: [PUT]}";

fn proxy(app: &App) -> Proxy {
    let down = harness::Port::reserve().unwrap();
    let proxy = Proxy::of(Kind::Http).config(CONFIG).set("APP", app.address()).set("CORS", CORS);
    proxy.set("DOWN", down.to_string()).set("DIGEST", "ab".repeat(32)).start().unwrap()
}

fn ask(proxy: &Proxy, path: &str, origin: &str) -> http::Response {
    let mut asked = request("shop.test", path);
    if !origin.is_empty() {
        asked.headers_mut().insert("origin", origin.parse().unwrap());
    }
    asked.headers_mut().insert("x-who", "ann".parse().unwrap());
    http::send(proxy.address(), asked).unwrap()
}

#[test]
fn pages_of_hosts_below_may_read_replies_and_others_may_not() {
    let app = App::saying("ok").unwrap();
    let proxy = proxy(&app);
    for (origin, want) in [
        ("https://one.test", "https://one.test"),
        ("https://a.many.test", "https://a.many.test"),
        ("https://a.b.many.test", "https://a.b.many.test"),
        ("https://many.test", ""),
        ("http://a.many.test", ""),
        ("https://a.many.test:444", ""),
        ("https://a.many.test.evil.test", ""),
        ("null", ""),
    ] {
        let reply = ask(&proxy, "/api/x", origin);
        assert_eq!(reply.header("access-control-allow-origin"), want, "{origin}");
        let credentials = if want.is_empty() { "" } else { "true" };
        assert_eq!(reply.header("access-control-allow-credentials"), credentials, "{origin}");
        assert_eq!(reply.header("vary"), "Origin", "{origin}");
        let preflight = ::http::Request::options("/api/x")
            .header("host", "shop.test")
            .header("origin", origin)
            .header("access-control-request-method", "PUT");
        let reply = http::send(proxy.address(), preflight.body(Bytes::new()).unwrap()).unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.header("access-control-allow-origin")),
            (204, want),
            "{origin}"
        );
        let methods = if want.is_empty() { "" } else { "PUT" };
        assert_eq!(reply.header("access-control-allow-methods"), methods, "{origin}");
        assert_eq!(reply.header("strict-transport-security"), "max-age=1", "{origin}");
    }
    // Failures can be read, too, by who may read replies.
    for (path, status) in [("/asks", 401), ("/down", 502)] {
        let reply = ask(&proxy, path, "https://a.many.test");
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.header("access-control-allow-origin"), "https://a.many.test", "{path}");
        let reply = ask(&proxy, path, "https://evil.test");
        assert_eq!(reply.header("access-control-allow-origin"), "", "{path}");
    }
}

#[test]
fn what_the_proxy_answers_is_edited_like_what_the_app_does() {
    let app = App::saying("ok").unwrap();
    let proxy = proxy(&app);
    for (path, status) in
        [("/", 200), ("/old", 302), ("/said", 200), ("/closed", 503), ("/asks", 401), ("/down", 502)]
    {
        let reply = ask(&proxy, path, "");
        assert_eq!(reply.status.as_u16(), status, "{path}");
        assert_eq!(reply.header("strict-transport-security"), "max-age=1", "{path}");
        assert_eq!(reply.header("x-status"), status.to_string(), "{path}");
        assert_eq!(reply.header("x-for"), "ann", "{path}");
        // Whatever is said of the app's replies, nobody keeps a failure.
        let cache = if status >= 400 { "no-store" } else { "public" };
        assert_eq!(reply.header("cache-control"), cache, "{path}");
    }
    let said = ask(&proxy, "/said", "");
    assert_eq!((said.header("x-internal"), said.header("x-route")), ("", "said"));
    assert_eq!((said.header("content-length"), said.text().as_str()), ("4", "said"));
    assert_eq!(ask(&proxy, "/closed", "").header("x-groove-code"), "H80");
    assert_eq!(ask(&proxy, "/asks", "").header("www-authenticate"), "ApiKey realm=\"shop\"");
    // An app that is drained, and one that nobody has.
    let drained = ::http::Request::post("/api/v1/apps/shop/drain").header("host", "127.0.0.1");
    let body = Bytes::from_static(b"{}");
    assert_eq!(http::send(proxy.admin(), drained.body(body).unwrap()).unwrap().status, 200);
    let reply = ask(&proxy, "/api/x", "https://one.test");
    assert_eq!((reply.status.as_u16(), reply.header("x-status")), (503, "503"));
    assert_eq!(reply.header("access-control-allow-origin"), "https://one.test");
    let unknown = http::send(proxy.address(), request("other.test", "/")).unwrap();
    assert_eq!((unknown.status.as_u16(), unknown.header("strict-transport-security")), (404, ""));
    // The connection is what it would be without edits.
    let two = "GET /closed HTTP/1.1\r\nHost: shop.test\r\n\r\nGET /closed HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n";
    let heard = super::talk(proxy.address(), two.as_bytes(), "").unwrap();
    assert_eq!((heard.matches("HTTP/1.1 503").count(), heard.matches("Connection: close").count()), (2, 1));
}
