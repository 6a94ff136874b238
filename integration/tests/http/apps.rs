//! Apps that are changed while others are served: by the verb, over the admin API, by the file.

use std::io::Write;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use anyhow::{Result, ensure};
use bytes::Bytes;
use harness::{App, Kind, Proxy, http};

use super::{ONE_APP, closed, proxy_to, read_until, request};

/// `groove-http apps …` with a text on its standard input: its exit code, and what it said.
fn apps(proxy: &Proxy, arguments: &[&str], text: &str) -> Result<(i32, String)> {
    let mut child = Command::new(Kind::Http.binary()?)
        .args(["--admin", &proxy.admin().to_string(), "apps"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    child.stdin.take().unwrap().write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned()))
}

fn done(proxy: &Proxy, arguments: &[&str], text: &str) -> String {
    let (code, said) = apps(proxy, arguments, text).unwrap();
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

fn asked(proxy: &Proxy, host: &str) -> (u16, String) {
    let answer = http::send(proxy.address(), request(host, "/")).unwrap();
    (answer.status.as_u16(), answer.text())
}

/// A keep-alive connection of a client.
struct Client(TcpStream);

impl Client {
    fn new(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(harness::PATIENCE)).unwrap();
        Self(stream)
    }

    fn ask(&mut self, host: &str, end: &str) -> String {
        self.0.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        read_until(&mut self.0, end).unwrap()
    }
}

#[test]
fn an_app_comes_changes_and_goes_by_the_verb() {
    let (shop, one, two) =
        (App::saying("shop").unwrap(), App::saying("one").unwrap(), App::saying("two").unwrap());
    let proxy = proxy_to(shop.address()).unwrap();
    assert_eq!(asked(&proxy, "new.test").0, 404);
    let text = |app: &App| format!("hosts: [new.test]\nendpoints: ['{}']\n", app.address());
    done(&proxy, &["set", "new", "-"], &text(&one));
    assert_eq!(asked(&proxy, "new.test"), (200, "one".to_owned()));
    done(&proxy, &["set", "new", "-"], &text(&two));
    assert_eq!(asked(&proxy, "new.test"), (200, "two".to_owned()));
    let list = done(&proxy, &["list"], "");
    assert!(list.contains("new") && list.contains("api") && list.contains("shop.test"), "{list}");
    let told: serde_json::Value = serde_json::from_str(&done(&proxy, &["get", "new"], "")).unwrap();
    assert_eq!((&told["from"], &told["app"]["hosts"][0]), (&"api".into(), &"new.test".into()));
    done(&proxy, &["unset", "new"], "");
    assert_eq!((asked(&proxy, "new.test").0, asked(&proxy, "shop.test").0), (404, 200));

    // One of the file's name hides it, and gives its place back.
    let hiding = format!("{{hosts: [other.test], endpoints: ['{}']}}", one.address());
    done(&proxy, &["set", "shop", "-"], &hiding);
    assert_eq!((asked(&proxy, "other.test").0, asked(&proxy, "shop.test").0), (200, 404));
    done(&proxy, &["unset", "shop"], "");
    assert_eq!((asked(&proxy, "other.test").0, asked(&proxy, "shop.test").0), (404, 200));
    let (code, said) = apps(&proxy, &["unset", "shop"], "").unwrap();
    assert!(code == 1 && said.contains("stands in the file"), "{said}");
}

