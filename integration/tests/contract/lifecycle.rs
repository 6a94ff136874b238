//! The admin server, signals, reloads, the end.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use harness::http::{get, send};
use harness::{Kind, PATIENCE, Proxy, Signal, eventually};

use crate::block_on;
use crate::subject::{Server, before, config, exchange_at, open, plain};

crate::for_each_proxy!(
    the_admin_server_answers,
    a_token_guards_the_admin_server,
    sigterm_drains_and_ends_with_success,
    a_bad_file_changes_nothing_and_says_why,
    sighup_takes_a_new_configuration,
    a_changed_file_is_taken_without_a_signal,
    a_restart_takes_the_same_address_at_once,
    a_new_process_takes_the_listeners_and_no_connection_is_refused,
    a_wider_address_takes_the_place_of_a_narrower_one_in_one_reload,
    a_log_that_nobody_reads_stops_nobody,
);

fn the_admin_server_answers(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let proxy = plain(kind, &server)?;
    block_on(exchange_at(kind, proxy.address()))?;
    for (path, wanted) in [
        ("/", kind.name()),
        ("/healthz", "ok"),
        ("/readyz", "ready"),
        ("/metrics", "# TYPE groove_"),
        ("/api/v1/status", "\"listeners\""),
        ("/api/v1/config", "\"listeners\""),
        ("/api/v1/openapi.json", "\"openapi\""),
    ] {
        let answer = proxy.get(path)?;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains(wanted), "{path}: {wanted} is not in\n{}", answer.text());
    }
    assert!(!proxy.get("/api/v1/config")?.text().contains("secret\""), "a secret is shown");
    assert_eq!(proxy.get("/no/such/path")?.status, 404);
    assert!(!proxy.metrics()?.names().is_empty());
    Ok(())
}

fn a_token_guards_the_admin_server(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let text =
        config(kind, "{address: $LISTEN}").replace("{address: $ADMIN}", "{address: $ADMIN, token: hush}");
    let proxy = before(kind, &server, "").config(&text).token("hush").start()?;
    assert_eq!(proxy.get("/api/v1/config")?.status, 200);
    assert_eq!(get(proxy.admin(), "/api/v1/config")?.status, 401);
    let admin = proxy.admin().to_string();
    assert_eq!(kind.run(&["status", "--admin", &admin])?.status.code(), Some(1));
    assert_eq!(kind.run(&["status", "--admin", &admin, "--admin-token", "hush"])?.status.code(), Some(0));
    Ok(())
}

fn sigterm_drains_and_ends_with_success(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let mut proxy = plain(kind, &server)?;
    block_on(async {
        let idle = open(kind, proxy.address()).await?;
        proxy.signal(Signal::TERM)?;
        idle.ended().await
    })?;
    let status = proxy.exit(PATIENCE)?;
    assert_eq!(status.code(), Some(0), "{status}\n{}", proxy.log());
    assert!(block_on(exchange_at(kind, proxy.address())).is_err(), "it still serves");
    Ok(())
}

fn a_bad_file_changes_nothing_and_says_why(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let mut proxy = plain(kind, &server)?;
    let good = proxy.get("/api/v1/config")?.text();
    let mark = proxy.log().mark();
    let text = config(kind, "{address: $LISTEN}");
    proxy.rewrite(&format!("{text}nonsense: 1\n"))?;
    proxy.signal(Signal::HUP)?;
    proxy.log().after(mark, "nonsense")?;
    block_on(exchange_at(kind, proxy.address()))?;
    assert_eq!(proxy.get("/api/v1/config")?.text(), good);
    Ok(())
}

/// Waits until the proxy listens on these addresses and no others.
fn until_it_listens_on(proxy: &Proxy, wanted: &[SocketAddr]) -> Result<()> {
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    eventually("the new listeners", || {
        let status = proxy.get("/api/v1/status").ok()?.json().ok()?;
        let listeners = status.get("listeners")?.as_array()?;
        let open = listeners.iter().filter(|listener| listener["leaving"] == false);
        let open: Vec<String> =
            open.filter_map(|listener| Some(listener["address"].as_str()?.to_owned())).collect();
        (open == wanted).then_some(())
    })
}

