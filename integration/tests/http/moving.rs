//! docs/http-moving.md: both sides of each pair do the same before the same servers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use harness::{App, Authority, HaProxy, Kind, Nginx, PATIENCE, Port, Proxy, Received, http, paths, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The other side's process, kept.
enum Peer {
    Nginx(Nginx),
    HaProxy(HaProxy),
}

/// A pair at work, before two servers called `one` and `two`.
struct Pair {
    one: App,
    two: App,
    peer: Peer,
    proxy: Proxy,
    /// How many asked one server for `/slow` at once.
    most: Arc<AtomicUsize>,
}

/// The text between the fence of this language and its end, in the section of this title.
fn block(title: &str, language: &str) -> String {
    let page = std::fs::read_to_string(paths::repository().join("docs/http-moving.md")).unwrap();
    let section = page.split_once(&format!("\n### {title}\n")).unwrap().1;
    let section = section.split("\n### ").next().unwrap();
    let block = section.split_once(&format!("\n```{language}\n")).unwrap().1;
    block.split_once("\n```").unwrap().0.to_owned()
}

impl Pair {
    /// Starts what stands under this title. Files of the configuration are those of `folder`.
    fn start(title: &str, language: &str, folder: tempfile::TempDir) -> Self {
        let most = Arc::<AtomicUsize>::default();
        let [one, two] = ["one", "two"].map(|name| server(name, Arc::clone(&most)));
        let secure = [(); 2].map(|()| Port::reserve().unwrap());
        let filled = |text: &str, secure: &Port| {
            let text = text.replace("127.0.0.1:9001", &one.address().to_string());
            let text = text.replace("127.0.0.1:9002", &two.address().to_string());
            text.replace("127.0.0.1:8443", &secure.to_string())
        };
        let theirs = filled(&block(title, language), &secure[0]);
        let theirs = |listen: SocketAddr| theirs.replace("127.0.0.1:8080", &listen.to_string());
        let peer = if language == "nginx" {
            Peer::Nginx(Nginx::configured(1, |listen| placed(&theirs(listen), folder.path())).unwrap())
        } else {
            let defaults =
                "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n";
            Peer::HaProxy(HaProxy::configured(|listen| format!("{defaults}{}\n", theirs(listen))).unwrap())
        };
        let ours = filled(&block(title, "yaml"), &secure[1]).replace("127.0.0.1:8080", "$LISTEN");
        let ours = format!("admin: {{address: $ADMIN}}\n{ours}");
        let proxy = Proxy::of(Kind::Http).config(&ours).folder(folder).start().unwrap();
        Self { one, two, peer, proxy, most }
    }

    fn plain(title: &str, language: &str) -> Self {
        Self::start(title, language, tempfile::tempdir().unwrap())
    }

    /// Theirs and ours.
    fn sides(&self) -> [SocketAddr; 2] {
        let theirs = match &self.peer {
            Peer::Nginx(nginx) => nginx.address(),
            Peer::HaProxy(haproxy) => haproxy.address(),
        };
        [theirs, self.proxy.address()]
    }

    /// Asks both, and holds what they do against each other and against what the page says of it.
    fn both(&self, asked: &Asked<'_>, show: &[&str], want: &str) {
        let [theirs, ours] = self.sides().map(|side| told(&asked.send(side), show));
        assert_eq!(ours, want, "ours: {asked:?}");
        assert_eq!(theirs, want, "theirs: {asked:?}");
    }
}

/// nginx looks for files where its own configuration is.
fn placed(text: &str, folder: &Path) -> String {
    ["htpasswd", "shop.pem", "shop.key"].iter().fold(text.to_owned(), |text, name| {
        text.replace(&format!(" {name};"), &format!(" {};", folder.join(name).display()))
    })
}

/// A server that says what it was asked. `/slow` takes a while, `/busy` is too much for `one`, `/hang` for both; `/check` knows one cookie.
fn server(name: &'static str, most: Arc<AtomicUsize>) -> App {
    let now = Arc::<AtomicUsize>::default();
    App::start(move |asked| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            match asked.uri().path() {
                "/hang" => std::future::pending().await,
                "/slow" => {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    now.fetch_sub(1, Ordering::SeqCst);
                }
                _ => {}
            }
            said(name, &asked)
        }
    })
    .unwrap()
}

fn said(name: &str, asked: &Received) -> ::http::Response<Bytes> {
    let header = |name: &str| asked.headers().get(name).map(|it| String::from_utf8_lossy(it.as_bytes()));
    let status = match asked.uri().path() {
        "/busy" if name == "one" => 503,
        "/check" if header("cookie").as_deref() != Some("who=ann") => 401,
        _ => 200,
    };
    let mut seen = serde_json::Map::new();
    for name in asked.headers().keys() {
        seen.insert(name.to_string(), header(name.as_str()).unwrap_or_default().into());
    }
    let line = format!("{} {}", asked.method(), asked.uri());
    let said = serde_json::json!({"app": name, "asked": line, "seen": seen});
    let answer = ::http::Response::builder().status(status).header("x-powered-by", "a test");
    answer.body(Bytes::from(said.to_string())).unwrap()
}

