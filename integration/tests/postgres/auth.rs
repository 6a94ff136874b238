//! How clients prove who they are: channel binding, certificates, passwords that only the server knows.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use harness::{Authority, Kind, Postgres, Proxy, paths, python};

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
pub(super) struct Front {
    _folder: tempfile::TempDir,
    pub(super) authority: Authority,
    certificate: String,
    key: String,
}

impl Front {
    pub(super) fn new() -> Result<Front> {
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

pub(super) const BOUND: &str = "
listeners: [{address: $LISTEN, tls: {certificate: $CERT, key: $KEY}}]
admin: {address: $ADMIN}
databases:
  shop: {endpoints: [$SERVER], channel_binding: require, tls: {ca: $CA}}
  loose: {endpoints: [$SERVER], dbname: shop, tls: {ca: $CA}}
users:
  app: {password: secret}
  legacy: {password: secret}
";

pub(super) fn bound(server: &Postgres, front: &Front, config: &str) -> Result<Proxy> {
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
    let query = |kind: &str, binding: &str| {
        let front = Front::new()?;
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-nodes", "-subj", "/CN=localhost", "-days", "1", "-newkey"]);
        openssl.args(kind.split(' ')).args(["-keyout", &front.key, "-out", &front.certificate]);
        ensure!(harness::run(&mut openssl)?.status.success(), "openssl makes no certificate of {kind}");
        let proxy = bound(&server, &front, BOUND)?;
        let login = format!("user=app password=secret channel_binding={binding} sslmode=require");
        psql(&proxy, &login, "SELECT 1")
    };
    for kind in [
        "rsa:2048 -sha1",
        "rsa:2048 -sha512",
        "rsa:2048 -sha384 -sigopt rsa_padding_mode:pss",
        "ec -pkeyopt ec_paramgen_curve:P-384 -sha384",
    ] {
        assert_eq!(said(&query(kind, "require")?).context(kind)?, "1");
    }
    // To one without a hash nothing can be bound; who does not insist gets in.
    assert_eq!(said(&query("ed25519", "prefer")?)?, "1");
    assert!(complaint(&query("ed25519", "require")?)?.contains("did not offer"));
    Ok(())
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
        // Until they are gone: a query that crosses a server's farewell is not sent again.
        let end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'app'";
        // A reload takes nothing away: the pool makes new connections as before.
        proxy.signal(harness::Signal::HUP)?;
        proxy.log().expect("reloaded")?;
        server.sql("shop", end)?;
        assert_eq!(super::text(&client, "SELECT current_user").await?, "app");
        // The same password, but another salt: our verifier is not the server's any more.
        server.sql("shop", "ALTER ROLE app PASSWORD 'secret'")?;
        server.sql("shop", end)?;
        let refused = super::code(super::text(&client, "SELECT 1").await);
        assert_eq!(refused, tokio_postgres::error::SqlState::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION);
        Ok(())
    })
}

/// Whatever is logged, and whatever the admin server shows, at the level that tells most.
#[test]
fn no_password_is_ever_shown() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        server.sql(
            "shop",
            "ALTER ROLE app PASSWORD 'hidden-app'; ALTER ROLE postgres PASSWORD 'hidden-asker'",
        )?;
        let stored = server.sql("shop", "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")?;
        let (start, logins) = (
            "
listeners: [{address: $LISTEN}]
admin: {address: $ADMIN}
log: {level: trace}
databases: {shop: {endpoints: [$SERVER]}}
",
            [
                "auth: passthrough",
                "auth_query: {database: shop, user: postgres, password: hidden-asker}",
                "users: {app: {password: hidden-app}}",
            ],
        );
        for how in logins {
            let config = format!("{start}{how}");
            let proxy = Proxy::of(Kind::Postgres).config(&config).set("SERVER", server.address()).start()?;
            let client = super::connect_as(&proxy, "user=app password=hidden-app dbname=shop").await?;
            assert_eq!(super::text(&client, "SELECT current_user").await?, "app");
            assert!(super::connect_as(&proxy, "user=app password=hidden-wrong dbname=shop").await.is_err());
            proxy.log().expect("a login failed")?;
            let mut shown = proxy.log().lines().join("\n");
            for page in ["/api/v1/config", "/api/v1/status", "/metrics", "/"] {
                shown.push_str(&proxy.get(page)?.text());
            }
            assert!(shown.contains("\"TRACE\"") && shown.contains("databases"), "{shown}");
            for secret in ["hidden-", stored.rsplit('$').next().unwrap_or(&stored)] {
                assert!(!shown.contains(secret), "{how}: {secret} in {shown}");
            }
        }
        Ok(())
    })
}
