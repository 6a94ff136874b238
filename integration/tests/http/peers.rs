//! What servers hear before HTTP, and which certificate a client is shown.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::mpsc;

use harness::{App, Authority, Kind, Nginx, PATIENCE, Proxy, Scripted, Signal, http, run};

use super::{read_until, talk};

#[test]
fn servers_are_told_of_the_client_by_a_proxy_header() {
    for (version, start, ends) in [
        ("v1", &b"PROXY TCP4 127.0.0.1 127.0.0.1 "[..], 1),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01", 28),
    ] {
        let (sent, got) = mpsc::channel();
        let (left, ended) = mpsc::channel();
        let app = Scripted::start(move |_, mut stream| {
            // The header is there before the request, and may come by itself.
            let (mut seen, mut part) = (Vec::new(), [0; 1024]);
            while !seen.ends_with(b"\r\n\r\n") || seen.len() <= 28 {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => return,
                    Ok(count) => seen.extend_from_slice(&part[..count]),
                }
            }
            sent.send(seen).unwrap();
            let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let _end = stream.read(&mut part);
            left.send(()).unwrap();
        })
        .unwrap();
        let config = format!(
            "timeouts: {{server_keep_alive: 1h}}{}    proxy_protocol: {version}\n    health: {{probe: null}}\n",
            super::ONE_APP
        );
        let proxy = Proxy::of(Kind::Http).config(&config).set("APP", app.address()).start().unwrap();
        let mut stream = std::net::TcpStream::connect(proxy.address()).unwrap();
        let own = stream.local_addr().unwrap().port();
        for _ in 0..2 {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n").unwrap();
            assert!(read_until(&mut stream, "ok").unwrap().starts_with("HTTP/1.1 200 "), "{version}");
            let seen = got.recv_timeout(PATIENCE).unwrap();
            assert!(seen.starts_with(start), "{version}: {seen:?}");
            let line = seen.split(|byte| *byte == b'\n').next().unwrap();
            let port = match ends {
                1 => String::from_utf8_lossy(line).split(' ').nth(4).unwrap().parse().unwrap(),
                _ => u16::from_be_bytes([seen[24], seen[25]]),
            };
            assert_eq!(port, own, "{version}");
            let head = if ends == 1 { &seen[line.len() + 1..] } else { &seen[ends..] };
            assert!(head.starts_with(b"GET / HTTP/1.1\r\n"), "{version}: {head:?}");
            ended.recv_timeout(PATIENCE).expect("it is not kept");
        }
        assert_eq!(app.accepted(), 2, "no other client may have a connection that names this one");
    }
}

#[test]
fn nginx_behind_tls_reads_the_header_before_the_handshake() {
    for version in ["v1", "v2"] {
        let folder = tempfile::TempDir::new().unwrap();
        let authority = Authority::new(folder.path()).unwrap();
        authority.issue("server", &["inside.test"]).unwrap();
        let here = folder.path().display().to_string();
        let nginx = Nginx::configured(1, |listen| {
            format!(
                "server {{ listen {listen} ssl proxy_protocol; ssl_certificate {here}/server.pem; \
                 ssl_certificate_key {here}/server.key; \
                 location / {{ return 200 '$proxy_protocol_addr $proxy_protocol_port'; }} }}"
            )
        })
        .unwrap();
        let config = format!(
            "trusted: [127.0.0.0/8]{}    tls: {{ca: $DIR/ca.pem, server_name: inside.test}}\n    \
             proxy_protocol: {version}\n    health_path: /\n",
            super::ONE_APP
        );
        let proxy =
            Proxy::of(Kind::Http).config(&config).folder(folder).set("APP", nginx.address()).start().unwrap();
        let mut asked = super::request("shop.test", "/");
        asked.headers_mut().insert("x-forwarded-for", "192.0.2.9".parse().unwrap());
        // The client behind a trusted proxy, whose port nobody knows.
        let said = http::send(proxy.address(), asked).unwrap().text();
        assert_eq!(said.trim_end(), "192.0.2.9", "{version}");
    }
}

#[test]
fn probes_of_such_servers_say_that_they_are_our_own() {
    let (sent, got) = mpsc::channel();
    let app = Scripted::start(move |_, mut stream| {
        let seen = read_until(&mut stream, "\r\n\r\n").unwrap_or_default();
        let _left = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let _left = sent.send(seen);
    })
    .unwrap();
    let config = format!("{}    proxy_protocol: v1\n    health_path: /up\n", super::ONE_APP);
    let _proxy =
        Proxy::of(Kind::Http).config(&config).set("APP", app.address()).alive_is_enough().start().unwrap();
    let seen = got.recv_timeout(PATIENCE).unwrap();
    assert!(seen.starts_with("PROXY UNKNOWN\r\nGET /up HTTP/1.1\r\n"), "{seen}");
}

