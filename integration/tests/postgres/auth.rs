//! How clients prove who they are: channel binding, certificates, passwords that only the server knows.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use harness::{Authority, Kind, Postgres, Proxy, paths, python};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::run;

/// Runs one query by psql with this connection string after host and port.
fn psql(proxy: &Proxy, rest: &str, query: &str) -> Result<Output> {
    let target =
        format!("host=localhost hostaddr=127.0.0.1 port={} dbname=shop {rest}", proxy.address().port());
    let mut command = Command::new(paths::program("psql")?);
    // No question on a terminal: a password is in the connection string, or there is none.
    harness::run(command.args(["-XAtqw", "-v", "VERBOSITY=verbose", "-c", query]).arg(target))
}

/// What psql printed, where it has to succeed.
fn said(output: &Output) -> Result<String> {
    ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What psql complained of, where it has to fail.
fn complaint(output: &Output) -> Result<String> {
    ensure!(!output.status.success(), "let in: {}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The proxy's own certificate, and whom to believe about it.
struct Front {
    _folder: tempfile::TempDir,
    authority: Authority,
    certificate: String,
    key: String,
}

impl Front {
    fn new() -> Result<Front> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new(folder.path())?;
        let issued = authority.issue("proxy", &["localhost", "127.0.0.1"])?;
        let (certificate, key) = (issued.certificate.display().to_string(), issued.key.display().to_string());
        Ok(Front { _folder: folder, authority, certificate, key })
    }

    fn verified(&self) -> String {
        format!("sslmode=verify-full sslrootcert={}", self.authority.certificate().display())
    }
}

const BOUND: &str = "
listeners: [{address: $LISTEN, tls: {certificate: $CERT, key: $KEY}}]
admin: {address: $ADMIN}
databases:
  shop: {endpoints: [$SERVER], channel_binding: require, tls: {ca: $CA}}
  loose: {endpoints: [$SERVER], dbname: shop, tls: {ca: $CA}}
users:
  app: {password: secret}
  legacy: {password: secret}
";

fn bound(server: &Postgres, front: &Front, config: &str) -> Result<Proxy> {
    let trusted = server.authority().context("the server has TLS")?.certificate();
    let builder = Proxy::of(Kind::Postgres).config(config).set("SERVER", server.address());
    let builder = builder.set("CERT", &front.certificate).set("KEY", &front.key);
    builder.set("CA", trusted.display()).start()
}

#[test]
fn channel_binding_is_kept_on_both_hops() -> Result<()> {
    let (server, front) = (Postgres::builder().tls().start()?, Front::new()?);
    let proxy = bound(&server, &front, BOUND)?;
    let required = format!("user=app password=secret channel_binding=require {}", front.verified());
    let ssl = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert_eq!(said(&psql(&proxy, &required, ssl)?)?, "t");
    let wrong = required.replace("secret", "wrong");
    assert!(
        complaint(&psql(&proxy, &wrong, ssl)?)?.contains("password authentication failed"),
        "bound, and wrong"
    );
    // Without TLS it is not offered, and a client that is content without it is let in.
    let plain = "user=app password=secret sslmode=disable channel_binding=disable";
    assert_eq!(said(&psql(&proxy, plain, ssl)?)?, "t");
    // A server that has only md5 for a role binds nothing: not where it is required.
    let legacy = format!("user=legacy password=secret {}", front.verified());
    assert!(complaint(&psql(&proxy, &legacy, ssl)?)?.contains("did not accept the proxy's login"));
    assert_eq!(said(&psql(&proxy, &format!("{legacy} dbname=loose"), ssl)?)?, "t");
    // A reload shows new clients another certificate, and binds them to that.
    front.authority.issue("proxy", &["localhost", "127.0.0.1", "new.test"])?;
    proxy.signal(harness::Signal::HUP)?;
    let renamed = format!("{required} host=new.test");
    let shown = harness::eventually("the new certificate", || {
        psql(&proxy, &renamed, ssl).ok().filter(|output| output.status.success())
    })?;
    assert_eq!(said(&shown)?, "t");
    Ok(())
}

#[test]
fn psycopg_and_asyncpg_are_bound_as_far_as_they_can_be() -> Result<()> {
    let (server, front) = (Postgres::builder().tls().start()?, Front::new()?);
    let proxy = bound(&server, &front, BOUND)?;
    let counts = python::pytest(
        "postgres logins",
        &paths::repository().join("integration/python"),
        &["postgres_logins.py"],
        &[
            ("GROOVE_PORT", proxy.address().port().to_string()),
            ("GROOVE_CA", front.authority.certificate().display().to_string()),
        ],
    )?;
    assert_eq!((counts.passed, counts.failed, counts.skipped), (5, 0, 0));
    Ok(())
}

#[test]
fn certificates_of_other_hashes_bind_as_well() -> Result<()> {
    let server = Postgres::builder().tls().start()?;
    for (kind, hash) in
        [("rsa:2048", "sha1"), ("rsa:2048", "sha512"), ("ec -pkeyopt ec_paramgen_curve:P-384", "sha384")]
    {
        let front = Front::new()?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-days", "1", "-newkey"]);
        openssl.args(kind.split(' ')).arg(format!("-{hash}")).args([
            "-keyout",
            &front.key,
            "-out",
            &front.certificate,
        ]);
        ensure!(
            harness::run(&mut openssl)?.status.success(),
            "openssl makes no certificate of {kind} and {hash}"
        );
        let proxy = bound(&server, &front, BOUND)?;
        let required = "user=app password=secret channel_binding=require sslmode=require";
        assert_eq!(said(&psql(&proxy, required, "SELECT 1")?).context(hash)?, "1");
    }
    Ok(())
}

/// A client that says what no library would.
struct Raw<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// Says hello as `app`, and hears the offer of mechanisms.
    async fn start(mut stream: S) -> Result<Raw<S>> {
        let parameters = b"\0\x03\0\0user\0app\0database\0shop\0\0";
        let length = u32::try_from(parameters.len() + 4)?.to_be_bytes();
        stream.write_all(&[&length, &parameters[..]].concat()).await?;
        let mut raw = Raw(stream);
        let (tag, body) = raw.next().await?;
        ensure!(tag == b'R' && body.starts_with(&[0, 0, 0, 10]), "no SASL: {tag} {body:?}");
        Ok(raw)
    }

    async fn next(&mut self) -> Result<(u8, Vec<u8>)> {
        let tag = self.0.read_u8().await?;
        let length = usize::try_from(self.0.read_u32().await?)?.saturating_sub(4);
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok((tag, body))
    }

    async fn say(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4)?.to_be_bytes();
        Ok(self.0.write_all(&[&[tag][..], &length, body].concat()).await?)
    }

    /// Says all of it, whatever is answered; then code, message and detail of the error.
    async fn offend(mut self, messages: &[(u8, Vec<u8>)]) -> Result<[String; 3]> {
        for (tag, body) in messages {
            self.say(*tag, body).await?;
        }
        loop {
            let (tag, body) = self.next().await?;
            if tag == b'E' {
                let field = |kind: u8| {
                    let found = body.split(|b| *b == 0).find_map(|field| field.strip_prefix(&[kind]));
                    String::from_utf8_lossy(found.unwrap_or_default()).into_owned()
                };
                return Ok([field(b'C'), field(b'M'), field(b'D')]);
            }
        }
    }
}