#[derive(Clone, Copy, Debug)]
struct Asked<'a> {
    method: &'a str,
    host: &'a str,
    target: &'a str,
    headers: &'a [(&'a str, &'a str)],
    body: usize,
}

impl<'a> Asked<'a> {
    fn get(target: &'a str) -> Self {
        Self { method: "GET", host: "shop.example.test", target, headers: &[], body: 0 }
    }

    fn send(&self, to: SocketAddr) -> http::Response {
        let request =
            ::http::Request::builder().method(self.method).uri(self.target).header("host", self.host);
        let request = self.headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
        http::send(to, request.body(Bytes::from(vec![b'x'; self.body])).unwrap()).unwrap()
    }
}

/// Status, who answered and what it was asked for, if an app did; then the headers to show, `>` as the app saw them and `<`
/// as the client does.
fn told(answer: &http::Response, show: &[&str]) -> String {
    let said = answer.json().unwrap_or_default();
    let mut told = answer.status.as_u16().to_string();
    let is_app = answer.headers.contains_key("x-powered-by") || said["asked"].is_string();
    if is_app {
        told.push_str(&format!(" {} {}", said["app"].as_str().unwrap(), said["asked"].as_str().unwrap()));
    }
    for name in show {
        let value = match name.strip_prefix('>') {
            Some(name) => said["seen"][name].as_str().unwrap_or("-").to_owned(),
            None if answer.header(name).is_empty() => "-".to_owned(),
            None => answer.header(name).to_owned(),
        };
        told.push_str(&format!(" {name}={value}"));
    }
    told
}

