//! Client libraries in front of two servers behind the proxy, and of one server itself: the same must come of it.
//!
//! Where a library's package has its own tests these are run, else a program of ours that does all it can. What
//! came of each is under `target/suites/`.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use harness::{Memcached, Proxy, paths, python, suites};

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