fn initial(mechanism: &str, first: &str) -> (u8, Vec<u8>) {
    let length = u32::try_from(first.len()).unwrap_or(u32::MAX).to_be_bytes();
    (b'p', [mechanism.as_bytes(), b"\0", &length, first.as_bytes()].concat())
}

fn response(last: &str) -> (u8, Vec<u8>) {
    (b'p', last.as_bytes().to_vec())
}

#[test]
fn scram_out_of_order_is_refused_in_postgresqls_words() -> Result<()> {
    run(async {
        let (server, proxy) = super::proxy(1)?;
        let scram = "SCRAM-SHA-256";
        let no_data = (b'p', [scram.as_bytes(), b"\0\xff\xff\xff\xff"].concat());
        let scripts: Vec<Vec<(u8, Vec<u8>)>> = vec![
            vec![(b'Q', b"SELECT 1\0".to_vec())],
            vec![response("c=biws,r=x,p=AAAA")],
            vec![initial("SCRAM-SHA-1", "n,,n=,r=x")],
            vec![initial("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,n=,r=x")],
            vec![initial(scram, "")],
            vec![initial(scram, "p=tls-server-end-point,,n=,r=x")],
            vec![initial(scram, "n,a=root,n=,r=x")],
            vec![initial(scram, "n,,m=x,n=,r=x")],
            vec![initial(scram, "n,,r=x,n=")],
            vec![initial(scram, "q,,n=,r=x")],
            vec![initial(scram, "n,,n=,r=\u{e9}")],
            vec![initial(scram, "n,,n=,r=x"), (b'Q', b"SELECT 1\0".to_vec())],
            vec![initial(scram, "n,,n=,r=x"), initial(scram, "n,,n=,r=x")],
            vec![initial(scram, "n,,n=,r=x"), response("n,,n=,r=x")],
            vec![initial(scram, "n,,n=,r=x"), response("")],
            vec![initial(scram, "n,,n=,r=x"), response("c=eSws,r=x,p=AAAA")],
            vec![initial(scram, "n,,n=,r=x"), response("c=biws,r=x,p=AAAA")],
            vec![initial(scram, "n,,n=,r=x"), response("c=biws,r=x")],
            vec![
                initial(scram, "n,,n=,r=x"),
                response("c=biws,r=x,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ],
            vec![no_data.clone(), response("x")],
            vec![no_data, response("n,,n=,r=x"), response("c=biws,r=x,p=")],
        ];
        for script in &scripts {
            let theirs =
                Raw::start(TcpStream::connect(server.address()).await?).await?.offend(script).await?;
            let ours = Raw::start(TcpStream::connect(proxy.address()).await?).await?.offend(script).await?;
            assert_eq!(ours, theirs, "{script:?}");
        }
        // PostgreSQL hangs up on these; the length alone is enough for that.
        let mut raw = Raw::start(TcpStream::connect(proxy.address()).await?).await?;
        raw.0.write_all(b"p\0\x10\0\0").await?;
        assert_eq!(raw.offend(&[]).await?[..2], ["08P01", "invalid message length"]);
        Ok(())
    })
}

/// TLS as PostgreSQL starts it.
async fn secured(
    address: std::net::SocketAddr,
    ca: &Path,
) -> Result<Raw<tokio_rustls::client::TlsStream<TcpStream>>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).await?;
    ensure!(stream.read_u8().await? == b'S', "no TLS");
    Raw::start(harness::tls::connect(stream, "localhost", ca, None).await?).await
}

