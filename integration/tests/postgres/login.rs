//! Who gets in, and how those are told who do not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Authority, Kind, PATIENCE, Postgres, Proxy, paths};
use tokio_postgres::error::SqlState;

use super::{CONFIG, code, connect, connect_as, proxy, run, text};

#[test]
fn scram_and_md5_on_both_sides() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let stored = |role: &str| {
            server.sql("shop", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"))
        };
        let users = "  scram: {password: $SCRAM, server_user: app, server_password: secret}
  md: {password: $MD, server_user: legacy, server_password: $LEGACY}
  none: {password: x, server_user: plain}
";
        let config = format!("{CONFIG}{users}");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let builder = builder.set("SCRAM", stored("app")?).set("LEGACY", stored("legacy")?);
        let md = server.sql("shop", "SELECT 'md5' || md5('secretmd')")?;
        let builder = builder.set("MD", md);
        let proxy = builder.set("SIZE", 2).set("WAIT", "5s").start()?;
        for (login, role) in [
            ("user=app password=secret", "app"),
            ("user=legacy password=secret", "legacy"),
            ("user=scram password=secret", "app"),
            ("user=md password=secret", "legacy"),
            ("user=none password=x", "plain"),
        ] {
            let client = connect_as(&proxy, &format!("{login} dbname=shop")).await.context(login)?;
            assert_eq!(text(&client, "SELECT current_user").await?, role);
            let wrong = login.replace("password=", "password=not");
            let refused = connect_as(&proxy, &format!("{wrong} dbname=shop")).await;
            assert_eq!(code(refused), SqlState::INVALID_PASSWORD, "{wrong}");
        }
        Ok(())
    })
}

#[test]
fn those_who_do_not_exist_are_refused_like_those_who_do() -> Result<()> {
    run(async {
        let (_server, proxy) = proxy(2)?;
        let refusal = |user: &'static str| {
            let proxy = &proxy;
            async move {
                let login = format!("user={user} password=wrong dbname=shop");
                let error = connect_as(proxy, &login).await.err().context("let in")?;
                let error = error.as_db_error().context("not told why")?.clone();
                Ok::<_, anyhow::Error>((error.code().clone(), error.message().replace(user, "USER")))
            }
        };
        let known = refusal("app").await?;
        assert_eq!(known.0, SqlState::INVALID_PASSWORD);
        assert_eq!(known, refusal("nobody").await?);
        // Only who has logged in learns which databases there are.
        let unknown = connect_as(&proxy, "user=app password=wrong dbname=nothing").await;
        assert_eq!(code(unknown), SqlState::INVALID_PASSWORD);
        assert_eq!(code(connect(&proxy, "nothing").await), SqlState::INVALID_CATALOG_NAME);
        Ok(())
    })
}

#[test]
fn the_servers_own_refusals_are_passed_on() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let config =
            CONFIG.replace("dbname: shop, pool: {mode: session", "dbname: gone, pool: {mode: session");
        let builder = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address());
        let proxy = builder.set("SIZE", 2).set("WAIT", "5s").start()?;
        assert_eq!(code(connect(&proxy, "own").await), SqlState::INVALID_CATALOG_NAME);
        let login = "user=app password=secret dbname=shop options='-c nonsense=1'";
        assert_eq!(code(connect_as(&proxy, login).await), SqlState::UNDEFINED_OBJECT);
        Ok(())
    })
}

#[test]
fn tls_on_both_sides() -> Result<()> {
    let server = Postgres::builder().tls().start()?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path())?;
    let issued = authority.issue("proxy", &["localhost", "127.0.0.1"])?;
    let trusted = server.authority().context("the server has TLS")?.certificate();
    let config = "
listeners: [{address: $LISTEN, tls: {certificate: $CERT, key: $KEY}}]
admin: {address: $ADMIN}
databases: {shop: {endpoints: [$SERVER], tls: {ca: $CA}}}
users: {app: {password: secret}}
";
    let builder = Proxy::of(Kind::Postgres).config(config).set("SERVER", server.address());
    let builder = builder.set("CERT", issued.certificate.display()).set("KEY", issued.key.display());
    let proxy = builder.set("CA", trusted.display()).start()?;
    let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let target = format!(
        "host=localhost hostaddr=127.0.0.1 port={} user=app password=secret dbname=shop sslmode=verify-full \
         sslrootcert={}",
        proxy.address().port(),
        authority.certificate().display()
    );
    let output =
        harness::run(Command::new(paths::program("psql")?).args(["-XAtq", "-c", query]).arg(target))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(said.trim() == "t", "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Sends bytes, and reads until the proxy closes or has answered `enough`.
fn dialogue(proxy: &Proxy, bytes: &[u8], enough: usize) -> Result<Vec<u8>> {
    dialogue_at(proxy.address(), bytes, enough)
}

fn dialogue_at(address: SocketAddr, bytes: &[u8], enough: usize) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(bytes)?;
    let (mut heard, mut buffer) = (Vec::new(), [0; 1024]);
    while heard.len() < enough {
        match stream.read(&mut buffer)? {
            0 => break,
            count => heard.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    Ok(heard)
}

fn packet(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

#[test]
fn openings_are_answered_as_postgresql_answers_them() -> Result<()> {
    let (server, proxy) = proxy(2)?;
    let (ssl, gss) = (packet(80_877_103, b""), packet(80_877_104, b""));
    assert_eq!(dialogue(&proxy, &ssl, 1)?, b"N");
    assert_eq!(dialogue(&proxy, &[gss, ssl].concat(), 2)?, b"NN");
    let negotiated = dialogue(&proxy, &packet((3 << 16) | 9999, b"user\0app\0_pq_.x\0\x31\0\0"), 24)?;
    assert!(negotiated.starts_with(b"v\0\0\0\x13\0\x03\0\x02\0\0\0\x01_pq_.x\0R"), "{negotiated:?}");
    for (bytes, code) in [
        (packet(4 << 16, b"user\0app\0\0"), "0A000"),
        (packet(3 << 16, b"database\0shop\0\0"), "28000"),
        (packet(3 << 16, b"user\0app\0"), "08P01"),
    ] {
        let heard = dialogue(&proxy, &bytes, usize::MAX)?;
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(heard.starts_with('E') && heard.contains(&format!("C{code}\0")), "{code}: {heard:?}");
    }
    // What has a length that cannot be is no client's of PostgreSQL: it hears nothing.
    for address in [server.address(), proxy.address()] {
        assert_eq!(dialogue_at(address, b"GET / HTTP/1.1\r\n\r\n", usize::MAX)?, b"", "{address}");
    }
    Ok(())
}
