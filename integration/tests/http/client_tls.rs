//! Certificates of clients by the name that is asked for: each app has its own authority, and no connection is good for more
//! than it was made for.

use std::path::Path;
use std::process::Command;

use bytes::Bytes;
use harness::{App, Authority, Kind, Proxy, http, paths};
use tempfile::TempDir;

const CONFIG: &str = "
listeners:
  - {address: $LISTEN, tls: {certificate: $DIR/server.pem, key: $DIR/server.key}}
  - {address: $CLEAR}
admin: {address: $ADMIN}
apps:
  open: {hosts: [open.test], endpoints: [$APP]}
  bank: {hosts: [bank.test, www.bank.test], endpoints: [$APP], client_tls: {ca: $DIR/bank-ca.pem}}
  twin: {hosts: [twin.test], endpoints: [$APP], client_tls: {ca: $DIR/bank-ca.pem}}
  shop:
    hosts: [shop.test]
    endpoints: [$APP]
    client_tls: {ca: $DIR/shop-ca.pem, auth: optional}
    request_headers: {set: {X-Client: '${tls.client.subject:-nobody}'}}
";

/// An authority of this name, and a client's certificate of it.
fn authority(folder: &Path, name: &str) {
    let own = folder.join(name);
    std::fs::create_dir(&own).unwrap();
    let authority = Authority::new(&own).unwrap();
    authority.issue("client", &[&format!("{name}-client.test")]).unwrap();
    std::fs::copy(own.join("ca.pem"), folder.join(format!("{name}-ca.pem"))).unwrap();
}

struct Place {
    proxy: Proxy,
    app: App,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let names = ["open.test", "bank.test", "www.bank.test", "twin.test", "shop.test"];
        Authority::new(folder.path()).unwrap().issue("server", &names).unwrap();
        authority(folder.path(), "bank");
        authority(folder.path(), "shop");
        let app = App::saying("ok").unwrap();
        let proxy =
            Proxy::of(Kind::Http).config(CONFIG).folder(folder).port("CLEAR").set("APP", app.address());
        Self { proxy: proxy.start().unwrap(), app }
    }

    /// The status of what curl is answered that asks for `host` on a connection made for `name`; 0 for none.
    fn ask(&self, name: &str, host: &str, identity: Option<&str>, more: &[&str]) -> u16 {
        let (port, folder) = (self.proxy.address().port(), self.proxy.folder());
        let mut command = Command::new(paths::program("curl").unwrap());
        command.args(["-s", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}"]).args(more);
        command.arg("--cacert").arg(folder.join("ca.pem"));
        command.args(["--resolve", &format!("{name}:{port}:127.0.0.1"), "-H", &format!("Host: {host}")]);
        if let Some(identity) = identity {
            command.arg("--cert").arg(folder.join(identity).join("client.pem"));
            command.arg("--key").arg(folder.join(identity).join("client.key"));
        }
        let output = harness::run(command.arg(format!("https://{name}:{port}/"))).unwrap();
        String::from_utf8_lossy(&output.stdout).parse().unwrap()
    }
}

#[test]
fn each_app_asks_for_certificates_of_its_own_authority() {
    let place = Place::new();
    for version in ["--http1.1", "--http2"] {
        let ask = |name: &str, identity: Option<&str>| place.ask(name, name, identity, &[version]);
        assert_eq!((ask("open.test", None), ask("open.test", Some("shop"))), (200, 200), "nobody is asked");
        assert_eq!((ask("bank.test", Some("bank")), ask("www.bank.test", Some("bank"))), (200, 200));
        assert_eq!((ask("bank.test", None), ask("bank.test", Some("shop"))), (0, 0), "no handshake");
        assert_eq!((ask("shop.test", None), ask("shop.test", Some("shop"))), (200, 200), "it may show one");
        assert_eq!(ask("shop.test", Some("bank")), 0, "but none that is not good");
    }
    let seen: Vec<_> =
        place.app.received().iter().filter_map(|it| it.headers().get("x-client").cloned()).collect();
    assert_eq!(seen, ["nobody", "CN=shop-client.test", "nobody", "CN=shop-client.test"]);
}

#[test]
fn a_connection_is_good_for_what_it_was_made_for() {
    let place = Place::new();
    let before = place.app.received().len();
    for version in ["--http1.1", "--http2"] {
        let ask =
            |name: &str, host: &str, identity: Option<&str>| place.ask(name, host, identity, &[version]);
        for (name, host, identity, why) in [
            ("open.test", "bank.test", None, "nobody was asked"),
            ("open.test", "bank.test", Some("bank"), "nobody was asked"),
            ("open.test", "shop.test", None, "it might have been shown"),
            ("shop.test", "bank.test", Some("shop"), "it is of another authority"),
            ("bank.test", "shop.test", Some("bank"), "it is of another authority"),
            ("bank.test", "open.test", Some("bank"), "it was shown to another app"),
        ] {
            assert_eq!(ask(name, host, identity), 421, "{name} for {host}: {why}");
        }
        assert_eq!(place.app.received().len(), before, "no server sees any of them");
    }
    assert_eq!(place.ask("bank.test", "www.bank.test", Some("bank"), &[]), 200, "it is the same app");
    assert_eq!(place.ask("bank.test", "twin.test", Some("bank"), &[]), 200, "it asks for the same");
    // Without TLS nobody can be asked.
    let clear = |host: &str| {
        let asked = ::http::Request::get("/").header("host", host).body(Bytes::new()).unwrap();
        http::send(place.proxy.at("CLEAR"), asked).unwrap().status.as_u16()
    };
    assert_eq!((clear("bank.test"), clear("shop.test"), clear("open.test")), (403, 200, 200));
}

#[test]
fn an_authority_that_is_replaced_counts_with_the_reload() {
    let mut place = Place::new();
    assert_eq!(place.ask("bank.test", "bank.test", Some("bank"), &[]), 200);
    // The bank believes the shop's authority from now on.
    let folder = place.proxy.folder().to_path_buf();
    std::fs::copy(folder.join("shop-ca.pem"), folder.join("bank-ca.pem")).unwrap();
    super::queueing::reload(&mut place.proxy, CONFIG);
    assert_eq!(place.ask("bank.test", "bank.test", Some("bank"), &[]), 0);
    assert_eq!(place.ask("bank.test", "bank.test", Some("shop"), &[]), 200);
    super::queueing::reload(&mut place.proxy, &CONFIG.replace(", client_tls: {ca: $DIR/bank-ca.pem}", ""));
    assert_eq!(place.ask("bank.test", "bank.test", None, &[]), 200);
    let refused = CONFIG.replace(", tls: {certificate: $DIR/server.pem, key: $DIR/server.key}", "");
    place.proxy.rewrite(&refused).unwrap();
    place.proxy.log().expect("no listener speaks TLS").unwrap();
}
