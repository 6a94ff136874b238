//! Client libraries in front of two servers behind the proxy, and of one server itself: the same must come of it.
//!
//! Where a library's package has its own tests these are run, else a program of ours that does all it can. What
//! came of each is under `target/suites/`.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use harness::{Kind, Memcached, Port, Process, Proxy, paths, python, run, suites};
use tempfile::TempDir;

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
    // It writes to several servers, so the one on a unix socket must be another.
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))?;
    let [socket_here, socket_there] = ["here", "there"].map(|name| folder.path().join(name));
    let mut memcached = Command::new(paths::program("memcached")?);
    memcached.args(["-u", "nobody", "-s"]).arg(&socket_here);
    let mut on_socket = Process::spawn("memcached", memcached)?;
    on_socket.until("its socket", || socket_here.exists())?;
    let behind_socket = Memcached::start_many(2)?;
    let _proxies = [
        listening(&format!("{}:{ITS_PORT}", own_host(&there)), &behind)?,
        listening(&format!("unix:{}", socket_there.display()), &behind_socket)?,
    ];
    let (sasl, sasl_proxy) = (with_sasl()?, with_tenant(&behind)?);
    let environment = |host: &Port, sasl: SocketAddr, socket: &Path| {
        let ours = paths::repository().join("integration/python/binary").display().to_string();
        let host = own_host(host).to_string();
        let sasl = ("SASL_PORT", sasl.port().to_string());
        [
            ("MEMCACHED_HOST", host),
            ("PYTHONPATH", ours),
            sasl,
            ("MEMCACHED_SOCKET", socket.display().to_string()),
        ]
    };
    // What is left out looks at servers of its own only, or wants a fixed port.
    let left_out = ["test_tls.py", "test_ipv6.py"].map(|file| format!("--ignore=test/{file}"));
    let arguments: Vec<&str> = ["-p", "no:asyncio", "-p", "conftest", "test"]
        .into_iter()
        .chain(left_out.iter().map(String::as_str))
        .collect();
    suites::compare(
        "python-binary-memcached's suite",
        &source,
        &arguments,
        &environment(&here, sasl.address(), &socket_here),
        &environment(&there, sasl_proxy.address(), &socket_there),
    )?
    .settle(&[])
}

/// A proxy that listens there.
fn listening(address: &str, behind: &[Memcached]) -> Result<Proxy> {
    let endpoints: Vec<String> = behind.iter().map(|server| server.address().to_string()).collect();
    Proxy::of(Kind::Memcached)
        .config(&format!(
            "listeners: [{{address: '{address}'}}]\nadmin: {{address: $ADMIN}}\n\
             clusters: {{main: {{endpoints: [{}]}}}}\n",
            endpoints.join(", ")
        ))
        .start()
}

/// A stock memcached that lets in `user` with `secret`, by SASL and in the binary protocol only.
struct Sasl {
    port: Port,
    _process: Process,
    _folder: TempDir,
}

impl Sasl {
    fn address(&self) -> SocketAddr {
        self.port.address()
    }
}

fn with_sasl() -> Result<Sasl> {
    let (port, folder) = (Port::reserve()?, tempfile::tempdir()?);
    let users = folder.path().join("users");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    std::fs::write(
        folder.path().join("memcached.conf"),
        format!("mech_list: plain\npwcheck_method: auxprop\nsasldb_path: {}\n", users.display()),
    )?;
    let mut add = Command::new("sh");
    add.arg("-c").arg("printf secret | \"$0\" -p -c -f \"$1\" -a memcached user && chmod 644 \"$1\"");
    let output = run(add.arg(paths::program("saslpasswd2")?).arg(&users))?;
    ensure!(output.status.success(), "saslpasswd2: {}", String::from_utf8_lossy(&output.stderr));
    let mut memcached = Command::new(paths::program("memcached")?);
    memcached.args(["-S", "-u", "nobody", "-l", "127.0.0.1", "-U", "0", "-p", &port.number().to_string()]);
    memcached.env("SASL_CONF_PATH", folder.path());
    let mut process = Process::spawn("memcached -S", memcached)?;
    process.until("accepting", || std::net::TcpStream::connect(port.address()).is_ok())?;
    Ok(Sasl { port, _process: process, _folder: folder })
}

/// A proxy whose only tenant has the same user.
fn with_tenant(behind: &[Memcached]) -> Result<Proxy> {
    let endpoints: Vec<String> = behind.iter().map(|server| server.address().to_string()).collect();
    Proxy::of(Kind::Memcached)
        .config(&format!(
            "listeners: [{{address: $LISTEN}}]\nadmin: {{address: $ADMIN}}\n\
             state: $DIR/state\n\
             tenants: {{shop: {{credentials: [{{user: user, password: secret}}]}}}}\n\
             clusters: {{main: {{endpoints: [{}]}}}}\n",
            endpoints.join(", ")
        ))
        .start()
}

#[test]
fn dalli_with_sasl() -> Result<()> {
    steps_with_sasl("Dalli, SASL", "ruby", "dalli.rb")
}

#[test]
fn php_with_sasl() -> Result<()> {
    steps_with_sasl("php-memcached, SASL", "php", "memcached.php")
}

fn steps_with_sasl(name: &str, program: &str, file: &str) -> Result<()> {
    let (direct, behind) = (with_sasl()?, Memcached::start_many(2)?);
    let proxy = with_tenant(&behind)?;
    let program = paths::program(program)?;
    let with = |address: SocketAddr| {
        let mut command = Command::new(&program);
        command.arg(paths::repository().join("integration/clients").join(file));
        command.env("MEMCACHED", address.to_string()).env("PROTOCOL", "binary");
        command.env("USERNAME", "user").env("PASSWORD", "secret");
        Ok(command)
    };
    const OWN: &str =
        "a tenant's statistics are its own: how many items are the tenant's, no server can tell";
    suites::compare_steps(name, with, direct.address(), proxy.address())?.settle(&[("stats", OWN)])
}