#[test]
fn whoever_takes_the_offer_of_binding_away_is_found_out() -> Result<()> {
    run(async {
        let (server, front) = (Postgres::builder().tls().start()?, Front::new()?);
        let proxy = bound(&server, &front, BOUND)?;
        let trusted = server.authority().context("the server has TLS")?.certificate();
        let plus = "SCRAM-SHA-256-PLUS";
        let bound = initial(plus, "p=tls-server-end-point,,n=,r=x");
        for script in [
            vec![initial("SCRAM-SHA-256", "y,,n=,r=x")],
            vec![initial("SCRAM-SHA-256", "p=tls-server-end-point,,n=,r=x")],
            vec![initial(plus, "n,,n=,r=x")],
            vec![initial(plus, "y,,n=,r=x")],
            vec![initial(plus, "p=tls-unique,,n=,r=x")],
            // Bound to another certificate than the one that was shown.
            vec![bound.clone(), response("c=cD10bHMtc2VydmVyLWVuZC1wb2ludCwsQUFBQQ==,r=x,p=AAAA")],
            vec![bound, response("c=biws,r=x,p=AAAA")],
        ] {
            let theirs = secured(server.address(), &trusted).await?.offend(&script).await?;
            let ours =
                secured(proxy.address(), &front.authority.certificate()).await?.offend(&script).await?;
            assert_eq!(ours, theirs, "{script:?}");
        }
        Ok(())
    })
}

