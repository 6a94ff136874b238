//! The harness itself: what the other tests stand on.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use harness::{App, Authority, Memcached, Nginx, Port, Postgres, Process, Scripted, Usage, http};

fn version(address: SocketAddr) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"version\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

#[test]
fn memcached_comes_back_on_its_port() {
    let mut cache = Memcached::start().unwrap();
    assert!(version(cache.address()).unwrap().starts_with("VERSION 1."));
    cache.kill().unwrap();
    assert!(TcpStream::connect(cache.address()).is_err());
    cache.restart().unwrap();
    assert!(version(cache.address()).unwrap().starts_with("VERSION 1."));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let error = Memcached::builder().arg("--no-such-option").start().unwrap_err().to_string();
    assert!(error.contains("unrecognized option"), "{error}");
}

#[test]
fn postgres_keeps_its_data_over_a_crash() {
    let mut server = Postgres::builder().set("work_mem", "5MB").tls().start().unwrap();
    assert_eq!(server.sql("shop", "SHOW work_mem").unwrap(), "5MB");
    assert_eq!(server.sql("shop", "SHOW ssl").unwrap(), "on");
    server.sql("shop", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").unwrap();
    assert!(server.sql("shop", "SELECT nonsense").unwrap_err().to_string().contains("nonsense"));
    server.kill().unwrap();
    server.restart().unwrap();
    assert_eq!(server.sql("shop", "SELECT n FROM kept").unwrap(), "7");
}

#[test]
fn nginx_answers() {
    let server = Nginx::app().unwrap();
    let answer = http::get(server.address(), "/").unwrap();
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "hello from nginx\n"));
    assert!(server.usage().unwrap().threads >= 2, "master and worker");
}

#[test]
fn an_application_remembers_what_it_was_asked() {
    let mut app = App::start(|request| async move { http::echo(&request) }).unwrap();
    let request =
        ::http::Request::post("/path?q").header("host", "h.test").body(Bytes::from("body")).unwrap();
    assert_eq!(http::send(app.address(), request).unwrap().text(), "POST /path?q 4");
    let received = app.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].headers()["host"], "h.test");
    app.crash();
    assert!(http::get(app.address(), "/").is_err());
    app.resume().unwrap();
    assert_eq!(http::get(app.address(), "/again").unwrap().text(), "GET /again 0");
}

#[test]
fn a_scripted_server_does_as_told() {
    let server = Scripted::start(|number, mut stream| {
        let _client_left = stream.write_all(format!("connection {number}").as_bytes());
    })
    .unwrap();
    assert_eq!(http::raw(server.address(), b"").unwrap(), b"connection 0");
    assert_eq!(http::raw(server.address(), b"").unwrap(), b"connection 1");
}

#[test]
fn a_process_is_heard() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo one; echo two >&2; echo three"]);
    let process = Process::spawn("sh", command).unwrap();
    assert_eq!(process.log().expect("thr").unwrap(), "three");
    process.log().expect("two").unwrap();
    let error = process.log().expect("four").unwrap_err().to_string();
    assert!(error.contains("one\n"), "the log is shown: {error}");
}

#[test]
fn the_usage_of_a_tree_counts_children() {
    let mut command = Command::new("sh");
    command.args(["-c", "echo ready; sh -c 'for i in $(seq 1000000); do :; done'; true"]);
    let process = Process::spawn("sh", command).unwrap();
    process.log().expect("ready").unwrap();
    harness::eventually("CPU time of the child", || process.usage().ok().filter(|usage| usage.cpu_s > 0.1))
        .unwrap();
    assert!(Usage::of_tree(u32::MAX).is_err());
}

#[test]
fn an_exit_is_an_event() {
    let mut command = Command::new("sh");
    command.args(["-c", "read line < /dev/null; exit 3"]);
    let mut process = Process::spawn("sh", command).unwrap();
    assert_eq!(process.exit(Duration::from_secs(10)).unwrap().code(), Some(3));
}

#[test]
fn ports_are_not_given_twice() {
    let held: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
    let mut numbers: Vec<u16> = held.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), held.len());
}

#[test]
fn certificates_verify_against_their_authority() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    let issued = authority.issue("server", &["localhost", "127.0.0.1"]).unwrap();
    let output = Command::new("openssl")
        .args(["verify", "-CAfile"])
        .arg(authority.certificate())
        .arg(&issued.certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