#[test]
fn a_bad_app_is_refused_with_every_error_and_its_place() {
    let app = App::saying("ok").unwrap();
    let proxy = proxy_to(app.address()).unwrap();
    let bad = "hosts: [new.test, shop.test]\nendpoints: ['127.0.0.1:1']\nretriees: 2\n";
    let (code, said) = apps(&proxy, &["set", "new", "-"], bad).unwrap();
    assert_eq!(code, 1);
    for part in
        ["stdin:1:19", "app `shop` has this host already", "stdin:3:1", "did you mean `retries`", "^^^^"]
    {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert_eq!(asked(&proxy, "new.test").0, 404, "nothing has changed");
    let (code, said) = apps(&proxy, &["set", "no/name", "-"], "").unwrap();
    assert!(code == 1 && said.contains("a name has"), "{said}");
    let (code, said) = apps(&proxy, &["get", "nobody"], "").unwrap();
    assert!(code == 1 && said.contains("404"), "{said}");
    let document = proxy.get("/api/v1/openapi.json").unwrap().json().unwrap();
    let put = &document["paths"]["/api/v1/apps/{name}"]["put"];
    assert_eq!(put["parameters"][0]["name"], "name", "{document}");
}

#[test]
fn what_is_set_outlives_a_kill_where_there_is_a_state_file() {
    let (shop, new) = (App::saying("shop").unwrap(), App::saying("new").unwrap());
    let mut proxy = Proxy::of(Kind::Http)
        .config(&format!("state: {{file: $DIR/apps.state}}{ONE_APP}"))
        .set("APP", shop.address())
        .start()
        .unwrap();
    let text = format!("{{hosts: [new.test], endpoints: ['{}']}}", new.address());
    done(&proxy, &["set", "new", "-"], &text);
    done(&proxy, &["maintenance", "shop", "on"], "");
    proxy.kill().unwrap();
    proxy.restart().unwrap();
    assert_eq!(asked(&proxy, "new.test"), (200, "new".to_owned()));
    assert_eq!(asked(&proxy, "shop.test").0, 503);
    done(&proxy, &["unset", "new"], "");
    done(&proxy, &["maintenance", "shop", "off"], "");
    proxy.kill().unwrap();
    proxy.restart().unwrap();
    assert_eq!((asked(&proxy, "new.test").0, asked(&proxy, "shop.test").0), (404, 200));
}

#[test]
fn maintenance_and_drains_touch_what_begins_and_nothing_that_has_begun() {
    let (shop, other) = (App::saying("shop").unwrap(), App::saying("other").unwrap());
    let proxy = proxy_to(shop.address()).unwrap();
    let text =
        |endpoints: &str| format!("{{hosts: [two.test], endpoints: [{endpoints}], health: {{probe: null}}}}");
    let both = format!("'{}', '{}'", shop.address(), other.address());
    done(&proxy, &["set", "two", "-"], &text(&both));
    let mut client = Client::new(&proxy);
    done(&proxy, &["maintenance", "shop", "on"], "");
    let answer = client.ask("shop.test", "(H80)\n");
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 30\r\n"), "{answer}");
    done(&proxy, &["maintenance", "shop", "off"], "");
    assert!(client.ask("shop.test", "shop").starts_with("HTTP/1.1 200 "), "on the same connection");

    done(&proxy, &["drain", "two", &shop.address().to_string()], "");
    assert!((0..20).all(|_| asked(&proxy, "two.test").1 == "other"));
    // A change of the app leaves an operator's word as it is.
    done(&proxy, &["set", "two", "-"], &text(&both).replace("probe: null", "probe: null, slow_start: 0s"));
    assert!((0..20).all(|_| asked(&proxy, "two.test").1 == "other"));
    done(&proxy, &["drain", "two", &shop.address().to_string(), "--undo"], "");
    assert!((0..60).any(|_| asked(&proxy, "two.test").1 == "shop"));
    done(&proxy, &["drain", "two"], "");
    let (status, said) = asked(&proxy, "two.test");
    assert!(status == 503 && said.contains("takes no requests"), "{said}");
    done(&proxy, &["drain", "two", "--undo"], "");
    assert_eq!(asked(&proxy, "two.test").0, 200);
}

#[test]
fn a_restart_makes_the_connections_of_one_app_new_and_leaves_the_others() {
    let (shop, other) = (App::saying("shop").unwrap(), App::saying("other").unwrap());
    let proxy = proxy_to(shop.address()).unwrap();
    done(
        &proxy,
        &["set", "other", "-"],
        &format!("{{hosts: [other.test], endpoints: ['{}']}}", other.address()),
    );
    let (mut of_shop, mut of_other) = (Client::new(&proxy), Client::new(&proxy));
    of_shop.ask("shop.test", "shop");
    of_other.ask("other.test", "other");
    let before = shop.connections();
    done(&proxy, &["restart", "shop"], "");
    let answer = of_other.ask("other.test", "other");
    assert!(!answer.contains("Connection: close"), "{answer}");
    let answer = of_shop.ask("shop.test", "shop");
    assert!(answer.contains("Connection: close\r\n"), "{answer}");
    assert!(closed(&mut of_shop.0), "its connection ends with the reply");
    assert_eq!(shop.connections(), before + 1, "the idle connection to the server was not used again");
    let mut of_shop = Client::new(&proxy);
    let answer = of_shop.ask("shop.test", "shop");
    assert!(!answer.contains("Connection: close"), "{answer}");
    assert_eq!(shop.connections(), before + 1, "the new one was");
}

#[test]
fn a_reload_changes_what_differs_and_keeps_what_was_set() {
    let (shop, new) = (App::saying("shop").unwrap(), App::saying("new").unwrap());
    let mut proxy = proxy_to(shop.address()).unwrap();
    done(&proxy, &["set", "new", "-"], &format!("{{hosts: [new.test], endpoints: ['{}']}}", new.address()));
    let reload = |proxy: &Proxy| {
        let asked = ::http::Request::post("/api/v1/reload").header("host", "localhost").body(Bytes::new());
        http::send(proxy.admin(), asked.unwrap()).unwrap()
    };
    proxy.rewrite(&format!("{ONE_APP}  more: {{hosts: [more.test], endpoints: [$APP]}}\n")).unwrap();
    let answer = reload(&proxy);
    assert!(
        answer.text().contains("apps.more: added") && !answer.text().contains("shop"),
        "{}",
        answer.text()
    );
    for host in ["shop.test", "more.test", "new.test"] {
        assert_eq!(asked(&proxy, host).0, 200, "{host}");
    }
    // A file that claims the host of an app that was set is refused whole.
    proxy.rewrite(&format!("{ONE_APP}  more: {{hosts: [new.test], endpoints: [$APP]}}\n")).unwrap();
    let answer = reload(&proxy);
    assert!(answer.status == 422 && answer.text().contains("new.test"), "{}", answer.text());
    assert_eq!((asked(&proxy, "more.test").0, asked(&proxy, "new.test").1), (200, "new".to_owned()));
    proxy.rewrite(ONE_APP).unwrap();
    assert_eq!(reload(&proxy).status, 200);
    assert_eq!((asked(&proxy, "more.test").0, asked(&proxy, "new.test").0), (404, 200));
}

#[test]
fn a_change_of_an_app_leaves_its_tunnels_and_everybody_elses() -> Result<()> {
    let echo = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = echo.local_addr()?;
    let server = std::thread::spawn(move || -> Result<()> {
        let (mut stream, _) = echo.accept()?;
        read_until(&mut stream, "\r\n\r\n")?;
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let said = read_until(&mut stream, "more")?;
        ensure!(said == "more", "{said}");
        stream.write_all(b"heard")?;
        Ok(())
    });
    let app = App::saying("ok")?;
    let proxy = proxy_to(app.address())?;
    done(
        &proxy,
        &["set", "live", "-"],
        &format!("{{hosts: [live.test], endpoints: ['{address}'], health: {{probe: null}}}}"),
    );
    let mut tunnel = TcpStream::connect(proxy.address())?;
    tunnel.set_read_timeout(Some(harness::PATIENCE))?;
    tunnel.write_all(
        b"GET / HTTP/1.1\r\nHost: live.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    )?;
    ensure!(read_until(&mut tunnel, "\r\n\r\n")?.starts_with("HTTP/1.1 101 "));
    let moved = format!("{{hosts: [live.test], endpoints: ['{}']}}", app.address());
    done(&proxy, &["set", "live", "-"], &moved);
    assert_eq!(asked(&proxy, "live.test"), (200, "ok".to_owned()));
    done(&proxy, &["restart", "live"], "");
    done(&proxy, &["unset", "live"], "");
    assert_eq!(asked(&proxy, "live.test").0, 404);
    tunnel.write_all(b"more")?;
    ensure!(read_until(&mut tunnel, "heard")? == "heard");
    server.join().unwrap()
}
