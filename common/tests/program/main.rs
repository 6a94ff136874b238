//! The program around a proxy, as an operator meets it: the example `echo` is run, signalled and asked.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "in helpers of tests too, a panic is the report"
)]

mod running;

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use running::Running;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::{TempDir, tempdir};

const PATIENCE: Duration = Duration::from_secs(20);

fn echo(arguments: &[&str]) -> Output {
    Command::new(running::binary()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn check_tells_all_errors_and_exits_1() {
    let folder = tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.yaml"), folder.path().join("bad.yaml"));
    fs::write(&good, "listeners: [{address: 127.0.0.1:0}]\n").unwrap();
    fs::write(&bad, "listeners:\n- {adress: 127.0.0.1:0}\nworkers: many\n").unwrap();

    let checked = echo(&["check", "--config", good.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(text(&checked.stdout).ends_with("good.yaml: ok\n"));

    let checked = echo(&["check", "--config", bad.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(said.contains("bad.yaml:2:4") && said.contains("bad.yaml:3:10"), "{said}");

    let run = echo(&["run", "--config", bad.to_str().unwrap()]);
    assert_eq!(run.status.code(), Some(1));
    assert_eq!(text(&run.stderr), said);
}

#[test]
fn usage_errors_exit_2() {
    for arguments in [&["run"][..], &["frobnicate"], &["status", "--admin", "nonsense"], &[]] {
        assert_eq!(echo(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn what_is_printed_can_be_used() {
    let schema: serde_json::Value = serde_json::from_slice(&echo(&["schema"]).stdout).unwrap();
    assert_eq!(schema["type"], "object");
    assert!(text(&echo(&["completions", "bash"]).stdout).contains("complete"));
    assert!(text(&echo(&["man"]).stdout).starts_with(".ie"));
    assert!(text(&echo(&["--version"]).stdout).starts_with("echo "));
    let help = echo(&["--help"]);
    for verb in ["run", "check", "schema", "demo", "status", "completions", "man"] {
        assert!(text(&help.stdout).contains(verb), "{verb}");
    }
    let demo = echo(&["demo"]);
    assert_eq!(demo.status.code(), Some(0));
    assert!(text(&demo.stdout).contains("ok  a line to 127.0.0.1:"), "{}", text(&demo.stdout));
}

#[test]
fn what_is_printed_may_find_nobody_to_read_it() {
    for arguments in [&["completions", "bash"][..], &["man"], &["schema"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let printed = Command::new(running::binary()).args(arguments).stdout(writer).output().unwrap();
        assert_eq!((printed.status.code(), text(&printed.stderr)), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn status_without_a_proxy_says_so_and_exits_1() {
    let asked = echo(&["status", "--admin", "127.0.0.1:1"]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(text(&asked.stderr).contains("no proxy answers at 127.0.0.1:1"), "{}", text(&asked.stderr));
}

#[test]
fn a_running_proxy_serves_and_answers() {
    let running = Running::start("");
    running.line("hello");
    assert_eq!(running.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(running.get("/readyz"), (200, "ready\n".to_owned()));
    let (_, metrics) = running.get("/metrics");
    assert!(metrics.contains("groove_connections_accepted_total{listener=\"front\"} 1\n"), "{metrics}");
    let (_, config) = running.get("/api/v1/config");
    assert!(config.contains("\"name\": \"front\""), "{config}");

    let admin = running.admin.clone();
    let table = echo(&["status", "--admin", &admin]);
    assert!(text(&table.stdout).contains("\nLISTENERS\nname "), "{}", text(&table.stdout));
    let status = echo(&["status", "--admin", &admin, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["listeners"][0]["name"], "front");
}

#[test]
fn a_token_is_asked_for_and_never_shown() {
    let running = Running::start("admin: {address: 127.0.0.1:0, token: hunter2}");
    assert_eq!(running.get("/api/v1/config").0, 401);
    // Probes can send none.
    assert_eq!((running.get("/healthz").0, running.get("/readyz").0), (200, 200));
    let wrong = echo(&["status", "--admin", &running.admin, "--admin-token", "hunter3"]);
    assert_eq!(wrong.status.code(), Some(1));
    let right = echo(&["status", "--admin", &running.admin, "--admin-token", "hunter2"]);
    assert_eq!(right.status.code(), Some(0));
    let (status, config) = running.ask("GET", "/api/v1/config", "Authorization: Bearer hunter2\r\n");
    assert!(status == 200 && config.contains("***") && !config.contains("hunter2"), "{config}");
}

#[test]
fn a_page_of_another_site_gets_nothing() {
    let running = Running::start("");
    let ask = |method, header| running.ask(method, "/api/v1/status", header).0;
    assert_eq!(ask("GET", "Host: evil.example\r\n"), 403);
    assert_eq!(ask("GET", "Host: evil.example:9700\r\n"), 403);
    assert_eq!(ask("GET", "Host: 127.0.0.1:9700\r\n"), 200);
    assert_eq!(ask("GET", "Host: [::1]:9700\r\n"), 200);
    assert_eq!(ask("POST", "Host: 127.0.0.1\r\nOrigin: http://evil.example\r\n"), 403);
    assert_eq!(ask("POST", "Host: localhost\r\n"), 405);
    assert_eq!(running.get("/nowhere").0, 404);
}

#[test]
fn sigterm_finishes_what_has_begun_and_exits_0() {
    let mut running = Running::start("");
    let (mut idle, mut busy) = (running.connect(), running.connect());
    running.ping(&mut idle);
    running.begin(&mut busy, "a line begun");
    running.signal(Signal::TERM);
    running.wait_for("draining");
    // The idle one is let go, new ones are not let in, the busy one is served to its end.
    assert_eq!(idle.read(&mut [0; 8]).unwrap(), 0);
    assert_eq!(running.get("/readyz").0, 503);
    busy.write_all(b" and ended\n").unwrap();
    let mut line = String::new();
    busy.read_to_string(&mut line).unwrap();
    assert_eq!(line, "a line begun and ended\n");
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn a_second_sigterm_cuts() {
    let mut running = Running::start("");
    let mut busy = running.connect();
    running.begin(&mut busy, "never ended");
    running.signal(Signal::TERM);
    running.wait_for("draining");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(1));
}

#[test]
fn the_deadline_cuts() {
    let mut running = Running::start("drain: 50ms");
    let mut busy = running.connect();
    running.begin(&mut busy, "never ended");
    running.signal(Signal::INT);
    assert_eq!(running.end().code(), Some(1));
    assert_eq!(busy.read(&mut [0; 8]).unwrap_or(0), 0);
}

#[test]
fn a_bad_file_changes_nothing_and_a_good_one_takes_effect() {
    let running = Running::start("");
    let mut client = running.connect();
    running.ping(&mut client);

    running.write("listeners: [{adress: 127.0.0.1:0}]\ndrian: 3s\n");
    running.signal(Signal::HUP);
    let report = running.wait_for("not reloaded");
    assert!(report.contains("adress") && report.contains("drian"), "{report}");
    running.ping(&mut client);
    let (status, report) = running.ask("POST", "/api/v1/reload", "");
    assert!(status == 422 && report.contains("adress"), "{status} {report}");

    let socket = running.folder.path().join("second.sock");
    let both =
        format!("{}- {{address: {}}}\nadmin: {{address: 127.0.0.1:0}}\n", running::FRONT, socket.display());
    running.write(&both);
    let change = running.wait_for("changed listeners.1");
    assert!(change.contains("second.sock"), "{change}");
    running.ping(&mut client);
    assert!(socket.exists());
}

#[test]
fn sigusr2_without_a_way_to_hand_over_changes_nothing() {
    let mut running = Running::start("");
    let mut client = running.connect();
    running.ping(&mut client);
    running.signal(Signal::USR2);
    running.wait_for("nothing is handed over without `handover: PATH`");
    running.ping(&mut client);
    running.line("a new client");
    drop(client);
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn access_is_logged_on_standard_output() {
    let mut running = Running::start("log: {access: {sample: 1.0}}");
    running.line("hello");
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
    let logged = running.output();
    let event: serde_json::Value = serde_json::from_str(logged.lines().next().unwrap()).unwrap();
    assert_eq!(event["bytes"], 6);
}

/// The proxy is left with so few descriptors that accept(2) fails, and gets some back.
#[test]
fn without_descriptors_new_clients_wait_and_the_processor_is_left_alone() {
    let running = Running::start_with("", |command| {
        let program = command.get_program().to_owned();
        let mut limited = Command::new("sh");
        limited.arg("-c").arg("ulimit -n 40; exec \"$0\" \"$@\"").arg(program).args(command.get_args());
        limited
    });
    let mut clients: Vec<_> = (0..60).map(|_| running.connect()).collect();
    running.wait_for("cannot accept");
    let (cpu, watched) = (running.cpu(), Instant::now());
    // A while in which nothing can be waited for but time itself: does it spin?
    thread::sleep(Duration::from_millis(500));
    let busy = (running.cpu() - cpu).as_secs_f64() / watched.elapsed().as_secs_f64();
    assert!(busy < 0.2, "{busy}");

    let mut last = clients.pop().unwrap();
    last.write_all(b"still here\n").unwrap();
    clients.clear();
    let mut line = [0; 11];
    last.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"still here\n");
    running.wait_for("accepting again");
}

/// What the program tells its service manager next.
fn told(manager: &UnixDatagram) -> String {
    let mut buf = [0; 256];
    loop {
        match manager.recv(&mut buf) {
            Ok(length) => return text(&buf[..length]).to_owned(),
            // A receive with a deadline is not resumed when the machine stops and continues the process.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_service_manager_is_told() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || told(&manager);
    let mut running = Running::start_with("", |mut command| {
        command.env("NOTIFY_SOCKET", &socket);
        command
    });
    assert_eq!(told(), "READY=1\n");
    running.signal(Signal::HUP);
    let reloading = told();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(told(), "READY=1\n");
    running.signal(Signal::TERM);
    assert!(told().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000"));
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn the_watchdog_is_told_until_the_end_of_a_drain() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let wait_for = |what: &str| while !told(&manager).starts_with(what) {};
    let mut running = Running::start_with("", |mut command| {
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
        command
    });
    wait_for("WATCHDOG=1");
    let mut busy = running.connect();
    running.begin(&mut busy, "a line begun");
    running.signal(Signal::TERM);
    wait_for("STOPPING=1");
    wait_for("WATCHDOG=1");
    busy.write_all(b" and ended\n").unwrap();
    assert_eq!(running.end().code(), Some(0));
}
