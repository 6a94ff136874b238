//! Client libraries in front of two servers behind the proxy, and of one server itself: the same must come of it.
//!
//! Where a library's package has its own tests these are run, else a program of ours that does all it can. What
//! came of each is under `target/suites/`.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::Result;
use harness::{Kind, Memcached, Port, Process, Proxy, paths, python, suites};

use crate::proxy_to;

/// A server to compare with, and a proxy before two others.
fn stage() -> Result<(Memcached, Vec<Memcached>, Proxy)> {
    let behind = Memcached::start_many(2)?;
    let addresses: Vec<_> = behind.iter().map(Memcached::address).collect();
    let proxy = proxy_to(&addresses, "").start()?;
    Ok((Memcached::start()?, behind, proxy))
}

/// Compares the steps of `integration/clients/FILE`, run by `program`.
fn steps(name: &str, program: &Command, file: &str, environment: &[(&str, &str)]) -> Result<()> {
    explained(name, program, file, environment, &[])
}

fn explained(
    name: &str,
    program: &Command,
    file: &str,
    environment: &[(&str, &str)],
    differences: &[(&str, &str)],
) -> Result<()> {
    let (direct, _behind, proxy) = stage()?;
    let program = program.get_program().to_owned();
    let with = |address: SocketAddr| {
        let mut command = Command::new(&program);
        command.arg(paths::repository().join("integration/clients").join(file));
        command.env("MEMCACHED", address.to_string()).envs(environment.iter().copied());
        Ok(command)
    };
    suites::compare_steps(name, with, direct.address(), proxy.address())?.settle(differences)
}

fn with_python(client: &str, differences: &[(&str, &str)]) -> Result<()> {
    let program = Command::new(python::interpreter()?);
    explained(client, &program, "asyncio_clients.py", &[("CLIENT", client)], differences)
}

fn installed(name: &str) -> Result<Command> {
    Ok(Command::new(paths::program(name)?))
}

#[test]
fn aiomcache() -> Result<()> {
    with_python("aiomcache", &[])
}

#[test]
fn emcache() -> Result<()> {
    with_python("emcache", &[])
}

#[test]
fn meta_memcache() -> Result<()> {
    const NARROW: &str = "its tokens have 32 bits, and it leaves wider ones out without a word; ours have 64";
    with_python("meta-memcache", &[("cas again", NARROW), ("get and touch", NARROW)])
}

#[test]
fn dalli() -> Result<()> {
    steps("Dalli", &installed("ruby")?, "dalli.rb", &[])
}

#[test]
fn php_in_classic() -> Result<()> {
    steps("php-memcached, classic", &installed("php")?, "memcached.php", &[("PROTOCOL", "classic")])
}

#[test]
fn php_in_binary() -> Result<()> {
    steps("php-memcached, binary", &installed("php")?, "memcached.php", &[("PROTOCOL", "binary")])
}

#[test]
fn pylibmcs_own_suite() -> Result<()> {
    let (direct, _behind, proxy) = stage()?;
    let source = suites::tests_of("pylibmc", "1.6.3")?;
    let environment = |address: SocketAddr| {
        [("MEMCACHED_HOST", address.ip().to_string()), ("MEMCACHED_PORT", address.port().to_string())]
    };
    suites::compare(
        "pylibmc's suite",
        &source,
        &["-p", "no:asyncio", "tests"],
        &environment(direct.address()),
        &environment(proxy.address()),
    )?
    .settle(&[])
}

/// The suite knows no other port, but any host: one of the loopback network that nobody else has.
const ITS_PORT: u16 = 11211;

fn own_host(port: &Port) -> Ipv4Addr {
    let [high, low] = port.number().to_be_bytes();
    Ipv4Addr::new(127, high, low, 1)
}

#[test]
fn python_binary_memcacheds_own_suite() -> Result<()> {
    let source = suites::source("python_binary_memcached", "0.33.0")?;
    let (here, there, behind) = (Port::reserve()?, Port::reserve()?, Memcached::start_many(2)?);
    let mut memcached = Command::new(paths::program("memcached")?);
    memcached.args(["-u", "nobody", "-U", "0", "-p", "11211", "-l", &own_host(&here).to_string()]);
    let mut direct = Process::spawn("memcached", memcached)?;
    let address = SocketAddr::from((own_host(&here), ITS_PORT));
    direct.until("accepting", || std::net::TcpStream::connect(address).is_ok())?;
    let endpoints: Vec<String> = behind.iter().map(|server| server.address().to_string()).collect();
    let _proxy = Proxy::of(Kind::Memcached)
        .config(&format!(
            "listeners: [{{address: '{}:{ITS_PORT}'}}]\nadmin: {{address: $ADMIN}}\n\
             clusters: {{main: {{endpoints: [{}]}}}}\n",
            own_host(&there),
            endpoints.join(", ")
        ))
        .start()?;
    let environment = |host: &Port| {
        let ours = paths::repository().join("integration/python/binary").display().to_string();
        [("MEMCACHED_HOST", own_host(host).to_string()), ("PYTHONPATH", ours)]
    };
    // What is left out looks at sockets of its own only, or listens on a fixed port.
    let arguments =
        ["-p", "no:asyncio", "--ignore", "test/test_tls.py", "--ignore", "test/test_ipv6.py", "test"];
    suites::compare(
        "python-binary-memcached's suite",
        &source,
        &arguments,
        &environment(&here),
        &environment(&there),
    )?
    .settle(&[])
}
