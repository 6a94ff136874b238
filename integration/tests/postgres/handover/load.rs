//! pgbench, and clients that come while one process follows the other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use harness::PATIENCE;

use super::super::clients::pgbench;
use super::{handed_over, proxy};

#[test]
fn pgbench_does_not_notice_three_new_processes() -> Result<()> {
    let (server, mut proxy) = proxy(8)?;
    let port = proxy.address().port();
    pgbench(port, &["-i", "-q", "-s", "1"])?;
    let script = server.socket_folder().join("think.sql");
    std::fs::write(
        &script,
        "\\set n random(1, 100000)\nBEGIN;\nSELECT abalance FROM pgbench_accounts WHERE aid = :n;\n\\sleep 3 ms\nUPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :n;\nEND;\n\\sleep 10 ms\n",
    )?;
    let script = script.to_str().context("a path")?.to_owned();
    let load = |mode: &'static str, more: Vec<String>| {
        thread::spawn(move || {
            let mut arguments = vec!["-n", "-M", mode, "-c", "32", "-j", "2", "-T", "8"];
            arguments.extend(more.iter().map(String::as_str));
            pgbench(port, &arguments)
        })
    };
    let loads = [
        load("simple", Vec::new()),
        load("prepared", Vec::new()),
        load("prepared", vec!["-f".to_owned(), script]),
    ];
    for round in 0..3 {
        // All of them are at work.
        harness::eventually("clients", || {
            let clients = proxy.metrics().ok()?.sum("groove_postgres_clients", &[])?;
            (clients >= 96.0).then_some(())
        })?;
        let mut old = proxy.hand_over()?;
        super::ended(&mut old)?;
        ensure!(old.log().expect("handed over")?.contains("\"kept\":0"), "round {round}: {}", old.log());
        // The old one's connections are gone, and the new one keeps to the pool's size.
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        harness::eventually("no more connections than one process may have", || {
            let count = server.sql("postgres", connections).ok()?.parse::<u32>().ok()?;
            (count <= 8).then_some(())
        })?;
    }
    // Each is still the connection it began with.
    let listener = proxy.address().to_string();
    let accepted = proxy.metrics()?.sum("groove_connections_accepted_total", &[("listener", &listener)]);
    ensure!(accepted == Some(0.0), "{accepted:?} came again");
    for load in loads {
        let said = load.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
        ensure!(said.contains("number of failed transactions: 0") && !said.contains("error"), "{said}");
    }
    Ok(())
}

#[test]
fn whoever_comes_meanwhile_is_let_in() -> Result<()> {
    let (_server, mut proxy) = proxy(4)?;
    let (address, stop) = (proxy.address(), AtomicBool::new(false));
    let stop = &stop;
    thread::scope(|scope| {
        let storm = |_| {
            scope.spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = TcpStream::connect(address).context("refused")?;
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.write_all(b"\0\0\0\x20\0\x03\0\0user\0app\0database\0shop\0\0")?;
                    let mut first = [0];
                    stream.read_exact(&mut first).context("not answered")?;
                    ensure!(first == *b"R", "answered by {first:?}");
                    count += 1;
                }
                Ok::<_, anyhow::Error>(count)
            })
        };
        let storms: Vec<_> = (0..3).map(storm).collect();
        let outcome = (0..3).try_for_each(|_| handed_over(&mut proxy));
        stop.store(true, Ordering::Relaxed);
        for storm in storms {
            let count = storm.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
            ensure!(count > 10, "{count} clients are no storm");
        }
        outcome
    })
}
