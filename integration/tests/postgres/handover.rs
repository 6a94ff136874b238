//! One process after the other, under load: nobody is to notice.

use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use harness::{Kind, PATIENCE, Postgres, Proxy, paths};

const CONFIG: &str = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
drain: 10s
handover: $DIR/handover
databases:
  shop: {endpoints: [$SERVER], pool: {size: $SIZE}}
  own: {endpoints: [$SERVER], dbname: shop, pool: {mode: session, size: 20}}
users:
  app: {password: secret}
";

fn proxy(size: usize) -> Result<(Postgres, Proxy)> {
    let server = Postgres::start()?;
    let builder = Proxy::of(Kind::Postgres).config(CONFIG).set("SERVER", server.address());
    Ok((server, builder.set("SIZE", size).start()?))
}

fn pgbench(port: u16, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(paths::program("pgbench")?);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "app"]).env("PGPASSWORD", "secret");
    let output = harness::run(command.args(arguments).arg("shop"))?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "pgbench {arguments:?}: {said}");
    Ok(said)
}

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
        let ended = old.exit(PATIENCE)?;
        ensure!(ended.success(), "round {round}: {ended}\n{}", old.log());
        ensure!(old.log().expect("handed over")?.contains("\"kept\":0"), "round {round}: {}", old.log());
    }
    for load in loads {
        let said = load.join().map_err(|_| anyhow::anyhow!("a thread died"))??;
        ensure!(said.contains("number of failed transactions: 0") && !said.contains("error"), "{said}");
        eprintln!("{said}");
    }
    Ok(())
}