fn sighup_takes_a_new_configuration(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let mut proxy = before(kind, &server, "{address: $LISTEN}").port("SECOND").start()?;
    let pid = proxy.pid();
    let (first, second) = (proxy.address(), proxy.at("SECOND"));
    let held = block_on(open(kind, first))?;
    proxy.rewrite(&config(kind, "{address: $LISTEN}, {address: $SECOND}"))?;
    proxy.signal(Signal::HUP)?;
    until_it_listens_on(&proxy, &[first, second])?;
    for address in [first, second] {
        block_on(exchange_at(kind, address))?;
    }
    drop(held);

    proxy.rewrite(&config(kind, "{address: $SECOND}"))?;
    proxy.signal(Signal::HUP)?;
    until_it_listens_on(&proxy, &[second])?;
    block_on(exchange_at(kind, second))?;
    assert!(block_on(exchange_at(kind, first)).is_err(), "a listener that was removed still serves");
    assert_eq!(proxy.pid(), pid);
    Ok(())
}

fn a_changed_file_is_taken_without_a_signal(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let mut proxy = before(kind, &server, "{address: $LISTEN}").port("SECOND").start()?;
    proxy.rewrite(&config(kind, "{address: $LISTEN}, {address: $SECOND}"))?;
    until_it_listens_on(&proxy, &[proxy.address(), proxy.at("SECOND")])?;
    block_on(exchange_at(kind, proxy.at("SECOND")))
}

fn a_new_process_takes_the_listeners_and_no_connection_is_refused(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let text = config(kind, "{address: $LISTEN}, {address: \"unix:$DIR/listener\"}");
    let text = format!("{text}handover: $DIR/handover\n");
    let mut proxy = before(kind, &server, "").config(&text).start()?;
    let (address, path) = (proxy.address(), proxy.folder().join("listener"));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::net::TcpStream::connect(address)?;
                std::os::unix::net::UnixStream::connect(&path)?;
                count += 1;
            }
            Ok::<_, std::io::Error>(count)
        });
        let mut handed_over = || {
            for _ in 0..2 {
                let mut old = proxy.hand_over()?;
                let ended = old.exit(PATIENCE)?;
                assert_eq!(ended.code(), Some(0), "{ended}\n{}", old.log());
                block_on(exchange_at(kind, address))?;
                assert_eq!(proxy.get("/readyz")?.status, 200);
            }
            Ok::<_, anyhow::Error>(())
        };
        let outcome = handed_over();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        outcome?;
        let count = storm.join().unwrap()?;
        assert!(count > 10, "{count} connections are no storm");
        Ok(())
    })
}

fn a_restart_takes_the_same_address_at_once(kind: Kind) -> Result<()> {
    let server = Server::start(kind)?;
    let mut proxy = plain(kind, &server)?;
    let _held = block_on(open(kind, proxy.address()))?;
    proxy.kill()?;
    proxy.restart()?;
    block_on(exchange_at(kind, proxy.address()))?;
    assert!(proxy.exit(Duration::ZERO).is_err(), "it runs");
    Ok(())
}

fn a_wider_address_takes_the_place_of_a_narrower_one_in_one_reload(kind: Kind) -> Result<()> {
    // `auth: trust` is not for addresses that others can reach; the configuration here has users.
    let server = Server::start(kind)?;
    let mut proxy = plain(kind, &server)?;
    let (narrow, port) = (proxy.address(), proxy.address().port());
    let wide = SocketAddr::from(([0, 0, 0, 0], port));
    let held = block_on(open(kind, narrow))?;
    for (address, listener) in
        [(wide, format!("{{address: \"{wide}\"}}")), (narrow, "{address: $LISTEN}".to_owned())]
    {
        proxy.rewrite(&config(kind, &listener))?;
        until_it_listens_on(&proxy, &[address])?;
        block_on(exchange_at(kind, narrow))?;
    }
    block_on(held.ended())
}

/// A pipe holds 64 KiB, which is less than is logged here.
fn a_log_that_nobody_reads_stops_nobody(kind: Kind) -> Result<()> {
    const LOGGED: usize = 1500;
    let server = Server::start(kind)?;
    let mut proxy = plain(kind, &server)?;
    proxy.kill()?;
    let mut deaf = Command::new(kind.binary()?)
        .args(["run", "--config"])
        .arg(proxy.config_file())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let reloaded = || {
        let request = ::http::Request::post("/api/v1/reload").header("host", "127.0.0.1");
        send(proxy.admin(), request.body(bytes::Bytes::new()).ok()?)
            .ok()
            .filter(|answer| answer.status == 200)
    };
    let outcome = eventually("the proxy", reloaded).and_then(|_| {
        for _ in 0..LOGGED {
            anyhow::ensure!(reloaded().is_some(), "a reload is not answered");
        }
        block_on(exchange_at(kind, proxy.address()))
    });
    deaf.kill()?;
    deaf.wait()?;
    outcome
}