const TWO_CERTIFICATES: &str = "
listeners:
  - address: $LISTEN
    tls:
      certificate: $DIR/shop.pem
      key: $DIR/shop.key
      certificates:
        - {certificate: $DIR/blog.pem, key: $DIR/blog.key}
        - {certificate: $DIR/wild.pem, key: $DIR/wild.key}
      client_ca: $DIR/ca.pem
      client_auth: $AUTH
admin: {address: $ADMIN}
apps:
  shop: {hosts: [shop.test, www.shop.test], endpoints: [$APP]}
  blog: {hosts: [blog.test], endpoints: [$APP]}
  wild: {hosts: ['*.wild.test'], endpoints: [$APP]}
";

fn with_certificates(auth: &str) -> (Proxy, App, Authority) {
    let folder = tempfile::TempDir::new().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    authority.issue("shop", &["shop.test", "www.shop.test"]).unwrap();
    authority.issue("blog", &["blog.test"]).unwrap();
    authority.issue("wild", &["*.wild.test"]).unwrap();
    authority.issue("client", &["client.test"]).unwrap();
    let app = App::saying("ok").unwrap();
    let proxy = Proxy::of(Kind::Http)
        .config(TWO_CERTIFICATES)
        .folder(folder)
        .set("APP", app.address())
        .set("AUTH", auth)
        .start()
        .unwrap();
    (proxy, app, authority)
}

/// What curl says of one request: status, the number of the certificate's error (0 is good), and the body.
fn curl(proxy: &Proxy, sni: &str, host: &str, with_certificate: bool) -> String {
    let (address, here) = (proxy.address(), proxy.folder().display().to_string());
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "10", "-w", " %{http_code} %{ssl_verify_result}"]);
    command.arg("--connect-to").arg(format!("::{address}")).arg("--cacert").arg(format!("{here}/ca.pem"));
    if with_certificate {
        command.args(["--cert", &format!("{here}/client.pem"), "--key", &format!("{here}/client.key")]);
    }
    command.args(["-H", &format!("Host: {host}"), &format!("https://{sni}/")]);
    let output = run(&mut command).unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let (proxy, _app, authority) = with_certificates("none");
    for host in ["shop.test", "www.shop.test", "blog.test", "a.wild.test", "BLOG.test"] {
        assert_eq!(curl(&proxy, host, host, false), "ok 200 0", "{host}");
    }
    // One label is what a star stands for; and another name gets the first, which is not its own.
    for host in ["a.b.wild.test", "other.test"] {
        let said = curl(&proxy, host, host, false);
        assert!(said.contains("no alternative certificate subject name matches"), "{host}: {said}");
    }
    // Without certificates of clients, a connection is anybody's who may open one.
    assert_eq!(curl(&proxy, "shop.test", "blog.test", false), "ok 200 0");
    // A reload shows the new one; connections stay.
    authority.issue("blog", &["blog.test", "news.test"]).unwrap();
    proxy.signal(Signal::HUP).unwrap();
    harness::eventually("the new certificate", || {
        curl(&proxy, "news.test", "blog.test", false).contains("200 0").then_some(())
    })
    .unwrap();
}

#[test]
fn a_connection_that_showed_a_certificate_to_one_app_is_none_of_anothers() {
    let (proxy, app, _authority) = with_certificates("required");
    assert!(!curl(&proxy, "shop.test", "shop.test", false).contains("200"), "no certificate, no service");
    assert_eq!(curl(&proxy, "shop.test", "shop.test", true), "ok 200 0");
    assert_eq!(curl(&proxy, "shop.test", "www.shop.test", true), "ok 200 0", "one app, two names");
    let before = app.received().len();
    let said = curl(&proxy, "shop.test", "blog.test", true);
    assert!(said.contains("(H31)") && said.ends_with(" 421 0"), "{said}");
    assert_eq!(app.received().len(), before);
}

#[test]
fn a_listener_without_tls_knows_no_misdirection() {
    let app = App::saying("ok").unwrap();
    let proxy = super::proxy_to(app.address()).unwrap();
    let answer =
        talk(proxy.address(), b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n", "").unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
}