/// The path of a `Location`, which nginx makes absolute with its own port.
fn led_to(answer: &http::Response) -> String {
    let location = answer.header("location");
    let path = location.split_once("://").map_or(location, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    format!("{} {path}", answer.status.as_u16())
}

#[test]
fn nginx_hosts_and_servers() {
    let pair = Pair::plain("Hosts, servers, and what they are told", "nginx");
    let forged = [("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "https")];
    let show = [">host", ">x-forwarded-for", ">x-forwarded-proto", ">x-forwarded-host"];
    for host in ["shop.example.test", "a.b.shop.example.test"] {
        for side in pair.sides() {
            let answer = Asked { host, headers: &forged, ..Asked::get("/a?b") }.send(side);
            let told = told(&answer, &show).replace(" two ", " one ");
            let want = format!(
                "200 one GET /a?b >host={host} >x-forwarded-for=127.0.0.1 >x-forwarded-proto=http >x-forwarded-host={host}"
            );
            assert_eq!(told, want);
        }
    }
    pair.both(&Asked { host: "example.test", ..Asked::get("/") }, &[], "404");
    for side in pair.sides() {
        let served = (0..30).filter(|_| Asked::get("/").send(side).json().unwrap()["app"] == "one").count();
        assert!((17..=23).contains(&served), "{served} of 30, by two thirds");
    }
}

#[test]
fn nginx_paths() {
    let pair = Pair::plain("Paths", "nginx");
    for (target, want) in [
        ("/", "200 one GET /"),
        ("/login?a=b", "200 two GET /login?a=b"),
        ("/login/x", "200 one GET /login/x"),
        ("/api/a?b=c", "200 two GET /a?b=c"),
        ("/api/", "200 two GET /"),
        ("/apix", "200 one GET /apix"),
        ("/v1/status", "200"),
        ("/v1/status/x", "200 one GET /v1/status/x"),
        ("/vx/status", "200 one GET /vx/status"),
    ] {
        pair.both(&Asked::get(target), &[], want);
    }
    for side in pair.sides() {
        assert_eq!(Asked::get("/v1/status").send(side).text(), "fine");
        assert_eq!(led_to(&Asked::get("/old/a?b=c").send(side)), "301 /new/a?b=c");
    }
}

#[test]
fn nginx_limits_times_and_another_try() {
    let pair = Pair::plain("Limits, times and another try", "nginx");
    let post = Asked { method: "POST", ..Asked::get("/") };
    for side in pair.sides() {
        assert_eq!(Asked { body: 1000, ..post }.send(side).status, 200);
        assert_eq!(Asked { body: 2 << 20, ..post }.send(side).status, 413);
        assert_eq!(Asked::get("/hang").send(side).status, 504);
        let statuses = |asked: Asked<'_>| {
            let mut all: Vec<_> = (0..16).map(|_| asked.send(side).status.as_u16()).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!(statuses(Asked::get("/busy")), [200]);
        assert_eq!(statuses(Asked { target: "/busy", ..post }), [200, 503], "nothing is done twice");
    }
}

#[test]
fn nginx_auth_and_headers() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(paths::program("htpasswd").unwrap());
    command.args(["-cbB", "-C", "5"]).arg(folder.path().join("htpasswd")).args(["ann", "secret"]);
    assert!(harness::run(&mut command).unwrap().status.success());
    let pair = Pair::start("Who may ask, and headers", "nginx", folder);
    let show = [">x-auth-user", ">authorization", ">x-team", "x-powered-by", "cache-control"];
    let known = [("authorization", "Basic YW5uOnNlY3JldA==")];
    let asked = Asked { headers: &known, ..Asked::get("/") };
    let want = "200 one GET / >x-auth-user=ann >authorization=- >x-team=basket x-powered-by=- cache-control=no-store";
    pair.both(&asked, &show, want);
    let realm = "401 www-authenticate=Basic realm=\"the shop\"";
    for headers in [&[][..], &[("authorization", "Basic YW5uOm90aGVy")]] {
        for side in pair.sides() {
            let told = told(&Asked { headers, ..Asked::get("/") }.send(side), &["www-authenticate"]);
            assert!(told.starts_with(realm), "{told}");
        }
    }
    let forged = [("x-auth-user", "root")];
    let want = "200 one GET /public/a >x-auth-user=-";
    pair.both(&Asked { headers: &forged, ..Asked::get("/public/a") }, &[">x-auth-user"], want);
    let member = [("cookie", "who=ann")];
    pair.both(&Asked { headers: &member, ..Asked::get("/members/a") }, &[], "200 one GET /members/a");
    for side in pair.sides() {
        assert_eq!(Asked::get("/members/a").send(side).status, 401);
    }
}

#[test]
fn nginx_from_http_to_https() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    authority.issue("shop", &["shop.example.test"]).unwrap();
    let (title, ca) = ("From HTTP to HTTPS", folder.path().join("ca.pem"));
    let pair = Pair::start(title, "nginx", folder);
    let want = "308 location=https://shop.example.test/a?b";
    pair.both(&Asked { host: "shop.example.test:8080", ..Asked::get("/a?b") }, &["location"], want);
    assert!(pair.one.received().is_empty());
    // By TLS it is served, on both sides.
    let text = std::fs::read_to_string(pair.proxy.config_file()).unwrap();
    let ours = text.split("address: ").nth(3).unwrap().lines().next().unwrap().to_owned();
    let theirs = match &pair.peer {
        Peer::Nginx(nginx) => std::fs::read_to_string(nginx.folder().join("nginx.conf")).unwrap(),
        Peer::HaProxy(_) => String::new(),
    };
    let theirs = theirs.split(" ssl;").next().unwrap().rsplit(' ').next().unwrap().to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for address in [theirs, ours] {
        let answer = runtime.block_on(async {
            let socket = tokio::net::TcpStream::connect(&address).await.unwrap();
            let mut stream = tls::connect(socket, "shop.example.test", &ca, None).await.unwrap();
            stream
                .write_all(b"GET /s HTTP/1.1\r\nHost: shop.example.test\r\nConnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            // How it ends is of no interest.
            let _end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
            String::from_utf8(answer).unwrap()
        });
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"x-forwarded-proto\":\"https\""),
            "{answer}"
        );
    }
}

#[test]
fn haproxy_frontends_and_backends() {
    let pair = Pair::plain("Frontends and backends", "haproxy");
    for (method, target, want) in [
        ("GET", "/", "200 one GET /"),
        ("GET", "/api/a", "200 one GET /api/a"),
        ("POST", "/api/a?b", "200 two POST /api/a?b"),
        ("DELETE", "/api", "200 two DELETE /api"),
        ("POST", "/apix", "200 one POST /apix"),
    ] {
        pair.both(&Asked { method, ..Asked::get(target) }, &[], want);
    }
    let want = "200 one GET / >x-forwarded-for=127.0.0.1";
    pair.both(&Asked { host: "SHOP.example.test:80", ..Asked::get("/") }, &[">x-forwarded-for"], want);
    pair.both(&Asked { host: "example.test", ..Asked::get("/") }, &[], "404");
}