const BY_CERTIFICATE: &str = "
listeners: [{address: $LISTEN, tls: {certificate: $CERT, key: $KEY, client_ca: $CA, client_auth: optional}}]
admin: {address: $ADMIN}
databases: {shop: {endpoints: [$SERVER]}}
users:
  app: {certificates: [app.internal, '*.apps.internal'], server_password: secret}
  both: {password: other, certificates: [CN=127.0.0.1], server_user: app, server_password: secret}
  legacy: {password: secret}
";

#[test]
fn a_certificate_logs_in_those_whom_it_names() -> Result<()> {
    let (server, front) = (Postgres::start()?, Front::new()?);
    let builder = Proxy::of(Kind::Postgres).config(BY_CERTIFICATE).set("SERVER", server.address());
    let builder = builder.set("CERT", &front.certificate).set("KEY", &front.key);
    let proxy = builder.set("CA", front.authority.certificate().display()).start()?;
    let stranger = tempfile::tempdir()?;
    let stranger = Authority::new(stranger.path()).map(|authority| (authority, stranger))?;
    let query = |certificate: Option<(&Authority, &str)>, login: &str| {
        let shown = match certificate {
            Some((authority, name)) => {
                let issued = authority.issue("client", &[name])?;
                format!("sslcert={} sslkey={}", issued.certificate.display(), issued.key.display())
            }
            None => String::new(),
        };
        psql(&proxy, &format!("{login} {shown} {}", front.verified()), "SELECT current_user")
    };
    let ours = |name| Some((&front.authority, name));
    for (certificate, login) in [
        (ours("app.internal"), "user=app"),
        (ours("x.apps.internal"), "user=app"),
        // Either does: a certificate of this name, or else the password.
        (ours("127.0.0.1"), "user=both"),
        (ours("app.internal"), "user=both password=other"),
        (None, "user=both password=other"),
    ] {
        assert_eq!(said(&query(certificate, login)?).context(login)?, "app");
    }
    for (certificate, login, complaint_has) in [
        (ours("other.internal"), "user=app", "certificate authentication failed for user \"app\""),
        // The common name is no alternative name, and the other way round.
        (ours("127.0.0.1"), "user=app", "certificate authentication failed"),
        (ours("app.internal"), "user=both password=wrong", "password authentication failed"),
        (ours("app.internal"), "user=legacy password=wrong", "password authentication failed"),
        (None, "user=app password=secret", "connection requires a valid client certificate"),
        (Some((&stranger.0, "app.internal")), "user=app", "alert"),
    ] {
        let told = complaint(&query(certificate, login)?).with_context(|| login.to_owned())?;
        ensure!(told.contains(complaint_has), "{login}: {told}");
    }
    Ok(())
}

/// With a verifier and nothing else, a client's proof is good for the server as well, if that keeps the same verifier.
#[test]
fn what_a_client_proves_to_us_it_proves_to_the_server() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        let verifier = "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'";
        let config = "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
databases: {shop: {endpoints: [$SERVER]}}
users: {app: {password: '$VERIFIER'}}
";
        let builder = Proxy::of(Kind::Postgres).config(config).set("SERVER", server.address());
        let proxy = builder.set("VERIFIER", server.sql("shop", verifier)?).start()?;
        let login = "user=app password=secret dbname=shop";
        let client = super::connect_as(&proxy, login).await?;
        assert_eq!(super::text(&client, "SELECT current_user").await?, "app");
        // A reload takes nothing away: the pool makes new connections as before.
        proxy.signal(harness::Signal::HUP)?;
        proxy.log().expect("reloaded")?;
        server.sql("shop", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")?;
        assert_eq!(super::text(&client, "SELECT current_user").await?, "app");
        // The same password, but another salt: our verifier is not the server's any more.
        server.sql("shop", "ALTER ROLE app PASSWORD 'secret'")?;
        server.sql("shop", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")?;
        let refused = super::code(super::text(&client, "SELECT 1").await);
        assert_eq!(refused, tokio_postgres::error::SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
        Ok(())
    })
}
