//! A real browser: Chromium, driven by Playwright, reads the proxy's pages, logs in at a real provider, and uses what only
//! browsers do (WebSockets in streams, other origins, server-sent events).

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Authority, Kind, Port, Process, Proxy, npm, paths, python};

const CONFIG: &str = "
listeners:
  - {address: $LISTEN}
  - {address: $SECURE, tls: {certificate: $CERTIFICATE, key: $KEY}}
admin: {address: $ADMIN}
log: {access: {sample: 1}}
timeouts: {first_byte: 500ms}
apps:
  shop:
    hosts: [shop.test]
    endpoints: [$ONE, $TWO]
    timeouts: {first_byte: 1s}
    affinity: {by: {cookie: {name: where, generate: true, secret: a secret of the test}}}
    maintenance: {enabled: false}
    response_headers: {set: {X-Release: one}}
    routes:
      - match: {path: /api/*}
        cors: &cors
          allow_origins: ['https://page.test:$SECURE_PORT']
          allow_methods: [PUT]
          allow_headers: [Content-Type, X-Team]
          expose_headers: [X-Who]
          allow_credentials: true
      - {match: {path: /api/closed}, cors: *cors, maintenance: {enabled: true}}
      - {match: {path: /api/asked}, cors: *cors, auth: {any: [{api_key: {in: {header: X-Key}, keys: {ci: '2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683'}}}]}}
  page: {hosts: [page.test, evil.test], endpoints: [$ONE]}
  closed: {hosts: [closed.test], endpoints: [$ONE], maintenance: {enabled: true, retry_after: 2m}}
  painted:
    hosts: [painted.test]
    endpoints: [$ONE]
    pages: {maintenance: $PAGES/maintenance.html}
    maintenance: {enabled: true, retry_after: 90s}
  off: {hosts: [off.test], endpoints: {file: none.yaml}}
  down: {hosts: [down.test], endpoints: [$CLOSED], health: {probe: null}}
  club:
    hosts: [club.test]
    endpoints: [$ONE]
    auth: &club
      any:
        - oidc: &oidc
            issuer: 'http://$PROVIDER'
            client_id: groove
            client_secret: 'a secret : of ours'
            scopes: [email, groups]
            cookie: {keys: [a key of at least thirty-two characters]}
            groups: [ops]
      headers: {X-Auth-Email: email, X-Auth-Groups: groups}
    routes: [{match: {path: /*}, redirect: {scheme: https, port: $SECURE_PORT}}]
  brief:
    hosts: [brief.test]
    endpoints: [$ONE]
    auth:
      any:
        - oidc:
            <<: *oidc
            cookie: {keys: [a key of at least thirty-two characters], max_age: 3s}
";

/// Two of the app that the browser's tests ask, named differently.
fn app(name: &str, port: &Port) -> Process {
    let file = paths::repository().join("integration/python/browser/app.py");
    let mut command = Command::new(python::interpreter().unwrap());
    command.arg(file).arg(port.address().port().to_string()).arg(name);
    started(command, name, port.address())
}

/// npm's provider, for people who come back to these.
fn provider(port: &Port, apps: &[String]) -> Process {
    let folder = npm::installed("oidc", &["oidc-provider@8.8.1"], |_| Ok(())).unwrap();
    let script = paths::repository().join("integration/node/oidc_provider.mjs");
    // A name of its own: another test copies the same.
    std::fs::copy(script, folder.join("oidc_provider_browser.mjs")).unwrap();
    let mut command = Command::new(paths::program("node").unwrap());
    command
        .arg("oidc_provider_browser.mjs")
        .arg(port.address().port().to_string())
        .args(apps)
        .current_dir(folder);
    started(command, "oidc-provider", port.address())
}

fn started(command: Command, name: &str, address: SocketAddr) -> Process {
    let mut process = Process::spawn(name, command).unwrap();
    process.until("accepting", || std::net::TcpStream::connect(address).is_ok()).unwrap();
    process
}

fn axe() -> PathBuf {
    npm::installed("axe", &["axe-core@4.14.1"], |_| Ok(())).unwrap().join("node_modules/axe-core/axe.min.js")
}

#[test]
fn chromium_is_content() {
    let ports = [(); 5].map(|()| Port::reserve().unwrap());
    let [one, two, closed, provided, secure] = &ports;
    let _apps = [app("one", one), app("two", two)];
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("none.yaml"), "[]\n").unwrap();
    let names =
        ["shop.test", "page.test", "evil.test", "closed.test", "painted.test", "club.test", "brief.test"];
    let issued = Authority::new(folder.path()).unwrap().issue("proxy", &names).unwrap();
    let secure_port = secure.address().port();
    let _provider =
        provider(provided, &["club", "brief"].map(|app| format!("https://{app}.test:{secure_port}")));
    let proxy = Proxy::of(Kind::Http)
        .config(CONFIG)
        .folder(folder)
        .set("ONE", one)
        .set("TWO", two)
        .set("CLOSED", closed)
        .set("PROVIDER", provided)
        .set("SECURE", secure)
        .set("SECURE_PORT", secure_port)
        .set("CERTIFICATE", issued.certificate.display())
        .set("KEY", issued.key.display())
        .set("PAGES", paths::repository().join("configs/pages").display())
        .alive_is_enough()
        .start()
        .unwrap();
    let environment = [
        ("GROOVE_ADDRESS", proxy.address().to_string()),
        ("GROOVE_SECURE", secure.to_string()),
        ("GROOVE_PROVIDER", provided.to_string()),
        ("GROOVE_CERTIFICATE", issued.certificate.display().to_string()),
        ("GROOVE_CONFIG", proxy.config_file().display().to_string()),
        ("GROOVE_CHROMIUM", paths::program("chromium").unwrap().display().to_string()),
        ("GROOVE_AXE", axe().display().to_string()),
    ];
    let folder = paths::repository().join("integration/python/browser");
    let files = ["pages.py", "login.py", "streams.py"];
    let counts = python::pytest("browser", Path::new(&folder), &files, &environment).unwrap();
    assert_eq!((counts.failed, counts.skipped), (0, 0));
    assert!(counts.passed >= 25, "{counts:?}");
    // What the browser spoke: a WebSocket over TLS is a stream of its page's connection (RFC 8441).
    let lines = proxy.log().lines();
    for (socket, protocol, count) in
        [("/ws?plain", "HTTP/1.1", 2), ("/ws?secure", "HTTP/2", 2), ("/ws?stays", "HTTP/2", 1)]
    {
        let told: Vec<_> = lines.iter().filter(|line| line.contains(&format!("GET {socket}\""))).collect();
        assert_eq!(told.len(), count, "{socket}: {told:?}");
        let wanted = [format!("\"protocol\":\"{protocol}\""), "\"status\":101".to_owned()];
        assert!(told.iter().all(|line| wanted.iter().all(|it| line.contains(it))), "{socket}: {told:?}");
    }
    // One connection before, during and after the reloads.
    let clients = |path: &str| -> Vec<String> {
        let lines = lines.iter().filter(|line| line.contains(&format!("GET {path}\"")));
        let client =
            lines.filter_map(|line| Some(line.split_once("\"client\":\"")?.1.split_once('"')?.0.to_owned()));
        client.collect()
    };
    let (socket, mut asked) = (clients("/ws?stays"), clients("/stays"));
    asked.dedup();
    assert_eq!(asked, socket, "the page's connection was closed by a reload");
}