#[test]
fn haproxy_maxconn_and_the_queue() {
    let pair = Pair::plain("maxconn and the queue", "haproxy");
    for side in pair.sides() {
        let statuses: Vec<_> = std::thread::scope(|scope| {
            let ask = |_| scope.spawn(move || Asked::get("/slow").send(side).status.as_u16());
            let asked: Vec<_> = (0..8).map(ask).collect();
            asked.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert_eq!(statuses, [200; 8], "those who found no server free have waited");
        assert_eq!(pair.most.load(Ordering::SeqCst), 1, "at once at one server");
        // With both servers busy for long.
        let hanging = [&pair.one, &pair.two].map(|_| {
            let mut stream = TcpStream::connect(side).unwrap();
            stream.write_all(b"GET /hang HTTP/1.1\r\nHost: shop.example.test\r\n\r\n").unwrap();
            stream
        });
        let hung = |app: &App| app.received().iter().filter(|asked| asked.uri().path() == "/hang").count();
        let begun = if side == pair.proxy.address() { 2 } else { 1 };
        harness::eventually("both are busy", || {
            (hung(&pair.one) == begun && hung(&pair.two) == begun).then_some(())
        })
        .unwrap();
        let at = Instant::now();
        assert_eq!(Asked::get("/").send(side).status, 503);
        let waited = at.elapsed();
        assert!(waited >= Duration::from_millis(900) && waited < Duration::from_secs(10), "{waited:?}");
        drop(hanging);
    }
}

/// Who answered, and a cookie if one was set.
fn who(answer: &http::Response) -> (String, String) {
    let name = answer.json().unwrap()["app"].as_str().unwrap().to_owned();
    (name, answer.header("set-cookie").split(';').next().unwrap().to_owned())
}

/// How many of the two servers these sessions use; each asks four times and is always at the same.
fn spread<'a>(
    side: SocketAddr,
    target: &'a str,
    name: &'a str,
    values: impl Iterator<Item = String>,
) -> usize {
    let mut used = std::collections::BTreeSet::new();
    for value in values {
        let headers = [(name, value.as_str())];
        let asked = Asked { headers: &headers, ..Asked::get(target) };
        let first = who(&asked.send(side)).0;
        assert!((0..3).all(|_| who(&asked.send(side)).0 == first), "{target} {value}");
        used.insert(first);
    }
    used.len()
}

#[test]
fn haproxy_sessions() {
    let pair = Pair::plain("Sessions", "haproxy");
    for side in pair.sides() {
        let begun: Vec<_> = (0..12).map(|_| who(&Asked::get("/").send(side))).collect();
        assert!(begun.iter().all(|(_, cookie)| cookie.starts_with("where=")), "{begun:?}");
        for (name, cookie) in &begun {
            let headers = [("cookie", cookie.as_str())];
            let (again, set) = who(&Asked { headers: &headers, ..Asked::get("/") }.send(side));
            assert_eq!((&again, set.as_str()), (name, ""), "it stays, and is not told again");
        }
        assert!(begun.iter().any(|(name, _)| *name != begun[0].0), "{begun:?}");
        assert_eq!(spread(side, "/carts/a", "cookie", (0..12).map(|it| format!("cart={it}"))), 2);
        assert_eq!(spread(side, "/games/a", "x-match", (0..24).map(|it| it.to_string())), 2);
    }
}

#[test]
fn haproxy_another_try_headers_and_answers() {
    let pair = Pair::plain("Another try, headers, answers", "haproxy");
    let show = [">x-team", ">x-client", ">x-debug", "x-powered-by"];
    let headers = [("x-debug", "on"), ("x-client", "root")];
    let seen = ">x-team=basket >x-client=127.0.0.1 >x-debug=- x-powered-by=-";
    for (target, want) in [("/a?b", "/a?b"), ("/api/a?b=c", "/a?b=c")] {
        for side in pair.sides() {
            let told = told(&Asked { headers: &headers, ..Asked::get(target) }.send(side), &show);
            assert_eq!(told.replace(" two ", " one "), format!("200 one GET {want} {seen}"));
        }
    }
    pair.both(&Asked::get("/admin/a"), &[], "403");
    for side in pair.sides() {
        assert_eq!(led_to(&Asked::get("/old/a?b=c").send(side)), "301 /new/a?b=c");
        let busy = Asked::get("/busy");
        assert!((0..8).all(|_| busy.send(side).status == 200), "the other one is asked");
        assert_eq!(Asked::get("/hang").send(side).status, 504);
    }
    // A POST that a server has refused: theirs tries again, ours does not, and says the edit's word.
    let [theirs, ours] = pair.sides().map(|side| {
        let post = Asked { method: "POST", body: 10, ..Asked::get("/busy") };
        let answers = (0..8).map(|_| told(&post.send(side), &["cache-control"]));
        answers.filter(|told| told.starts_with("503 one POST /busy cache-control=no-store")).count()
    });
    assert!(theirs == 0 && ours > 0, "theirs {theirs}, ours {ours}");
}
