//! Who may ask: passwords, keys, certificates, tokens, signatures, logins; and that what an app is told of it cannot be
//! forged. The clients are curl and Python; hashes are htpasswd's, certificates openssl's, the provider is npm's.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use harness::{App, Kind, Port, Proxy, Scripted, eventually, http, npm, paths, python};

use super::{read_until, request};

/// An app that says what reached it: each header, the target and the body, as JSON.
pub(super) fn echo() -> App {
    App::start(|asked| async move {
        let mut seen = serde_json::Map::new();
        for (name, value) in asked.headers() {
            seen.insert(name.to_string(), String::from_utf8_lossy(value.as_bytes()).into());
        }
        seen.insert(":target".to_owned(), asked.uri().to_string().into());
        seen.insert(":body".to_owned(), String::from_utf8_lossy(asked.body()).into());
        ::http::Response::new(Bytes::from(serde_json::Value::from(seen).to_string()))
    })
    .unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = harness::run(Command::new(paths::program(program).unwrap()).args(arguments)).unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Status, `WWW-Authenticate` and body of what curl is answered.
fn curl(arguments: &[&str]) -> (String, String, String) {
    let format = ["-sS", "--max-time", "20", "-w", "\n%{http_code}\n%header{www-authenticate}"];
    let said = run("curl", &[&format[..], arguments].concat());
    let mut parts = said.rsplitn(3, '\n');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let (challenge, status) = (next(), next());
    (status, challenge, next())
}

fn seen(body: &str) -> serde_json::Value {
    serde_json::from_str(body).map_err(|_| format!("not of the app: {body}")).unwrap()
}

#[test]
fn passwords_of_htpasswd_are_asked_for() {
    let app = echo();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("htpasswd").display().to_string();
    run("htpasswd", &["-cbB", "-C", "5", &file, "ann", "secret: one"]);
    let hash = run("htpasswd", &["-nbB", "-C", "5", "carl", "word"]);
    let (_, hash) = hash.trim().split_once(':').unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
log: {access: {sample: 1}}
apps:
  shop:
    hosts: [127.0.0.1]
    endpoints: [$APP]
    auth:
      any: [{basic: {file: $DIR/htpasswd, users: {carl: '$HASH'}, realm: the shop}}]
      allow_anonymous: [/public/*]
    routes:
      - {match: {path: /open}, auth: {public: true}}
";
    let mut proxy = Proxy::of(Kind::Http)
        .config(config)
        .folder(folder)
        .set("APP", app.address())
        .set("HASH", hash)
        .start()
        .unwrap();
    let url = format!("http://{}", proxy.address());
    let as_ = |user: &str, path: &str| curl(&["-u", user, "--path-as-is", &format!("{url}{path}")]);

    let (status, challenge, _) = curl(&[&url]);
    assert_eq!((status.as_str(), challenge.as_str()), ("401", "Basic realm=\"the shop\", charset=\"UTF-8\""));
    for user in ["ann:secret", "ann:", "nobody:secret: one", ":", "ann:secret: one "] {
        assert_eq!(as_(user, "/").0, "401", "{user}");
    }
    for (user, name) in [("ann:secret: one", "ann"), ("carl:word", "carl"), ("carl:word", "carl")] {
        let (status, _, body) = as_(user, "/");
        assert_eq!((status.as_str(), seen(&body)["x-auth-user"].as_str()), ("200", Some(name)), "{user}");
        assert_eq!(seen(&body).get("authorization"), None, "the password is for the proxy alone");
    }
    // Anybody may see some paths, but not what an app could take for others; and nobody says who they are themselves.
    for (path, want) in [
        ("/public/a", "200"),
        ("/public/../a", "401"),
        ("/public/%2e%2e/a", "401"),
        ("/publicity", "401"),
        ("/open", "200"),
    ] {
        let forged = ["-H", "X-Auth-User: root", "-H", "x_auth_user: root", "--path-as-is"];
        let (status, _, body) = curl(&[&forged[..], &[&format!("{url}{path}")]].concat());
        assert_eq!(status, want, "{path}");
        assert!(!body.contains("root"), "{path}: {body}");
    }
    assert_eq!(seen(&as_("ann:secret: one", "/public/a").2)["x-auth-user"].as_str(), Some("ann"));
    let log = proxy.log().lines().join("\n");
    assert!(log.contains("no such user with that password"), "{log}");
    assert!(!log.contains("secret: one") && !log.contains("$2y$"), "{log}");

    // A changed file is read again, and what was known of its hashes counts no more.
    run("htpasswd", &["-bB", "-C", "5", &file, "ann", "other"]);
    let reloaded = |user: &str, want: &str| {
        eventually("the file is read again", || (as_(user, "/").0 == want).then_some(())).unwrap();
    };
    reloaded("ann:other", "200");
    reloaded("ann:secret: one", "401");
    std::fs::write(&file, "ann:$apr1$0adzfifo$14o4fMw/Pm2L34SvyyA2r.\n").unwrap();
    proxy.log().expect("line 1: hashes of this kind are guessed too easily").unwrap();
    assert_eq!(as_("ann:other", "/").0, "200");
    proxy
        .rewrite(
            &config
                .replace("any: [{basic", "any: [{api_key: {in: {header: X-Key}, keys: {k: 'aa'}}}, {basic"),
        )
        .unwrap();
    proxy.log().expect("this is no SHA-256").unwrap();
}

#[test]
fn keys_are_known_by_their_digests_and_leave_no_trace() {
    let app = echo();
    let digest = run("bash", &["-c", "printf %s k3y-of-ci | sha256sum | cut -d' ' -f1"]);
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
log: {access: {sample: 1}}
apps:
  shop:
    hosts: [127.0.0.1]
    endpoints: [$APP]
    auth:
      any: [{api_key: {in: {header: X-Auth-Key, query: key, cookie: key}, keys: {ci: $DIGEST}}}]
    request_headers: {set: {X-Asked: '${target} ${query.key} ${header.x-auth-key}'}}
    routes:
      - match: {path: /kept}
        auth:
          any: [{api_key: {in: {header: X-Auth-Key, query: key}, keys: {ci: $DIGEST}}}]
          forward_credentials: true
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .set("APP", app.address())
        .set("DIGEST", digest.trim())
        .start()
        .unwrap();
    let url = format!("http://{}", proxy.address());
    for (path, arguments, target) in [
        ("/a", &["-H", "x-auth-key: k3y-of-ci"][..], "/a"),
        ("/a?key=k3y-of-ci&x=%41", &[], "/a?x=%41"),
        ("/a?x=1", &["-b", "a=1; key=k3y-of-ci; b=2"], "/a?x=1"),
        ("/kept?key=k3y-of-ci", &[], "/kept"),
    ] {
        let (status, _, body) = curl(&[arguments, &[&format!("{url}{path}")]].concat());
        assert_eq!(status, "200", "{path} {arguments:?}");
        let seen = seen(&body);
        assert_eq!((seen["x-auth-user"].as_str(), seen[":target"].as_str()), (Some("ci"), Some(target)));
        assert!(!body.contains("k3y-of-ci"), "{body}");
    }
    assert_eq!(curl(&["-H", "X-Auth-Key: other", &url]).0, "401");
    assert_eq!(curl(&[&format!("{url}/?key=k3y-of-cj-wrong")]).0, "401");
    assert!(!proxy.log().lines().join("\n").contains("k3y-of-c"), "{}", proxy.log());
}

#[test]
fn certificates_of_openssl_are_told_apart_and_described() {
    let app = echo();
    let folder = tempfile::TempDir::new().unwrap();
    let here = |name: &str| folder.path().join(name).display().to_string();
    let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"];
    let make = |name: &str, subject: &str, more: &[&str]| {
        let (certificate, key) = (here(&format!("{name}.pem")), here(&format!("{name}.key")));
        let files = ["-keyout", &key, "-out", &certificate, "-subj", subject];
        run("openssl", &[&["req", "-x509"][..], &new_key, &files, more].concat());
    };
    let (ca, ca_key) = (here("ca.pem"), here("ca.key"));
    make("ca", "/CN=an authority", &[]);
    let by_ca =
        ["-CA", ca.as_str(), "-CAkey", ca_key.as_str(), "-addext", "basicConstraints=CA:FALSE", "-addext"];
    make("server", "/CN=shop.test", &[&by_ca[..], &["subjectAltName=DNS:shop.test"]].concat());
    make(
        "web",
        "/C=DE/O=Shop, Inc/CN=web",
        &[&by_ca[..], &["subjectAltName=DNS:web.test,URI:spiffe://mesh/ns/shop/sa/web"]].concat(),
    );
    make("batch", "/O=Shop/CN=batch", &[&by_ca[..], &["subjectAltName=DNS:batch.test"]].concat());
    let config = "
listeners:
  - address: $LISTEN
    tls: {certificate: $DIR/server.pem, key: $DIR/server.key, client_ca: $DIR/ca.pem, client_auth: optional}
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    request_headers:
      set:
        X-TLS: '${tls.version} ${tls.cipher} ${tls.sni}'
        X-Client: '${tls.client.subject}|${tls.client.names}'
        X-Fingerprint: '${tls.client.fingerprint}'
    auth:
      any: [{mtls: {names: ['spiffe://mesh/ns/shop/*']}}]
      headers: {X-Client-CN: cn, X-Auth-Names: names}
    routes:
      - {match: {path: /open}, auth: {public: true}}
";
    let proxy =
        Proxy::of(Kind::Http).config(config).folder(folder).set("APP", app.address()).start().unwrap();
    let here = |name: &str| proxy.folder().join(name).display().to_string();
    let port = proxy.address().port();
    let (resolve, ca) = (format!("shop.test:{port}:127.0.0.1"), here("ca.pem"));
    let ask = |name: &str, path: &str| {
        let (certificate, key) = (here(&format!("{name}.pem")), here(&format!("{name}.key")));
        let shown = ["--cert", &certificate, "--key", &key];
        let common = ["--cacert", &ca, "--resolve", &resolve, "-H", "X-Client-CN: root"];
        let shown = if name.is_empty() { &[][..] } else { &shown[..] };
        curl(&[&common[..], shown, &[&format!("https://shop.test:{port}{path}")]].concat())
    };
    let (status, _, body) = ask("web", "/");
    assert_eq!(status, "200", "{body}");
    let told = seen(&body);
    let fingerprint = run("openssl", &["x509", "-in", &here("web.pem"), "-noout", "-fingerprint", "-sha256"]);
    let fingerprint = fingerprint.trim().split_once('=').unwrap().1.replace(':', "").to_lowercase();
    assert_eq!(told["x-client"], "CN=web,O=Shop\\, Inc,C=DE|web.test,spiffe://mesh/ns/shop/sa/web");
    assert_eq!(
        (told["x-fingerprint"].as_str(), told["x-auth-user"].as_str()),
        (Some(&*fingerprint), Some("web"))
    );
    assert_eq!(
        (told["x-client-cn"].as_str(), told["x-auth-names"].as_str()),
        (Some("web"), Some("web.test,spiffe://mesh/ns/shop/sa/web"))
    );
    let tls = told["x-tls"].as_str().unwrap();
    assert!(tls.starts_with("TLSv1.3 TLS13_") && tls.ends_with(" shop.test"), "{tls}");
    assert_eq!((ask("batch", "/").0, ask("", "/").0), ("403".into(), "401".into()));
    let (status, _, body) = ask("", "/open");
    assert_eq!((status.as_str(), seen(&body).get("x-client-cn")), ("200", None), "{body}");
}

/// Asks with a cookie, a body, and claims of the client's own.
fn asking(proxy: &Proxy) -> impl Fn(&str, &str) -> http::Response + use<> {
    let address = proxy.address();
    move |path, cookie| {
        let mut asked = request("shop.test", path);
        *asked.method_mut() = ::http::Method::POST;
        *asked.body_mut() = Bytes::from_static(b"body");
        for (name, value) in [("cookie", cookie), ("x-user", "root"), ("x-groups", "root")] {
            asked.headers_mut().insert(name, value.parse().unwrap());
        }
        http::send(address, asked).unwrap()
    }
}

#[test]
fn somebody_else_is_asked_and_its_answer_counts() {
    let app = echo();
    let mut judge = App::start(|asked| async move {
        let header = |name: &str| asked.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let answer = ::http::Response::builder();
        match header("cookie") {
            "who=ann" => answer
                .header("x-user", "ann")
                .header("x-groups", "ops")
                .header("x-groups", "dev")
                .header("x-asked", format!("{} {}", header("x-forwarded-method"), header("x-forwarded-uri")))
                .body(Bytes::from_static(b"let in")),
            "who=bob" => answer.status(403).header("x-why", "bob").body(Bytes::from_static(b"not bob")),
            "who=ill" => answer.status(500).body(Bytes::new()),
            _ => answer
                .status(302)
                .header("location", "https://login.test/")
                .header("set-cookie", "a=1")
                .header("set-cookie", "b=2")
                .header("transfer-encoding", "chunked")
                .body(Bytes::from_static(b"log in")),
        }
        .unwrap()
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
workers: 2
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    auth: {any: [{forward_auth: {url: 'http://$JUDGE/check', copy: [X-User, X-Groups, X-Asked], user_header: X-User, timeout: 2s}}]}
    routes:
      - match: {path: /cached/*}
        auth: {any: [{forward_auth: {url: 'http://$JUDGE/check', copy: [X-User], cache: {by: [Cookie], ttl: 1h}}}]}
";
    let mut proxy = Proxy::of(Kind::Http)
        .config(config)
        .set("APP", app.address())
        .set("JUDGE", judge.address())
        .start()
        .unwrap();
    let ask = asking(&proxy);
    let answer = ask("/a?b", "who=ann");
    let told = answer.json().unwrap();
    assert_eq!((told["x-user"].as_str(), told["x-auth-user"].as_str()), (Some("ann"), Some("ann")));
    assert_eq!(
        (told["x-asked"].as_str(), told["x-groups"].as_str(), told[":body"].as_str()),
        (Some("POST /a?b"), Some("dev"), Some("body"))
    );
    let question = &judge.received()[0];
    assert_eq!(
        (question.method().as_str(), question.uri().path(), question.body().len()),
        ("GET", "/check", 0)
    );
    assert!(question.headers().get("x-user").is_none(), "what a client says of itself is not asked about");
    assert!(question.headers().get("content-length").is_none());

    let answer = ask("/", "who=bob");
    assert_eq!(
        (answer.status.as_u16(), answer.header("x-why"), answer.text().as_str()),
        (403, "bob", "not bob")
    );
    let answer = ask("/", "");
    let cookies = answer.headers.get_all("set-cookie").iter().count();
    assert_eq!((answer.status.as_u16(), answer.header("location"), cookies), (302, "https://login.test/", 2));
    assert_eq!(ask("/", "who=ill").status.as_u16(), 503);
    assert_eq!(app.received().len(), 1, "nobody who was not let in reached the app");
    assert!(judge.connections() <= 2, "{} connections for four questions in turn", judge.connections());

    let before = judge.received().len();
    for index in 0..20 {
        assert_eq!(ask(&format!("/cached/{index}"), "who=ann").json().unwrap()["x-user"], "ann");
    }
    assert_eq!(judge.received().len(), before + 1);
    // Refusals are not remembered, nor what is asked without anything to know it by.
    ask("/cached/", "who=bob");
    ask("/cached/", "who=bob");
    assert_eq!(judge.received().len(), before + 3);
    judge.crash();
    assert_eq!((ask("/", "who=ann").status.as_u16(), ask("/cached/", "who=ann").status.as_u16()), (503, 200));
    // A reload that changes nothing about who is asked forgets nothing of it.
    let more = "shop.test]\n    response_headers: {set: {X-Reloaded: 'yes'}}";
    proxy.rewrite(&config.replace("shop.test]", more)).unwrap();
    let ask = asking(&proxy);
    eventually("the reload", || {
        let answer = ask("/cached/", "who=ann");
        assert_eq!(answer.status.as_u16(), 200);
        (answer.header("x-reloaded") == "yes").then_some(())
    })
    .unwrap();
    judge.resume().unwrap();
    assert_eq!(ask("/", "who=ann").status.as_u16(), 200);
}

#[test]
fn one_of_many_ways_or_all_of_them() {
    let app = echo();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [127.0.0.1]
    endpoints: [$APP]
    auth:
      any:
        - api_key: &key {in: {header: X-Key}, keys: {ci: 0b14d501a594442a01c6859541bcb3e8164d183d32937b851835442f69d5c94e}}
        - basic: &basic {users: {ann: '$2y$04$qOQDYtUPPnxAqUcFzFSZz.VO66q5gQDLlVbcnRVhFzNVn6VMQUPlO'}}
    routes:
      - match: {path: /both}
        auth: {all: [{api_key: *key}, {basic: *basic}]}
";
    let hash = run("htpasswd", &["-nbB", "-C", "4", "ann", "word"]);
    let (_, hash) = hash.trim().split_once(':').unwrap();
    let config = config.replace("'$2y$04$qOQDYtUPPnxAqUcFzFSZz.VO66q5gQDLlVbcnRVhFzNVn6VMQUPlO'", "'$HASH'");
    let digest = run("bash", &["-c", "printf %s password1 | sha256sum | cut -d' ' -f1"]);
    assert_eq!(digest.trim(), "0b14d501a594442a01c6859541bcb3e8164d183d32937b851835442f69d5c94e");
    let proxy =
        Proxy::of(Kind::Http).config(&config).set("APP", app.address()).set("HASH", hash).start().unwrap();
    let ask = |path: &str, key: bool, password: bool| {
        let url = format!("http://{}{path}", proxy.address());
        let key = if key { &["-H", "X-Key: password1"][..] } else { &[] };
        let password = if password { &["-u", "ann:word"][..] } else { &[] };
        curl(&[key, password, &[&url]].concat())
    };
    let status = |path: &str, key: bool, password: bool| ask(path, key, password).0;
    assert_eq!(
        (status("/", true, false), status("/", false, true), status("/", false, false)),
        ("200".into(), "200".into(), "401".into())
    );
    assert_eq!(
        (status("/both", true, false), status("/both", false, true), status("/both", true, true)),
        ("401".into(), "401".into(), "200".into())
    );
    let body = seen(&ask("/both", true, true).2);
    assert_eq!((body["x-auth-user"].as_str(), body["x-auth-method"].as_str()), (Some("ci"), Some("api_key")));
    assert_eq!((body.get("x-key"), body.get("authorization")), (None, None));
    // A pipelined request behind one that is not let in is answered too.
    let two = "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Key: password1\r\nConnection: close\r\n\r\n";
    let answer = super::talk(proxy.address(), two.as_bytes(), "").unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 401 ")
            && answer.contains("\r\n\r\n")
            && answer.contains("HTTP/1.1 200 "),
        "{answer}"
    );
}

#[test]
fn tokens_and_signatures_of_python_are_content() {
    let app = echo();
    let keys = Port::reserve().unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  jwt:
    hosts: [jwt.test]
    endpoints: [$APP]
    request_headers: {set: {X-Plan: '${claim.sub} via ${auth.method}'}}
    auth:
      any:
        - jwt:
            jwks: &keys {url: 'http://$KEYS/keys', timeout: 2s}
            issuer: https://issuer.test
            audience: [shop, store]
            require: {roles: admin}
      headers: {X-Auth-Roles: roles}
      strip: [X-Extra]
      allow_anonymous: [/healthz]
  places:
    hosts: [places.test]
    endpoints: [$APP]
    auth: {any: [{jwt: {jwks: *keys, in: {cookie: token, query: token}}}]}
  hmac:
    hosts: [hmac.test]
    endpoints: [$APP]
    auth: {any: [{hmac: {keys: {ci: a key of sixteen}, headers: [X-Team], body: 1KiB, once: true}}]}
";
    let proxy =
        Proxy::of(Kind::Http).config(config).set("APP", app.address()).set("KEYS", &keys).start().unwrap();
    pytest("http tokens", "http_tokens.py", &proxy, &[("KEYS_PORT", keys.address().port().to_string())], 8);
}

#[test]
fn what_a_route_answers_itself_is_for_those_who_may_ask_and_preflights_are_for_all() {
    let app = echo();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
log: {access: {sample: 1}}
trusted: [127.0.0.0/8]
apps:
  shop:
    hosts: [127.0.0.1]
    endpoints: [$APP]
    response_headers: {set: {X-Path: '${path}', X-User: '${auth.user}'}}
    auth:
      any: [{api_key: {in: {query: key}, keys: {ci: 0b14d501a594442a01c6859541bcb3e8164d183d32937b851835442f69d5c94e}}}]
    routes:
      - {match: {path: /old}, redirect: {path: /new}}
      - {match: {path: /here}, respond: {status: 200, body: here}}
      - match: {path: /api/*}
        cors: {allow_origins: ['https://a.test'], allow_methods: [PUT], max_age: 1m}
        rewrite: {host: inside.test, prefix: /v2}
        request_headers: {set: {X-Asked: '${path} of ${client}'}}
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let url = format!("http://{}", proxy.address());
    for path in ["/old", "/here", "/api/a"] {
        assert_eq!(curl(&[&format!("{url}{path}")]).0, "401", "{path}");
    }
    assert_eq!(curl(&[&format!("{url}/old?key=password1")]).0, "302");
    assert_eq!(curl(&[&format!("{url}/here?key=password1")]).2, "here");
    let origin = ["-i", "-H", "Origin: https://a.test"];
    let preflight = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: PUT"];
    let (status, _, said) =
        curl(&[&origin[..], &preflight[..], &[&format!("{url}/api/a?key=password1")]].concat());
    assert!(status == "204" && said.contains("Access-Control-Allow-Methods: PUT"), "{said}");
    // One that asks for nothing else is no preflight.
    assert_eq!(curl(&[&origin[..], &["-X", "OPTIONS", &format!("{url}/api/a")]].concat()).0, "401");

    let behind = ["-H", "X-Forwarded-For: 192.0.2.7"];
    let (status, _, said) =
        curl(&[&origin[..], &behind[..], &[&format!("{url}/api/a?x=1&key=password1")]].concat());
    assert_eq!(status, "200", "{said}");
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    for line in ["Access-Control-Allow-Origin: https://a.test", "X-Path: /api/a", "X-User: ci"] {
        assert!(head.contains(line), "{line}: {head}");
    }
    let app_saw = seen(body);
    assert_eq!(app_saw["host"], "inside.test");
    assert_eq!(app_saw[":target"], "/v2/a?x=1");
    assert_eq!(app_saw["x-asked"], "/api/a of 192.0.2.7");
    harness::eventually("its line in the log", || {
        proxy.log().lines().iter().any(|line| line.contains("192.0.2.7")).then_some(())
    })
    .unwrap();
    let log = proxy.log().lines().join("\n");
    assert!(!log.contains("password1"), "{log}");
}

#[test]
fn an_upgrade_is_let_in_by_the_same_door() {
    let app = Scripted::start(|_, mut stream| {
        let asked = read_until(&mut stream, "\r\n\r\n").unwrap_or_default().to_lowercase();
        if asked.is_empty() {
            return;
        }
        assert!(asked.contains("\r\nx-auth-user: ci\r\n") && !asked.contains("password1"), "{asked}");
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(switch).unwrap();
        let said = read_until(&mut stream, "ping").unwrap();
        stream.write_all(said.as_bytes()).unwrap();
    })
    .unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    auth:
      any: [{api_key: {in: {query: key}, keys: {ci: 0b14d501a594442a01c6859541bcb3e8164d183d32937b851835442f69d5c94e}}}]
";
    let proxy = Proxy::of(Kind::Http).config(config).set("APP", app.address()).start().unwrap();
    let asked = |query: &str| {
        format!("GET /ws{query} HTTP/1.1\r\nHost: shop.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    };
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    // One that is not let in does not end the connection.
    stream.write_all(asked("?key=other").as_bytes()).unwrap();
    assert!(read_until(&mut stream, "first (H26)\n").unwrap().starts_with("HTTP/1.1 401 "));
    stream.write_all(asked("?key=password1").as_bytes()).unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").unwrap().starts_with("HTTP/1.1 101 "));
    stream.write_all(b"ping").unwrap();
    assert_eq!(read_until(&mut stream, "ping").unwrap(), "ping");
}

#[test]
fn people_log_in_at_a_real_provider() {
    let app = echo();
    let folder = npm::installed("oidc", &["oidc-provider@8.8.1"], |_| Ok(())).unwrap();
    let script = paths::repository().join("integration/node/oidc_provider.mjs");
    std::fs::copy(script, folder.join("oidc_provider.mjs")).unwrap();
    let provider = Port::reserve().unwrap();
    let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
apps:
  shop:
    hosts: [127.0.0.1]
    endpoints: [$APP]
    auth:
      any:
        - oidc:
            issuer: 'http://$PROVIDER'
            client_id: groove
            client_secret: {env: SECRET}
            scopes: [email, groups, offline_access]
            cookie: {keys: [a key of at least thirty-two characters]}
            emails: ['*@example.test']
            groups: [ops]
            timeout: 2s
      headers: {X-Auth-Email: email, X-Auth-Groups: groups}
";
    let proxy = Proxy::of(Kind::Http)
        .config(config)
        .set("APP", app.address())
        .set("PROVIDER", &provider)
        .env("SECRET", "a secret : of ours")
        .start()
        .unwrap();
    let more = [
        ("PROVIDER_PORT", provider.address().port().to_string()),
        ("PROVIDER_FOLDER", folder.display().to_string()),
    ];
    pytest("http login", "http_login.py", &proxy, &more, 9);
    let log = proxy.log().lines().join("\n");
    assert!(!log.contains("secret") && !log.contains("refresh_token\":"), "{log}");
}

fn pytest(name: &str, file: &str, proxy: &Proxy, more: &[(&str, String)], least: u32) {
    let address = ("GROOVE_ADDRESS", proxy.address().to_string());
    let environment: Vec<_> = more.iter().cloned().chain([address]).collect();
    let folder = paths::repository().join("integration/python");
    let counts = python::pytest(name, Path::new(&folder), &[file], &environment).unwrap();
    assert_eq!((counts.failed, counts.skipped), (0, 0));
    assert!(counts.passed >= least, "{counts:?}");
}
